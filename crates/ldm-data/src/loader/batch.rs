//! Batches: examples stacked into tensors.

use tch::kind::Element;
use tch::{Device, Shape, Tensor};

use ldm_core::{Error, Prompt, Result};

use crate::example::{Condition, Example};

/// Examples stacked into tensors.
#[derive(Debug)]
pub struct Batch {
    /// `[B, 3, H, W]` f32 in `[-1, 1]`, on the CPU, or `[B, 4, H, W]` with [alpha](crate::ImagesConfig::alpha), 1 where
    /// opaque; H and W are 0 where latents replace the images.
    pub images: Tensor,
    /// `[B, C, h, w]` or `[B, 2C, h, w]` f32 latents of the images: see [`Latent`](crate::Latent).
    pub latents: Option<Tensor>,
    /// The condition: `text`, `class`, `layout` and `crops` where the dataset has them, and `image` and `mask` by its
    /// task: a low-resolution image; a masked image (-1 in the mask) and its mask; a one-hot map, `[B, K, H, W]` u8;
    /// `embedding` `[B, k, D]` where it has neighbors.
    pub prompt: Prompt,
    /// `B` crops `[x0, y0, width, height]`, relative to the whole images.
    pub crops: Vec<[f64; 4]>,
    /// `[B, H, W]` u8 labels of the pixels, where the dataset has label maps.
    pub label_map: Option<Tensor>,
    /// Names of the examples.
    pub names: Vec<String>,
}

impl Batch {
    /// Repeats the last example until there are `count`.
    #[must_use]
    pub fn padded(self, count: usize) -> Self {
        let has = self.names.len();
        if has >= count {
            return self;
        }
        let rows: Vec<usize> = (0..count).map(|row| row.min(has - 1)).collect();
        let index = Tensor::from_slice(&rows.iter().map(|row| *row as i64).collect::<Vec<_>>());
        let repeat = |tensor: Tensor| tensor.index_select(0, &index);
        let Self { images, latents, prompt, crops, label_map, names } = self;
        let prompt = prompt.map(repeat);
        Self {
            images: repeat(images),
            latents: latents.map(repeat),
            label_map: label_map.map(repeat),
            prompt: Prompt {
                text: prompt.text.map(|list| repeated(&list, &rows)),
                layout: prompt.layout.map(|list| repeated(&list, &rows)),
                crops: prompt.crops.map(|list| repeated(&list, &rows)),
                ..prompt
            },
            crops: repeated(&crops, &rows),
            names: repeated(&names, &rows),
        }
    }

    /// Places all tensors in pinned memory if `device` is CUDA: see [`ldm_core::pin`].
    #[must_use]
    pub(crate) fn pinned(self, device: Device) -> Self {
        let pin = |tensor: Tensor| ldm_core::pin(&tensor, device);
        Self {
            images: pin(self.images),
            latents: self.latents.map(pin),
            label_map: self.label_map.map(pin),
            prompt: self.prompt.map(pin),
            ..self
        }
    }

    /// Truncates the batch to its first `count` examples.
    #[must_use]
    pub fn head(mut self, count: usize) -> Self {
        if count < self.names.len() {
            self.names.truncate(count);
            self.crops.truncate(count);
            let count = count as i64;
            self.images = self.images.narrow(0, 0, count);
            self.latents = self.latents.map(|latents| latents.narrow(0, 0, count));
            self.label_map = self.label_map.map(|map| map.narrow(0, 0, count));
            self.prompt = self.prompt.narrow(0, count);
        }
        self
    }
}

fn repeated<T: Clone>(list: &[T], rows: &[usize]) -> Vec<T> {
    rows.iter().map(|row| list[*row].clone()).collect()
}

