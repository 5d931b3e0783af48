//! Conditioning of the U-Net from prompts, by the conditioner and, for masked images, the first stage.

use ldm_conditioning::{ConditionerConfig, TextOptions};
use ldm_core::{Conditioning, Error, Prompt, Result};
use tch::{Device, Kind, Tensor};

use crate::LatentDiffusion;
use crate::diffusion_config::{ConcatKey, ConditioningKey};

impl LatentDiffusion {
    /// Encodes a batch of prompts into the U-Net's conditioning: the slots of `conditioning_key`, and no others.
    ///
    /// # Shapes
    /// - an image and its mask have the same size, which determines the latent's; a low-resolution image has that of
    ///   the latent
    /// - f32, or the dtype of the weights; on the model's device
    ///
    /// # Errors
    /// [`Error::MissingInput`] when the prompt lacks a condition of the model; [`Error::Invalid`] and [`Error::Shape`]
    /// for unknown classes and unsupported sizes.
    ///
    /// CompVis `ddpm.py:1402` `DiffusionWrapper`, `scripts/inpaint.py:74`.
    pub fn condition(&self, prompt: &Prompt, train: bool) -> Result<Conditioning> {
        self.conditioned(prompt, train, &TextOptions::default())
    }

    /// Encodes both halves of classifier-free guidance, with texts read by `options` and padded to the same number of
    /// chunks; the second is there if `guided`.
    ///
    /// # Errors
    /// As [`LatentDiffusion::condition`] and [`LatentDiffusion::unconditional`]; [`Error::Invalid`] for options that the
    /// model does not have.
    pub fn condition_text(
        &self,
        prompt: &Prompt,
        negative: Option<&Prompt>,
        guided: bool,
        options: &TextOptions,
    ) -> Result<(Conditioning, Option<Conditioning>)> {
        let reads_text = matches!(
            self.config.conditioning_key(),
            Some(ConditioningKey::Crossattn | ConditioningKey::Hybrid)
        );
        if !reads_text {
            options.refuse()?;
        }
        let mut options = *options;
        for text in std::iter::once(prompt).chain(negative.filter(|_| guided)) {
            options.chunks = options.chunks.max(self.conditioner.chunks(text, &options)?);
        }
        let cond = self.conditioned(prompt, false, &options)?;
        let uncond = guided.then(|| self.unconditioned(&cond, negative, &options)).transpose()?;
        Ok((cond, uncond))
    }

    fn conditioned(&self, prompt: &Prompt, train: bool, options: &TextOptions) -> Result<Conditioning> {
        let Some(key) = self.config.conditioning_key() else { return Ok(Conditioning::default()) };
        Ok(match key {
            ConditioningKey::Adm => {
                Conditioning { label: Some(self.labels(prompt, train)?), ..Conditioning::default() }
            }
            ConditioningKey::Concat => {
                Conditioning { concat: Some(self.concat(prompt, train)?), ..Conditioning::default() }
            }
            ConditioningKey::Crossattn => {
                let context = Some(self.context(prompt, train, options)?);
                Conditioning { context, ..Conditioning::default() }
            }
            ConditioningKey::Hybrid => Conditioning {
                concat: Some(match self.config.cond_stage_config {
                    ConditionerConfig::Hybrid(_) => self.concat(prompt, train)?,
                    _ => self.keyed_concat(prompt)?,
                }),
                context: Some(self.context(prompt, train, options)?),
                label: None,
            },
        })
    }

    /// The unconditional half of classifier-free guidance. Tokens and labels are those of `negative`, or of the empty
    /// prompt; what is concatenated to x_t stays as it is, as in every script of CompVis (`scripts/knn2img.py`:
    /// zeros for embeddings).
    ///
    /// # Errors
    /// [`Error::Invalid`] where the model has no unconditional form, or is conditioned on images alone; else as
    /// [`LatentDiffusion::condition`].
    pub fn unconditional(&self, cond: &Conditioning, negative: Option<&Prompt>) -> Result<Conditioning> {
        self.unconditioned(cond, negative, &TextOptions::default())
    }

    fn unconditioned(
        &self,
        cond: &Conditioning,
        negative: Option<&Prompt>,
        options: &TextOptions,
    ) -> Result<Conditioning> {
        let concat = cond.concat.as_ref().map(Tensor::shallow_clone);
        match (self.config.conditioning_key(), &cond.context, &cond.label) {
            (Some(ConditioningKey::Crossattn | ConditioningKey::Hybrid), Some(context), _) => {
                let uncond = match negative {
                    Some(prompt) => self.context(prompt, false, options)?,
                    None if matches!(
                        self.config.cond_stage_config,
                        ConditionerConfig::Identity | ConditionerConfig::ClipImage(_)
                    ) =>
                    {
                        context.zeros_like()
                    }
                    None => {
                        let null = self.conditioner.null_prompt(context.size()[0])?;
                        tokens(self.conditioner.condition_text(&null, options)?)?
                    }
                };
                if uncond.size() != context.size() {
                    return Err(Error::Shape {
                        what: "the negative prompt".into(),
                        expected: format!("{:?}", context.size()),
                        got: uncond.size(),
                    });
                }
                Ok(Conditioning { concat, context: Some(uncond), label: None })
            }
            (Some(ConditioningKey::Adm), _, Some(_)) => {
                let Some(prompt) = negative else {
                    return Err(Error::invalid(
                        "guidance: expected a scale of 1 or a negative prompt, since no label is unconditional",
                    ));
                };
                Ok(Conditioning { label: Some(self.labels(prompt, false)?), ..Conditioning::default() })
            }
            _ => Err(Error::invalid(
                "guidance: expected a scale of 1, since the model has no unconditional form",
            )),
        }
    }

