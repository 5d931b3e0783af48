//! `ldm inspect`: detection of files by their names and shapes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ldm_autoencoder::FirstStageConfig;
use ldm_testing::Sandbox;
use ldm_unet::{UNet, UNetConfig};
use serde_json::{Value, json};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::LDM;

type Tensors = Vec<(String, Tensor)>;

fn first_stage() -> FirstStageConfig {
    serde_json::from_value(json!({"target": "kl", "params": {
        "embed_dim": 4,
        "ddconfig": {"double_z": true, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32,
                     "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0},
    }}))
    .unwrap()
}

fn unet() -> UNetConfig {
    serde_json::from_value(json!({
        "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": 1, "attention_resolutions": [2],
        "channel_mult": [1, 2], "num_heads": 8, "use_spatial_transformer": true, "context_dim": 16,
    }))
    .unwrap()
}

fn first_stage_tensors(root: &str) -> Tensors {
    let vs = VarStore::new(Device::Cpu);
    ldm_autoencoder::build(&vs.root(), &first_stage()).unwrap();
    below(root, &vs)
}

fn unet_tensors(root: &str) -> Tensors {
    let vs = VarStore::new(Device::Cpu);
    UNet::new(&vs.root(), &unet()).unwrap();
    below(root, &vs)
}

fn below(root: &str, vs: &VarStore) -> Tensors {
    let mut tensors: Tensors =
        vs.variables().into_iter().map(|(name, tensor)| (format!("{root}{name}"), tensor.detach())).collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

fn zeros(name: &str, shape: &[i64]) -> (String, Tensor) {
    (name.into(), Tensor::zeros(shape, (Kind::Float, Device::Cpu)))
}

/// A sandbox with files to inspect.
struct Inspected(Sandbox);

impl Inspected {
    fn new() -> Self {
        Self(Sandbox::new(LDM, &[]))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn save(&self, name: &str, tensors: &[(String, Tensor)]) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        ldm_checkpoint::save(self.path(name), tensors, &BTreeMap::new()).unwrap();
    }

    fn write(&self, name: &str, document: &Value) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), document.to_string()).unwrap();
    }

    #[track_caller]
    fn inspect(&self, args: &[&str]) -> String {
        self.0.ok(&[&["inspect"], args].concat())
    }

    #[track_caller]
    fn document(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.inspect(&[args, &["--json"]].concat())).unwrap()
    }

    /// Checks that the file is detected as `architecture`, and fits.
    #[track_caller]
    fn check(&self, path: &str, architecture: &str) -> Value {
        let document = self.document(&[path]);
        assert_eq!(document["architecture"].as_str(), Some(architecture));
        assert_eq!(document["fits"], true, "{}", document["misfit"]);
        document
    }
}

const FIRST_STAGE: &str = "KL first stage, f = 2, 4 latent channels";
const UNET: &str = "U-Net 4 -> 4, levels of 32, 64 channels, attends to tokens of 16";

#[test]
fn a_first_stage_without_config_is_detected_by_its_names() {
    let sandbox = Inspected::new();
    let trained = [
        first_stage_tensors(""),
        vec![zeros("loss.logvar", &[]), zeros("loss.discriminator.main.0.weight", &[64, 3, 4, 4])],
    ];
    sandbox.save("vae.safetensors", &trained.into_iter().flatten().collect::<Tensors>());
    let document = sandbox.check("vae.safetensors", FIRST_STAGE);
    assert!(document["config"].is_null());
    assert_eq!(document["parts"]["loss"], 3073);
    // The inferred config fits the file.
    sandbox.write("derived.yaml", &document["derived"]);
    let checked = sandbox.document(&["vae.safetensors", "--config", "derived.yaml"]);
    assert_eq!(
        (checked["fits"].as_bool(), checked["architecture"].as_str()),
        (Some(true), Some(FIRST_STAGE))
    );
}

