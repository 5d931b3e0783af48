//! What a person types.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (tch 0.24.0, libtorch 2.11.0)");

/// Latent diffusion models: train, sample, look inside.
#[derive(Debug, Parser)]
#[command(name = "ldm", version = VERSION, arg_required_else_help = true, propagate_version = true)]
pub(crate) struct Cli {
    /// No progress on stderr.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// More on stderr.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Says what works on this machine, and how to mend what does not.
    #[command(after_help = "Example:\n  ldm doctor --device cuda")]
    Doctor(DoctorArgs),
    /// Trains both stages on built-in scenes, samples, evaluates, and writes a report.
    #[command(after_help = "Example:\n  ldm demo --out demo")]
    Demo(DemoArgs),
    /// Looks at an image set.
    #[command(subcommand)]
    Data(DataCommand),
    /// Trains what a config describes: a first stage, or a diffusion model on top of one.
    #[command(
        after_help = "Examples:\n  ldm train configs/cifar/first-stage-kl-f2.yaml --run runs/cifar-f2\n  ldm train configs/cifar/diffusion-kl-f2.yaml train.steps=2000\n  ldm train --resume runs/cifar-f2"
    )]
    Train(TrainArgs),
    /// Samples pictures, unconditionally or by class.
    #[command(
        after_help = "Example:\n  ldm sample --model runs/scenes --class circle,star -n 8 --guidance-scale 2"
    )]
    Sample(SampleArgs),
    /// Writes the latents of pictures.
    #[command(
        after_help = "Example:\n  ldm encode photo.jpg --model runs/kl-f4 --center-crop 128 --out latents.safetensors"
    )]
    Encode(EncodeArgs),
    /// Makes pictures of latents.
    #[command(after_help = "Example:\n  ldm decode latents.safetensors --model runs/kl-f4 --out decoded")]
    Decode(DecodeArgs),
    /// Sends pictures through the first stage and back, and says how much was lost.
    #[command(
        after_help = "Example:\n  ldm reconstruct *.jpg --model runs/kl-f4 --center-crop 128 --out rec"
    )]
    Reconstruct(ReconstructArgs),
    /// Says what a checkpoint, a model folder, a run, or a generated PNG holds. Runs no code from it.
    #[command(after_help = "Example:\n  ldm inspect model.ckpt --config config.yaml")]
    Inspect(InspectArgs),
}

/// Where and how to compute.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceArgs {
    /// auto, cpu, cuda or cuda:N; auto takes CUDA when it works.
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// Threads of one operation on the CPU.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
}

/// Which model, on what.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArgs {
    /// A run directory, a model folder, or a checkpoint file.
    #[arg(long)]
    pub(crate) model: PathBuf,
    /// The config of a checkpoint file that has none beside it.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Take the running average of the weights where the file holds both (this is the default).
    #[arg(long, overrides_with = "no_ema")]
    pub(crate) ema: bool,
    /// Take the weights as trained.
    #[arg(long)]
    pub(crate) no_ema: bool,
    /// f32, bf16 or f16: the dtype of the weights.
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: String,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where everything goes.
    #[arg(long, default_value = "outputs/demo")]
    pub(crate) out: PathBuf,
    /// Start again where there is a demo already.
    #[arg(long)]
    pub(crate) force: bool,
    /// Overrides of the first stage's config.
    #[arg(long = "first-stage", value_name = "KEY=VALUE")]
    pub(crate) first_stage: Vec<String>,
    /// Overrides of the diffusion model's config.
    #[arg(long = "diffusion", value_name = "KEY=VALUE")]
    pub(crate) diffusion: Vec<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Counts, sizes, classes, captions, and bad files by name.
    #[command(after_help = "Example:\n  ldm data info photos.tar")]
    Info {
        #[command(flatten)]
        data: DataArgs,
        /// One JSON document.
        #[arg(long)]
        json: bool,
    },
    /// A contact sheet as the model sees it.
    #[command(after_help = "Example:\n  ldm data preview photos.tar --size 128 --out grid.png")]
    Preview {
        #[command(flatten)]
        data: DataArgs,
        /// Where it goes.
        #[arg(long)]
        out: PathBuf,
        /// Pictures on it.
        #[arg(short = 'n', long, default_value_t = 32)]
        num_images: usize,
        /// Replace an existing file.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// A folder, a .tar or .tar.gz, `scenes`, or a config whose training set it is.
    pub(crate) dataset: PathBuf,
    /// Prepare pictures at this size (smallest side resized, centre cropped).
    #[arg(long)]
    pub(crate) size: Option<u32>,
    /// Fail on the first unreadable picture.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// What to train.
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    pub(crate) config: Option<PathBuf>,
    /// Values that replace the config's.
    #[arg(value_name = "KEY=VALUE", conflicts_with = "resume")]
    pub(crate) overrides: Vec<String>,
    /// The run's folder; named after the config where absent.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) run: Option<PathBuf>,
    /// Go on with a run from its newest complete checkpoint.
    #[arg(long, value_name = "DIR")]
    pub(crate) resume: Option<PathBuf>,
    /// Fail on the first unreadable picture.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Solvers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SamplerName {
    /// Ancestral, every level by default.
    Ddpm,
    /// Deterministic at eta 0.
    Ddim,
}

