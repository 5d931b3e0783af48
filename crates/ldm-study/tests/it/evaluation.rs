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
