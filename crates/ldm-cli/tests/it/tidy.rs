//! The invariants of the workspace that its text shows: each violation is reported with file and line.

mod source;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ldm_pipelines::ModelFile;
use ldm_train::RunConfig;
use serde_json::Value;

use source::{code, found, lenient, loose_attributes, without_tests};

/// The rank of each crate. A crate imports only crates of lower rank, so that siblings never import each other.
const RANKS: [(&str, usize); 23] = [
    ("xtask", 0), // it installs libtorch, so it must not depend on it
    ("ldm-kernels", 0),
    ("ldm-libtorch", 1),
    ("ldm-core", 2),
    ("ldm-checkpoint", 3),
    ("ldm-weights", 3),
    ("ldm-models", 3),
    ("ldm-autoencoder", 4),
    ("ldm-unet", 4),
    ("ldm-schedulers", 4),
    ("ldm-conditioning", 4),
    ("ldm-metrics", 4),
    ("ldm-retrieval", 4),
    ("ldm-data", 5),
    ("ldm-pipelines", 5),
    ("ldm-train", 6),
    ("ldm", 7),
    ("ldm-study", 7),
    ("ldm-bench", 7),
    ("ldm-serve", 8),
    ("ldm-cli", 9),
    ("ldm-benches", 9),
    ("ldm-testing", 9), // only tests may import it
];

/// Crates without benches, each with its reason.
const NO_BENCHES: [(&str, &str); 9] = [
    ("ldm-models", "its time is reading a file"),
    ("ldm-cli", "its time is that of the libraries"),
    ("xtask", "it downloads and links"),
    ("ldm-bench", "it is one"),
    ("ldm-study", "its time is training and sampling"),
    ("ldm-weights", "its time is the network's"),
    ("ldm-testing", "it is not published"),
    ("ldm", "a facade"),
    ("ldm-serve", "its time is sampling; its load test measures the rest"),
];

/// Functions that draw random numbers, set a seed, or initialize parameters at random.
const DRAWS: [&str; 12] = [
    "randn",
    "rand",
    "randn_like",
    "rand_like",
    "randint",
    "randint_like",
    "randperm",
    "manual_seed",
    "set_seed",
    "Init::Randn",
    "Init::Uniform",
    "Init::Kaiming",
];
/// Exceptions, by path, in addition to ldm-core/src/noise.rs and ldm-libtorch.
const MAY_DRAW: [(&str, &[&str], &str); 11] = [
    (
        "crates/ldm-core/src/nn/conv.rs",
        &["Init::Uniform"],
        "initialization of convolutions and linear layers",
    ),
    ("crates/ldm-autoencoder/src/codebook.rs", &["Init::Uniform"], "initialization of the codebook"),
    ("crates/ldm-conditioning/src/class.rs", &["Init::Randn"], "initialization of the table of classes"),
    ("crates/ldm-conditioning/src/clip/text.rs", &["Init::Randn"], "initialization of tokens and positions"),
    (
        "crates/ldm-conditioning/src/bert/token_encoder.rs",
        &["Init::Randn"],
        "initialization of tokens and positions",
    ),
    (
        "crates/ldm-unet/src/conv_nd.rs",
        &["Init::Uniform"],
        "initialization of convolutions of other dimensions",
    ),
    ("crates/ldm-unet/src/pool.rs", &["Init::Randn"], "initialization of the positional embedding"),
    ("crates/ldm-unet/src/unet.rs", &["Init::Randn"], "initialization of the table of labels"),
    (
        "crates/ldm-train/src/objective/losses/discriminator.rs",
        &["Init::Randn", "Init::Uniform"],
        "initialization of the discriminator's convolutions",
    ),
    (
        "crates/ldm-train/src/objective/losses/norm.rs",
        &["Init::Randn"],
        "initialization of the discriminator's batch normalization",
    ),
    ("crates/ldm-train/src/run/build.rs", &["set_seed"], "initialization follows from the run's seed"),
];

