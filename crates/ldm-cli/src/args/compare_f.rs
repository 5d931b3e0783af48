//! `ldm compare-f`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct CompareFArgs {
    /// The study's file; then values that replace its own.
    #[arg(value_name = "[CONFIG] [KEY=VALUE]", conflicts_with = "resume")]
    pub(crate) words: Vec<String>,
    /// A study that comes with the program, in place of a file.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) profile: Option<Profile>,
    /// The study's folder; named after the file or the profile where absent.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) out: Option<PathBuf>,
    /// Go on with a study where it was stopped.
    #[arg(long, value_name = "DIR")]
    pub(crate) resume: Option<PathBuf>,
    /// One part of the study in DIR, by itself: `4/diffusion`.
    #[arg(long, hide = true, requires = "resume")]
    pub(crate) part: Option<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// The studies that come with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Drawn scenes of 32 pixels, f = 1, 2, 4, 8; under an hour on two cores.
    Quick,
    /// CIFAR-10, f = 1, 2, 4, 8.
    Cifar,
    /// Photographs of 128 pixels, f = 2 to 32.
    Photos,
    /// `ImageNet` at 256 pixels as the paper has it, f = 1 to 32.
    Paper,
}

impl Profile {
    /// Its file.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Quick => include_str!("../profiles/quick.yaml"),
            Self::Cifar => include_str!("../profiles/cifar.yaml"),
            Self::Photos => include_str!("../profiles/photos.yaml"),
            Self::Paper => include_str!("../profiles/paper.yaml"),
        }
    }

    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Cifar => "cifar",
            Self::Photos => "photos",
            Self::Paper => "paper",
        }
    }
}
