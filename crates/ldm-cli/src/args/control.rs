//! Flags of ControlNets.

use std::path::PathBuf;

use clap::Args;
use ldm::ControlFiles;

use super::numbers::{finite, unit_interval};

#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// Steer the images by a ControlNet of Stable Diffusion v1, a file or a diffusers folder; may be repeated, with one of
    /// the following for each.
    #[arg(long, value_name = "PATH")]
    controlnet: Vec<PathBuf>,
    /// Hint image of a ControlNet (edges, depth, …), used as it is and stretched to the size of the output.
    #[arg(long, value_name = "FILE")]
    control_image: Vec<PathBuf>,
    /// Scale of a ControlNet. Default: 1.
    #[arg(long, value_name = "S", value_parser = finite, allow_hyphen_values = true)]
    control_scale: Vec<f64>,
    /// Fraction of the steps at which a ControlNet starts. Default: 0.
    #[arg(long, value_name = "F", value_parser = unit_interval, allow_hyphen_values = true)]
    control_start: Vec<f64>,
    /// Fraction of the steps at which a ControlNet ends. Default: 1.
    #[arg(long, value_name = "F", value_parser = unit_interval, allow_hyphen_values = true)]
    control_end: Vec<f64>,
}

impl ControlArgs {
    /// Returns the files and values of the flags.
    pub(crate) fn files(&self) -> ControlFiles {
        ControlFiles {
            networks: self.controlnet.clone(),
            images: self.control_image.clone(),
            scales: self.control_scale.clone(),
            starts: self.control_start.clone(),
            ends: self.control_end.clone(),
        }
    }
}
