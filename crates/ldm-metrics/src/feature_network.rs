//! Which network a set is looked at by.

use ldm_core::resources;
use ldm_core::{Error, Result};
use tch::{Device, Tensor};

use crate::inception::{FILE, RESOURCE};
use crate::{Inception, Lpips, Trunk};

/// A network whose features stand for images when sets are compared.
#[derive(Debug)]
pub enum FeatureNetwork {
    /// FID's: numbers are those of the field.
    Inception(Box<Inception>),
    /// VGG16's last features. As trained on ImageNet, or the stand-in of [`Lpips::random`]: a VGG16 that was never trained
    /// tells sets apart too (Naeem et al. 2020, §4.3), but its numbers compare with no others.
    Vgg(Box<Lpips>),
}

/// What it says of images.
#[derive(Debug)]
pub struct Features {
    /// `[B, D]` f32.
    pub pooled: Tensor,
    /// `[B, S]` f32, features that know where in the image they are, of Inception alone.
    pub spatial: Option<Tensor>,
    /// `[B, classes]` f32, of Inception alone.
    pub logits: Option<Tensor>,
}

impl FeatureNetwork {
    /// What a person calls them: [`FeatureNetwork::named`].
    pub const NAMES: [&str; 3] = ["inception", "vgg16", "random-vgg16"];

    /// The one a word means, from what `ldm weights get` installed.
    ///
    /// # Errors
    /// [`Error::Io`] with the command that installs it where it is not; [`Error::Invalid`] for another word.
    pub fn named(name: &str, device: Device) -> Result<Self> {
        match name {
            "inception" => Ok(Self::Inception(Box::new(Inception::published(device)?))),
            "vgg16" => Ok(Self::Vgg(Box::new(Lpips::published(device)?))),
            "random-vgg16" => Ok(Self::Vgg(Box::new(Lpips::random(device)))),
            _ => {
                let known = Self::NAMES.join(", ");
                Err(Error::invalid(format!("unknown features, expected one of {known}: {name}")))
            }
        }
    }

    /// Inception where `ldm weights get fid-inception` put it, else the stand-in; [`FeatureNetwork::name`] says which.
    ///
    /// # Errors
    /// As [`Inception::load`], when what is installed is damaged.
    pub fn published_or_random(device: Device) -> Result<Self> {
        let installed = resources::find(RESOURCE, FILE).is_some();
        Self::named(if installed { "inception" } else { "random-vgg16" }, device)
    }

    /// What every number should stand beside.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Inception(_) => "Inception-v3 2015-12-05, pool 3",
            Self::Vgg(net) => match net.trunk() {
                Trunk::Published => "VGG16, mean of relu5_3",
                Trunk::Random => "random VGG16, mean of relu5_3",
            },
        }
    }

    /// How many numbers stand for an image, D.
    pub fn size(&self) -> i64 {
        match self {
            Self::Inception(_) => 2048,
            Self::Vgg(_) => 512,
        }
    }

    /// Of the 8-bit images that would be saved.
    ///
    /// # Shapes
    /// - `images`: `[B, 3, H, W]` in `[-1, 1]`
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape; [`Error::Invalid`] for images that are too small.
    pub fn features(&self, images: &Tensor) -> Result<Features> {
        match self {
            Self::Inception(net) => {
                let features = net.features(images)?;
                let (spatial, logits) = (Some(features.spatial), Some(features.logits));
                Ok(Features { pooled: features.pooled, spatial, logits })
            }
            Self::Vgg(net) => {
                let saved = crate::pixel::eight_bit(images) / 127.5 - 1.;
                Ok(Features { pooled: net.deepest(&saved)?, spatial: None, logits: None })
            }
        }
    }
}
