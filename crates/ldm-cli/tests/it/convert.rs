//! `ldm convert`: equal models in every format, and outputs that are complete or absent.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ldm_checkpoint::Checkpoint;
use ldm_core::nn::skip_init;
use ldm_pipelines::{FirstStageModel, ModelFile};
use ldm_testing::{Sandbox, text};
use serde_json::{Map, Value, json};
use tch::Device;

use crate::LDM;

/// A large one, so that writing it takes a while.
const FIRST_STAGE: &str = include_str!("../../../../configs/models/autoencoder/kl-f8.yaml");
const SMALL: &str = include_str!("../../../../configs/experiments/tiny/first-stage-vq-f4.yaml");

fn sandbox() -> Sandbox {
    Sandbox::new(LDM, &[])
}

/// A model folder whose weights are zeros in a sparse file.
fn model(sandbox: &Sandbox, name: &str, config: &str) {
    let folder = sandbox.path(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.yaml"), config).unwrap();
    let config = ModelFile::parse(config, "config.yaml", &[]).unwrap().model.first_stage().unwrap();
    let model = skip_init(|| FirstStageModel::new(&config, Device::Cpu)).unwrap();
    let (mut header, mut at) = (Map::new(), 0);
    for (name, variable) in model.vs.variables() {
        let end = at + 4 * variable.numel();
        header.insert(name, json!({"dtype": "F32", "shape": variable.size(), "data_offsets": [at, end]}));
        at = end;
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + at) as u64).unwrap();
}

/// The names in a folder, sorted.
fn names(sandbox: &Sandbox, folder: &str) -> Vec<String> {
    let entries = sandbox.path(folder).read_dir().unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn formats_contain_the_same_model() {
    let sandbox = sandbox();
    model(&sandbox, "model", SMALL);
    assert_eq!(sandbox.ok(&["convert", "model", "diffusers", "--to", "diffusers"]), "diffusers\n");
    assert_eq!(names(&sandbox, "diffusers"), ["config.json", "diffusion_pytorch_model.safetensors"]);
    sandbox.ok(&["convert", "diffusers", "one.ckpt", "--to", "compvis", "--dtype", "bf16"]);
    let one = Checkpoint::open(sandbox.path("one.ckpt")).unwrap();
    assert_eq!(one.info("decoder.conv_out.weight").unwrap().kind, tch::Kind::BFloat16);
    let yaml = std::fs::read_to_string(sandbox.path("one.yaml")).unwrap();
    assert!(yaml.contains("ldm.models.autoencoder.VQModel") && yaml.contains("torch.nn.Identity"), "{yaml}");
    for model in ["model", "diffusers", "one.ckpt"] {
        let output = sandbox.ok(&["inspect", model]);
        assert!(output.contains("VQ first stage, f = 4"), "{output}");
    }
    let help = sandbox.ok(&["convert", "--help"]);
    assert!(help.contains("Examples:") && help.contains("--to <TO>"), "{help}");
}

#[test]
fn existing_files_are_not_replaced() {
    let sandbox = sandbox();
    model(&sandbox, "model", SMALL);
    std::fs::create_dir(sandbox.path("home")).unwrap();
    std::fs::write(sandbox.path("home/letter.txt"), "dear").unwrap();
    sandbox.err(&["convert", "model", "home", "--to", "ldm"], 1, "--force");
    let foreign =
        "home: expected only files of a converted model in a folder that is replaced, got home/letter.txt";
    sandbox.err(&["convert", "model", "home", "--to", "ldm", "--force"], 1, foreign);
    // The same for files beside and below those of a model.
    std::fs::create_dir_all(sandbox.path("checkout/vae/.git")).unwrap();
    std::fs::write(sandbox.path("checkout/config.json"), "{}").unwrap();
    let args = ["convert", "model", "checkout", "--to", "diffusers", "--force"];
    sandbox.err(&args, 1, "got checkout/vae/.git");
    std::fs::remove_dir_all(sandbox.path("checkout")).unwrap();
    sandbox.err(
        &["convert", "home", "new", "--to", "ldm"],
        1,
        "expected model_index.json, or model.safetensors",
    );
    sandbox.err(&["convert", "model", "new", "--to", "ldm", "--dtype", "f8"], 1, "f8");
    assert_eq!(names(&sandbox, "home"), ["letter.txt"]);
    sandbox.ok(&["convert", "model", "model", "--to", "ldm", "--force"]);
    assert_eq!(names(&sandbox, "."), ["home", "model"]);
    // A checkpoint and its config replace a checkpoint and its config.
    let compvis = |out: &str| ["convert", "model", out, "--to", "compvis", "--force"].map(str::to_owned);
    let refused = |out: &str, expected: &str| {
        let args = compvis(out);
        sandbox.err(&args.each_ref().map(String::as_str), 1, expected);
    };
    for out in ["one.ckpt", "one.ckpt", "two.safetensors", "two.safetensors"] {
        sandbox.ok(&compvis(out).each_ref().map(String::as_str));
    }
    let other = "in a file that is replaced, got other content; try another path";
    refused("home/letter.txt", &format!("home/letter.txt: expected a checkpoint {other}"));
    std::fs::write(sandbox.path("letter.docx"), b"PK\x03\x04 dear").unwrap();
    refused("letter.docx", &format!("letter.docx: expected a checkpoint {other}"));
    std::fs::write(sandbox.path("one.yaml"), "model: {target: kl}\ndata: {target: mine}\n").unwrap();
    refused("one.ckpt", &format!("one.yaml: expected a config of `model` alone {other}"));
}

#[test]
fn a_full_disk_leaves_nothing() {
    let sandbox = sandbox();
    model(&sandbox, "model", SMALL);
    std::fs::create_dir(sandbox.path("disk")).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(sandbox.path("disk"))
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user cannot mount a tmpfs");
        return;
    }
    let outputs: Vec<(String, Output)> = [("a", "ldm"), ("b.ckpt", "compvis"), ("c", "diffusers")]
        .map(|(out, to)| {
            let out = format!("disk/{out}");
            let output = sandbox.command(&["convert", "model", &out, "--to", to]).output().unwrap();
            (out, output)
        })
        .into();
    let left = names(&sandbox, "disk");
    assert!(Command::new("umount").arg(sandbox.path("disk")).status().unwrap().success());
    for (out, output) in outputs {
        assert_eq!(output.status.code(), Some(1), "{out}");
        assert!(text(&output.stderr).contains("No space left on device"), "{out}: {}", text(&output.stderr));
    }
    assert_eq!(left, [""; 0]);
}

