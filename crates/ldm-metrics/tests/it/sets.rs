//! Metrics of sets and structural similarity against torch-fidelity, prdc, scikit-image and pytorch-msssim;
//! `golden/generate_sets.py` made the files.

use ldm_core::device::test_device;
use ldm_metrics::{
    FeatureNetwork, FeatureStatistics, KernelDistance, Manifold, Origin, Retain, SetFeatures, SetMoments,
    inception_score, ms_ssim, ssim,
};
use ldm_testing::{Golden, assert_close};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::open_golden;

fn golden() -> (Golden, Value) {
    let golden = open_golden("sets.safetensors");
    let values = serde_json::from_str(golden.metadata("config")).unwrap();
    (golden, values)
}

#[track_caller]
fn near(name: &str, got: f64, values: &Value, tolerance: f64) {
    let want = values[name].as_f64().unwrap();
    assert!((got / want - 1.).abs() <= tolerance, "{name}: got {got}, want {want}");
}

fn statistics(features: &Tensor, batch: i64) -> FeatureStatistics {
    let mut statistics = FeatureStatistics::new(features.size()[1], features.device());
    for start in (0..features.size()[0]).step_by(batch as usize) {
        statistics.add(&features.narrow(0, start, batch.min(features.size()[0] - start)));
    }
    statistics
}

#[test]
fn frechet_distance_equals_torch_fidelity_and_adm_in_any_batches() {
    let (golden, values) = golden();
    let [real, made] = ["real", "made"].map(|name| golden.get(name));
    for batch in [1, 7, 500] {
        let [real, made] = [real, made].map(|set| statistics(set, batch).gaussian().unwrap());
        near("frechet_inception_distance", real.distance(&made).unwrap(), &values, 1e-6);
        near("frechet_inception_distance", made.distance(&real).unwrap(), &values, 1e-6);
        near("adm_fid", made.distance(&real).unwrap(), &values, 1e-6);
        assert!(real.distance(&real).unwrap().abs() < 1e-8);
    }
    let mut halves = statistics(&real.narrow(0, 0, 100), 100);
    halves.merge(&statistics(&real.narrow(0, 100, 160), 3));
    assert_eq!(halves.count(), 260);
    assert_close("covariance", &halves.covariance(), &statistics(real, 260).covariance(), 1e-12);
}

#[test]
fn moments_are_read_and_written_as_npz() {
    let (golden, _) = golden();
    let path = crate::golden("moments.npz");
    let want = statistics(golden.get("real"), 64).gaussian().unwrap();
    // ADM's format; its images are ignored.
    let read = SetMoments::read_npz(&path).unwrap();
    assert_close("mu", &read.pooled.mean, &want.mean.to_device(Device::Cpu), 1e-6);
    assert_close("sigma", &read.pooled.covariance, &want.covariance.to_device(Device::Cpu), 1e-6);
    let spatial = read.spatial.as_ref().unwrap();
    assert_eq!(spatial.covariance.size(), [5, 5]);
    assert_close("mu_s", &spatial.mean, &read.pooled.mean.narrow(0, 0, 5), 1e-6);
    assert_eq!(read.origin, Origin::default());
    // pytorch-fid's format, with compressed arrays.
    let packed = SetMoments::read_npz(crate::golden("moments_pytorch_fid.npz")).unwrap();
    assert_eq!(
        (&packed.pooled.mean, &packed.pooled.covariance),
        (&read.pooled.mean, &read.pooled.covariance)
    );
    assert!(packed.spatial.is_none());

    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.npz");
    let origin = Origin {
        features: Some("fünf".into()),
        images: Some(260),
        size: Some([48, 64]),
        resizer: Some("bicubic".into()),
        ..Origin::default()
    };
    let written = SetMoments { origin, ..read };
    written.write_npz(&own).unwrap();
    let again = SetMoments::read_npz(&own).unwrap();
    assert_eq!(
        (&again.pooled.mean, &again.pooled.covariance),
        (&written.pooled.mean, &written.pooled.covariance)
    );
    assert_eq!(again.spatial.as_ref().unwrap().covariance, written.spatial.as_ref().unwrap().covariance);
    assert_eq!(again.origin, written.origin);
    let (pooled, spatial) = again.frechet(&written).unwrap();
    assert!(pooled.abs() < 1e-8 && spatial.unwrap().abs() < 1e-8);
    SetMoments { spatial: None, origin: Origin::default(), ..written }.write_npz(&own).unwrap();
    let read = SetMoments::read_npz(&own).unwrap();
    assert!(
        read.spatial.is_none() && read.origin.images.is_none() && read.frechet(&again).unwrap().1.is_none()
    );

    let network = FeatureNetwork::named("random-vgg16", Device::Cpu).unwrap();
    let error = read.check(&network).unwrap_err().to_string();
    assert_eq!(error, "statistics: expected 512 features of random VGG16, mean of relu5_3, got 24");
    let error = again.check(&network).unwrap_err().to_string();
    assert_eq!(error, "statistics: expected features of random VGG16, mean of relu5_3, got fünf");
    std::fs::write(&own, b"PK no").unwrap();
    let error = SetMoments::read_npz(&own).unwrap_err().to_string();
    assert!(error.contains("own.npz: expected a readable .npz"), "{error}");
    assert!(SetMoments::read_npz(folder.path().join("none.npz")).is_err());
    let error = read.pooled.distance(&again.spatial.unwrap()).unwrap_err().to_string();
    assert!(error.ends_with("got 24 and 5"), "{error}");
    ldm_checkpoint::save_npz(&own, &[("mu".into(), Tensor::zeros([3], (Kind::Double, Device::Cpu)))])
        .unwrap();
    let error = SetMoments::read_npz(&own).unwrap_err().to_string();
    assert!(error.contains("own.npz: `sigma`"), "{error}");
}

