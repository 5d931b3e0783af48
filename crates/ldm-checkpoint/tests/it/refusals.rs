//! Each way a file can be wrong: one sentence that names it.

use ldm_checkpoint::{Checkpoint, parse_pickle};
use ldm_core::Error;

use crate::{golden, refusal};

/// The sentence for a file of these bytes.
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
fn what_is_no_checkpoint_is_named() {
    let cases: [(&[u8], &str); 10] = [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a git-lfs pointer and not the file"),
        (b"<!DOCTYPE html><html>404", "a web page"),
        (b"\n <HTML lang=en>", "a web page"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"GGUF\x03\x00\x00\x00", "a GGUF file"),
        (&[0; 4096], "nothing but zero bytes"),
        (b"weights", "neither safetensors nor what torch.save wrote"),
        (b"\x80", "neither safetensors nor what torch.save wrote"),
    ];
    for (bytes, expected) in cases {
        let message = of_bytes(bytes);
        assert!(message.starts_with(expected), "{message}");
    }
    let mut tar = vec![b'x'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(of_bytes(&tar).starts_with("a tar archive"));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(refusal(folder.path()), "a folder, expected a file of weights");
    let missing = Checkpoint::open(folder.path().join("none")).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
    check("plain_pickle.ckpt", "a pickle, but not what torch.save wrote");
    check("torchscript.ckpt", "a TorchScript archive, expected what torch.save wrote of a state dict");
    check("one_tensor.ckpt", "holds one tensor, expected a dict of names and tensors");
    check("no_state_dict.ckpt", "holds no state dict; its first top-level names are: g_ema, epoch");
    check("big_endian.ckpt", "its numbers are big-endian, expected little");
    check("big_endian_legacy.ckpt", "its numbers are big-endian, expected little");
}

#[test]
fn a_text_under_many_names_is_not_copied_without_end() {
    // A thousand names for one megabyte of text.
    let mut pickle = [b"\x80\x02}(".as_slice(), &text(&"x".repeat(1 << 20)), b"q\x000"].concat();
    for name in 0..1000 {
        pickle.extend([text(&name.to_string()), b"h\x00".to_vec()].concat());
    }
    pickle.extend(b"u.");
    let message = parse_pickle(&pickle).unwrap_err();
    assert_eq!(message, "its scalars take more memory than the file's size allows");
}

fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

#[test]
fn what_asks_to_call_anything_is_refused_by_name() {
    let calls = |name: &str| format!("this file asks to call `{name}`, which a checkpoint has no need of");
    check("hostile_system.ckpt", &calls("posix.system"));
    check("hostile_eval.ckpt", &calls("builtins.eval"));
    check("hostile_nested.ckpt", &calls("subprocess.getoutput"));
    check("hostile_object.ckpt", &calls("zipfile.ZipInfo"));
    check("hostile_inst.ckpt", &calls("posix.system"));
    check("hostile_obj.ckpt", &calls("posix.system"));
    let changes = "this file asks to change `subprocess.Popen`, which a checkpoint has no need of";
    check("hostile_build.ckpt", changes);
    let wrong = "it calls `torch._utils._rebuild_tensor_v2` with arguments that make no sense";
    check("hostile_arguments.ckpt", wrong);
}

#[test]
fn a_name_from_a_hostile_file_cannot_drive_the_terminal() {
    let mut file = std::fs::read(golden("plain_pickle.ckpt")).unwrap();
    file.clear();
    file.extend(b"\x80\x02cos\n\x1b[31msystem\n)R.");
    assert_eq!(
        of_bytes(&file),
        "this file asks to call `os.\\u{1b}[31msystem`, which a checkpoint has no need of"
    );
}

#[test]
fn a_tensor_must_lie_in_its_storage() {
    let inside = Checkpoint::open(golden("window_inside.ckpt")).unwrap();
    assert_eq!(inside.tensor("w").unwrap(), tch::Tensor::from_slice(&[2_f32, 3., 4.]));
    for file in ["window_outside.ckpt", "window_overflow.ckpt"] {
        check(file, "tensor `w`: its elements lie outside its storage of 16 bytes");
    }
    check("window_negative.ckpt", "tensor `w`: its shape [3], strides [1] or offset -1 is no tensor's");
    check("window_expanded.ckpt", "tensor `w`: it is expanded to 1099511627776 elements from 4 bytes");
}

#[test]
fn truncated_files_say_so_wherever_they_end() {
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
fn safetensors_headers_that_lie() {
    let two = |first: &str, second: &str| {
        let slot = |at: &str| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":{at}}}"#);
        safetensors(&format!(r#"{{"a":{},"b":{}}}"#, slot(first), slot(second)), 16)
    };
    let good = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(good.path(), two("[0,8]", "[8,16]")).unwrap();
    assert_eq!(Checkpoint::open(good.path()).unwrap().names().count(), 2);

    let damaged = "a damaged safetensors header: ";
    let cases = [
        (two("[0,8]", "[4,12]"), damaged),
        (two("[0,8]", "[9,17]"), damaged),
        (two("[8,0]", "[8,16]"), damaged),
        (two("[0,8]", "[8,12]"), damaged),
        (
            safetensors(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 4),
            "a truncated or overlong",
        ),
        (
            safetensors(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 12),
            "a truncated or overlong",
        ),
        (safetensors(r#"{"a":{"dtype":"Q7","shape":[2],"data_offsets":[0,8]}}"#, 8), damaged),
        (
            safetensors(r#"{"a":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}}"#, 8),
            "tensor `a`: dtype U64",
        ),
        (
            safetensors(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#, 0),
            damaged,
        ),
        (
            safetensors(r#"{"a":{"dtype":"F32","shape":[0,4611686018427387904,8],"data_offsets":[0,0]}}"#, 0),
            "tensor `a`: its elements lie outside",
        ),
        (safetensors("{not json", 0), damaged),
        ([&200_000_000_u64.to_le_bytes()[..], b"{}"].concat(), damaged),
        ([&1000_u64.to_le_bytes()[..], b"{}"].concat(), "a truncated safetensors file"),
    ];
    for (bytes, expected) in cases {
        let message = of_bytes(&bytes);
        assert!(message.starts_with(expected), "{message}, expected {expected}");
    }
}

#[test]
fn pickles_that_cost_more_than_they_are() {
    let zip = |pickle: &[u8]| [b"\x80\x02".as_slice(), pickle].concat();
    // Lengths of 4 and 8 bytes that are not there.
    assert!(of_bytes(&zip(b"\x8b\xff\xff\xff\x7f")).contains("truncated"));
    assert!(of_bytes(&zip(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff")).contains("truncated"));
    assert!(of_bytes(&zip(b"X\xff\xff\xff\xff")).contains("truncated"));
    // A memo far away, a stack that is not there, an end without a value, an opcode of protocol 0.
    assert!(of_bytes(&zip(b"Nr\xff\xff\xff\xffj\xff\xff\xff\xff.")).contains("not what torch.save wrote"));
    assert!(of_bytes(&zip(b"h\x07.")).contains("its memo"));
    for stack in [b"0".as_slice(), b"t.", b"s.", b".", b"(0.", b"\x86.", b"e.", b"R.", b"b."] {
        assert!(of_bytes(&zip(stack)).contains("its stack"), "{stack:?}");
    }
    assert!(of_bytes(&zip(b"I01\n.")).contains("pickle opcode 0x49 at byte 2"));
    // Tuples in tuples a hundred thousand deep, and a list that holds itself.
    let deep = [b")".as_slice(), &vec![0x85; 100_000], b"."].concat();
    assert_eq!(parse_pickle(&zip(&deep)).unwrap_err(), "holds no dict of names and tensors");
    assert!(of_bytes(&zip(b"]q\x00h\x00a.")).contains("not what torch.save"));
    // One long list made into a dict again and again.
    let pairs = b"K\x01K\x02\x86".repeat(1000);
    let again = b"h\x01h\x00\x85R0".repeat(10_000);
    let file = [b"](".as_slice(), &pairs, b"eq\x00ccollections\nOrderedDict\nq\x01", &again, b"."].concat();
    assert!(parse_pickle(&zip(&file)).unwrap_err().contains("its lists"));
    // More steps than any state dict takes, and more values than a file of this size has.
    assert!(of_bytes(&zip(&b"\x80\x02".repeat((1 << 24) + 10))).contains("steps"));
    for many in [b"N".as_slice(), b"]", b"(", b"Nq\0"] {
        let message = of_bytes(&zip(&many.repeat((16 << 20) / many.len())));
        assert_eq!(message, "the values of its pickle take more memory than the file's size allows");
    }
}
