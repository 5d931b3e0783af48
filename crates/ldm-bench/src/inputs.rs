//! Inputs of the right shapes, with arbitrary values.

use ldm_conditioning::ConditionerConfig;
use ldm_core::noise::Seeded;
use ldm_core::{NoiseSource, Prompt};
use ldm_pipelines::{ConditioningKind, LatentDiffusionConfig};
use tch::{Device, Kind, Tensor};

use crate::subject::BenchSubject;

/// Neighbors of a retrieval-augmented model, as CompVis' `scripts/knn2img.py`.
const NEIGHBORS: i64 = 10;

/// Creates noise of a shape in f32, one seed per sample.
pub(crate) fn noise(size: &[i64], device: Device) -> Tensor {
    let zeros = Tensor::zeros(size, (Kind::Float, device));
    Seeded::new(0..size[0] as u64).like(&zeros)
}

/// Creates images in `[-1, 1]`.
pub(crate) fn images(subject: &BenchSubject, batch: i64, device: Device) -> Tensor {
    let [height, width] = subject.size;
    noise(&[batch, subject.image_channels(), height, width], device).tanh()
}

/// Returns a prompt for a batch of the diffusion model of `config`.
pub(crate) fn prompt(subject: &BenchSubject, config: &LatentDiffusionConfig, batch: i64) -> Prompt {
    let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
    let [[height, width], [h, w]] = [subject.size, subject.latent_size()];
    let tokens = || Some(Tensor::zeros([batch, tokens(config)], (Kind::Int64, Device::Cpu)));
    let filling = || Prompt {
        image: Some(zeros(&[batch, 3, height, width])),
        mask: Some(zeros(&[batch, 1, height, width])),
        ..Prompt::default()
    };
    let of = |kind: ConditioningKind| match kind {
        ConditioningKind::Unconditional => Prompt::default(),
        ConditioningKind::Class => Prompt::class(&vec![0; batch as usize]),
        ConditioningKind::Text | ConditioningKind::Layout => Prompt { tokens: tokens(), ..Prompt::default() },
        ConditioningKind::LowResolution => {
            let channels = config.unet().in_channels - config.channels;
            Prompt { image: Some(zeros(&[batch, channels, h, w])), ..Prompt::default() }
        }
        ConditioningKind::SemanticMap => {
            Prompt { mask: Some(map(config, batch, [h, w])), ..Prompt::default() }
        }
        ConditioningKind::Inpainting => filling(),
        ConditioningKind::ClipImage => {
            Prompt { image: Some(zeros(&[batch, 3, height, width])), ..Prompt::default() }
        }
        ConditioningKind::TextInpainting => Prompt { tokens: tokens(), ..filling() },
        ConditioningKind::Embedding => {
            let width = config.unet().context_dim.unwrap_or(1);
            Prompt { embedding: Some(zeros(&[batch, NEIGHBORS, width])), ..Prompt::default() }
        }
        ConditioningKind::Hybrid => unreachable!("its parts are of other kinds"),
    };
    match ConditioningKind::hybrid_parts(config) {
        None => of(ConditioningKind::of(config)),
        Some([concatenated, attended]) => {
            let Prompt { image, mask, .. } = of(concatenated);
            Prompt { image, mask, ..of(attended) }
        }
    }
}

/// Returns the maximum number of tokens of the conditioner.
fn tokens(config: &LatentDiffusionConfig) -> i64 {
    let conditioner = match &config.cond_stage_config {
        ConditionerConfig::Hybrid(hybrid) => &*hybrid.c_crossattn_config,
        other => other,
    };
    match conditioner {
        ConditionerConfig::Bert(bert) => bert.max_seq_len,
        ConditionerConfig::Transformer(transformer) => transformer.max_seq_len,
        ConditionerConfig::ClipText(clip) => clip.max_length,
        ConditionerConfig::ClipTextPooled(clip) => clip.sizes().map_or(1, |sizes| sizes.context_length),
        _ => 1,
    }
}

/// Returns a map of one class, at the size that the conditioner reduces to the latent's.
fn map(config: &LatentDiffusionConfig, batch: i64, latent: [i64; 2]) -> Tensor {
    let conditioner = match &config.cond_stage_config {
        ConditionerConfig::Hybrid(hybrid) => &*hybrid.c_concat_config,
        other => other,
    };
    let (classes, shrinks) = match conditioner {
        ConditionerConfig::Spatial(spatial) => {
            (spatial.in_channels, spatial.multiplier.powi(spatial.n_stages as i32))
        }
        _ => (1, 1.),
    };
    let [height, width] = latent.map(|side| (side as f64 / shrinks).round() as i64);
    let map = Tensor::zeros([batch, classes, height, width], (Kind::Float, Device::Cpu));
    let _ = map.narrow(1, 0, 1).fill_(1.);
    map
}
