//! Parts and whole degradations against CompVis' own code (`tests/golden/generate_degradation.py`).

use image::RgbImage;
use ldm_testing::{Golden, assert_close};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::jpeg::jpeg_round_trip;
use super::kernel::{Blur, Kernel};
use super::matlab_halving::halved;
use super::noise::{Noise, covariance, factor};
use super::plan::{DegradationStep, Halving};
use super::{DegradationPlan, Strength};
use crate::image::cv_resize::float_image;
use crate::image::float_image::FloatImage;
use crate::image::interpolation::OpenCv;
use crate::rng::Rng;

fn golden(name: &str) -> Golden {
    Golden::open(format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR")), Device::Cpu)
}

fn floats(tensor: &Tensor) -> FloatImage {
    let size = tensor.size();
    let values = Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap();
    FloatImage { width: size[1] as usize, height: size[0] as usize, values }
}

fn image(tensor: &Tensor) -> RgbImage {
    let size = tensor.size();
    let raw = Vec::<u8>::try_from(tensor.flatten(0, -1)).unwrap();
    RgbImage::from_raw(size[1] as u32, size[0] as u32, raw).unwrap()
}

fn tensor(image: &FloatImage) -> Tensor {
    Tensor::from_slice(&image.values).view([image.height as i64, image.width as i64, 3])
}

fn check_kernel(name: &str, kernel: &Kernel, expected: &Tensor) {
    let side = kernel.side as i64;
    assert_close(name, &Tensor::from_slice(&kernel.weights).view([side, side]), expected, 1e-9);
}

fn numbers(name: &str) -> Vec<f64> {
    // Every second part is a fraction: "5.0.3" is a side of 5 and a sigma of 0.3.
    let parts: Vec<&str> = name.split('.').collect();
    let mut numbers = vec![parts[0].parse().unwrap()];
    numbers.extend(parts[1..].chunks(2).map(|pair| pair.join(".").parse::<f64>().unwrap()));
    numbers
}

#[test]
fn kernels_and_blurs_are_the_references() {
    let golden = golden("degradation");
    let small = floats(golden.get("small"));
    let mut count = 0;
    for (name, expected) in golden.scope("round.") {
        let [side, sigma] = numbers(&name)[..] else { panic!("{name}") };
        let kernel = Blur::Round { side: side as usize, sigma }.kernel();
        check_kernel(&name, &kernel, &expected);
        let blurred = golden.get(&format!("round_blurred.{name}"));
        assert_close(&name, &tensor(&kernel.convolve(&small)), blurred, 1e-6);
        count += 1;
    }
    for (name, expected) in golden.scope("long.") {
        let [side, angle, along, across] = numbers(&name)[..] else { panic!("{name}") };
        let kernel = Blur::Long { side: side as usize, angle, spread: [along, across] }.kernel();
        check_kernel(&name, &kernel, &expected);
        let blurred = golden.get(&format!("long_blurred.{name}"));
        assert_close(&name, &tensor(&kernel.convolve(&small)), blurred, 1e-6);
        count += 1;
    }
    for (name, expected) in golden.scope("shifted.") {
        check_kernel(&name, &Kernel::round(25, 1.4).shifted(name.parse().unwrap()), &expected);
        count += 1;
    }
    assert_eq!(count, 11);
}

#[test]
fn a_kernel_too_narrow_for_a_float_is_a_point() {
    for kernel in [Kernel::round(7, 1e-9), Kernel::round(6, 1e-3), Kernel::long(6, 0.3, [0., 0.])] {
        assert!((kernel.weights.iter().sum::<f64>() - 1.).abs() < 1e-12, "{kernel:?}");
    }
    assert_eq!(Kernel::round(7, 0.).weights[24], 1.);
}

#[test]
fn floats_are_resized_as_opencv_and_matlab_do() {
    let cv = golden("cv_resize");
    let source = FloatImage::of(&image(cv.get("source")));
    let mut count = 0;
    for (way, kind) in [("bilinear", OpenCv::Linear), ("bicubic", OpenCv::Cubic), ("area", OpenCv::Area)] {
        for (size, expected) in cv.scope(&format!("f32.{way}.")) {
            let [height, width, _] = expected.size()[..] else { panic!("{size}") };
            let resized = float_image(&source, width as usize, height as usize, kind);
            assert_close(&format!("{way} to {size}"), &tensor(&resized), &expected, 1e-6);
            count += 1;
        }
    }
    assert_eq!(count, 9);
    let golden = golden("degradation");
    let half = halved(&floats(golden.get("small")));
    assert_close("halved", &tensor(&half), golden.get("halved"), 1e-6);
}

#[test]
fn noise_has_the_references_covariance() {
    let golden = golden("degradation");
    let cases = golden.scope("noise.");
    assert_eq!(cases.len(), 6);
    for (name, case) in cases {
        let row = |k: i64| {
            let values = Vec::<f64>::try_from(case.get(k)).unwrap();
            [values[0], values[1], values[2]]
        };
        let made = covariance(row(10)[0], row(0), &[row(1), row(2), row(3)]);
        let flat = |matrix: &[[f64; 3]; 3]| Tensor::from_slice(matrix.as_flattened()).view([3, 3]);
        assert_close(&name, &flat(&made), &case.narrow(0, 4, 3), 1e-9);
        let factor = flat(&factor(&made));
        assert_close(&name, &factor.tr().matmul(&factor), &case.narrow(0, 7, 3), 1e-9);
    }
}

#[test]
fn noise_is_what_its_plan_says() {
    let gray = FloatImage { width: 100, height: 100, values: vec![0.5; 30_000] };
    let of = |noise: Noise| {
        let mut rng = Rng::of(&[5]);
        let noisy = noise.add(gray.clone(), super::noise::normals(&mut rng));
        (tensor(&noisy).to_kind(Kind::Double) - 0.5).view([-1, 3])
    };
    let covariance = |noise: &Tensor| noise.tr().matmul(noise) / 10_000.;
    let color = covariance(&of(Noise::Color { sigma: 0.05 }));
    assert_close("color", &color, &(Tensor::eye(3, (Kind::Double, Device::Cpu)) * 0.0025), 0.05);
    let gray = of(Noise::Gray { sigma: 0.05 });
    assert_close("gray", &gray.select(1, 0), &gray.select(1, 2), 1e-12);
    let wanted = [[0.0025, 0.001, 0.0002], [0.001, 0.002, 0.0005], [0.0002, 0.0005, 0.001]];
    let correlated = covariance(&of(Noise::Correlated { factor: factor(&wanted) }));
    assert_close("correlated", &correlated, &Tensor::from_slice(wanted.as_flattened()).view([3, 3]), 0.05);
}

/// The mean difference in gray levels, and the largest.
fn difference(a: &RgbImage, b: &RgbImage) -> (f64, u8) {
    assert_eq!(a.dimensions(), b.dimensions());
    let apart = || a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b));
    (apart().map(f64::from).sum::<f64>() / a.as_raw().len() as f64, apart().max().unwrap())
}

