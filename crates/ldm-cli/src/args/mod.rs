//! Command-line arguments, one file per group of commands.

mod bench;
mod classifier;
mod compare_f;
mod control;
mod convert;
mod data;
mod demo;
mod eval;
mod generate;
mod images;
mod man;
mod model;
mod numbers;
mod redo;
mod retrieve;
mod sample;
mod serve;
mod tasks;
mod train;
mod txt2img;
mod weights;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use ldm::EMBEDDED_MODEL;

pub(crate) use bench::{BenchArgs, StageArg};
pub(crate) use classifier::ClassifierArgs;
pub(crate) use compare_f::CompareFArgs;
pub(crate) use control::ControlArgs;
pub(crate) use convert::{ConvertArgs, ModelFormat};
pub(crate) use data::{DataArgs, DataCommand};
pub(crate) use demo::DemoArgs;
pub(crate) use eval::{
    ClipScoreArgs, EvalCommand, GenerationArgs, GeneratorArgs, MetricArgs, PairedArgs, RateDistortionArgs,
    ReconstructionArgs,
};
pub(crate) use generate::{GenerateArgs, SamplingArgs};
pub(crate) use images::{DecodeArgs, EncodeArgs, OutputArgs, ReconstructArgs, SizeArgs};
pub(crate) use man::{CompletionsArgs, ManArgs};
pub(crate) use model::{DeviceArgs, DoctorArgs, InspectArgs, ModelArgs};
pub(crate) use numbers::unit_interval;
pub(crate) use redo::RedoArgs;
pub(crate) use retrieve::{IndexArgs, Knn2imgArgs, QueryArgs, RetrieveCommand};
pub(crate) use sample::SampleArgs;
pub(crate) use serve::ServeArgs;
pub(crate) use tasks::{
    FillArgs, Img2imgArgs, InpaintArgs, Layout2imgArgs, OutpaintArgs, Semantic2imgArgs, UpscaleArgs,
};
pub(crate) use train::TrainArgs;
pub(crate) use txt2img::{TextArgs, Txt2imgArgs};
pub(crate) use weights::{GetArgs, WeightsCommand};

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (tch 0.24.0, libtorch 2.11.0)");

/// Latent diffusion models: training, sampling, evaluation, inspection.
#[derive(Debug, Parser)]
#[command(name = "ldm", version = VERSION, arg_required_else_help = true, propagate_version = true)]
pub(crate) struct Cli {
    /// Print no progress on stderr.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print details on stderr.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Parses the arguments of this program.
    pub(crate) fn from_args() -> Result<Self, clap::Error> {
        Self::from_words(std::env::args_os())
    }

    /// Parses the name of the program and its arguments.
    pub(crate) fn from_words(
        words: impl Iterator<Item: Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::complete().try_get_matches_from(words)?)
    }

    /// Returns the commands and options, with the model inside the program as a default.
    pub(crate) fn complete() -> clap::Command {
        let mut command = with_negative_numbers(Self::command());
        for name in ["txt2img", "img2img", "inpaint"].iter().filter(|_| EMBEDDED_MODEL.is_some()) {
            let by_default = |model: clap::Arg| model.required(false).default_value(EMBEDDED_MODEL);
            command = command.mut_subcommand(name, |command| command.mut_arg("model", by_default));
        }
        if EMBEDDED_MODEL.is_some() {
            let by_default = |models: clap::Arg| models.required(false).default_value(EMBEDDED_MODEL);
            command = command.mut_subcommand("serve", |command| command.mut_arg("models", by_default));
        }
        command
    }
}

/// Returns whether the words of this program that led to `request` are `--version --verbose`, in any order.
pub(crate) fn asks_for_details(request: &clap::Error) -> bool {
    request.kind() == ErrorKind::DisplayVersion
        && std::env::args_os().any(|word| ["-v", "--verbose", "-Vv", "-vV"].iter().any(|flag| word == *flag))
}