/// Returns whether a process has an unfinished file or folder: a name beginning with `.part-`, or an unnamed open file.
fn is_writing(sandbox: &Sandbox, process: u32) -> bool {
    let named = names(sandbox, ".").iter().any(|name| name.starts_with(".part-"));
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let open: Vec<_> = files.filter_map(|file| std::fs::read_link(file.path()).ok()).collect();
    let unnamed =
        |file: &Path| file.starts_with(sandbox.work()) && file.to_string_lossy().ends_with(" (deleted)");
    named || open.iter().any(|file| unnamed(file))
}

#[test]
fn ctrl_c_leaves_nothing() {
    let sandbox = sandbox();
    model(&sandbox, "model", FIRST_STAGE);
    for (out, to) in [("a", "ldm"), ("b.ckpt", "compvis"), ("c", "diffusers")] {
        let mut child = sandbox
            .command(&["convert", "model", out, "--to", to])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while !is_writing(&sandbox, child.id()) {
            assert!(child.try_wait().unwrap().is_none(), "{out}: ended before it could be stopped");
            assert!(begun.elapsed() < Duration::from_secs(30), "{out}");
            std::thread::sleep(Duration::from_millis(1));
        }
        let signaled = Instant::now();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "{out}");
        assert!(signaled.elapsed() < Duration::from_secs(2), "{out}: {:?}", signaled.elapsed());
        assert_eq!(names(&sandbox, "."), ["model"], "{out}");
    }
    assert!(Path::new(&sandbox.path("model/model.safetensors")).is_file());
}
