//! The denoising U-Net of latent diffusion, and networks of its encoder half: the noisy classifier and the ControlNet.
//!
//! A [`UNetConfig`] (CompVis' own fields) becomes a [`Plan`] (every block, no tensors), and the plan a [`UNet`].
//! The network is independent of noise schedules and samplers: it takes a latent, a time and a
//! [`Conditioning`](ldm_core::Conditioning).
//!
//! [`infer_config`] infers the config from the names and shapes of a checkpoint; [`from_diffusers`], [`to_diffusers`] and
//! [`diffusers_layout`] convert from and to diffusers' `UNet2DModel` and `UNet2DConditionModel`.
//!
//! ```
//! use ldm_core::Conditioning;
//! use ldm_unet::{UNet, UNetConfig};
//! use tch::{Device, Kind, Tensor, nn::VarStore};
//!
//! let config: UNetConfig = serde_json::from_str(
//!     r#"{"in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": 1,
//!         "attention_resolutions": [2], "channel_mult": [1, 2], "num_heads": 4}"#,
//! )?;
//! let vs = VarStore::new(Device::Cpu);
//! let unet = UNet::new(&vs.root(), &config)?;
//! unet.check_size([8, 12])?;
//! let x = Tensor::zeros([1, 4, 8, 12], (Kind::Float, Device::Cpu));
//! let t = Tensor::from_slice(&[500_i64]);
//! assert_eq!(unet.forward(&x, &t, &Conditioning::default(), false).size(), [1, 4, 8, 12]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attention;
mod backbone_config;
mod block;
mod checkpointed;
mod conditioning_cache;
mod config;
mod control_keys;
mod control_net;
mod control_net_config;
mod conv_nd;
mod cross_attention;
mod detect;
mod encoder;
mod encoder_config;
mod evaluation;
mod from_diffusers;
mod hint_encoder;
mod keys;
mod parameters;
mod plan;
mod plan_builder;
mod pool;
mod published;
mod recorded;
mod recordings;
mod resample;
mod resblock;
mod serde_helpers;
mod time;
mod to_diffusers;
mod token_merging;
mod transformer;
mod unet;

pub use conditioning_cache::ConditioningCache;
pub use config::UNetConfig;
pub use control_keys::control_net_diffusers_layout;
pub use control_net::{ControlNet, ControlResiduals};
pub use control_net_config::ControlNetConfig;
pub use detect::infer_config;
pub use encoder::EncoderUNet;
pub use encoder_config::{EncoderUNetConfig, Pool};
pub use evaluation::{DeepFeatures, Evaluation};
pub use from_diffusers::from_diffusers;
pub use keys::diffusers_layout;
pub use plan::Plan;
pub use recordings::Recordings;
pub use to_diffusers::to_diffusers;
pub use unet::UNet;

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
