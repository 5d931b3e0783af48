"""Makes the golden files of this folder with CompVis' own U-Net.

LDM_REF=folder-of-checkouts python generate.py
The folder holds `latent-diffusion` and `stable-diffusion`. Needs torch, einops, omegaconf, safetensors, pyyaml.

Weights are not stored: both sides compute them by the formula of `ldm_core::testing::fill_weights`.
"""
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file as write

REF = Path(os.environ["LDM_REF"])
sys.path.insert(0, str(REF / "latent-diffusion"))
from ldm.modules.diffusionmodules.openaimodel import EncoderUNetModel, UNetModel  # noqa: E402

HERE = Path(__file__).parent
torch.set_num_threads(1)


def commit(repo):
    return subprocess.check_output(["git", "-C", str(REF / repo), "rev-parse", "HEAD"], text=True).strip()


def save_file(tensors, name, cases):
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    reference = f"CompVis/latent-diffusion {commit('latent-diffusion')}"
    write(tensors, HERE / name, {"reference": reference, "torch": torch.__version__, "cases": json.dumps(cases)})


def fill(model, seed):
    with torch.no_grad():
        for k, (name, p) in enumerate(sorted(model.named_parameters())):
            i = np.arange(p.numel(), dtype=np.float64)
            x = np.sin((i + 1) * 12.9898 + ((k + 1) * 78.233 + seed * 37.719)) * 43758.5453
            v = 2 * (x - np.floor(x)) - 1
            if p.ndim >= 2:
                v = v * (1.2 / np.sqrt(p.numel() / p.shape[0]))
            else:
                v = 0.1 * v + (1 if name.endswith("weight") else 0)
            p.copy_(torch.from_numpy(v.astype(np.float32)).view(p.shape))
    return model


def base(**more):
    config = {
        "image_size": 8, "in_channels": 3, "out_channels": 3, "model_channels": 32, "num_res_blocks": 1,
        "attention_resolutions": [2], "channel_mult": [1, 2],
    }
    return {**config, **more}


# With 32 channels each has a group norm of its own, which takes out whatever is added to all of it, time too; so at
# least one level of every case is wider. Together the cases touch every field. `concat`, `context`, `label`: what the
# conditioning holds.
FORWARD = {
    "heads": (base(num_heads=4, dims=2), {}),
    "head_channels_new_order": (
        base(num_head_channels=16, use_new_attention_order=True, attention_resolutions=[1]), {}),
    "scale_shift_updown": (
        base(num_heads=2, use_scale_shift_norm=True, resblock_updown=True, channel_mult=[1, 1, 2],
             attention_resolutions=[2, 4]), {}),
    "pooled_resampling": (base(num_heads=1, conv_resample=False, num_res_blocks=2), {}),
    "transformer": (
        base(num_heads=2, use_spatial_transformer=True, transformer_depth=2, context_dim=48,
             attention_resolutions=[1, 2], use_checkpoint=True, legacy=False, image_size=[8, 12]),
        {"context": (5, 48)}),
    "transformer_without_context": (
        base(model_channels=64, num_head_channels=8, use_spatial_transformer=True, context_dim=64, channel_mult=[1],
             attention_resolutions=[1]), {}),
    "label": (base(num_heads=2, num_classes=7, dropout=0.3, use_checkpoint=True), {"label": 7}),
    "codebook_ids": (base(num_heads=2, n_embed=11, attention_resolutions=[]), {}),
    "concat_and_unreached_attention": (
        base(in_channels=6, num_head_channels=32, channel_mult=[1, 1, 2], attention_resolutions=[16, 8]),
        {"concat": 3}),
    "heads_upsample": (
        base(num_heads=4, num_heads_upsample=2, use_new_attention_order=True, attention_resolutions=[1, 2]), {}),
    "heads_upsample_not_legacy": (
        base(num_heads=4, num_heads_upsample=2, legacy=False, attention_resolutions=[1, 2]), {}),
    "hybrid": (
        base(in_channels=7, model_channels=96, channel_mult=[1], attention_resolutions=[1], num_head_channels=32,
             num_heads=5, use_spatial_transformer=True, context_dim=[40]),
        {"concat": 4, "context": (3, 40)}),
    "default_levels": (
        {"in_channels": 3, "out_channels": 2, "model_channels": 32, "num_res_blocks": 1,
         "attention_resolutions": [8], "num_heads": 8}, {"size": (8, 16)}),
}

