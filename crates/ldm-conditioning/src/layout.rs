//! Tokens of bounding boxes, for layout models.

use ldm_core::{Error, LayoutBox, Result};
use tch::Tensor;

/// Converts boxes to tokens, for a model with `use_tokenizer: false`.
///
/// A box is three tokens: its class, and its top left and bottom right corner on a grid of `floor(sqrt(T))` positions per
/// side, for a vocabulary of `T`. Unused slots hold the last token three times. The two corners of the crop follow, if the
/// model has room for them: 92 tokens are 30 boxes and a crop, 90 are 30 boxes.
///
/// taming-transformers `conditional_builder/objects_bbox.py`, `objects_center_points.py:37`. Its shuffle, flips and
/// crops belong to `ldm-data`: here the boxes keep their order and refer to `crops`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayoutTokens {
    vocab_size: i64,
    /// Grid positions per side.
    sections: i64,
    /// Maximal number of boxes of an image; the first ones are used.
    boxes: usize,
    with_crop: bool,
}

/// The crop of the whole image.
const WHOLE: [f64; 4] = [0., 0., 1., 1.];

impl LayoutTokens {
    /// Creates the encoder for a model of `vocab_size` tokens, `length` of them per image.
    ///
    /// # Errors
    /// If `length` is not a multiple of three, or two more for a crop, or if the vocabulary is too small for a grid of two
    /// positions per side and the null token.
    pub fn new(vocab_size: i64, length: usize) -> Result<Self> {
        let boxes = length / 3;
        if boxes == 0 || length % 3 == 1 {
            return Err(Error::invalid(format!(
                "layout: expected a length of three tokens per box, and two more for a crop, got {length}"
            )));
        }
        let sections = (vocab_size.max(0) as f64).sqrt() as i64;
        // The last token is the null token; with `sections^2 = vocab_size` it is the last corner of the grid too.
        if sections < 2 {
            return Err(Error::invalid(format!("layout: expected at least 4 tokens, got {vocab_size}")));
        }
        Ok(Self { vocab_size, sections, boxes, with_crop: length % 3 == 2 })
    }

    /// Encodes the boxes of each image. Of too many boxes the first are used; those outside the crop are dropped, and boxes
    /// are clipped to the image.
    ///
    /// # Shapes
    /// - returns `[B, L]` i64
    ///
    /// # Errors
    /// If a box has NaN or Inf or a class out of range, if the number of crops is not that of the images, or if the model
    /// has no tokens for crops.
    pub fn encode(&self, layouts: &[Vec<LayoutBox>], crops: Option<&[[f64; 4]]>) -> Result<Tensor> {
        if let Some(crops) = crops {
            if crops.len() != layouts.len() {
                return Err(Error::invalid(format!(
                    "layout: expected a crop for each of {} images, got {}",
                    layouts.len(),
                    crops.len()
                )));
            }
            if !self.with_crop && crops.iter().any(|crop| *crop != WHOLE) {
                return Err(Error::invalid(
                    "layout: expected no crop, as this model has no tokens for it, got one; try boxes relative to the crop",
                ));
            }
        }
        let length = 3 * self.boxes + if self.with_crop { 2 } else { 0 };
        let mut tokens = Vec::with_capacity(layouts.len() * length);
        for (index, boxes) in layouts.iter().enumerate() {
            let crop = crops.map_or(WHOLE, |crops| crops[index]);
            self.image(boxes, crop, &mut tokens)?;
        }
        Ok(Tensor::from_slice(&tokens).view([layouts.len() as i64, length as i64]))
    }

    fn image(&self, boxes: &[LayoutBox], crop: [f64; 4], tokens: &mut Vec<i64>) -> Result<()> {
        let end = tokens.len() + 3 * self.boxes;
        for each in boxes.iter().take(self.boxes) {
            if !each.rect.iter().all(|side| side.is_finite()) {
                return Err(Error::invalid(format!("layout: expected a finite box, got {:?}", each.rect)));
            }
            let null = self.vocab_size - 1;
            if !(0..null).contains(&each.class) {
                return Err(Error::invalid(format!(
                    "layout: expected a class of 0 to {}, got {}",
                    null - 1,
                    each.class
                )));
            }
            if overlaps(each.rect, crop) {
                tokens.push(each.class);
                tokens.extend(self.corners(each.rect));
            }
        }
        tokens.resize(end, self.vocab_size - 1);
        if self.with_crop {
            tokens.extend(self.corners(crop));
        }
        Ok(())
    }

