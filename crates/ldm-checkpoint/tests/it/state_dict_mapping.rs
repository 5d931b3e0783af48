//! Mappings to other implementations, and files of other models.

use std::collections::BTreeMap;

use ldm_checkpoint::{Checkpoint, KeyMap, Shapes, StateDictMapping, TensorChange, save, unsupported_kind};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

/// A linear layer for a convolution, and a fused one of `channels` in `heads`.
fn mapping(channels: i64, heads: i64) -> StateDictMapping {
    let thirds = |leaf: &str, native: Vec<i64>, mapped: Vec<i64>| {
        let names = ["to_q", "to_k", "to_v"].map(|part| format!("ours.{part}.{leaf}"));
        (format!("ours.qkv.{leaf}"), TensorChange::FusedQkv { names, native, mapped, heads })
    };
    StateDictMapping {
        keys: KeyMap::new(pairs(&[("theirs.0", "ours")]), pairs(&[("to_out.0", "out")]))
            .with_older(pairs(&[("proj_attn", "out"), ("query", "to_q")])),
        changes: vec![
            thirds("weight", vec![3 * channels, channels, 1], vec![channels, channels]),
            thirds("bias", vec![3 * channels], vec![channels]),
            (
                "ours.out.weight".to_owned(),
                TensorChange::Reshaped {
                    native: vec![channels, channels, 1, 1],
                    mapped: vec![channels, channels],
                },
            ),
        ],
    }
}

fn numbers(shape: &[i64]) -> Tensor {
    let count: i64 = shape.iter().product();
    Tensor::arange(count, (Kind::Float, Device::Cpu)).view(shape)
}

fn ours(channels: i64) -> Vec<(String, Tensor)> {
    [
        ("ours.norm.weight", vec![channels]),
        ("ours.out.weight", vec![channels, channels, 1, 1]),
        ("ours.qkv.bias", vec![3 * channels]),
        ("ours.qkv.weight", vec![3 * channels, channels, 1]),
    ]
    .into_iter()
    .map(|(name, shape)| (name.to_owned(), numbers(&shape)))
    .collect()
}

fn file(tensors: &[(String, Tensor)]) -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    save(&path, tensors, &BTreeMap::new()).unwrap();
    let checkpoint = Checkpoint::open(path).unwrap();
    (folder, checkpoint)
}

#[test]
fn a_fused_tensor_is_split_by_heads() {
    let mapped: BTreeMap<String, Tensor> = mapping(4, 2).to_mapped(&ours(4)).unwrap().into_iter().collect();
    let get = |name: &str| Vec::<f64>::try_from(mapped[name].flatten(0, -1)).unwrap();
    assert_eq!(get("theirs.0.to_q.bias"), [0., 1., 6., 7.]);
    assert_eq!(get("theirs.0.to_k.bias"), [2., 3., 8., 9.]);
    assert_eq!(get("theirs.0.to_v.bias"), [4., 5., 10., 11.]);
    assert_eq!(mapped["theirs.0.to_out.0.weight"].size(), [4, 4]);
    let one: BTreeMap<String, Tensor> = mapping(4, 1).to_mapped(&ours(4)).unwrap().into_iter().collect();
    let keys = Vec::<f64>::try_from(&one["theirs.0.to_k.bias"]).unwrap();
    assert_eq!(keys, [4., 5., 6., 7.], "queries, keys and values one after the other");
    let shapes: Shapes = ours(4).iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
    let want: Shapes = mapped.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
    assert_eq!(mapping(4, 2).mapped_shapes(&shapes), want);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_round_trip_is_exact(
        (heads, width) in (1_i64..5, 1_i64..5),
        kind in prop::sample::select(vec![Kind::Float, Kind::Half, Kind::BFloat16, Kind::Double]),
    ) {
        let mapping = mapping(heads * width, heads);
        let tensors: Vec<_> =
            ours(heads * width).into_iter().map(|(name, tensor)| (name, tensor.to_kind(kind))).collect();
        let (_folder, mapped) = file(&mapping.to_mapped(&tensors).unwrap());
        let back = mapped.into_native(&mapping);
        prop_assert_eq!(back.names().count(), tensors.len());
        for (name, want) in &tensors {
            let info = back.info(name).expect("the native name");
            prop_assert_eq!((info.shape, info.kind), (want.size(), kind));
            prop_assert!(back.tensor(name).unwrap().equal(want), "{}", name);
        }
        // A native file stays as it is.
        let (_folder, native) = file(&tensors);
        prop_assert_eq!(native.clone().into_native(&mapping).shapes(), native.shapes());
    }
}

