//! A model of each way to be conditioned learns a few images by heart that only the condition tells apart; what is
//! dropped, trained and refused is what should be.
//!
//! Nearly all of an image is noise at both levels of the schedule, so that a model that is prompt_for nothing can do no
//! better than the mean, and its loss stays at the images' variance.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]

use ldm_conditioning::{Tokenizer, TokenizerKind};
use ldm_core::device::test_device;
use ldm_core::noise::{PerStep, Seeded};
use ldm_core::{LayoutBox, NoiseSource, Prompt};
use ldm_data::Batch;
use ldm_pipelines::{LatentDiffusionConfig, ModelConfig, ModelFile};
use ldm_train::{AdamW, AdamWConfig, DiffusionObjective, DiffusionTraining, Objective, StepInfo};
use tch::{Device, Kind, Tensor};

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
const BATCH: i64 = 4;
const NOW: StepInfo = StepInfo { phase: 0, step: 0 };
const CLIP: &str = "{target: clip_text, params: {max_length: 6, hidden_size: 16, intermediate_size: 32, \
                    num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 40, max_position_embeddings: 6}}";
const BERT: &str = "{target: bert, params: {n_embed: 16, n_layer: 1, vocab_size: 40, max_seq_len: 8}}";
const ATTENDED: [&str; 2] =
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

/// A model with fresh weights, the same at every call.
fn objective(overrides: &[&str], conditioning_dropout: f64) -> ldm_core::Result<DiffusionObjective> {
    let config = config(overrides);
    let bert = config.cond_stage_config.tokenizer_kind() == Some(TokenizerKind::Bert);
    let training = DiffusionTraining { conditioning_dropout, ..DiffusionTraining::default() };
    drop(PerStep::new(1, 0, 0)); // initialization draws from the generator that this seeds
    DiffusionObjective::with_tokenizer(&config, None, bert.then(tokenizer), training, test_device())
}

/// `[B, 3, 8, 8]`, each of its own pattern, of variance 0.49.
fn images() -> Tensor {
    let seeds = 0..BATCH as u64;
    Seeded::new(seeds).like(&Tensor::zeros([BATCH, 3, 8, 8], (Kind::Float, Device::Cpu))).sign() * 0.7
}

fn batch(images: Tensor, prompt: Prompt) -> Batch {
    Batch {
        images,
        latents: None,
        prompt,
        label_map: None,
        crops: Vec::new(),
        names: vec!["image.png".into()],
    }
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
        let loss = objective.loss(NOW, batch, &mut PerStep::new(2, 0, step)).unwrap();
        loss.total.backward();
        let _ = optimizer.clip(Some(1.));
        optimizer.step(4e-3 * (1. - step as f64 / steps as f64), None);
        if step + 10 >= steps {
            last += loss.total.double_value(&[]) / 10.;
        }
    }
    last
}

/// What a model that is prompt_for nothing cannot get below.
const FLOOR: f64 = 0.35;

#[track_caller]
fn learns(overrides: &[&str], batch: &Batch) -> DiffusionObjective {
    let objective = objective(overrides, 0.).unwrap();
    objective.check_batch(batch).unwrap();
    let loss = train(&objective, batch, 150);
    assert!(loss < 0.2 * FLOOR, "a model that is prompt_for everything is left with {loss}");
    objective
}

fn attended<'a>(more: &[&'a str]) -> Vec<&'a str> {
    ATTENDED.iter().copied().chain(["conditioning_key=crossattn"]).chain(more.iter().copied()).collect()
}

fn values(objective: &DiffusionObjective, prefix: &str) -> Vec<Tensor> {
    let weights = objective.weights().into_iter().filter(|(name, _)| name.starts_with(prefix));
    weights.map(|(_, tensor)| tensor.detach().copy()).collect()
}

#[test]
fn told_nothing_there_is_a_floor() {
    let objective = objective(&[], 0.).unwrap();
    // More steps than the others take: it may learn to tell four images apart by what little the noise leaves.
    let loss = train(&objective, &batch(images(), Prompt::default()), 150);
    assert!(loss > FLOOR, "prompt_for nothing, and yet {loss}");
}

