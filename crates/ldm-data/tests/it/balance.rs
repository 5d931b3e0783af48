//! Groups of images that are drawn equally often.

use std::collections::BTreeMap;

use ldm_data::{Loader, LoaderConfig, Position};

use crate::image_folder::ImageFolder;

fn folder() -> ImageFolder {
    ImageFolder::new(&["a1", "a2", "a3", "a4", "b", "c"])
        .with("groups.tsv", "key\tbase\na1\ta\na2\ta\na3\ta\na4\ta\nb\tb\nc\tc\nabsent\tc\n")
}

const BALANCE: &str = "balance: {file: groups.tsv, name: key, group: base}";

#[test]
fn groups_are_drawn_equally_often_in_training_and_each_image_once_in_one_pass() {
    let folder = folder();
    let set = folder.open(BALANCE);
    assert_eq!(set.weights(), Some(&[0.25, 0.25, 0.25, 0.25, 1., 1.][..]));
    let config = LoaderConfig { workers: 0, ..LoaderConfig::new(3, 5) };
    let mut counts = BTreeMap::<String, i32>::new();
    for batch in Loader::new(set.clone(), config.clone(), Position::default()).unwrap().take(200) {
        for name in batch.unwrap().names {
            *counts.entry(name).or_default() += 1;
        }
    }
    let drawn = |name: &str| counts[&format!("{name}.png")];
    assert_eq!((drawn("b"), drawn("c")), (200, 200), "{counts:?}");
    assert_eq!(["a1", "a2", "a3", "a4"].map(drawn).iter().sum::<i32>(), 200);
    assert!(["a1", "a2", "a3", "a4"].map(drawn).iter().all(|&count| (30..70).contains(&count)), "{counts:?}");

    let mut once: Vec<_> =
        Loader::one_pass(set, config).unwrap().flat_map(|batch| batch.unwrap().names).collect();
    once.sort();
    assert_eq!(once, ["a1.png", "a2.png", "a3.png", "a4.png", "b.png", "c.png"]);
}

#[test]
fn a_resumed_loader_draws_what_it_would_have_drawn() {
    let folder = folder();
    let set = folder.open(BALANCE);
    let names = |start: Position, count: usize| -> Vec<Vec<String>> {
        let loader = Loader::new(set.clone(), LoaderConfig::new(2, 5), start).unwrap();
        loader.take(count).map(|batch| batch.unwrap().names).collect()
    };
    assert_eq!(names(Position::default(), 9)[4..], names(Position { epoch: 1, batch: 1 }, 5));
}

#[test]
fn wrong_groups_are_refused() {
    let set = folder()
        .with("missing.tsv", "key\tbase\na1\ta\na2\ta\nb\tb\n")
        .with("twice.tsv", "key\tbase\na1\ta\na1\tb\n");
    set.check_refused(
        "balance: {file: missing.tsv, name: key, group: base}",
        "ROOT/missing.tsv: expected a group of every image, got none for 3 of 6, e.g. a3.png",
    );
    set.check_refused(
        "balance: {file: twice.tsv, name: key, group: base}",
        "ROOT/twice.tsv: expected one group of a1, got 2",
    );
    set.check_refused(
        &format!("{BALANCE}, shards_by_rank: true"),
        "balance: expected shards_by_rank: false, got true",
    );
}
