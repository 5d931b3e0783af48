//! `parameters` texts as requests.

use ldm::PngParameters;
use serde::Serialize;
use utoipa::ToSchema;

use crate::request::{GenerationRequest, HiresRequest, LoraRequest, VariationRequest};

/// The settings of a `parameters` text.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Found {
    /// The text, as it is.
    pub(crate) text: String,
    /// The request that they make. Images of the original request are not in it.
    pub(crate) request: GenerationRequest,
    /// The name of the model, which this server may not have.
    pub(crate) model: Option<String>,
    /// Settings that are not followed, as `KEY: VALUE`.
    pub(crate) ignored: Vec<String>,
}

/// Fields that say nothing about a new image.
const SILENT: [&str; 9] = [
    "Model",
    "Model hash",
    "Version",
    "Batch size",
    "Batch pos",
    "Watermark",
    "Dtype",
    "Schedule type",
    "RNG",
];

/// Bytes of a text that is read: two prompts and the settings.
const LONGEST_TEXT: usize = 1 << 18;

/// The request of a text of this program or of AUTOMATIC1111's web UI; none where it is no such text.
pub(crate) fn request_of(text: &str) -> Option<Found> {
    let parsed = PngParameters::parse(Some(text).filter(|text| text.len() <= LONGEST_TEXT)?)?;
    let (sampler, spacing) = parsed.sampler();
    let mut request = GenerationRequest {
        prompt: parsed.prompt.clone().unwrap_or_default(),
        negative_prompt: parsed.negative.clone(),
        class: parsed.heading.as_ref().filter(|(key, _)| key == "class").map(|(_, class)| class.clone()),
        sampler: sampler.map(str::to_owned),
        spacing: spacing.map(str::to_owned),
        ..GenerationRequest::default()
    };
    let mut ignored = Vec::new();
    for (key, value) in &parsed.fields {
        let known = SILENT.contains(&key.as_str()) || follow(&mut request, key, value, sampler.is_some());
        if !known {
            ignored.push(format!("{key}: {value}"));
        }
    }
    // An initial image is not in the text.
    request.strength = None;
    if request.variation.is_some_and(|to| to.strength == 0.) {
        request.variation = None;
    }
    Some(Found { text: text.to_owned(), request, model: parsed.get("Model").map(str::to_owned), ignored })
}

/// Takes a field over; false where it is unknown or wrong.
fn follow(request: &mut GenerationRequest, key: &str, value: &str, sampler: bool) -> bool {
    fn set<T: std::str::FromStr>(slot: &mut Option<T>, value: &str) -> bool {
        *slot = value.parse().ok();
        slot.is_some()
    }
    let hires = HiresRequest { scale: 0., strength: ldm::Hires::STRENGTH, steps: None };
    let variation = VariationRequest { seed: 0, strength: 0. };
    match key {
        "Sampler" => sampler,
        "Steps" => set(&mut request.steps, value),
        "CFG scale" => set(&mut request.guidance_scale, value),
        "Seed" => set(&mut request.seed, value),
        "Eta" => set(&mut request.eta, value),
        "Spacing" => set(&mut request.spacing, value),
        "Tile" => set(&mut request.tile, value),
        "Deep cache" => set(&mut request.deep_cache, value),
        "Clip skip" => set(&mut request.clip_skip, value),
        "Prompt syntax" => set(&mut request.prompt_syntax, value),
        "CFG rescale" => value.parse().is_ok_and(|number| {
            request.guidance_rescale = number;
            true
        }),
        "Token merging ratio" => value.parse().is_ok_and(|number| {
            request.token_merging = number;
            true
        }),
        "CFG interval" => {
            let bound =
                |text: &str| text.parse::<f64>().ok().map(|ratio| Some(ratio).filter(|it| it.is_finite()));
            request.guidance_interval =
                value.split_once("..").and_then(|(low, high)| Some([bound(low)?, bound(high)?]));
            request.guidance_interval.is_some()
        }
        "Size" => {
            let size = value.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
            (request.width, request.height) = size.unzip();
            size.is_some()
        }
        "Hires upscale" => {
            let scale = value.parse().ok();
            request.hires = scale.map(|scale| HiresRequest { scale, ..request.hires.unwrap_or(hires) });
            scale.is_some()
        }
        "Hires steps" => {
            let steps = value.parse().ok();
            request.hires = Some(HiresRequest { steps, ..request.hires.unwrap_or(hires) });
            steps.is_some()
        }
        "Denoising strength" => value.parse().is_ok_and(|strength| {
            if let Some(hires) = &mut request.hires {
                hires.strength = strength;
            }
            true
        }),
        "Variation seed" => value.parse().is_ok_and(|seed| {
            request.variation = Some(VariationRequest { seed, ..request.variation.unwrap_or(variation) });
            true
        }),
        "Variation seed strength" => value.parse().is_ok_and(|strength| {
            request.variation = Some(VariationRequest { strength, ..request.variation.unwrap_or(variation) });
            true
        }),
        "Lora" => {
            let each = value.split(' ').filter_map(|lora| {
                let (name, weight) = lora.rsplit_once(':')?;
                Some(LoraRequest { name: name.to_owned(), weight: weight.parse().ok()? })
            });
            request.loras = each.collect();
            !request.loras.is_empty()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_requests() {
        let text = "a (red:1.2) circle,\nwide\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, \
                    Seed: 5, Size: 512x768, Model hash: 1f, Model: sd, Face restoration: GFPGAN, Variation seed: 3, \
                    Variation seed strength: 0.5, Version: v1.9.4";
        let Found { request, model, ignored, .. } = request_of(text).unwrap();
        assert_eq!(request.prompt, "a (red:1.2) circle,\nwide");
        assert_eq!((request.negative_prompt.as_str(), request.seed), ("blurry", Some(5)));
        assert_eq!(
            (request.sampler.as_deref(), request.spacing.as_deref()),
            (Some("dpmpp_2m"), Some("karras"))
        );
        assert_eq!((request.width, request.height, request.steps), (Some(512), Some(768), Some(20)));
        assert_eq!(request.variation, Some(VariationRequest { seed: 3, strength: 0.5 }));
        assert_eq!((model.as_deref(), ignored), (Some("sd"), vec!["Face restoration: GFPGAN".to_owned()]));
        assert_eq!(request_of("a photo"), None);
    }
}