#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A class by number or name, or several, taken in turn.
    #[arg(long, value_delimiter = ',')]
    pub(crate) class: Vec<String>,
    /// Pictures.
    #[arg(short = 'n', long, default_value_t = 1)]
    pub(crate) num_images: usize,
    /// Pictures at once.
    #[arg(long, default_value_t = 8)]
    pub(crate) batch_size: usize,
    /// Picture i uses seed + i.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// The solver.
    #[arg(long, value_enum, default_value_t = SamplerName::Ddim)]
    pub(crate) sampler: SamplerName,
    /// How ddim spaces its levels: uniform, quad or leading.
    #[arg(long)]
    pub(crate) spacing: Option<String>,
    /// Steps; every level for ddpm, else 50.
    #[arg(long)]
    pub(crate) steps: Option<usize>,
    /// Share of fresh noise in a ddim step, 0 to 1.
    #[arg(long)]
    pub(crate) eta: Option<f64>,
    /// Classifier-free guidance; 1 is none.
    #[arg(long, default_value_t = 1.)]
    pub(crate) guidance_scale: f64,
    /// Height in pixels.
    #[arg(long, requires = "width")]
    pub(crate) height: Option<i64>,
    /// Width in pixels.
    #[arg(long, requires = "height")]
    pub(crate) width: Option<i64>,
    /// Unit Gaussian noise to start from: safetensors, tensor `noise` [B, C, h, w] f32.
    #[arg(long)]
    pub(crate) init_noise: Option<PathBuf>,
    /// Where the sampler's latents go: safetensors, tensor `latents` [B, C, h, w] f32.
    #[arg(long)]
    pub(crate) save_latents: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// One JSON line an image.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where pictures go.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Folder; outputs/COMMAND-N where absent.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Replace existing files.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Pictures for a first stage.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// Pictures.
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// Resize the smallest side first.
    #[arg(long, value_name = "N")]
    pub(crate) resize: Option<u32>,
    /// Cut a centred square of this side.
    #[arg(long, value_name = "N")]
    pub(crate) center_crop: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct EncodeArgs {
    #[command(flatten)]
    pub(crate) images: ImageArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Where the latents go: safetensors, tensor `latents` [B, C, h, w] f32, unscaled.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Draw from the posterior; the mode where absent.
    #[arg(long)]
    pub(crate) sample: bool,
    /// Picture i draws with seed + i.
    #[arg(long, default_value_t = 0, requires = "sample")]
    pub(crate) seed: u64,
    /// Replace an existing file.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    /// Latents as `ldm encode` writes them.
    pub(crate) latents: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Where the pixels go as well: safetensors, tensor `pixels` [B, 3, H, W] in [-1, 1], not clamped.
    #[arg(long)]
    pub(crate) save_pixels: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReconstructArgs {
    #[command(flatten)]
    pub(crate) images: ImageArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// One JSON line an image.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A checkpoint, a model folder, a run, or a PNG made by ldm.
    pub(crate) path: PathBuf,
    /// A config to hold the names and shapes against.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// One JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}
