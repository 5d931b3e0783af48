//! ControlNets: a run against diffusers (`golden/generate_control.py`), files and refusals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ldm_checkpoint::{Checkpoint, Shapes, StateDictMapping, save};
use ldm_core::device::test_device;
use ldm_core::{Prompt, Result};
use ldm_pipelines::{
    Control, ControlNetModel, GenerateRequest, Init, InitImage, LatentDiffusion, ModelConfig, ModelFile,
    Sampling, generate,
};
use ldm_schedulers::SamplerConfig;
use ldm_testing::{Golden, assert_close, filled, relative_l2};
use ldm_unet::{ControlNetConfig, Plan, Recordings, control_net_diffusers_layout};
use serde::Deserialize;
use serde_json::Value;
use tch::{Kind, Tensor};
use tempfile::TempDir;

const MODEL: &str = "
model:
  target: latent_diffusion
  params:
    linear_start: 0.00085
    linear_end: 0.012
    image_size: 8
    channels: 4
    scale_factor: 0.18215
    conditioning_key: crossattn
    unet_config:
      target: unet
      params: { in_channels: 4, out_channels: 4, model_channels: 32, attention_resolutions: [2], num_res_blocks: 1,
                channel_mult: [1, 2], num_heads: 2, use_spatial_transformer: true, context_dim: 16 }
    first_stage_config:
      target: kl
      params:
        embed_dim: 4
        ddconfig: { double_z: true, z_channels: 4, resolution: 16, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 1],
                    num_res_blocks: 1, attn_resolutions: [], dropout: 0.0 }
    cond_stage_config:
      target: class
      params: { embed_dim: 16, n_classes: 11, null_class: 10 }
";

#[derive(Deserialize)]
struct Saved {
    config: Value,
    shapes: Shapes,
}

#[derive(Deserialize)]
struct Run {
    steps: usize,
    guidance_scale: f64,
    scales: Vec<f64>,
    starts: Vec<f64>,
    ends: Vec<f64>,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/control.safetensors");
    Golden::open(&path, test_device())
}

fn saved(file: &Golden, part: &str) -> Saved {
    serde_json::from_str(file.metadata(part)).unwrap()
}

fn written(path: &Path, tensors: &[(String, Tensor)]) -> Checkpoint {
    save(path, tensors, &BTreeMap::new()).unwrap();
    Checkpoint::open(path).unwrap()
}

/// The model of the golden file; classes 0 and 1 are its prompts, and the null class its negative prompt.
fn model(file: &Golden) -> LatentDiffusion {
    let config = match ModelFile::parse(MODEL, "model.yaml", &[]).unwrap().model {
        ModelConfig::LatentDiffusion(config) => *config,
        other => panic!("{other:?}"),
    };
    let model = LatentDiffusion::new(&config, None, test_device()).unwrap();
    let folder = TempDir::new().unwrap();
    let load = |part: &str, seed, prefix, layout: &StateDictMapping| {
        let tensors = filled(&saved(file, part).shapes, seed);
        let weights = written(&folder.path().join(part), &tensors).into_native(layout);
        weights.load_scope(model.vs(), prefix).unwrap();
    };
    load("unet", 1, "model.diffusion_model.", &ldm_unet::diffusers_layout(config.unet()).unwrap());
    let first_stage = ldm_autoencoder::from_diffusers(&saved(file, "vae").config).unwrap().0;
    load("vae", 2, "first_stage_model.", &ldm_autoencoder::diffusers_layout(&first_stage).unwrap());
    let classes = model.vs().variables()["cond_stage_model.embedding.weight"].detach();
    let (prompt, negative) = (file.get("prompt"), file.get("negative"));
    tch::no_grad(|| {
        classes.narrow(0, 0, 2).copy_(&prompt.squeeze_dim(1));
        classes.get(10).copy_(&negative.get(0).get(0));
    });
    model
}

/// Writes a ControlNet as diffusers saves it.
fn diffusers_folder(file: &Golden, folder: &TempDir, seed: u64) -> PathBuf {
    let Saved { config, shapes } = saved(file, "net");
    let path = folder.path().join(format!("net{seed}"));
    std::fs::create_dir(&path).unwrap();
    written(&path.join("diffusion_pytorch_model.safetensors"), &filled(&shapes, seed));
    std::fs::write(path.join("config.json"), config.to_string()).unwrap();
    path
}

/// The same under lllyasviel's names.
fn original(file: &Golden, seed: u64) -> Vec<(String, Tensor)> {
    let Saved { config, shapes } = saved(file, "net");
    let layout = control_net_diffusers_layout(&ControlNetConfig::from_diffusers(&config).unwrap()).unwrap();
    let name = |(name, tensor): (String, Tensor)| (layout.keys.apply(&name), tensor);
    filled(&shapes, seed).into_iter().map(name).collect()
}