/// Stacks examples of one size into a batch.
///
/// # Errors
/// [`Error::Data`] naming two examples of different sizes, or one with a caption (class, label map) and one without.
///
/// # Panics
/// When `examples` is empty.
pub fn collate(examples: Vec<Example>) -> Result<Batch> {
    let first = examples.first().expect("a batch has at least one example");
    let [c, h, w] = first.size.map(|side| side as i64);
    for example in &examples {
        if example.size != first.size {
            let [[_, h0, w0], [_, h1, w1]] = [first.size, example.size];
            return Err(Error::data(
                &example.name,
                format!(
                    "expected {w0}x{h0} as {} of the same batch, got {w1}x{h1}; try a size and a crop in the transform",
                    first.name
                ),
            ));
        }
        same(first, example, "class", |each| each.class.is_some())?;
        same(first, example, "caption", |each| each.caption.is_some())?;
        same(first, example, "label map", |each| each.label_map.is_some())?;
        same(first, example, "latent", |each| each.latent.is_some())?;
        same(first, example, "neighbor", |each| each.neighbors.is_some())?;
        same_neighbors(first, example)?;
        if let (Some(one), Some(other)) = (&first.condition, &example.condition) {
            same_condition(first, one, example, other)?;
        }
        for word in ["small image", "mask", "label map"] {
            same(first, example, word, |each| {
                each.condition.as_ref().is_some_and(|each| each.word() == word)
            })?;
        }
    }
    let (image, mask) = condition(&examples);
    let embedding = neighbors(&examples);
    let encode_crop = first.encode_crop;
    let count = examples.len();
    let mut pixels = Vec::with_capacity(count * first.image.len());
    let latent = first.latent.as_ref().map(|latent| latent.size.map(|side| side as i64));
    let map = [h, w];
    let [h, w] = if latent.is_some() { [0, 0] } else { [h, w] };
    let (mut labels, mut latents) = (Vec::new(), Vec::new());
    let (mut class, mut text, mut layout, mut names) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut crops = Vec::with_capacity(count);
    for example in examples {
        pixels.extend_from_slice(&example.image);
        labels.extend(example.label_map.into_iter().flatten());
        latents.extend(example.latent.into_iter().flat_map(|latent| latent.values));
        class.extend(example.class);
        text.extend(example.caption);
        layout.push(example.boxes);
        crops.push(example.crop);
        names.push(example.name);
    }
    let b = count as i64;
    Ok(Batch {
        images: tensor(&pixels, [b, c, h, w]),
        prompt: Prompt {
            text: (!text.is_empty()).then_some(text),
            class: (!class.is_empty()).then(|| Tensor::from_slice(&class)),
            layout: layout.iter().any(|boxes| !boxes.is_empty()).then_some(layout),
            crops: encode_crop.then(|| crops.clone()),
            image,
            mask,
            embedding,
            ..Prompt::default()
        },
        latents: latent.map(|[c, h, w]| tensor(&latents, [b, c, h, w])),
        label_map: (!labels.is_empty()).then(|| tensor(&labels, [b, map[0], map[1]])),
        crops,
        names,
    })
}

/// `Prompt.image` and `Prompt.mask`, of examples with the same kind of condition.
fn condition(examples: &[Example]) -> (Option<Tensor>, Option<Tensor>) {
    let first = &examples[0];
    let b = examples.len() as i64;
    let [_, h, w] = first.size.map(|side| side as i64);
    match &first.condition {
        None => (None, None),
        Some(Condition::LowResolution { size: [c, h, w], .. }) => {
            let mut pixels = Vec::new();
            for example in examples {
                let Some(Condition::LowResolution { image, .. }) = &example.condition else {
                    unreachable!("all alike")
                };
                pixels.extend_from_slice(image);
            }
            (Some(tensor(&pixels, [b, *c as i64, *h as i64, *w as i64])), None)
        }
        Some(Condition::MaskInput { .. }) => {
            let (mut masks, mut pixels) = (Vec::new(), Vec::new());
            for example in examples {
                let Some(Condition::MaskInput { mask }) = &example.condition else {
                    unreachable!("all alike")
                };
                masks.extend(mask.iter().map(|&masked| f32::from(masked)));
                // CompVis `scripts/inpaint.py:29`: (1 - mask) * image in [0, 1], which is -1 in [-1, 1].
                let masked = example.image.iter().zip(mask.iter().cycle());
                pixels.extend(masked.map(|(&value, &masked)| if masked == 1 { -1. } else { value }));
            }
            (Some(tensor(&pixels, [b, 3, h, w])), Some(tensor(&masks, [b, 1, h, w])))
        }
        Some(Condition::OneHot { labels }) => {
            let plane = (h * w) as usize;
            let mut ones = vec![0u8; examples.len() * labels * plane];
            for (example, ones) in examples.iter().zip(ones.chunks_exact_mut(labels * plane)) {
                let map = example.label_map.as_ref().expect("a one-hot map has its labels");
                map.iter().enumerate().for_each(|(at, &label)| ones[usize::from(label) * plane + at] = 1);
            }
            (None, Some(tensor(&ones, [b, *labels as i64, h, w])))
        }
    }
}

