//! Generated images against their originals.

use std::cell::RefCell;
use std::path::Path;

use ldm_core::{Result, image};
use ldm_metrics::{Lpips, psnr, psnr_within, ssim};
use ldm_study::evaluation::{ImageSource, PairedEvaluation, paired};
use ldm_study::{Reporter, Silent};
use tch::{Device, Kind, Tensor};

const OPTIONS: (Kind, Device) = (Kind::Float, Device::Cpu);

/// A pattern in 8-bit steps, so that reading gives the same values.
fn pattern(seed: i64) -> Tensor {
    let x = (Tensor::arange(3 * 16 * 16, OPTIONS) * (7 + 2 * seed) + seed).remainder(256.);
    (x / 127.5 - 1.).view([3, 16, 16])
}

fn write(path: &Path, pixels: &Tensor) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::write_png(path, pixels, &[]).unwrap();
}

/// Two pairs, of which the second differs, and an image without counterpart in each folder.
fn folders(root: &Path) {
    for (name, seed) in [("made/a.png", 0), ("made/b.png", 1), ("made/extra.png", 2), ("made/grid.png", 3)] {
        write(&root.join(name), &pattern(seed));
    }
    for (name, seed) in [("real/a.png", 4), ("real/b.png", 5), ("real/left.png", 6)] {
        write(&root.join(name), &pattern(seed));
    }
}

fn measure(
    root: &Path,
    mask: Option<&str>,
    strict: bool,
    reporter: &dyn Reporter,
) -> Result<PairedEvaluation> {
    let source = ImageSource { path: root.join("real"), size: None, strict };
    let mask = mask.map(|name| root.join(name));
    paired(&root.join("made"), &source, mask.as_deref(), Device::Cpu, reporter)
}

/// Collects warnings.
#[derive(Default)]
struct Warnings(RefCell<Vec<String>>);

impl Reporter for Warnings {
    fn warn(&self, text: &str) {
        self.0.borrow_mut().push(text.to_owned());
    }
}

#[test]
fn pairs_are_measured_by_the_metrics_of_pairs_and_the_rest_is_named() {
    let root = tempfile::tempdir().unwrap();
    folders(root.path());
    let warnings = Warnings::default();
    let found = measure(root.path(), None, false, &warnings).unwrap();
    assert_eq!(
        (found.images, &found.made_unmatched, &found.unmatched),
        (2, &vec!["extra.png".to_owned()], &vec!["left.png".to_owned()])
    );
    let stack = |seeds: [i64; 2]| Tensor::stack(&seeds.map(pattern), 0);
    let (made, real) = (stack([0, 1]), stack([4, 5]));
    let near = |what: &str, got: f64, want: Tensor| {
        let want = want.mean(Kind::Double).double_value(&[]);
        assert!((got - want).abs() < 1e-5 * want.abs().max(1.), "{what}: {got} {want}");
    };
    near("PSNR", found.psnr.mean, psnr(&made, &real));
    near("SSIM", found.ssim.mean, ssim(&made, &real).unwrap());
    near("LPIPS", found.lpips.mean, Lpips::random(Device::Cpu).distance(&made, &real));
    assert!(found.ms_ssim.is_none(), "the images are too small");
    assert_eq!(
        *warnings.0.borrow(),
        ["no original of this name, left out: extra.png", "no generated image of this name: left.png"]
    );
    let table = found.table();
    assert!(table[0].starts_with("2 pairs of "), "{table:?}");
    assert_eq!(table.last().unwrap(), "unmatched: 1 generated, 1 originals");

    let error = |strict| measure(root.path(), None, strict, &Silent).err().unwrap().to_string();
    assert!(
        error(true).ends_with("expected images in pairs, got 1 without, e.g. extra.png"),
        "{}",
        error(true)
    );
    // An unreadable image leaves its pair out.
    std::fs::write(root.path().join("made/b.png"), b"no image").unwrap();
    let found = measure(root.path(), None, false, &Silent).unwrap();
    assert_eq!((found.images, found.unreadable.len()), (1, 1));
    assert!(found.unreadable[0].contains("b.png"), "{:?}", found.unreadable);
    assert!(found.psnr.std.is_nan() && !found.table()[1].contains("NaN"), "{:?}", found.table());
    // Another size.
    write(&root.path().join("made/a.png"), &Tensor::zeros([3, 16, 24], OPTIONS));
    assert_eq!(error(false), "a.png: expected 16x16, as its original, got 24x16; try --size");
    // Two images of a name, and no common name.
    std::fs::copy(root.path().join("real/a.png"), root.path().join("real/a.bmp")).unwrap();
    assert!(error(false).contains("expected one image of a name, got "), "{}", error(false));
    std::fs::remove_dir_all(root.path().join("real")).unwrap();
    write(&root.path().join("real/c.png"), &pattern(0));
    assert!(error(false).contains("got none that it has, e.g. a.png"), "{}", error(false));
}

#[test]
fn with_masks_only_the_filled_region_counts() {
    let root = tempfile::tempdir().unwrap();
    folders(root.path());
    // The left half of a, and the lower half of b as the opaque part of a mask with alpha.
    let half = Tensor::zeros([1, 16, 16], OPTIONS);
    let _ = half.narrow(2, 0, 8).fill_(1.);
    write(&root.path().join("masks/a_mask.png"), &(half.expand([3, 16, 16], false) * 2. - 1.));
    let alpha = half.transpose(1, 2).flip([1]);
    let gray = Tensor::full([3, 16, 16], -1., OPTIONS);
    write(&root.path().join("masks/b.png"), &Tensor::cat(&[&gray, &(&alpha * 2. - 1.)], 0));
    let found = measure(root.path(), Some("masks"), false, &Silent).unwrap();
    let mask = Tensor::stack(&[&half, &alpha], 0);
    let (made, real) =
        (Tensor::stack(&[pattern(0), pattern(1)], 0), Tensor::stack(&[pattern(4), pattern(5)], 0));
    let want = psnr_within(&made, &real, &mask).mean(Kind::Double).double_value(&[]);
    assert!((found.psnr.mean - want).abs() < 1e-6, "{} {want}", found.psnr.mean);
    assert!((found.masked.unwrap() - 0.5).abs() < 1e-9);
    let pasted = &made * &mask + &real * (1. - &mask);
    let want = ssim(&pasted, &real).unwrap().mean(Kind::Double).double_value(&[]);
    assert!((found.ssim.mean - want).abs() < 1e-6, "{} {want}", found.ssim.mean);
    std::fs::remove_file(root.path().join("masks/b.png")).unwrap();
    let error = measure(root.path(), Some("masks"), false, &Silent).err().unwrap().to_string();
    assert!(error.ends_with("expected a mask of b.png, b or b_mask, got none"), "{error}");
}