/// Deserialized types that ignore unknown fields.
const MAY_IGNORE_FIELDS: [(&str, &str, &str); 10] = [
    (
        "crates/ldm-pipelines/src/config.rs",
        "ModelConfig",
        "`base_learning_rate` is next to `target`; a second pass refuses other fields",
    ),
    (
        "crates/ldm-checkpoint/src/shards.rs",
        "ShardIndex",
        "other programs write it, and their additions do not locate tensors",
    ),
    ("crates/ldm-serve/src/openai/fields.rs", "ImageFields", "clients of other servers send more"),
    ("crates/ldm-serve/src/sdapi/extras.rs", "ExtrasForm", "clients of other servers send more"),
    ("crates/ldm-serve/src/sdapi/extras.rs", "NamedImage", "clients of other servers send more"),
    ("crates/ldm-serve/src/sdapi/form.rs", "TextForm", "clients of other servers send more"),
    ("crates/ldm-serve/src/sdapi/form.rs", "ImageForm", "clients of other servers send more"),
    ("crates/ldm-serve/src/sdapi/png_info.rs", "PngInfoForm", "clients of other servers send more"),
    ("crates/ldm-serve/src/sdapi/progress.rs", "TaskQuery", "clients of other servers send more"),
    ("crates/ldm-serve/src/sdapi/progress.rs", "TaskQuestion", "clients of other servers send more"),
];

// ---- Sources as text -----------------------------------------------------------------------------------------------

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Files under `folder` whose names end in `end`, by their paths from the root, sorted.
pub(crate) fn files(folder: &str, end: &str) -> Vec<String> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() { collect(&path, found) } else { found.push(path) }
        }
    }
    let (root, mut found) = (root(), Vec::new());
    collect(&root.join(folder), &mut found);
    let mut names: Vec<String> = found
        .iter()
        .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/"))
        .filter(|name| name.ends_with(end))
        .collect();
    names.sort();
    names
}

pub(crate) fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Rust files of the workspace.
fn rust_files() -> Vec<String> {
    [files("crates", ".rs"), files("benches", ".rs")].concat()
}

/// Source files of the crates, with their code without unit tests.
fn sources() -> Vec<(String, String)> {
    let names = rust_files().into_iter().filter(|name| name.contains("/src/"));
    let text = |name: &str| without_tests(&code(&read(name))).to_owned();
    names.map(|name| (name.clone(), text(&name))).collect()
}

#[track_caller]
pub(crate) fn none(rule: &str, violations: Vec<String>) {
    let list = violations.iter().fold(String::new(), |mut list, each| {
        let _ = write!(list, "\n  {each}");
        list
    });
    assert!(violations.is_empty(), "{rule}:{list}");
}

// ---- Crates --------------------------------------------------------------------------------------------------------

pub(crate) fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn rank(name: &str) -> Option<usize> {
    RANKS.iter().find(|(each, _)| *each == name).map(|(_, rank)| *rank)
}

/// Returns those of `imports` that `name` may not import.
fn refused<'a>(name: &str, imports: &[&'a str]) -> Vec<&'a str> {
    let own = rank(name).unwrap_or(0);
    imports.iter().copied().filter(|import| rank(import).is_some_and(|rank| rank >= own)).collect()
}

#[test]
fn crates_import_only_lower_ranks() {
    let mut violations = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        if rank(name).is_none() {
            violations.push(format!("{name}: expected a rank in RANKS"));
        }
        let imports: Vec<&str> = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|each| each["kind"] != "dev")
            .map(|each| each["name"].as_str().unwrap())
            .collect();
        violations.extend(refused(name, &imports).iter().map(|import| format!("{name} imports {import}")));
    }
    none("a crate imports crates of lower rank", violations);
}