#[test]
fn a_whole_model_without_config_is_detected_part_by_part() {
    let sandbox = Inspected::new();
    let rest = vec![
        zeros("betas", &[1000]),
        zeros("model_ema.decay", &[]),
        zeros("model_ema.diffusion_modelout2bias", &[4]),
        zeros("cond_stage_model.embedding.weight", &[11, 16]),
    ];
    let parts = [unet_tensors("model.diffusion_model."), first_stage_tensors("first_stage_model."), rest];
    let mut whole: Tensors = parts.into_iter().flatten().collect();
    sandbox.save("whole.safetensors", &whole);
    let document = sandbox.document(&["whole.safetensors"]);
    let detected = document["architecture"].as_str().unwrap();
    // No published U-Net is as small, and the number of heads is in no shape.
    assert!(detected.starts_with("a U-Net (") && detected.contains("try a config"), "{detected}");
    assert!(detected.ends_with(&format!("; {FIRST_STAGE}; classes as conditioner")), "{detected}");
    assert_eq!((document["fits"].as_bool(), document["ema"].as_bool()), (Some(true), Some(true)));

    for number in 0..12 {
        whole.push(zeros(&format!("first_stage_model.extra.{number:02}"), &[1]));
    }
    whole.retain(|(name, _)| name != "first_stage_model.quant_conv.bias");
    sandbox.save("odd.safetensors", &whole);
    let stdout = sandbox.inspect(&["odd.safetensors"]);
    assert!(stdout.contains("1 missing\n  first_stage_model.quant_conv.bias\n"), "{stdout}");
    let ten: Vec<String> = (0..10).map(|number| format!("  first_stage_model.extra.{number:02}\n")).collect();
    let ten = ten.concat();
    assert!(stdout.contains(&format!("12 unexpected\n{ten}  … and 2 more\n")), "{stdout}");
    let document = sandbox.document(&["odd.safetensors"]);
    assert_eq!(document["fits"], false);
    assert_eq!(
        document["misfit"]["unexpected"].as_array().unwrap().len(),
        12,
        "the document lists all of them"
    );
}

#[test]
fn unsupported_models_are_reported() {
    let sandbox = Inspected::new();
    sandbox.save("lora.safetensors", &[zeros("lora_unet_down_blocks_0.lora_down.weight", &[4, 320])]);
    let document = sandbox.document(&["lora.safetensors"]);
    assert!(document["architecture"].as_str().unwrap().starts_with("a LoRA:"), "{document}");
    assert!(document["fits"].is_null());
    sandbox.save("other.safetensors", &[zeros("weight", &[4])]);
    assert!(sandbox.inspect(&["other.safetensors"]).contains("architecture  unknown: without a config"));
}

#[test]
fn shards_are_read_as_one_file() {
    let sandbox = Inspected::new();
    let tensors = first_stage_tensors("");
    let (a, b) = tensors.split_at(tensors.len() / 2);
    sandbox.save("vae-1.safetensors", a);
    sandbox.save("vae-2.safetensors", b);
    let place = |file: &'static str| move |(name, _): &(String, Tensor)| (name.clone(), json!(file));
    let map: serde_json::Map<String, Value> =
        a.iter().map(place("vae-1.safetensors")).chain(b.iter().map(place("vae-2.safetensors"))).collect();
    sandbox.write("vae.safetensors.index.json", &json!({"metadata": {}, "weight_map": map}));
    sandbox.check("vae.safetensors.index.json", FIRST_STAGE);
}

#[test]
fn a_diffusers_folder_is_detected_part_by_part() {
    let sandbox = Inspected::new();
    sandbox.write("model_index.json", &json!({"_class_name": "LDMPipeline"}));
    let mapped =
        |layout: ldm_checkpoint::StateDictMapping, tensors: &Tensors| layout.to_mapped(tensors).unwrap();
    sandbox.write("vae/config.json", &ldm_autoencoder::to_diffusers(&first_stage(), 0.5).unwrap());
    let layout = ldm_autoencoder::diffusers_layout(&first_stage()).unwrap();
    let vae = mapped(layout, &first_stage_tensors(""));
    sandbox.save("vae/diffusion_pytorch_model.safetensors", &vae);
    sandbox.write("unet/config.json", &ldm_unet::to_diffusers(&unet()).unwrap());
    let layout = ldm_unet::diffusers_layout(&unet()).unwrap();
    sandbox.save("unet/diffusion_pytorch_model.safetensors", &mapped(layout, &unet_tensors("")));
    sandbox.write("text_encoder/config.json", &json!({"architectures": ["CLIPTextModel"]}));
    sandbox.save("text_encoder/model.safetensors", &[zeros("text_model.x", &[1])]);

    let document = sandbox.document(&["."]);
    // The scheduler is missing; the components are inspected nevertheless.
    let whole = document["architecture"].as_str().unwrap();
    assert!(whole.starts_with("no latent diffusion model as a whole: "), "{whole}");
    let parts = document["parts"].as_array().unwrap();
    let detected: Vec<_> =
        parts.iter().map(|part| (part["architecture"].as_str().unwrap(), part["fits"].as_bool())).collect();
    let (vae_detected, unet_detected) = (
        format!("{FIRST_STAGE} (diffusers' AutoencoderKL)"),
        format!("{UNET} (diffusers' UNet2DConditionModel)"),
    );
    assert_eq!(
        detected,
        [("CLIPTextModel", None), (unet_detected.as_str(), Some(true)), (vae_detected.as_str(), Some(true))]
    );
    assert_eq!(parts[2]["derived"]["scale_factor"], 0.5);

    // One component, whose weights do not fit its config.
    sandbox.save("vae/diffusion_pytorch_model.safetensors", &vae[1..]);
    let stdout = sandbox.inspect(&["vae"]);
    assert!(stdout.contains("1 missing\n"), "{stdout}");
}