/// `Prompt.embedding`, `[B, k, D]`, of examples with equally many neighbors.
fn neighbors(examples: &[Example]) -> Option<Tensor> {
    let first = examples[0].neighbors.as_ref()?;
    let shape = [examples.len(), first.len(), first.first().map_or(0, Vec::len)].map(|size| size as i64);
    let values: Vec<f32> =
        examples.iter().flat_map(|each| each.neighbors.iter().flatten().flatten()).copied().collect();
    Some(tensor(&values, shape))
}

/// Refuses neighbors of two numbers or sizes.
fn same_neighbors(first: &Example, example: &Example) -> Result<()> {
    let sizes = |each: &Example| -> Vec<usize> { each.neighbors.iter().flatten().map(Vec::len).collect() };
    if sizes(first) != sizes(example) {
        let expected = format!("expected as many and as long neighbors as those of {}", first.name);
        return Err(Error::data(&example.name, format!("{expected}, got others")));
    }
    Ok(())
}

/// Refuses low-resolution images of two sizes and maps of two numbers of labels.
fn same_condition(first: &Example, one: &Condition, example: &Example, other: &Condition) -> Result<()> {
    let differs = match (one, other) {
        (Condition::LowResolution { size: one, .. }, Condition::LowResolution { size: other, .. }) => {
            one != other
        }
        (Condition::OneHot { labels: one }, Condition::OneHot { labels: other }) => one != other,
        _ => false,
    };
    if differs {
        let message =
            format!("expected a {} of the size of that of {} of the same batch", other.word(), first.name);
        return Err(Error::data(&example.name, message));
    }
    Ok(())
}

/// Elements up to which libtorch runs an operation on the calling thread alone (`at::internal::GRAIN_SIZE`).
const GRAIN: usize = 32_768;

/// Copies values into a tensor, in pieces so small that libtorch starts no threads for them: a worker with threads of
/// its own makes OpenMP count more threads than cores, and then the training thread's go to sleep after every operation
/// instead of waiting for the next.
fn tensor<T: Element>(values: &[T], shape: impl Shape) -> Tensor {
    let all = Tensor::empty([values.len() as i64], (T::KIND, Device::Cpu));
    for (piece, at) in values.chunks(GRAIN).zip((0..).step_by(GRAIN)) {
        all.narrow(0, at, piece.len() as i64).copy_(&Tensor::from_slice(piece));
    }
    all.view(shape)
}

fn same(first: &Example, example: &Example, what: &str, has: impl Fn(&Example) -> bool) -> Result<()> {
    let (with, without) = match (has(first), has(example)) {
        (true, false) => (first, example),
        (false, true) => (example, first),
        _ => return Ok(()),
    };
    Err(Error::data(
        &without.name,
        format!("expected a {what} as {} of the same batch has one, got none", with.name),
    ))
}

#[cfg(test)]
mod tests {
    use ldm_core::LayoutBox;

    use super::*;

    fn example(name: &str, value: f32) -> Example {
        Example {
            image: vec![value; 3 * 2 * 4],
            size: [3, 2, 4],
            class: Some(3),
            caption: Some(format!("a {name}")),
            boxes: Vec::new(),
            encode_crop: false,
            crop: [0., 0., 1., 1.],
            label_map: Some(vec![1; 8]),
            latent: None,
            condition: None,
            neighbors: None,
            name: name.to_owned(),
        }
    }

    #[test]
    fn labels_become_the_prompt() {
        let boxed = LayoutBox { class: 1, rect: [0., 0., 0.5, 0.5] };
        let batch =
            collate(vec![example("a", 0.5), Example { boxes: vec![boxed.clone()], ..example("b", -1.) }])
                .unwrap();
        assert_eq!(batch.images.size(), [2, 3, 2, 4]);
        assert_eq!(batch.images.kind(), tch::Kind::Float);
        assert_eq!(
            Vec::<f32>::try_from(batch.images.mean_dim([1i64, 2, 3].as_slice(), false, None)).unwrap(),
            [0.5, -1.]
        );
        assert_eq!(Vec::<i64>::try_from(batch.prompt.class.unwrap()).unwrap(), [3, 3]);
        assert_eq!(batch.prompt.text.unwrap(), ["a a", "a b"]);
        assert_eq!(batch.prompt.layout.unwrap(), [vec![], vec![boxed]]);
        assert_eq!(batch.label_map.unwrap().size(), [2, 2, 4]);
        assert_eq!(batch.names, ["a", "b"]);
    }