    /// Tokens of the conditioner, `[B, L, D]`.
    fn context(&self, prompt: &Prompt, train: bool, options: &TextOptions) -> Result<Tensor> {
        let context = tokens(if train {
            self.conditioner.condition(prompt, true)?
        } else {
            self.conditioner.condition_text(prompt, options)?
        })?;
        match self.config.unet().context_dim {
            Some(width) if context.size().last() != Some(&width) => Err(Error::Shape {
                what: "the context".into(),
                expected: format!("[B, L, {width}]"),
                got: context.size(),
            }),
            _ => Ok(context),
        }
    }

    /// `[B]` labels for a U-Net with `num_classes`.
    fn labels(&self, prompt: &Prompt, train: bool) -> Result<Tensor> {
        let class = prompt.class.as_ref().ok_or(Error::MissingInput("class"))?;
        if class.dim() != 1 {
            return Err(Error::Shape { what: "class".into(), expected: "[B]".into(), got: class.size() });
        }
        let count = self.config.unet().num_classes.unwrap_or(0);
        let labels = class.to_kind(Kind::Int64).to_device(self.vs().device());
        // Reading values synchronizes with the GPU: cheap once per sample, not in every training step.
        if labels.numel() == 0 || (train && labels.device() != Device::Cpu) {
            return Ok(labels);
        }
        let (low, high) = (labels.min().int64_value(&[]), labels.max().int64_value(&[]));
        match if low < 0 { low } else { high } {
            wrong if (0..count).contains(&wrong) => Ok(labels),
            wrong => Err(Error::invalid(format!(
                "class: expected 0 to {}, the classes of the model, got {wrong}",
                count - 1
            ))),
        }
    }

    /// The condition concatenated to x_t in models without cross-attention, `[B, C', h, w]`.
    fn concat(&self, prompt: &Prompt, train: bool) -> Result<Tensor> {
        if self.config.cond_stage_config == ConditionerConfig::FirstStage {
            let (image, mask) = self.image_and_mask(prompt)?;
            // Masked pixels are black: 0 in `[0, 1]`. CompVis does not scale the latent (`scripts/inpaint.py:74`).
            let masked = (image + 1.) * (1. - &mask) - 1.;
            let scale = if self.config.scale_concat { self.scale_factor } else { 1. };
            let latent = self.mode(&masked) * scale;
            let mask = shrink(&mask, &latent) * 2. - 1.;
            return Ok(Tensor::cat(&[latent, mask], 1));
        }
        let concat = self.conditioner.condition(prompt, train)?.concat.ok_or(Error::MissingInput("image"))?;
        let expected = self.config.unet().in_channels - self.config.channels;
        four(&concat, "the concatenated condition", &format!("[B, {expected}, h, w]"), expected)?;
        Ok(concat)
    }

    /// The condition concatenated to x_t in hybrid models. Stable Diffusion's `scripts/inpaint_st.py`.
    ///
    /// CompVis samples the posterior of the masked image; here its mode is taken, so that the conditioning is
    /// deterministic.
    fn keyed_concat(&self, prompt: &Prompt) -> Result<Tensor> {
        let (image, mask) = self.image_and_mask(prompt)?;
        // Masked pixels are gray: 0 in `[-1, 1]`.
        let latent = self.mode(&(image * (1. - &mask))) * self.scale_factor;
        let parts: Vec<Tensor> = (self.config.concat_keys().iter())
            .map(|key| match key {
                ConcatKey::Mask => shrink(&mask, &latent),
                ConcatKey::MaskedImage => latent.shallow_clone(),
            })
            .collect();
        Ok(Tensor::cat(&parts, 1))
    }

    /// The image and its mask, 0 or 1.
    fn image_and_mask(&self, prompt: &Prompt) -> Result<(Tensor, Tensor)> {
        let to_f32 = |tensor: &Tensor| tensor.to_device(self.vs().device()).to_kind(Kind::Float);
        let channels = self.input().pixels()?;
        let image = to_f32(prompt.image.as_ref().ok_or(Error::MissingInput("image"))?);
        let image = self.input().convert(&image);
        let mask = to_f32(prompt.mask.as_ref().ok_or(Error::MissingInput("mask"))?);
        let [batch, _, height, width] =
            four(&image, "the image", &format!("[B, {channels}, H, W]"), channels)?;
        let expected = [batch, 1, height, width];
        if mask.size() != expected {
            return Err(Error::Shape {
                what: "the mask".into(),
                expected: format!("{expected:?}, the image's"),
                got: mask.size(),
            });
        }
        self.first_stage.check_image_size([height, width])?;
        Ok((image, mask.ge(0.5).to_kind(Kind::Float)))
    }

    /// The mode of an image's latent, unscaled, without gradients; for VQ the latent before quantization.
    fn mode(&self, image: &Tensor) -> Tensor {
        let image = self.to_model(image);
        tch::no_grad(|| self.first_stage.encode(&image).mode().to_kind(Kind::Float))
    }
}

/// Resizes `x` to the size of `like` by nearest neighbor, the default of `torch.nn.functional.interpolate`.
fn shrink(x: &Tensor, like: &Tensor) -> Tensor {
    x.upsample_nearest2d(&like.size()[2..], None, None)
}

fn tokens(cond: Conditioning) -> Result<Tensor> {
    cond.context.ok_or(Error::MissingInput("embedding"))
}

/// The size of a tensor `[B, channels, H, W]`, checked.
fn four(x: &Tensor, what: &str, expected: &str, channels: i64) -> Result<[i64; 4]> {
    match <[i64; 4]>::try_from(x.size()) {
        Ok(size) if size[1] == channels => Ok(size),
        _ => Err(Error::Shape { what: what.into(), expected: expected.into(), got: x.size() }),
    }
}
