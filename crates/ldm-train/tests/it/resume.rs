//! Resuming: from an older checkpoint, with overrides, with other data.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ldm_core::device::test_device;
use ldm_train::{Event, Finished, RunConfig, TrainConfig, Trainer, TrainerBuilder};

use crate::open_trainer::{Waves, builder, train};
use crate::tiny::kl;
use crate::{config, lock_generator, run_to_end};

fn every_ten(root: &Path) -> TrainerBuilder {
    builder(TrainConfig { checkpoint_every: 10, keep: 2, ..train() }, root)
}

/// Runs to the end and returns the notes.
fn notes(trainer: &mut Trainer) -> Vec<String> {
    let mut notes = Vec::new();
    let finished = trainer.run(&AtomicBool::new(false), &mut |event| {
        if let Event::Note(note) = event {
            notes.push(note.to_owned());
        }
    });
    assert_eq!(finished.unwrap(), Finished::Done);
    notes
}

#[test]
fn a_run_goes_on_from_an_older_checkpoint_and_keeps_the_later_ones() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    run_to_end(
        &mut builder(TrainConfig { checkpoint_every: 10, keep: 9, ..train() }, &root).build().unwrap(),
    );
    let checkpoints = root.join("checkpoints");
    let model = |name: &str| std::fs::read(checkpoints.join(name).join("model.safetensors")).unwrap();
    let whole = model("step-0000040");

    let error = every_ten(&checkpoints.join("step-0000025")).resume().unwrap_err().to_string();
    assert!(error.contains("expected the step of a checkpoint, one of 10, 20, 30, 40, got 25"), "{error}");
    assert_eq!(every_ten(&root).resume().unwrap().state().step, 40, "a refused one changes nothing");

    let mut trainer = every_ten(&checkpoints.join("step-0000020")).resume().unwrap();
    assert_eq!((trainer.state().step, trainer.run_dir().root()), (20, root.as_path()));
    let notes = notes(&mut trainer);
    assert!(
        notes.iter().any(|note| note.contains("renamed to ") && note.contains("step-0000030.aside")),
        "{notes:?}"
    );
    drop(trainer);
    assert!(model("step-0000040") == whole && model("step-0000040.aside") == whole, "the same steps again");
    assert!(!checkpoints.join("step-0000020").exists(), "keep: 2 counts the new ones");
    let log = std::fs::read_to_string(root.join("metrics.jsonl")).unwrap();
    let steps: Vec<u64> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [10, 20, 30, 40]);

    drop(every_ten(&checkpoints.join("step-0000030/")).resume().unwrap());
    assert!(checkpoints.join("step-0000040.aside-2").exists(), "a second name");
}

#[test]
fn fewer_steps_than_were_taken_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    run_to_end(&mut builder(train(), &root).build().unwrap());
    let error = builder(TrainConfig { steps: 30, ..train() }, &root).resume().unwrap_err().to_string();
    let expected = "train.steps: expected at least 40, the steps taken, got 30; try an older checkpoint";
    assert!(error.contains(expected), "{error}");
}

fn overrides(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn keys_that_may_change_are_overridden_and_become_part_of_the_run() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    run_to_end(&mut Trainer::create(config(&kl(), &["train.steps=4"]), &root, test_device()).unwrap());
    let before = std::fs::read(root.join("config.yaml")).unwrap();
    for (key, value) in [
        ("train.seed", "4"),
        ("train.ema.decay", "0.5"),
        ("train.optimizer.eps", "1"),
        ("train", "{steps: 9}"),
        ("train.step", "9"),
        ("model.params.embed_dim", "8"),
        ("data.params.batch_size", "2"),
        ("data.params.train.params.count", "8"),
    ] {
        let error = Trainer::resume(&root, &overrides(&[&format!("{key}={value}")]), test_device());
        let error = error.unwrap_err().to_string();
        let expected = format!("{key}: expected a key that may change in a resumed run (train.steps, ");
        assert!(error.contains(&expected) && !error.contains('\n'), "{error}");
    }
    let error =
        Trainer::resume(&root, &overrides(&["train.steps=3"]), test_device()).unwrap_err().to_string();
    assert!(error.contains("train.steps: expected at least 4, the steps taken, got 3"), "{error}");
    let error =
        Trainer::resume(&root, &overrides(&["train.samples.eta=2"]), test_device()).unwrap_err().to_string();
    assert!(error.contains("train.samples.eta: expected a number in [0, 1], got 2"), "{error}");
    assert!(before == std::fs::read(root.join("config.yaml")).unwrap(), "refused overrides change nothing");

    let more = [
        "train.steps=8",
        "train.learning_rate=0.5",
        "train.log_every=1",
        "train.checkpoint_every=2",
        "train.keep=7",
        "train.samples.count=2",
        "train.tf32=true",
        "train.deterministic=true",
        "data.params.num_workers=1",
        "data.params.strict=true",
    ];
    let lines = run_to_end(&mut Trainer::resume(&root, &overrides(&more), test_device()).unwrap());
    let rates: Vec<f64> = lines.iter().map(|line| line["lr"]).collect();
    assert_eq!(rates.len(), 4);
    assert!(rates[0] > 0.4, "another learning rate, on its cosine: {rates:?}");
    let now = RunConfig::read(root.join("config.yaml"), &[]).unwrap();
    assert_eq!((now.train.steps, now.train.keep, now.data.num_workers), (8, 7, 1));
    assert!(root.join("checkpoints/step-0000006").exists());
}

#[test]
fn other_data_are_noted() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    run_to_end(&mut Trainer::create(config(&kl(), &["train.steps=4"]), &root, test_device()).unwrap());
    let same = notes(&mut Trainer::resume(&root, &[], test_device()).unwrap());
    assert!(same.is_empty(), "{same:?}");
    let path = root.join("config.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("count: 64"), "{text}");
    std::fs::write(&path, text.replace("count: 64", "count: 60")).unwrap();
    let other = notes(&mut Trainer::resume(&root, &[], test_device()).unwrap());
    assert!(
        other.iter().any(|note| note.contains("the data set is not the one the run began with")),
        "{other:?}"
    );
    // A builder notes it too; a dataset without a fingerprint of its own has that of its length and classes.
    let root = folder.path().join("custom");
    run_to_end(&mut builder(train(), &root).build().unwrap());
    let mut same = builder(train(), &root).data(Arc::new(Waves { random: false })).resume().unwrap();
    assert!(notes(&mut same).is_empty());
}