    #[test]
    fn a_padded_batch_is_that_of_repeated_examples() {
        let boxed = LayoutBox { class: 1, rect: [0., 0., 0.5, 0.5] };
        let of = |names: &[&str]| -> Vec<Example> {
            let each = |(index, name): (usize, &&str)| Example {
                boxes: vec![boxed.clone()],
                condition: Some(Condition::MaskInput { mask: vec![0, 1, 0, 0, 0, 0, 0, 1] }),
                latent: None,
                ..example(name, index as f32)
            };
            names.iter().enumerate().map(each).collect()
        };
        let mut repeated = of(&["a", "b"]);
        let last = repeated[1].clone();
        repeated.resize(4, last);
        let (padded, repeated) = (collate(of(&["a", "b"])).unwrap().padded(4), collate(repeated).unwrap());
        assert_eq!(format!("{padded:?}"), format!("{repeated:?}"));
        assert_eq!((padded.images, padded.label_map), (repeated.images, repeated.label_map));
        let (padded, repeated) = (padded.prompt, repeated.prompt);
        assert_eq!((padded.image, padded.mask), (repeated.image, repeated.mask));
        assert_eq!((padded.class, padded.text), (repeated.class, repeated.text));
        assert_eq!(collate(of(&["a", "b"])).unwrap().padded(1).names, ["a", "b"]);
    }

    #[test]
    fn conditions_become_image_and_mask() {
        let with = |condition: Condition| {
            let batch = |name| Example { condition: Some(condition.clone()), ..example(name, 0.5) };
            collate(vec![batch("a"), batch("b")]).unwrap().prompt
        };
        let small = with(Condition::LowResolution { image: vec![0.25; 6], size: [3, 1, 2] });
        assert_eq!(small.image.unwrap().size(), [2, 3, 1, 2]);
        assert!(small.mask.is_none());
        let masked = with(Condition::MaskInput { mask: vec![0, 1, 0, 0, 0, 0, 0, 1] });
        let (image, mask) = (masked.image.unwrap(), masked.mask.unwrap());
        assert_eq!((image.size(), mask.size()), (vec![2, 3, 2, 4], vec![2, 1, 2, 4]));
        assert_eq!((mask.kind(), mask.double_value(&[1, 0, 1, 3])), (tch::Kind::Float, 1.));
        assert_eq!([image.double_value(&[1, 2, 1, 3]), image.double_value(&[1, 2, 1, 2])], [-1., 0.5]);
        let map = with(Condition::OneHot { labels: 3 }).mask.unwrap();
        assert_eq!((map.size(), map.kind()), (vec![2, 3, 2, 4], tch::Kind::Uint8));
        assert_eq!(Vec::<i64>::try_from(map.argmax(1, false).view([-1])).unwrap(), [1; 16]);
        assert_eq!(map.sum(tch::Kind::Int64).int64_value(&[]), 16);
    }

    #[test]
    fn crops_belong_to_the_prompt_where_its_boxes_are_of_the_whole_image() {
        let crop = [0.25, 0., 0.5, 1.];
        let batch = |encode_crop| {
            let boxes = vec![LayoutBox { class: 1, rect: [0., 0., 0.5, 0.5] }];
            collate(vec![Example { boxes, encode_crop, crop, ..example("a", 0.) }]).unwrap()
        };
        assert_eq!((batch(true).crops, batch(true).prompt.crops), (vec![crop], Some(vec![crop])));
        assert_eq!((batch(false).crops, batch(false).prompt.crops), (vec![crop], None));
    }

    #[test]
    fn absent_labels_are_left_out() {
        let bare = |name| Example { class: None, caption: None, label_map: None, ..example(name, 0.) };
        let batch = collate(vec![bare("a"), bare("b")]).unwrap();
        assert!(batch.prompt.text.is_none() && batch.prompt.class.is_none() && batch.prompt.layout.is_none());
        assert!(batch.label_map.is_none());
    }

    #[test]
    fn examples_that_do_not_fit_are_named() {
        let check = |other: Example, expected: &str| {
            let error = collate(vec![example("a.png", 0.), other]).unwrap_err().to_string();
            assert_eq!(error, expected);
        };
        let small = Example {
            image: vec![0.; 12],
            size: [3, 2, 2],
            label_map: Some(vec![0; 4]),
            ..example("b.png", 0.)
        };
        check(
            small,
            "b.png: expected 4x2 as a.png of the same batch, got 2x2; try a size and a crop in the transform",
        );
        let bare = Example { caption: None, ..example("b.png", 0.) };
        check(bare, "b.png: expected a caption as a.png of the same batch has one, got none");
    }
}