#[test]
fn every_crate_has_readme_changelog_and_benches() {
    let mut violations = Vec::new();
    for package in packages() {
        let (name, version) = (package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        let folder = root().join("crates").join(name);
        if ["ldm-benches", "ldm-testing"].contains(&name) {
            continue;
        }
        if !folder.join("README.md").is_file() {
            violations.push(format!("crates/{name}/README.md: missing"));
        }
        let changes = std::fs::read_to_string(folder.join("CHANGELOG.md")).unwrap_or_default();
        if !has_version(&changes, version) {
            violations.push(format!("crates/{name}/CHANGELOG.md:1: expected a section for {version}"));
        }
        let exempt = NO_BENCHES.iter().any(|(each, _)| *each == name);
        if !exempt && !folder.join("benches").is_dir() {
            violations.push(format!("crates/{name}/benches: missing"));
        }
    }
    none("every crate has README.md, CHANGELOG.md with its version, and benches", violations);
}

fn has_version(changelog: &str, version: &str) -> bool {
    changelog
        .lines()
        .any(|line| line.strip_prefix("## ").is_some_and(|rest| rest.split(' ').next() == Some(version)))
}

// ---- Sources -------------------------------------------------------------------------------------------------------

#[test]
fn files_are_named_after_their_contents() {
    let vague = ["utils.rs", "common.rs", "helpers.rs", "types.rs"];
    let is_vague = |name: &String| vague.iter().any(|each| name.ends_with(&format!("/{each}")));
    none("a file is named after its contents", rust_files().into_iter().filter(is_vague).collect());
}

#[test]
fn files_are_short() {
    let violations = rust_files().into_iter().filter(|name| name.contains("/src/")).filter_map(|name| {
        let lines = read(&name).lines().count();
        (lines > 400).then(|| format!("{name}:401: {lines} lines"))
    });
    none("a source file has at most 400 lines", violations.collect());
}

#[test]
fn noise_has_one_source() {
    let (mut violations, mut used) = (Vec::new(), BTreeSet::new());
    for (name, text) in sources() {
        if name == "crates/ldm-core/src/noise.rs" || name.starts_with("crates/ldm-libtorch/src/") {
            continue;
        }
        let may = MAY_DRAW.iter().find(|(file, ..)| name == *file).map_or(&[][..], |(_, words, _)| words);
        for word in DRAWS {
            let hits = found(&name, &text, &[word]);
            if may.contains(&word) && !hits.is_empty() {
                used.extend(MAY_DRAW.iter().map(|(file, ..)| *file).filter(|file| name == **file));
            } else {
                violations.extend(hits);
            }
        }
    }
    none("noise comes from a NoiseSource", violations);
    let stale =
        MAY_DRAW.iter().filter(|(file, ..)| !used.contains(*file)).map(|(file, ..)| (*file).to_owned());
    none("no random numbers here: remove it from MAY_DRAW", stale.collect());
}

#[test]
fn configs_are_read_strictly() {
    let (mut violations, mut used) = (Vec::new(), 0);
    for (name, text) in sources() {
        violations.extend(loose_attributes(&name, &text));
        for (item, violation) in lenient(&name, &text) {
            if MAY_IGNORE_FIELDS.iter().any(|(file, each, _)| name == *file && *each == item) {
                used += 1;
            } else {
                violations.push(violation);
            }
        }
    }
    none("deserialized types have deny_unknown_fields, without flatten and untagged", violations);
    assert_eq!(used, MAY_IGNORE_FIELDS.len(), "an exception is stale: remove it from MAY_IGNORE_FIELDS");
}

/// The versions of the packages of a lock file, by name.
fn locked(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = read(name);
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in text.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.trim_matches('"').to_owned()
        };
        found.entry(value("name = ")).or_default().insert(value("version = "));
    }
    found
}

#[test]
fn fuzz_targets_have_the_versions_of_the_workspace() {
    let [ours, fuzzed] = ["Cargo.lock", "crates/ldm-testing/fuzz/Cargo.lock"].map(locked);
    let differs = |(name, versions): (&String, &BTreeSet<String>)| {
        let known = ours.get(name)?;
        (!versions.is_subset(known)).then(|| format!("{name}: {versions:?}, expected {known:?}"))
    };
    none("a package of both lock files has one version", fuzzed.iter().filter_map(differs).collect());
    assert!(fuzzed.contains_key("libfuzzer-sys") && fuzzed.contains_key("tch"));
}

// ---- Configs -------------------------------------------------------------------------------------------------------

/// Reads every config. This does not open the data and first stages that it names.
#[test]
fn every_config_parses() {
    let (mut violations, mut runs) = (Vec::new(), 0);
    // Configs that name a first stage by its run need the run: the tests of ldm-train read them.
    for name in files("configs", ".yaml").into_iter().filter(|name| !read(name).contains("target: run\n")) {
        let path = root().join(&name);
        let is_run = read(&name).lines().any(|line| line.starts_with("train:"));
        runs += usize::from(is_run);
        let parsed = if is_run {
            RunConfig::read(&path, &[]).map(drop)
        } else {
            ModelFile::read(&path, &[]).map(drop)
        };
        if let Err(error) = parsed {
            violations.push(error.to_string());
        }
    }
    none("every file in configs parses", violations);
    assert!(runs > 2);
    assert_eq!(files("configs", "").len(), files("configs", ".yaml").len(), "configs contains only YAML");
}

// ---- The checks themselves -----------------------------------------------------------------------------------------

#[test]
fn checks_of_ranks_and_versions() {
    assert_eq!(refused("ldm-unet", &["ldm-core", "ldm-schedulers", "tch"]), ["ldm-schedulers"]);
    assert_eq!(refused("ldm-benches", &["ldm-cli", "ldm-train"]), ["ldm-cli"]);
    assert_eq!(refused("ldm-train", &["ldm-testing"]), ["ldm-testing"]);
    assert!(has_version("# Changelog\n\n## 0.1.0\n", "0.1.0") && !has_version("## 0.1.01", "0.1.0"));
}