#[test]
fn classes() {
    let cond = "cond_stage_config={target: class, params: {embed_dim: 16, n_classes: 6, null_class: 5}}";
    let batch = batch(images(), Prompt::class(&[0, 1, 2, 4]));
    let before = values(&objective(&attended(&[cond]), 0.).unwrap(), "cond_stage_model.");
    let after = values(&learns(&attended(&[cond]), &batch), "cond_stage_model.");
    assert_ne!(before, after, "the table of classes is trained");
}

#[test]
fn classes_added_to_the_time() {
    // With 32 channels each has a group norm of its own, which takes out what time and class add.
    let overrides = [
        "conditioning_key=adm",
        "unet_config.params.num_classes=6",
        "unet_config.params.model_channels=64",
        "cond_stage_config={target: identity}",
    ];
    // One color each: what is added to the time is the same everywhere.
    let colors =
        Tensor::from_slice(&[1f32, 1., -1., 1., -1., 1., -1., 1., 1., -1., -1., -1.]).view([BATCH, 3, 1, 1]);
    let colors = (colors * 0.7).expand([BATCH, 3, 8, 8], false).contiguous();
    learns(&overrides, &batch(colors, Prompt::class(&[0, 1, 2, 4])));
}

#[test]
fn texts_through_bert_which_is_trained() {
    let cond = format!("cond_stage_config={BERT}");
    let before = values(&objective(&attended(&[&cond]), 0.).unwrap(), "cond_stage_model.");
    let after = values(&learns(&attended(&[&cond]), &batch(images(), texts())), "cond_stage_model.");
    assert_ne!(before, after, "the conditioner is trained");
}

#[test]
fn texts_through_clip_which_is_not() {
    let cond = format!("cond_stage_config={CLIP}");
    let overrides = attended(&[&cond, "cond_stage_trainable=false"]);
    let batch = batch(images(), Prompt { tokens: Some(tokens(40, 6)), ..Prompt::default() });
    let before = values(&objective(&overrides, 0.).unwrap(), "cond_stage_model.");
    let model = learns(&overrides, &batch);
    assert_eq!(before, values(&model, "cond_stage_model."), "the conditioner stays to the bit");
    assert!(model.phases()[0].trainable.iter().all(|(name, _)| name.starts_with("model.diffusion_model.")));
}

#[test]
fn layouts() {
    let cond = "cond_stage_config={target: bert, params: {n_embed: 16, n_layer: 1, vocab_size: 32, max_seq_len: 5, \
                use_tokenizer: false}}";
    let batch = batch(images(), Prompt { tokens: Some(tokens(31, 5)), ..Prompt::default() });
    learns(&attended(&[cond, "cond_stage_key=coordinates_bbox"]), &batch);
}

#[test]
fn boxes_as_the_data_has_them() {
    let cond = "cond_stage_config={target: bert, params: {n_embed: 16, n_layer: 1, vocab_size: 32, max_seq_len: 5, \
                use_tokenizer: false}}";
    let overrides = attended(&[cond]);
    let place = |index: i64| vec![LayoutBox { class: index, rect: [0.2 * index as f64, 0.1, 0.3, 0.5] }];
    let prompt = Prompt {
        layout: Some((0..BATCH).map(place).collect()),
        crops: Some(vec![[0., 0., 0.5, 1.]; BATCH as usize]),
        ..Prompt::default()
    };
    let prompt_for = batch(images(), prompt);
    let objective = learns(&overrides, &prompt_for);
    // The crop is prompt_for too.
    let loss = |prompt: Prompt| {
        let batch = batch(images(), prompt);
        objective.loss(NOW, &batch, &mut PerStep::new(2, 0, 0)).unwrap().total.double_value(&[])
    };
    let whole = Prompt { crops: None, ..prompt_for.prompt.narrow(0, BATCH) };
    assert_ne!(loss(prompt_for.prompt.narrow(0, BATCH)), loss(whole));
    let error = objective.check_batch(&batch(images(), Prompt::default())).unwrap_err().to_string();
    assert_eq!(error, "image.png: has no boxes, and the model is prompt_for one");
}

