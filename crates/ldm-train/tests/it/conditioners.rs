//! A model of each kind of conditioning overfits a few images that only the condition distinguishes; dropout, training
//! and refusals of conditions.
//!
//! Both levels of the schedule are nearly pure noise, so that an unconditional model can only predict the mean, and its
//! loss remains at the variance of the images.

use ldm_conditioning::{Tokenizer, TokenizerKind};
use ldm_core::device::test_device;
use ldm_core::noise::{PerStep, Seeded};
use ldm_core::{LayoutBox, NoiseSource, Prompt};
use ldm_data::Batch;
use ldm_pipelines::{LatentDiffusionConfig, ModelConfig, ModelFile};
use ldm_train::{AdamW, AdamWConfig, DiffusionObjective, DiffusionTraining, Objective, StepInfo, grad_scale};
use tch::{Device, Kind, Tensor};

use crate::batch_of;

/// Pixels of 8x8 as latents, x_0 predicted, α² of 0.02 and 0.0002.
const MODEL: &str = r"
model:
  target: latent_diffusion
  params:
    timesteps: 2
    given_betas: [0.98, 0.99]
    parameterization: x0
    image_size: 8
    channels: 3
    cond_stage_trainable: true
    unet_config:
      target: unet
      params: {in_channels: 3, out_channels: 3, model_channels: 32, attention_resolutions: [1], num_res_blocks: 1,
               channel_mult: [1], num_heads: 2}
    first_stage_config: {target: identity}
    cond_stage_config: __is_unconditional__
";
pub(crate) const BATCH: i64 = 4;
const FIRST_STEP: StepInfo = StepInfo { phase: 0, global_step: 0 };
const CLIP: &str = "{target: clip_text, params: {max_length: 6, hidden_size: 16, intermediate_size: 32, \
                    num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 40, max_position_embeddings: 6}}";
const BERT: &str = "{target: bert, params: {n_embed: 16, n_layer: 1, vocab_size: 40, max_seq_len: 8}}";
pub(crate) const ATTENDED: [&str; 2] =
    ["unet_config.params.use_spatial_transformer=true", "unet_config.params.context_dim=16"];

fn config(overrides: &[&str]) -> LatentDiffusionConfig {
    let overrides: Vec<String> = overrides.iter().map(|each| format!("model.params.{each}")).collect();
    let ModelConfig::LatentDiffusion(config) =
        ModelFile::parse(MODEL, "tiny.yaml", &overrides).unwrap().model
    else {
        panic!("a diffusion model")
    };
    *config
}

fn tokenizer() -> Tokenizer {
    let words = concat!(env!("CARGO_MANIFEST_DIR"), "/../ldm-pipelines/tests/golden/vocab.txt");
    Tokenizer::open(TokenizerKind::Bert, words).unwrap()
}

/// A model with random weights, the same at every call.
pub(crate) fn objective(
    overrides: &[&str],
    conditioning_dropout: f64,
) -> ldm_core::Result<DiffusionObjective> {
    objective_of(overrides, DiffusionTraining { conditioning_dropout, ..DiffusionTraining::default() })
}

/// [`objective`] with a weight of class images.
pub(crate) fn objective_with(
    overrides: &[&str],
    prior_loss_weight: Option<f64>,
) -> ldm_core::Result<DiffusionObjective> {
    objective_of(overrides, DiffusionTraining { prior_loss_weight, ..DiffusionTraining::default() })
}

fn objective_of(overrides: &[&str], training: DiffusionTraining) -> ldm_core::Result<DiffusionObjective> {
    let config = config(overrides);
    let bert = config.cond_stage_config.tokenizer_kind() == Some(TokenizerKind::Bert);
    drop(PerStep::new(1, 0, 0)); // seeds the global generator for the initialization
    DiffusionObjective::with_tokenizer(&config, None, bert.then(tokenizer), training, test_device())
}

/// `[B, 3, 8, 8]` of different patterns, with variance 0.49.
pub(crate) fn images() -> Tensor {
    let seeds = 0..BATCH as u64;
    Seeded::new(seeds).like(&Tensor::zeros([BATCH, 3, 8, 8], (Kind::Float, Device::Cpu))).sign() * 0.7
}

fn tokens(high: i64, length: i64) -> Tensor {
    let each = Tensor::arange(BATCH * length, (Kind::Int64, Device::Cpu)).view([BATCH, length]);
    (each * 7 + 3).remainder(high)
}

fn embeddings() -> Tensor {
    Seeded::new(20..20 + BATCH as u64).like(&Tensor::zeros([BATCH, 2, 16], (Kind::Float, Device::Cpu)))
}

fn texts() -> Prompt {
    Prompt::text(["a red circle", "a blue star", "two moon", "the big cat on a dog"])
}

