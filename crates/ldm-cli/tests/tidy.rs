//! The invariants of docs/architecture.md that a text can show: each violation is named with file and line.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]

#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ldm_pipelines::ModelFile;
use ldm_train::RunConfig;
use serde_json::Value;

use source::{code, found, lenient, loose_attributes, without_tests};

/// What a crate may know of ours; those not in the list may not exist.
const KNOWS: [(&str, &[&str]); 14] = [
    ("ldm-libtorch", &[]),
    ("ldm-core", &["ldm-libtorch"]),
    ("ldm-autoencoder", RANK_2),
    ("ldm-unet", RANK_2),
    ("ldm-schedulers", RANK_2),
    ("ldm-conditioning", RANK_2),
    ("ldm-data", RANK_2),
    ("ldm-metrics", RANK_2),
    (
        "ldm-pipelines",
        &["ldm-core", "ldm-libtorch", "ldm-autoencoder", "ldm-unet", "ldm-schedulers", "ldm-conditioning"],
    ),
    ("ldm-train", BELOW_TRAINING),
    ("ldm", BELOW_THE_FACADE),
    ("ldm-cli", BELOW_THE_COMMAND),
    ("ldm-benches", BELOW_THE_COMMAND),
    ("xtask", &[]), // it fetches libtorch, so nothing it needs may need it
];
const RANK_2: &[&str] = &["ldm-core", "ldm-libtorch"];
const BELOW_THE_COMMAND: &[&str] = &[
    "ldm-libtorch",
    "ldm-core",
    "ldm-autoencoder",
    "ldm-unet",
    "ldm-schedulers",
    "ldm-conditioning",
    "ldm-data",
    "ldm-metrics",
    "ldm-pipelines",
    "ldm-train",
    "ldm",
];
const BELOW_THE_FACADE: &[&str] = BELOW_THE_COMMAND.split_at(BELOW_THE_COMMAND.len() - 1).0;
const BELOW_TRAINING: &[&str] = BELOW_THE_FACADE.split_at(BELOW_THE_FACADE.len() - 1).0;

/// Words that draw random numbers, reseed, or have parameters drawn.
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
/// Where they may stand, besides ldm-core/src/noise.rs and ldm-libtorch.
const MAY_DRAW: [(&str, &[&str], &str); 10] = [
    (
        "crates/ldm-core/src/nn/conv.rs",
        &["Init::Uniform"],
        "initialization of convolutions and linear layers",
    ),
    ("crates/ldm-autoencoder/src/codebook.rs", &["Init::Uniform"], "initialization of the codebook"),
    ("crates/ldm-conditioning/src/class.rs", &["Init::Randn"], "initialization of the table of classes"),
    ("crates/ldm-conditioning/src/clip_text.rs", &["Init::Randn"], "initialization of tokens and positions"),
    (
        "crates/ldm-conditioning/src/token_encoder.rs",
        &["Init::Randn"],
        "initialization of tokens and positions",
    ),
    ("crates/ldm-unet/src/pool.rs", &["Init::Randn"], "initialization of the positional embedding"),
    ("crates/ldm-unet/src/unet.rs", &["Init::Randn"], "initialization of the table of labels"),
    (
        "crates/ldm-train/src/first_stage_loss/discriminator.rs",
        &["Init::Randn", "Init::Uniform"],
        "initialization of the discriminator's convolutions",
    ),
    (
        "crates/ldm-train/src/first_stage_loss/norm.rs",
        &["Init::Randn"],
        "initialization of the discriminator's batch normalization",
    ),
    ("crates/ldm-train/src/parts.rs", &["set_seed"], "initialization follows from the run's seed"),
];

/// Structs and enums that are read, and ignore what they do not know.
const MAY_IGNORE_FIELDS: [(&str, &str, &str); 2] = [
    (
        "crates/ldm-pipelines/src/config.rs",
        "ModelConfig",
        "`base_learning_rate` stands beside `target`; a second pass refuses the rest",
    ),
    (
        "crates/ldm-core/src/weights/shards.rs",
        "Index",
        "other programs write it, and what they add says nothing about where a tensor lies",
    ),
];

