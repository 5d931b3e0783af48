//! Models conditioned on a map and on tokens, by a pair of conditioners.

use ldm_core::Prompt;
use ldm_train::Objective;
use tch::{Device, Kind, Tensor};

use crate::batch_of;
use crate::conditioners::{ATTENDED, BATCH, check_dropout, images, learns, objective};

const PAIR: &str = "cond_stage_config={target: hybrid, params: {c_concat_config: {target: spatial, params: {n_stages: 1, \
                    in_channels: 5, out_channels: 2}}, c_crossattn_config: {target: class, params: {embed_dim: 16, \
                    n_classes: 6, null_class: 5}}}}";

fn pair() -> Vec<&'static str> {
    ATTENDED
        .into_iter()
        .chain(["conditioning_key=hybrid", "unet_config.params.in_channels=5", PAIR])
        .collect()
}

/// One-hot label maps of one label.
fn plain_map() -> Tensor {
    let map = Tensor::zeros([BATCH, 5, 16, 16], (Kind::Float, Device::Cpu));
    let _ = map.narrow(1, 2, 1).fill_(1.);
    map
}

#[test]
fn a_label_map_and_a_class() {
    // The map is the same for all images, so that only the class distinguishes them.
    let prompt = Prompt { mask: Some(plain_map()), ..Prompt::class(&[0, 1, 2, 4]) };
    learns(&pair(), &batch_of(images(), prompt));
    let check = |prompt: Prompt, expected: &str| {
        let error = objective(&pair(), 0.).unwrap().check_batch(&batch_of(images(), prompt)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(Prompt::class(&[0, 1, 2, 4]), "expected a label map, which the model is conditioned on, got none");
    check(Prompt { mask: Some(plain_map()), ..Prompt::default() }, "expected a class, which the model is");
    let mapped = |classes: &[i64]| Prompt { mask: Some(plain_map()), ..Prompt::class(classes) };
    check_dropout(&pair(), mapped(&[0, 1, 2, 4]), mapped(&[5; 4]));
    let wrong = |overrides: &[&str], expected: &str| {
        let error = objective(&[&pair()[..], overrides].concat(), 0.).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    wrong(
        &["conditioning_key=crossattn"],
        "conditioning_key: expected hybrid with a hybrid conditioner, got",
    );
    let concat = "cond_stage_config.params.c_concat_config={target: class, params: {embed_dim: 16}}";
    wrong(&[concat], "c_concat_config: expected spatial or identity, which output a map");
    wrong(
        &["cond_stage_config.params.c_crossattn_config={target: spatial}"],
        "c_crossattn_config: expected a conditioner that outputs tokens",
    );
}
