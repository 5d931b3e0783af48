//! Textual inversion: only the vectors are trained, a few images are learned, and resume is bit-exact.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ldm_checkpoint::{Checkpoint, save};
use ldm_conditioning::{EmbeddingFile, Tokenizer, TokenizerKind};
use ldm_core::Result;
use ldm_core::device::test_device;
use ldm_core::noise::PerStep;
use ldm_data::{Batch, Loader, LoaderConfig, Position};
use ldm_pipelines::{LatentDiffusionConfig, ModelConfig};
use ldm_testing::fill_weights;
use ldm_train::{
    AdamW, AdamWConfig, DiffusionObjective, DiffusionTraining, EmbeddingConfig, EmbeddingObjective, Exported,
    Objective, RunConfig, StepInfo,
};
use tch::Tensor;

use crate::{configs, lock_generator};

const CLIP: &str = "cond_stage_config: {target: clip_text, params: {hidden_size: 16, intermediate_size: 32, \
    num_hidden_layers: 2, num_attention_heads: 2, vocab_size: 520, max_position_embeddings: 20, max_length: 20}}";

fn text() -> String {
    let more = "attention_resolutions: [2], channel_mult: [1, 2], use_checkpoint: true";
    let params = [
        &format!("unet_config: {}", configs::unet(3, &[more, configs::CROSS_ATTENTION])),
        "first_stage_config: {target: identity}",
        CLIP,
    ];
    let (model, data) = (configs::diffusion(16, 3, &params), configs::data(&configs::scenes(4), None));
    format!("{model}{data}train: {{steps: 20, learning_rate: 1.0e-3}}\n")
}

fn run_config() -> RunConfig {
    RunConfig::parse(&text(), "tiny.yaml", &[]).unwrap()
}

fn model_config() -> Box<LatentDiffusionConfig> {
    let ModelConfig::LatentDiffusion(config) = run_config().model else { panic!("a diffusion model") };
    config
}

fn batches() -> Loader {
    let data = run_config().data.train.open(Path::new(".")).unwrap();
    Loader::new(data, LoaderConfig { workers: 0, ..LoaderConfig::new(4, 1) }, Position::default()).unwrap()
}

/// The base model, with nonzero weights and a small tokenizer.
fn base() -> DiffusionObjective {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("merges.txt"), "#version\nc a\nca t</w>\n").unwrap();
    let tokenizer = Tokenizer::open(TokenizerKind::Clip, folder.path().join("merges.txt")).unwrap();
    let training = DiffusionTraining::default();
    let objective =
        DiffusionObjective::with_tokenizer(&model_config(), None, Some(tokenizer), training, test_device())
            .unwrap();
    fill_weights(objective.model().vs(), 1);
    objective
}

fn config() -> EmbeddingConfig {
    EmbeddingConfig {
        token: "<new>".into(),
        vectors: 3,
        initial: "a cat".into(),
        prompts: vec!["a <new>".into(), "a small <new> b".into()],
    }
}

fn objective() -> EmbeddingObjective {
    EmbeddingObjective::new(base(), &config()).unwrap()
}

struct Run {
    objective: EmbeddingObjective,
    optimizer: AdamW,
    step: u64,
}

impl Run {
    fn new(objective: EmbeddingObjective) -> Self {
        let optimizer = AdamW::new(objective.phases().remove(0).trainable, AdamWConfig::default());
        Self { objective, optimizer, step: 0 }
    }

    /// One step; the noise of all steps is that of `seed`, or of the step.
    fn step(&mut self, batch: &Batch, lr: f64, seed: Option<u64>) -> f64 {
        self.optimizer.zero_grad();
        let mut noise = PerStep::new(1, 0, seed.unwrap_or(self.step));
        let info = StepInfo { phase: 0, global_step: self.step };
        let loss = self.objective.loss(info, batch, &mut noise).unwrap().total;
        loss.backward();
        self.optimizer.step(lr, None, None);
        self.step += 1;
        loss.double_value(&[])
    }
}

fn export(objective: &EmbeddingObjective) -> ldm_conditioning::TextualInversion {
    let Exported::Embedding(embedding) = objective.as_export().unwrap().export(&[]).unwrap() else {
        panic!("an embedding")
    };
    embedding
}

