#!/usr/bin/env python3
"""Records a SHA-256 of everything deterministic that the command line makes, and compares two such records.

    python3 docs/tools/same_bytes.py record target/release/ldm before.json
    python3 docs/tools/same_bytes.py record target/release/ldm after.json
    python3 docs/tools/same_bytes.py compare before.json after.json

`record` works in a temporary folder and needs no data set: it writes the configs, the tokenizers and the input images
itself, trains 20 steps of each kind of model on the built-in synthetic scenes, samples from them with every command,
and hashes weights, logged losses, latents and images (with their text chunks). `compare` prints a line for each file
and exits with 1 on any difference: `metadata` where the pixels or tensors are the same but the text beside them is
not, `CONTENT` otherwise.

Both records must come from the same machine: kernels differ between processors. Python's standard library only.
"""
import argparse
import concurrent.futures
import gzip
import hashlib
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

STEPS = 20
SAMPLERS = ["ddpm", "ddim", "plms", "euler", "euler_a", "heun", "dpm2", "lms", "dpm_solver", "dpmpp_2m",
            "dpmpp_2m_sde", "dpmpp_3m_sde", "unipc", "lcm"]
SPACINGS = ["uniform", "quad", "time_uniform", "leading", "trailing", "linspace", "karras", "exponential",
            "sgm_uniform", "999,700,400,100,1"]
WORDS = ("[PAD] [UNK] [CLS] [SEP] [MASK] a the of in on and at red green blue yellow white black orange purple gray "
         "pink small big large tiny circle star square triangle cross ring heart diamond left right top bottom "
         "background , . ##s").split()


# ---- configs ----------------------------------------------------------------------------------------------------

def autoencoder(kind, levels=2, resolution=16, **more):
    kl = kind == "kl"
    channels = 4 if kl else 3
    ddconfig = {"double_z": kl, "z_channels": channels, "resolution": resolution, "in_channels": 3, "out_ch": 3,
                "ch": 32, "ch_mult": [1] * levels, "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
                **more}
    params = {"embed_dim": channels, "ddconfig": ddconfig}
    if not kl:
        params["n_embed"] = 64
    return {"target": kind, "params": params}


def first_stage(kind, loss, data, train=None, **more):
    model = autoencoder(kind, **more)
    model["params"]["lossconfig"] = loss
    return config(model, data, {"samples": {"count": 8}, **(train or {})})


def diffusion(first, condition, unet=None, task=None, train=None, samples=None, **more):
    first = json.loads(json.dumps(first))
    channels = first["params"]["embed_dim"]
    first["params"]["ckpt_path"] = "kl" if first["target"] == "kl" else "vq"
    params = {
        "linear_start": 0.0015, "linear_end": 0.0195, "timesteps": 1000, "image_size": 8, "channels": channels,
        "unet_config": {"target": "unet", "params": {
            "image_size": 8, "in_channels": channels, "out_channels": channels, "model_channels": 32,
            "attention_resolutions": [2], "num_res_blocks": 1, "channel_mult": [1, 2], "num_head_channels": 16,
            **(unet or {})}},
        "first_stage_config": first, "cond_stage_config": condition, **more}
    scenes = synthetic(16, **({"task": task} if task else {}))
    samples = {"count": 4, "steps": 4, **(samples or {})}
    return config({"target": "latent_diffusion", "params": params}, scenes, {"samples": samples, **(train or {})})


def classifier(model):
    params = {"diffusion_path": model, "num_classes": 10}
    return config({"target": "noisy_latent_classifier", "params": params}, synthetic(16),
                  {"ema": None, "samples": {"count": 2}})


def synthetic(size, **more):
    return {"target": "scenes", "params": {"size": size, "objects": [1, 1], "count": 256, **more}}


def config(model, data, train):
    validation = json.loads(json.dumps(data))
    if data["target"] == "scenes":
        validation["params"].update(count=16, split="validation")
    train = {"steps": STEPS, "learning_rate": 1.0e-3, "ema": {"decay": 0.9}, "log_every": 5, "checkpoint_every": 10,
             "validate_images": 16, **train}
    data = {"batch_size": 4, "num_workers": 1, "train": data, "validation": validation}
    return {"model": model, "data": {"target": "data_module", "params": data}, "train": train}


