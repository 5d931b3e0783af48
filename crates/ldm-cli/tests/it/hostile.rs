//! Files made to take memory or time, or to break a reader: each command that reads one ends with a sentence and exit code
//! 1, in the memory of a small multiple of the file.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ldm_testing::tiny::{DIFFUSION, FIRST_STAGE};
use ldm_testing::{Sandbox, claiming_png, text};
use zip::write::SimpleFileOptions;

use crate::LDM;

/// Of the whole command; the slow build of a busy machine needs most of it to start.
const SECONDS: u64 = 20;
/// Beyond a command that reads nothing, and four times the file.
const MEGABYTES: u64 = 64;

/// Runs a command, and returns its output, its exit code and its peak memory in bytes.
fn limited(sandbox: &Sandbox, args: &[&str]) -> (String, Option<i32>, u64) {
    let mut child = sandbox.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let (start, mut peak) = (Instant::now(), 0);
    // Output of a test is short: no pipe fills.
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) * 1024);
        if start.elapsed() > Duration::from_secs(SECONDS) || peak > 4 << 30 {
            child.kill().unwrap();
            panic!("{args:?}: {:?}, {peak} bytes", start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    (text(&output.stdout) + &text(&output.stderr), output.status.code(), peak)
}

/// Checks that each command ends with one sentence about the file.
#[track_caller]
fn check(sandbox: &Sandbox, file: &str, commands: &[&[&str]]) {
    let (_, _, base) = limited(sandbox, &["doctor", "--device", "cpu"]);
    let length = std::fs::metadata(sandbox.path(file)).map_or(0, |file| file.len());
    for args in commands {
        let (printed, code, peak) = limited(sandbox, args);
        let errors: Vec<&str> = printed.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!((errors.len(), code), (1, Some(1)), "{args:?}: {printed}");
        assert!(!printed.contains("panicked") && !printed.contains("RUST_BACKTRACE"), "{args:?}: {printed}");
        assert!(errors[0].len() < 2000, "{args:?}: {printed}");
        let limit = base + 4 * length + (MEGABYTES << 20);
        assert!(peak < limit, "{args:?}: {peak} bytes, of a file of {length}; at most {limit}");
    }
}

/// A tiny diffusion model in `second`, with random weights.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new(LDM, &[("first.yaml", FIRST_STAGE), ("second.yaml", DIFFUSION)]);
    sandbox.ok(&["train", "first.yaml", "--run", "first", "train.steps=1"]);
    sandbox.ok(&["train", "second.yaml", "--run", "second", "train.steps=1"]);
    std::fs::create_dir(sandbox.path("images")).unwrap();
    image::RgbImage::new(16, 16).save(sandbox.path("images/0.png")).unwrap();
    sandbox
}

/// A zip archive of one stored or deflated entry after another.
fn archive(path: &Path, entries: &[(&str, &[u8])], method: zip::CompressionMethod) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in entries {
        archive.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

/// `.npy` with a header and no data.
fn npy(header: &str) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16 + 1).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.push(b'\n');
    bytes
}

#[test]
fn numpy_archives() {
    let sandbox = sandbox();
    let stored = zip::CompressionMethod::Stored;
    let nested = format!(
        "{{'descr': {}'<f4'{}, 'fortran_order': False, 'shape': (2,), }}",
        "[".repeat(3000),
        "]".repeat(3000)
    );
    for header in [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        &nested,
    ] {
        let entry = npy(header);
        archive(&sandbox.path("bad.npz"), &[("mu.npy", &entry), ("sigma.npy", &entry)], stored);
        check(
            &sandbox,
            "bad.npz",
            &[&["eval", "generation", "images", "bad.npz", "--features", "random-vgg16"]],
        );
    }
}

#[test]
fn images_of_absurd_sizes() {
    let sandbox = sandbox();
    std::fs::create_dir(sandbox.path("set")).unwrap();
    for side in [200_000, 40_000] {
        std::fs::write(sandbox.path("set/big.png"), claiming_png(side)).unwrap();
        check(
            &sandbox,
            "set/big.png",
            &[
                &["inspect", "set/big.png"],
                &["encode", "set/big.png", "--model", "first", "--out", "z.safetensors"],
                &["reconstruct", "set/big.png", "--model", "first", "--out", "new"],
                &["data", "preview", "set", "--out", "grid.png", "--strict"],
                &[
                    "train",
                    "first.yaml",
                    "data.params.train={target: images, params: {path: set, transform: {size: 16}}}",
                    "--run",
                    "new",
                    "--strict",
                ],
            ],
        );
    }
}

