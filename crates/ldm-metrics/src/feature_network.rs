//! Feature networks for comparing sets.

use ldm_core::resources;
use ldm_core::{Error, Result};
use tch::{Device, Tensor};

use crate::{EfficientNet, Inception, Lpips, Trunk, efficientnet, inception};

/// A network whose features represent images in comparisons of sets.
#[derive(Debug)]
pub enum FeatureNetwork {
    /// The network of FID: values are comparable with published ones.
    Inception(Box<Inception>),
    /// The last features of VGG16, trained on ImageNet or random ([`Lpips::random`]): an untrained VGG16 distinguishes sets
    /// too (Naeem et al. 2020, §4.3), but its values are not comparable with others.
    Vgg(Box<Lpips>),
    /// A small trained network: its values distinguish models better than those of a random one, and are not FID.
    EfficientNet(Box<EfficientNet>),
}

/// Features of images.
#[derive(Debug)]
pub struct Features {
    /// `[B, D]` f32.
    pub pooled: Tensor,
    /// `[B, S]` f32, spatial features; only of Inception.
    pub spatial: Option<Tensor>,
    /// `[B, classes]` f32; only of Inception.
    pub logits: Option<Tensor>,
}

impl FeatureNetwork {
    /// The names accepted by [`FeatureNetwork::named`].
    pub const NAMES: [&str; 4] = ["inception", "efficientnet-lite0", "vgg16", "random-vgg16"];

    /// Loads a network by name, with the weights installed by `ldm weights get`.
    ///
    /// # Errors
    /// [`Error::Io`] with the command that installs it, if it is not installed; [`Error::Invalid`] for another name.
    pub fn named(name: &str, device: Device) -> Result<Self> {
        match name {
            "inception" => Ok(Self::Inception(Box::new(Inception::published(device)?))),
            "efficientnet-lite0" => Ok(Self::EfficientNet(Box::new(EfficientNet::published(device)?))),
            "vgg16" => Ok(Self::Vgg(Box::new(Lpips::published(device)?))),
            "random-vgg16" => Ok(Self::Vgg(Box::new(Lpips::random(device)))),
            _ => {
                let known = Self::NAMES.join(", ");
                Err(Error::invalid(format!("features: expected one of {known}, got {name}")))
            }
        }
    }

    /// Loads Inception if `ldm weights get fid-inception` installed it, else EfficientNet-lite0 if it is installed, else the
    /// random VGG16; see [`FeatureNetwork::name`].
    ///
    /// # Errors
    /// As [`Inception::load`], if the installed file is damaged.
    pub fn published_or_random(device: Device) -> Result<Self> {
        let trained = [
            ("inception", inception::RESOURCE, inception::FILE),
            ("efficientnet-lite0", efficientnet::RESOURCE, efficientnet::FILE),
        ];
        let installed = trained.iter().find(|(_, name, file)| resources::find(name, file).is_some());
        Self::named(installed.map_or("random-vgg16", |(name, _, _)| name), device)
    }

    /// Returns the name to report next to every value.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Inception(_) => "Inception-v3 2015-12-05, pool 3",
            Self::EfficientNet(_) => "EfficientNet-lite0, mean of the last features",
            Self::Vgg(net) => match net.trunk() {
                Trunk::Published => "VGG16, mean of relu5_3",
                Trunk::Random => "random VGG16, mean of relu5_3",
            },
        }
    }

    /// Number of features per image, D.
    pub fn size(&self) -> i64 {
        match self {
            Self::Inception(_) => 2048,
            Self::EfficientNet(_) => 1280,
            Self::Vgg(_) => 512,
        }
    }

    /// Computes features of the images, rounded to 8 bits as on saving.
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
            Self::EfficientNet(net) => {
                Ok(Features { pooled: net.features(images)?, spatial: None, logits: None })
            }
            Self::Vgg(net) => {
                let saved = crate::pixel::eight_bit(images) / 127.5 - 1.;
                Ok(Features { pooled: net.deepest(&saved)?, spatial: None, logits: None })
            }
        }
    }
}