#[test]
fn metrics_need_retained_features() {
    let network = FeatureNetwork::named("random-vgg16", test_device()).unwrap();
    let (golden, _) = golden();
    let images = golden.get("a").expand([2, 3, -1, -1], false).to_kind(Kind::Float) / 127.5 - 1.;
    let [real, made] = [0., 0.3].map(|more| (&images + more).clamp(-1., 1.));
    let gathered = |images: &Tensor, retain: Retain| {
        let mut set = SetFeatures::retaining(retain);
        let features = set.add(&network, images).unwrap();
        assert_eq!(features.size(), [2, network.size()]);
        set
    };
    let (mut all, mut other) = (gathered(&real, Retain::All), gathered(&made, Retain::All));
    let whole = all.distance(&other).unwrap();
    assert!(whole.frechet > 0. && whole.kernel.is_some());
    let moments = gathered(&real, Retain::Nothing).moments().unwrap();
    let less = moments.distance(&gathered(&made, Retain::Logits)).unwrap();
    assert_eq!((less.frechet, less.kernel, less.manifold), (whole.frechet, None, None));
    assert!(all.distance(&gathered(&made, Retain::Logits)).is_err());
    assert!(SetFeatures::default().moments().is_err());

    // Differences below 8 bits do not count.
    let finer = gathered(&(&real + 0.3 / 255.), Retain::All);
    assert_eq!(all.moments().unwrap().pooled.mean, finer.moments().unwrap().pooled.mean);
    let features = network.features(&made).unwrap().pooled;
    let near: Vec<f64> = Vec::try_from(all.nearest(&features).unwrap()).unwrap();
    let own: Vec<f64> = Vec::try_from(other.nearest(&features).unwrap()).unwrap();
    assert!(near.iter().all(|apart| *apart > 0.) && own == [0., 0.], "{near:?} {own:?}");
    assert!(gathered(&real, Retain::Nothing).nearest(&features).is_err());
    let error = FeatureNetwork::named("resnet", test_device()).unwrap_err().to_string();
    assert_eq!(
        error,
        "features: expected one of inception, efficientnet-lite0, vgg16, random-vgg16, got resnet"
    );
}

