//! EfficientNet-lite0 against the Python package; `golden/generate_efficientnet.py` made the files.

use std::collections::BTreeMap;

use ldm_checkpoint::{Checkpoint, Shapes};
use ldm_core::device::test_device;
use ldm_metrics::{EfficientNet, FeatureNetwork};
use ldm_testing::{assert_close, filled};
use tch::{Kind, Tensor};

use crate::{golden, open_golden};

/// The network with the weights of the golden file.
fn network() -> EfficientNet {
    let text = std::fs::read_to_string(golden("efficientnet_manifest.txt")).unwrap();
    let line = |line: &str| {
        let (name, shape) = line.split_once(' ').unwrap();
        (name.to_owned(), shape.split(',').map(|side| side.parse().unwrap()).collect())
    };
    let shapes: Shapes = text.lines().map(line).collect();
    let scaled = |(name, tensor): (String, Tensor)| {
        let tensor = match tensor.dim() {
            4 => tensor * 1.5,
            _ if name.ends_with("running_var") => tensor.abs() + 0.5,
            _ => tensor,
        };
        (name, tensor)
    };
    let mut tensors: Vec<(String, Tensor)> = filled(&shapes, 4).into_iter().map(scaled).collect();
    let cpu = (Kind::Float, tch::Device::Cpu);
    // What the file has and the features do not need.
    tensors.push(("_fc.weight".into(), Tensor::ones([1000, 1280], cpu)));
    tensors.push(("_fc.bias".into(), Tensor::ones([1000], cpu)));
    tensors.push(("_bn0.num_batches_tracked".into(), Tensor::from_slice(&[0_i64]).squeeze()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("efficientnet.safetensors");
    ldm_checkpoint::save(&path, &tensors, &BTreeMap::new()).unwrap();
    EfficientNet::load(Checkpoint::open(&path).unwrap(), test_device()).unwrap()
}

#[test]
fn equals_the_python_package() {
    let (net, golden) = (network(), open_golden("efficientnet.safetensors"));
    let _ignored = ldm_libtorch::tf32_scope(true);
    let large = golden.get("large").upsample_bicubic2d([310, 301], false, None, None) * 255.;
    for (name, bytes) in
        [("small", golden.get("small").to_kind(Kind::Float)), ("large", large.round().clamp(0., 255.))]
    {
        let got = net.features(&(bytes / 127.5 - 1.)).unwrap();
        let want = golden.get(&format!("{name}_features"));
        assert_close(name, &got, want, 1e-5);
        // The difference of two images too: most features are similar for all images.
        let apart = |x: &Tensor| x.get(0) - x.get(1);
        assert_close(name, &apart(&got), &apart(want), 1e-4);
    }
    let error =
        net.features(&Tensor::zeros([3, 8, 8], (Kind::Float, test_device()))).unwrap_err().to_string();
    assert_eq!(error, "images: expected shape [B, 3, H, W], got [3, 8, 8]");
}

#[test]
fn sets_have_features_of_1280_numbers_and_no_others() {
    let net = FeatureNetwork::EfficientNet(Box::new(network()));
    let features = net.features(&Tensor::rand([2, 3, 16, 16], (Kind::Float, test_device())));
    let features = features.unwrap();
    assert_eq!((net.size(), features.pooled.size()), (1280, vec![2, 1280]));
    assert!(features.spatial.is_none() && features.logits.is_none());
    assert_eq!(net.name(), "EfficientNet-lite0, mean of the last features");
}
