//! How good pictures are. Here now: [`psnr`], the fidelity of a reconstruction, and [`MeanStd`], which sums up a
//! metric over a set of pictures.

mod mean_std;
mod pixel;

pub use mean_std::MeanStd;
pub use pixel::psnr;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
