//! Text through CLIP: syntax, CLIP skip, learned words, and the safety checker.

use std::path::Path;

use ldm::conditioning::{TextualInversion, Tokenizer, TokenizerKind};
use ldm::pipelines::{LatentDiffusion, ModelConfig, ModelFile};
use ldm::prelude::*;
use ldm::{SafetyFilter, SafetyMode};
use ldm_core::device::test_device;
use ldm_testing::{Golden, assert_close, fill_weights, filled};

const CLIP: &str = "model.params.cond_stage_config={target: clip_text, params: {hidden_size: 16, intermediate_size: 32, \
                    num_hidden_layers: 2, num_attention_heads: 2, vocab_size: 520}}";

fn pipeline() -> Pipeline {
    let text = include_str!("../../../ldm-pipelines/tests/tiny.yaml");
    let overrides = [CLIP.to_owned()];
    let ModelConfig::LatentDiffusion(config) = ModelFile::parse(text, "tiny.yaml", &overrides).unwrap().model
    else {
        panic!("a diffusion model")
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("merges.txt"), "#version\nc a\nca t</w>\n").unwrap();
    let tokenizer = Tokenizer::open(TokenizerKind::Clip, folder.path().join("merges.txt")).unwrap();
    let model = LatentDiffusion::new(&config, Some(tokenizer), test_device()).unwrap();
    fill_weights(model.vs(), 1);
    Pipeline::new(model, "tiny")
}

#[test]
fn prompts_are_read_as_requested() {
    let mut pipeline = pipeline();
    let draw = |pipeline: &Pipeline, request: Request| {
        let images = pipeline.generate(&request.steps(3).guidance(3.)).unwrap();
        (images.latents().shallow_clone(), images.parameters(0).to_owned(), images.notes().join("\n"))
    };
    let text = "a (cat:1.4) b";
    let (plain, parameters, notes) = draw(&pipeline, Request::text(text));
    assert!(parameters.contains(", Emphasis: None,"), "{parameters}");
    assert!(notes.contains("read as text"), "{notes}");
    let weights = |text: &str| Request::text(text).prompt_syntax(PromptSyntax::Weights);
    let (weighted, parameters, notes) = draw(&pipeline, weights(text));
    assert!(!parameters.contains("Emphasis") && notes.is_empty(), "{parameters} {notes}");
    assert_ne!(plain, weighted);
    let (skipped, parameters, _) = draw(&pipeline, weights(text).clip_skip(2));
    assert!(parameters.contains(", Clip skip: 2,"), "{parameters}");
    assert_ne!(skipped, weighted);
    // Without a weight the syntax makes no difference, and an empty chunk is that of the empty prompt.
    assert_close(
        "text",
        &draw(&pipeline, weights("a cat")).0,
        &draw(&pipeline, Request::text("a cat")).0,
        1e-5,
    );
    let (long, _, _) = draw(&pipeline, weights("a BREAK b").negative("c"));
    assert_ne!(long, draw(&pipeline, weights("a BREAK b")).0);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.safetensors");
    let vectors = Tensor::full([2, 16], 0.5, (Kind::Float, Device::Cpu));
    TextualInversion { token: "<new>".into(), vectors }.save(&path).unwrap();
    let before = draw(&pipeline, Request::text("a <new>")).0;
    assert_eq!(pipeline.add_embedding(&EmbeddingFile::from(path.as_path())).unwrap(), "<new>");
    let (after, parameters, _) = draw(&pipeline, Request::text("a <new>"));
    assert!(parameters.contains(", Embeddings: <new>,"), "{parameters}");
    assert_ne!(before, after);
    let error = pipeline.add_embedding(&EmbeddingFile::from(path.as_path())).unwrap_err().to_string();
    assert!(error.contains("got one that was added before"), "{error}");
}

#[test]
fn unsafe_images_are_black() {
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../ldm-conditioning/tests/golden/safety.safetensors");
    let golden = Golden::open(golden, test_device());
    let shapes = serde_json::from_str(golden.metadata("shapes")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // In a folder of diffusers.
    let checker = folder.path().join("safety_checker");
    std::fs::create_dir(&checker).unwrap();
    std::fs::write(checker.join("config.json"), golden.metadata("config")).unwrap();
    let save = |threshold: f64| {
        let mut tensors = filled(&shapes, 6);
        for (name, count) in [("concept_embeds_weights", 17), ("special_care_embeds_weights", 3)] {
            tensors.push((name.into(), Tensor::full([count], threshold, (Kind::Float, Device::Cpu))));
        }
        let file = checker.join("model.safetensors");
        ldm::checkpoint::save(file, &tensors, &std::collections::BTreeMap::new()).unwrap();
    };
    let images =
        || Tensor::linspace(-0.5, 1., 2 * 3 * 256, (Kind::Float, test_device())).view([2, 3, 16, 16]);
    let check = |mode| {
        let filter = SafetyFilter::find(folder.path(), None, mode, test_device()).unwrap();
        let mut flags = vec![false];
        let filter = filter?;
        let checked = filter.check(images(), &mut flags).unwrap();
        Some((checked, flags, filter.report(2, 3)))
    };
    save(-2.);
    let (blocked, flags, report) = check(SafetyMode::Block).unwrap();
    assert_eq!((flags, blocked.max().double_value(&[])), (vec![false, true, true], -1.));
    assert!(report.unwrap().starts_with("the safety checker found 2 of 3 images unsafe; replaced"));
    let (left, flags, report) = check(SafetyMode::Warn).unwrap();
    assert_eq!((flags, left), (vec![false, true, true], images()));
    assert!(report.unwrap().ends_with("left as they are"));
    assert!(check(SafetyMode::Off).is_none());
    save(2.);
    let (left, flags, _) = check(SafetyMode::Block).unwrap();
    assert_eq!((flags, left), (vec![false; 3], images()));
    // The folder named by hand; a pipeline with it.
    save(-2.);
    let named = |folder: &Path| {
        SafetyFilter::find(Path::new("nowhere"), Some(folder), SafetyMode::Block, test_device())
    };
    assert!(named(&checker).unwrap().is_some() && named(&folder.path().join("none")).is_err());
    let pipeline = pipeline().safety(named(folder.path()).unwrap());
    let images = pipeline.generate(&Request::text("a cat").steps(2).seeds([1, 2])).unwrap();
    assert_eq!(images.flagged(), [true, true]);
    assert_eq!(images.tensor().max().double_value(&[]), -1.);
    assert!(images.notes()[0].contains("found 2 of 2 images unsafe"));
}