def configs():
    """Name and config of every training, in an order that respects what they need of each other."""
    kl, vq = autoencoder("kl"), autoencoder("vq", attn_type="none")
    cosine = {"target": "cosine", "params": {"warm_up": 5, "minimum": 0.05}}
    pixels = {"target": "reconstruction", "params": {"pixel_loss": "l1", "kl_weight": 1.0e-6}}
    codes = {"target": "reconstruction", "params": {"pixel_loss": "l1", "codebook_weight": 1.0}}
    adversarial = {"disc_start": 8, "perceptual_weight": 0.0, "disc_ndf": 8, "disc_num_layers": 2}
    files = {"target": "images", "params": {"path": "photos", "transform": {"size": 16, "interpolation": "bicubic"}}}
    attends = {"use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 16}
    text = {"conditioning_key": "crossattn", "unet": attends, "train": {"conditioning_dropout": 0.1},
            "samples": {"guidance_scale": 2.0}}
    bert = {"n_embed": 16, "n_layer": 1, "vocab_size": len(WORDS), "max_seq_len": 12}
    clip = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "vocab_size": 516, "max_length": 24, "max_position_embeddings": 24}
    layout = {"n_embed": 16, "n_layer": 1, "vocab_size": 8192, "max_seq_len": 92, "use_tokenizer": False}
    shrink = {"target": "super_resolution", "params": {"degradation": "pil_bicubic", "downscale_f": 2}}
    degrade = {"target": "super_resolution", "params": {"degradation": "bsrgan_light", "downscale_f": 2}}
    holes = {"target": "inpainting", "params": {"masks": {"target": "thick"}}}
    classes = {"target": "class", "params": {"embed_dim": 16, "n_classes": 11, "null_class": 10}}
    by_class = {"conditioning_key": "crossattn", "cond_stage_trainable": True, "scale_by_std": True, "unet": attends}
    return {
        "kl": first_stage("kl", pixels, synthetic(16), {"schedule": cosine, "clip_grad": 5000.0}),
        "vq": first_stage("vq", codes, synthetic(16), {"schedule": cosine}, attn_type="none"),
        "vq-f4": first_stage("vq", codes, synthetic(32), levels=3, resolution=32),
        "kl-files": first_stage("kl", pixels, files),
        "kl-adversarial": first_stage("kl", {"target": "lpips_with_discriminator",
                                             "params": {"kl_weight": 1.0e-6, **adversarial}}, synthetic(16)),
        "vq-adversarial": first_stage("vq", {"target": "vq_lpips_with_discriminator",
                                             "params": {"pixel_loss": "l1", **adversarial}}, synthetic(16)),
        "class": diffusion(kl, classes, loss_type="l2", train={"conditioning_dropout": 0.1, "clip_grad": 1.0,
                                                               "schedule": cosine}, **by_class),
        "velocity": diffusion(kl, classes, parameterization="v", **by_class),
        "options": diffusion(kl, classes, train={
            "cache_latents": True, "accumulate": 2, "dtype": "bf16", "min_snr_gamma": 5.0, "offset_noise": 0.1,
            "conditioning_dropout": 0.1, "validate_every": 10, "keep_best": {"metric": "val/loss", "mode": "min"}}, **by_class),
        "unconditional": diffusion(kl, "__is_unconditional__", unet={"use_scale_shift_norm": True}),
        "text-bert": diffusion(kl, {"target": "bert", "params": bert}, cond_stage_trainable=True, **text),
        "text-clip": diffusion(kl, {"target": "clip_text", "params": clip}, **text),
        "layout": diffusion(vq, {"target": "bert", "params": layout}, conditioning_key="crossattn",
                            cond_stage_trainable=True, unet=attends),
        "semantic": diffusion(vq, {"target": "spatial", "params": {"n_stages": 1, "in_channels": 11,
                                                                   "out_channels": 3}},
                              conditioning_key="concat", cond_stage_trainable=True, unet={"in_channels": 6},
                              task={"target": "semantic"}),
        "super-resolution": diffusion(vq, {"target": "identity"}, conditioning_key="concat",
                                      unet={"in_channels": 6}, task=shrink),
        "degraded": diffusion(vq, {"target": "identity"}, conditioning_key="concat", unet={"in_channels": 6},
                              task=degrade),
        "inpainting": diffusion(vq, "__is_first_stage__", conditioning_key="concat", unet={"in_channels": 7},
                                task=holes),
        "lora": diffusion(kl, classes, train={"init_from": {"path": "class"}, "lora": {"rank": 2}, "ema": None},
                          **by_class),
        "classifier": classifier("unconditional"),
        "classifier-of-class": classifier("class"),
    }