/// The mean loss of the last of `steps` steps.
fn train(objective: &DiffusionObjective, batch: &Batch, steps: u64) -> f64 {
    let params = objective.phases().remove(0).trainable;
    let mut optimizer = AdamW::new(params, AdamWConfig { weight_decay: 0., ..AdamWConfig::default() });
    let mut last = 0.;
    for step in 0..steps {
        optimizer.zero_grad();
        let loss = objective.loss(FIRST_STEP, batch, &mut PerStep::new(2, 0, step)).unwrap();
        loss.total.backward();
        let divisor = grad_scale(&optimizer.grad_norm(), Some(1.), None);
        optimizer.step(4e-3 * (1. - step as f64 / steps as f64), divisor.as_ref(), None);
        if step + 10 >= steps {
            last += loss.total.double_value(&[]) / 10.;
        }
    }
    last
}

/// The lowest loss of an unconditional model.
const FLOOR: f64 = 0.35;

#[track_caller]
pub(crate) fn learns(overrides: &[&str], batch: &Batch) -> DiffusionObjective {
    let objective = objective(overrides, 0.).unwrap();
    objective.check_batch(batch).unwrap();
    let loss = train(&objective, batch, 150);
    assert!(loss < 0.2 * FLOOR, "the loss of the conditional model is {loss}");
    objective
}

fn with_attention<'a>(more: &[&'a str]) -> Vec<&'a str> {
    ATTENDED.iter().copied().chain(["conditioning_key=crossattn"]).chain(more.iter().copied()).collect()
}

fn values(objective: &DiffusionObjective, prefix: &str) -> Vec<Tensor> {
    let weights = objective.weights().into_iter().filter(|(name, _)| name.starts_with(prefix));
    weights.map(|(_, tensor)| tensor.detach().copy()).collect()
}

#[test]
fn an_unconditional_model_stays_above_the_floor() {
    let objective = objective(&[], 0.).unwrap();
    let loss = train(&objective, &batch_of(images(), Prompt::default()), 150);
    assert!(loss > FLOOR, "the loss of the unconditional model is {loss}");
}

#[test]
fn classes() {
    let cond = "cond_stage_config={target: class, params: {embed_dim: 16, n_classes: 6, null_class: 5}}";
    let batch = batch_of(images(), Prompt::class(&[0, 1, 2, 4]));
    let before = values(&objective(&with_attention(&[cond]), 0.).unwrap(), "cond_stage_model.");
    let after = values(&learns(&with_attention(&[cond]), &batch), "cond_stage_model.");
    assert_ne!(before, after, "the class embeddings are trained");
}

#[test]
fn classes_added_to_the_time_embedding() {
    // With 32 channels, each is a group of the group norm, which removes the embedding of time and class.
    let overrides = [
        "conditioning_key=adm",
        "unet_config.params.num_classes=6",
        "unet_config.params.model_channels=64",
        "cond_stage_config={target: identity}",
    ];
    // One color per image, as the class embedding is the same at every pixel.
    let colors =
        Tensor::from_slice(&[1f32, 1., -1., 1., -1., 1., -1., 1., 1., -1., -1., -1.]).view([BATCH, 3, 1, 1]);
    let colors = (colors * 0.7).expand([BATCH, 3, 8, 8], false).contiguous();
    learns(&overrides, &batch_of(colors, Prompt::class(&[0, 1, 2, 4])));
}

#[test]
fn texts_with_a_trained_bert() {
    let cond = format!("cond_stage_config={BERT}");
    let before = values(&objective(&with_attention(&[&cond]), 0.).unwrap(), "cond_stage_model.");
    let after = values(&learns(&with_attention(&[&cond]), &batch_of(images(), texts())), "cond_stage_model.");
    assert_ne!(before, after, "the conditioner is trained");
}

#[test]
fn texts_with_a_frozen_clip() {
    let cond = format!("cond_stage_config={CLIP}");
    let overrides = with_attention(&[&cond, "cond_stage_trainable=false"]);
    let batch = batch_of(images(), Prompt { tokens: Some(tokens(40, 6)), ..Prompt::default() });
    let before = values(&objective(&overrides, 0.).unwrap(), "cond_stage_model.");
    let model = learns(&overrides, &batch);
    assert_eq!(before, values(&model, "cond_stage_model."), "the conditioner is unchanged");
    assert!(model.phases()[0].trainable.iter().all(|(name, _)| name.starts_with("model.diffusion_model.")));
}

#[test]
fn layout_tokens() {
    let cond = "cond_stage_config={target: bert, params: {n_embed: 16, n_layer: 1, vocab_size: 32, max_seq_len: 5, \
                use_tokenizer: false}}";
    let batch = batch_of(images(), Prompt { tokens: Some(tokens(31, 5)), ..Prompt::default() });
    learns(&with_attention(&[cond, "cond_stage_key=coordinates_bbox"]), &batch);
}

