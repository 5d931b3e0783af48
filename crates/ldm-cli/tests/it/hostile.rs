//! Files made to take memory or time, or to break a reader: each command that reads one ends with a sentence and exit code
//! 1, in the memory of a small multiple of the file.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use ldm_testing::tiny::{DIFFUSION, FIRST_STAGE};
use ldm_testing::{Sandbox, claiming_png, text};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use zip::write::SimpleFileOptions;

use crate::LDM;

/// CPU time (user and system, all threads) beyond that of `ldm doctor`, which starts and reads nothing.
const SECONDS: f64 = 2.;
/// Peak of resident memory beyond that of `ldm doctor`, and four times the file.
const MEGABYTES: u64 = 64;
/// Of the whole command, for one that waits for something: a machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);

/// An ended command.
struct Ended {
    printed: String,
    code: Option<i32>,
    /// Peak of its resident memory, in bytes.
    peak: u64,
    /// CPU time in seconds.
    cpu: f64,
}

fn limited(sandbox: &Sandbox, args: &[&str]) -> Ended {
    let output = sandbox.path("output");
    let file = std::fs::File::create(&output).unwrap();
    let mut command = sandbox.command(args);
    let mut child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
    let proc =
        |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", child.id())).unwrap_or_default();
    let ended = || {
        // Leaves the process as a zombie, whose times can be read.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&child)), options).unwrap().is_some()
    };
    let (start, mut peak) = (Instant::now(), 0);
    while !ended() {
        let status = proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) * 1024);
        if start.elapsed() > PATIENCE || peak > 4 << 30 {
            kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
            panic!("{args:?}: {:?}, {peak} bytes", start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // After the name in parentheses: the state, and as the 12th and 13th value the times in clock ticks.
    let stat = proc("stat");
    let values = stat.rsplit_once(") ").unwrap().1.split(' ');
    let ticks: u64 = values.skip(11).take(2).map(|value| value.parse::<u64>().unwrap()).sum();
    let code = child.wait().unwrap().code();
    let printed = text(&std::fs::read(&output).unwrap());
    std::fs::remove_file(&output).unwrap();
    Ended { printed, code, peak, cpu: ticks as f64 / rustix::param::clock_ticks_per_second() as f64 }
}

/// Checks that each command ends with one sentence about the file.
#[track_caller]
fn check(sandbox: &Sandbox, file: &str, commands: &[&[&str]]) {
    let base = limited(sandbox, &["doctor", "--device", "cpu"]);
    let length = std::fs::metadata(sandbox.path(file)).map_or(0, |file| file.len());
    for args in commands {
        let Ended { printed, code, peak, cpu } = limited(sandbox, args);
        let errors: Vec<&str> = printed.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!((errors.len(), code), (1, Some(1)), "{args:?}: {printed}");
        assert!(!printed.contains("panicked") && !printed.contains("RUST_BACKTRACE"), "{args:?}: {printed}");
        assert!(errors[0].len() < 2000, "{args:?}: {printed}");
        let limit = base.peak + 4 * length + (MEGABYTES << 20);
        assert!(peak < limit, "{args:?}: {peak} bytes, of a file of {length}; at most {limit}");
        assert!(cpu < base.cpu + SECONDS, "{args:?}: {cpu} s of CPU, {} of them to start", base.cpu);
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

/// A chunk of a PNG.
fn chunk(kind: &[u8], data: &[u8]) -> Vec<u8> {
    let named = [kind, data].concat();
    let mut sum = flate2::Crc::new();
    sum.update(&named);
    [&(data.len() as u32).to_be_bytes()[..], &named, &sum.sum().to_be_bytes()].concat()
}

#[test]
fn compressed_chunks_of_images() {
    let sandbox = sandbox();
    let image = std::fs::read(sandbox.path("images/0.png")).unwrap();
    let (head, rest) = image.split_at(8 + 12 + 13);
    let mut bomb = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    (0..300).for_each(|_| bomb.write_all(&vec![b'a'; 1 << 20]).unwrap());
    let bomb = bomb.finish().unwrap();
    std::fs::create_dir(sandbox.path("set")).unwrap();
    for (kind, start) in
        [(b"zTXt", &b"parameters\0\0"[..]), (b"iTXt", b"parameters\0\x01\0\0\0"), (b"iCCP", b"profile\0\0")]
    {
        let chunk = chunk(kind, &[start, &bomb].concat());
        std::fs::write(sandbox.path("bomb.png"), [head, &chunk, rest].concat()).unwrap();
        check(&sandbox, "bomb.png", &[&["inspect", "bomb.png"]]);
        // Cut within the pixels, since the whole image would be read.
        let half = [head, &chunk, &rest[..20]].concat();
        std::fs::write(sandbox.path("set/half.png"), half).unwrap();
        check(
            &sandbox,
            "set/half.png",
            &[
                &["encode", "set/half.png", "--model", "first", "--out", "z.safetensors"],
                &["data", "preview", "set", "--out", "grid.png", "--strict"],
            ],
        );
    }
}

#[test]
fn words_beside_images() {
    let sandbox = sandbox();
    std::fs::create_dir(sandbox.path("set")).unwrap();
    std::fs::copy(sandbox.path("images/0.png"), sandbox.path("set/0.png")).unwrap();
    for (name, content) in [
        ("metadata.jsonl", "{\"file_name\":".repeat(100_000)),
        ("metadata.csv", format!("file_name,text\n\"{}", "a".repeat(5_000_000))),
        ("0.json", "[".repeat(1_000_000)),
        ("0.txt", "a cat\n".repeat(1_000_000)),
        ("0.cls", "9".repeat(2_000_000)),
    ] {
        let name = format!("set/{name}");
        std::fs::write(sandbox.path(&name), content).unwrap();
        check(&sandbox, &name, &[&["data", "preview", "set", "--out", "grid.png", "--strict"]]);
        std::fs::remove_file(sandbox.path(&name)).unwrap();
    }
    for (name, content) in [
        ("c.tsv", "a\t".repeat(1_000_000)),
        ("c.csv", "\"".repeat(1_000_001)),
        ("c.json", "[".repeat(1_000_000)),
        ("c.jsonl", "{\"a\":".repeat(100_000)),
    ] {
        std::fs::write(sandbox.path(name), content).unwrap();
        let set = format!(
            "data.params.train={{target: images, params: {{path: set, captions: {{file: {name}}}, transform: {{size: 16}}}}}}"
        );
        check(&sandbox, name, &[&["train", "second.yaml", &set, "--run", "new"]]);
    }
    let path = sandbox.path("words.zip");
    archive(
        &path,
        &[("0.txt", &vec![b'a'; 200 << 20]), ("0.png", &std::fs::read(sandbox.path("set/0.png")).unwrap())],
        zip::CompressionMethod::Deflated,
    );
    check(&sandbox, "words.zip", &[&["data", "preview", "words.zip", "--out", "grid.png", "--strict"]]);
    archive(&path, &[("0.png", &vec![0; 200 << 20])], zip::CompressionMethod::Deflated);
    check(&sandbox, "words.zip", &[&["data", "preview", "words.zip", "--out", "grid.png"]]);
}

#[test]
fn adapters() {
    let sandbox = sandbox();
    let safetensors = |header: &str, data: usize| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    };
    let tensor = |shape: &str, start: usize, end: usize| {
        format!("{{\"dtype\": \"F32\", \"shape\": {shape}, \"data_offsets\": [{start}, {end}]}}")
    };
    let module = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q";
    for (header, data) in [
        (
            format!(
                "{{\"lora_unet_{}.lora_down.weight\": {}}}",
                "x".repeat(1_000_000),
                tensor("[0, 4]", 0, 0)
            ),
            0,
        ),
        (format!("{{\"__metadata__\": {{\"lora_adapter_metadata\": \"{}\"}}}}", "[".repeat(200_000)), 0),
        (
            format!(
                "{{\"{module}.lora_down.weight\": {}, \"{module}.lora_up.weight\": {}}}",
                tensor("[100000, 1]", 0, 400_000),
                tensor("[1, 100000]", 400_000, 800_000)
            ),
            800_000,
        ),
        ("{}".into(), 0),
    ] {
        std::fs::write(sandbox.path("bad.safetensors"), safetensors(&header, data)).unwrap();
        let lora =
            ["sample", "--model", "second", "--class", "1", "--out", "new", "--lora", "bad.safetensors"];
        check(&sandbox, "bad.safetensors", &[&lora]);
    }
}