# ---- inputs -----------------------------------------------------------------------------------------------------

def png(path, width, height, pixel, gray=False):
    """A PNG whose pixel at column x, row y is `pixel(x, y)`: three values, or one if gray."""
    row = bytes if gray else lambda pixels: b"".join(bytes(p) for p in pixels)
    rows = b"".join(b"\0" + row([pixel(x, y) for x in range(width)]) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if gray else 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
                    for kind, body in chunks)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def safetensors(path, tensors):
    """`tensors`: name to (shape, function of the flat index)."""
    header, data = {}, b""
    for name, (shape, value) in tensors.items():
        count = 1
        for side in shape:
            count *= side
        body = struct.pack(f"<{count}f", *(value(i) for i in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(body)]}
        data += body
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


def inputs(folder):
    weights = folder / "weights"
    (weights / "bert-tokenizer").mkdir(parents=True)
    (weights / "bert-tokenizer/vocab.txt").write_text("\n".join(WORDS))
    (weights / "clip-tokenizer").mkdir()
    merges = gzip.compress(b"#version: 0.2\nr e\ne d</w>\n", mtime=0)
    (weights / "clip-tokenizer/bpe_simple_vocab_16e6.txt.gz").write_bytes(merges)
    texture = lambda x, y: (x * 13 % 256, y * 29 % 256, (x + y) * 7 % 256)
    for name, width, height in [("photo", 16, 16), ("wide", 40, 24), ("large", 32, 32), ("small", 8, 12)]:
        png(folder / f"{name}.png", width, height, texture)
    for i in range(12):
        of = lambda x, y, i=i: ((x * (5 + i) + i * 31) % 256, (y * (9 + i)) % 256, (x * y + 17 * i) % 256)
        png(folder / f"photos/{'ab'[i % 2]}/{i:02}.png", 17 + i, 23 - i % 5, of)
    inside = lambda x, y: 4 <= x < 12 and 4 <= y < 10
    png(folder / "mask.png", 16, 16, lambda x, y: 255 if inside(x, y) else 0, gray=True)
    png(folder / "map.png", 16, 16, lambda x, y: 1 if x < 8 else 3 if y < 8 else 0, gray=True)
    colors = [[0, 0, 0], [200, 0, 0], [0, 0, 200], [0, 200, 0]]
    png(folder / "colors.png", 16, 16, lambda x, y: colors[2 if x + y < 16 else 1])
    palette = {"classes": [{"id": i, "name": f"c{i}", "color": color} for i, color in enumerate(colors)]}
    (folder / "palette.json").write_text(json.dumps(palette))
    boxes = [{"label": "star", "box": [0.25, 0.5, 0.25, 0.5]}, {"label": "circle", "box": [0.0, 0.0, 0.5, 0.5]}]
    (folder / "boxes.json").write_text(json.dumps({"boxes": boxes}))
    coco = {"images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 200},
                       {"id": 2, "file_name": "b.png", "width": 10, "height": 10}],
            "annotations": [{"image_id": 1, "category_id": 3, "bbox": [25, 100, 25, 100]},
                            {"image_id": 2, "category_id": 3, "bbox": [1, 1, 4, 4]}],
            "categories": [{"id": 3, "name": "square"}]}
    (folder / "coco.json").write_text(json.dumps(coco))
    (folder / "prompts.txt").write_text("a big red circle\n\na small blue star on white\n")
    wave = lambda i: ((i * 7919) % 2003 - 1001) / 500
    safetensors(folder / "noise.safetensors", {"noise": ([2, 4, 8, 8], wave)})
    safetensors(folder / "lora.safetensors", {
        "lora_unet_conv_in.lora_down.weight": ([2, 4, 3, 3], lambda i: 0.02 + i % 5 * 0.01),
        "lora_unet_conv_in.lora_up.weight": ([32, 2, 1, 1], lambda i: 0.1 - i % 7 * 0.02)})


# ---- commands ---------------------------------------------------------------------------------------------------

