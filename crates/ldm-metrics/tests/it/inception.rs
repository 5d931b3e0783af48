//! Inception against torch-fidelity's; `golden/generate_inception.py` made the files.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::{Checkpoint, Shapes};
use ldm_core::device::test_device;
use ldm_metrics::Inception;
use ldm_testing::{assert_close, filled};
use tch::{Kind, Tensor};

use crate::{golden, open_golden};

/// The names and shapes of torch-fidelity's network.
fn shapes() -> Shapes {
    let text = std::fs::read_to_string(golden("inception_manifest.txt")).unwrap();
    let line = |line: &str| {
        let (name, shape) = line.split_once(' ').unwrap();
        (name.to_owned(), shape.split(',').map(|side| side.parse().unwrap()).collect())
    };
    text.lines().map(line).collect()
}

/// Writes a file with the weights of the golden file, and the additional tensors of pytorch-fid's.
fn save(path: &Path) {
    let mut tensors: Vec<(String, Tensor)> = filled(&shapes(), 4)
        .into_iter()
        .map(|(name, tensor)| {
            let tensor = match tensor.dim() {
                4 => tensor * 2.,
                _ if name.ends_with("running_var") => tensor.abs() + 0.5,
                _ => tensor,
            };
            (name, tensor)
        })
        .collect();
    tensors.push(("fc.bias".into(), Tensor::ones([1008], (Kind::Float, tch::Device::Cpu))));
    let counter = Tensor::from_slice(&[0_i64]).squeeze();
    tensors.push(("Mixed_5b.branch1x1.bn.num_batches_tracked".into(), counter));
    ldm_checkpoint::save(path, &tensors, &BTreeMap::new()).unwrap();
}

#[test]
fn equals_torch_fidelity() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inception.safetensors");
    save(&path);
    let net = Inception::load(Checkpoint::open(&path).unwrap(), test_device()).unwrap();
    let golden = open_golden("inception.safetensors");
    let _ignored = ldm_libtorch::tf32_scope(true);
    let large = golden.get("coarse").upsample_bicubic2d([310, 301], false, None, None) * 255.;
    for (name, bytes) in
        [("small", golden.get("small").to_kind(Kind::Float)), ("large", large.round().clamp(0., 255.))]
    {
        let got = net.features(&(bytes / 127.5 - 1.)).unwrap();
        for (what, got) in [("pooled", &got.pooled), ("spatial", &got.spatial), ("logits", &got.logits)] {
            let want = golden.get(&format!("{name}_{what}"));
            assert_close(what, got, want, 1e-5);
            // The difference of two images too: most features are similar for all images.
            let apart = |x: &Tensor| x.get(0) - x.get(1);
            assert_close(what, &apart(got), &apart(want), 1e-4);
        }
    }
    let error =
        net.features(&Tensor::zeros([3, 8, 8], (Kind::Float, test_device()))).unwrap_err().to_string();
    assert_eq!(error, "images: expected shape [B, 3, H, W], got [3, 8, 8]");
}