#[test]
fn embeddings_as_they_are() {
    let prompt = Prompt { embedding: Some(embeddings()), ..Prompt::default() };
    let overrides = attended(&["cond_stage_config={target: identity}", "cond_stage_trainable=false"]);
    learns(&overrides, &batch(images(), prompt));
}

#[test]
fn maps_of_classes_as_the_data_has_them() {
    let overrides = [
        "conditioning_key=concat",
        "unet_config.params.in_channels=5",
        "cond_stage_config={target: spatial, params: {n_stages: 1, in_channels: 5, out_channels: 2}}",
    ];
    // What each pixel shows decides its color.
    let map = tokens(5, 64).view([BATCH, 8, 8]); // [B, 8, 8]
    let colors = Tensor::from_slice(&[-0.8f32, 0.8, 0.1, -0.5, 0.6]);
    let image =
        colors.index_select(0, &map.flatten(0, -1)).view([BATCH, 1, 8, 8]).expand([BATCH, 3, 8, 8], false);
    let twice = map.unsqueeze(1).to_kind(Kind::Float).upsample_nearest2d([16, 16], None, None).squeeze_dim(1);
    let prompt_for =
        Batch { label_map: Some(twice.to_kind(Kind::Uint8)), ..batch(image.contiguous(), Prompt::default()) };
    let before = values(&objective(&overrides, 0.).unwrap(), "cond_stage_model.");
    let after = values(&learns(&overrides, &prompt_for), "cond_stage_model.");
    assert_ne!(before, after, "the rescaler is trained");
    let wrong = Batch { label_map: Some((twice + 1).to_kind(Kind::Uint8)), ..prompt_for };
    let error = objective(&overrides, 0.).unwrap().check_batch(&wrong).unwrap_err().to_string();
    assert_eq!(error, "map of classes: this model knows the classes 0 to 4, got 5");
}

const CONCAT: [&str; 2] = ["conditioning_key=concat", "cond_stage_trainable=false"];

#[test]
fn small_images() {
    let overrides =
        [CONCAT[0], CONCAT[1], "unet_config.params.in_channels=6", "cond_stage_config={target: identity}"];
    let images = images();
    let prompt = Prompt { image: Some(-images.roll([1], [3])), ..Prompt::default() };
    learns(&overrides, &batch(images, prompt));
}

fn mask() -> Tensor {
    let mask = Tensor::zeros([BATCH, 1, 8, 8], (Kind::Float, Device::Cpu));
    let _ = mask.narrow(3, 4, 4).fill_(1.);
    mask
}

#[test]
fn images_to_be_filled() {
    let overrides =
        [CONCAT[0], CONCAT[1], "unet_config.params.in_channels=7", "cond_stage_config=__is_first_stage__"];
    // The image is the batch's own.
    learns(&overrides, &batch(images(), Prompt { mask: Some(mask()), ..Prompt::default() }));
}

fn hybrid(cond: &str) -> Vec<&str> {
    let fixed = ["conditioning_key=hybrid", "unet_config.params.in_channels=7"];
    ATTENDED.into_iter().chain(fixed).chain([cond]).collect()
}

#[test]
fn images_to_be_filled_by_text() {
    let cond = format!("cond_stage_config={BERT}");
    let overrides = hybrid(&cond);
    // Everything is to be filled: only the text tells images apart.
    let all = Tensor::ones([BATCH, 1, 8, 8], (Kind::Float, Device::Cpu));
    learns(&overrides, &batch(images(), Prompt { mask: Some(all), ..texts() }));
}

/// With every condition dropped the loss is that of the prompt that says nothing, to the bit.
#[track_caller]
fn drops(overrides: &[&str], prompt: Prompt, nothing: Prompt) {
    let loss = |dropout: f64, prompt: Prompt| {
        let objective = objective(overrides, dropout).unwrap();
        ldm_testing::fill_weights(objective.model().vs(), 3);
        objective.loss(NOW, &batch(images(), prompt), &mut PerStep::new(5, 0, 0)).unwrap().total
    };
    let kept = prompt.narrow(0, BATCH);
    assert_eq!(loss(1., prompt), loss(0., nothing));
    assert_ne!(loss(1., kept.narrow(0, BATCH)), loss(0., kept), "the condition matters");
}

