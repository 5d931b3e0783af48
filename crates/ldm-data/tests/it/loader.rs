//! The loader: the same batches for any number of workers and from any start.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ldm_core::device::test_device;
use ldm_core::{Error, Result};
use ldm_data::{Batch, Dataset, Example, Info, Loader, LoaderConfig, Peek, Position};
use proptest::prelude::*;
use tch::Device;

/// Images of one pixel that hold their index and their seed; some cannot be read, one panics.
#[derive(Default)]
struct Probe {
    len: usize,
    bad: Vec<usize>,
    panics: Option<usize>,
    made: AtomicUsize,
}

impl Dataset for Probe {
    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize, seed: u64) -> Result<Example> {
        self.made.fetch_add(1, Ordering::Relaxed);
        assert_ne!(Some(index), self.panics, "image {index} panics");
        if self.bad.contains(&index) {
            return Err(Error::data(format!("{index}.png"), "expected an image, got an empty file"));
        }
        Ok(Example {
            class: Some(index as i64),
            name: format!("{index}.png"),
            ..Example::new(vec![index as f32, (seed % 1000) as f32, 0.], [3, 1, 1])
        })
    }
}

fn probe(len: usize, bad: &[usize]) -> Arc<Probe> {
    Arc::new(Probe { len, bad: bad.to_vec(), ..Probe::default() })
}

fn config(batch_size: usize, workers: usize) -> LoaderConfig {
    LoaderConfig { workers, ..LoaderConfig::new(batch_size, 5) }
}

fn content(batch: &Batch) -> (Vec<String>, Vec<f32>) {
    (batch.names.clone(), Vec::try_from(batch.images.flatten(0, -1)).unwrap())
}

fn take(loader: &mut Loader, count: usize) -> Vec<(Vec<String>, Vec<f32>)> {
    loader.take(count).map(|batch| content(&batch.unwrap())).collect()
}

const START: Position = Position { epoch: 0, batch: 0 };

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn batches_do_not_depend_on_workers_or_start(
        len in 4usize..40, batch_size in 1usize..5, prefetch in 1usize..6, seed: u64, bad in 0usize..40,
    ) {
        let dataset = probe(len, &[bad]);
        let config = |workers| LoaderConfig { seed, prefetch, ..config(batch_size, workers) };
        let mut plain = Loader::new(dataset.clone(), config(0), START).unwrap();
        let expected = take(&mut plain, 24);
        for workers in [1, 2, 5] {
            let mut loader = Loader::new(dataset.clone(), config(workers), START).unwrap();
            let first = take(&mut loader, 9);
            prop_assert_eq!(&first[..], &expected[..9]);
            let mut resumed = Loader::new(dataset.clone(), config(workers), loader.position()).unwrap();
            prop_assert_eq!(&take(&mut resumed, 15)[..], &expected[9..]);
            prop_assert_eq!(resumed.position(), plain.position());
            prop_assert_eq!(&take(&mut loader, 15)[..], &expected[9..]);
            prop_assert_eq!(loader.skipped(), plain.skipped());
        }
    }
}

#[test]
fn a_custom_dataset_has_defaults() {
    let (set, other) = (probe(10, &[]), probe(11, &[]));
    let peek = Peek { name: "3.png".to_owned(), size: [1, 1], class: Some(3), caption: None };
    assert_eq!((set.name(), set.peek(3).unwrap(), set.classes().len()), ("Probe".to_owned(), peek, 0));
    assert_eq!((set.fingerprint().len(), set.fingerprint() == other.fingerprint()), (64, false));
    let without = set.without_image(3, 0).unwrap();
    assert_eq!((without.image.len(), without.name), (0, "3.png".to_owned()));
    assert_eq!(Info::of(&*set, 100).sizes, [([1, 1], 10)], "without names of classes");
}

