//! How good pictures are. Here now: [`psnr`], the fidelity of a reconstruction, [`Lpips`], how alike two pictures look,
//! and [`MeanStd`], which sums up a metric over a set of pictures.

mod lpips;
mod mean_std;
mod pixel;
mod vgg;

pub use lpips::{Lpips, Trunk};
pub use mean_std::MeanStd;
pub use pixel::psnr;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
