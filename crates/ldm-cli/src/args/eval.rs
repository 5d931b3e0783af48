//! `ldm eval`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use ldm_metrics::FeatureNetwork;

use super::{DataArgs, DeviceArgs, ModelArgs, OutputArgs, SamplingArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Evaluates the reconstructions of a first stage: PSNR, SSIM, MS-SSIM, LPIPS, and the distance of the sets (rFID).
    #[command(
        after_help = "Example:\n  ldm eval reconstruction photos.tar --size 128 --model runs/kl-f4 --out eval"
    )]
    Reconstruction(ReconstructionArgs),
    /// Compares generated images with real ones: FID, sFID, KID, precision, recall, density, coverage, Inception score.
    ///
    /// DATASET may be an .npz of reference statistics (pytorch-fid's, ADM's, or of --save-statistics), for the metrics that
    /// need no more.
    #[command(
        after_help = "Examples:\n  ldm eval generation outputs/sample-1 photos.tar --size 64 --json\n  ldm eval generation photos.tar --size 256 --save-statistics photos.npz\n  ldm eval generation --model runs/photos -n 5000 --steps 200 photos.npz"
    )]
    Generation(Box<GenerationArgs>),
    /// Compares generated images with their prompts: the CLIP score.
    #[command(after_help = "Example:\n  ldm eval clip-score outputs/txt2img-1 --clip clip-vit-base-patch16")]
    ClipScore(ClipScoreArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReconstructionArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) how: MeasureArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct GenerationArgs {
    /// The generated images: a folder (without its grid.png), or any dataset. --model generates them instead.
    #[arg(required_unless_present_any = ["model", "save_statistics"], conflicts_with = "model")]
    pub(crate) made: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) how: MeasureArgs,
    /// Write mean and covariance of DATASET's features to an .npz; generated images are optional then.
    #[arg(long, value_name = "FILE.npz")]
    pub(crate) save_statistics: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) maker: MakerArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Images generated on the fly, as by `ldm sample`.
#[derive(Debug, Args)]
pub(crate) struct MakerArgs {
    /// Generate the images with this model, unconditionally or of all its classes in turn: a run directory, a model folder, a
    /// diffusers folder, or a checkpoint file. As many as DATASET has, unless -n says how many.
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// The config of a checkpoint file without one next to it whose names do not identify the model.
    #[arg(long, requires = "model")]
    pub(crate) config: Option<PathBuf>,
    /// Use the weights as trained, without EMA.
    #[arg(long, requires = "model")]
    pub(crate) no_ema: bool,
    /// f32, bf16 or f16: the dtype of the weights.
    #[arg(long, requires = "model", default_value = "f32")]
    pub(crate) dtype: String,
    /// Image i uses seed + i.
    #[arg(long, requires = "model", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ClipScoreArgs {
    /// A folder of generated images (without its grid.png), with their prompts in them.
    pub(crate) made: PathBuf,
    /// A CLIP: a folder of transformers, with its tokenizer.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) clip: PathBuf,
    /// A file of prompts instead, one line per image in the order of their names.
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts_from: Option<PathBuf>,
    /// Images per batch.
    #[arg(long, default_value = "16")]
    pub(crate) batch_size: std::num::NonZeroUsize,
    /// One JSON document.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Evaluation of sets.
#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    /// Images of each set, the first of a fixed shuffle; all where absent.
    #[arg(short = 'n', long)]
    pub(crate) num_images: Option<usize>,
    /// Images per batch.
    #[arg(long, default_value_t = 16)]
    pub(crate) batch_size: usize,
    /// The network that compares sets: FID's Inception, VGG16, or a random VGG16, which needs no file.
    /// Without it Inception where `ldm weights get fid-inception` installed it, else random-vgg16.
    #[arg(long, value_parser = PossibleValuesParser::new(FeatureNetwork::NAMES))]
    pub(crate) features: Option<String>,
    /// One JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}
