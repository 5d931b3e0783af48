//! Tasks of stored images and of scenes: super-resolution, inpainting, semantic maps.

use std::path::Path;
use std::sync::Arc;

use image::{GrayImage, Luma};
use ldm_data::{Condition, DatasetConfig, Loader, LoaderConfig, Position, collate};

use crate::image_folder::{ImageFolder, png};

#[test]
fn every_degradation_depends_on_the_seed_alone() {
    let set = ImageFolder::new(&["a"]);
    for name in [
        "bsrgan",
        "bsrgan_light",
        "pil_nearest",
        "pil_bilinear",
        "pil_bicubic",
        "pil_box",
        "pil_hamming",
        "pil_lanczos",
        "cv_nearest",
        "cv_bilinear",
        "cv_bicubic",
        "cv_area",
        "cv_lanczos",
    ] {
        let set = set.open(&format!(
            "transform: {{size: 24, resize: square_crop_first, crop: random_square, min_crop_f: 0.5, max_crop_f: 1., \
             interpolation: cv_area}}, task: {{target: super_resolution, params: {{degradation: {name}}}}}"
        ));
        let small = |seed| match set.get(0, seed).unwrap().condition {
            Some(Condition::LowResolution { image, size: [3, 6, 6] }) => image,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(small(1), small(1), "{name}");
        assert_ne!(small(1), small(2), "{name}");
        let batch = collate(vec![set.get(0, 1).unwrap(), set.get(0, 2).unwrap()]).unwrap();
        assert_eq!(batch.prompt.image.unwrap().size(), [2, 3, 6, 6]);
    }
    set.check_refused(
        "transform: {size: 30}, task: {target: super_resolution, params: {degradation: cv_area}}",
        "task: downscale_f: expected a divisor of the size 30, got 4",
    );
    set.check_refused(
        "task: {target: super_resolution, params: {degradation: cv_area}}",
        "ROOT/images/a.png: expected sides that downscale_f 4 divides, got 40x30",
    );
}

#[test]
fn mask_files_are_next_to_their_images() {
    let mask = GrayImage::from_fn(40, 30, |x, _| Luma([if x < 10 { 128 } else { 127 }]));
    let set = ImageFolder::new(&["a"]).with("images/a_mask.png", png(mask));
    let set = set.open(
        "task: {target: inpainting, params: {masks: {target: files, params: {suffix: _mask}}}}, \
         transform: {size: 30, flip: 1}",
    );
    assert_eq!(set.len(), 1);
    let batch = collate(vec![set.get(0, 0).unwrap()]).unwrap();
    let (image, mask) = (batch.prompt.image.unwrap(), batch.prompt.mask.unwrap());
    assert_eq!((image.size(), mask.size()), (vec![1, 3, 30, 30], vec![1, 1, 30, 30]));
    // The crop has columns 5 to 34, flipped: those below 10 are the last five.
    assert_eq!(mask.sum(tch::Kind::Float).double_value(&[]), 150.);
    assert_eq!(mask.narrow(3, 25, 5).sum(tch::Kind::Float).double_value(&[]), 150.);
    let unmasked = batch.images.narrow(3, 0, 25) - image.narrow(3, 0, 25);
    assert_eq!(unmasked.abs().max().double_value(&[]), 0.);
    assert_eq!(image.narrow(3, 25, 5).max().double_value(&[]), -1.);
}

#[test]
fn scenes_have_every_task() {
    let open = |task: &str| {
        let text = format!("target: scenes\nparams: {{size: 32, task: {task}}}");
        let config: DatasetConfig = ldm_core::config::parse(&text, "set.yaml", &[]).unwrap();
        config.open(Path::new(""))
    };
    for (task, image, mask) in [
        ("{target: semantic}", None, Some([4, 11, 32, 32])),
        ("{target: inpainting, params: {}}", Some([4, 3, 32, 32]), Some([4, 1, 32, 32])),
        ("{target: super_resolution, params: {degradation: bsrgan_light}}", Some([4, 3, 8, 8]), None),
    ] {
        let set = open(task).unwrap();
        let make = |workers| {
            let config = LoaderConfig { workers, ..LoaderConfig::new(4, 9) };
            Loader::new(Arc::clone(&set), config, Position::default()).unwrap().next().unwrap().unwrap()
        };
        let (one, two) = (make(0).prompt, make(2).prompt);
        let size = |tensor: &Option<tch::Tensor>| tensor.as_ref().map(tch::Tensor::size);
        assert_eq!(size(&one.image), image.map(|size| size.to_vec()), "{task}");
        assert_eq!(size(&one.mask), mask.map(|size| size.to_vec()), "{task}");
        for (a, b) in [(&one.image, &two.image), (&one.mask, &two.mask)] {
            assert!(a.as_ref().zip(b.as_ref()).is_none_or(|(a, b)| a == b), "{task}");
        }
        assert!(one.layout.is_some() && one.crops.is_none() && one.class.is_some());
    }
    let error =
        open("{target: inpainting, params: {masks: {target: files, params: {suffix: _m}}}}").err().unwrap();
    assert!(error.to_string().starts_with("scenes: masks: expected masks that are drawn"), "{error}");
}