#[test]
fn only_the_vectors_learn() {
    let _lock = lock_generator();
    let inner = base();
    let start = inner.model().conditioner.token_vectors("a cat").unwrap();
    let variables: Vec<(String, Tensor)> = inner.model().vs().variables().into_iter().collect();
    // A U-Net of random weights hardly reacts to its context: the attention to it is amplified.
    tch::no_grad(|| {
        for (_, weight) in variables.iter().filter(|(name, _)| name.ends_with("attn2.to_out.0.weight")) {
            let _ = weight.shallow_clone().g_mul_scalar_(30.);
        }
    });
    let before: BTreeMap<&str, Tensor> =
        variables.iter().map(|(name, tensor)| (name.as_str(), tensor.detach().copy())).collect();
    let mut run = Run::new(EmbeddingObjective::new(inner, &config()).unwrap());
    let first = export(&run.objective);
    assert_eq!((&*first.token, first.vectors.size()), ("<new>", vec![3, 16]));
    // Three vectors from two tokens.
    for (row, from) in [(0, 0), (1, 1), (2, 0)] {
        assert_eq!(first.vectors.get(row), start.get(from));
    }
    let batch = batches().next().unwrap().unwrap();
    run.objective.check_batch(&batch).unwrap();
    let begun = run.step(&batch, 3e-2, Some(0));
    let mut last = f64::NAN;
    for _ in 0..60 {
        last = run.step(&batch, 3e-2, Some(0));
    }
    // All noise is the same.
    assert!(last < 0.97 * begun, "from {begun} to {last}");
    for (name, tensor) in &variables {
        assert!(!tensor.grad().defined() && *tensor == before[name.as_str()], "{name}");
    }
    let trained = export(&run.objective);
    assert_ne!(trained.vectors, first.vectors);
    // The file is read as any other, and works in another copy of the model.
    let folder = tempfile::tempdir().unwrap();
    trained.save(folder.path().join("learned_embeds.safetensors")).unwrap();
    let read = EmbeddingFile::from(folder.path()).read().unwrap();
    assert_eq!((&*read.token, &read.vectors), ("<new>", &trained.vectors));
}

#[test]
fn a_run_resumes_bit_exactly() {
    let _lock = lock_generator();
    let batches: Vec<Batch> = batches().take(4).collect::<Result<_>>().unwrap();
    let (mut whole, mut first) = (Run::new(objective()), Run::new(objective()));
    for (step, batch) in batches.iter().enumerate() {
        whole.step(batch, 1e-3, None);
        if step < 2 {
            first.step(batch, 1e-3, None);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(format!("{name}.safetensors"));
    save(path("model"), &first.objective.weights(), &BTreeMap::new()).unwrap();
    save(path("optimizer"), &first.optimizer.state(), &BTreeMap::new()).unwrap();
    let mut second = Run::new(objective());
    second.objective.load(Checkpoint::open(path("model")).unwrap()).unwrap();
    second.optimizer.load(&Checkpoint::open(path("optimizer")).unwrap()).unwrap();
    second.step = 2;
    for batch in &batches[2..] {
        second.step(batch, 1e-3, None);
    }
    assert_eq!(export(&whole.objective).vectors, export(&second.objective).vectors);

    let inner = base();
    let bias = &inner.model().vs().variables()["model.diffusion_model.out.2.bias"];
    let _ = tch::no_grad(|| bias.shallow_clone().fill_(0.25));
    let mut changed = EmbeddingObjective::new(inner, &config()).unwrap();
    let error = changed.load(Checkpoint::open(path("model")).unwrap()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors: expected an embedding of this base model"), "{error}");
}

#[test]
fn invalid_settings_and_captions_are_refused() {
    let _lock = lock_generator();
    let error = |change: fn(&mut EmbeddingConfig)| {
        let mut config = config();
        change(&mut config);
        EmbeddingObjective::new(base(), &config).unwrap_err().to_string()
    };
    for (found, expected) in [
        (
            error(|config| config.token = " ".into()),
            "train.embedding.token: expected a word, got an empty one",
        ),
        (error(|config| config.vectors = 0), "train.embedding.vectors: expected at least 1, got 0"),
        (
            error(|config| config.vectors = 19),
            "embedding `<new>`: expected at most 18 vectors, the tokens of a text, got 19",
        ),
        (
            error(|config| config.initial = String::new()),
            "train.embedding.initial: expected a word of the vocabulary, got an empty text",
        ),
        (
            error(|config| config.prompts.push("a cat".into())),
            "train.embedding.prompts: expected captions with `<new>`, got a cat",
        ),
    ] {
        assert_eq!(found, expected);
    }
    // Without captions of its own, those of the data must have the word.
    let config = EmbeddingConfig { prompts: Vec::new(), ..config() };
    let objective = EmbeddingObjective::new(base(), &config).unwrap();
    let batch = batches().next().unwrap().unwrap();
    let error = objective.check_batch(&batch).unwrap_err().to_string();
    assert!(
        error.contains("expected a caption with `<new>`, got none; try train.embedding.prompts"),
        "{error}"
    );
}

#[test]
fn an_embedding_excludes_a_lora() {
    let parse = |train: &str| {
        let embedding = "embedding: {token: <new>, initial: cat}";
        let text = text().replace("train: {steps", &format!("train: {{{embedding}, {train}steps"));
        RunConfig::parse(&text, "tiny.yaml", &[])
    };
    assert!(parse("").unwrap().train.embedding.is_some());
    let error = parse("lora: {}, ").unwrap_err().to_string();
    assert!(error.contains("train.embedding: expected none with train.lora, got one"), "{error}");
}
