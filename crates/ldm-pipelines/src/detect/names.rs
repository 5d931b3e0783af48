//! Names of other programs in a checkpoint of CompVis' layout.

use ldm_checkpoint::{Checkpoint, KeyMap};
use ldm_core::Result;
use ldm_schedulers::{NoiseSchedule, Parameterization};

use crate::detect::schedule;
use crate::{LatentDiffusionConfig, SCHEDULE_BUFFERS};

const CLIP: &str = "cond_stage_model.transformer";
/// The modules of CLIP's text model, which transformers 5 saves without `text_model`.
const CLIP_MODULES: [&str; 3] = ["embeddings", "encoder", "final_layer_norm"];

/// The tensor whose presence tells that the network predicts v.
const V_PREDICTION: &str = "v_pred";
/// The tensor whose presence tells, beside [`V_PREDICTION`], that the schedule ends in pure noise.
const ZERO_TERMINAL_SNR: &str = "ztsnr";

/// Markers of a model's prediction and schedule, as web UIs write and obey them: A1111 `sd_models.py`, ComfyUI
/// `supported_models.py`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Markers {
    v_prediction: bool,
    zero_terminal_snr: bool,
}

/// Gives CLIP's tensors CompVis' names, and takes the markers out.
pub(crate) fn normalized(checkpoint: Checkpoint) -> (Checkpoint, Markers) {
    let modules =
        CLIP_MODULES.map(|module| (format!("{CLIP}.{module}"), format!("{CLIP}.text_model.{module}")));
    let v_prediction = checkpoint.contains(V_PREDICTION);
    let zero_terminal_snr = v_prediction && checkpoint.contains(ZERO_TERMINAL_SNR);
    let checkpoint = checkpoint
        .rename(&KeyMap::new(modules.into(), Vec::new()))
        .without(&[V_PREDICTION, ZERO_TERMINAL_SNR]);
    (checkpoint, Markers { v_prediction, zero_terminal_snr })
}

impl Markers {
    /// Changes `config` as the markers say, and returns what changed. The buffers of the file are those of the schedule
    /// before its rescaling; they are checked against it and taken out.
    ///
    /// # Errors
    /// [`ldm_core::Error::Format`] when they are those of another schedule.
    pub(crate) fn obey(
        self,
        config: &mut LatentDiffusionConfig,
        checkpoint: Checkpoint,
        notes: &mut Vec<String>,
    ) -> Result<Checkpoint> {
        let file = checkpoint.path().display().to_string();
        if self.v_prediction && config.parameterization != Parameterization::V {
            config.parameterization = Parameterization::V;
            notes.push(format!("{file}: parameterization v, by its tensor `{V_PREDICTION}`"));
        }
        if !self.zero_terminal_snr || config.zero_terminal_snr {
            return Ok(checkpoint);
        }
        schedule::check(&checkpoint, &NoiseSchedule::new(&config.schedule())?)?;
        config.zero_terminal_snr = true;
        notes.push(format!("{file}: zero_terminal_snr, by its tensor `{ZERO_TERMINAL_SNR}`"));
        Ok(checkpoint.without(&SCHEDULE_BUFFERS))
    }
}
