//! LoHa, LoKr, LoCon with a core, and DoRA: merged weights, outputs, strengths, errors.
//!
//! `golden/generate_lycoris.py` ran LyCORIS and PEFT on the case `stable_diffusion` of `golden/generate_folders.py`.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::save;
use ldm_core::device::test_device;
use ldm_core::{Conditioning, Prompt};
use ldm_pipelines::LatentDiffusion;
use ldm_pipelines::lora::{Lora, LoraFile};
use ldm_testing::{Golden, assert_close, relative_l2};
use tch::{Device, Kind, Tensor};

use crate::lora::{assert_weights, base, golden, open, shapes};

const CASES: [&str; 9] =
    ["loha", "loha_core", "lokr", "lokr_core", "lokr_full", "locon_core", "dora_in", "dora_out", "peft"];
const Q: &str = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
const CONV: &str = "lora_unet_down_blocks_0_resnets_0_conv1";

/// The file of a case, with some tensors replaced.
fn file(golden: &Golden, case: &str, replace: &[(String, Option<Tensor>)]) -> tempfile::NamedTempFile {
    let mut tensors: BTreeMap<String, Tensor> = golden.scope(&format!("{case}.file.")).into_iter().collect();
    for (name, tensor) in replace {
        match tensor {
            Some(tensor) => drop(tensors.insert(name.clone(), tensor.shallow_clone())),
            None => drop(tensors.remove(name).expect("a name of the file")),
        }
    }
    let key = "lora_adapter_metadata";
    let metadata = BTreeMap::from([(key.to_owned(), golden.metadata(key).to_owned())]);
    let out = tempfile::NamedTempFile::new().unwrap();
    save(out.path(), &tensors.into_iter().collect::<Vec<_>>(), &metadata).unwrap();
    out
}

fn output(model: &LatentDiffusion, golden: &Golden) -> Tensor {
    let prompt = Prompt { tokens: Some(golden.get("tokens").shallow_clone()), ..Prompt::default() };
    tch::no_grad(|| {
        let cond: Conditioning = model.condition(&prompt, false).unwrap();
        let t = Tensor::from_slice(&[500_i64, 500]).to_device(test_device());
        model.unet.forward(golden.get("x"), &t, &cond, false)
    })
}

fn weights(model: &LatentDiffusion) -> BTreeMap<String, Tensor> {
    model.vs().variables().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect()
}

#[test]
fn merged_weights_equal_those_of_lycoris_and_peft() {
    let folder = base();
    let golden = Golden::open(golden("lycoris.safetensors"), test_device());
    for case in CASES {
        let model = open(folder.path(), Kind::Float);
        let before = weights(&model);
        let path = file(&golden, case, &[]);
        model.merge(&[LoraFile::from(path.path())]).unwrap();
        let changed = assert_weights(&model, &golden, case);
        assert_eq!(changed, 6, "{case}");
        let after = weights(&model);
        assert_eq!(
            before.iter().filter(|(name, tensor)| after[*name] != **tensor).count(),
            changed,
            "{case}"
        );
        let want = golden.get(&format!("{case}.answer"));
        assert_close(&format!("{case}: output"), &output(&model, &golden), want, 1e-5);
    }
}

/// A strength interpolates: 0 is the model, 0.5 is half the change, with DoRA too. Several add up in any order.
#[test]
fn strengths_scale_the_change_and_several_add_up() {
    let folder = base();
    let golden = Golden::open(golden("lycoris.safetensors"), test_device());
    let files = ["lokr_core", "dora_in"].map(|case| file(&golden, case, &[]));
    let merged = |strengths: &[(usize, f64)]| {
        let model = open(folder.path(), Kind::Float);
        let given = strengths.iter().map(|(file, strength)| LoraFile {
            path: files[*file].path().to_path_buf(),
            strength: *strength,
        });
        model.merge(&given.collect::<Vec<_>>()).unwrap();
        weights(&model)
    };
    let plain = merged(&[]);
    let whole = [merged(&[(0, 1.)]), merged(&[(1, 1.)])];
    assert!(merged(&[(0, 0.), (1, 0.)]).iter().all(|(name, weight)| *weight == plain[name]));
    let both = merged(&[(0, 0.5), (1, -0.25)]);
    let swapped = merged(&[(1, -0.25), (0, 0.5)]);
    for (name, weight) in &both {
        let change = |which: usize| &whole[which][name] - &plain[name];
        let want = &plain[name] + change(0) * 0.5 - change(1) * 0.25;
        assert!(relative_l2(weight, &want) < 1e-6, "{name}");
        assert!(relative_l2(weight, &swapped[name]) < 1e-6, "{name}");
    }
}