#[test]
fn boxes_of_the_dataset() {
    let cond = "cond_stage_config={target: bert, params: {n_embed: 16, n_layer: 1, vocab_size: 32, max_seq_len: 5, \
                use_tokenizer: false}}";
    let overrides = with_attention(&[cond]);
    let boxes = |index: i64| vec![LayoutBox { class: index, rect: [0.2 * index as f64, 0.1, 0.3, 0.5] }];
    let prompt = Prompt {
        layout: Some((0..BATCH).map(boxes).collect()),
        crops: Some(vec![[0., 0., 0.5, 1.]; BATCH as usize]),
        ..Prompt::default()
    };
    let batch = batch_of(images(), prompt);
    let objective = learns(&overrides, &batch);
    // The crop is part of the condition.
    let loss = |prompt: Prompt| {
        let batch = batch_of(images(), prompt);
        objective.loss(FIRST_STEP, &batch, &mut PerStep::new(2, 0, 0)).unwrap().total.double_value(&[])
    };
    let uncropped = Prompt { crops: None, ..batch.prompt.narrow(0, BATCH) };
    assert_ne!(loss(batch.prompt.narrow(0, BATCH)), loss(uncropped));
    let error = objective.check_batch(&batch_of(images(), Prompt::default())).unwrap_err().to_string();
    assert_eq!(error, "image.png: expected boxes, which the model is conditioned on, got none");
}

#[test]
fn precomputed_embeddings() {
    let prompt = Prompt { embedding: Some(embeddings()), ..Prompt::default() };
    let overrides = with_attention(&["cond_stage_config={target: identity}", "cond_stage_trainable=false"]);
    learns(&overrides, &batch_of(images(), prompt));
}

#[test]
fn label_maps_of_the_dataset() {
    let overrides = [
        "conditioning_key=concat",
        "unet_config.params.in_channels=5",
        "cond_stage_config={target: spatial, params: {n_stages: 1, in_channels: 5, out_channels: 2}}",
    ];
    // The class of a pixel determines its color.
    let map = tokens(5, 64).view([BATCH, 8, 8]); // [B, 8, 8]
    let colors = Tensor::from_slice(&[-0.8f32, 0.8, 0.1, -0.5, 0.6]);
    let image =
        colors.index_select(0, &map.flatten(0, -1)).view([BATCH, 1, 8, 8]).expand([BATCH, 3, 8, 8], false);
    let twice = map.unsqueeze(1).to_kind(Kind::Float).upsample_nearest2d([16, 16], None, None).squeeze_dim(1);
    let batch = Batch {
        label_map: Some(twice.to_kind(Kind::Uint8)),
        ..batch_of(image.contiguous(), Prompt::default())
    };
    let before = values(&objective(&overrides, 0.).unwrap(), "cond_stage_model.");
    let after = values(&learns(&overrides, &batch), "cond_stage_model.");
    assert_ne!(before, after, "the rescaler is trained");
    let wrong = Batch { label_map: Some((twice + 1).to_kind(Kind::Uint8)), ..batch };
    let error = objective(&overrides, 0.).unwrap().check_batch(&wrong).unwrap_err().to_string();
    assert_eq!(error, "label map: expected classes 0 to 4, got 5");
}

const CONCAT: [&str; 2] = ["conditioning_key=concat", "cond_stage_trainable=false"];

#[test]
fn low_resolution_images() {
    let overrides =
        [CONCAT[0], CONCAT[1], "unet_config.params.in_channels=6", "cond_stage_config={target: identity}"];
    let images = images();
    let prompt = Prompt { image: Some(-images.roll([1], [3])), ..Prompt::default() };
    learns(&overrides, &batch_of(images, prompt));
}

fn mask() -> Tensor {
    let mask = Tensor::zeros([BATCH, 1, 8, 8], (Kind::Float, Device::Cpu));
    let _ = mask.narrow(3, 4, 4).fill_(1.);
    mask
}

#[test]
fn inpainting() {
    let overrides =
        [CONCAT[0], CONCAT[1], "unet_config.params.in_channels=7", "cond_stage_config=__is_first_stage__"];
    // The prompt has no image: that of the batch is used.
    learns(&overrides, &batch_of(images(), Prompt { mask: Some(mask()), ..Prompt::default() }));
}

fn hybrid(cond: &str) -> Vec<&str> {
    let fixed = ["conditioning_key=hybrid", "unet_config.params.in_channels=7"];
    ATTENDED.into_iter().chain(fixed).chain([cond]).collect()
}

#[test]
fn inpainting_with_text() {
    let cond = format!("cond_stage_config={BERT}");
    let overrides = hybrid(&cond);
    // The mask covers the whole image, so that only the text distinguishes images.
    let all = Tensor::ones([BATCH, 1, 8, 8], (Kind::Float, Device::Cpu));
    learns(&overrides, &batch_of(images(), Prompt { mask: Some(all), ..texts() }));
}

