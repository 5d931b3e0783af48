//! Detection of the parts of a model by names and shapes.

use ldm_checkpoint::{Shapes, unsupported_kind};
use ldm_core::Result;
use ldm_core::nn::skip_init;
use ldm_pipelines::{FirstStageModel, SCHEDULE_BUFFERS};
use ldm_unet::Plan;
use serde_json::{Map, Value, json};
use tch::Device;

use super::describe;
use super::fit::compare;
use super::verdict::Verdict;

/// A detected part, with the names below its root.
struct DetectedPart {
    architecture: String,
    /// Its config: `{target, params}`.
    config: Value,
    shapes: Shapes,
}

/// A part to detect.
struct PartPattern {
    what: &'static str,
    /// Its key in a config.
    key: &'static str,
    /// A name that only this part has.
    mark: &'static str,
    /// Its root in a whole model, and on its own.
    roots: [&'static str; 2],
    read: fn(&Shapes) -> Result<DetectedPart>,
}

const PATTERNS: [PartPattern; 2] = [
    PartPattern {
        what: "a U-Net",
        key: "unet_config",
        mark: "input_blocks.0.0.weight",
        roots: ["model.diffusion_model.", ""],
        read: unet,
    },
    PartPattern {
        what: "a first stage",
        key: "first_stage_config",
        mark: "decoder.conv_out.weight",
        roots: ["first_stage_model.", ""],
        read: first_stage,
    },
];

/// Prefixes of CompVis' conditioners, and their names.
const CONDITIONERS: [(&str, &str); 5] = [
    ("cond_stage_model.transformer.text_model.", "CLIP's text encoder as conditioner"),
    ("cond_stage_model.transformer.token_emb.", "a transformer over tokens as conditioner"),
    ("cond_stage_model.embedding.", "classes as conditioner"),
    ("cond_stage_model.channel_mapper.", "a map as conditioner"),
    ("cond_stage_model.", "a conditioner"),
];

/// Names of CompVis' training that are not weights, besides the buffers of the schedule.
const LEFTOVERS: [&str; 5] = ["model_ema.", "loss.", "first_stage_model.loss.", "scale_factor", "logvar"];

/// Infers the architecture from names and shapes.
pub(super) fn infer_config(shapes: &Shapes) -> Verdict {
    if let Some(what) = unsupported_kind(shapes) {
        return Verdict::only(what);
    }
    let (mut words, mut derived, mut expected) = (Vec::new(), Map::new(), Shapes::new());
    // Names below these cannot be checked.
    let mut opaque = vec!["cond_stage_model."];
    for pattern in PATTERNS {
        let marked = |root: &&str| shapes.contains_key(&format!("{root}{}", pattern.mark));
        let Some(root) = pattern.roots.into_iter().find(marked) else { continue };
        match (pattern.read)(&below(shapes, root)) {
            Ok(part) => {
                words.push(part.architecture);
                derived.insert(pattern.key.into(), part.config);
                expected
                    .extend(part.shapes.into_iter().map(|(name, shape)| (format!("{root}{name}"), shape)));
            }
            Err(error) => {
                words.push(format!("{} ({})", pattern.what, shortened(&error.to_string())));
                opaque.push(root);
            }
        }
    }
    if words.is_empty() {
        return Verdict::only("unknown: without a config, and with names of no supported model");
    }
    let conditioner = |(prefix, _): &&(&str, &str)| shapes.keys().any(|name| name.starts_with(prefix));
    words.extend(CONDITIONERS.iter().find(conditioner).map(|(_, what)| (*what).to_owned()));
    let passed_over = |name: &String| {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        starts(&LEFTOVERS) || starts(&opaque) || SCHEDULE_BUFFERS.contains(&name.as_str())
    };
    let judged: Shapes = shapes
        .iter()
        .filter(|(name, _)| !passed_over(name))
        .map(|(name, shape)| (name.clone(), shape.clone()))
        .collect();
    let fits = (!expected.is_empty()).then(|| compare(&expected, &judged));
    let derived = (!derived.is_empty()).then_some(Value::Object(derived));
    Verdict { architecture: words.join("; "), derived, fits, notes: Vec::new() }
}

/// Returns the names below `root`, cut off there.
fn below(shapes: &Shapes, root: &str) -> Shapes {
    let cut =
        |(name, shape): (&String, &Vec<i64>)| Some((name.strip_prefix(root)?.to_owned(), shape.clone()));
    shapes.iter().filter_map(cut).collect()
}

fn unet(shapes: &Shapes) -> Result<DetectedPart> {
    let config = ldm_unet::infer_config(shapes)?;
    let shapes = Plan::new(&config)?.parameters().into_iter().collect();
    let architecture = describe::unet(&config);
    Ok(DetectedPart { architecture, config: json!({"target": "unet", "params": config}), shapes })
}

fn first_stage(shapes: &Shapes) -> Result<DetectedPart> {
    let config = ldm_autoencoder::infer_config(shapes)?;
    let model = skip_init(|| FirstStageModel::new(&config, Device::Cpu))?;
    let shapes = model.vs.variables().into_iter().map(|(name, variable)| (name, variable.size())).collect();
    Ok(DetectedPart { architecture: describe::first_stage(&config), config: json!(config), shapes })
}

/// Shortens an error, which may list all names of a model.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}
