//! LoRAs in the namings of diffusers, PEFT and kohya-ss: reading, merging, writing, errors.
//!
//! `golden/generate_lora.py` ran diffusers on the case `stable_diffusion` of `golden/generate_folders.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ldm_checkpoint::{Checkpoint, Shapes, save};
use ldm_core::device::test_device;
use ldm_core::{Conditioning, Prompt};
use ldm_pipelines::lora::{Adapter, Factors, Lora, LoraFile, Update};
use ldm_pipelines::{
    ConvertOptions, ConvertTarget, LatentDiffusion, LoadOptions, Model, ModelFile, ModelSource, convert,
};
use ldm_testing::{Golden, assert_close, filled};
use ldm_unet::{Evaluation, Recordings};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

const TOLERANCE: f64 = 1e-6;
/// As in `generate_folders.py`.
const SEEDS: [(&str, u64); 3] = [("vae", 1), ("unet", 2), ("text_encoder", 3)];
const CASES: [(&str, &[(&str, f64)]); 3] =
    [("peft", &[("peft", 1.)]), ("kohya", &[("kohya", 1.)]), ("both", &[("peft", 0.7), ("kohya", -0.4)])];

#[derive(Deserialize)]
struct Case {
    texts: BTreeMap<String, String>,
    weights: BTreeMap<String, usize>,
}

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn file(name: &str) -> PathBuf {
    golden(&format!("lora_{name}.safetensors"))
}

/// The model of the golden LoRAs, as a diffusers folder.
pub(crate) fn base() -> tempfile::TempDir {
    let golden = Golden::open(golden("folders.safetensors"), Device::Cpu);
    let mut cases: BTreeMap<String, Case> = serde_json::from_str(golden.metadata("cases")).unwrap();
    let all: Vec<Shapes> = serde_json::from_str(golden.metadata("shapes")).unwrap();
    let case = cases.remove("stable_diffusion").unwrap();
    let root = tempfile::tempdir().unwrap();
    for (path, text) in case.texts {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    for (path, shapes) in case.weights {
        let part = path.split('/').next().unwrap();
        let (_, seed) = SEEDS.iter().find(|(known, _)| *known == part).unwrap();
        save(root.path().join(&path), &filled(&all[shapes], *seed), &BTreeMap::new()).unwrap();
    }
    root
}

pub(crate) fn open(path: &Path, kind: Kind) -> LatentDiffusion {
    let how = LoadOptions { kind, ..LoadOptions::new(test_device()) };
    let Model::Diffusion(model) = Model::open(path, &how, &mut |_| {}).unwrap() else {
        panic!("a whole model")
    };
    *model
}

fn given(strengths: &[(&str, f64)]) -> Vec<LoraFile> {
    strengths.iter().map(|(name, strength)| LoraFile { path: file(name), strength: *strength }).collect()
}

pub(crate) fn shapes(model: &LatentDiffusion) -> Shapes {
    model.vs().variables().into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
}

fn read(path: &Path, model: &LatentDiffusion) -> ldm_core::Result<Lora> {
    Lora::read(path, &model.config, &shapes(model))
}

/// A copy of the file with other names.
fn renamed(name: &str, rename: impl Fn(&str) -> String) -> tempfile::NamedTempFile {
    let checkpoint = Checkpoint::open(file(name)).unwrap();
    let tensors: Vec<(String, Tensor)> =
        checkpoint.names().map(|name| (rename(name), checkpoint.tensor(name).unwrap())).collect();
    let out = tempfile::NamedTempFile::new().unwrap();
    save(out.path(), &tensors, checkpoint.metadata()).unwrap();
    out
}

fn adapter(update: &Update) -> &Adapter {
    let Factors::LowRank(adapter) = &update.factors else { panic!("a LoRA, not {update:?}") };
    adapter
}

#[track_caller]
fn assert_same(got: &Lora, want: &Lora) {
    let names = |lora: &Lora| lora.updates.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(got), names(want));
    for (name, update) in &got.updates {
        let (adapter, other) = (adapter(update), adapter(&want.updates[name]));
        let same = adapter.down == other.down && adapter.up == other.up && adapter.alpha == other.alpha;
        assert!(same, "{name}");
    }
}

