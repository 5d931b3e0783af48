//! Each way a file can be wrong, with its error.

use ldm_checkpoint::{Checkpoint, parse_pickle};
use ldm_core::Error;

use crate::{golden, refusal};

/// The error for a file of these bytes.
#[track_caller]
fn of_bytes(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ckpt");
    std::fs::write(&path, bytes).unwrap();
    refusal(&path)
}

#[track_caller]
fn check(file: &str, message: &str) {
    assert_eq!(refusal(&golden(file)), message);
}

#[test]
fn other_files_are_named() {
    const EXPECTED: &str = "expected safetensors or a file of torch.save, got ";
    let cases: [(&[u8], &str); 10] = [
        (b"", "an empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
            "a git-lfs pointer; try `git lfs pull`",
        ),
        (b"<!DOCTYPE html><html>404", "a web page; try downloading it again"),
        (b"\n <HTML lang=en>", "a web page; try downloading it again"),
        (b"\x1f\x8b\x08\x00", "a gzip archive; try unpacking it"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"GGUF\x03\x00\x00\x00", "a GGUF file"),
        (&[0; 4096], "only zero bytes (an unfinished download or copy)"),
        (b"weights", "an unknown format"),
        (b"\x80", "an unknown format"),
    ];
    for (bytes, got) in cases {
        assert_eq!(of_bytes(bytes), format!("{EXPECTED}{got}"));
    }
    let mut tar = vec![b'x'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(of_bytes(&tar).starts_with(&format!("{EXPECTED}a tar archive")));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(refusal(folder.path()), format!("{EXPECTED}a folder"));
    let missing = Checkpoint::open(folder.path().join("none")).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
    check("plain_pickle.ckpt", "expected a file of torch.save, got another pickle");
    check("torchscript.ckpt", "expected a state dict of torch.save, got a TorchScript archive");
    check("one_tensor.ckpt", "expected a dict of names and tensors, got one tensor");
    check("no_state_dict.ckpt", "expected a state dict, got a dict of: g_ema, epoch");
    check("big_endian.ckpt", "expected little-endian numbers, got big-endian");
    check("big_endian_legacy.ckpt", "expected little-endian numbers, got big-endian");
}

#[test]
fn copies_of_one_text_are_limited() {
    // A thousand names for one megabyte of text.
    let mut pickle = [b"\x80\x02}(".as_slice(), &text(&"x".repeat(1 << 20)), b"q\x000"].concat();
    for name in 0..1000 {
        pickle.extend([text(&name.to_string()), b"h\x00".to_vec()].concat());
    }
    pickle.extend(b"u.");
    let message = parse_pickle(&pickle).unwrap_err();
    assert_eq!(message, "its scalars take more memory than a file of this size may need");
}

fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

#[test]
fn calls_are_refused_by_name() {
    let calls = |name: &str| format!("refused: this file wants to call `{name}`, which no checkpoint needs");
    check("hostile_system.ckpt", &calls("posix.system"));
    check("hostile_eval.ckpt", &calls("builtins.eval"));
    check("hostile_nested.ckpt", &calls("subprocess.getoutput"));
    check("hostile_object.ckpt", &calls("zipfile.ZipInfo"));
    check("hostile_inst.ckpt", &calls("posix.system"));
    check("hostile_obj.ckpt", &calls("posix.system"));
    let changes = "refused: this file wants to change `subprocess.Popen`, which no checkpoint needs";
    check("hostile_build.ckpt", changes);
    let wrong = "invalid arguments of `torch._utils._rebuild_tensor_v2`";
    check("hostile_arguments.ckpt", wrong);
}

#[test]
fn names_in_errors_are_escaped() {
    let mut file = std::fs::read(golden("plain_pickle.ckpt")).unwrap();
    file.clear();
    file.extend(b"\x80\x02cos\n\x1b[31msystem\n)R.");
    assert_eq!(
        of_bytes(&file),
        "refused: this file wants to call `os.\\u{1b}[31msystem`, which no checkpoint needs"
    );
}

#[test]
fn a_tensor_must_lie_in_its_storage() {
    let inside = Checkpoint::open(golden("window_inside.ckpt")).unwrap();
    assert_eq!(inside.tensor("w").unwrap(), tch::Tensor::from_slice(&[2_f32, 3., 4.]));
    for file in ["window_outside.ckpt", "window_overflow.ckpt"] {
        check(file, "tensor `w`: expected elements inside its storage of 16 bytes");
    }
    check(
        "window_negative.ckpt",
        "tensor `w`: expected a valid tensor, got shape [3], strides [1], offset -1",
    );
    check("window_expanded.ckpt", "tensor `w`: expanded to 1099511627776 elements from 4 bytes");
}

#[test]
fn truncated_files_are_reported_as_such() {
    for file in ["lightning.safetensors", "windows.ckpt", "windows_legacy.ckpt", "windows_deflated.ckpt"] {
        let whole = std::fs::read(golden(file)).unwrap();
        for length in (9..whole.len()).step_by(97).chain([whole.len() - 1]) {
            let message = of_bytes(&whole[..length]);
            assert!(message.contains("truncated"), "{file} at {length}: {message}");
        }
    }
}

/// A safetensors file of this header and this many bytes of data.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn invalid_safetensors_headers() {
    let two = |first: &str, second: &str| {
        let slot = |at: &str| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":{at}}}"#);
        safetensors(&format!(r#"{{"a":{},"b":{}}}"#, slot(first), slot(second)), 16)
    };
    let good = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(good.path(), two("[0,8]", "[8,16]")).unwrap();
    assert_eq!(Checkpoint::open(good.path()).unwrap().names().count(), 2);

    let damaged = "damaged safetensors header: ";
    let cases = [
        (two("[0,8]", "[4,12]"), damaged),
        (two("[0,8]", "[9,17]"), damaged),
        (two("[8,0]", "[8,16]"), damaged),
        (two("[0,8]", "[8,12]"), damaged),
        (
            safetensors(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 4),
            "truncated or overlong",
        ),
        (
            safetensors(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 12),
            "truncated or overlong",
        ),
        (safetensors(r#"{"a":{"dtype":"Q7","shape":[2],"data_offsets":[0,8]}}"#, 8), damaged),
        (
            safetensors(r#"{"a":{"dtype":"F8_E8M0","shape":[8],"data_offsets":[0,8]}}"#, 8),
            "tensor `a`: unsupported dtype F8_E8M0",
        ),
        (
            safetensors(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#, 0),
            damaged,
        ),
        (
            safetensors(r#"{"a":{"dtype":"F32","shape":[0,4611686018427387904,8],"data_offsets":[0,0]}}"#, 0),
            "tensor `a`: expected elements inside",
        ),
        (safetensors("{not json", 0), damaged),
        ([&200_000_000_u64.to_le_bytes()[..], b"{}"].concat(), damaged),
        ([&1000_u64.to_le_bytes()[..], b"{}"].concat(), "truncated: its safetensors header"),
    ];
    for (bytes, expected) in cases {
        let message = of_bytes(&bytes);
        assert!(message.starts_with(expected), "{message}, expected {expected}");
    }
}

#[test]
fn pickles_that_demand_too_much() {
    let zip = |pickle: &[u8]| [b"\x80\x02".as_slice(), pickle].concat();
    // Lengths beyond the end of the file.
    assert!(of_bytes(&zip(b"\x8b\xff\xff\xff\x7f")).contains("truncated"));
    assert!(of_bytes(&zip(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff")).contains("truncated"));
    assert!(of_bytes(&zip(b"X\xff\xff\xff\xff")).contains("truncated"));
    // A far memo index, an empty stack, an end without a value, an opcode of protocol 0.
    assert!(of_bytes(&zip(b"Nr\xff\xff\xff\xffj\xff\xff\xff\xff.")).contains("got another pickle"));
    assert!(of_bytes(&zip(b"h\x07.")).contains("invalid memo"));
    for stack in [b"0".as_slice(), b"t.", b"s.", b".", b"(0.", b"\x86.", b"e.", b"R.", b"b."] {
        assert!(of_bytes(&zip(stack)).contains("invalid stack"), "{stack:?}");
    }
    assert!(of_bytes(&zip(b"I01\n.")).contains("unsupported pickle opcode 0x49 at byte 2"));
    // Tuples in tuples a hundred thousand deep, and a list that holds itself.
    let deep = [b")".as_slice(), &vec![0x85; 100_000], b"."].concat();
    assert_eq!(
        parse_pickle(&zip(&deep)).unwrap_err(),
        "expected a dict of names and tensors, got another object"
    );
    assert!(of_bytes(&zip(b"]q\x00h\x00a.")).contains("got another pickle"));
    // One long list converted to a dict many times.
    let pairs = b"K\x01K\x02\x86".repeat(1000);
    let again = b"h\x01h\x00\x85R0".repeat(10_000);
    let file = [b"](".as_slice(), &pairs, b"eq\x00ccollections\nOrderedDict\nq\x01", &again, b"."].concat();
    assert!(parse_pickle(&zip(&file)).unwrap_err().contains("invalid lists"));
    // More steps than any state dict takes, and more values than a file of this size has.
    assert!(of_bytes(&zip(&b"\x80\x02".repeat((1 << 24) + 10))).contains("steps"));
    for many in [b"N".as_slice(), b"]", b"(", b"Nq\0"] {
        let message = of_bytes(&zip(&many.repeat((16 << 20) / many.len())));
        assert_eq!(message, "the values of its pickle take more memory than a file of this size may need");
    }
}