/// With every condition dropped, the loss is exactly that of the null prompt.
#[track_caller]
pub(crate) fn check_dropout(overrides: &[&str], prompt: Prompt, null: Prompt) {
    let loss = |dropout: f64, prompt: Prompt| {
        let objective = objective(overrides, dropout).unwrap();
        ldm_testing::fill_weights(objective.model().vs(), 3);
        objective.loss(FIRST_STEP, &batch_of(images(), prompt), &mut PerStep::new(5, 0, 0)).unwrap().total
    };
    let copy = prompt.narrow(0, BATCH);
    assert_eq!(loss(1., prompt), loss(0., null));
    assert_ne!(loss(1., copy.narrow(0, BATCH)), loss(0., copy), "the condition has no effect");
}

#[test]
fn conditions_are_dropped() {
    let class = "cond_stage_config={target: class, params: {embed_dim: 16, n_classes: 6, null_class: 5}}";
    check_dropout(&with_attention(&[class]), Prompt::class(&[0, 1, 2, 4]), Prompt::class(&[5; 4]));
    let bert = format!("cond_stage_config={BERT}");
    check_dropout(&with_attention(&[&bert]), texts(), Prompt::text([""; 4]));
    let layout = "cond_stage_config={target: transformer, params: {n_embed: 16, n_layer: 1, vocab_size: 32, \
                  max_seq_len: 5}}";
    let boxes = |tokens: Tensor| Prompt { tokens: Some(tokens), ..Prompt::default() };
    let none = Tensor::full([BATCH, 5], 31, (Kind::Int64, Device::Cpu));
    check_dropout(&with_attention(&[layout]), boxes(tokens(31, 5)), boxes(none));
    let vectors = |embedding: Tensor| Prompt { embedding: Some(embedding), ..Prompt::default() };
    let identity = with_attention(&["cond_stage_config={target: identity}"]);
    check_dropout(&identity, vectors(embeddings()), vectors(embeddings().zeros_like()));
    // A hybrid model drops the text but not the concatenated image and mask.
    let masked = |prompt: Prompt| Prompt { mask: Some(mask()), ..prompt };
    check_dropout(&hybrid(&bert), masked(texts()), masked(Prompt::text([""; 4])));
}

#[test]
fn dropout_without_a_null_condition_is_refused() {
    let check = |overrides: &[&str], expected: &str| {
        let error = objective(overrides, 0.1).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    };
    check(&[], "expected 0, as the model is unconditional");
    let identity = "cond_stage_config={target: identity}";
    check(
        &["conditioning_key=adm", "unet_config.params.num_classes=6", identity],
        "as the model has no null class",
    );
    check(
        &[CONCAT[0], "unet_config.params.in_channels=6", identity],
        "conditioned on an image and has no null image",
    );
    let first_stage = "cond_stage_config=__is_first_stage__";
    check(
        &[CONCAT[0], "unet_config.params.in_channels=7", first_stage],
        "conditioned on an image and has no null image",
    );
    let map = "cond_stage_config={target: spatial, params: {in_channels: 5, out_channels: 2}}";
    check(&[CONCAT[0], "unet_config.params.in_channels=5", map], "got a map, which has none");
    let class = "cond_stage_config={target: class, params: {embed_dim: 16, n_classes: 6}}";
    check(
        &with_attention(&[class]),
        "null_class: expected a null class for guidance or conditioning dropout, got none",
    );
}

#[test]
fn missing_conditions_are_named() {
    let check = |overrides: &[&str], prompt: Prompt, expected: &str| {
        let objective = objective(overrides, 0.).unwrap();
        let error = objective.check_batch(&batch_of(images(), prompt)).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("image.png: expected {expected}, which the model is conditioned on, got none")
        );
    };
    let bert = format!("cond_stage_config={BERT}");
    let class = Prompt::class(&[0; 4]);
    check(&with_attention(&[&bert]), class, "a caption");
    let class = "cond_stage_config={target: class, params: {embed_dim: 16, n_classes: 6}}";
    check(&with_attention(&[class]), texts(), "a class");
    let map = "cond_stage_config={target: spatial, params: {in_channels: 5, out_channels: 2}}";
    check(&[CONCAT[0], "unet_config.params.in_channels=5", map], texts(), "a label map");
    let identity = "cond_stage_config={target: identity}";
    check(&[CONCAT[0], "unet_config.params.in_channels=6", identity], texts(), "a low-resolution image");
    let first_stage = "cond_stage_config=__is_first_stage__";
    check(&[CONCAT[0], "unet_config.params.in_channels=7", first_stage], texts(), "a mask");
    check(&with_attention(&[identity]), texts(), "an embedding");
}
