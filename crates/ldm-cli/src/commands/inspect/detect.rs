//! What the parts of a file are, where neither a config nor the whole says so.

use ldm_checkpoint::{Shapes, unsupported_kind};
use ldm_core::Result;
use ldm_core::nn::skip_init;
use ldm_pipelines::{FirstStageModel, SCHEDULE_BUFFERS};
use ldm_unet::Plan;
use serde_json::{Map, Value, json};
use tch::Device;

use super::Verdict;
use super::describe;
use super::fit::compare;

/// A part that names tell, with the names below its root.
struct Part {
    architecture: String,
    /// What a config says of it: `{target, params}`.
    config: Value,
    shapes: Shapes,
}

/// Where a part is looked for.
struct Place {
    what: &'static str,
    /// Its key in a config.
    key: &'static str,
    /// A name that no other part has.
    mark: &'static str,
    /// Its root in a whole model, and alone.
    roots: [&'static str; 2],
    read: fn(&Shapes) -> Result<Part>,
}

const PLACES: [Place; 2] = [
    Place {
        what: "a U-Net",
        key: "unet_config",
        mark: "input_blocks.0.0.weight",
        roots: ["model.diffusion_model.", ""],
        read: unet,
    },
    Place {
        what: "a first stage",
        key: "first_stage_config",
        mark: "decoder.conv_out.weight",
        roots: ["first_stage_model.", ""],
        read: first_stage,
    },
];

/// Names of CompVis' conditioners, and what has them.
const CONDITIONERS: [(&str, &str); 5] = [
    ("cond_stage_model.transformer.text_model.", "CLIP's text encoder as conditioner"),
    ("cond_stage_model.transformer.token_emb.", "a transformer over tokens as conditioner"),
    ("cond_stage_model.embedding.", "classes as conditioner"),
    ("cond_stage_model.channel_mapper.", "a map as conditioner"),
    ("cond_stage_model.", "a conditioner"),
];

/// Left over from CompVis' training, beside the buffers of the schedule: no weights.
const LEFTOVERS: [&str; 5] = ["model_ema.", "loss.", "first_stage_model.loss.", "scale_factor", "logvar"];

/// What names and shapes say.
pub(super) fn infer_config(shapes: &Shapes) -> Verdict {
    if let Some(what) = unsupported_kind(shapes) {
        return Verdict::only(what);
    }
    let (mut words, mut derived, mut expected) = (Vec::new(), Map::new(), Shapes::new());
    // Below these nothing can be said of a name.
    let mut opaque = vec!["cond_stage_model."];
    for place in PLACES {
        let marked = |root: &&str| shapes.contains_key(&format!("{root}{}", place.mark));
        let Some(root) = place.roots.into_iter().find(marked) else { continue };
        match (place.read)(&below(shapes, root)) {
            Ok(part) => {
                words.push(part.architecture);
                derived.insert(place.key.into(), part.config);
                expected
                    .extend(part.shapes.into_iter().map(|(name, shape)| (format!("{root}{name}"), shape)));
            }
            Err(error) => {
                words.push(format!("{} ({})", place.what, shortened(&error.to_string())));
                opaque.push(root);
            }
        }
    }
    if words.is_empty() {
        return Verdict::only(
            "unknown: no config is given or lies beside it, and its names are no model's of ours",
        );
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

/// The names below `root`, cut off there.
fn below(shapes: &Shapes, root: &str) -> Shapes {
    let cut =
        |(name, shape): (&String, &Vec<i64>)| Some((name.strip_prefix(root)?.to_owned(), shape.clone()));
    shapes.iter().filter_map(cut).collect()
}

fn unet(shapes: &Shapes) -> Result<Part> {
    let config = ldm_unet::infer_config(shapes)?;
    let shapes = Plan::new(&config)?.parameters().into_iter().collect();
    let architecture = describe::unet(&config);
    Ok(Part { architecture, config: json!({"target": "unet", "params": config}), shapes })
}

fn first_stage(shapes: &Shapes) -> Result<Part> {
    let config = ldm_autoencoder::infer_config(shapes)?;
    let model = skip_init(|| FirstStageModel::new(&config, Device::Cpu))?;
    let shapes = model.vs.variables().into_iter().map(|(name, variable)| (name, variable.size())).collect();
    Ok(Part { architecture: describe::first_stage(&config), config: json!(config), shapes })
}

/// An error may list a whole model's names.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}
