//! Models of every kind of conditioning against CompVis' `LatentDiffusion` with the same weights.
//!
//! `golden/generate_conditions.py` makes the files from the same configs; both sides run in f32.

use std::collections::BTreeMap;

use ldm_conditioning::{Tokenizer, TokenizerKind};
use ldm_core::device::test_device;
use ldm_core::{Conditioning, Prompt};
use ldm_pipelines::{
    ConditioningKind, GenerateRequest, LatentDiffusion, ModelConfig, ModelFile, Sampling, generate,
};
use ldm_schedulers::SamplerConfig;
use ldm_testing::{Golden, assert_close, fill_weights, relative_l2};
use tch::{Kind, Tensor};

const CLASS: &str = include_str!("../golden/class.yaml");
const CONDITIONS: &str = include_str!("../golden/conditions.yaml");
const TOLERANCE: f64 = 1e-5;
/// As in `generate_conditions.py`.
const SEED: u64 = 6;
const TEXTS: [&str; 2] = ["A big red circle, left of the cat", "blue stars"];

fn model(name: &str) -> LatentDiffusion {
    let all: BTreeMap<String, Vec<String>> = serde_yaml::from_str(CONDITIONS).unwrap();
    let file = ModelFile::parse(CLASS, "class.yaml", &all[name]).unwrap();
    let ModelConfig::LatentDiffusion(config) = file.model else { panic!("{name}") };
    let vocabulary = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/vocab.txt");
    let tokenizer = (config.cond_stage_config.tokenizer_kind() == Some(TokenizerKind::Bert))
        .then(|| Tokenizer::open(TokenizerKind::Bert, vocabulary).unwrap());
    let model = LatentDiffusion::new(&config, tokenizer, test_device()).unwrap();
    fill_weights(model.vs(), SEED);
    model
}