// ---- Sources as text -----------------------------------------------------------------------------------------------

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Files under `folder` whose names end in `end`, by their paths from the root, sorted.
fn files(folder: &str, end: &str) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let (root, mut found) = (root(), Vec::new());
    walk(&root.join(folder), &mut found);
    let mut names: Vec<String> = found
        .iter()
        .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/"))
        .filter(|name| name.ends_with(end))
        .collect();
    names.sort();
    names
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Rust files of the workspace.
fn rust_files() -> Vec<String> {
    [files("crates", ".rs"), files("benches", ".rs")].concat()
}

/// Files that are part of a crate, not of its tests or benches; with their code, tests cut off.
fn sources() -> Vec<(String, String)> {
    let names = rust_files().into_iter().filter(|name| name.contains("/src/"));
    let text = |name: &str| without_tests(&code(&read(name))).to_owned();
    names.map(|name| (name.clone(), text(&name))).collect()
}

#[track_caller]
fn none(rule: &str, violations: Vec<String>) {
    let list = violations.iter().fold(String::new(), |mut list, each| {
        let _ = write!(list, "\n  {each}");
        list
    });
    assert!(violations.is_empty(), "{rule}:{list}");
}

// ---- Crates --------------------------------------------------------------------------------------------------------

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// What `name` imports and may not, of `imports`; a crate without a rank may import nothing of ours.
fn imports_too_many<'a>(name: &str, imports: &[&'a str]) -> Vec<&'a str> {
    let knows = KNOWS.iter().find(|(each, _)| *each == name).map_or(&[][..], |(_, knows)| knows);
    let ours = |import: &str| KNOWS.iter().any(|(each, _)| *each == import);
    imports.iter().copied().filter(|import| ours(import) && !knows.contains(import)).collect()
}

#[test]
fn a_crate_imports_crates_below_it_alone() {
    let mut violations = Vec::new();
    let mut seen = BTreeSet::new();
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        seen.insert(name.to_owned());
        if !KNOWS.iter().any(|(each, _)| *each == name) {
            violations.push(format!("{name}: has no rank, see docs/architecture.md"));
        }
        let all = package["dependencies"].as_array().unwrap();
        let imports: Vec<&str> = all
            .iter()
            .filter(|each| each["kind"] != "dev")
            .map(|each| each["name"].as_str().unwrap())
            .collect();
        let folder = if name == "ldm-benches" { "benches".to_owned() } else { format!("crates/{name}") };
        let manifest = format!("{folder}/Cargo.toml");
        let text = read(&manifest);
        for import in imports_too_many(name, &imports) {
            let at = text.lines().position(|each| each.starts_with(import)).map_or(1, |at| at + 1);
            violations.push(format!("{manifest}:{at}: {name} may not know {import}"));
        }
    }
    none("a crate imports crates of lower rank", violations);
    assert_eq!(seen.len(), KNOWS.len(), "every crate with a rank is in the workspace");
}

