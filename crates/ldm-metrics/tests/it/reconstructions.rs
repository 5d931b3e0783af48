//! Reconstruction metrics in batches equal the metrics of the whole set.

use ldm_metrics::{FeatureNetwork, Lpips, MeanStd, Reconstructions, SetFeatures, psnr, ssim};
use tch::{Device, Kind, Tensor};

#[test]
fn batches_add_up_to_the_metrics_of_the_set() {
    let device = Device::Cpu;
    ldm_libtorch::set_seed(1);
    let images = Tensor::rand([5, 3, 32, 32], (Kind::Float, device)) * 2. - 1.;
    // Partly brighter than white: clamped as on saving.
    let made = &images + Tensor::randn([5, 3, 32, 32], (Kind::Float, device)) * 0.3;
    let lpips = Lpips::random(device);
    let network = || FeatureNetwork::named("random-vgg16", device).unwrap();
    let mut measured = Reconstructions::new(Lpips::random(device), network());
    let mut decibels = Vec::new();
    for (start, count) in [(0, 2), (2, 3)] {
        let part = |of: &Tensor| of.narrow(0, start, count);
        decibels.push(measured.add(&part(&made), &part(&images)).unwrap());
    }
    let cut = made.clamp(-1., 1.);
    let whole = |values: &Tensor| {
        let mut sum = MeanStd::new();
        sum.add(values);
        sum
    };
    let close = |a: &MeanStd, b: &MeanStd| {
        assert_eq!(a.count(), 5);
        assert!((a.mean() - b.mean()).abs() < 1e-6 * b.mean().abs(), "{} {}", a.mean(), b.mean());
        assert!((a.std() - b.std()).abs() < 1e-5 * b.mean().abs(), "{} {}", a.std(), b.std());
    };
    assert_eq!(Tensor::cat(&decibels, 0), psnr(&made, &images));
    close(&measured.psnr, &whole(&psnr(&cut, &images)));
    close(&measured.ssim, &whole(&ssim(&cut, &images).unwrap()));
    close(&measured.lpips_distance, &whole(&lpips.distance(&cut, &images)));
    assert_eq!(measured.count(), 5);
    let [mut real, mut back] = [(); 2].map(|()| SetFeatures::default());
    let _ = real.add(&network(), &images).unwrap();
    let _ = back.add(&network(), &cut).unwrap();
    let want = real.distance(&back).unwrap().frechet;
    let (frechet, spatial) = measured.frechet().unwrap();
    assert!((frechet - want).abs() < 1e-4 * want && spatial.is_none(), "{frechet} {want}");
    assert!(frechet > 0. && measured.psnr.mean() < 20.);
}
