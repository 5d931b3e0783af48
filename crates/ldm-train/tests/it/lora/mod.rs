//! LoRA training: gradients match autograd, the base is unchanged, resume is bit-exact, and the merged export equals
//! the trained model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::{Checkpoint, save};
use ldm_core::device::test_device;
use ldm_core::noise::PerStep;
use ldm_core::{NoiseSource, Prompt, Result};
use ldm_data::{Batch, Loader, LoaderConfig, Position};
use ldm_pipelines::lora::LoraFile;
use ldm_pipelines::{LatentDiffusion, LatentDiffusionConfig, ModelConfig};
use ldm_testing::fill_weights;
use ldm_train::{
    AdamW, AdamWConfig, DiffusionObjective, DiffusionTraining, Ema, EmaConfig, Exported, LoraConfig,
    LoraObjective, LoraTarget, Objective, RunConfig, StepInfo,
};
use tch::{Kind, Tensor};

use crate::{configs, lock_generator};

mod function;
mod gradients;

use function::Function;

fn text() -> String {
    let more = "attention_resolutions: [2], channel_mult: [1, 2], use_checkpoint: true";
    let params = [
        "cond_stage_trainable: true",
        &format!("unet_config: {}", configs::unet(3, &[more, configs::CROSS_ATTENTION])),
        "first_stage_config: {target: identity}",
        &format!("cond_stage_config: {}", configs::CLASSES),
    ];
    let (model, data) = (configs::diffusion(16, 3, &params), configs::data(&configs::scenes(4), None));
    format!("{model}{data}train: {{steps: 20, learning_rate: 1.0e-3}}\n")
}

fn model_config(overrides: &[&str]) -> Box<LatentDiffusionConfig> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    let ModelConfig::LatentDiffusion(config) =
        RunConfig::parse(&text(), "tiny.yaml", &overrides).unwrap().model
    else {
        panic!("a diffusion model")
    };
    config
}

fn batches() -> Loader {
    let config = RunConfig::parse(&text(), "tiny.yaml", &[]).unwrap();
    let data = config.data.train.open(Path::new(".")).unwrap();
    Loader::new(data, LoaderConfig { workers: 0, ..LoaderConfig::new(4, 1) }, Position::default()).unwrap()
}

fn empty_batch() -> Batch {
    let images = Tensor::zeros([1, 3, 1, 1], (Kind::Float, test_device()));
    Batch {
        images,
        latents: None,
        prompt: Prompt::default(),
        label_map: None,
        crops: Vec::new(),
        names: Vec::new(),
    }
}

/// The base model, with nonzero weights.
fn base() -> DiffusionObjective {
    let objective =
        DiffusionObjective::new(&model_config(&[]), None, DiffusionTraining::default(), test_device())
            .unwrap();
    fill_weights(objective.model().vs(), 1);
    objective
}

fn lora(config: &LoraConfig) -> LoraObjective {
    LoraObjective::new(Box::new(base()), &model_config(&[]), config, &mut PerStep::new(5, 0, 0)).unwrap()
}

fn all_targets() -> LoraConfig {
    use LoraTarget::{Attention, Convolutions, FeedForward, Projections};
    LoraConfig {
        rank: 4,
        alpha: Some(6.),
        targets: vec![Attention, FeedForward, Projections, Convolutions],
        text_encoder: false,
    }
}

/// A minimal training loop.
struct Run {
    objective: LoraObjective,
    optimizer: AdamW,
    ema: Ema,
    step: u64,
}

impl Run {
    fn new(objective: LoraObjective) -> Self {
        let optimizer = AdamW::new(objective.phases().remove(0).trainable, AdamWConfig::default());
        let ema = Ema::new(objective.ema_parameters(), &EmaConfig { decay: 0.9, also: Vec::new() });
        Self { objective, optimizer, ema, step: 0 }
    }