/// Apart in the mean by 0.001 gray levels at quality 30, 0.008 at 60, 0.02 at 80 and 0.04 at 95, where JPEG itself
/// costs 5 to 7: where a cosine is between two steps, libjpeg's weights of 13 bits may choose the other.
#[test]
fn jpeg_is_libjpegs_to_a_fraction_of_a_level() {
    let golden = golden("degradation");
    let source = image(golden.get("photo"));
    let source = image::imageops::crop_imm(&source, 0, 0, 59, 51).to_image();
    for (quality, expected) in golden.scope("jpeg.") {
        let (expected, quality) = (image(&expected), quality.parse().unwrap());
        let (mean, _) = difference(&jpeg_round_trip(&source, quality), &expected);
        let loss = difference(&source, &expected).0;
        assert!(mean < 0.05 && loss > 100. * mean, "quality {quality}: {mean}, of a loss of {loss}");
    }
}

fn kind(value: &Value) -> OpenCv {
    match value.as_str().unwrap() {
        "linear" => OpenCv::Linear,
        "cubic" => OpenCv::Cubic,
        "area" => OpenCv::Area,
        other => panic!("{other}"),
    }
}

fn step(value: &Value) -> DegradationStep {
    let (name, drawn) = value.as_object().unwrap().iter().next().unwrap();
    let number = |key: &str| drawn[key].as_f64().unwrap();
    match name.as_str() {
        "round" => {
            DegradationStep::Blur(Blur::Round { side: number("side") as usize, sigma: number("sigma") })
        }
        "long" => {
            let spread = [0, 1].map(|k| drawn["spread"][k].as_f64().unwrap());
            DegradationStep::Blur(Blur::Long { side: number("side") as usize, angle: number("turn"), spread })
        }
        "resize" => DegradationStep::Resize { by: number("by"), kind: kind(&drawn["kind"]) },
        "thin" => DegradationStep::Thin { sigma: drawn.as_f64().unwrap() },
        "fit" => DegradationStep::Fit(kind(drawn)),
        "jpeg" => DegradationStep::Jpeg { quality: drawn.as_u64().unwrap() as u8 },
        other => panic!("{other}"),
    }
}