    /// Encodes the top left and the bottom right corner.
    fn corners(&self, [x0, y0, width, height]: [f64; 4]) -> [i64; 2] {
        // CompVis' `rescale_annotations`: the start is clamped, and the extent clipped to the rest.
        let (x, y) = (x0.clamp(0., 1.), y0.clamp(0., 1.));
        let (right, below) = (x + width.min(1. - x), y + height.min(1. - y));
        [self.place(x, y), self.place(right, below)]
    }

    /// Encodes a corner, with Python's `round`: halves to even.
    fn place(&self, x: f64, y: f64) -> i64 {
        let step = (self.sections - 1) as f64;
        let at = |t: f64| (t * step).round_ties_even() as i64;
        at(y) * self.sections + at(x)
    }
}

/// True if two rectangles overlap. CompVis `conditional_builder/utils.py:20` `intersection_area`.
fn overlaps(a: [f64; 4], b: [f64; 4]) -> bool {
    let overlap = |k: usize| (a[k] + a[k + 2]).min(b[k] + b[k + 2]) - a[k].max(b[k]);
    overlap(0).max(0.) * overlap(1).max(0.) > 0.
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(class: i64, rect: [f64; 4]) -> LayoutBox {
        LayoutBox { class, rect }
    }

    fn tokens(length: usize, boxes: Vec<LayoutBox>, crop: Option<[f64; 4]>) -> Vec<i64> {
        let encoder = LayoutTokens::new(8192, length).unwrap();
        let crops = crop.map(|crop| vec![crop]);
        Vec::try_from(encoder.encode(&[boxes], crops.as_deref()).unwrap().view([-1])).unwrap()
    }

    #[test]
    fn a_box_is_its_class_and_two_corners() {
        let first = boxed(7, [0., 0., 1., 1.]);
        let second = boxed(3, [0.5, 0.25, 0.25, 0.5]); // 44.5 and 66.75; 22.25 and 66.75
        let expected = [7, 0, 8099, 3, 22 * 90 + 44, 67 * 90 + 67, 8191, 8191, 8191];
        assert_eq!(tokens(9, vec![first.clone(), second], None), expected);
        assert_eq!(tokens(5, vec![first], Some([0., 0., 0.5, 1.])), [7, 0, 8099, 0, 89 * 90 + 44]);
    }

    #[test]
    fn the_default_crop_is_the_whole_image() {
        assert_eq!(tokens(5, vec![], None), [8191, 8191, 8191, 0, 8099]);
    }

    #[track_caller]
    fn check_refused(length: usize, boxes: Vec<LayoutBox>, crops: Option<&[[f64; 4]]>, expected: &str) {
        let error = LayoutTokens::new(8192, length).and_then(|encoder| encoder.encode(&[boxes], crops));
        assert_eq!(error.unwrap_err().to_string(), format!("layout: {expected}"));
    }

    #[test]
    fn invalid_layouts_are_refused() {
        let length = "expected a length of three tokens per box, and two more for a crop, got";
        check_refused(2, vec![], None, &format!("{length} 2"));
        check_refused(91, vec![], None, &format!("{length} 91"));
        let whole = [0., 0., 1., 1.];
        check_refused(92, vec![boxed(8191, whole)], None, "expected a class of 0 to 8190, got 8191");
        check_refused(
            92,
            vec![boxed(0, [f64::NAN; 4])],
            None,
            "expected a finite box, got [NaN, NaN, NaN, NaN]",
        );
        check_refused(92, vec![], Some(&[whole, whole]), "expected a crop for each of 1 images, got 2");
        check_refused(
            90,
            vec![],
            Some(&[[0., 0., 0.5, 1.]]),
            "expected no crop, as this model has no tokens for it, got one; try boxes relative to the crop",
        );
    }
}
