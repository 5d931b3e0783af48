//! The whole program: stdout, stderr, exit codes, files.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ldm_testing::tiny::{DIFFUSION, FIRST_STAGE};
use ldm_testing::{Sandbox, listing, text};

use crate::LDM;

/// A working folder with two configs.
fn sandbox() -> Sandbox {
    Sandbox::new(LDM, &[("first.yaml", FIRST_STAGE), ("second.yaml", DIFFUSION)])
}

/// [`sandbox`] with the trained runs `first` and `second`.
fn trained() -> Sandbox {
    let sandbox = sandbox();
    sandbox.ok(&["train", "first.yaml", "--run", "first"]);
    sandbox.ok(&["train", "second.yaml", "--run", "second"]);
    sandbox
}

#[test]
fn version_and_doctor() {
    let sandbox = sandbox();
    assert_eq!(sandbox.ok(&["--version"]), "ldm 0.1.0 (tch 0.24.0, libtorch 2.11.0)\n");
    for words in [&["--version", "--verbose"][..], &["-v", "--version"], &["-vV"]] {
        let versions = sandbox.ok(words);
        for start in ["ldm       0.1.0", "libtorch  2.11.0 (", "level     ", "kernels   ", "devices   cpu"] {
            assert!(versions.lines().any(|line| line.starts_with(start)), "{words:?}: {versions}");
        }
    }
    assert!(sandbox.ok(&["doctor", "--device", "cpu"]).contains("works"));
    assert!(sandbox.ok(&["self-check", "--device", "cpu"]).contains("works"));
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let sandbox = sandbox();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = sandbox.ok(&["completions", shell]);
        assert!(script.contains("semantic2img") && script.contains("guidance-scale"), "{shell}: {script}");
    }
    sandbox.err(&["completions", "csh"], 2, "possible values");
    let page = sandbox.ok(&["man"]);
    assert!(page.contains(".TH ldm 1") && page.contains("semantic2img"), "{page}");
    sandbox.ok(&["man", "--out", "pages"]);
    for name in ["ldm.1", "ldm-txt2img.1", "ldm-weights-get.1", "ldm-man.1"] {
        assert!(sandbox.path("pages").join(name).exists(), "{name}");
    }
    let page = std::fs::read_to_string(sandbox.path("pages/ldm-txt2img.1")).unwrap();
    assert!(page.contains("guidance") && page.contains("[default: emoji]"), "{page}");
    sandbox.err(&["man", "--out", "pages"], 1, "expected a new file, got an existing one; try --force");
    sandbox.ok(&["man", "--out", "pages", "--force"]);
}