/// The output of the network for the inputs in the golden file.
fn output(model: &LatentDiffusion, golden: &Golden, case: &str) -> Tensor {
    let get = |key: &str| golden.get(&format!("{case}.{key}")).shallow_clone();
    let prompt = Prompt { tokens: Some(get("tokens")), ..Prompt::default() };
    tch::no_grad(|| {
        let cond: Conditioning = model.condition(&prompt, false).unwrap();
        let t = Tensor::from_slice(&[500_i64, 500]).to_device(test_device());
        model.unet.forward(&get("x"), &t, &cond, false)
    })
}

/// Compares the merged weights with those of the golden file, and returns their number.
pub(crate) fn assert_weights(model: &LatentDiffusion, golden: &Golden, case: &str) -> usize {
    let merged = model.vs().variables();
    let [unet, text] = [
        ldm_unet::diffusers_layout(model.config.unet()).unwrap(),
        ldm_conditioning::diffusers_layout(&model.config.cond_stage_config).unwrap(),
    ];
    let weights = golden.scope(&format!("{case}.weights."));
    for (diffusers_name, want) in &weights {
        let name = match diffusers_name.split_once('.').unwrap() {
            ("unet", rest) => format!("model.diffusion_model.{}", unet.keys.apply(rest)),
            (_, rest) => format!("cond_stage_model.{}", text.keys.apply(rest)),
        };
        let rows = merged[&name].detach().to_kind(Kind::Double).flatten(1, -1);
        let columns = Tensor::arange(rows.size()[1], (Kind::Double, test_device())).cos();
        assert_close(&format!("{case}: {name}"), &rows.mv(&columns), want, TOLERANCE);
    }
    weights.len()
}

#[test]
fn merged_weights_equal_those_fused_by_diffusers() {
    let folder = base();
    let golden = Golden::open(golden("lora.safetensors"), test_device());
    for (case, strengths) in CASES {
        let model = open(folder.path(), Kind::Float);
        let before: BTreeMap<String, Tensor> =
            model.vs().variables().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect();
        model.merge(&given(strengths)).unwrap();
        let after = model.vs().variables();
        let changed = assert_weights(&model, &golden, case);
        let differing = before.iter().filter(|(name, tensor)| after[*name] != **tensor).count();
        assert_eq!(differing, changed, "{case}: no other weight changes");
        let want = golden.get(&format!("{case}.answer"));
        assert_close(&format!("{case}: output"), &output(&model, &golden, case), want, 1e-5);
    }
}

#[test]
fn evaluations_recorded_before_a_merge_are_dropped() {
    let folder = base();
    let model = open(folder.path(), Kind::Float);
    let golden = Golden::open(golden("lora.safetensors"), test_device());
    let recordings = Recordings::again();
    let evaluated = |batch: i64| {
        let get = |key: &str| golden.get(&format!("kohya.{key}")).narrow(0, 0, batch);
        let prompt = Prompt { tokens: Some(get("tokens")), ..Prompt::default() };
        let _guard = tch::no_grad_guard();
        let cond = model.unet.precompute(&model.condition(&prompt, false).unwrap());
        let (x, t) = (get("x"), Tensor::full([batch], 500., (Kind::Float, test_device())));
        let got = recordings.evaluate(&model.unet, &x, 500., &cond, Evaluation::default());
        assert_eq!(got, model.unet.evaluate(&x, &t, &cond, Evaluation::default()));
        recordings.count()
    };
    assert_eq!([1, 2].map(evaluated), [1, 2]);
    model.merge(&given(&[("kohya", 1.)])).unwrap();
    assert_eq!(evaluated(1), 1);
}