#[test]
fn epochs_differ_in_order_and_seeds() {
    let mut loader = Loader::new(probe(8, &[]), config(8, 0), START).unwrap();
    let epochs = take(&mut loader, 2);
    let sorted = |(names, _): &(Vec<String>, Vec<f32>)| {
        let mut names = names.clone();
        names.sort();
        names
    };
    assert_eq!(sorted(&epochs[0]), sorted(&epochs[1]));
    assert_ne!(epochs[0].0, epochs[1].0);
    let seed_of = |epoch: usize, name: &str| {
        let place = epochs[epoch].0.iter().position(|each| each == name).unwrap();
        epochs[epoch].1[3 * place + 1]
    };
    let same = (0..8).map(|k| format!("{k}.png")).filter(|name| seed_of(0, name) == seed_of(1, name)).count();
    assert!(same < 3, "{same} of 8 images have the same seed in both epochs");
}

/// On CUDA, batches are in pinned memory.
#[test]
fn batches_for_a_device_are_the_same() {
    for workers in [0, 2] {
        let batches = |device| {
            let config = LoaderConfig { device, ..config(3, workers) };
            take(&mut Loader::new(probe(10, &[4]), config, START).unwrap(), 5)
        };
        assert_eq!(batches(test_device()), batches(Device::Cpu));
    }
}

#[test]
fn positions_count_batches_and_epochs() {
    let mut loader = Loader::new(probe(10, &[]), config(4, 2), Position { epoch: 3, batch: 1 }).unwrap();
    assert_eq!(loader.batches(), 2);
    assert_eq!(loader.position(), Position { epoch: 3, batch: 1 });
    loader.next().unwrap().unwrap();
    assert_eq!(loader.position(), Position { epoch: 4, batch: 0 });
}

#[test]
fn a_bad_image_is_replaced_and_named() {
    let mut loader = Loader::new(probe(12, &[3, 7]), config(4, 2), START).unwrap();
    for (names, _) in take(&mut loader, 3) {
        assert_eq!(names.len(), 4);
        assert!(!names.iter().any(|name| name == "3.png" || name == "7.png"));
    }
    let skipped: Vec<_> = loader.skipped().iter().map(|(index, why)| (*index, why.as_str())).collect();
    assert_eq!(
        skipped,
        [
            (3, "3.png: expected an image, got an empty file"),
            (7, "7.png: expected an image, got an empty file")
        ]
    );
}

#[test]
fn strict_refuses_a_bad_image() {
    for workers in [0, 2] {
        let config = LoaderConfig { strict: true, shuffle: false, ..config(4, workers) };
        let mut loader = Loader::new(probe(12, &[5]), config, START).unwrap();
        assert!(loader.next().unwrap().is_ok());
        assert_eq!(
            loader.next().unwrap().unwrap_err().to_string(),
            "5.png: expected an image, got an empty file"
        );
        assert!(loader.next().unwrap().is_ok());
    }
}

#[test]
fn a_dataset_of_bad_images_is_refused() {
    let mut loader = Loader::new(probe(4, &[0, 1, 2, 3]), config(2, 1), START).unwrap();
    let error = loader.next().unwrap().unwrap_err().to_string();
    assert!(
        error.starts_with("Probe: expected a readable image, got 32 in a row that are not, the last "),
        "{error}"
    );
}

#[test]
fn one_pass_gives_each_readable_image_once() {
    for workers in [0, 1, 3] {
        let config = LoaderConfig { shuffle: false, ..config(3, workers) };
        let mut loader = Loader::one_pass(probe(10, &[4, 6, 7, 8]), config).unwrap();
        let names: Vec<_> = loader.by_ref().map(|batch| batch.unwrap().names.join(" ")).collect();
        // The third batch is empty, and skipped.
        assert_eq!(names, ["0.png 1.png 2.png", "3.png 5.png", "9.png"]);
        assert_eq!(loader.skipped().keys().copied().collect::<Vec<_>>(), [4, 6, 7, 8]);
        assert!(loader.next().is_none());
    }
}

