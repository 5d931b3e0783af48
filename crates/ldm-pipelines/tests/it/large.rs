//! Large images in tiles, overflow in half precision, and previews of latents.

use std::collections::BTreeMap;

use ldm_checkpoint::Checkpoint;
use ldm_core::device::test_device;
use ldm_core::noise::Seeded;
use ldm_core::{NoiseSource, Prompt, Tiles};
use ldm_pipelines::{
    Conditioned, GenerateRequest, LatentDiffusion, LatentRgb, LoadOptions, Network, Sampling, generate,
};
use ldm_schedulers::{Denoiser, SamplerConfig};
use ldm_testing::{assert_close, relative_l2};
use tch::{Kind, Tensor};

use crate::tiny_model::{config, model};

fn sampling(size: [i64; 2], tile: Option<i64>) -> Sampling {
    let sampler = SamplerConfig::Ddim { eta: 0. };
    Sampling { guidance: 2_f64.into(), size: Some(size), tile, ..Sampling::new(sampler, 4) }
}

#[test]
fn valid_sizes_are_sampled_whole_or_in_tiles() {
    let model = model(&[]);
    let made = |size, tile| {
        let how = sampling(size, tile);
        generate(&model, &GenerateRequest::new(&Prompt::class(&[3]), &[5], &how), &mut |_| {})
    };
    for size in [[16, 16], [32, 48], [16, 56]] {
        let whole = made(size, None).unwrap();
        let tiled = made(size, Some(16)).unwrap();
        assert_eq!(tiled.images.size(), [1, 3, size[0], size[1]]);
        assert_eq!(whole.images.size(), tiled.images.size());
        if size == [16, 16] {
            assert_close("a single tile", &tiled.images, &whole.images, 1e-6);
        } else {
            assert!(
                relative_l2(&tiled.latents, &whole.latents) > 1e-3,
                "tiles have less context than the whole"
            );
        }
    }
    let wrong = made([32, 32], Some(18)).unwrap_err().to_string();
    assert_eq!(wrong, "tile: expected a multiple of 4 pixels (nearest: 16 and 20), got 18");
    assert!(made([32, 32], Some(-4)).is_err());
}

#[test]
fn tiles_are_denoised_like_whole_samples() {
    let model = model(&[]);
    let cond = model.conditioner.condition(&Prompt::class(&[1]), false).unwrap();
    let x = Seeded::new([2]).like(&Tensor::zeros([1, 4, 8, 20], (Kind::Float, test_device())));
    let at = model.schedule.level(300);
    let network = || Network::new(&model.unet, model.parameterization);
    let tiles = Tiles::new([8, 20], 8, 4);
    let denoise = |network, x: &Tensor| tch::no_grad(|| Conditioned::new(network, &cond).denoise(x, at));
    let got = denoise(network().in_tiles(tiles.clone()), &x);
    let want = tiles.blend(1, |tile| denoise(network(), &tile.of(&x)).eps);
    assert_close("eps", &got.eps, &want, 1e-5);
    assert_close("x", &(&got.x0 * at.alpha + &got.eps * at.sigma), &x, 1e-5);
}

#[test]
fn images_that_overflow_in_half_precision_are_decoded_in_f32() {
    let model = model(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    // Activations beyond 65504, the maximum of f16, before a normalization.
    let tensors: Vec<(String, Tensor)> = model
        .vs()
        .variables()
        .into_iter()
        .map(|(name, tensor)| {
            let large =
                ["post_quant_conv.weight", "decoder.conv_in.weight"].iter().any(|end| name.ends_with(end));
            let tensor = if large { tensor * 3000. } else { tensor };
            (name, tensor.detach())
        })
        .collect();
    ldm_checkpoint::save(&path, &tensors, &BTreeMap::new()).unwrap();
    let load = |kind| {
        let checkpoint = Checkpoint::open(&path).unwrap();
        let options = LoadOptions { kind, ..LoadOptions::new(test_device()) };
        LatentDiffusion::load(&config(&[]), checkpoint, None, &options).unwrap()
    };
    let made = |model: &LatentDiffusion, tile| {
        let how = sampling([16, 32], tile);
        generate(model, &GenerateRequest::new(&Prompt::class(&[3]), &[5], &how), &mut |_| {}).unwrap()
    };
    let (whole, half) = (load(Kind::Float), load(Kind::Half));
    assert!(!made(&whole, None).decoded_in_f32);
    for tile in [None, Some(16)] {
        let got = made(&half, tile);
        assert!(got.decoded_in_f32);
        assert_eq!(got.images.isfinite().all().int64_value(&[]), 1);
        assert!(relative_l2(&got.images, &made(&whole, tile).images) < 0.05);
    }
}

#[test]
fn non_finite_latents_are_an_error() {
    let model = model(&[]);
    let _: Tensor = tch::no_grad(|| {
        model.vs().variables()["model.diffusion_model.out.2.bias"].shallow_clone().fill_(f64::NAN)
    });
    let error = generate(
        &model,
        &GenerateRequest::new(&Prompt::class(&[3]), &[5], &sampling([16, 16], None)),
        &mut |_| {},
    );
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("latents: expected finite values, got NaN or Inf in Float"), "{error}");
}

#[test]
fn previews_show_the_colors_of_latents() {
    let pixels = model(&[
        "model.params.channels=3",
        "model.params.unet_config.params.in_channels=3",
        "model.params.unet_config.params.out_channels=3",
        "model.params.first_stage_config.target=identity",
        "model.params.first_stage_config.params={}",
        "model.params.scale_factor=0.5",
    ]);
    let x = Seeded::new([1, 2]).like(&Tensor::zeros([2, 3, 8, 8], (Kind::Float, test_device()))).tanh();
    let seen = LatentRgb::fit(&pixels).unwrap().images(&(&x * 0.5));
    assert_close("images", &seen, &x, 1e-4);

    // Latents of other images; a random first stage preserves their colors only in part.
    let model = model(&[]);
    let coarse = Seeded::new([77, 78]).like(&Tensor::zeros([2, 3, 3, 3], (Kind::Float, test_device())));
    let images = coarse.upsample_bicubic2d([32, 24], true, None, None).clamp(-1., 1.);
    let seen =
        LatentRgb::fit(&model).unwrap().images(&(model.posterior(&images).mode() * model.scale_factor));
    assert_eq!(seen.size(), [2, 3, 16, 12]);
    let want = images.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None);
    let [x, y] = [seen, want].map(|x| &x - x.mean(Kind::Float));
    let similarity =
        Tensor::cosine_similarity(&x.flatten(0, -1), &y.flatten(0, -1), 0, 1e-8).double_value(&[]);
    assert!(similarity > 0.2, "{similarity}"); // 0.28; an uninformative map has 0
}
