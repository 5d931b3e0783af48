//! ControlNets opened for a model.

use std::path::{Path, PathBuf};

use ldm_checkpoint::{Checkpoint, FileWatch, Shapes, unsupported_kind};
use ldm_core::nn::skip_init;
use ldm_core::{Error, Result};
use ldm_unet::{ControlNet, ControlNetConfig, control_net_diffusers_layout};
use tch::nn::VarStore;

use crate::LatentDiffusion;
use crate::diffusers::component::weights_of;
use crate::diffusers::scheduler::read_json;

/// Prefix of the names in lllyasviel's files, some of which hold a whole model too.
const PREFIX: &str = "control_model.";
/// A module that only a ControlNet has: its name in lllyasviel's files, and in diffusers'.
const MARKS: [&str; 2] = ["input_hint_block.", "controlnet_cond_embedding."];
/// Tensors that mark files of other kinds, see [`unsupported_kind`].
const OTHER_KINDS: [&str; 2] = ["difference", "lora_controlnet"];

/// A ControlNet that fits a model, in the model's dtype and on its device.
#[derive(Debug)]
pub struct ControlNetModel {
    /// The file's name without extension, or the folder's.
    pub name: String,
    network: ControlNet,
    /// The file of the weights.
    files: FileWatch,
}

impl ControlNetModel {
    /// Opens a ControlNet of the U-Net of `model`: a file of lllyasviel's names, with or without `control_model.`, or a
    /// folder or file of diffusers. A file without `config.json` has the architecture of the model's U-Net.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; [`Error::Format`] for another kind of file and for a ControlNet of another U-Net;
    /// [`Error::Weights`] listing every name that does not match.
    pub fn open(path: &Path, model: &LatentDiffusion) -> Result<Self> {
        let folder = std::fs::metadata(path).map_err(Error::io(path))?.is_dir();
        let weights = if folder { weights_of(path, true)?.0 } else { path.to_path_buf() };
        let checkpoint = Checkpoint::open(&weights)?;
        let refuse = |why: String| Error::format(&weights, why);
        let (checkpoint, diffusers) = control_net_of(checkpoint)?;
        let json = config_of(&weights)?.filter(|_| diffusers);
        let invalid = |error: Error| match error {
            Error::Invalid(why) => refuse(why),
            other => other,
        };
        let unet = model.config.unet();
        check_context(&checkpoint.shapes(), unet.context_dim).map_err(refuse)?;
        let channels = model.config.channels;
        let config = match &json {
            Some(json) => ControlNetConfig::from_diffusers(json),
            None => ControlNetConfig::of(unet, channels).with_hint_encoder_of(&checkpoint.shapes()),
        };
        let config = config.map_err(invalid)?;
        let checkpoint = if diffusers {
            checkpoint.into_native(&control_net_diffusers_layout(&config).map_err(invalid)?)
        } else {
            checkpoint
        };
        config.check_fits(unet).map_err(invalid)?;
        if config.unet.in_channels != channels {
            let got = config.unet.in_channels;
            return Err(refuse(format!(
                "in_channels: expected the {channels} of the model's latents, got {got}"
            )));
        }
        let (own, factor) = (config.hint_factor(), model.first_stage.factor());
        if own != factor {
            return Err(refuse(format!(
                "hint: expected an encoder of the first stage's factor {factor}, got {own}"
            )));
        }
        let device = model.vs().device();
        let mut vs = VarStore::new(device);
        vs.set_kind(model.kind());
        let network = skip_init(|| ControlNet::new(&vs.root(), &config))?;
        checkpoint.load_mmap(&mut vs)?;
        if ldm_libtorch::infers_in_channels_last(device, config.unet.model_channels, model.kind()) {
            ldm_libtorch::channels_last(&vs);
        }
        vs.freeze();
        let name = if folder { path.file_name() } else { path.file_stem() };
        let name = name.unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, network, files: checkpoint.watch() })
    }

    /// The network.
    pub fn network(&self) -> &ControlNet {
        &self.network
    }

    /// Checks that no program wrote to the file of the weights since it was opened, as
    /// [`LatentDiffusion::check_files`].
    ///
    /// # Errors
    /// [`Error::Format`] with the file.
    pub fn check_files(&self) -> Result<()> {
        self.files.check()
    }
}

/// Returns the tensors of the ControlNet alone, and true if they have diffusers' names.
fn control_net_of(checkpoint: Checkpoint) -> Result<(Checkpoint, bool)> {
    let refuse = || {
        let got = unsupported_kind(&checkpoint.shapes()).unwrap_or("other names");
        Err(Error::format(checkpoint.path(), format!("expected a ControlNet, got {got}")))
    };
    if OTHER_KINDS.iter().any(|name| checkpoint.contains(name)) {
        return refuse();
    }
    let prefixed = checkpoint.names().any(|name| name.starts_with(PREFIX));
    let holds = |mark: &str| {
        let mark = if prefixed { format!("{PREFIX}{mark}") } else { mark.to_owned() };
        checkpoint.names().any(|name| name.starts_with(&mark))
    };
    let Some(mark) = MARKS.iter().position(|mark| holds(mark)) else {
        return refuse();
    };
    Ok((if prefixed { checkpoint.scope(PREFIX) } else { checkpoint }, mark == 1))
}

/// Reads the `config.json` next to diffusers' weights, of whatever class of ControlNet.
fn config_of(weights: &Path) -> Result<Option<serde_json::Value>> {
    let path: PathBuf = weights.with_file_name("config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let json = read_json(&path)?;
    let class = json["_class_name"].as_str().unwrap_or_default();
    Ok(class.contains("ControlNet").then_some(json))
}

/// Checks the channels of the context, by which the ControlNets of other generations differ.
fn check_context(shapes: &Shapes, own: Option<i64>) -> std::result::Result<(), String> {
    let cross = |name: &str| name.ends_with("transformer_blocks.0.attn2.to_k.weight");
    let found = shapes.iter().find(|(name, _)| cross(name)).and_then(|(_, shape)| shape.get(1));
    let (Some(own), Some(found)) = (own, found) else { return Ok(()) };
    if own == *found {
        return Ok(());
    }
    let generation = match found {
        768 => ", as for Stable Diffusion 1",
        1024 => ", as for Stable Diffusion 2",
        2048 => ", as for Stable Diffusion XL",
        _ => "",
    };
    Err(format!("context: expected {own} channels, as in the model's U-Net, got {found}{generation}"))
}