fn golden(name: &str) -> Golden {
    Golden::open(format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR")), test_device())
}

fn sampling(guidance_scale: f64) -> Sampling {
    let sampler = SamplerConfig::Ddim { eta: 0. };
    Sampling { guidance: guidance_scale.into(), ..Sampling::new(sampler, 5) }
}

/// Compares the condition, the latents after five steps, and the image.
#[track_caller]
fn check(
    name: &str,
    kind: ConditioningKind,
    guidance_scale: f64,
    condition: impl Fn(&Conditioning) -> &Option<Tensor>,
    prompts: impl Fn(&Golden) -> (Prompt, Option<Prompt>),
) {
    let (model, golden) = (model(name), golden(name));
    assert_eq!(ConditioningKind::of(&model.config), kind);
    let (prompt, negative) = prompts(&golden);
    let cond = tch::no_grad(|| model.condition(&prompt, false).unwrap());
    let got = condition(&cond).as_ref().unwrap();
    assert_close("condition", got, golden.get("condition"), TOLERANCE);
    if golden.has("concat") {
        assert_close("concat", cond.concat.as_ref().unwrap(), golden.get("concat"), TOLERANCE);
    }
    let noise = Some(golden.get("x_T"));
    let how = sampling(guidance_scale);
    let made = generate(
        &model,
        &GenerateRequest::new(&prompt, &[0, 1], &how).negative(negative.as_ref()).init(noise),
        &mut |_| {},
    )
    .unwrap();
    assert_close("latents", &made.latents, golden.get("latents"), TOLERANCE);
    assert_close("decoded", &made.images, golden.get("decoded"), TOLERANCE);
}

fn own(golden: &Golden, name: &str) -> Option<Tensor> {
    golden.has(name).then(|| golden.get(name).shallow_clone())
}

/// The prompt in the golden file.
fn given(golden: &Golden) -> Prompt {
    Prompt {
        class: own(golden, "class"),
        image: own(golden, "image"),
        mask: own(golden, "mask"),
        tokens: own(golden, "tokens"),
        embedding: own(golden, "embedding"),
        ..Prompt::default()
    }
}

#[test]
fn text_through_bert() {
    check("text", ConditioningKind::Text, 3., |cond| &cond.context, |_| (Prompt::text(TEXTS), None));
}

#[test]
fn the_tokens_of_a_layout() {
    check("layout", ConditioningKind::Layout, 1., |cond| &cond.context, |golden| (given(golden), None));
}

#[test]
fn embeddings_guided_away_from_zeros() {
    check("embedding", ConditioningKind::Embedding, 3., |cond| &cond.context, |golden| (given(golden), None));
}

#[test]
fn a_semantic_map() {
    check("semantic", ConditioningKind::SemanticMap, 1., |cond| &cond.concat, |golden| (given(golden), None));
}

#[test]
fn a_low_resolution_image() {
    check(
        "super_resolution",
        ConditioningKind::LowResolution,
        1.,
        |cond| &cond.concat,
        |golden| (given(golden), None),
    );
}

#[test]
fn a_masked_image_through_the_first_stage() {
    check(
        "inpainting",
        ConditioningKind::Inpainting,
        1.,
        |cond| &cond.concat,
        |golden| (given(golden), None),
    );
}

#[test]
fn a_masked_image_and_a_text_through_clip() {
    check(
        "hybrid",
        ConditioningKind::TextInpainting,
        3.,
        |cond| &cond.context,
        |golden| {
            let negative = Prompt { tokens: own(golden, "negative_tokens"), ..Prompt::default() };
            (given(golden), Some(negative))
        },
    );
}

#[test]
fn a_semantic_map_and_a_class() {
    check(
        "pair",
        ConditioningKind::Hybrid,
        3.,
        |cond| &cond.context,
        |golden| {
            let negative = Prompt { class: own(golden, "negative_class"), ..Prompt::default() };
            (given(golden), Some(negative))
        },
    );
    assert_eq!(
        ConditioningKind::hybrid_parts(&model("pair").config),
        Some([ConditioningKind::SemanticMap, ConditioningKind::Class])
    );
}

#[test]
fn classes_added_to_the_time_embedding() {
    check(
        "labels",
        ConditioningKind::Class,
        3.,
        |cond| &cond.label,
        |golden| (given(golden), Some(Prompt { class: own(golden, "negative_class"), ..Prompt::default() })),
    );
}

#[test]
fn a_negative_prompt_replaces_the_empty_one() {
    let model = model("text");
    let make = |negative: Option<&str>| {
        let negative = negative.map(|text| Prompt::text([text]));
        generate(
            &model,
            &GenerateRequest::new(&Prompt::text(["cat"]), &[3], &sampling(3.)).negative(negative.as_ref()),
            &mut |_| {},
        )
        .unwrap()
        .latents
    };
    assert_eq!(make(None), make(Some("")));
    assert!(relative_l2(&make(Some("dog")), &make(None)) > 1e-3);
    // Guidance away from the prompt itself has no effect.
    let unguided =
        generate(&model, &GenerateRequest::new(&Prompt::text(["cat"]), &[3], &sampling(1.)), &mut |_| {});
    assert_close("latents", &make(Some("cat")), &unguided.unwrap().latents, 1e-5);
}

/// The condition does not depend on masked pixels.
#[test]
fn masked_pixels_do_not_affect_the_condition() {
    for name in ["inpainting", "hybrid"] {
        let (model, golden) = (model(name), golden(name));
        let prompt = given(&golden);
        let mask = golden.get("mask");
        let altered = golden.get("image") + mask * 0.3;
        let other = Prompt { image: Some(altered), ..given(&golden) };
        let concat = |prompt: &Prompt| model.condition(prompt, false).unwrap().concat.unwrap();
        assert_close(name, &concat(&other), &concat(&prompt), 1e-6);
        let unmasked = Prompt { mask: Some(mask.zeros_like()), ..given(&golden) };
        assert!(relative_l2(&concat(&unmasked), &concat(&prompt)) > 1e-2);
    }
}

#[test]
fn the_masked_image_is_scaled_only_where_asked() {
    let (mut model, golden) = (model("inpainting"), golden("inpainting"));
    let prompt = given(&golden);
    model.scale_factor = 0.25;
    let unscaled = model.condition(&prompt, false).unwrap().concat.unwrap();
    assert_close("as CompVis", &unscaled, golden.get("condition"), TOLERANCE);
    model.config.scale_concat = true;
    let scaled = model.condition(&prompt, false).unwrap().concat.unwrap();
    let latent = scaled.size()[1] - 1;
    assert_close(
        "the latent",
        &scaled.narrow(1, 0, latent),
        &(unscaled.narrow(1, 0, latent) * 0.25),
        TOLERANCE,
    );
    assert_eq!(scaled.narrow(1, latent, 1), unscaled.narrow(1, latent, 1), "the mask");
}

#[test]
fn invalid_prompts_are_refused_by_name() {
    #[track_caller]
    fn check(name: &str, guidance_scale: f64, change: impl Fn(&mut Prompt), expected: &str) {
        let mut prompt = given(&golden(name));
        change(&mut prompt);
        let refused = generate(
            &model(name),
            &GenerateRequest::new(&prompt, &[0, 1], &sampling(guidance_scale)),
            &mut |_| {},
        );
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    let zeros = |size: &[i64]| Some(Tensor::zeros(size, (Kind::Float, test_device())));
    check("inpainting", 1., |prompt| prompt.mask = None, "conditioned on `mask`");
    check(
        "inpainting",
        1.,
        |prompt| prompt.mask = zeros(&[2, 1, 8, 8]),
        "the mask: expected shape [2, 1, 16, 16]",
    );
    check(
        "inpainting",
        1.,
        |prompt| prompt.image = zeros(&[2, 5, 16, 16]),
        "the image: expected shape [B, 3, H, W]",
    );
    check(
        "inpainting",
        2.,
        |_| {},
        "guidance: expected a scale of 1, since the model has no unconditional form",
    );
    check("hybrid", 1., |prompt| prompt.image = None, "conditioned on `image`");
    check("hybrid", 3., |_| {}, "ldm weights get clip-tokenizer");
    check("super_resolution", 1., |prompt| prompt.image = zeros(&[2, 4, 8, 8]), "[B, 3, h, w]");
    check("super_resolution", 1., |prompt| prompt.image = zeros(&[2, 3, 7, 8]), "multiples of 2, got 7x8");
    check("super_resolution", 1., |prompt| prompt.image = zeros(&[1, 3, 8, 8]), "[2, …], one for each seed");
    check("embedding", 1., |prompt| prompt.embedding = zeros(&[2, 3, 16]), "[B, L, 24]");
    check(
        "labels",
        1.,
        |prompt| prompt.class = Some(Tensor::from_slice(&[3_i64, 11])),
        "expected 0 to 10, the classes of the model, got 11",
    );
    check("labels", 3., |_| {}, "guidance: expected a scale of 1 or a negative prompt");
    check("text", 1., |_| {}, "conditioned on `text`");
}

/// Without a tokenizer a text model takes token ids, and refuses text.
#[test]
fn a_text_model_without_its_tokenizer_takes_tokens() {
    let with = model("text");
    let mut without = LatentDiffusion::new(&with.config, None, test_device()).unwrap();
    tch::no_grad(|| without.vs_mut().copy(with.vs()).unwrap());
    let error = without.condition(&Prompt::text(["cat"]), false).unwrap_err().to_string();
    assert!(error.contains("ldm weights get bert-tokenizer"), "{error}");
    let vocabulary = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/vocab.txt");
    let tokenizer = Tokenizer::open(TokenizerKind::Bert, vocabulary).unwrap();
    let tokens = Prompt { tokens: Some(tokenizer.encode(&["cat"], 9).unwrap().ids), ..Prompt::default() };
    let context = |model: &LatentDiffusion, prompt: &Prompt| {
        tch::no_grad(|| model.condition(prompt, false).unwrap().context.unwrap())
    };
    assert_eq!(context(&without, &tokens), context(&with, &Prompt::text(["cat"])));
}
