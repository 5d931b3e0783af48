//! The rate–distortion curve of a model.

use std::path::Path;

use ldm_core::image;
use ldm_core::noise::Seeded;
use ldm_pipelines::{Conditioned, LatentDiffusion, ModelConfig, ModelFile, Network};
use ldm_schedulers::progressive_code;
use ldm_study::Silent;
use ldm_study::evaluation::{ImageSource, RateDistortion, RateOptions, rate_distortion};
use ldm_testing::fill_weights;
use tch::{Device, Kind, Tensor};

const MODEL: &str = "
model:
  target: latent_diffusion
  params:
    timesteps: 1000
    image_size: 8
    channels: 3
    unet_config:
      target: unet
      params: {in_channels: 3, out_channels: 3, model_channels: 32, attention_resolutions: [1], num_res_blocks: 1,
               channel_mult: [1], num_heads: 2}
    first_stage_config: {target: identity}
    cond_stage_config: __is_unconditional__
";

fn model() -> LatentDiffusion {
    model_of(MODEL)
}

fn model_of(text: &str) -> LatentDiffusion {
    let ModelConfig::LatentDiffusion(config) = ModelFile::parse(text, "tiny.yaml", &[]).unwrap().model else {
        panic!("a diffusion model")
    };
    let model = LatentDiffusion::new(&config, None, Device::Cpu).unwrap();
    fill_weights(model.vs(), 5);
    model
}

fn pattern(index: i64) -> Tensor {
    let x = (Tensor::arange(3 * 8 * 8, (Kind::Float, Device::Cpu)) * (3 + index)).remainder(256.);
    (x / 127.5 - 1.).view([3, 8, 8])
}

fn curve(model: &LatentDiffusion, folder: &Path, batch_size: usize, steps: usize) -> RateDistortion {
    let source = ImageSource { path: folder.to_path_buf(), size: None, strict: true };
    let options = RateOptions { num_images: None, batch_size, steps, seed: 0 };
    rate_distortion(model, &source, &options, &Silent).unwrap()
}

#[test]
fn a_curve_has_the_rate_of_the_code_and_the_error_of_decoded_predictions() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..3 {
        image::write_png(folder.path().join(format!("{index}.png")), &pattern(index), &[]).unwrap();
    }
    let model = model();
    let found = curve(&model, folder.path(), 2, 5);
    assert_eq!((found.images, found.dimensions, found.points.len()), (3, 192, 5));
    assert!(found.first_stage.abs() < 1e-3, "an identity: {}", found.first_stage);
    assert_eq!(found.points.iter().map(|point| point.t).collect::<Vec<_>>(), [999., 749., 500., 250., 0.]);
    assert!(found.points.is_sorted_by(|a, b| a.rate < b.rate), "{:?}", found.points);
    // It does not depend on the batches.
    let again = curve(&model, folder.path(), 1, 5);
    for (a, b) in found.points.iter().zip(&again.points) {
        assert!((a.rate / b.rate - 1.).abs() < 1e-4 && (a.distortion / b.distortion - 1.).abs() < 1e-4);
    }
    // A set of one image, computed by hand.
    let one = tempfile::tempdir().unwrap();
    image::write_png(one.path().join("0.png"), &pattern(0), &[]).unwrap();
    let found = curve(&model, one.path(), 1, 4);
    let x0 = pattern(0).unsqueeze(0);
    let levels: Vec<_> = [999, 666, 333, 0].into_iter().map(|t| model.schedule.level(t)).collect();
    let cond = model.condition(&ldm_core::Prompt::default(), false).unwrap();
    let denoiser = Conditioned::new(Network::new(&model.unet, model.parameterization), &cond);
    let mut noise = Seeded::new([0]);
    tch::no_grad(|| {
        progressive_code(&denoiser, &levels, &x0, &mut noise, &mut |index, coded| {
            let bits = coded.nats.double_value(&[0]) / std::f64::consts::LN_2 / 192.;
            let error = (coded.x0.clamp(-1., 1.) - &x0) * 127.5;
            let rmse = error.square().mean(Kind::Double).double_value(&[]).sqrt();
            let point = found.points[index];
            assert!((point.rate / bits - 1.).abs() < 1e-4, "{} {bits}", point.rate);
            assert!((point.distortion / rmse - 1.).abs() < 1e-4, "{} {rmse}", point.distortion);
        });
    });
    assert_eq!(found.csv().lines().count(), 5);
    assert!(found.csv().starts_with("t,bits_per_dim,rmse\n999,"));
    assert!(found.svg().unwrap().starts_with("<svg"));
    assert_eq!(found.table().len(), 2 + 4 + 1);
}

#[test]
fn invalid_numbers_of_levels_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    image::write_png(folder.path().join("0.png"), &pattern(0), &[]).unwrap();
    let source = ImageSource { path: folder.path().to_path_buf(), size: None, strict: true };
    let options = RateOptions { num_images: None, batch_size: 1, steps: 1001, seed: 0 };
    let error = rate_distortion(&model(), &source, &options, &Silent).err().unwrap().to_string();
    assert_eq!(error, "--steps: expected 2 to 1000, the timesteps of this model, got 1001");
}

#[test]
fn images_of_the_null_class_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, class) in [("0", "0"), ("1", "2")] {
        image::write_png(folder.path().join(format!("{name}.png")), &pattern(0), &[]).unwrap();
        std::fs::write(folder.path().join(format!("{name}.cls")), class).unwrap();
    }
    let classes = "cond_stage_config: {target: class, params: {embed_dim: 32, n_classes: 3, null_class: 2}}";
    let text = MODEL
        .replace("cond_stage_config: __is_unconditional__", classes)
        .replace("num_heads: 2}", "num_heads: 2, use_spatial_transformer: true, context_dim: 32}");
    let source = ImageSource { path: folder.path().to_path_buf(), size: None, strict: true };
    let options = RateOptions { num_images: None, batch_size: 1, steps: 2, seed: 0 };
    let error = rate_distortion(&model_of(&text), &source, &options, &Silent).err().unwrap().to_string();
    let expected =
        "model.params.cond_stage_config.params.null_class: expected a class beside the data's, 0 to 2, got 2";
    assert_eq!(error, expected);
}
