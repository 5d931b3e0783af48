"""Seconds from a prompt to a PNG with Stable Diffusion v1: 512x512 pixels, 20 DDIM steps, guidance 7.5, random weights.

ldm is timed as a process: its start and loading are included. diffusers is timed with its weights in memory. They run
alternately, and a ratio is that of neighbors in time.

    python3 docs/tools/performance/image.py target/release/ldm --threads 2 --tokenizer VOCABULARY
"""
import argparse
import pathlib
import statistics
import subprocess
import tempfile
import time

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel

import peers

TOKENS = 77


def pipeline():
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    text = CLIPTextConfig(vocab_size=49408, bos_token_id=49406, eos_token_id=49407, **sizes)
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1)
    return diffusers.StableDiffusionPipeline(
        vae=peers.decoder(1)[0].eval(), text_encoder=CLIPTextModel(text).eval(), tokenizer=None, scheduler=scheduler,
        unet=peers.stable_diffusion(1)[0], safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def theirs(pipe, args, out):
    """The text encoder is called here, since the pipeline has no tokenizer; the time of tokenizing is left out."""
    with torch.inference_mode():
        prompt, negative = (pipe.text_encoder(torch.full((1, TOKENS), token))[0] for token in (320, 49407))
        settings = {"num_inference_steps": args.steps, "guidance_scale": 7.5, "height": 512, "width": 512}
        pipe(prompt_embeds=prompt, negative_prompt_embeds=negative, **settings).images[0].save(out)


def ours(folder, args, out):
    command = [args.ldm, "-q", "txt2img", "a red circle", "--model", folder, "--tokenizer", args.tokenizer, "--steps", str(args.steps)]
    command += ["--sampler", "ddim", "--guidance-scale", "7.5", "--height", "512", "--width", "512", "--out", out, "--force"]
    subprocess.run([*command, "--threads", str(args.threads)], check=True, stdout=subprocess.DEVNULL)


def timed(call, *arguments):
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ldm", help="the binary, built with --release")
    parser.add_argument("--tokenizer", required=True, help="CLIP's vocabulary (bpe_simple_vocab_16e6.txt.gz)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipe = pipeline()
    pipe.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as work:
        model, images, image = (str(pathlib.Path(work, name)) for name in ("model", "images", "image.png"))
        pipe.save_pretrained(model)
        rounds = []
        for number in range(args.rounds):
            rounds.append((timed(ours, model, args, images), timed(theirs, pipe, args, image)))
            print(f"round {number + 1}: ldm {rounds[-1][0]:.1f} s, diffusers {rounds[-1][1]:.1f} s", flush=True)
    ratio = statistics.median(mine / other for mine, other in rounds)
    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    print(f"{time.strftime('%Y-%m-%d')}, {versions}, {args.threads} threads, {args.steps} steps: ldm / diffusers {ratio:.3f}")


if __name__ == "__main__":
    main()