/// Magnitudes of PEFT under kohya's names, as `convert_state_dict_to_kohya` of diffusers writes them.
#[test]
fn magnitudes_of_peft_under_kohyas_names_are_of_the_outputs() {
    let folder = base();
    let golden = Golden::open(golden("lycoris.safetensors"), test_device());
    let path = file(&golden, "dora_out", &[]);
    let want = open(folder.path(), Kind::Float);
    want.merge(&[LoraFile::from(path.path())]).unwrap();
    // Not square: `[1, 64, 1, 1]` of a square weight would be LyCORIS' magnitudes of the inputs.
    let [layer, conv] = [format!("{Q}.dora_scale"), "lora_unet_conv_in.dora_scale".to_owned()];
    let of = |name: &str| golden.get(&format!("dora_out.file.{name}")).shallow_clone();
    let (flat, turned) = (of(&layer).flatten(0, -1), of(&conv).transpose(0, 1));
    let path = file(&golden, "dora_out", &[(layer, Some(flat)), (conv, Some(turned))]);
    let got = open(folder.path(), Kind::Float);
    got.merge(&[LoraFile::from(path.path())]).unwrap();
    let want = weights(&want);
    assert!(weights(&got).iter().all(|(name, weight)| *weight == want[name]));
}

#[test]
fn wrong_shapes_are_refused_by_name_and_change_no_weight() {
    let folder = base();
    let model = open(folder.path(), Kind::Float);
    let golden = Golden::open(golden("lycoris.safetensors"), Device::Cpu);
    let before = weights(&model);
    let ones = |size: &[i64]| Some(Tensor::ones(size, (Kind::Float, Device::Cpu)));
    let check = |case: &str, replace: Vec<(String, Option<Tensor>)>, expected: &str| {
        let (first, second) = (file(&golden, "loha", &[]), file(&golden, case, &replace));
        let files = [LoraFile::from(first.path()), LoraFile::from(second.path())];
        let error = model.merge(&files).unwrap_err().to_string();
        assert!(error.starts_with(second.path().to_str().unwrap()), "{error}");
        assert!(error.contains(expected) && !error.contains('\n'), "{expected}: {error}");
    };
    let q = |leaf: &str| format!("{Q}.{leaf}");
    let conv = |leaf: &str| format!("{CONV}.{leaf}");
    check("loha", vec![(q("hada_w2_b"), None)], "expected hada_w2_a and hada_w2_b, got no hada_w2_b");
    check(
        "loha",
        vec![(q("hada_w2_b"), ones(&[2, 63]))],
        "[64, 2] and [2, 64] and [64, 2] and [2, 63] for [64, 64]",
    );
    check("loha", vec![(q("hada_w1_b"), ones(&[3, 64]))], &format!("got 1 of others ({Q}: "));
    check("loha", vec![(conv("hada_w1_b"), ones(&[3, 64]))], &format!("got 1 of others ({CONV}: "));
    check("loha_core", vec![(conv("hada_t2"), ones(&[3, 3, 5, 5]))], &format!("got 1 of others ({CONV}: "));
    check("loha_core", vec![(conv("hada_t2"), None)], &format!("got 1 of others ({CONV}: "));
    check("lokr", vec![(q("lokr_w1_a"), None)], "expected lokr_w1_a and lokr_w1_b, got no lokr_w1_a");
    check("lokr", vec![(q("lokr_w1_b"), ones(&[2, 7]))], &format!("got 1 of others ({Q}: "));
    check("lokr", vec![(q("lokr_w1"), ones(&[8, 8]))], "expected lokr_w1 or its factors, got lokr_w1_a too");
    check("lokr", vec![(conv("lokr_w2_b"), ones(&[3, 71]))], &format!("got 1 of others ({CONV}: "));
    check("lokr_full", vec![(conv("lokr_w2"), ones(&[16, 16, 1, 1]))], &format!("got 1 of others ({CONV}: "));
    check("lokr_full", vec![(q("lokr_w2"), ones(&[0, 16]))], &format!("got 1 of others ({Q}: "));
    check(
        "locon_core",
        vec![(conv("lora_mid.weight"), ones(&[3, 2, 3, 3]))],
        &format!("got 1 of others ({CONV}: "),
    );
    check("locon_core", vec![(conv("lora_up.weight"), None)], "got no up (B)");
    check("dora_in", vec![(q("dora_scale"), ones(&[1, 65]))], "[1, 65] and [2, 64] and [64, 2] for [64, 64]");
    check("dora_in", vec![(q("lora_up.weight"), None), (q("lora_down.weight"), None)], "got no down (A)");
    check("loha", vec![(q("lora_up.weight"), ones(&[64, 2]))], "expected factors of one kind, got several");
    check("loha", vec![(q("alpha"), ones(&[2]))], "expected one number, got shape [2]");
    let nan = Tensor::full([64, 1], f64::NAN, (Kind::Float, Device::Cpu));
    check("dora_out", vec![(q("dora_scale"), Some(nan))], "expected finite numbers, got NaN or Inf");
    assert!(weights(&model).iter().all(|(name, weight)| *weight == before[name]), "a weight changed");
}

#[test]
fn only_loras_are_written() {
    let folder = base();
    let model = open(folder.path(), Kind::Float);
    let golden = Golden::open(golden("lycoris.safetensors"), Device::Cpu);
    let path = file(&golden, "lokr", &[]);
    let lora = Lora::read(path.path(), &model.config, &shapes(&model)).unwrap();
    let error = lora.save(Path::new("nowhere.safetensors"), &model.config).unwrap_err().to_string();
    assert!(error.starts_with("LoRA: expected low-rank updates to write, got others (`"), "{error}");
}