#[test]
fn whole_degradations_are_the_references() {
    let golden = golden("degradation");
    let source = image(golden.get("photo"));
    let plans: Value = serde_json::from_str(golden.metadata("plans")).unwrap();
    let (mut halvings, mut kinds, mut apart) = (0, 0, Vec::new());
    for (number, drawn) in plans.as_array().unwrap().iter().enumerate() {
        let before = match drawn["before"].as_str() {
            None => None,
            Some("matlab") => Some(Halving::Matlab),
            Some(_) => Some(Halving::OpenCv(kind(&drawn["before"]))),
        };
        halvings += usize::from(before.is_some());
        let plan = DegradationPlan {
            before,
            factor: drawn["factor"].as_u64().unwrap() as usize,
            steps: drawn["steps"].as_array().unwrap().iter().map(step).collect(),
            quality: drawn["quality"].as_u64().unwrap() as u8,
        };
        kinds += plan.steps.iter().filter(|step| matches!(step, DegradationStep::Thin { .. })).count();
        let expected = image(golden.get(&format!("whole.{number}")));
        let (mean, most) = difference(&plan.apply(&source), &expected);
        apart.push((mean, most));
    }
    // A value that rounds otherwise, or a cosine between two steps of JPEG, moves a block of these small images by a
    // few levels: three of the twelve by more than 0.2 in the mean, seven by less than 0.005.
    let mean = apart.iter().map(|(mean, _)| mean).sum::<f64>() / apart.len() as f64;
    assert!(mean < 0.15 && apart.iter().all(|(_, most)| *most <= 7), "{mean}: {apart:?}");
    assert!(apart.iter().filter(|(mean, _)| *mean < 0.005).count() >= 7, "{apart:?}");
    assert!(halvings > 1 && kinds > 1, "{halvings} {kinds}");
}

/// Zhang et al. 2021 by CompVis' numbers; each share to five standard deviations of 4000 draws.
#[test]
fn plans_are_drawn_as_the_reference_draws_them() {
    for strength in [Strength::Light, Strength::Full] {
        let plans: Vec<DegradationPlan> =
            (0..4000).map(|seed| DegradationPlan::draw(strength, 4, &mut Rng::of(&[seed]))).collect();
        let share = |what: &str, is: &dyn Fn(&DegradationPlan) -> bool, expected: f64| {
            let share = plans.iter().filter(|plan| is(plan)).count() as f64 / 4000.;
            let deviation = (expected * (1. - expected) / 4000.).sqrt();
            assert!((share - expected).abs() < 5. * deviation, "{strength:?} {what}: {share} for {expected}");
        };
        let has = |plan: &DegradationPlan, is: &dyn Fn(&DegradationStep) -> bool| plan.steps.iter().any(is);
        let light = strength == Strength::Light;
        share("halved", &|plan| plan.before.is_some(), 0.25);
        share("halved as Matlab", &|plan| plan.before == Some(Halving::Matlab), 0.125);
        let resized =
            |plan: &DegradationPlan| has(plan, &|step| matches!(step, DegradationStep::Resize { .. }));
        share("resized", &resized, if light { 0.8 } else { 0.75 });
        share("JPEG", &|plan| has(plan, &|step| matches!(step, DegradationStep::Jpeg { .. })), 0.9);
        let correlated = |step: &DegradationStep| {
            matches!(step, DegradationStep::Noise { noise: Noise::Correlated { .. }, .. })
        };
        share("correlated", &|plan| has(plan, &correlated), 0.2);
        share(
            "blur first",
            &|plan| matches!(plan.steps[0], DegradationStep::Blur(_)),
            if light { 0.2 } else { 1. / 3. },
        );
        let blurs = if light { 1 } else { 2 };
        for plan in &plans {
            let count = plan.steps.iter().filter(|step| matches!(step, DegradationStep::Blur(_))).count();
            assert_eq!(count, blurs);
            let place = |is: &dyn Fn(&DegradationStep) -> bool| plan.steps.iter().position(is).unwrap();
            let shrink =
                place(&|step| matches!(step, DegradationStep::Resize { .. } | DegradationStep::Thin { .. }));
            assert!(shrink < place(&|step| matches!(step, DegradationStep::Fit(_))), "{plan:?}");
            assert!((if light { 80 } else { 30 }..=95).contains(&plan.quality));
        }
        let qualities = plans.iter().map(|plan| f64::from(plan.quality)).sum::<f64>() / 4000.;
        assert!((qualities - if light { 87.5 } else { 62.5 }).abs() < 1.5, "{qualities}");
    }
}
