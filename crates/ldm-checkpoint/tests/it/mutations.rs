//! Any bytes are read or refused: no panic, no access out of bounds, no long time.

use ldm_checkpoint::{Checkpoint, Npz};
use proptest::prelude::*;

use crate::golden;

/// Opens a file of these bytes and reads every tensor it lists.
fn read(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    if let Ok(checkpoint) = Checkpoint::open(file.path()) {
        for name in checkpoint.names() {
            if let Ok(tensor) = checkpoint.tensor(name) {
                assert_eq!(Some(tensor.size()), checkpoint.info(name).map(|info| info.shape));
            }
        }
        let _ = format!("{checkpoint:?}");
    }
}

const FILES: [&str; 11] = [
    "kinds.ckpt",
    "kinds_legacy.ckpt",
    "inert_2.ckpt",
    "inert_4.ckpt",
    "lightning.ckpt",
    "lightning_legacy.ckpt",
    "windows.ckpt",
    "windows_legacy.ckpt",
    "windows_deflated.ckpt",
    "windows.safetensors",
    "window_inside.ckpt",
];

/// Heads that let random bytes pass format detection.
const HEADS: [&[u8]; 6] =
    [b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04\x95", b"\x40\0\0\0\0\0\0\0{", b"\x80\x02}("];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes(head in prop::sample::select(HEADS.to_vec()), tail in prop::collection::vec(any::<u8>(), 0..400)) {
        read(&[head, &tail].concat());
    }

    #[test]
    fn real_files_with_changed_bytes(
        file in prop::sample::select(FILES.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut bytes = std::fs::read(golden(file)).unwrap();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        read(&bytes);
    }

    #[test]
    fn real_files_with_a_part_removed_or_repeated(
        file in prop::sample::select(FILES.to_vec()),
        (from, to) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        doubled in any::<bool>(),
    ) {
        let bytes = std::fs::read(golden(file)).unwrap();
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        let (from, to) = (from.min(to), from.max(to));
        let again = if doubled { &bytes[from..to] } else { &[] };
        let head = if doubled { &bytes[..to] } else { &bytes[..from] };
        read(&[head, again, &bytes[to..]].concat());
    }

    #[test]
    fn arrays_with_changed_bytes(
        file in prop::sample::select(vec!["arrays.npz", "arrays_compressed.npz"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut bytes = std::fs::read(golden(file)).unwrap();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        if let Ok(npz) = Npz::open(file.path()) {
            for name in npz.names() {
                if let Ok(array) = npz.array(name) {
                    assert_eq!(array.size(), npz.info(name).unwrap().shape);
                }
            }
        }
    }

    #[test]
    fn pickles_of_known_opcodes(opcodes in prop::collection::vec(0..33_usize, 1..60)) {
        const PARTS: [&[u8]; 33] = [
            b"(", b")", b"]", b"}", b"N", b"K\x05", b"J\xff\xff\xff\xff", b"X\x01\0\0\0w", b"t", b"l", b"d", b"a", b"e",
            b"s", b"u", b"\x86", b"q\x00", b"h\x00", b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"ctorch._utils\n_rebuild_qtensor\n", b"ctorch._utils\n_rebuild_sparse_tensor\n",
            b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ctorch\nper_tensor_affine\n", b"ctorch\nFloatTensor\n",
            b"X\x10\0\0\0torch.sparse_coo", b"ctorch\nTensor\n", b"G\x3f\xf0\0\0\0\0\0\0", b"K\x00\x85K\x01\x85",
            b"R", b"b", b"2", b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ",
        ];
        let pickle: Vec<u8> = opcodes.iter().flat_map(|index| PARTS[*index].iter().copied()).collect();
        let mut bytes = std::fs::read(golden("windows_legacy.ckpt")).unwrap();
        // After the magic number and the protocol's.
        bytes.splice(17.., [b"\x80\x02".as_slice(), &pickle, b"."].concat());
        read(&bytes);
    }
}