# A few parameters of each kind; `x` and `context` are inputs.
GRADIENTS = {
    "attention": (
        base(model_channels=64, num_heads=2, use_scale_shift_norm=True, dropout=0.25), {},
        ["time_embed.2.bias", "input_blocks.0.0.weight", "input_blocks.1.0.emb_layers.1.bias",
         "input_blocks.3.1.norm.weight", "middle_block.1.qkv.bias", "middle_block.1.proj_out.bias",
         "output_blocks.1.2.conv.bias", "output_blocks.3.0.out_layers.0.weight", "out.2.weight"]),
    "transformer": (
        base(model_channels=64, num_head_channels=16, use_spatial_transformer=True, transformer_depth=2, context_dim=24,
             num_classes=3, attention_resolutions=[1], channel_mult=[1], dropout=0.25),
        {"context": (4, 24), "label": 3},
        ["label_emb.weight", "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
         "input_blocks.1.1.transformer_blocks.1.attn2.to_k.weight",
         "middle_block.1.transformer_blocks.0.attn2.to_v.weight", "middle_block.1.transformer_blocks.1.norm2.weight",
         "middle_block.1.transformer_blocks.0.ff.net.0.proj.bias", "output_blocks.0.0.skip_connection.bias",
         "output_blocks.1.1.proj_in.bias"]),
}


def build(config, seed):
    config = {"image_size": 8, **config}
    if isinstance(config.get("context_dim"), list):
        config["context_dim"] = config["context_dim"][0]
    return fill(UNetModel(**config), seed)


def inputs(config, cond, generator):
    """Latents that are no squares, so that no two axes can be taken for one another."""
    size = cond.get("size", (8, 12))
    x = torch.randn(2, config["in_channels"] - cond.get("concat", 0), *size, generator=generator)
    given = {"x": x, "t": torch.tensor([17.25, 981.0])}
    if "concat" in cond:
        given["concat"] = torch.randn(2, cond["concat"], *size, generator=generator)
    if "context" in cond:
        given["context"] = torch.randn(2, *cond["context"], generator=generator)
    if "label" in cond:
        given["label"] = torch.randint(cond["label"], (2,), generator=generator)
    return given


def run(model, given):
    x = torch.cat([given["x"], given["concat"]], 1) if "concat" in given else given["x"]
    return model(x, given["t"], context=given.get("context"), y=given.get("label"))


def forward():
    tensors, configs = {}, {}
    for seed, (name, (config, cond)) in enumerate(FORWARD.items()):
        given = inputs(config, cond, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            given["y"] = run(build(config, seed).eval(), given)
            elsewhere = run(build(config, seed).eval(), {**given, "t": given["t"] + 300})
        assert given["y"].std() > 0.1 and (given["y"] - elsewhere).std() > 0.01, name
        tensors |= {f"{name}.{key}": value for key, value in given.items()}
        configs[name] = {"seed": seed, "config": config}
    save_file(tensors, "forward.safetensors", configs)


def gradients():
    """Of sum(y * w). In training mode dropout draws from the global generator, seeded with `seed`.

    A mask is drawn in the order of memory, and CompVis' transformers leave their map in another order than
    they found it: only the case without them can be compared in training mode.
    """
    tensors, configs = {}, {}
    for seed, (name, (config, cond, names)) in enumerate(GRADIENTS.items(), start=100):
        given = inputs(config, cond, torch.Generator().manual_seed(seed))
        for train in (False,) if "context" in cond else (False, True):
            model = build(config, seed).train(train)
            leaves = {key: given[key].clone().requires_grad_() for key in ("x", "context") if key in given}
            torch.manual_seed(seed)
            y = run(model, {**given, **leaves})
            given["w"] = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed + 1000))
            (y * given["w"]).sum().backward()
            mode = "train" if train else "eval"
            given[f"{mode}.y"] = y.detach()
            for key, leaf in leaves.items():
                given[f"{mode}.inputs.{key}"] = leaf.grad
            found = dict(model.named_parameters())
            for key in names:
                assert found[key].grad.abs().max() > 1e-3, key
                given[f"{mode}.grad.{key}"] = found[key].grad
        tensors |= {f"{name}.{key}": value for key, value in given.items()}
        configs[name] = {"seed": seed, "config": config}
    save_file(tensors, "gradients.safetensors", configs)