#[test]
fn the_head_of_a_dataset_ends_in_a_smaller_batch() {
    for (count, want) in
        [(0, vec![]), (3, vec![3]), (4, vec![3, 1]), (7, vec![3, 2, 2]), (99, vec![3, 2, 3, 1])]
    {
        let config = LoaderConfig { shuffle: false, ..config(3, 1) };
        let batches: Vec<Batch> =
            Loader::one_pass(probe(10, &[4]), config).unwrap().head(count).map(Result::unwrap).collect();
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.names.len()).collect();
        assert_eq!(sizes, want);
        for batch in &batches {
            let size = batch.names.len() as i64;
            assert_eq!((batch.images.size()[0], batch.prompt.batch()), (size, Some(size)));
            assert_eq!(batch.crops.len() as i64, size);
            let class = Vec::<i64>::try_from(batch.prompt.class.as_ref().unwrap()).unwrap();
            assert_eq!(class.iter().map(|k| format!("{k}.png")).collect::<Vec<_>>(), batch.names);
        }
    }
}

#[test]
fn ranks_share_one_pass_even_if_some_get_nothing() {
    let names = |rank| {
        let config = LoaderConfig { rank, world: 3, ..config(2, 1) };
        let loader = Loader::one_pass(probe(7, &[]), config).unwrap();
        loader.flat_map(|batch| batch.unwrap().names).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = (0..3).flat_map(names).collect();
    all.sort();
    assert_eq!(all, (0..7).map(|k| format!("{k}.png")).collect::<Vec<_>>());
}

#[test]
fn a_panic_becomes_an_error_and_the_loader_continues() {
    for workers in [0, 2] {
        let dataset = Arc::new(Probe { len: 6, panics: Some(2), ..Probe::default() });
        let config = LoaderConfig { shuffle: false, ..config(2, workers) };
        let mut loader = Loader::new(dataset, config, START).unwrap();
        assert!(loader.next().unwrap().is_ok());
        let error = loader.next().unwrap().unwrap_err().to_string();
        assert!(
            error.starts_with("Probe: building batch 1 panicked: ") && error.contains("image 2 panics"),
            "{error}"
        );
        assert!(loader.next().unwrap().is_ok());
    }
}

#[test]
fn prefetching_is_bounded_and_ends_with_the_loader() {
    let dataset = probe(1000, &[]);
    let mut loader =
        Loader::new(dataset.clone(), LoaderConfig { prefetch: 3, ..config(10, 4) }, START).unwrap();
    take(&mut loader, 2);
    drop(loader);
    let made = dataset.made.load(Ordering::Relaxed);
    assert!((20..=50).contains(&made), "{made} images made for 2 batches of 10 with 3 ahead");
    assert_eq!(Arc::strong_count(&dataset), 1, "every thread is gone");
}

#[test]
fn invalid_configs_are_refused() {
    let check = |len: usize, config: LoaderConfig, start: Position, expected: &str| {
        let error = Loader::new(probe(len, &[]), config, start).unwrap_err().to_string();
        assert_eq!(error, format!("loader: {expected}"));
    };
    check(
        5,
        config(8, 0),
        START,
        "expected at least one step of 8 images on 1 ranks, got 5 images; try a smaller batch size or drop_last: false",
    );
    check(5, config(0, 0), START, "expected batch_size and world of at least 1, got 0 and 1");
    let rank = |rank, drop_last| LoaderConfig { rank, world: 2, drop_last, ..config(4, 0) };
    check(50, rank(2, true), START, "expected rank below world, got 2 of 2");
    check(
        17,
        rank(0, false),
        START,
        "expected an image for each of 2 ranks in the last step of an epoch, got 1; try drop_last: true",
    );
    let late = Position { epoch: 0, batch: 3 };
    check(
        12,
        config(4, 0),
        late,
        "expected to start at a batch below 3, which an epoch of this dataset has, got 3",
    );
    assert!(Loader::new(probe(5, &[]), LoaderConfig { drop_last: false, ..config(8, 0) }, START).is_ok());
}
