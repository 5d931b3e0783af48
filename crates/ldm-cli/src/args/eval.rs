//! `ldm eval`.

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use ldm_metrics::FeatureNetwork;

use super::numbers::image_count;
use super::{DataArgs, DeviceArgs, ModelArgs, OutputArgs, SamplingArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Evaluates the reconstructions of a first stage: PSNR, SSIM, MS-SSIM, LPIPS, rFID.
    #[command(
        after_help = "Example:\n  ldm eval reconstruction photos.tar --size 128 --model runs/kl-f4 --out eval"
    )]
    Reconstruction(ReconstructionArgs),
    /// Compares generated images with real ones: FID, sFID, KID, precision, recall, density, coverage, Inception score.
    ///
    /// DATASET may be an .npz of reference statistics (by pytorch-fid, ADM or --save-statistics), for the metrics that
    /// need only statistics.
    #[command(
        after_help = "Examples:\n  ldm eval generation outputs/sample-1 photos.tar --size 64 --json\n  ldm eval generation photos.tar --size 256 --save-statistics photos.npz\n  ldm eval generation --model runs/photos -n 5000 --steps 200 photos.npz"
    )]
    Generation(Box<GenerationArgs>),
    /// Compares generated images with the originals of the same names: PSNR, SSIM, MS-SSIM, LPIPS.
    ///
    /// For super-resolution and inpainting. Names are compared without their extensions; images without a counterpart are
    /// counted and left out.
    #[command(
        after_help = "Examples:\n  ldm eval paired upscaled originals\n  ldm eval paired filled originals --mask masks --json"
    )]
    Paired(PairedArgs),
    /// Computes the CLIP score of generated images and their prompts.
    #[command(after_help = "Example:\n  ldm eval clip-score outputs/txt2img-1 --clip clip-vit-base-patch16")]
    ClipScore(ClipScoreArgs),
    /// Computes the rate-distortion curve of a diffusion model: bits per dimension against the error of the predicted image.
    ///
    /// Writes results.json, curve.csv and curve.svg. The images and their conditions are DATASET's.
    #[command(
        after_help = "Example:\n  ldm eval rate-distortion config.yaml --model runs/photos -n 64 --steps 50 --out curve"
    )]
    RateDistortion(RateDistortionArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReconstructionArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) metrics: MetricArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct GenerationArgs {
    /// Generated images: a folder (its grid.png is skipped) or any dataset; or generate them with --model.
    #[arg(required_unless_present_any = ["model", "save_statistics"], conflicts_with = "model")]
    pub(crate) generated: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) metrics: MetricArgs,
    /// Write the mean and covariance of DATASET's features to an .npz; generated images are optional then.
    #[arg(long, value_name = "FILE.npz")]
    pub(crate) save_statistics: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) generator: GeneratorArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Images generated on the fly, as by `ldm sample`.
#[derive(Debug, Args)]
pub(crate) struct GeneratorArgs {
    /// Generate the images with this model, cycling through its classes if it has any: a run directory, a model folder,
    /// a diffusers folder, a checkpoint file, or emoji, the model inside the program. Generates as many images as DATASET has
    /// unless -n is given.
    #[arg(long, value_parser = PathBufValueParser::new().try_map(ldm::model_path))]
    pub(crate) model: Option<PathBuf>,
    /// Config of a checkpoint file that has none next to it, if it cannot be inferred from the tensor names.
    #[arg(long, requires = "model")]
    pub(crate) config: Option<PathBuf>,
    /// Use the weights without EMA.
    #[arg(long, requires = "model")]
    pub(crate) no_ema: bool,
    /// Dtype of the weights: f32, bf16, f16, or auto: bf16 on GPUs and CPUs that multiply it, else f32.
    #[arg(long, requires = "model", default_value = "f32")]
    pub(crate) dtype: String,
    /// Seed; image i uses SEED + i.
    #[arg(long, requires = "model", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PairedArgs {
    /// Generated images: a folder (its grid.png is skipped) or any dataset.
    pub(crate) generated: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Measure only the filled region: masks NAME.png or NAME_mask.png, at least 50 % gray where NAME was filled.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) mask: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RateDistortionArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Images, the first of a fixed shuffle. Default: all.
    #[arg(short = 'n', long, value_parser = image_count)]
    pub(crate) num_images: Option<usize>,
    /// Images per batch.
    #[arg(long, default_value_t = 16, value_parser = image_count)]
    pub(crate) batch_size: usize,
    /// Noise levels of the code, each a pass of the network and of the decoder; all timesteps of the model give its bound.
    #[arg(long, default_value_t = 100)]
    pub(crate) steps: usize,
    /// Seed; image i of the shuffle uses SEED + i.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ClipScoreArgs {
    /// Folder of generated images with their prompts in them; its grid.png is skipped.
    pub(crate) generated: PathBuf,
    /// CLIP model: a transformers folder with its tokenizer.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) clip: PathBuf,
    /// Read the prompts from this file, one line per image in the order of the file names.
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts_from: Option<PathBuf>,
    /// Fail on the first unreadable image.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Images per batch.
    #[arg(long, default_value = "16")]
    pub(crate) batch_size: std::num::NonZeroUsize,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Flags of the metrics.
#[derive(Debug, Args)]
pub(crate) struct MetricArgs {
    /// Images per set, the first of a fixed shuffle. Default: all.
    #[arg(short = 'n', long, value_parser = image_count)]
    pub(crate) num_images: Option<usize>,
    /// Images per batch.
    #[arg(long, default_value_t = 16, value_parser = image_count)]
    pub(crate) batch_size: usize,
    /// Feature network: FID's Inception, the smaller EfficientNet-lite0, VGG16, or a random VGG16, which needs no file.
    /// Default: the first of them that `ldm weights get` installed (fid-inception, efficientnet-lite0), else random-vgg16.
    #[arg(long, value_parser = PossibleValuesParser::new(FeatureNetwork::NAMES))]
    pub(crate) features: Option<String>,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}