def encoder():
    """Answers, and the gradient that classifier guidance asks for: of sum(log p(class | x)) with respect to x."""
    shared = {
        "image_size": 8, "in_channels": 3, "out_channels": 5, "model_channels": 32, "num_res_blocks": 1,
        "attention_resolutions": [2], "channel_mult": [1, 2], "num_head_channels": 16,
    }
    more = {
        "adaptive": {"resblock_updown": True, "use_scale_shift_norm": True},
        "attention": {"use_new_attention_order": True, "use_checkpoint": True},
        "spatial": {"conv_resample": False, "num_head_channels": -1, "num_heads": 4},
        "spatial_v2": {"num_head_channels": -1, "dropout": 0.1},
    }
    tensors, configs = {}, {}
    for seed, (pool, fields) in enumerate(more.items(), start=200):
        config = {**shared, **fields, "pool": pool}
        generator = torch.Generator().manual_seed(seed)
        x, t = torch.randn(2, 3, 8, 8, generator=generator), torch.tensor([3.5, 700.0])
        classes = torch.tensor([4, 1])
        x.requires_grad_()
        y = fill(EncoderUNetModel(**config), seed).eval()(x, t)
        (gradient,) = torch.autograd.grad(y.log_softmax(-1).gather(1, classes[:, None]).sum(), x)
        x, y = x.detach(), y.detach()
        assert y.std() > 0.05 and gradient.std() > 1e-3, pool
        tensors |= {f"{pool}.x": x, f"{pool}.t": t, f"{pool}.y": y}
        tensors |= {f"{pool}.class": classes, f"{pool}.gradient": gradient}
        configs[pool] = {"seed": seed, "config": config}
    save_file(tensors, "encoder.safetensors", configs)


OFFICIAL = {
    "celebahq-ldm-vq-4": "latent-diffusion/configs/latent-diffusion/celebahq-ldm-vq-4.yaml",
    "ffhq-ldm-vq-4": "latent-diffusion/configs/latent-diffusion/ffhq-ldm-vq-4.yaml",
    "lsun_bedrooms-ldm-vq-4": "latent-diffusion/configs/latent-diffusion/lsun_bedrooms-ldm-vq-4.yaml",
    "lsun_churches-ldm-kl-8": "latent-diffusion/configs/latent-diffusion/lsun_churches-ldm-kl-8.yaml",
    "cin-ldm-vq-f8": "latent-diffusion/configs/latent-diffusion/cin-ldm-vq-f8.yaml",
    "cin256-v2": "latent-diffusion/configs/latent-diffusion/cin256-v2.yaml",
    "txt2img-1p4B-eval": "latent-diffusion/configs/latent-diffusion/txt2img-1p4B-eval.yaml",
    "rdm-768x768": "latent-diffusion/configs/retrieval-augmented-diffusion/768x768.yaml",
    "celeba256": "latent-diffusion/models/ldm/celeba256/config.yaml",
    "ffhq256": "latent-diffusion/models/ldm/ffhq256/config.yaml",
    "lsun_beds256": "latent-diffusion/models/ldm/lsun_beds256/config.yaml",
    "lsun_churches256": "latent-diffusion/models/ldm/lsun_churches256/config.yaml",
    "cin256": "latent-diffusion/models/ldm/cin256/config.yaml",
    "text2img256": "latent-diffusion/models/ldm/text2img256/config.yaml",
    "layout2img-openimages256": "latent-diffusion/models/ldm/layout2img-openimages256/config.yaml",
    "bsr_sr": "latent-diffusion/models/ldm/bsr_sr/config.yaml",
    "semantic_synthesis256": "latent-diffusion/models/ldm/semantic_synthesis256/config.yaml",
    "semantic_synthesis512": "latent-diffusion/models/ldm/semantic_synthesis512/config.yaml",
    "inpainting_big": "latent-diffusion/models/ldm/inpainting_big/config.yaml",
    "sd-v1": "stable-diffusion/configs/stable-diffusion/v1-inference.yaml",
}
IN_FULL = ["sd-v1", "lsun_churches-ldm-kl-8"]


def unet_params(path):
    return yaml.safe_load((REF / path).read_text())["model"]["params"]["unet_config"]["params"]


def listing(model):
    """Names and shapes in the order of the state dict, one a line."""
    return "".join(f"{name} {list(tensor.shape)}\n" for name, tensor in model.state_dict().items())


def entry(model, params):
    lines = listing(model)
    return {
        "params": params,
        "tensors": len(model.state_dict()),
        "parameters": sum(tensor.numel() for tensor in model.state_dict().values()),
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }


def manifest():
    unets = {}
    with torch.device("meta"):
        for name, path in OFFICIAL.items():
            params = unet_params(path)
            model = UNetModel(**params)
            unets[name] = entry(model, params)
            if name in IN_FULL:
                (HERE / f"{name}.names.txt").write_text(listing(model))
        # The classifier of classifier.py:95: the U-Net's arguments, its output as input, classes, and a pool.
        params = unet_params(OFFICIAL["cin256"])
        classifier = EncoderUNetModel(**{**params, "in_channels": params["out_channels"], "out_channels": 1000, "pool": "attention"})
    document = {
        "reference": commit("latent-diffusion"),
        "stable_diffusion": commit("stable-diffusion"),
        "unets": unets,
        "classifier": entry(classifier, params),
    }
    (HERE / "manifest.yaml").write_text(yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=110))


if __name__ == "__main__":
    forward()
    gradients()
    encoder()
    manifest()
