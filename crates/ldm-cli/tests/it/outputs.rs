//! Output folders and files: claimed, complete, and as many as requested.

use std::io::Read;

use image::{Rgb, RgbImage};
use ldm_testing::tiny::{DIFFUSION, FIRST_STAGE};
use ldm_testing::{Sandbox, listing, text};

use crate::LDM;

fn trained() -> Sandbox {
    let sandbox = Sandbox::new(LDM, &[("first.yaml", FIRST_STAGE), ("second.yaml", DIFFUSION)]);
    sandbox.ok(&["train", "first.yaml", "--run", "first", "train.steps=1"]);
    sandbox.ok(&["train", "second.yaml", "--run", "second", "train.steps=1"]);
    for (name, gray) in [("a", 60), ("b", 120), ("c", 180)] {
        std::fs::create_dir_all(sandbox.path("images")).unwrap();
        RgbImage::from_pixel(16, 16, Rgb([gray; 3]))
            .save(sandbox.path(&format!("images/{name}.png")))
            .unwrap();
    }
    sandbox
}

#[test]
fn commands_that_start_together_write_to_different_folders() {
    let sandbox = trained();
    let args = ["reconstruct", "images/a.png", "--model", "first", "--threads", "1"];
    let children: Vec<_> = (0..4).map(|_| sandbox.command(&args).spawn().unwrap()).collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    for number in 1..=4 {
        assert_eq!(listing(&sandbox.path(&format!("outputs/reconstruct-{number}"))).len(), 2);
    }
    // A command that fails leaves no folder, and the next one takes its number.
    sandbox.err(&["reconstruct", "images/none.png", "--model", "first"], 1, "none.png");
    sandbox.ok(&args);
    assert!(sandbox.path("outputs/reconstruct-5").is_dir());
}

#[test]
fn files_follow_the_umask_and_keep_their_mode() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = trained();
    let mode = |name: &str| std::fs::metadata(sandbox.path(name)).unwrap().permissions().mode() & 0o777;
    let script = |umask: &str, out: &str| {
        let program = sandbox.command(&[]).get_program().to_owned();
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(format!("umask {umask}; exec \"$0\" \"$@\"")).arg(program);
        shell.args(["encode", "images/a.png", "--model", "first", "--force", "--out", out]);
        assert!(shell.current_dir(sandbox.work()).output().unwrap().status.success());
    };
    script("077", "private");
    script("002", "shared");
    assert_eq!((mode("private"), mode("shared")), (0o600, 0o664));
    script("002", "private");
    assert_eq!(mode("private"), 0o600);
}