fn sampling(run: &Run) -> Sampling {
    let sampler = SamplerConfig::Ddim { eta: 0. };
    let how = Sampling::new(sampler, run.steps);
    Sampling { guidance: run.guidance_scale.into(), size: Some([16, 24]), ..how }
}

struct Fixture {
    file: Golden,
    model: LatentDiffusion,
    folder: TempDir,
    run: Run,
}

impl Fixture {
    fn new() -> Self {
        let file = golden();
        let run = serde_json::from_str(file.metadata("run")).unwrap();
        Self { model: model(&file), folder: TempDir::new().unwrap(), file, run }
    }

    fn net(&self, seed: u64) -> ControlNetModel {
        ControlNetModel::open(&diffusers_folder(&self.file, &self.folder, seed), &self.model).unwrap()
    }

    fn hint(&self, index: usize) -> impl Fn([i64; 2]) -> Result<Tensor> + use<> {
        let hint = self.file.get(&format!("hint.{index}")).shallow_clone();
        move |size| {
            assert_eq!(size, [16, 24], "the size of the images");
            Ok(hint.shallow_clone())
        }
    }

    fn latents(&self, how: &Sampling, init: Init, controls: &[Control]) -> Result<(Tensor, Tensor)> {
        let prompt = Prompt::class(&[0, 1]);
        let request = GenerateRequest::new(&prompt, &[0, 1], how).init(init).controls(controls);
        generate(&self.model, &request, &mut |_| {}).map(|made| (made.latents, made.images))
    }
}

#[test]
fn a_run_equals_that_of_diffusers() {
    let fixture = Fixture::new();
    let (file, run) = (&fixture.file, &fixture.run);
    let nets = [fixture.net(3), fixture.net(4)];
    let controls: Vec<Control> = (0..2)
        .map(|index| {
            let control = Control::new(&nets[index], fixture.hint(index)).scale(run.scales[index]);
            control.interval(run.starts[index], run.ends[index])
        })
        .collect();
    let (how, init) = (sampling(run), Init::Noise(file.get("noise")));
    let (latents, images) = fixture.latents(&how, init, &controls).unwrap();
    assert_close("latents of two", &latents, file.get("latents"), 1e-5);
    assert_close("images of two", &images, file.get("images"), 1e-5);
    let one = [Control::new(&nets[0], fixture.hint(0)).scale(run.scales[0])];
    let (latents, _) = fixture.latents(&how, init, &one).unwrap();
    assert_close("latents of one", &latents, file.get("one"), 1e-5);
    assert_eq!(nets[0].name, "net3");
    assert_eq!(
        controls[1].to_string(),
        "Module: none, Model: net4, Weight: 0.5, Guidance Start: 0.2, Guidance End: 1"
    );
}

#[test]
fn a_control_of_scale_zero_changes_nothing_and_tiles_and_images_are_steered() {
    let fixture = Fixture::new();
    let net = fixture.net(3);
    let control = |scale| [Control::new(&net, fixture.hint(0)).scale(scale)];
    let how = sampling(&fixture.run);
    let made = |how: &Sampling, init, controls: &[Control]| fixture.latents(how, init, controls).unwrap().0;
    let plain = made(&how, Init::Seeds, &[]);
    assert!(made(&how, Init::Seeds, &control(0.)).equal(&plain));
    let steered = made(&how, Init::Seeds, &control(1.));
    assert!(relative_l2(&steered, &plain) > 0.01);

    let tiled = |side| Sampling { tile: Some(side), ..how.clone() };
    assert_close("one tile", &made(&tiled(32), Init::Seeds, &control(1.)), &steered, 1e-5);
    let parts = made(&tiled(16), Init::Seeds, &control(1.));
    assert!(relative_l2(&parts, &made(&tiled(16), Init::Seeds, &[])) > 0.01);

    let image = Tensor::zeros([1, 3, 16, 24], (Kind::Float, test_device())) + 0.3;
    let image = InitImage::new(image, 0.6, None).unwrap();
    let with = made(&how, Init::Image(&image), &control(1.));
    let without = made(&how, Init::Image(&image), &[]);
    assert!(relative_l2(&with, &without) > 0.01);
}

#[test]
fn recorded_evaluations_are_steered_in_their_steps() {
    let mut fixture = Fixture::new();
    let nets = [fixture.net(3), fixture.net(4)];
    let made = |fixture: &Fixture| {
        let controls = [0, 1].map(|index| Control::new(&nets[index], fixture.hint(index)).interval(0., 0.6));
        fixture.latents(&sampling(&fixture.run), Init::Seeds, &controls).unwrap().0
    };
    let want = made(&fixture);
    fixture.model.recordings = Recordings::again();
    assert!(made(&fixture).equal(&want));
    assert!(made(&fixture).equal(&want));
    assert_eq!(fixture.model.recordings.count(), 2, "steps with residuals, and without");
}

