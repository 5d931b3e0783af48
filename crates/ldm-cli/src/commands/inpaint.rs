//! `ldm inpaint`: fills a part of a picture, and leaves the rest as it is.

use std::ops::Range;

use anyhow::{Context, bail};
use image::imageops::{self, FilterType};
use ldm_core::{Prompt, image as pictures};
use ldm_pipelines::{InitImage, Needs};
use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use crate::args::InpaintArgs;
use crate::making::{Making, Subject};
use crate::model;
use crate::pictures::repeated;
use crate::progress::Talk;

pub(crate) fn run(args: &InpaintArgs, talk: Talk) -> anyhow::Result<()> {
    let making = Making::new(&args.generate, "inpaint", args.generate.num_images)?;
    let (image, mask) = read(args)?;
    let model = model::open_diffusion(&args.model, args.text.tokenizer.as_deref())?;
    let fills = [Needs::Filling, Needs::FillingByText, Needs::Text, Needs::Nothing];
    model::check_needs(&model, &args.model, &fills)?;
    let needs = Needs::of(&model.config);
    let by_text = matches!(needs, Needs::FillingByText | Needs::Text);
    if !by_text && args.prompt.is_some() {
        bail!("{}: this model reads no text, and was given a prompt", args.model.model.display());
    }
    model
        .check_image_size([image.size()[2], image.size()[3]])
        .with_context(|| args.image.display().to_string())?;
    let text = by_text.then(|| args.prompt.clone().unwrap_or_default());
    let scale = if by_text { model::guidance_scale(&model) } else { 1. };
    let trained = matches!(needs, Needs::Filling | Needs::FillingByText);
    let init = (!trained)
        .then(|| InitImage::new(image.shallow_clone(), args.strength, Some(mask.shallow_clone())))
        .transpose()?;
    let filled = Filled { share: feathered(&mask, args.feather), image, mask, init, text, args };
    making.run(&model, &args.model, scale, &filled, talk)
}

/// The picture `[1, 3, H, W]` and the mask `[1, 1, H, W]`, 0 or 1.
fn read(args: &InpaintArgs) -> anyhow::Result<(Tensor, Tensor)> {
    let image = pictures::read(&args.image)?;
    let mut mask = imageops::grayscale(&pictures::read(&args.mask)?);
    if mask.dimensions() != image.dimensions() {
        let ((width, height), (w, h)) = (image.dimensions(), mask.dimensions());
        if !args.resize_mask {
            bail!(
                "{}: the mask is {w} x {h}, and the picture {width} x {height}: make it as large, or give --resize-mask",
                args.mask.display()
            );
        }
        mask = imageops::resize(&mask, width, height, FilterType::Nearest);
    }
    if mask.iter().all(|value| *value < 128) {
        bail!("{}: nothing of the mask is white, so there is nothing to fill", args.mask.display());
    }
    let (width, height) = mask.dimensions();
    let white = Tensor::from_slice(mask.as_raw()).view([1, 1, i64::from(height), i64::from(width)]).ge(128);
    Ok((pictures::from_rgb8(&image).unsqueeze(0), white.to_kind(Kind::Float)))
}

/// How much of what was made shows, `[1, 1, H, W]`: nothing outside the mask, and inside it all but for an edge of so
/// many pixels.
fn feathered(mask: &Tensor, pixels: u32) -> Tensor {
    let mut share = mask.copy(); // added to in place
    let mut rest = mask.shallow_clone();
    for _ in 0..pixels {
        // One pixel less on every side; past the picture's border nothing fades.
        rest = -(-&rest).max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false);
        share += &rest;
    }
    share / f64::from(pixels + 1)
}

struct Filled<'a> {
    image: Tensor,
    mask: Tensor,
    share: Tensor,
    /// Where a model that is not trained to fill begins.
    init: Option<InitImage>,
    text: Option<String>,
    args: &'a InpaintArgs,
}

impl Subject for Filled<'_> {
    fn prompt(&self, pictures: Range<usize>) -> anyhow::Result<Prompt> {
        let given = |of: &Tensor| self.init.is_none().then(|| repeated(of, pictures.clone()));
        Ok(Prompt {
            image: given(&self.image),
            mask: given(&self.mask),
            text: self.text.as_ref().map(|text| vec![text.clone(); pictures.len()]),
            ..Prompt::default()
        })
    }

    fn negative(&self, count: usize) -> Option<Prompt> {
        self.args.text.negative(count)
    }

    fn init(&self) -> Option<&InitImage> {
        self.init.as_ref()
    }

    /// Outside the mask the picture's own values: its bytes, since reading and writing them is the identity.
    fn finish(&self, made: Tensor) -> Tensor {
        let (share, image) = (self.share.to_device(made.device()), self.image.to_device(made.device()));
        let mixed: Tensor = made.clamp(-1., 1.) * &share + &image * (1. - &share);
        mixed.where_self(&share.gt(0.), &image)
    }

    fn heading(&self, _picture: usize) -> String {
        let prompt = self.text.as_deref().map_or(String::new(), |text| format!("{text}\n"));
        let negative = self.args.text.heading();
        format!("{prompt}{negative}inpaint: {}, {}\n", self.args.image.display(), self.args.mask.display())
    }

    fn json(&self, _picture: usize) -> Map<String, Value> {
        Map::from_iter([
            ("image".to_owned(), json!(self.args.image)),
            ("mask".to_owned(), json!(self.args.mask)),
            ("prompt".to_owned(), json!(self.text)),
        ])
    }
}