#[test]
fn images_grids_and_archives_are_written_as_requested() {
    let sandbox = trained();
    let sample = |out: &str, more: &[&str]| {
        let args = [
            "sample",
            "--model",
            "second",
            "--class",
            "3",
            "-n",
            "5",
            "--batch-size",
            "2",
            "--steps",
            "1",
            "--out",
            out,
        ];
        sandbox.ok(&[&args, more].concat())
    };
    sample("all", &["--save-npz", "all.npz"]);
    let names = |folder: &str| -> Vec<String> {
        let found = listing(&sandbox.path(folder));
        found.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("all"), ["00000.png", "00001.png", "00002.png", "00003.png", "00004.png", "grid.png"]);
    assert_eq!(sample("grid", &["--skip_save", "--n_rows", "5"]), "grid/grid.png\n");
    let grid = image::open(sandbox.path("grid/grid.png")).unwrap();
    assert_eq!((names("grid").len(), grid.width(), grid.height()), (1, 5 * 18 + 2, 18 + 2));
    sample("separate", &["--skip-grid"]);
    assert_eq!(names("separate").len(), 5);
    // The archive holds the bytes of the images, in their order.
    let mut archive = zip::ZipArchive::new(std::fs::File::open(sandbox.path("all.npz")).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.by_name("arr_0.npy").unwrap().read_to_end(&mut bytes).unwrap();
    let length = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = text(&bytes[10..length]);
    assert!(
        header.contains("'|u1'") && header.contains("(5,16,16,3,)") && length.is_multiple_of(64),
        "{header}"
    );
    let files: Vec<u8> = (0..5).flat_map(|index| sandbox.pixels(&format!("all/{index:05}.png"))).collect();
    assert_eq!(bytes[length..], files);
}

#[test]
fn options_out_of_range_are_refused_at_once() {
    let sandbox = Sandbox::new(LDM, &[]);
    for (args, expected) in [
        (["--guidance-scale", "NaN"], "expected a finite number"),
        (["--guidance-scale", "inf"], "expected a finite number"),
        (["--guidance-scale", "-inf"], "expected a finite number"),
        (["--eta", "NaN"], "expected a finite number"),
        (["--eta", "-inf"], "expected a finite number"),
        (["--guidance-rescale", "-0.5"], "expected a number from 0 to 1"),
        (["--guidance-interval", "-1..2"], "expected LOW..HIGH"),
        (["--width", "100000000"], "expected 1 to 65536 pixels"),
        (["--height", "-8"], "expected 1 to 65536 pixels"),
        (["-n", "0"], "expected 1 to 10000000 images"),
        (["--batch-size", "-3"], "expected 1 to 10000000 images"),
        (["--seed", "-1"], "invalid digit"),
        (["--threads", "1000000"], "1000000 is not in 1..=1024"),
        (["--threads", "0"], "0 is not in 1..=1024"),
    ] {
        let both = if args[0] == "--width" {
            vec!["--height", "8"]
        } else if args[0] == "--height" {
            vec!["--width", "8"]
        } else {
            vec![]
        };
        let all = [&["sample", "--model", "none"], &args as &[&str], &both].concat();
        sandbox.err(&all, 2, expected);
    }
    // A negative scale is a value, not an option: the missing model is the error.
    sandbox.err(&["sample", "--model", "none", "--guidance-scale", "-5"], 1, "none");
}

#[test]
fn sizes_beyond_the_memory_are_refused() {
    let sandbox = trained();
    let huge = ["--height", "65536", "--width", "65536", "--out", "new"];
    sandbox.err(
        &[&["sample", "--model", "second", "--class", "1", "-n", "8"], &huge as &[&str]].concat(),
        1,
        "expected at most the ",
    );
    sandbox.err(
        &["data", "preview", "images", "--size", "65536", "--out", "p.png"],
        1,
        "transform: size: expected at most the ",
    );
    sandbox.err(
        &["reconstruct", "images/a.png", "--resize", "65536", "--model", "first", "--out", "new"],
        1,
        "expected at most the ",
    );
    let batch = ["data.params.batch_size=1000000000", "data.params.train.params.count=1000000000"];
    for config in ["first.yaml", "second.yaml"] {
        let expected = format!("{config}: data.params.batch_size: expected at most the ");
        sandbox.err(&[&["train", config, "--run", "new"], &batch[..]].concat(), 1, &expected);
    }
    sandbox.err(&["train", "first.yaml", "--run", "new", "model.params.ddconfig.ch=32000000"], 1, "ch");
    for key in
        ["ddconfig.ch=1000000000", "ddconfig.num_res_blocks=2000000000", "embed_dim=9000000000000000000"]
    {
        sandbox.err(
            &["train", "first.yaml", "--run", "new", &format!("model.params.{key}")],
            1,
            "expected at most",
        );
    }
}

#[test]
fn folders_of_images_are_inpainted_one_by_one() {
    let sandbox = trained();
    let hole = RgbImage::from_fn(16, 16, |x, _| Rgb([if x < 8 { 255 } else { 0 }; 3]));
    std::fs::create_dir(sandbox.path("masks")).unwrap();
    for name in ["a_mask.png", "b.png", "c.jpg"] {
        hole.save(sandbox.path(&format!("masks/{name}"))).unwrap();
    }
    std::fs::write(
        sandbox.path("plain.yaml"),
        DIFFUSION
            .replace(
                "{target: class, params: {embed_dim: 16, n_classes: 11, null_class: 10}}",
                "__is_unconditional__",
            )
            .replace("    cond_stage_trainable: true\n", "")
            .replace(", use_spatial_transformer: true, context_dim: 16", "")
            .replace(", conditioning_dropout: 0.1", ""),
    )
    .unwrap();
    sandbox.ok(&["train", "plain.yaml", "--run", "plain", "train.steps=1"]);
    let flags = ["--model", "plain", "--steps", "2", "--out"];
    let printed = sandbox.ok(&[&["inpaint", "images", "masks"], &flags as &[&str], &["out"]].concat());
    assert_eq!(printed, "out/a.png\nout/b.png\nout/c.png\n");
    // As one by one.
    sandbox.ok(&[&["inpaint", "images/b.png", "masks/b.png"], &flags as &[&str], &["one"]].concat());
    // The same mask as an alpha channel of white pixels.
    let gray = image::open(sandbox.path("masks/b.png")).unwrap().into_luma8();
    let alpha = image::RgbaImage::from_fn(gray.width(), gray.height(), |x, y| {
        image::Rgba([255, 255, 255, gray.get_pixel(x, y).0[0]])
    });
    alpha.save(sandbox.path("alpha.png")).unwrap();
    let words = [&["inpaint", "images/b.png", "alpha.png"], &flags as &[&str], &["by-alpha"]].concat();
    let (_, stderr) = sandbox.output(&words);
    assert!(
        stderr.contains("alpha.png: the mask is the alpha channel: what is opaque is filled"),
        "{stderr}"
    );
    assert!(sandbox.pixels("by-alpha/00000.png") == sandbox.pixels("one/00000.png"));
    assert_eq!(sandbox.pixels("out/b.png"), sandbox.pixels("one/00000.png"));
    std::fs::remove_file(sandbox.path("masks/c.jpg")).unwrap();
    let error =
        text(&sandbox.run(&[&["inpaint", "images", "masks"], &flags as &[&str], &["again"]].concat()).stderr);
    assert!(
        error.contains("masks: expected a mask for images/c.png, c_mask.png or c.png, got none"),
        "{error}"
    );
    std::fs::create_dir(sandbox.path("none")).unwrap();
    sandbox.err(
        &[&["outpaint", "none", "--left", "8"], &flags as &[&str], &["new"]].concat(),
        1,
        "none: expected image files",
    );
}

#[test]
fn force_replaces_no_file_of_other_content() {
    let sandbox = trained();
    std::fs::write(sandbox.path("thesis"), "three years").unwrap();
    std::fs::create_dir_all(sandbox.path("out")).unwrap();
    std::fs::write(sandbox.path("out/00000.png"), "three years").unwrap();
    let sample = ["sample", "--model", "second", "--class", "1", "--steps", "1", "--force", "--out"];
    let with = |words: &[&str]| [&sample[..], &["new"], words].concat().join("|");
    for (command, expected) in [
        ("encode|images/a.png|--model|first|--force|--out|thesis".to_owned(), "thesis: expected safetensors"),
        ("data|preview|images|--force|--out|thesis".to_owned(), "thesis: expected a PNG"),
        (
            "eval|generation|images|images|--force|--save-statistics|thesis".to_owned(),
            "thesis: expected a NumPy archive",
        ),
        (with(&["--save-latents", "thesis"]), "thesis: expected safetensors"),
        (with(&["--save-npz", "thesis"]), "thesis: expected a NumPy archive"),
        ([&sample[..], &["out"]].concat().join("|"), "out/00000.png: expected a PNG"),
    ] {
        let words: Vec<&str> = command.split('|').collect();
        sandbox.err(
            &words,
            1,
            &format!("{expected} in a file that is replaced, got other content; try another path"),
        );
    }
    sandbox.err(
        &["encode", "images/a.png", "--model", "first", "--force", "--out", "images"],
        1,
        "got a folder",
    );
    // Runs of the demo, not folders of their names.
    std::fs::create_dir_all(sandbox.path("project/diffusion/src")).unwrap();
    sandbox.err(
        &["demo", "--force", "--out", "project"],
        1,
        "project/diffusion: expected only files of a run in a folder that is replaced, got project/diffusion/src",
    );
}

#[test]
fn outputs_that_cannot_be_written_are_refused_before_the_work() {
    let sandbox = trained();
    std::fs::write(sandbox.path("file"), "").unwrap();
    let sample = ["sample", "--model", "second", "--class", "1", "--steps", "100000", "--out"];
    let with = |words: &[&str], expected: &str| sandbox.err(&[&sample[..], words].concat(), 1, expected);
    with(&["file"], "--out: expected a folder, got the file file");
    with(&["new", "--save-latents", "none/z"], "none/z: expected an existing folder none, got none");
    with(&["new", "--save-npz", "none/z"], "none/z: expected an existing folder none, got none");
    let encode = ["encode", "images/a.png", "--model", "first", "--out", "none/z"];
    sandbox.err(&encode, 1, "none/z: expected an existing folder none, got none");
}
