//! Examples side by side, as tensors.

use tch::kind::Element;
use tch::{Device, Shape, Tensor};

use ldm_core::{Error, Prompt, Result};

use crate::example::Example;

/// Examples side by side.
#[derive(Debug)]
pub struct Batch {
    /// `[B, 3, H, W]` f32 in `[-1, 1]`, on the CPU; `[B, 3, 0, 0]` where latents take the pictures' place.
    pub images: Tensor,
    /// `[B, C, h, w]` or `[B, 2C, h, w]` f32, what an encoder said of the pictures: see [`Latent`](crate::Latent).
    pub latents: Option<Tensor>,
    /// What is known of them: `text`, `class` and `layout` where the dataset has them.
    pub prompt: Prompt,
    /// `[B, H, W]` u8, what each pixel shows, where the dataset has it.
    pub label_map: Option<Tensor>,
    /// What each is called.
    pub names: Vec<String>,
}

/// Puts examples of one size side by side.
///
/// # Errors
/// [`Error::Data`] naming two examples of different sizes, or one with a caption (class, label map) and one without.
///
/// # Panics
/// When `examples` is empty.
pub fn collate(examples: Vec<Example>) -> Result<Batch> {
    let first = examples.first().expect("a batch of no examples was asked for");
    let [c, h, w] = first.size.map(|side| side as i64);
    for example in &examples {
        if example.size != first.size {
            let [[_, h0, w0], [_, h1, w1]] = [first.size, example.size];
            return Err(Error::data(
                &example.name,
                format!(
                    "is {w1}x{h1} where {} of the same batch is {w0}x{h0}; set a size and a crop in the transform",
                    first.name
                ),
            ));
        }
        same(first, example, "class", |each| each.class.is_some())?;
        same(first, example, "caption", |each| each.caption.is_some())?;
        same(first, example, "label map", |each| each.label_map.is_some())?;
        same(first, example, "latent", |each| each.latent.is_some())?;
    }
    let count = examples.len();
    let mut pixels = Vec::with_capacity(count * first.image.len());
    let latent = first.latent.as_ref().map(|latent| latent.size.map(|side| side as i64));
    let map = [h, w];
    let [h, w] = if latent.is_some() { [0, 0] } else { [h, w] };
    let (mut labels, mut latents) = (Vec::new(), Vec::new());
    let (mut class, mut text, mut layout, mut names) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for example in examples {
        pixels.extend_from_slice(&example.image);
        labels.extend(example.label_map.into_iter().flatten());
        latents.extend(example.latent.into_iter().flat_map(|latent| latent.values));
        class.extend(example.class);
        text.extend(example.caption);
        layout.push(example.boxes);
        names.push(example.name);
    }
    let b = count as i64;
    Ok(Batch {
        images: tensor(&pixels, [b, c, h, w]),
        prompt: Prompt {
            text: (!text.is_empty()).then_some(text),
            class: (!class.is_empty()).then(|| Tensor::from_slice(&class)),
            layout: layout.iter().any(|boxes| !boxes.is_empty()).then_some(layout),
            ..Prompt::default()
        },
        latents: latent.map(|[c, h, w]| tensor(&latents, [b, c, h, w])),
        label_map: (!labels.is_empty()).then(|| tensor(&labels, [b, map[0], map[1]])),
        names,
    })
}

/// Elements up to which libtorch runs an operation on the calling thread alone (`at::internal::GRAIN_SIZE`).
const GRAIN: usize = 32_768;

/// The values as a tensor, in pieces so small that libtorch starts no threads for them: a worker that has threads of
/// its own makes OpenMP count more threads than cores, and then the training thread's go to sleep after every
/// operation instead of waiting for the next.
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
    Err(Error::data(&without.name, format!("has no {what}, and {} of the same batch has one", with.name)))
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
            label_map: Some(vec![1; 8]),
            latent: None,
            name: name.to_owned(),
        }
    }

    #[test]
    fn what_is_known_becomes_the_prompt() {
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
    fn what_is_not_known_is_left_out() {
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
            "b.png: is 2x2 where a.png of the same batch is 4x2; set a size and a crop in the transform",
        );
        let bare = Example { caption: None, ..example("b.png", 0.) };
        check(bare, "b.png: has no caption, and a.png of the same batch has one");
    }
}