#[test]
fn all_namings_read_the_same() {
    let folder = base();
    let model = open(folder.path(), Kind::Float);
    let [peft, kohya] = ["peft", "kohya"].map(|name| read(&file(name), &model).unwrap());
    assert_eq!((peft.updates.len(), kohya.updates.len()), (56, 44));
    assert!(
        peft.updates.values().map(adapter).all(|adapter| adapter.alpha == 3. && adapter.rank() == 2),
        "from the metadata"
    );

    // diffusers `state_dict_utils.py`: its older forms, and those of transformers before 5.
    let leaf =
        |name: &str, down: &str, up: &str| name.replace(".lora_A.weight", down).replace(".lora_B.weight", up);
    let older = renamed("peft", |name| leaf(name, ".lora.down.weight", ".lora.up.weight"));
    assert_same(&read(older.path(), &model).unwrap(), &peft);
    let processors = renamed("peft", |name| {
        let name = name.replace("text_encoder.", "text_encoder.text_model.");
        let attention = ["to_q", "to_k", "to_v", "to_out.0"].iter().any(|part| name.contains(part));
        if attention {
            let name = name.replace("attn1.", "attn1.processor.").replace("attn2.", "attn2.processor.");
            leaf(&name.replace("to_out.0", "to_out"), "_lora.down.weight", "_lora.up.weight")
        } else if name.contains("self_attn") {
            let name = name.replace("q_proj", "to_q").replace("out_proj", "to_out");
            leaf(&name, "_lora.down.weight", "_lora.up.weight")
        } else {
            leaf(&name, ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")
        }
    });
    assert_same(&read(processors.path(), &model).unwrap(), &peft);
    // diffusers' own converter.
    let converted = renamed("kohya", |name| name.replace("lora_te_text_model_", "lora_te1_"));
    assert_same(&read(converted.path(), &model).unwrap(), &kohya);

    // LyCORIS without kohya's trainer.
    let alone = renamed("kohya", |name| name.replace("lora_unet_", "lycoris_"));
    assert_same(&read(alone.path(), &model).unwrap(), &kohya);

    // CompVis' modules in kohya's scheme.
    let inverse = ldm_unet::diffusers_layout(model.config.unet()).unwrap().keys;
    let native: BTreeMap<String, String> = kohya
        .updates
        .keys()
        .filter_map(|weight| weight.strip_prefix("model.diffusion_model.")?.strip_suffix(".weight"))
        .map(|module| {
            let diffusers_name = inverse.inverse().apply(&format!("{module}.weight"));
            (diffusers_name.replace(".weight", "").replace('.', "_"), module.replace('.', "_"))
        })
        .collect();
    let compvis = renamed("kohya", |name| {
        let (module, leaf) = name.split_once('.').unwrap();
        let compvis = module.strip_prefix("lora_unet_").map(|module| format!("lora_unet_{}", native[module]));
        format!("{}.{leaf}", compvis.unwrap_or_else(|| module.to_owned()))
    });
    assert!(
        Checkpoint::open(compvis.path()).unwrap().names().any(|name| name.contains("_input_blocks_2_0_op."))
    );
    assert_same(&read(compvis.path(), &model).unwrap(), &kohya);
}

/// Names and values equal those of diffusers' converter.
#[test]
fn written_files_equal_those_of_kohya() {
    let folder = base();
    let model = open(folder.path(), Kind::Float);
    let lora = read(&file("kohya"), &model).unwrap();
    let out = tempfile::NamedTempFile::new().unwrap();
    lora.save(out.path(), &model.config).unwrap();
    let [written, expected] = [out.path(), &file("kohya")].map(|path| Checkpoint::open(path).unwrap());
    assert_eq!(written.shapes(), expected.shapes());
    for name in expected.names() {
        assert_eq!(written.tensor(name).unwrap(), expected.tensor(name).unwrap(), "{name}");
    }
    for key in ["ss_network_dim", "ss_network_alpha"] {
        assert_eq!(written.metadata()[key], expected.metadata()[key]);
    }
    if let Some(keep) = std::env::var_os("LDM_KEEP_LORA") {
        lora.save(Path::new(&keep), &model.config).unwrap();
    }
}

/// Memory-mapped weights in half precision: the file does not change, and sums are rounded once.
#[test]
fn memory_mapped_weights_in_half_precision_are_merged_in_f32() {
    let folder = base();
    let weights = folder.path().join("unet/diffusion_pytorch_model.safetensors");
    let checkpoint = Checkpoint::open(&weights).unwrap();
    let halves: Vec<(String, Tensor)> = checkpoint
        .names()
        .map(|name| (name.to_owned(), checkpoint.tensor(name).unwrap().to_kind(Kind::Half)))
        .collect();
    save(&weights, &halves, &BTreeMap::new()).unwrap();
    let bytes = std::fs::read(&weights).unwrap();
    let [plain, merged] = [(); 2].map(|()| open(folder.path(), Kind::Half));
    merged.merge(&given(&[("kohya", 0.5)])).unwrap();
    let [before, after] = [plain.vs().variables(), merged.vs().variables()];
    for (name, update) in read(&file("kohya"), &plain).unwrap().updates {
        let base = before[&name].detach().to_kind(Kind::Float);
        let want = (&base + update.change(&base, 0.5)).to_kind(Kind::Half);
        assert!(after[&name].kind() == Kind::Half && after[&name].detach() == want, "{name}");
    }
    assert!(std::fs::read(&weights).unwrap() == bytes, "the file is unchanged");
}

#[test]
fn loras_are_merged_in_conversion() {
    let folder = base();
    let out = tempfile::tempdir().unwrap();
    let source = ModelSource::find(folder.path(), None, true).unwrap();
    let path = out.path().join("merged");
    let how = ConvertOptions {
        to: ConvertTarget::Ldm,
        kind: None,
        ema: true,
        tokenizer: None,
        merge: None,
        loras: given(&[("peft", 0.7), ("kohya", -0.4)]),
        force: false,
    };
    convert(&source, &path, &how, &mut |_| {}).unwrap();
    let [model, converted] = [open(folder.path(), Kind::Float), open(&path, Kind::Float)];
    model.merge(&how.loras).unwrap();
    let converted = converted.vs().variables();
    for (name, tensor) in model.vs().variables() {
        assert!(converted[&name] == tensor, "{name}");
    }
}

/// Plain attention is one tensor in CompVis' format and three in diffusers', and the class embedder does not exist
/// there: such modules have our names.
#[test]
fn modules_that_diffusers_lacks_have_our_names() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/experiments/tiny/diffusion-class.yaml");
    let overrides = [
        "model.params.cond_stage_config=__is_unconditional__",
        "model.params.conditioning_key=null",
        "model.params.unet_config.params.use_spatial_transformer=false",
        "model.params.unet_config.params.context_dim=null",
    ];
    let file = ModelFile::read(path, &overrides.map(str::to_owned)).unwrap();
    let ldm_pipelines::ModelConfig::LatentDiffusion(config) = file.model else { panic!("a diffusion model") };
    let model = LatentDiffusion::new(&config, None, test_device()).unwrap();
    let shapes = shapes(&model);
    let mut lora = Lora::default();
    for (name, shape) in &shapes {
        let included = [".qkv.weight", ".in_layers.2.weight"].iter().any(|end| name.ends_with(end));
        if included {
            let (mut down, mut up) = (shape.clone(), vec![1; shape.len()]);
            (down[0], up[0], up[1]) = (2, shape[0], 2);
            let ones = |size: &[i64]| Tensor::ones(size, (Kind::Float, Device::Cpu));
            let adapter = Adapter { down: ones(&down), up: ones(&up), alpha: 1. };
            lora.updates.insert(name.clone(), adapter.into());
        }
    }
    let names: Vec<String> = lora.tensors(&config).unwrap().into_iter().map(|(name, _)| name).collect();
    assert!(names.iter().any(|name| name.starts_with("lora_unet_mid_block_resnets_0_conv1.")), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("lora_unet_middle_block_1_qkv.")), "{names:?}");
    let out = tempfile::NamedTempFile::new().unwrap();
    lora.save(out.path(), &config).unwrap();
    assert_same(&Lora::read(out.path(), &config, &shapes).unwrap(), &lora);
}