    /// One step of two micro-batches.
    fn step(&mut self, batch: &Batch, lr: f64) -> f64 {
        self.optimizer.zero_grad();
        let mut last = 0.;
        for pass in 0..2 {
            let mut noise = PerStep::new(1, 0, 2 * self.step + pass);
            let loss = self
                .objective
                .loss(StepInfo { phase: 0, global_step: self.step }, batch, &mut noise)
                .unwrap();
            (&loss.total / 2.).backward();
            self.objective.after_backward(0);
            last = loss.total.double_value(&[]);
        }
        self.optimizer.step(lr, None, None);
        self.objective.after_step(&mut PerStep::new(1, 0, (1 << 63) | self.step));
        self.ema.update();
        self.step += 1;
        last
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let mut all = [self.objective.weights(), self.optimizer.state(), self.ema.state()].concat_names();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

trait ConcatNames {
    fn concat_names(self) -> Vec<(String, Tensor)>;
}

impl ConcatNames for [Vec<(String, Tensor)>; 3] {
    fn concat_names(self) -> Vec<(String, Tensor)> {
        let named = self.into_iter().zip(["model", "optimizer", "ema"]);
        named
            .flat_map(|(part, prefix)| {
                part.into_iter()
                    .map(move |(name, tensor)| (format!("{prefix}/{name}"), tensor.detach().copy()))
            })
            .collect()
    }
}

/// Validation uses the EMA; the next step does not.
#[test]
fn the_ema_is_validated_and_not_trained_on() {
    let _lock = lock_generator();
    let weight = Tensor::ones([2, 2], (Kind::Float, test_device()));
    let seen = RefCell::new(Vec::new());
    let own = weight.shallow_clone();
    let function = Function {
        weights: vec![("model.diffusion_model.x.to_q.weight".into(), weight.shallow_clone())],
        loss: Box::new(move || own.sum(Kind::Float)),
    };
    let config = LoraConfig { rank: 1, alpha: Some(1.), ..LoraConfig::default() };
    let objective =
        LoraObjective::new(Box::new(function), &model_config(&[]), &config, &mut PerStep::new(7, 0, 0))
            .unwrap();
    let set = |value: f64| {
        for (_, factor) in objective.ema_parameters() {
            let _ = tch::no_grad(|| factor.shallow_clone().fill_(value));
        }
    };
    let validate = || {
        let found = objective.as_validate().unwrap().validate(&mut std::iter::empty()).unwrap()[0].1;
        seen.borrow_mut().push(found);
    };
    set(1.);
    validate(); // 4·(1 + 1)
    set(2.);
    validate(); // 4·(1 + 4)
    set(1.);
    let loss = objective
        .loss(StepInfo { phase: 0, global_step: 0 }, &empty_batch(), &mut PerStep::new(0, 0, 0))
        .unwrap();
    assert_eq!((seen.into_inner(), loss.total.double_value(&[])), (vec![8., 20.], 8.));
}

#[test]
fn adapters_learn_and_the_base_is_unchanged() {
    let _lock = lock_generator();
    let inner = base();
    let variables: Vec<(String, Tensor)> = inner.model().vs().variables().into_iter().collect();
    let before: BTreeMap<String, Tensor> =
        variables.iter().map(|(name, tensor)| (name.clone(), tensor.detach().copy())).collect();
    let config = all_targets();
    let objective =
        LoraObjective::new(Box::new(inner), &model_config(&[]), &config, &mut PerStep::new(5, 0, 0)).unwrap();
    let mut run = Run::new(objective);
    let batch = batches().next().unwrap().unwrap();
    let first = run.step(&batch, 1e-2);
    for (name, tensor) in &variables {
        assert_eq!(
            tensor.requires_grad(),
            config.selects(name),
            "{name}: exactly the adapted weights are trained"
        );
        assert!(!tensor.grad().defined(), "{name}: a gradient is passed on to the adapter and dropped");
    }
    let mut last = f64::NAN;
    for _ in 0..40 {
        last = run.step(&batch, 1e-2);
    }
    assert!(last < 0.6 * first, "from {first} to {last}");
    for (name, tensor) in &variables {
        assert_eq!(*tensor == before[name], !config.selects(name), "{name}");
    }

    // The export merged into the base equals the trained model.
    let Exported::Lora { tensors, metadata } = run.objective.as_export().unwrap().export(&[]).unwrap() else {
        panic!("a LoRA")
    };
    assert_eq!((metadata["ss_network_dim"].as_str(), metadata["ss_network_alpha"].as_str()), ("4", "6"));
    let file = tempfile::NamedTempFile::new().unwrap();
    save(file.path(), &tensors, &metadata).unwrap();
    let merged = base();
    merged.model().merge(&[LoraFile::from(file.path())]).unwrap();
    let merged = merged.model().vs().variables();
    run.objective.as_validate().unwrap().validate(&mut std::iter::empty()).unwrap(); // composes the weights
    for (name, tensor) in &variables {
        assert!(merged[name] == *tensor, "{name}");
    }
    let Exported::Lora { tensors: ema, .. } =
        run.objective.as_export().unwrap().export(&run.ema.state()).unwrap()
    else {
        panic!("a LoRA")
    };
    let up = |tensors: &[(String, Tensor)]| {
        let found = tensors.iter().find(|(name, _)| name.ends_with(".lora_up.weight")).unwrap();
        found.1.shallow_clone()
    };
    assert_ne!(up(&ema), up(&tensors), "the EMA is exported");
}

/// Three steps, a checkpoint, and three more in a new run are bit-identical to six steps.
#[test]
fn a_run_resumes_bit_exactly() {
    let _lock = lock_generator();
    let batches: Vec<Batch> = batches().take(6).collect::<Result<_>>().unwrap();
    let config = LoraConfig { rank: 2, ..LoraConfig::default() };
    let mut whole = Run::new(lora(&config));
    let mut first = Run::new(lora(&config));
    for (step, batch) in batches.iter().enumerate() {
        whole.step(batch, 1e-3);
        if step < 3 {
            first.step(batch, 1e-3);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(format!("{name}.safetensors"));
    save(path("model"), &first.objective.weights(), &BTreeMap::new()).unwrap();
    save(path("optimizer"), &first.optimizer.state(), &BTreeMap::new()).unwrap();
    first.ema.write(folder.path(), &BTreeMap::new()).unwrap();
    drop(first);
    // The base is loaded again; the initial adapters differ.
    let other = LoraObjective::new(Box::new(base()), &model_config(&[]), &config, &mut PerStep::new(6, 0, 0));
    let mut second = Run::new(other.unwrap());
    second.objective.load(Checkpoint::open(path("model")).unwrap()).unwrap();
    second.optimizer.load(&Checkpoint::open(path("optimizer")).unwrap()).unwrap();
    second.ema.read(folder.path(), 3).unwrap();
    second.step = 3;
    for batch in &batches[3..] {
        second.step(batch, 1e-3);
    }
    let (whole, second) = (whole.state(), second.state());
    assert_eq!(whole.len(), second.len());
    for ((name, whole), (_, second)) in whole.iter().zip(&second) {
        assert!(whole == second, "{name}");
    }

    let inner = base();
    let bias = &inner.model().vs().variables()["model.diffusion_model.out.2.bias"];
    let _ = tch::no_grad(|| bias.shallow_clone().fill_(0.25));
    let mut changed =
        LoraObjective::new(Box::new(inner), &model_config(&[]), &config, &mut PerStep::new(6, 0, 0)).unwrap();
    let error = changed.load(Checkpoint::open(path("model")).unwrap()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors: expected adapters of this base model"), "{error}");
}

/// Adapters of the frozen CLIP text encoder are trained, with two passes of the U-Net per step.
#[test]
fn adapters_of_a_text_encoder_are_trained() {
    let _lock = lock_generator();
    let clip = "model.params.cond_stage_config={target: clip_text, params: {hidden_size: 16, intermediate_size: 32, \
                num_hidden_layers: 2, num_attention_heads: 2, vocab_size: 40, max_position_embeddings: 8, max_length: 8}}";
    let config = model_config(&[clip]);
    let model = LatentDiffusion::new(&config, None, test_device()).unwrap();
    fill_weights(model.vs(), 2);
    let weights: Vec<(String, Tensor)> = model.vs().variables().into_iter().collect();
    let ints = (Kind::Int64, test_device());
    let x = PerStep::new(1, 0, 0).like(&Tensor::zeros([2, 3, 16, 16], (Kind::Float, test_device())));
    let loss = move || {
        let tokens = Tensor::arange(16, ints).view([2, 8]);
        let cond = model.condition(&Prompt { tokens: Some(tokens), ..Prompt::default() }, true).unwrap();
        model.unet.forward(&x, &Tensor::full([2], 7, ints), &cond, true).square().mean(Kind::Float)
    };
    let objective = |text_encoder| {
        let weights = weights.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        (weights, LoraConfig { rank: 2, text_encoder, ..LoraConfig::default() })
    };
    let (all, lora) = objective(true);
    let inner = Function { weights: all, loss: Box::new(loss) };
    let objective = LoraObjective::new(Box::new(inner), &config, &lora, &mut PerStep::new(5, 0, 0)).unwrap();
    let mut run = Run::new(objective);
    let first = run.step(&empty_batch(), 1e-2);
    for _ in 0..3 {
        run.step(&empty_batch(), 1e-2);
    }
    assert!(run.step(&empty_batch(), 1e-2) < first);
    let trained = run.objective.phases().remove(0).trainable;
    let text: Vec<&(String, Tensor)> =
        trained.iter().filter(|(name, _)| name.starts_with("lora.cond_stage_model.")).collect();
    assert_eq!(text.len(), 2 * 2 * 4, "four layers of two attentions");
    for (name, factor) in text {
        assert!(factor.grad().abs().max().double_value(&[]) > 0., "{name}");
    }
    let Exported::Lora { tensors, .. } = run.objective.as_export().unwrap().export(&[]).unwrap() else {
        panic!("a LoRA")
    };
    let name = "lora_te_text_model_encoder_layers_1_self_attn_out_proj.lora_up.weight";
    assert!(tensors.iter().any(|(found, _)| found == name));
}

#[test]
fn invalid_settings_are_refused_by_key() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut LoraConfig), expected: &str) {
        let mut config = LoraConfig::default();
        change(&mut config);
        let result =
            LoraObjective::new(Box::new(base()), &model_config(&[]), &config, &mut PerStep::new(5, 0, 0));
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("train.lora.") && error.contains(expected), "{error}");
    }
    let _lock = lock_generator();
    check(|config| config.rank = 0, "rank: expected at least 1, got 0");
    check(|config| config.rank = 17, "attn2.to_k.weight` [64, 16], got 17");
    check(|config| config.alpha = Some(-1.), "alpha: expected a positive number, got -1");
    check(|config| config.targets.clear(), "targets: expected at least one kind of layer");
    check(|config| config.text_encoder = true, "text_encoder: expected layers of this model, got none");
    let text = |text: &str| serde_yaml::from_str::<LoraConfig>(text);
    assert_eq!(text("{}").unwrap(), LoraConfig::default());
    assert!(text("{ranks: 4}").unwrap_err().to_string().contains("unknown field `ranks`"));
    let error = text("{targets: [attn]}").unwrap_err().to_string();
    assert!(error.contains("attention") && error.contains("convolutions"), "{error}");
}
