//! Tiled decoding.

use ldm_autoencoder::{Autoencoder, FirstStage, FirstStageConfig};
use ldm_core::device::test_device;
use ldm_core::noise::Seeded;
use ldm_core::{NoiseSource, Tiles};
use ldm_testing::{Golden, assert_close, fill_weights};
use serde_json::json;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// A decoder with random weights whose kernels weight the center most, so that borders matter as little as in a trained
/// decoder.
fn model(kind: &str, attention: &str) -> Autoencoder {
    let mut config = json!({
        "target": kind,
        "params": {
            "embed_dim": 4,
            "ddconfig": {
                "double_z": kind == "kl", "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 64,
                "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "attn_type": attention,
            },
        },
    });
    if kind == "vq" {
        config["params"]["n_embed"] = json!(64);
    }
    let config: FirstStageConfig = serde_json::from_value(config).unwrap();
    let vs = VarStore::new(test_device());
    let model = Autoencoder::new(&vs.root(), &config).unwrap();
    fill_weights(&vs, 1);
    for weight in vs.variables().into_values().filter(|weight| weight.dim() == 4 && weight.size()[2] == 3) {
        let around = Tensor::full([3, 3], 0.03, (Kind::Float, test_device()));
        let _ = around.get(1).get(1).fill_(1.);
        let _ = tch::no_grad(|| weight.shallow_clone().g_mul_(&around));
    }
    model
}

/// A smooth latent.
fn smooth(height: i64, width: i64) -> Tensor {
    let coarse = Seeded::new([3]).like(&Tensor::zeros([1, 4, 5, 5], (Kind::Float, test_device())));
    coarse.upsample_bicubic2d([height, width], true, None, None)
}

/// Mean absolute difference of images, relative to their range.
fn apart(got: &Tensor, want: &Tensor) -> f64 {
    (got - want).abs().mean(Kind::Double).double_value(&[]) / 2.
}

#[test]
fn tiles_of_smooth_latents_have_no_seams() {
    for attention in ["none", "linear", "vanilla"] {
        let model = model("kl", attention);
        let z = smooth(96, 72);
        let want = tch::no_grad(|| model.decode(&z));
        let got = tch::no_grad(|| model.decode_tiled(&z, &Tiles::new([96, 72], 32, 8)));
        assert_eq!(got.size(), want.size());
        let spread = want.std(true).double_value(&[]);
        assert!((0.1..2.).contains(&spread), "the image has contrast: {spread}");
        let gap = apart(&got, &want);
        assert!(gap <= 1. / 255., "{attention}: {:.2} / 255 of a spread of {spread}", gap * 255.);
        // Independent tiles are worse.
        let alone = Tiles::new([96, 72], 32, 8).blend(2, |tile| tch::no_grad(|| model.decode(&tile.of(&z))));
        assert!(apart(&alone, &want) > 3. * gap, "{} {gap}", apart(&alone, &want));
    }
}

/// Encoding in tiles of 16 x 16 pixels that share half, as CompVis' `encode_first_stage` with `split_input_params`;
/// `golden/generate_tiles.py` makes the file.
#[test]
fn encoding_in_tiles_equals_compvis() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tiles.safetensors");
    let golden = Golden::open(path, test_device());
    let config = json!({
        "target": "vq",
        "params": {
            "embed_dim": 3, "n_embed": 16,
            "ddconfig": {
                "double_z": false, "z_channels": 3, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32,
                "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [8],
            },
        },
    });
    let config: FirstStageConfig = serde_json::from_value(config).unwrap();
    let vs = VarStore::new(test_device());
    let model = Autoencoder::new(&vs.root(), &config).unwrap();
    fill_weights(&vs, 3);
    let image = golden.get("image");
    let tiles = Tiles::new([20, 16], 8, 4);
    let tie = tiles.clone().with_tie_breaker(Some([0.1, 0.4]));
    let encoded = |tiles: &Tiles| tch::no_grad(|| model.encode_tiled(image, tiles)).mode();
    assert_close("whole", &tch::no_grad(|| model.encode(image)).mode(), golden.get("whole"), 1e-5);
    assert_close("tiles", &encoded(&tiles), golden.get("tiles"), 1e-5);
    assert_close("tie breaker", &encoded(&tie), golden.get("tie"), 1e-5);
}

#[test]
fn a_single_tile_is_exact() {
    for kind in ["kl", "vq"] {
        let model = model(kind, "vanilla");
        let z = smooth(16, 24);
        let [want, got] =
            tch::no_grad(|| [model.decode(&z), model.decode_tiled(&z, &Tiles::new([16, 24], 24, 6))]);
        assert_eq!(want, got, "{kind}");
        let large = tch::no_grad(|| model.decode_tiled(&smooth(40, 24), &Tiles::new([40, 24], 24, 6)));
        assert_eq!(large.size(), [1, 3, 80, 48]);
        assert_eq!(large.isfinite().all().int64_value(&[]), 1);
    }
}
