"""Times how long diffusers takes to load a model of the size of Stable Diffusion v1 on the CPU.

The weights are random: `make` builds the three networks that hold weights (U-Net, first stage, text encoder) from
their published configs, 1.07 G parameters, and writes them as diffusers does, in f32.

    python docs/tools/parity/load_time.py make FOLDER         # 4.3 GB
    python docs/tools/parity/load_time.py time FOLDER [f32|f16|bf16]
    cargo run --release -p ldm-core --example load_time -- FOLDER [f32|f16|bf16]

Each of the latter two first reads every file once, so that both find them in the page cache, loads three times in one
process, and prints seconds and the process's peak memory. Run nothing else meanwhile. `docs/lab/parity.md` has the results.
"""

import json
import os
import resource
import sys
import time

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
UNET = dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8)  # the rest are the class's defaults
FIRST_STAGE = dict(
    sample_size=512,
    block_out_channels=[128, 256, 512, 512],
    down_block_types=["DownEncoderBlock2D"] * 4,
    up_block_types=["UpDecoderBlock2D"] * 4,
    layers_per_block=2,
)
TEXT = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, hidden_act="quick_gelu")
PARTS = [("unet", UNet2DConditionModel), ("vae", AutoencoderKL), ("text_encoder", CLIPTextModel)]


def make(folder):
    torch.manual_seed(0)
    models = UNet2DConditionModel(**UNET), AutoencoderKL(**FIRST_STAGE), CLIPTextModel(CLIPTextConfig(**TEXT))
    for (part, _), model in zip(PARTS, models):
        model.save_pretrained(os.path.join(folder, part), safe_serialization=True)
    print(sum(p.numel() for model in models for p in model.parameters()), "parameters")


def warm(folder):
    for part, _ in PARTS:
        for name in os.listdir(os.path.join(folder, part)):
            with open(os.path.join(folder, part, name), "rb") as file:
                while file.read(1 << 24):
                    pass


def load(folder, dtype):
    out = []
    for part, kind in PARTS:
        out.append(kind.from_pretrained(os.path.join(folder, part), torch_dtype=dtype).eval())
    return out


def time_loading(folder, dtype):
    warm(folder)
    for _ in range(3):
        start = time.perf_counter()
        models = load(folder, DTYPES[dtype])
        loaded = time.perf_counter()
        # A tensor may be a memory-mapped file that is not read yet: the extra cost of touching every page.
        for model in models:
            for p in model.parameters():
                p.view(-1)[:: 4096 // p.element_size()].sum()
        touched = time.perf_counter()
        print(json.dumps({"loader": "diffusers", "dtype": dtype, "loaded_s": round(loaded - start, 3),
                          "and_touched_s": round(touched - start, 3)}), flush=True)
        del models
    print(json.dumps({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        time_loading(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "f32")