#[test]
fn files_of_all_namings_are_read() {
    let fixture = Fixture::new();
    let folder = diffusers_folder(&fixture.file, &fixture.folder, 3);
    let tensors = original(&fixture.file, 3);
    let prefixed = tensors.iter().map(|(name, x)| (format!("control_model.{name}"), x.shallow_clone()));
    let mut whole: Vec<_> = prefixed.clone().collect();
    whole.push(("model.diffusion_model.out.2.bias".into(), tensors[0].1.shallow_clone()));
    let bare = filled(&saved(&fixture.file, "net").shapes, 3);
    let open = |name: &str, tensors: &[(String, Tensor)]| {
        let path = fixture.folder.path().join(name);
        written(&path, tensors);
        ControlNetModel::open(&path, &fixture.model).unwrap()
    };
    let how = sampling(&fixture.run);
    let of = |net: &ControlNetModel| {
        let control = [Control::new(net, fixture.hint(0))];
        fixture.latents(&how, Init::Seeds, &control).unwrap().0
    };
    let want = of(&ControlNetModel::open(&folder, &fixture.model).unwrap());
    for net in [
        open("plain.pth", &tensors),
        open("prefixed.safetensors", &prefixed.collect::<Vec<_>>()),
        open("whole.safetensors", &whole),
        open("diffusers.safetensors", &bare),
        ControlNetModel::open(&folder.join("diffusion_pytorch_model.safetensors"), &fixture.model).unwrap(),
    ] {
        assert_close(&net.name, &of(&net), &want, 1e-6);
    }
}

#[test]
fn other_files_and_hints_are_refused_by_name() {
    let fixture = Fixture::new();
    let tensors = || original(&fixture.file, 3);
    let path = fixture.folder.path().join("net.safetensors");
    let refused = |tensors: &[(String, Tensor)]| {
        written(&path, tensors);
        ControlNetModel::open(&path, &fixture.model).unwrap_err().to_string()
    };
    let renamed = |from: &str, to: &str| -> Vec<_> {
        let rename = |(name, x): (String, Tensor)| (if name == from { to.to_owned() } else { name }, x);
        tensors().into_iter().map(rename).collect()
    };
    let check = |tensors: &[(String, Tensor)], expected: &str| {
        let error = refused(tensors);
        assert_eq!(error, format!("{}: {expected}", path.display()));
    };
    check(
        &renamed("zero_convs.1.0.bias", "zero_convs.1.0.other"),
        "1 missing: zero_convs.1.0.bias; 1 unexpected: zero_convs.1.0.other",
    );
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, test_device()));
    check(&[("x".into(), zeros(&[1]))], "expected a ControlNet, got other names");
    let mut difference = tensors();
    difference.push(("difference".into(), zeros(&[1])));
    check(
        &difference,
        "expected a ControlNet, got the difference of a ControlNet and its base model, not supported; try the file of the whole ControlNet",
    );
    let mut wide = tensors();
    for (name, x) in &mut wide {
        if name.ends_with("attn2.to_k.weight") {
            *x = zeros(&[64, 1024]);
        }
    }
    check(
        &wide,
        "context: expected 16 channels, as in the model's U-Net, got 1024, as for Stable Diffusion 2",
    );
    let config = ControlNetConfig::of(fixture.model.config.unet(), 4); // hints of 8 times the latent's size
    let eight: Shapes = Plan::control_net(&config).unwrap().parameters().into_iter().collect();
    check(&filled(&eight, 1), "hint: expected an encoder of the first stage's factor 2, got 8");

    let net = fixture.net(4);
    let how = sampling(&fixture.run);
    let error = |control| fixture.latents(&how, Init::Seeds, &[control]).unwrap_err().to_string();
    assert_eq!(
        error(Control::new(&net, |_| Ok(Tensor::zeros([1, 3, 8, 24], (Kind::Float, test_device()))))),
        "the hint: expected shape [1, 3, 16, 24], got [1, 3, 8, 24]"
    );
    assert_eq!(
        error(Control::new(&net, fixture.hint(0)).scale(f64::NAN)),
        "control scale: expected a finite number, got NaN"
    );
    assert_eq!(
        error(Control::new(&net, fixture.hint(0)).interval(0.5, 0.55)),
        "control start and end: expected an interval that contains a whole step of 5, got 0.5 to 0.55"
    );
}
