//! `ldm compare-f`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ldm_study::study::StudyProfile;

use super::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct CompareFArgs {
    /// Study file, then overrides of its values.
    #[arg(value_name = "[CONFIG] [KEY=VALUE]", conflicts_with = "resume")]
    pub(crate) words: Vec<String>,
    /// Built-in study, instead of a file.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) profile: Option<ProfileArg>,
    /// Output folder. Default: runs/compare-f-NAME, after the file or the profile.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) out: Option<PathBuf>,
    /// Resume an interrupted study.
    #[arg(long, value_name = "DIR")]
    pub(crate) resume: Option<PathBuf>,
    /// Run a single part of the study in DIR, e.g. `4/diffusion`.
    #[arg(long, hide = true, requires = "resume")]
    pub(crate) part: Option<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Built-in studies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileArg {
    /// Synthetic scenes at 32 pixels, f = 1, 2, 4, 8; under an hour on two cores.
    Quick,
    /// CIFAR-10, f = 1, 2, 4, 8.
    Cifar,
    /// Photographs at 128 pixels, f = 2 to 32.
    Photos,
    /// `ImageNet` at 256 pixels as in the paper, f = 1 to 32.
    Paper,
}

impl ProfileArg {
    /// Returns the study's file.
    pub(crate) fn profile(self) -> StudyProfile {
        match self {
            Self::Quick => StudyProfile::Quick,
            Self::Cifar => StudyProfile::Cifar,
            Self::Photos => StudyProfile::Photos,
            Self::Paper => StudyProfile::Paper,
        }
    }
}