def samplings():
    """Name and arguments of every command that makes images from noise."""
    two = "-n 2 --steps 4 --seed 7"
    runs = {f"sample/{name}": f"sample --model class --class circle,3 --guidance-scale 2 {two} --sampler {name}"
            for name in SAMPLERS}
    runs |= {f"sample/spacing-{name}": f"sample --model unconditional -n 2 --steps 5 --sampler {sampler} "
                                       f"--spacing {name}".replace("--steps 5 ", "" if "," in name else "--steps 5 ")
             for name, sampler in zip(SPACINGS, ["ddim", "euler", "dpmpp_2m", "unipc", "heun"] * 2)}
    runs |= {
        "sample/velocity": f"sample --model velocity --class 4 {two}",
        "sample/eta": f"sample --model class --class star {two} --eta 0.7",
        "sample/unguided": f"sample --model class --class star {two} --guidance-scale 1",
        "sample/rescale": f"sample --model class --class 1,2 {two} --guidance-scale 6 --guidance-rescale 0.7",
        "sample/interval": f"sample --model class --class 1,2 {two} --guidance-scale 6 --guidance-interval 0.3..5",
        "sample/trained-weights": f"sample --model class --class 1 {two} --no-ema",
        "sample/bf16": f"sample --model class --class 1 {two} --dtype bf16",
        "sample/batches": "sample --model unconditional -n 5 --batch-size 2 --steps 3",
        "sample/previews": "sample --model unconditional -n 2 --steps 4 --preview-every 2",
        "sample/large": "sample --model unconditional --steps 2 --height 32 --width 48",
        "sample/tile": "sample --model unconditional --steps 2 --height 48 --width 40 --tile 16",
        "sample/watermark": "sample --model unconditional --steps 2 --height 256 --width 256 --tile 64 --watermark",
        "sample/variation": f"sample --model unconditional {two} --variation-seed 9 --variation-strength 0.3",
        "sample/interpolation": "sample --model unconditional -n 3 --steps 3 --variation-seed 9 "
                                "--variation-strength 0..1",
        "sample/init-noise": "sample --model unconditional -n 2 --steps 4 --init-noise noise.safetensors",
        "sample/lora": f"sample --model unconditional {two} --lora lora.safetensors=0.5",
        "sample/classifier": f"sample --model unconditional {two} --classifier classifier --class star "
                             "--classifier-scale 30",
        "sample/both-guidances": f"sample --model class {two} --class star --guidance-scale 2 "
                                 "--classifier classifier-of-class",
        "sample/trained-lora": f"sample --model class --class 1 {two} --guidance-scale 1 "
                               "--lora lora/model/lora.safetensors",
        "sample/converted-compvis": f"sample --model converted.ckpt {two}",
        "sample/converted-diffusers": f"sample --model converted-diffusers {two}",
        "txt2img/bert": f"txt2img @a_big_red_circle --model text-bert {two}",
        "txt2img/negative": f"txt2img @a_big_red_circle --model text-bert {two} --negative-prompt @blue_star",
        "txt2img/file": "txt2img --prompts-from prompts.txt --model text-bert -n 2 --batch-size 3 --steps 3",
        "txt2img/clip": f"txt2img @a_red_circle --model text-clip {two}",
        "txt2img/clip-unipc": f"txt2img @a_red_circle --model text-clip {two} --sampler unipc --guidance-scale 3",
        "img2img/half": f"img2img photo.png @a_red_circle --model text-bert {two} --strength 0.5",
        "img2img/all": f"img2img photo.png @a_red_circle --model text-clip {two} --strength 1",
        "img2img/crop": f"img2img wide.png @a_star --model text-bert {two} --center-crop 16 --sampler dpmpp_2m",
        "img2img/resize": f"img2img large.png @a_star --model text-bert {two} --resize 16 --negative-prompt @red",
        "inpaint/trained": f"inpaint photo.png mask.png --model inpainting {two}",
        "inpaint/feather": f"inpaint photo.png mask.png --model inpainting {two} --feather 2 --sampler euler_a",
        "inpaint/resize": f"inpaint large.png mask.png --model inpainting {two} --resize-mask",
        "inpaint/blended": f"inpaint photo.png mask.png --model unconditional {two}",
        "inpaint/strength": f"inpaint photo.png mask.png --model unconditional {two} --strength 0.5 --feather 1",
        "inpaint/text": f"inpaint photo.png mask.png @a_star --model text-bert {two} --negative-prompt @red",
        "outpaint/trained": f"outpaint photo.png --left 4 --bottom 8 --model inpainting {two}",
        "outpaint/blended": f"outpaint photo.png --right 8 --top 4 --model unconditional {two} --feather 2",
        "outpaint/text": f"outpaint photo.png @a_star --left 8 --model text-bert {two}",
        "upscale/x2": f"upscale small.png --model super-resolution {two}",
        "upscale/tile": "upscale large.png --model super-resolution -n 2 --steps 2 --tile 16",
        "upscale/degraded": f"upscale small.png --model degraded {two} --sampler heun",
        "layout2img/relative": f"layout2img boxes.json --model layout {two}",
        "layout2img/coco": f"layout2img coco.json --model layout {two}",
        "layout2img/one": f"layout2img coco.json --image b.png --model layout {two} --sampler plms",
        "semantic2img/map": f"semantic2img map.png --model semantic {two}",
        "semantic2img/palette": f"semantic2img colors.png --palette palette.json --model semantic {two}",
        "semantic2img/eta": f"semantic2img map.png --model semantic {two} --eta 1",
    }
    return runs