/// Makes `-5` after any option its value instead of an unknown option, so that the option itself judges it.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_action() {
        clap::ArgAction::Set | clap::ArgAction::Append => arg.allow_negative_numbers(true),
        _ => arg,
    });
    command.mut_subcommands(with_negative_numbers)
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Checks versions and devices of this machine, and suggests fixes.
    #[command(visible_alias = "self-check", after_help = "Example:\n  ldm doctor --device cuda")]
    Doctor(DoctorArgs),
    /// Trains both stages on synthetic scenes, samples, evaluates, and writes a report.
    #[command(after_help = "Example:\n  ldm demo --out demo")]
    Demo(DemoArgs),
    /// Inspects an image dataset.
    #[command(subcommand)]
    Data(DataCommand),
    /// Trains the model of a config: a first stage, a diffusion model in its latent space, or a guiding classifier.
    #[command(
        after_help = "Examples:\n  ldm train configs/experiments/cifar/first-stage-kl-f2.yaml --run runs/cifar-f2\n  ldm train configs/experiments/cifar/diffusion-kl-f2.yaml train.steps=2000\n  ldm train --resume runs/cifar-f2\n  ldm train --resume runs/cifar-f2/checkpoints/step-0001000 train.learning_rate=1e-5\n  ldm train configs/experiments/cifar/diffusion-kl-f2.yaml --nproc 2"
    )]
    Train(TrainArgs),
    /// Samples images, unconditionally or by class.
    #[command(
        after_help = "Examples:\n  ldm sample --model runs/scenes --class circle,star -n 8 --guidance-scale 2\n  ldm sample --model runs/unconditional --class star --classifier runs/classifier --classifier-scale 4"
    )]
    Sample(SampleArgs),
    /// Generates images from text.
    #[command(
        after_help = "Examples:\n  ldm txt2img \"a red circle\" --model runs/text -n 4\n  ldm txt2img \"a red circle\" --model sd-v1-4 --hires 2 --hires-strength 0.6\n  ldm txt2img --prompts-from prompts.txt --model sd-v1-4.ckpt --config configs/models/stable-diffusion/v1.yaml"
    )]
    Txt2img(Txt2imgArgs),
    /// Generates images from a text or an image and its neighbors in a database, with a retrieval-augmented model.
    #[command(
        after_help = "Example:\n  ldm knn2img \"a red car\" --model rdm768x768.ckpt --config configs/models/latent-diffusion/retrieval-768.yaml --clip clip-vit-large-patch14 --index photos.safetensors"
    )]
    Knn2img(Knn2imgArgs),
    /// Makes and searches databases of image embeddings.
    #[command(subcommand)]
    Retrieve(RetrieveCommand),
    /// Generates images from an image and text.
    #[command(
        after_help = "Example:\n  ldm img2img sketch.png \"a red circle\" --model runs/text --strength 0.6"
    )]
    Img2img(Img2imgArgs),
    /// Inpaints the white area of a mask; the rest of the image is unchanged.
    #[command(
        after_help = "Example:\n  ldm inpaint photo.png mask.png --model runs/photos-inpainting -n 4 --feather 4"
    )]
    Inpaint(InpaintArgs),
    /// Extends an image past its borders; the image itself is unchanged.
    #[command(
        after_help = "Example:\n  ldm outpaint photo.png --left 16 --right 16 --model runs/photos-inpainting"
    )]
    Outpaint(OutpaintArgs),
    /// Upscales an image by the factor of the first stage, commonly 4.
    #[command(after_help = "Example:\n  ldm upscale small.png --model runs/photos-super-resolution")]
    Upscale(UpscaleArgs),
    /// Generates images from labeled boxes.
    #[command(
        after_help = "Example:\n  ldm layout2img aquarium_val.json --image IMG_2275.jpg --model runs/aquarium-layout"
    )]
    Layout2img(Layout2imgArgs),
    /// Generates images from a semantic map.
    #[command(after_help = "Example:\n  ldm semantic2img map.png --model runs/camvid-semantic -n 4")]
    Semantic2img(Semantic2imgArgs),
    /// Makes an image again from the parameters in its PNG.
    #[command(after_help = "Example:\n  ldm redo outputs/txt2img-1/00000.png --steps 100")]
    Redo(RedoArgs),
    /// Encodes images into latents.
    #[command(
        after_help = "Example:\n  ldm encode photo.jpg --model runs/kl-f4 --center-crop 128 --out latents.safetensors"
    )]
    Encode(EncodeArgs),
    /// Decodes latents into images.
    #[command(after_help = "Example:\n  ldm decode latents.safetensors --model runs/kl-f4 --out decoded")]
    Decode(DecodeArgs),
    /// Encodes and decodes images, and reports the PSNR.
    #[command(
        after_help = "Example:\n  ldm reconstruct *.jpg --model runs/kl-f4 --center-crop 128 --out rec"
    )]
    Reconstruct(ReconstructArgs),
    /// Evaluates a first stage, a diffusion model or generated images.
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Compares downsampling factors f on the same data and budget, and writes tables, plots and a report.
    #[command(
        name = "compare-f",
        after_help = "Examples:\n  ldm compare-f --profile quick --out study\n  ldm compare-f study.yaml study.budget.diffusion.seconds=600\n  ldm compare-f --resume study"
    )]
    CompareF(CompareFArgs),
    /// Times a model on this device: seconds, throughput, peak memory, share of the machine's peak.
    #[command(
        after_help = "Examples:\n  ldm bench --model runs/scenes\n  ldm bench unet --config configs/models/stable-diffusion/v1.yaml --batch-size 2 --json\n  ldm bench train --config configs/experiments/tiny/diffusion-class.yaml --batch-size 32 --operations"
    )]
    Bench(BenchArgs),
    /// Shows the contents of a checkpoint, a model folder, a run, or a generated PNG. Runs no code from it.
    #[command(after_help = "Example:\n  ldm inspect model.ckpt --config config.yaml")]
    Inspect(InspectArgs),
    /// Converts a model between a folder of ldm, a CompVis checkpoint and a diffusers folder, or merges two.
    #[command(
        after_help = "Examples:\n  ldm convert runs/text text-diffusers --to diffusers\n  ldm convert sd-v1-4.ckpt sd-v1-4 --to ldm --dtype f16\n  ldm convert stable-diffusion-v1-5 v1-5.ckpt --to compvis\n  ldm convert a.ckpt merged --to ldm --merge b.ckpt --weight 0.3"
    )]
    Convert(ConvertArgs),
    /// Serves models over HTTP: a page, AUTOMATIC1111's API, OpenAI's images API, and an own one.
    #[command(
        after_help = "Examples:\n  ldm serve\n  ldm serve sd-v1-4 inpainting=runs/photos-inpainting --loaded-models 2\n  ldm serve sd-v1-4 --host 0.0.0.0 --api-key SECRET --runs runs"
    )]
    Serve(ServeArgs),
    /// Installs additional files of models and metrics: tokenizers, the networks of LPIPS and FID.
    #[command(subcommand)]
    Weights(WeightsCommand),
    /// Prints the completions of a shell.
    #[command(
        after_help = "Example:\n  ldm completions bash > ~/.local/share/bash-completion/completions/ldm"
    )]
    Completions(CompletionsArgs),
    /// Prints the manual page, or writes a page for each command.
    #[command(after_help = "Examples:\n  ldm man | man -l -\n  ldm man --out ~/.local/share/man/man1")]
    Man(ManArgs),
}
