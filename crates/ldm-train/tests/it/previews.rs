//! Preview images: samples next to their conditions.

use std::sync::atomic::AtomicBool;

use ldm_core::{Prompt, channels};
use ldm_data::Batch;
use ldm_train::{Objective, SampleConfig};
use tch::{Kind, Tensor};

use crate::batch_of;
use crate::conditioners::{ATTENDED, BATCH, images, objective};
use crate::lock_generator;

/// The previews of a model with and without conditions.
fn previews(overrides: &[&str], batch: &Batch) -> [Tensor; 2] {
    let objective = objective(overrides, 0.).unwrap();
    [true, false].map(|conditions| {
        let config = SampleConfig { count: 4, steps: 1, conditions, ..SampleConfig::default() };
        tch::no_grad(|| objective.as_preview().unwrap().preview(batch, &config, &AtomicBool::new(false)))
            .unwrap()
    })
}

/// The sample `index` in a plain grid of two by two.
fn sample(grid: &Tensor, index: i64) -> Tensor {
    grid.narrow(1, 2 + index / 2 * 10, 8).narrow(2, 2 + index % 2 * 10, 8)
}

#[test]
fn samples_are_shown_next_to_their_conditions_and_unchanged() {
    let _lock = lock_generator();
    let cross = [ATTENDED[0], ATTENDED[1], "conditioning_key=crossattn"];
    let classes = "cond_stage_config={target: class, params: {embed_dim: 16, n_classes: 6, null_class: 5}}";
    let batch = batch_of(images(), Prompt::class(&[0, 1, 2, 4]));
    let [shown, plain] = previews(&[&cross[..], &[classes]].concat(), &batch);
    assert_eq!(plain.size(), [3, 22, 22]);
    // One a row, with a text of 160 pixels.
    assert_eq!(shown.size(), [3, 4 * 10 + 2, 8 + 2 + 160 + 4]);
    for index in 0..4 {
        assert_eq!(shown.narrow(1, 2 + index * 10, 8).narrow(2, 2, 8), sample(&plain, index));
    }

    // A low-resolution image, and the image it is of.
    let low = ["conditioning_key=concat", "cond_stage_trainable=false", "unet_config.params.in_channels=6"];
    let condition = -images().roll([1], [3]);
    let prompt = Prompt { image: Some(condition.shallow_clone()), ..Prompt::default() };
    let batch = batch_of(images(), prompt);
    let [shown, plain] = previews(&[&low[..], &["cond_stage_config={target: identity}"]].concat(), &batch);
    // Two items of three cells a row: two columns are the squarer sheet.
    let item = 3 * 10 - 2;
    assert_eq!(shown.size(), [3, 2 * 10 + 2, 2 * (item + 2) + 2]);
    for index in 0..BATCH {
        let cell = |column: i64| {
            let left = 2 + index % 2 * (item + 2) + column * 10;
            shown.narrow(1, 2 + index / 2 * 10, 8).narrow(2, left, 8)
        };
        assert_eq!(cell(0), sample(&plain, index));
        assert_eq!(cell(1), condition.get(index));
        assert_eq!(cell(2), channels::shown(&images()).get(index));
    }

    // Nothing to show.
    let [shown, plain] = previews(&[], &batch_of(images(), Prompt::default()));
    assert_eq!(shown, plain);
    assert!(plain.isfinite().all().int64_value(&[]) == 1 && plain.kind() == Kind::Float);
}