# Commands without noise: name, arguments, what is made. Each may use what those before it have made.
CONVERSIONS = {
    "convert/compvis": ("convert unconditional converted.ckpt --to compvis", ["converted.ckpt", "converted.yaml"]),
    "convert/compvis-safetensors": ("convert class compvis.safetensors --to compvis", ["compvis.safetensors"]),
    "convert/diffusers": ("convert unconditional converted-diffusers --to diffusers", ["converted-diffusers"]),
    "convert/ldm-bf16": ("convert text-bert text-bf16 --to ldm --dtype bf16", ["text-bf16"]),
    "convert/lora": ("convert unconditional with-lora --to ldm --lora lora.safetensors", ["with-lora"]),
}
FIRST_STAGE = {
    "encode/kl": ("encode photo.png large.png --model kl --center-crop 16 --out {out}.safetensors", []),
    "encode/kl-sample": ("encode photo.png --model kl --sample --seed 3 --out {out}.safetensors", []),
    "encode/kl-large": ("encode wide.png --model kl --out {out}.safetensors", []),
    "encode/vq": ("encode photo.png --model vq --out {out}.safetensors", []),
    "encode/vq-f4": ("encode large.png wide.png --model vq-f4 --resize 16 --center-crop 16 --out {out}.safetensors", []),
    "encode/diffusion": ("encode photo.png --model text-bert --out {out}.safetensors", []),
    "decode/kl": ("decode encode-kl.safetensors --model kl --out {out} --save-pixels {out}.safetensors", []),
    "decode/tile": ("decode encode-kl-large.safetensors --model kl --tile 16 --out {out} "
                    "--save-pixels {out}.safetensors", []),
    "decode/vq": ("decode encode-vq.safetensors --model vq --out {out} --save-pixels {out}.safetensors", []),
    "decode/vq-f4": ("decode encode-vq-f4.safetensors --model vq-f4 --out {out} --save-pixels {out}.safetensors", []),
    "reconstruct/kl": ("reconstruct photo.png wide.png --model kl --out {out} --json", []),
    "reconstruct/vq": ("reconstruct photo.png wide.png --model vq --out {out} --json", []),
    "reconstruct/files": ("reconstruct photos/a/00.png photos/b/01.png --model kl-files --resize 16 "
                          "--center-crop 16 --out {out} --json", []),
}
EVALUATIONS = {
    "eval/reconstruction": ("eval reconstruction photos --size 16 --model kl -n 8 --features random-vgg16 --json "
                            "--out {out}", []),
    "eval/generation": ("eval generation --model unconditional -n 8 --steps 2 photos --size 16 "
                        "--features random-vgg16 --json --out {out}", []),
}


# ---- hashing ----------------------------------------------------------------------------------------------------

def sha(data):
    return hashlib.sha256(data).hexdigest()


def content(path, data):
    """The part of a file that is pixels or tensors."""
    if path.suffix == ".png":
        kept, at = [], 8
        while at < len(data):
            size, kind = struct.unpack(">I4s", data[at:at + 8])
            if kind not in (b"tEXt", b"iTXt", b"zTXt"):
                kept.append(data[at:at + 12 + size])
            at += 12 + size
        return b"".join(kept)
    if path.suffix == ".safetensors":
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:8 + size])
        header.pop("__metadata__", None)
        tensors = sorted((name, t["dtype"], t["shape"], sha(data[8 + size:][slice(*t["data_offsets"])]))
                         for name, t in header.items())
        return json.dumps(tensors).encode()
    return data