#[test]
fn every_crate_has_its_papers() {
    let mut violations = Vec::new();
    for package in packages() {
        let (name, version) = (package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        if name == "ldm-benches" {
            continue;
        }
        let folder = root().join("crates").join(name);
        if !folder.join("README.md").is_file() {
            violations.push(format!("crates/{name}/README.md: missing"));
        }
        let changes = std::fs::read_to_string(folder.join("CHANGELOG.md")).unwrap_or_default();
        if !has_version(&changes, version) {
            violations.push(format!("crates/{name}/CHANGELOG.md:1: says nothing of {version}"));
        }
        if !["ldm-cli", "xtask"].contains(&name) && !folder.join("benches").is_dir() {
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
fn unsafe_stands_in_one_place() {
    let ffi = ["crates/ldm-libtorch/src/ffi.rs", "crates/ldm-libtorch/src/ffi/"];
    let names = rust_files().into_iter().filter(|name| !ffi.iter().any(|ffi| name.starts_with(ffi)));
    let violations = names.flat_map(|name| found(&name, &code(&read(&name)), &["unsafe"])).collect();
    none("`unsafe` stands in crates/ldm-libtorch/src/ffi.rs and ffi/ alone", violations);
    assert!(!found("ffi.rs", &code(&read("crates/ldm-libtorch/src/ffi.rs")), &["unsafe"]).is_empty());
}

#[test]
fn no_file_is_a_drawer() {
    let drawers = ["utils.rs", "common.rs", "helpers.rs", "types.rs"];
    let is_drawer = |name: &String| drawers.iter().any(|drawer| name.ends_with(&format!("/{drawer}")));
    none("a file is named after what is in it", rust_files().into_iter().filter(is_drawer).collect());
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
        let may = MAY_DRAW.iter().find(|(file, ..)| *file == name).map_or(&[][..], |(_, words, _)| words);
        for word in DRAWS {
            let hits = found(&name, &text, &[word]);
            if may.contains(&word) && !hits.is_empty() {
                used.insert(name.clone());
            } else {
                violations.extend(hits);
            }
        }
    }
    none("noise comes from a NoiseSource", violations);
    let stale =
        MAY_DRAW.iter().filter(|(file, ..)| !used.contains(*file)).map(|(file, ..)| (*file).to_owned());
    none("these no longer draw: take them out of MAY_DRAW", stale.collect());
}

#[test]
fn weights_enter_strictly() {
    let loads = ["VarStore::load", "vs.load(", "vs().load(", "vs_mut().load(", "load_partial("];
    let violations = sources().iter().flat_map(|(name, text)| found(name, text, &loads)).collect();
    none(
        "VarStore::load is never called: Checkpoint::load_into says every name that does not fit",
        violations,
    );
}

#[test]
fn only_programs_print() {
    let prints = ["print!", "println!", "eprint!", "eprintln!", "dbg!"];
    let library = |name: &str| !name.starts_with("crates/ldm-cli/") && !name.starts_with("crates/xtask/");
    let violations = sources()
        .iter()
        .filter(|(name, _)| library(name))
        .flat_map(|(name, text)| found(name, text, &prints))
        .collect();
    none("only ldm-cli and xtask print", violations);
}

#[test]
fn configs_are_read_strictly() {
    let (mut violations, mut used) = (Vec::new(), 0);
    for (name, text) in sources() {
        violations.extend(loose_attributes(&name, &text));
        for (item, violation) in lenient(&name, &text) {
            if MAY_IGNORE_FIELDS.iter().any(|(file, each, _)| *file == name && *each == item) {
                used += 1;
            } else {
                violations.push(violation);
            }
        }
    }
    none("what is read says deny_unknown_fields, and neither flatten nor untagged", violations);
    assert_eq!(used, MAY_IGNORE_FIELDS.len(), "an exception is no longer one");
}

// ---- Configs -------------------------------------------------------------------------------------------------------

/// ImageSet and first stages that a config names may be absent; reading it opens neither.
#[test]
fn every_config_parses() {
    let (mut violations, mut runs) = (Vec::new(), 0);
    for name in files("configs", ".yaml") {
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
    assert_eq!(files("configs", "").len(), files("configs", ".yaml").len(), "only YAML stands in configs");
}

// ---- The checks themselves -----------------------------------------------------------------------------------------

#[test]
fn the_checks_see_ranks_and_versions() {
    assert_eq!(imports_too_many("ldm-unet", &["ldm-core", "ldm-schedulers", "tch"]), ["ldm-schedulers"]);
    assert_eq!(imports_too_many("ldm-pipelines", &["ldm-data", "ldm-unet"]), ["ldm-data"]);
    assert_eq!(imports_too_many("ldm-benches", &["ldm-cli"]), ["ldm-cli"]);
    assert!(imports_too_many("ldm-train", BELOW_THE_COMMAND).contains(&"ldm-train"));
    assert!(has_version("# Changelog\n\n## 0.1.0\n", "0.1.0") && !has_version("## 0.1.01", "0.1.0"));
}
