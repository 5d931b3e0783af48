//! LPIPS against taming-transformers, its weight formats, and the random trunk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ldm_checkpoint::{Checkpoint, Shapes};
use ldm_core::device::test_device;
use ldm_libtorch::tf32_scope;
use ldm_metrics::{Lpips, Trunk};
use ldm_testing::{Golden, assert_close, filled, shared_data};
use tch::{Kind, Tensor};

/// Names and shapes in taming-transformers.
fn shapes() -> Shapes {
    let mut shapes = Shapes::new();
    let mut from = 3;
    for (slice, layers, channels) in [
        (1, vec![0, 2], 64),
        (2, vec![5, 7], 128),
        (3, vec![10, 12, 14], 256),
        (4, vec![17, 19, 21], 512),
        (5, vec![24, 26, 28], 512),
    ] {
        for layer in layers {
            shapes.insert(format!("net.slice{slice}.{layer}.weight"), vec![channels, from, 3, 3]);
            shapes.insert(format!("net.slice{slice}.{layer}.bias"), vec![channels]);
            from = channels;
        }
        shapes.insert(format!("lin{}.model.1.weight", slice - 1), vec![1, channels, 1, 1]);
    }
    shapes
}

/// The weights of `generate_lpips.py`.
fn tensors() -> Vec<(String, Tensor)> {
    let change = |(name, value): (String, Tensor)| {
        let value = match () {
            () if name.starts_with("lin") => value.abs(),
            () if value.dim() == 4 => value * 2.,
            () => value,
        };
        (name, value)
    };
    filled(&shapes(), 3).into_iter().map(change).collect()
}

fn save(folder: &Path, name: &str, tensors: &[(String, Tensor)]) -> PathBuf {
    let path = folder.join(name);
    ldm_checkpoint::save(&path, tensors, &BTreeMap::new()).unwrap();
    path
}

fn golden() -> Golden {
    crate::open_golden("lpips.safetensors")
}

#[test]
fn equals_taming_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = tensors();
    // CompVis' file has it too.
    all.push(("scaling_layer.shift".into(), Tensor::zeros([1, 3, 1, 1], (Kind::Float, tch::Device::Cpu))));
    let path = save(folder.path(), "all.safetensors", &all);
    let lpips = Lpips::from_checkpoint(Checkpoint::open(path).unwrap(), test_device()).unwrap();
    assert_eq!(lpips.trunk(), Trunk::Published);

    let golden = golden();
    let [a, b] = ["a", "b"].map(|name| golden.get(name).set_requires_grad(true));
    let distance = {
        let _ignored = tf32_scope(true);
        lpips.distance(&a, &b)
    };
    assert_close("distance", &distance, golden.get("distance"), 1e-5);
    distance.sum(Kind::Float).backward();
    assert_close("gradient.a", &a.grad(), golden.get("gradient.a"), 1e-5);
    assert_close("gradient.b", &b.grad(), golden.get("gradient.b"), 1e-5);
}

#[test]
fn torchvision_and_heads_give_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (heads, net): (Vec<_>, Vec<_>) = tensors().into_iter().partition(|(name, _)| name.starts_with("lin"));
    let mut trunk: Vec<(String, Tensor)> = net
        .into_iter()
        .map(|(name, value)| {
            let (_, rest) = name.strip_prefix("net.slice").unwrap().split_once('.').unwrap();
            (format!("features.{rest}"), value)
        })
        .collect();
    trunk.push(("classifier.0.bias".into(), Tensor::zeros([2], (Kind::Float, tch::Device::Cpu))));
    let trunk = save(folder.path(), "trunk.safetensors", &trunk);
    let open = |path: &Path| Checkpoint::open(path).unwrap();
    let path = save(folder.path(), "heads.safetensors", &heads);
    let lpips = Lpips::load(open(&trunk), open(&path), test_device()).unwrap();
    let golden = golden();
    let distance = lpips.distance(golden.get("a"), golden.get("b"));
    assert_close("distance", &distance, golden.get("distance"), 1e-5);

    let mut renamed = heads;
    renamed.sort_by(|a, b| a.0.cmp(&b.0));
    renamed[0].0 = "lin7.model.1.weight".into();
    let path = save(folder.path(), "renamed.safetensors", &renamed);
    let error = Lpips::load(open(&trunk), open(&path), test_device()).unwrap_err().to_string();
    assert!(
        error.contains("missing: lin0.model.1.weight") && error.contains("lin7.model.1.weight"),
        "{error}"
    );
}

#[test]
fn the_published_heads_load() {
    let Some(data) = shared_data() else {
        println!("skipped: no folder of shared data (LDM_DATA)");
        return;
    };
    let heads = Checkpoint::open(data.join("weights/lpips_vgg_lin_v0.1.pth")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let trunk = tensors().into_iter().filter_map(|(name, value)| {
        let (_, rest) = name.strip_prefix("net.slice")?.split_once('.')?;
        Some((format!("features.{rest}"), value))
    });
    let trunk = save(folder.path(), "trunk.safetensors", &trunk.collect::<Vec<_>>());
    let lpips = Lpips::load(Checkpoint::open(trunk).unwrap(), heads, test_device()).unwrap();
    let golden = golden();
    let distance = lpips.distance(golden.get("a"), golden.get("b"));
    assert!(distance.gt(0.).all().int64_value(&[]) == 1, "the published heads are positive: {distance:?}");
}

#[test]
fn the_random_trunk_gives_a_reproducible_distance() {
    let golden = golden();
    let (a, b) = (golden.get("a"), golden.get("b"));
    let lpips = Lpips::random(test_device());
    assert_eq!(lpips.trunk(), Trunk::Random);
    let distance = lpips.distance(a, b);
    assert_eq!(lpips.distance(a, a).abs().max().double_value(&[]), 0.);
    assert_close("swapped", &lpips.distance(b, a), &distance, 1e-6);
    let values: Vec<f64> = Vec::try_from(distance.to_kind(Kind::Double)).unwrap();
    assert!(
        values[0] > 0. && values[0] < values[1] && values[1] < values[2],
        "more noise is farther: {values:?}"
    );
    assert!(values[2] > 0.1 && values[2] < 10., "five outputs, each of at most 2: {values:?}");
    assert_eq!(Lpips::random(test_device()).distance(a, b), distance);
}

#[test]
fn flat_images_have_gradients() {
    // All channels may be zero at a position; CompVis' gradient is NaN there.
    let folder = tempfile::tempdir().unwrap();
    let mut all = tensors();
    for (name, value) in &mut all {
        if name.ends_with("bias") {
            *value = value.full_like(-1e3);
        }
    }
    let path = save(folder.path(), "dead.safetensors", &all);
    let lpips = Lpips::from_checkpoint(Checkpoint::open(path).unwrap(), test_device()).unwrap();
    let a = Tensor::zeros([1, 3, 16, 16], (Kind::Float, test_device())).set_requires_grad(true);
    lpips.distance(&a, &(&a.detach() + 0.5)).sum(Kind::Float).backward();
    assert_eq!(a.grad().abs().max().double_value(&[]), 0.);
}

#[test]
fn small_images_are_refused() {
    assert!(Lpips::check_size([16, 20]).is_ok());
    let error = Lpips::check_size([16, 15]).unwrap_err().to_string();
    assert_eq!(error, "image: expected at least 16x16 for the perceptual loss, got 16x15");
}