def parsed(text):
    """A JSON document, or a list of the JSON lines."""
    try:
        return without_clock(json.loads(text))
    except json.JSONDecodeError:
        return [without_clock(json.loads(line)) for line in text.splitlines()]


def digest(path):
    data = path.read_bytes()
    return {"sha256": sha(data), "content": sha(content(path, data))}


def losses(path):
    """The logged values that do not depend on the clock or the memory."""
    return [without_clock(json.loads(line)) for line in path.read_text().splitlines()]


def without_clock(value):
    if isinstance(value, dict):
        clock = ("seconds", "images_per_second", "data_wait", "peak_memory")
        return {key: without_clock(each) for key, each in value.items() if key not in clock}
    return value


# ---- recording --------------------------------------------------------------------------------------------------

class Recorder:
    def __init__(self, binary, work, threads):
        self.binary, self.work, self.threads = binary, work, threads
        self.files, self.failed = {}, {}

    def ldm(self, name, args):
        """stdout of a command, or nothing if it fails."""
        args = [word[1:].replace("_", " ") if word.startswith("@") else word for word in args.split()]
        if args[0] != "convert":
            args += ["--device", "cpu", "--threads", str(self.threads)]
        keep = {key: os.environ[key] for key in ("PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR") if key in os.environ}
        environment = {**keep, "LDM_WEIGHTS": str(self.work / "weights"), "LC_ALL": "C.UTF-8"}
        run = subprocess.run([self.binary, *args], cwd=self.work, env=environment, stdin=subprocess.DEVNULL,
                             capture_output=True, text=True)
        if run.returncode:
            self.failed[name] = f"exit code {run.returncode}: {run.stderr.strip()[-500:]}"
            print(f"FAILED {name}: ldm {' '.join(args)}\n{run.stderr}", file=sys.stderr)
            return None
        return run.stdout

    def add(self, name, path):
        if path.is_dir():
            for each in sorted(path.rglob("*")):
                if each.is_file() and not each.is_symlink():
                    self.add(f"{name}/{each.relative_to(path)}", each)
        elif path.is_file():
            self.files[name] = digest(path)
        else:
            self.failed[name] = "not written"

    def add_value(self, name, value):
        text = json.dumps(value, sort_keys=True)
        self.files[name] = {"sha256": sha(text.encode()), "content": sha(text.encode()), "value": value}

    def train(self, name, config):
        (self.work / f"{name}.yaml").write_text(json.dumps(config, indent=1))  # JSON is YAML
        if self.ldm(f"train/{name}", f"train {name}.yaml --run {name}") is None:
            return
        run = self.work / name
        last = run / f"checkpoints/step-{STEPS:07}"
        for path in sorted(last.glob("*.safetensors")):
            self.add(f"train/{name}/{path.name}", path)
        self.add(f"train/{name}/model", run / "model")
        self.add(f"train/{name}/samples", run / "samples")
        self.add_value(f"train/{name}/losses", losses(run / "metrics.jsonl"))

    def sample(self, name, args):
        out = name.replace("/", "-")
        if self.ldm(name, f"{args} --out {out} --save-latents {out}.safetensors") is None:
            return
        self.add(name, self.work / out)
        self.add(f"{name}/latents.safetensors", self.work / f"{out}.safetensors")

    def other(self, name, args, made):
        out = name.replace("/", "-")
        stdout = self.ldm(name, args.format(out=out))
        if stdout is None:
            return
        for each in made or [each for each in (out, f"{out}.safetensors") if (self.work / each).exists()]:
            self.add(f"{name}/{each}" if made else f"{name}{each[len(out):]}", self.work / each)
        if "--json" in args:
            self.add_value(f"{name}/stdout", parsed(stdout))


