//! PSNR against scikit-image, and in closed form.

use ldm_core::device::test_device;
use ldm_core::image::{from_rgb8, to_rgb8};
use ldm_metrics::{MeanStd, psnr, psnr_within};
use ldm_testing::{Golden, assert_close};
use tch::{Kind, Tensor};

fn golden() -> Golden {
    crate::open_golden("psnr.safetensors")
}

#[test]
fn equals_scikit_image() {
    let golden = golden();
    let got = psnr(golden.get("a"), golden.get("b"));
    assert_close("psnr", &got, golden.get("psnr"), 1e-12);
    assert_eq!(got.device(), test_device());
    // Independent of the batches.
    let mut sum = MeanStd::new();
    for part in [0..2, 2..5] {
        let of = |name: &str| golden.get(name).narrow(0, part.start, part.end - part.start);
        sum.add(&psnr(&of("a"), &of("b")));
    }
    assert_eq!(sum.count(), 5);
    for (name, value) in [("mean", sum.mean()), ("std", sum.std())] {
        let want = golden.get(name).double_value(&[]);
        assert!((value / want - 1.).abs() < 1e-12, "{name}: got {value}, want {want}");
    }
}

#[test]
fn closed_forms() {
    let level = 2. / 255.;
    let a = Tensor::full([3, 3, 4, 4], 100. * level - 1., (Kind::Float, test_device()));
    // Ten gray levels up, one up, a quarter up.
    let b = &a
        + Tensor::from_slice(&[10. * level, level, level / 4.]).to_device(test_device()).view([3, 1, 1, 1]);
    let got: Vec<f64> = Vec::try_from(psnr(&a, &b)).unwrap();
    assert!((got[0] - 20. * 25.5_f64.log10()).abs() < 1e-9, "{got:?}");
    assert!((got[1] - 20. * 255_f64.log10()).abs() < 1e-9, "{got:?}");
    assert_eq!(got[2], f64::INFINITY, "both would be saved as the same image");
    let got: Vec<f64> = Vec::try_from(psnr(&(&a - 2.), &(&a + 3.))).unwrap();
    assert!(got.iter().all(|value| value.abs() < 1e-9), "black against white, clamped: {got:?}");
}

#[test]
fn it_compares_the_saved_images() {
    let golden = golden();
    let saved =
        |name: &str| from_rgb8(&to_rgb8(&golden.get(name).get(3))).unsqueeze(0).to_device(test_device());
    let got = psnr(&saved("a"), &saved("b"));
    assert_close("psnr", &got, &golden.get("psnr").narrow(0, 3, 1), 1e-12);
}

#[test]
fn small_sets() {
    let mut sum = MeanStd::new();
    assert!(sum.mean().is_nan() && sum.std().is_nan());
    sum.add(&Tensor::from_slice(&[3_f32]));
    assert_eq!(sum.mean(), 3.);
    assert!(sum.std().is_nan());
    sum.add(&Tensor::from_slice(&[f64::INFINITY]));
    assert_eq!(sum.mean(), f64::INFINITY);
}

#[test]
fn a_mask_selects_the_pixels_that_count() {
    let golden = golden();
    let (a, b) = (golden.get("a"), golden.get("b"));
    let all = a.narrow(1, 0, 1).ones_like();
    assert_close("all", &psnr_within(a, b, &all), &psnr(a, b), 1e-12);
    // The left half alone, whatever is in the right one.
    let half = a.size()[3] / 2;
    let left = all.copy();
    let _ = left.narrow(3, half, a.size()[3] - half).fill_(0.);
    let want = psnr(&a.narrow(3, 0, half), &b.narrow(3, 0, half));
    assert_close("left", &psnr_within(a, b, &left), &want, 1e-12);
    let none = psnr_within(a, b, &all.zeros_like());
    assert_eq!(none.double_value(&[0]), f64::INFINITY);
}