#[test]
fn kernel_distance_equals_torch_fidelity() {
    let (golden, values) = golden();
    let [real, made] = ["real", "made"].map(|name| golden.get(name));
    let all = KernelDistance { subsets: 1, size: 230, seed: 5 };
    let got = all.of(&real.narrow(0, 0, 230), made).unwrap();
    near("kernel_inception_distance_mean", got.mean(), &values, 1e-6);
    // Over subsets: reproducible, close to the whole, and different with another seed.
    let some = |seed| KernelDistance { subsets: 40, size: 100, seed }.of(real, made).unwrap();
    assert_eq!(some(1), some(1));
    assert_ne!(some(1), some(2));
    let (mean, std) = (some(1).mean(), some(1).std());
    assert!(
        std > 0. && (mean - got.mean()).abs() < 4. * std / 40_f64.sqrt() + 0.2 * got.mean(),
        "{mean} {std}"
    );
    // It nearly vanishes for two halves of one set. (Small features: the cube of large ones has heavy tails.)
    let half = KernelDistance { subsets: 40, size: 100, seed: 1 };
    let (real_small, made_small) = (real * 0.05, made * 0.05);
    let apart = half.of(&real_small, &made_small).unwrap().mean();
    let none = half.of(&real_small.narrow(0, 0, 130), &real_small.narrow(0, 130, 130)).unwrap().mean();
    assert!(none.abs() < 0.25 * apart, "{none} {apart}");
    let error = KernelDistance::default().of(real, made).unwrap_err().to_string();
    assert_eq!(error, "subsets: expected 2 to 230 images, the size of the smaller set, got 1000");
}

#[test]
fn manifolds_equal_torch_fidelity_adm_and_prdc() {
    let (golden, values) = golden();
    let [real, made] = ["real", "made"].map(|name| golden.get(name));
    let three = Manifold::of(real, made, 3).unwrap();
    near("precision", three.precision, &values, 1e-6);
    near("recall", three.recall, &values, 1e-6);
    near("adm_precision", three.precision, &values, 1e-6);
    near("adm_recall", three.recall, &values, 1e-6);
    let five = Manifold::of(real, made, 5).unwrap();
    near("precision_5", five.precision, &values, 1e-6);
    near("recall_5", five.recall, &values, 1e-6);
    near("density", five.density, &values, 1e-6);
    near("coverage", five.coverage, &values, 1e-6);
    let alike = Manifold::of(real, real, 3).unwrap();
    assert_eq!((alike.precision, alike.recall, alike.coverage), (1., 1., 1.));
    let error = Manifold::of(real, made, 230).unwrap_err().to_string();
    assert_eq!(error, "neighbors: expected 1 to 229, fewer than images in the smaller set, got 230");
    assert!(
        Manifold::of(real, &made.narrow(1, 0, 9), 3)
            .unwrap_err()
            .to_string()
            .starts_with("the second features")
    );
}

#[test]
fn inception_score_equals_torch_fidelity() {
    let (golden, values) = golden();
    let got = inception_score(golden.get("logits"), 4).unwrap();
    near("inception_score_mean", got.mean(), &values, 1e-10);
    near("inception_score_std", got.std() * 0.75_f64.sqrt(), &values, 1e-10);
    // Confident predictions, evenly over the classes, give the number of classes.
    let sure = Tensor::eye(7, (Kind::Float, test_device())).repeat([3, 1]) * 1e4;
    assert!((inception_score(&sure, 1).unwrap().mean() - 7.).abs() < 1e-9);
    assert!(inception_score(&sure, 22).is_err());
}

#[test]
fn structural_similarity_equals_scikit_image() {
    let (golden, _) = golden();
    let [a, b] = ["a", "b"].map(|name| golden.get(name).to_kind(Kind::Float) / 127.5 - 1.);
    assert_close("ssim", &ssim(&a, &b).unwrap(), golden.get("ssim"), 1e-7);
    assert_close("ms_ssim", &ms_ssim(&a, &b).unwrap(), golden.get("ms_ssim"), 1e-6);
    let one = Tensor::ones([2], (Kind::Double, test_device()));
    assert_close("equal", &ssim(&a, &a).unwrap(), &one, 1e-12);
    let small = a.narrow(2, 0, 160);
    let error = ms_ssim(&small, &small).unwrap_err().to_string();
    assert_eq!(error, "image: expected sides of at least 161 pixels for structural similarity, got 160x182");
    assert!(ssim(&a, &small).is_err());
}