def record(args):
    binary = str(Path(args.ldm).resolve())
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as folder:
        work = Path(args.work).resolve() if args.work else Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        if any(work.iterdir()):
            sys.exit(f"{work}: expected an empty folder")
        inputs(work)
        recorder = Recorder(binary, work, args.threads)
        trainings = configs()
        if args.configs:
            trainings |= {path.stem: json.loads(path.read_text()) for path in sorted(Path(args.configs).glob("*.json"))}
        # Three waves, each of which needs only what those before it made.
        waves = [
            [(recorder.train, name, trainings[name]) for name in trainings if name.startswith(("kl", "vq"))],
            [(recorder.train, name, trainings[name]) for name in trainings
             if not name.startswith(("kl", "vq")) and not name.startswith(("classifier", "lora"))],
            [(recorder.train, name, trainings[name]) for name in trainings if name.startswith(("classifier", "lora"))]
            + [(recorder.other, name, *job) for name, job in CONVERSIONS.items()],
            [(recorder.other, name, *job) for name, job in FIRST_STAGE.items() if name.startswith("encode")],
            [(recorder.other, name, *job) for name, job in FIRST_STAGE.items() if not name.startswith("encode")]
            + [(recorder.sample, name, job) for name, job in samplings().items()]
            + [(recorder.other, name, *job) for name, job in EVALUATIONS.items()],
        ]
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for wave in waves:
                for future in [pool.submit(call, *rest) for call, *rest in wave]:
                    future.result()
    seconds = round(time.monotonic() - began)
    result = {"ldm": version, "binary": sha(Path(binary).read_bytes()), "machine": processor(),
              "threads": args.threads, "seconds": seconds, "failed": dict(sorted(recorder.failed.items())),
              "files": dict(sorted(recorder.files.items()))}
    Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    count = lambda suffix: sum(name.endswith(suffix) for name in recorder.files)
    print(f"{args.out}: {len(recorder.files)} files ({count('.png')} PNG, {count('.safetensors')} safetensors), "
          f"{len(recorder.failed)} failed, {seconds} s")
    return 1 if recorder.failed else 0


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


# ---- comparing --------------------------------------------------------------------------------------------------

def compare(args):
    before, after = (json.loads(Path(path).read_text()) for path in (args.before, args.after))
    for key in ("machine", "threads"):
        if before[key] != after[key]:
            print(f"warning: {key}: {before[key]} and {after[key]}; the bytes may differ for that reason alone")
    names = sorted({*before["files"], *after["files"], *before["failed"], *after["failed"]})
    counts = {}
    width = max(map(len, names), default=0)
    for name in names:
        old, new = before["files"].get(name), after["files"].get(name)
        if name in after["failed"] or name in before["failed"]:
            verdict = "FAILED " + after["failed"].get(name, "before only")
        elif old is None or new is None:
            verdict = "ONLY AFTER" if old is None else "ONLY BEFORE"
        elif old["sha256"] == new["sha256"]:
            verdict = "same"
        else:
            verdict = "metadata" if old["content"] == new["content"] else "CONTENT"
        kind = verdict.split()[0]
        counts[kind] = counts.get(kind, 0) + 1
        if verdict != "same" or not args.differences:
            print(f"{name:{width}}  {verdict}")
        if kind == "CONTENT" and "value" in old:
            print("\n".join(f"  {line}" for line in changes(old["value"], new["value"])[:8]))
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing to compare")
    return 0 if set(counts) == {"same"} else 1


def changes(old, new, place=""):
    """The places where two JSON values differ, a line each."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for key in sorted({*old, *new}) for line in changes(old.get(key), new.get(key), f"{place}.{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, pair in enumerate(zip(old, new)) for line in changes(*pair, f"{place}[{i}]")]
    return [] if old == new else [f"{place}: {old} -> {new}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    each = commands.add_parser("record", help="run everything and write the hashes")
    each.add_argument("ldm", help="the binary")
    each.add_argument("out", help="the JSON file to write")
    each.add_argument("--threads", type=int, default=1, help="threads of each command (default 1)")
    each.add_argument("--jobs", type=int, default=1, help="commands at the same time (default 1)")
    each.add_argument("--work", help="an empty folder to work in and keep; a temporary one otherwise")
    each.add_argument("--configs", help="a folder of NAME.json that replace training configs of the same name")
    each.set_defaults(run=record)
    each = commands.add_parser("compare", help="compare two records; exit code 1 if they differ")
    each.add_argument("before")
    each.add_argument("after")
    each.add_argument("-d", "--differences", action="store_true", help="print only what differs")
    each.set_defaults(run=compare)
    args = parser.parse_args()
    sys.exit(args.run(args))


if __name__ == "__main__":
    main()