#[test]
fn invalid_loras_are_refused_and_change_no_weight() {
    let folder = base();
    let model = open(folder.path(), Kind::Float);
    let before: BTreeMap<String, Tensor> =
        model.vs().variables().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect();
    let check = |tensors: &[(&str, &[i64])], expected: &str| {
        let tensors: Vec<(String, Tensor)> = tensors
            .iter()
            .map(|(name, size)| ((*name).to_owned(), Tensor::ones(*size, (Kind::Float, Device::Cpu))))
            .collect();
        let out = tempfile::NamedTempFile::new().unwrap();
        save(out.path(), &tensors, &BTreeMap::new()).unwrap();
        // After a valid one: all are checked before any is merged.
        let files = [LoraFile::from(file("peft").as_path()), LoraFile::from(out.path())];
        let error = model.merge(&files).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{expected}: {error}");
        assert!(error.contains(out.path().to_str().unwrap()), "{error}");
    };
    let q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
    let [down, up, alpha] = ["lora_down.weight", "lora_up.weight", "alpha"].map(|leaf| format!("{q}.{leaf}"));
    check(&[(&down, &[2, 64]), (&up, &[64, 3])], "expected updates of the weights' shapes, got 1 of others");
    check(&[(&down, &[2, 32]), (&up, &[64, 2])], "[2, 32] and [64, 2] for [64, 64]");
    check(&[(&down, &[2, 64, 3, 3]), (&up, &[64, 2, 1, 1])], "[2, 64, 3, 3]");
    check(&[(&down, &[2, 64])], "got no up (B)");
    check(&[(&down, &[2, 64]), (&up, &[64, 2]), (&alpha, &[2])], "expected one number, got shape [2]");
    for (other, expected) in [
        (
            Tensor::full([2, 64], f64::NAN, (Kind::Float, Device::Cpu)),
            "expected finite numbers, got NaN or Inf at [0, 0]",
        ),
        (Tensor::ones([2, 64], (Kind::Int64, Device::Cpu)), "expected floating-point numbers, got Int64"),
    ] {
        let out = tempfile::NamedTempFile::new().unwrap();
        let up = (up.clone(), Tensor::ones([64, 2], (Kind::Float, Device::Cpu)));
        save(out.path(), &[(down.clone(), other), up], &BTreeMap::new()).unwrap();
        let error = model.merge(&[LoraFile::from(out.path())]).unwrap_err().to_string();
        assert!(error.ends_with(&format!("tensor `{down}`: {expected}")), "{error}");
    }
    check(
        &[
            (&down, &[2, 64]),
            (&up, &[64, 2]),
            ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", &[2, 64]),
            ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight", &[64, 2]),
        ],
        "expected one update, got two under different names",
    );
    check(
        &[(&down, &[2, 64]), (&up, &[64, 2]), ("conv_in.weight", &[1])],
        "expected tensors of a LoRA, got `conv_in.weight`",
    );
    for (leaf, expected) in [
        ("oft_blocks", "an OFT, which is not supported"),
        ("diff", "full-rank weight differences, which is not supported"),
    ] {
        check(&[(&format!("{q}.{leaf}"), &[2, 2])], expected);
    }
    check(&[("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", &[4, 4])], "Stable Diffusion XL");
    check(&[("transformer.single_blocks.0.linear1.lora_A.weight", &[4, 4])], "a diffusion transformer");
    let many: Vec<String> =
        (0..12).map(|index| format!("lora_unet_down_blocks_7_x_{index:02}.alpha")).collect();
    let mut many: Vec<(&str, &[i64])> = many.iter().map(|name| (name.as_str(), &[][..])).collect();
    many.extend([(down.as_str(), &[2, 64][..]), (up.as_str(), &[64, 2])]);
    check(&many, "expected modules of the model, got 12 of 13 others (lora_unet_down_blocks_7_x_00, ");
    check(&many, "lora_unet_down_blocks_7_x_09, …)");
    let after = model.vs().variables();
    assert!(before.iter().all(|(name, tensor)| after[name] == *tensor), "a weight changed");
    let missing = LoraFile::from(Path::new("nowhere.safetensors"));
    assert!(model.merge(&[missing]).unwrap_err().to_string().starts_with("nowhere.safetensors: "));
}