#[test]
fn mismatching_tensors_stay_as_they_are() {
    let mapping = mapping(4, 2);
    let mut mapped = mapping.to_mapped(&ours(4)).unwrap();
    for (name, tensor) in &mut mapped {
        match name.as_str() {
            "theirs.0.to_k.bias" => *tensor = tensor.to_kind(Kind::Half),
            "theirs.0.to_v.weight" => *tensor = numbers(&[4, 5]),
            "theirs.0.to_out.0.weight" => *tensor = numbers(&[16]),
            _ => {}
        }
    }
    let shapes = file(&mapped).1.into_native(&mapping).shapes();
    let names: Vec<&str> = shapes.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "ours.norm.weight",
            "ours.out.weight",
            "ours.to_k.bias",
            "ours.to_k.weight",
            "ours.to_q.bias",
            "ours.to_q.weight",
            "ours.to_v.bias",
            "ours.to_v.weight"
        ]
    );
    assert_eq!(shapes["ours.out.weight"], [16]);
    let error = mapping.to_mapped(&[("ours.qkv.bias".to_owned(), numbers(&[3]))]).unwrap_err().to_string();
    assert_eq!(error, "tensor `ours.qkv.bias`: expected shape [12], got [3]");
}

#[test]
fn names_of_older_versions_are_read_and_not_written() {
    let keys = mapping(4, 2).keys;
    assert_eq!(keys.apply("theirs.0.proj_attn.bias"), "ours.out.bias");
    assert_eq!(keys.apply("theirs.0.query.bias"), "ours.to_q.bias");
    assert_eq!(keys.inverse().apply("ours.out.bias"), "theirs.0.to_out.0.bias");
    assert_eq!(keys.inverse().apply("ours.to_q.bias"), "theirs.0.to_q.bias");
}

#[track_caller]
fn check(names: &[(&str, &[i64])], what: Option<&str>) {
    let shapes: Shapes = names.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
    let found = unsupported_kind(&shapes);
    match what {
        Some(what) => assert!(found.is_some_and(|found| found.starts_with(what)), "{found:?}"),
        None => assert_eq!(found, None),
    }
}

#[test]
fn files_of_other_models_are_recognized() {
    let attention = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight";
    let proj = "model.diffusion_model.input_blocks.1.1.proj_in.weight";
    check(&[("lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", &[320, 4])], Some("a LoRA: "));
    check(&[("unet.down_blocks.0.attentions.0.to_q.lora_A.weight", &[4, 320])], Some("a LoRA: "));
    check(&[("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", &[])], Some("a LoRA: "));
    check(&[("control_model.input_blocks.0.0.weight", &[320, 4, 3, 3])], Some("a ControlNet: "));
    check(&[("controlnet_cond_embedding.conv_in.weight", &[16, 3, 3, 3])], Some("a ControlNet: "));
    let hint: (&str, &[i64]) = ("control_model.input_hint_block.0.weight", &[16, 3, 3, 3]);
    check(&[hint, ("difference", &[0])], Some("the difference of a ControlNet and its base model"));
    check(&[hint, ("lora_controlnet", &[0])], Some("a Control-LoRA: "));
    check(&[("emb_params", &[2, 768])], Some("a textual inversion: "));
    check(&[("string_to_param.*", &[2, 768])], Some("a textual inversion: "));
    check(&[("<cat-toy>", &[768])], Some("a textual inversion: "));
    check(&[("double_blocks.0.img_mod.lin.weight", &[9, 3])], Some("a Flux transformer"));
    check(
        &[("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", &[9, 3])],
        Some("a Stable Diffusion 3 transformer"),
    );
    check(&[("transformer_blocks.0.attn.to_q.weight", &[3, 3])], Some("a diffusion transformer"));
    check(&[("conditioner.embedders.1.model.ln_final.bias", &[1280])], Some("a Stable Diffusion XL model"));
    check(&[(attention, &[640, 2048]), (proj, &[640, 640])], Some("a Stable Diffusion XL model"));
    check(&[(attention, &[320, 1024]), (proj, &[320, 320])], Some("a Stable Diffusion 2 model"));
    check(
        &[("cond_stage_model.model.transformer.resblocks.0.ln_1.bias", &[1024])],
        Some("a Stable Diffusion 2 model"),
    );
    // Models of the first generation: text of 1.45 G parameters (a context of 1280), and one as wide as SD 2's.
    check(&[(attention, &[320, 1280]), (proj, &[320, 320, 1, 1])], None);
    check(&[(attention, &[320, 1024]), (proj, &[320, 320, 1, 1])], None);
    check(&[("model.diffusion_model.out.0.bias", &[320]), ("first_stage_model.quant_conv.bias", &[8])], None);
    check(&[], None);
}
