//! CLIP against transformers' `CLIPModel`; `golden/generate_clip.py` made the file.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::Shapes;
use ldm_conditioning::Clip;
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_testing::{Golden, assert_close, filled};
use tch::Kind;

use crate::open_golden;

fn golden() -> Golden {
    open_golden("clip.safetensors")
}

/// Writes the model of the golden file as a folder of transformers.
fn save(golden: &Golden, folder: &Path) {
    let shapes: Shapes = serde_json::from_str(golden.metadata("shapes")).unwrap();
    let tensors = filled(&shapes, 6);
    assert!(tensors.iter().any(|(name, _)| name == "logit_scale"), "files of transformers have it");
    ldm_checkpoint::save(folder.join("model.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    std::fs::write(folder.join("config.json"), golden.metadata("config")).unwrap();
}

#[test]
fn clip_equals_transformers() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    save(&golden, folder.path());
    let clip = Clip::open(folder.path(), test_device()).unwrap();
    assert_eq!(clip.side(), 20);
    let tokens = Prompt { tokens: Some(golden.get("tokens").shallow_clone()), ..Prompt::default() };
    let text = clip.texts(&tokens).unwrap();
    assert_close("text", &text, golden.get("text"), 1e-5);
    let images = golden.get("images").to_kind(Kind::Float) / 127.5 - 1.;
    assert_close("image", &clip.images(&images).unwrap(), golden.get("image"), 1e-5);
    let longest = text.linalg_norm(2., [1_i64].as_slice(), false, None).max().double_value(&[]);
    assert!((longest - 1.).abs() < 1e-6);

    let error = clip.images(&images.narrow(2, 0, 19)).unwrap_err().to_string();
    assert_eq!(error, "images: expected shape [B, 3, 20, 20], got [3, 3, 19, 20]");
    let error = clip.texts(&Prompt::text(["a cat"])).unwrap_err().to_string();
    assert!(error.contains("expected a clip tokenizer, got none"), "{error}");
}

#[test]
fn other_folders_are_refused() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    let open = || Clip::open(folder.path(), test_device()).unwrap_err().to_string();
    assert!(open().contains("config.json"));
    save(&golden, folder.path());
    let path = folder.path().join("config.json");
    let config = golden.metadata("config");
    for (text, expected) in [
        ("{".to_owned(), "config.json: expected JSON"),
        (config.replace("\"clip\"", "\"siglip\""), "model_type"),
        (config.replace("\"image_size\": 20", "\"image_size\": 5"), "image_size of at least patch_size 6"),
        (config.replace("\"patch_size\": 6", "\"patch_size\": 5"), "patch_embedding.weight"),
        (config.replace("vision_config", "image_config"), "vision_config"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = open();
        assert!(error.contains(expected), "{error}");
    }
}
