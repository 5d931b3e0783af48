//! Files of PyTorch, compared with the same values as safetensors.

use std::collections::BTreeMap;

use ldm_checkpoint::{Checkpoint, Format, save};
use ldm_testing::shared_data;
use tch::{Device, Kind, Tensor};

use crate::{assert_same_bits, golden};

#[track_caller]
fn check(file: &str, format: Format, twin: &str) -> Checkpoint {
    let checkpoint = Checkpoint::open(golden(file)).unwrap();
    assert_eq!(checkpoint.format(), format);
    let twin = Checkpoint::open(golden(twin)).unwrap();
    assert_eq!(twin.format(), Format::Safetensors);
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), twin.names().collect::<Vec<_>>());
    for name in twin.names() {
        assert_eq!(checkpoint.info(name), twin.info(name), "{name}");
        let tensor = checkpoint.tensor(name).unwrap();
        assert!(tensor.is_contiguous(), "{name}");
        assert_same_bits(name, &tensor, &twin.tensor(name).unwrap());
    }
    checkpoint
}

#[test]
fn lightning_checkpoints_with_trainer_state() {
    for (file, format) in
        [("lightning.ckpt", Format::TorchZip), ("lightning_legacy.ckpt", Format::TorchLegacy)]
    {
        let checkpoint = check(file, format, "lightning.safetensors");
        let expected = [
            ("epoch", "3"),
            ("finished", "false"),
            ("global_step", "1099511627776"),
            ("learning_rate", "0.5"),
            ("pytorch-lightning_version", "1.4.2"),
        ];
        let expected: BTreeMap<_, _> = expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert_eq!(checkpoint.metadata(), &expected);
        assert!(checkpoint.contains("model.conv.weight") && !checkpoint.contains("epoch"));
        assert_eq!(checkpoint.info("betas").unwrap().kind, Kind::Double);
        assert_eq!(checkpoint.info("steps").unwrap().shape, [0_i64; 0]);
        assert!(checkpoint.info("model.conv").is_none());
    }
}

#[test]
fn windows_into_storages_of_every_dtype() {
    check("windows.ckpt", Format::TorchZip, "windows.safetensors");
    check("windows_legacy.ckpt", Format::TorchLegacy, "windows.safetensors");
}

#[test]
fn a_zip_packed_again_by_another_program() {
    check("windows_deflated.ckpt", Format::TorchZip, "windows.safetensors");
}

/// Sizes and offsets in the 64-bit records of an archive beyond 4 GB, made by `golden/generate_zip64.py`.
#[test]
fn a_zip_with_64_bit_records() {
    check("windows_zip64.ckpt", Format::TorchZip, "windows.safetensors");
}

#[test]
fn the_extension_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    for (file, format) in
        [("lightning.safetensors", Format::Safetensors), ("lightning.ckpt", Format::TorchZip)]
    {
        for extension in ["ckpt", "safetensors", "bin"] {
            let path = folder.path().join(format!("model.{extension}"));
            std::fs::copy(golden(file), &path).unwrap();
            assert_eq!(Checkpoint::open(&path).unwrap().format(), format);
        }
    }
    assert_eq!(Format::TorchLegacy.to_string(), "torch legacy pickle");
}

#[test]
fn a_state_dict_under_model_is_found() {
    let checkpoint = Checkpoint::open(golden("model_key.ckpt")).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w"]);
    assert_eq!(checkpoint.tensor("w").unwrap(), tch::Tensor::from_slice(&[1_f32, 1.]));
}

#[test]
fn metadata_of_safetensors() {
    let checkpoint = Checkpoint::open(golden("lightning.safetensors")).unwrap();
    assert!(checkpoint.metadata()["torch"].starts_with("2.11"));
}

#[test]
fn a_tensor_outlives_its_checkpoint() {
    let checkpoint = Checkpoint::open(golden("windows.ckpt")).unwrap();
    let tensor = checkpoint.tensor("tail").unwrap();
    drop(checkpoint);
    assert_eq!(tensor, tch::Tensor::from_slice(&[20_f32, 21., 22., 23.]));
}

#[test]
fn a_file_of_python_2() {
    let Some(data) = shared_data() else {
        println!("skipped: no shared data");
        return;
    };
    let checkpoint = Checkpoint::open(data.join("weights/lpips_vgg_lin_v0.1.pth")).unwrap();
    assert_eq!(checkpoint.format(), Format::TorchLegacy);
    let shapes: Vec<_> =
        checkpoint.names().map(|name| (name, checkpoint.info(name).unwrap().shape)).collect();
    let expected = [64, 128, 256, 512, 512].map(|channels| vec![1, channels, 1, 1]);
    assert_eq!(
        shapes.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        [
            "lin0.model.1.weight",
            "lin1.model.1.weight",
            "lin2.model.1.weight",
            "lin3.model.1.weight",
            "lin4.model.1.weight"
        ]
    );
    assert_eq!(shapes.into_iter().map(|(_, shape)| shape).collect::<Vec<_>>(), expected);
    // LPIPS' training keeps its weights non-negative.
    let least = checkpoint.tensor("lin4.model.1.weight").unwrap().min().double_value(&[]);
    assert!((0. ..1.).contains(&least), "{least}");
}

/// The length 640 of a header is `80 02`, which also begins a pickle of protocol 2.
#[test]
fn a_header_length_that_looks_like_a_pickle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let tensors = [("a".to_owned(), Tensor::zeros([1], (Kind::Float, Device::Cpu)))];
    let mut heads = Vec::new();
    for length in 500..620 {
        let metadata = BTreeMap::from([("note".to_owned(), "x".repeat(length))]);
        save(&path, &tensors, &metadata).unwrap();
        heads.push(std::fs::read(&path).unwrap()[..2].to_vec());
        assert_eq!(Checkpoint::open(&path).unwrap().format(), Format::Safetensors);
    }
    assert!(heads.contains(&vec![0x80, 0x02]), "one of the lengths is 640");
}

/// libtorch's bindings have no unsigned integers of more than 8 bits.
#[test]
fn unsigned_integers_of_safetensors() {
    let header = r#"{"a":{"dtype":"U16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"U32","shape":[1],"data_offsets":[4,8]},"c":{"dtype":"U64","shape":[1],"data_offsets":[8,16]}}"#;
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes = [[0xff; 8], 7_u64.to_le_bytes()].concat();
    std::fs::write(file.path(), [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes].concat())
        .unwrap();
    let checkpoint = Checkpoint::open(file.path()).unwrap();
    assert_eq!(checkpoint.tensor("a").unwrap(), Tensor::from_slice(&[65535_i32, 65535]));
    assert_eq!(checkpoint.tensor("b").unwrap(), Tensor::from_slice(&[0xffff_ffff_i64]));
    assert_eq!(checkpoint.tensor("c").unwrap(), Tensor::from_slice(&[7_i64]));
}