#[test]
fn errors_are_one_line_and_exit_code_1() {
    let sandbox = sandbox();
    let write = |name: &str, text: &str| std::fs::write(sandbox.path(name), text).unwrap();
    write("typo.yaml", &FIRST_STAGE.replace("num_res_blocks", "num_res_blockz"));
    write("odd.yaml", &FIRST_STAGE.replace("ch: 32", "ch: 48"));
    write("bad.jpg", "not an image");
    write("lfs.ckpt", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    std::fs::create_dir(sandbox.path("empty")).unwrap();
    let train = |config: &'static str| vec!["train", config, "--run", "new"];
    sandbox.err(&train("nowhere.yaml"), 1, "nowhere.yaml");
    sandbox.err(&train("typo.yaml"), 1, "unknown field `num_res_blockz`, expected one of");
    sandbox.err(&train("typo.yaml"), 1, "at line");
    sandbox.err(&train("odd.yaml"), 1, "48");
    sandbox.err(&["train", "first.yaml", "train.stepz=3", "--run", "new"], 1, "unknown field `stepz`");
    sandbox.err(&["train", "first.yaml", "--run", "empty/../first.yaml"], 1, "first.yaml");
    let empty =
        ["train", "first.yaml", "data.params.train={target: images, params: {path: empty}}", "--run", "new"];
    sandbox.err(&empty, 1, "empty");
    sandbox.err(&["data", "info", "empty"], 1, "empty");
    sandbox.err(&["data", "info", "nowhere.tar"], 1, "nowhere.tar");
    if ldm_libtorch::cuda_device_count() == 0 {
        let cuda = ["train", "first.yaml", "--run", "new", "--device", "cuda"];
        sandbox.err(&cuda, 1, "expected a working CUDA device");
    }
    sandbox.err(
        &["train", "first.yaml", "--run", "new", "--device", "gpu"],
        1,
        "expected auto, cpu, cuda or cuda:N",
    );
    sandbox.err(&["train", "--resume", "empty"], 1, "expected a run directory");
    sandbox.err(&["sample", "--model", "nowhere"], 1, "nowhere");
    sandbox.err(&["sample", "--model", "empty"], 1, "expected model_index.json, or model.safetensors");
    sandbox.err(&["sample", "--model", "lfs.ckpt", "--config", "second.yaml"], 1, "git-lfs");
    sandbox.err(&["inspect", "lfs.ckpt"], 1, "git-lfs");
    sandbox.err(&["inspect", "bad.jpg"], 1, "bad.jpg");
}

#[test]
fn training_sampling_and_reconstruction() {
    let sandbox = trained();
    for file in [
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "samples/step-0000012.png",
        "checkpoints/latest",
        "checkpoints/step-0000012/model.safetensors",
        "checkpoints/step-0000012/ema.safetensors",
        "checkpoints/step-0000012/optimizer.safetensors",
        "checkpoints/step-0000012/state.json",
        "model/config.yaml",
        "model/model.safetensors",
    ] {
        assert!(sandbox.path("first").join(file).is_file(), "{file}");
    }
    assert!(sandbox.ok(&["inspect", "first"]).contains("KL first stage, f = 2, 4 latent channels"));
    let inspected: serde_json::Value =
        serde_json::from_str(&sandbox.ok(&["inspect", "second", "--json"])).unwrap();
    assert_eq!(inspected["fits"], true);
    assert!(inspected["parts"]["model.diffusion_model"].as_u64().unwrap() > 1000);

    // Sampling: image 2 is the same alone and in a batch.
    let sample = |out: &str, extra: &[&str]| {
        let steps: &[&str] = if extra.contains(&"--steps") { &[] } else { &["--steps", "3"] };
        sandbox.ok(&[&["sample", "--model", "second", "--out", out][..], steps, extra].concat())
    };
    let lines =
        sample("a", &["-n", "3", "--class", "circle,2", "--seed", "5", "--guidance-scale", "2", "--json"]);
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((last["seed"].as_u64(), last["class"].as_str()), (Some(7), Some("circle")));
    sample("b", &["-n", "1", "--class", "circle", "--seed", "7", "--guidance-scale", "2"]);
    let pixels = |path: &str| ldm_core::image::read(sandbox.path(path)).unwrap();
    let difference = |a: &str, b: &str| {
        let (a, b) = (pixels(a), pixels(b));
        a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    };
    assert!(difference("a/00002.png", "b/00000.png") <= 1, "an image depends on its batch");
    assert!(difference("a/00000.png", "a/00001.png") > 1);
    assert!(
        sandbox
            .ok(&["inspect", "a/00002.png"])
            .contains("class: circle\nSteps: 3, Sampler: ddim, CFG scale: 2, Seed: 7, Size: 16x16")
    );
    assert!(sandbox.path("a/grid.png").is_file());

    // Given noise and saved latents.
    let noise = tch::Tensor::ones([2, 4, 8, 8], (tch::Kind::Float, tch::Device::Cpu));
    ldm_checkpoint::save(
        sandbox.path("noise.safetensors"),
        &[("noise".into(), noise)],
        &std::collections::BTreeMap::new(),
    )
    .unwrap();
    sample(
        "c",
        &[
            "-n",
            "2",
            "--class",
            "0",
            "--init-noise",
            "noise.safetensors",
            "--save-latents",
            "latents.safetensors",
        ],
    );
    assert_eq!(difference("c/00000.png", "c/00001.png"), 0, "the same noise");
    sample("d", &["--class", "1", "--sampler", "ddpm", "--steps", "4", "--height", "24", "--width", "32"]);
    assert_eq!(pixels("d/00000.png").dimensions(), (32, 24));

    // Other samplers, spacings and lists of timesteps.
    let by = |out, words: &[&str]| sample(out, &[&["--class", "1"], words].concat());
    by("e1", &["--sampler", "dpmpp_2m", "--steps", "5", "--seed", "3"]);
    by("e2", &["--sampler", "unipc", "--spacing", "karras", "--steps", "5", "--seed", "3"]);
    by("e3", &["--sampler", "euler_a", "--eta", "0", "--spacing", "900,500,100", "--seed", "3"]);
    by("e4", &["--sampler", "euler", "--spacing", "900,500,100", "--seed", "3"]);
    assert!(difference("e1/00000.png", "e4/00000.png") > 0);
    assert_eq!(difference("e3/00000.png", "e4/00000.png"), 0, "without noise it is Euler");
    let text = sandbox.ok(&["inspect", "e3/00000.png"]);
    assert!(
        text.contains("Steps: 3, Sampler: euler_a") && text.contains("Eta: 0, Spacing: 900,500,100"),
        "{text}"
    );
    let fails = |words: &[&str], message| {
        sandbox.err(
            &[&["sample", "--model", "second", "--class", "1", "--out", "x"], words].concat(),
            1,
            message,
        );
    };
    fails(
        &["--sampler", "plms", "--eta", "0.5"],
        "eta: expected a sampler that has it (ddim, euler_a, dpmpp_2m_sde, dpmpp_3m_sde), got plms",
    );
    fails(&["--sampler", "euler_a", "--eta", "1.5"], "eta: expected a number in [0, 1], got 1.5");
    fails(&["--spacing", "karas"], "spacing: expected one of uniform, quad, time_uniform");
    fails(&["--spacing", "100,500"], "spacing: expected falling levels, got 500 after 100");
    fails(
        &["--sampler", "dpmpp_2m", "--spacing", "quad"],
        "expected less noise at each step for the multistep sampler dpmpp_2m",
    );
    fails(&["--sampler", "lcm", "--steps", "51"], "expected 1 to 50, the levels of spacing lcm, got 51");

    // An existing image is not overwritten.
    let again = ["sample", "--model", "second", "--class", "1", "--steps", "2", "--out", "d"];
    sandbox.err(&again, 1, "expected a new path, got an existing one; try --force");
    sandbox.ok(&[&again[..], &["--force"]].concat());

    // The first stage alone.
    sandbox.ok(&["encode", "a/00000.png", "a/00001.png", "--model", "first", "--out", "z.safetensors"]);
    sandbox.ok(&[
        "decode",
        "z.safetensors",
        "--model",
        "first",
        "--out",
        "decoded",
        "--save-pixels",
        "p.safetensors",
    ]);
    let output = sandbox.ok(&["reconstruct", "a/00000.png", "--model", "first", "--out", "rec"]);
    assert!(output.contains("dB"), "{output}");
    assert_eq!(difference("decoded/00000.png", "rec/00000.png"), 0, "decode of encode is reconstruct");

    sandbox.err(&["sample", "--model", "second"], 1, "--class: expected one of");
    sandbox.err(&["sample", "--model", "second", "--class", "pentagon"], 1, "got pentagon");
    sandbox.err(&["sample", "--model", "second", "--class", "11"], 1, "got 11");
    sandbox.err(
        &["sample", "--model", "second", "--class", "1", "--steps", "2000", "--out", "x"],
        1,
        "steps",
    );
    sandbox.err(
        &["sample", "--model", "second", "--class", "1", "--height", "17", "--width", "16"],
        1,
        "multiples of 4 (nearest: 16 and 20), got 17",
    );
    sandbox.err(&["sample", "--model", "first"], 1, "a first stage alone");
    sandbox.err(
        &["encode", "a/grid.png", "--model", "first", "--out", "y.safetensors", "--center-crop", "15"],
        1,
        "multiples of 2",
    );
    sandbox.err(&["decode", "noise.safetensors", "--model", "first", "--out", "x"], 1, "latents");
    sandbox.err(&["train", "first.yaml", "--run", "first"], 1, "expected a new folder");

    // Damaged weights, and weights of another model.
    let weights = sandbox.path("second/model/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(sandbox.path("cut.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    sandbox.err(
        &["sample", "--model", "cut.safetensors", "--config", "second.yaml", "--class", "1"],
        1,
        "cut.safetensors",
    );
    let swapped =
        ["sample", "--model", "first/model/model.safetensors", "--config", "second.yaml", "--class", "1"];
    sandbox.err(&swapped, 1, "missing: ");
    sandbox.err(&swapped, 1, "unexpected: ");
}

#[test]
fn an_unreadable_image_is_reported_and_skipped_or_refused() {
    let sandbox = sandbox();
    std::fs::create_dir_all(sandbox.path("set/a")).unwrap();
    let image = tch::Tensor::zeros([3, 16, 16], (tch::Kind::Float, tch::Device::Cpu));
    for index in 0..9 {
        ldm_core::image::write_png(sandbox.path(&format!("set/a/{index}.png")), &image, &[]).unwrap();
    }
    std::fs::write(sandbox.path("set/a/broken.png"), "not an image").unwrap();
    let train = [
        "train",
        "first.yaml",
        "data.params.train={target: images, params: {path: set}}",
        "train.steps=6",
        "--run",
    ];
    let output = sandbox.run(&[&train[..], &["lenient"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("broken.png"), "{}", text(&output.stderr));
    let output = sandbox.run(&[&train[..], &["refused", "--strict"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("broken.png"), "{}", text(&output.stderr));
    assert!(sandbox.ok(&["data", "info", "set"]).contains("broken.png"));
    sandbox.ok(&["data", "preview", "set", "--out", "sheet.png"]);
    sandbox.err(&["data", "info", "set", "--strict"], 1, "got 1 of 10 unreadable");
}

/// A killed and a stopped run are resumed; both end with the bits of an uninterrupted one.
#[test]
fn resumed_runs_equal_an_uninterrupted_run() {
    let sandbox = sandbox();
    let long = |run: &str| {
        sandbox
            .command(&["train", "first.yaml", "train.steps=40", "--run", run])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    assert!(long("whole").wait().unwrap().success());
    for (run, signal) in [("killed", "KILL"), ("stopped", "INT"), ("ended", "TERM")] {
        let mut child = long(run);
        wait_for(&sandbox.path(run).join("checkpoints/step-0000008/state.json"), &mut child);
        let signaled = Instant::now();
        assert!(
            Command::new("kill")
                .args([format!("-{signal}"), child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        let status = child.wait().unwrap();
        match signal {
            "INT" => assert_eq!(status.code(), Some(130)),
            "TERM" => assert_eq!(status.code(), Some(143)),
            _ => assert_eq!(status.code(), None),
        }
        assert!(signaled.elapsed() < Duration::from_secs(20), "{signal} took {:?}", signaled.elapsed());
        sandbox.ok(&["train", "--resume", run]);
        for name in ["model", "ema", "optimizer"] {
            let read = |run: &str| {
                std::fs::read(sandbox.path(run).join(format!("checkpoints/step-0000040/{name}.safetensors")))
                    .unwrap()
            };
            assert!(read("whole") == read(run), "{name} differs after SIG{signal}");
        }
    }
}

fn wait_for(path: &Path, child: &mut std::process::Child) {
    let start = Instant::now();
    while !path.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be stopped");
        assert!(start.elapsed() < Duration::from_mins(1), "no {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A full disk while a checkpoint is written: an error, and the last complete checkpoint is unchanged and resumes.
#[test]
fn a_full_disk_leaves_the_last_complete_checkpoint() {
    let sandbox = sandbox();
    let disk = sandbox.path("disk");
    std::fs::create_dir(&disk).unwrap();
    // One checkpoint of this model fits, with its model folder; two do not.
    sandbox.ok(&["train", "first.yaml", "train.steps=4", "--run", "probe"]);
    let size: u64 = listing(&sandbox.path("probe"))
        .iter()
        .filter(|path| path.is_file())
        .map(|path| path.metadata().unwrap().len())
        .sum();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={}", size + size / 3), "tmpfs"])
        .arg(&disk)
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user cannot mount a tmpfs");
        return;
    }
    let output = sandbox.run(&["train", "first.yaml", "train.steps=8", "--run", "disk/run"]);
    let after = listing(&disk);
    let resumed = sandbox.run(&["inspect", "disk/run"]);
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("No space left on device"), "{}", text(&output.stderr));
    assert!(after.iter().any(|path| path.ends_with("step-0000004/state.json")), "{after:?}");
    assert!(!after.iter().any(|path| path.ends_with("step-0000008")), "{after:?}");
    assert!(!after.iter().any(|path| path.to_string_lossy().contains(".part-")), "{after:?}");
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
}
