//! Evaluation of image sets.

use ldm_core::image;
use ldm_study::Silent;
use ldm_study::evaluation::{
    GeneratedImages, GenerationEvaluator, ImageSource, ReferenceSet, SetOptions, open_generated,
};
use tch::{Device, Kind, Tensor};

fn options() -> SetOptions {
    SetOptions { num_images: None, batch_size: 2, features: Some("random-vgg16".into()) }
}

#[test]
fn a_set_has_no_distance_to_itself() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..4 {
        let pixels = Tensor::full([3, 32, 32], f64::from(index) / 2. - 1., (Kind::Float, Device::Cpu));
        image::write_png(folder.path().join(format!("{index}.png")), &pixels, &[]).unwrap();
    }
    let source = ImageSource { path: folder.path().to_path_buf(), size: None, strict: true };
    let reference = ReferenceSet::open(source).unwrap();
    let mut generated = GeneratedImages::Set(open_generated(folder.path(), None).unwrap());
    let mut evaluator = GenerationEvaluator::new(options(), Device::Cpu, &Silent).unwrap();
    let found = evaluator.evaluate(&reference, &mut generated, None).unwrap();
    assert_eq!((found.images, found.size), (4, Some([32, 32])));
    assert!(found.distance.frechet.abs() < 1e-3, "{}", found.distance.frechet);
    let document = found.document();
    assert_eq!(document["made_images"], 4);
    assert!(document["nearest_real"]["mean"].as_f64().unwrap() < 1e-3);
}

#[test]
fn images_of_several_sizes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for side in [16, 24] {
        let pixels = Tensor::zeros([3, side, side], (Kind::Float, Device::Cpu));
        image::write_png(folder.path().join(format!("{side}.png")), &pixels, &[]).unwrap();
    }
    let error = open_generated(folder.path(), None).err().unwrap().to_string();
    assert_eq!(error, "24.png: expected 16x16, as 16.png, got 24x24; try --size");
    assert!(open_generated(folder.path(), Some(16)).is_ok());
}

#[test]
fn a_set_of_one_image_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (set, count) in [("one", 1), ("three", 3)] {
        std::fs::create_dir(folder.path().join(set)).unwrap();
        for index in 0..count {
            let pixels = Tensor::full([3, 32, 32], f64::from(index) / 2. - 1., (Kind::Float, Device::Cpu));
            image::write_png(folder.path().join(format!("{set}/{index}.png")), &pixels, &[]).unwrap();
        }
    }
    let error = |made: &str, real: &str| {
        let source = ImageSource { path: folder.path().join(real), size: None, strict: true };
        let reference = ReferenceSet::open(source).unwrap();
        let made = open_generated(&folder.path().join(made), None).unwrap();
        let mut evaluator = GenerationEvaluator::new(options(), Device::Cpu, &Silent).unwrap();
        evaluator.evaluate(&reference, &mut GeneratedImages::Set(made), None).err().unwrap().to_string()
    };
    let expected = "one: expected at least 2 images, whose features have a covariance, got 1";
    for error in [error("one", "three"), error("three", "one")] {
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn statistics_of_another_size_or_resizer_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for side in [16, 24] {
        std::fs::create_dir(folder.path().join(side.to_string())).unwrap();
        for index in 0..3 {
            let pixels =
                Tensor::full([3, side, side], f64::from(index) / 2. - 1., (Kind::Float, Device::Cpu));
            image::write_png(folder.path().join(format!("{side}/{index}.png")), &pixels, &[]).unwrap();
        }
    }
    let file = folder.path().join("real.npz");
    let evaluator = || GenerationEvaluator::new(options(), Device::Cpu, &Silent).unwrap();
    let open = |path: &std::path::Path, size| {
        ReferenceSet::open(ImageSource { path: path.to_path_buf(), size, strict: true }).unwrap()
    };
    evaluator().save_statistics(&open(&folder.path().join("24"), Some(16)), &file).unwrap();
    let origin = ldm_metrics::SetMoments::read_npz(&file).unwrap().origin;
    assert_eq!((origin.size, origin.resizer.as_deref()), (Some([16, 16]), Some("bicubic")));
    let against = |made: &str, size| {
        let made = open_generated(&folder.path().join(made), size).unwrap();
        let found = evaluator().evaluate(&open(&file, size), &mut GeneratedImages::Set(made), None);
        found.map(|found| found.size).map_err(|error| error.to_string())
    };
    assert_eq!(against("16", None), Ok(Some([16, 16])));
    assert_eq!(against("24", Some(16)), Ok(Some([16, 16])));
    let error = against("24", None).unwrap_err();
    assert!(error.ends_with(".png: expected 16x16, as the statistics, got 24x24; try --size"), "{error}");
    let error = against("24", Some(24)).unwrap_err();
    assert!(error.ends_with("expected images of 24x24, as --size, got 16x16; try --size 16"), "{error}");
    // Of another interpolation, as a config may have.
    let mut other = ldm_metrics::SetMoments::read_npz(&file).unwrap();
    other.origin.resizer = Some("lanczos".into());
    other.write_npz(&file).unwrap();
    let error = against("24", Some(16)).unwrap_err();
    assert!(
        error
            .ends_with("expected images resized by bicubic, as --size does, got lanczos; try without --size"),
        "{error}"
    );
    assert_eq!(against("16", None), Ok(Some([16, 16])), "generated images that were not resized");
}