#[test]
fn conditions_are_dropped() {
    let class = "cond_stage_config={target: class, params: {embed_dim: 16, n_classes: 6, null_class: 5}}";
    drops(&attended(&[class]), Prompt::class(&[0, 1, 2, 4]), Prompt::class(&[5; 4]));
    let bert = format!("cond_stage_config={BERT}");
    drops(&attended(&[&bert]), texts(), Prompt::text([""; 4]));
    let layout = "cond_stage_config={target: transformer, params: {n_embed: 16, n_layer: 1, vocab_size: 32, \
                  max_seq_len: 5}}";
    let prompt_for = |tokens: Tensor| Prompt { tokens: Some(tokens), ..Prompt::default() };
    let none = Tensor::full([BATCH, 5], 31, (Kind::Int64, Device::Cpu));
    drops(&attended(&[layout]), prompt_for(tokens(31, 5)), prompt_for(none));
    let vectors = |embedding: Tensor| Prompt { embedding: Some(embedding), ..Prompt::default() };
    let identity = attended(&["cond_stage_config={target: identity}"]);
    drops(&identity, vectors(embeddings()), vectors(embeddings().zeros_like()));
    // Of a hybrid the text alone: what is joined stays.
    let filling = |prompt: Prompt| Prompt { mask: Some(mask()), ..prompt };
    drops(&hybrid(&bert), filling(texts()), filling(Prompt::text([""; 4])));
}

#[test]
fn what_cannot_be_dropped_is_refused() {
    let check = |overrides: &[&str], expected: &str| {
        let error = objective(overrides, 0.1).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    };
    check(&[], "the model is conditioned on nothing, expected 0");
    let identity = "cond_stage_config={target: identity}";
    check(
        &["conditioning_key=adm", "unet_config.params.num_classes=6", identity],
        "none that means no class",
    );
    check(
        &[CONCAT[0], "unet_config.params.in_channels=6", identity],
        "conditioned on an image, of which none",
    );
    let first_stage = "cond_stage_config=__is_first_stage__";
    check(
        &[CONCAT[0], "unet_config.params.in_channels=7", first_stage],
        "conditioned on an image, of which none",
    );
    let map = "cond_stage_config={target: spatial, params: {in_channels: 5, out_channels: 2}}";
    check(
        &[CONCAT[0], "unet_config.params.in_channels=5", map],
        "conditioned on a map, of which none means nothing",
    );
    let class = "cond_stage_config={target: class, params: {embed_dim: 16, n_classes: 6}}";
    check(&attended(&[class]), "set null_class");
}

#[test]
fn what_a_set_does_not_know_is_named() {
    let check = |overrides: &[&str], prompt: Prompt, expected: &str| {
        let objective = objective(overrides, 0.).unwrap();
        let error = objective.check_batch(&batch(images(), prompt)).unwrap_err().to_string();
        assert_eq!(error, format!("image.png: has no {expected}, and the model is prompt_for one"));
    };
    let bert = format!("cond_stage_config={BERT}");
    let class = Prompt::class(&[0; 4]);
    check(&attended(&[&bert]), class, "caption");
    let class = "cond_stage_config={target: class, params: {embed_dim: 16, n_classes: 6}}";
    check(&attended(&[class]), texts(), "class");
    let map = "cond_stage_config={target: spatial, params: {in_channels: 5, out_channels: 2}}";
    check(&[CONCAT[0], "unet_config.params.in_channels=5", map], texts(), "map of classes");
    let identity = "cond_stage_config={target: identity}";
    check(&[CONCAT[0], "unet_config.params.in_channels=6", identity], texts(), "small image");
    let first_stage = "cond_stage_config=__is_first_stage__";
    check(&[CONCAT[0], "unet_config.params.in_channels=7", first_stage], texts(), "mask of what to fill");
    check(&attended(&[identity]), texts(), "embedding");
}
