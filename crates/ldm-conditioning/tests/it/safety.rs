//! The safety checker against diffusers'; `golden/generate_safety.py` made the file.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::Shapes;
use ldm_conditioning::{SafetyChecker, SafetyScores};
use ldm_core::device::test_device;
use ldm_testing::{Golden, filled};
use tch::{Kind, Tensor};

use crate::open_golden;

/// Writes the checker of the golden file as a folder of diffusers; `nested` has the names of transformers before 5.
fn save(golden: &Golden, folder: &Path, nested: bool) {
    let shapes: Shapes = serde_json::from_str(golden.metadata("shapes")).unwrap();
    let mut tensors = filled(&shapes, 6);
    for name in ["concept_embeds_weights", "special_care_embeds_weights"] {
        tensors.push((name.into(), golden.get(name).to_device(tch::Device::Cpu)));
    }
    if nested {
        for (name, _) in &mut tensors {
            *name = name.replace("vision_model.", "vision_model.vision_model.");
        }
        let positions = Tensor::arange(10, (Kind::Int64, tch::Device::Cpu)).view([1, 10]);
        tensors.push(("vision_model.vision_model.embeddings.position_ids".into(), positions));
    }
    ldm_checkpoint::save(folder.join("model.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    std::fs::write(folder.join("config.json"), golden.metadata("config")).unwrap();
}

#[test]
fn flags_and_scores_equal_diffusers() {
    let (golden, folder) = (open_golden("safety.safetensors"), tempfile::tempdir().unwrap());
    let images = golden.get("images").to_kind(Kind::Float) / 127.5 - 1.;
    let score = |of: &str, weights: &str, index| {
        let score = (golden.get(of) - golden.get(weights)).get(index).to_kind(Kind::Double);
        Vec::<f64>::try_from(score).unwrap()
    };
    for nested in [false, true] {
        save(&golden, folder.path(), nested);
        let checker = SafetyChecker::open(folder.path(), test_device()).unwrap();
        assert_eq!(checker.side(), 20);
        let scores = checker.scores(&images).unwrap();
        let flags: Vec<bool> = scores.iter().map(SafetyScores::is_unsafe).collect();
        assert_eq!(flags, Vec::<bool>::try_from(golden.get("flags")).unwrap());
        assert_eq!(flags, [true, true, false, false, false, false]);
        for (index, found) in scores.iter().enumerate() {
            let special = score("special", "special_care_embeds_weights", index as i64);
            let concepts = score("concepts", "concept_embeds_weights", index as i64);
            let allowance = if found.special[1] > 0. { 0.01 } else { 0. };
            for (found, wanted) in found.concepts.iter().zip(&concepts) {
                assert!((found - wanted - allowance).abs() < 6e-4, "{index}: {found} {wanted}");
            }
            // Special concepts after the second have the allowance too.
            for (place, (found, wanted)) in found.special.iter().zip(&special).enumerate() {
                let allowance = if place > 1 { allowance } else { 0. };
                assert!((found - wanted - allowance).abs() < 6e-4, "{index}: {found} {wanted}");
            }
        }
        // The second image is unsafe by the allowance alone.
        assert!(scores[1].special[1] > 0. && scores[1].concepts.iter().all(|score| *score < 0.01));
    }
}

#[test]
fn other_folders_and_images_are_refused() {
    let (golden, folder) = (open_golden("safety.safetensors"), tempfile::tempdir().unwrap());
    let open = || SafetyChecker::open(folder.path(), test_device());
    assert!(open().unwrap_err().to_string().contains("config.json"));
    save(&golden, folder.path(), false);
    let images = golden.get("images").to_kind(Kind::Float).narrow(2, 0, 19);
    let error = open().unwrap().scores(&images).unwrap_err().to_string();
    assert_eq!(error, "images: expected shape [B, 3, 20, 20], got [6, 3, 19, 20]");
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "clip"}"#).unwrap();
    assert!(open().unwrap_err().to_string().contains("vision_config"));
    let config = golden.metadata("config").replace("\"projection_dim\": 11", "\"projection_dim\": 12");
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    assert!(open().unwrap_err().to_string().contains("concept_embeds"));
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert!(open().unwrap_err().to_string().contains("model.safetensors"));
}