#[test]
fn checkpoints() {
    let sandbox = sandbox();
    let safetensors = |header: &str| [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    let deep = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let huge =
        "{\"noise\": {\"dtype\": \"F32\", \"shape\": [4611686018427387904, 4], \"data_offsets\": [0, 8]}}";
    let gap =
        "{\"noise\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [1000000000000, 1000000000008]}}";
    for (name, bytes) in [
        ("a.safetensors", (1_u64 << 63).to_le_bytes().to_vec()),
        ("b.safetensors", safetensors(&deep)),
        ("c.safetensors", safetensors(huge)),
        ("d.safetensors", safetensors(gap)),
        ("e.ckpt", [b"\x80\x02".to_vec(), b"(".repeat(1_000_000)].concat()),
        ("f.ckpt", [b"\x80\x02".to_vec(), b"]q\x00".repeat(100_000), b".".to_vec()].concat()),
        ("g.ckpt", b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00lsR.".to_vec()),
        ("h.ckpt", Vec::new()),
    ] {
        std::fs::write(sandbox.path(name), bytes).unwrap();
        check(
            &sandbox,
            name,
            &[
                &["inspect", name],
                &["sample", "--model", "second", "--class", "1", "--init-noise", name, "--out", "new"],
                &["decode", name, "--model", "first", "--out", "new"],
                &["sample", "--model", name, "--out", "new"],
                &["convert", name, "new", "--to", "ldm"],
            ],
        );
    }
}

#[test]
fn configs() {
    let sandbox = sandbox();
    let scalar = format!("a: &a {}\n", "x".repeat(900_000));
    let aliases = (0..3000).fold(String::new(), |text, index| text + &format!("k{index}: *a\n"));
    let laughs: String = (1..40).fold("a0: &a0 [x, x]\n".to_owned(), |text, level| {
        text + &format!("a{level}: &a{level} [*a{}, *a{}]\n", level - 1, level - 1)
    });
    for (name, content) in [
        ("brackets.yaml", "[".repeat(200_000)),
        ("aliases.yaml", scalar + &aliases),
        ("laughs.yaml", laughs),
        ("dashes.yaml", "- ".repeat(200_000)),
        ("long.yaml", "# ".repeat(2 << 20)),
        ("channels.yaml", FIRST_STAGE.replace("ch: 32", "ch: 1000000000")),
        ("blocks.yaml", FIRST_STAGE.replace("num_res_blocks: 1", "num_res_blocks: 2000000000")),
        (
            "layers.yaml",
            DIFFUSION.replace(
                "num_res_blocks: 1,\n               channel",
                "num_res_blocks: 2000000000,\n               channel",
            ),
        ),
    ] {
        std::fs::write(sandbox.path(name), content).unwrap();
        check(
            &sandbox,
            name,
            &[
                &["train", name, "--run", "new"],
                &["train", name, "train.steps=1", "--run", "new"],
                &["compare-f", name, "--out", "new"],
            ],
        );
    }
}

#[test]
fn data_sets() {
    let sandbox = sandbox();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    let mut header = tar::Header::new_gnu();
    header.set_size(400 << 20);
    header.set_path("0.png").unwrap();
    header.set_cksum();
    gz.write_all(header.as_bytes()).unwrap();
    (0..400).for_each(|_| gz.write_all(&zeros).unwrap());
    std::fs::write(sandbox.path("bomb.tar.gz"), gz.finish().unwrap()).unwrap();
    check(&sandbox, "bomb.tar.gz", &[&["data", "preview", "bomb.tar.gz", "--out", "grid.png"]]);
    let mut header = tar::Header::new_gnu();
    header.set_path("0.png").unwrap();
    header.as_gnu_mut().unwrap().size = *b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xfc\0";
    header.set_cksum();
    std::fs::write(sandbox.path("size.tar"), header.as_bytes()).unwrap();
    check(&sandbox, "size.tar", &[&["data", "info", "size.tar"]]);
}

#[test]
fn folders_of_other_programs() {
    let sandbox = sandbox();
    std::fs::create_dir(sandbox.path("diffusers")).unwrap();
    for json in
        ["[".repeat(100_000), format!("{{\"_class_name\": \"{}\"}}", "x".repeat(10_000)), "null".into()]
    {
        std::fs::write(sandbox.path("diffusers/model_index.json"), json).unwrap();
        check(
            &sandbox,
            "diffusers/model_index.json",
            &[&["sample", "--model", "diffusers", "--out", "new"], &["inspect", "diffusers"]],
        );
    }
}
