//! What a person types: one file a group of commands.

mod bench;
mod classifier;
mod compare_f;
mod convert;
mod data;
mod demo;
mod eval;
mod generate;
mod images;
mod model;
mod numbers;
mod sample;
mod tasks;
mod train;
mod txt2img;
mod weights;

use clap::{Parser, Subcommand};

pub(crate) use bench::{BenchArgs, Stage};
pub(crate) use classifier::ClassifierArgs;
pub(crate) use compare_f::CompareFArgs;
pub(crate) use convert::{ConvertArgs, Form};
pub(crate) use data::{DataArgs, DataCommand};
pub(crate) use demo::DemoArgs;
pub(crate) use eval::{
    ClipScoreArgs, EvalCommand, GenerationArgs, MakerArgs, MeasureArgs, ReconstructionArgs,
};
pub(crate) use generate::{GenerateArgs, SamplingArgs};
pub(crate) use images::{DecodeArgs, EncodeArgs, OutputArgs, ReconstructArgs, SizeArgs};
pub(crate) use model::{DeviceArgs, DoctorArgs, InspectArgs, ModelArgs};
pub(crate) use numbers::{Interval, VariationStrength, tile_size, unit_interval};
pub(crate) use sample::SampleArgs;
pub(crate) use tasks::{
    FillArgs, Img2imgArgs, InpaintArgs, Layout2imgArgs, OutpaintArgs, Semantic2imgArgs, UpscaleArgs,
};
pub(crate) use train::TrainArgs;
pub(crate) use txt2img::{TextArgs, Txt2imgArgs};
pub(crate) use weights::{GetArgs, WeightsCommand};

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
    /// Trains what a config describes: a first stage, a diffusion model on top of one, or a classifier that guides one.
    #[command(
        after_help = "Examples:\n  ldm train configs/cifar/first-stage-kl-f2.yaml --run runs/cifar-f2\n  ldm train configs/cifar/diffusion-kl-f2.yaml train.steps=2000\n  ldm train --resume runs/cifar-f2\n  ldm train configs/cifar/diffusion-kl-f2.yaml --nproc 2"
    )]
    Train(TrainArgs),
    /// Samples images, unconditionally or by class.
    #[command(
        after_help = "Examples:\n  ldm sample --model runs/scenes --class circle,star -n 8 --guidance-scale 2\n  ldm sample --model runs/unconditional --class star --classifier runs/classifier --classifier-scale 4"
    )]
    Sample(SampleArgs),
    /// Makes images of what a text says.
    #[command(
        after_help = "Examples:\n  ldm txt2img \"a red circle\" --model runs/text -n 4\n  ldm txt2img --prompts-from prompts.txt --model sd-v1-4.ckpt --config configs/stable-diffusion/v1.yaml"
    )]
    Txt2img(Txt2imgArgs),
    /// Draws an image again, as a text says.
    #[command(
        after_help = "Example:\n  ldm img2img sketch.png \"a red circle\" --model runs/text --strength 0.6"
    )]
    Img2img(Img2imgArgs),
    /// Fills the white part of a mask in an image, and leaves the rest as it is.
    #[command(
        after_help = "Example:\n  ldm inpaint photo.png mask.png --model runs/photos-inpainting -n 4 --feather 4"
    )]
    Inpaint(InpaintArgs),
    /// Goes on with an image past its borders, and leaves the image as it is.
    #[command(
        after_help = "Example:\n  ldm outpaint photo.png --left 16 --right 16 --model runs/photos-inpainting"
    )]
    Outpaint(OutpaintArgs),
    /// Makes an image as many times as large as the first stage makes latents small, commonly four.
    #[command(after_help = "Example:\n  ldm upscale small.png --model runs/photos-super-resolution")]
    Upscale(UpscaleArgs),
    /// Makes images of labeled boxes.
    #[command(
        after_help = "Example:\n  ldm layout2img aquarium_val.json --image IMG_2275.jpg --model runs/aquarium-layout"
    )]
    Layout2img(Layout2imgArgs),
    /// Makes images of a map of classes.
    #[command(after_help = "Example:\n  ldm semantic2img map.png --model runs/camvid-semantic -n 4")]
    Semantic2img(Semantic2imgArgs),
    /// Writes the latents of images.
    #[command(
        after_help = "Example:\n  ldm encode photo.jpg --model runs/kl-f4 --center-crop 128 --out latents.safetensors"
    )]
    Encode(EncodeArgs),
    /// Makes images of latents.
    #[command(after_help = "Example:\n  ldm decode latents.safetensors --model runs/kl-f4 --out decoded")]
    Decode(DecodeArgs),
    /// Sends images through the first stage and back, and says how much was lost.
    #[command(
        after_help = "Example:\n  ldm reconstruct *.jpg --model runs/kl-f4 --center-crop 128 --out rec"
    )]
    Reconstruct(ReconstructArgs),
    /// Measures a first stage, or images that were made.
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Compares downsampling factors: the same data and budget for each f; a table, plots, a report.
    #[command(
        name = "compare-f",
        after_help = "Examples:\n  ldm compare-f --profile quick --out study\n  ldm compare-f study.yaml study.budget.diffusion.seconds=600\n  ldm compare-f --resume study"
    )]
    CompareF(CompareFArgs),
    /// Times a model on this device: seconds, throughput, peak memory, and how far from what the machine can do.
    #[command(
        after_help = "Examples:\n  ldm bench --model runs/scenes\n  ldm bench unet --config configs/stable-diffusion/v1.yaml --batch-size 2 --json\n  ldm bench train --config configs/cifar/diffusion-kl-f2.yaml --batch-size 32 --operations"
    )]
    Bench(BenchArgs),
    /// Says what a checkpoint, a model folder, a run, or a generated PNG holds. Runs no code from it.
    #[command(after_help = "Example:\n  ldm inspect model.ckpt --config config.yaml")]
    Inspect(InspectArgs),
    /// Makes a folder of ours, a CompVis checkpoint or a diffusers folder of any model. Every value stays what it is.
    #[command(
        after_help = "Examples:\n  ldm convert runs/text text-diffusers --to diffusers\n  ldm convert sd-v1-4.ckpt sd-v1-4 --to ldm --dtype f16\n  ldm convert stable-diffusion-v1-5 v1-5.ckpt --to compvis"
    )]
    Convert(ConvertArgs),
    /// Files that models and metrics need beside themselves: tokenizers, the networks of LPIPS and FID.
    #[command(subcommand)]
    Weights(WeightsCommand),
}
