//! Which network a set is looked at by.

use ldm_core::Result;
use ldm_core::resources;
use tch::{Device, Tensor};

use crate::inception::{FILE, RESOURCE};
use crate::{Inception, Lpips};

/// A network whose features stand for pictures when sets are compared.
#[derive(Debug)]
pub enum FeatureNetwork {
    /// FID's: numbers are those of the field.
    Inception(Box<Inception>),
    /// The stand-in of [`Lpips::random`]: a VGG16 that was never trained tells sets apart too (Naeem et al. 2020, §4.3), but
    /// its numbers compare with no others.
    RandomVgg(Box<Lpips>),
}

/// What it says of pictures.
#[derive(Debug)]
pub struct Features {
    /// `[B, D]` f32.
    pub pooled: Tensor,
    /// `[B, classes]` f32, of Inception alone.
    pub logits: Option<Tensor>,
}

impl FeatureNetwork {
    /// Inception where `ldm weights get fid-inception` put it, else the stand-in; [`FeatureNetwork::name`] says which.
    ///
    /// # Errors
    /// As [`Inception::load`], when what is installed is damaged.
    pub fn published_or_random(device: Device) -> Result<Self> {
        Ok(match resources::find(RESOURCE, FILE) {
            Some(_) => Self::Inception(Box::new(Inception::published(device)?)),
            None => Self::RandomVgg(Box::new(Lpips::random(device))),
        })
    }

    /// What every number should stand beside.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Inception(_) => "Inception-v3 2015-12-05, pool 3",
            Self::RandomVgg(_) => "random VGG16, mean of relu5_3",
        }
    }

    /// # Shapes
    /// - `pictures`: `[B, 3, H, W]` in `[-1, 1]`
    ///
    /// # Errors
    /// [`Error::Shape`](ldm_core::Error) for another shape; [`Error::Invalid`](ldm_core::Error) for pictures that are too
    /// small.
    pub fn features(&self, pictures: &Tensor) -> Result<Features> {
        match self {
            Self::Inception(net) => {
                let features = net.features(pictures)?;
                Ok(Features { pooled: features.pooled, logits: Some(features.logits) })
            }
            Self::RandomVgg(net) => Ok(Features { pooled: net.deepest(pictures)?, logits: None }),
        }
    }
}
