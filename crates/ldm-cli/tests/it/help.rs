//! Snapshots of `--help`, of usage errors and of errors. After an intended change: `INSTA_UPDATE=always cargo test -p
//! ldm-cli --test it help`.

use ldm_testing::tiny::{DIFFUSION, FIRST_STAGE};
use ldm_testing::{Sandbox, text};

use crate::LDM;

const COMMANDS: [&[&str]; 40] = [
    &[],
    &["doctor"],
    &["demo"],
    &["data"],
    &["data", "info"],
    &["data", "preview"],
    &["train"],
    &["sample"],
    &["txt2img"],
    &["knn2img"],
    &["retrieve"],
    &["retrieve", "index"],
    &["retrieve", "search"],
    &["retrieve", "neighbors"],
    &["img2img"],
    &["inpaint"],
    &["outpaint"],
    &["upscale"],
    &["layout2img"],
    &["semantic2img"],
    &["redo"],
    &["encode"],
    &["decode"],
    &["reconstruct"],
    &["eval"],
    &["eval", "reconstruction"],
    &["eval", "generation"],
    &["eval", "paired"],
    &["eval", "clip-score"],
    &["eval", "rate-distortion"],
    &["compare-f"],
    &["bench"],
    &["inspect"],
    &["convert"],
    &["weights"],
    &["weights", "list"],
    &["weights", "get"],
    &["completions"],
    &["man"],
    &["help"],
];

/// Exit code and stderr of a command that must fail, without the paths of the sandbox.
fn failure(sandbox: &Sandbox, args: &[&str]) -> String {
    let output = sandbox.run(args);
    let stderr = text(&output.stderr).replace(&sandbox.work().display().to_string(), "WORK");
    assert!(output.stdout.is_empty(), "{args:?}: {}", text(&output.stdout));
    format!("$ ldm {}\nexit code {}\n{stderr}", args.join(" "), output.status.code().unwrap())
}

#[test]
fn help_of_every_command() {
    let sandbox = Sandbox::new(LDM, &[]);
    for command in COMMANDS.iter().filter(|command| **command != ["help"]) {
        let name = if command.is_empty() { "ldm".to_owned() } else { command.join("-") };
        insta::assert_snapshot!(format!("help-{name}"), sandbox.ok(&[command, &["--help"][..]].concat()));
    }
}

#[test]
fn every_command_has_an_example() {
    let sandbox = Sandbox::new(LDM, &[]);
    let groups: [&[&str]; 6] = [&[], &["data"], &["retrieve"], &["eval"], &["weights"], &["help"]];
    for command in COMMANDS.iter().filter(|command| !groups.contains(command)) {
        assert!(sandbox.ok(&[command, &["--help"][..]].concat()).contains("Example"), "{command:?}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let sandbox = Sandbox::new(LDM, &[("first.yaml", FIRST_STAGE)]);
    let cases: [&[&str]; 9] = [
        &["tarin"],
        &["sample"],
        &["train"],
        &["sample", "--model", "x", "--sampler", "eulr"],
        &["train", "first.yaml", "--resume", "first"],
        &["bench"],
        &["eval", "generation"],
        &["compare-f", "--profile", "huge"],
        &["weights", "get", "vgg"],
    ];
    let found: Vec<String> = cases.iter().map(|args| failure(&sandbox, args)).collect();
    insta::assert_snapshot!("usage", found.join("\n"));
}

#[test]
fn errors_exit_with_1() {
    let sandbox = Sandbox::new(LDM, &[("first.yaml", FIRST_STAGE), ("second.yaml", DIFFUSION)]);
    let write = |name: &str, text: &str| std::fs::write(sandbox.path(name), text).unwrap();
    write("typo.yaml", &FIRST_STAGE.replace("num_res_blocks", "num_res_blockz"));
    write("odd.yaml", &FIRST_STAGE.replace("ch: 32", "ch: 48"));
    write("lfs.ckpt", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    write("bad.png", "not an image");
    std::fs::create_dir(sandbox.path("empty")).unwrap();
    let cases: [&[&str]; 16] = [
        &["train", "nowhere.yaml", "--run", "new"],
        &["train", "typo.yaml", "--run", "new"],
        &["train", "odd.yaml", "--run", "new"],
        &["train", "first.yaml", "train.stepz=3", "--run", "new"],
        &["train", "first.yaml", "--run", "new", "--device", "gpu"],
        &["train", "--resume", "empty"],
        &["sample", "--model", "nowhere"],
        &["sample", "--model", "empty"],
        &["sample", "--model", "lfs.ckpt", "--config", "second.yaml"],
        &["inspect", "bad.png"],
        &["data", "info", "empty"],
        &["data", "info", "nowhere.tar"],
        &["compare-f"],
        &["compare-f", "--resume", "empty"],
        &["convert", "empty", "new", "--to", "ldm"],
        &["eval", "generation", "empty", "nowhere.tar"],
    ];
    let found: Vec<String> = cases.iter().map(|args| failure(&sandbox, args)).collect();
    insta::assert_snapshot!("errors", found.join("\n"));
}
