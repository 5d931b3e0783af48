//! Output on pipes, full disks and terminals.

use std::fs::File;
use std::process::Stdio;

use ldm_testing::tiny::FIRST_STAGE;
use ldm_testing::{Sandbox, text};

use crate::LDM;

fn sandbox() -> Sandbox {
    Sandbox::new(LDM, &[("first.yaml", FIRST_STAGE)])
}

/// Commands that print and need no model.
const PRINTING: [&[&str]; 7] = [
    &["--help"],
    &["--version"],
    &["doctor", "--device", "cpu"],
    &["weights", "list"],
    &["weights", "list", "--json"],
    &["data", "info", "scenes"],
    &["data", "info", "scenes", "--json"],
];

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let sandbox = sandbox();
    for args in PRINTING {
        let mut command = sandbox.command(args);
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        let output =
            command.stdout(write).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(text(&output.stderr), "", "{args:?}");
        assert_eq!(output.status.code(), Some(141), "{args:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let sandbox = sandbox();
    for args in PRINTING {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = sandbox.command(args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let error = text(&output.stderr);
        assert!(error.starts_with("error: stdout: No space left on device"), "{args:?}: {error}");
        assert_eq!((error.lines().count(), output.status.code()), (1, Some(1)), "{args:?}: {error}");
    }
}

#[test]
fn a_closed_pipe_stops_a_command_after_the_file_at_hand() {
    let sandbox = sandbox();
    sandbox.ok(&["train", "first.yaml", "--run", "first", "train.steps=1"]);
    for name in ["0.png", "1.png"] {
        image::RgbImage::from_pixel(16, 16, image::Rgb([90; 3])).save(sandbox.path(name)).unwrap();
    }
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    let mut command = sandbox.command(&["reconstruct", "0.png", "1.png", "--model", "first", "--out", "out"]);
    let output = command.stdout(write).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("", Some(141)));
    // The first path could not be printed: its file is whole, and there is no second one.
    let written = ldm_testing::listing(&sandbox.path("out"));
    assert_eq!(written, [sandbox.path("out/00000.png")]);
    ldm_core::image::read(&written[0]).unwrap();
}

#[test]
fn control_characters_of_files_are_escaped() {
    let sandbox = sandbox();
    let escapes = "\u{1b}]0;title\u{7}\u{9b}31m";
    // A class of a data set, a text of a PNG, a name in a checkpoint, and the path in an error.
    let folder = sandbox.path("set").join(format!("cat{escapes}"));
    std::fs::create_dir_all(&folder).unwrap();
    image::RgbImage::new(8, 8).save(folder.join("0.png")).unwrap();
    let pixels = image::RgbImage::new(8, 8).into();
    let png = ldm_core::image::png(&pixels, &[("parameters", &format!("a {escapes} b\nSteps: 1"))]);
    std::fs::write(sandbox.path("text.png"), png).unwrap();
    let tensor = tch::Tensor::zeros([1], (tch::Kind::Float, tch::Device::Cpu));
    let metadata = [("format".to_owned(), escapes.to_owned())].into();
    ldm_checkpoint::save(sandbox.path("odd.safetensors"), &[(format!("w{escapes}"), tensor)], &metadata)
        .unwrap();
    let missing = format!("none{escapes}.tar");
    for args in [
        &["data", "info", "set"] as &[&str],
        &["data", "info", "set", "--json"],
        &["inspect", "text.png"],
        &["inspect", "text.png", "--json"],
        &["inspect", "odd.safetensors"],
        &["inspect", "odd.safetensors", "--json"],
        &["decode", "odd.safetensors", "--model", "odd.safetensors"],
        &["data", "info", &missing],
    ] {
        let output = sandbox.run(args);
        let printed = text(&output.stdout) + &text(&output.stderr);
        assert!(!printed.is_empty(), "{args:?}");
        assert!(!printed.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{args:?}: {printed:?}");
        if args.contains(&"--json") {
            serde_json::from_str::<serde_json::Value>(&printed).unwrap();
        }
    }
}

#[test]
fn a_cause_is_not_repeated() {
    let sandbox = sandbox();
    for args in [
        &["inspect", "none"] as &[&str],
        &["train", "none.yaml"],
        &["txt2img", "--prompts-from", "none", "--model", "x"],
    ] {
        let error = text(&sandbox.run(args).stderr);
        assert_eq!(error.matches("No such file or directory").count(), 1, "{args:?}: {error}");
    }
}
