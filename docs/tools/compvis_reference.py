"""Imports CompVis' reference code under current packages, for golden files and comparisons.

The environment variable LDM_REF names a folder with checkouts of

    git clone https://github.com/CompVis/latent-diffusion       # a506df5756472e2ebaf9078affdde2c4f1502cd4
    git clone https://github.com/CompVis/taming-transformers    # 3ba01b241669f5ade541ce990f7650a3b8f65318
    git clone https://github.com/openai/CLIP                    # d05afc436d78f1c48dc0dbf8e5980a9d471f35f6
    git clone https://github.com/CompVis/stable-diffusion       # 21f890f9da3cfbeaba8e2ac3c425ee9e998d5229

Importing this module puts the first three on Python's path (`stable-diffusion` has a package `ldm` too; scripts that
need it load its files by path) and replaces what newer packages have dropped. `docs/tools/requirements.txt` lists the
packages.

    import compvis_reference as reference
    model = reference.first_stage("…/models/first_stage_models/kl-f8/config.yaml", seed=1)
    model = reference.diffusion("…/models/ldm/cin256/config.yaml", seed=1)
    ddim, plms = reference.ddim(model)
    reference.save_lightning(model, "model.ckpt")
"""
import os
import subprocess
import sys
import types
from pathlib import Path

PACKAGES = ("latent-diffusion", "taming-transformers", "CLIP")

REF = os.environ.get("LDM_REF", "")
missing = [name for name in PACKAGES if not (REF and (Path(REF) / name).is_dir())]
if missing:
    sys.exit(f"LDM_REF: expected a folder with checkouts of {', '.join(PACKAGES)}, got {REF or 'nothing'} without "
             f"{', '.join(missing)}; try the commands at the top of {Path(__file__).name}")
sys.path[:0] = [str(Path(REF) / name) for name in PACKAGES]

import numpy as np  # noqa: E402, F401
import pytorch_lightning  # noqa: E402, F401  before its submodule is replaced
import torch  # noqa: E402


def _replace(name, **attributes):
    """Installs a module that newer packages no longer have."""
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules[name] = module


_replace("pytorch_lightning.utilities.distributed", rank_zero_only=lambda function: function)
_replace("torch._six", string_classes=(str,))

from ldm.util import instantiate_from_config  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402


def commit(name):
    """The commit of a checkout in LDM_REF."""
    return subprocess.check_output(["git", "-C", str(Path(REF) / name), "rev-parse", "HEAD"], text=True).strip()


def load_config(path):
    return OmegaConf.load(path)


def randomize(module, seed=0):
    """Fills all parameters with deterministic, well-scaled random values. None stays zero, so each one shows in the
    output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(noise * (0.8 / parameter[0].numel() ** 0.5))
            elif name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            else:
                parameter.copy_(0.1 * noise)
    return module


def first_stage(path, seed=0):
    """The first stage of a config, without its loss, with random weights."""
    config = load_config(path)
    params = OmegaConf.to_container(config.model.params)
    params["lossconfig"] = {"target": "torch.nn.Identity"}
    params.pop("ckpt_path", None)
    model = instantiate_from_config(OmegaConf.create({"target": config.model.target, "params": params}))
    return randomize(model.eval(), seed)


def unet(path, seed=0):
    """The U-Net of a diffusion config, with random weights."""
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    params = OmegaConf.to_container(load_config(path).model.params.unet_config.params)
    return randomize(UNetModel(**params).eval(), seed)


def local_bert(vocabulary):
    """Replaces CompVis' BERTTokenizer, which downloads bert-base-uncased, by one with a local vocabulary."""
    from ldm.modules.encoders import modules
    from transformers import BertTokenizerFast

    class BERTTokenizer(torch.nn.Module):
        def __init__(self, device="cpu", vq_interface=True, max_length=77):
            super().__init__()
            # transformers 5 ignores `vocab_file`.
            self.tokenizer = BertTokenizerFast(vocab=vocabulary, do_lower_case=True)
            self.device, self.vq_interface, self.max_length = "cpu", vq_interface, max_length

        def forward(self, text):
            batch = self.tokenizer(text, truncation=True, max_length=self.max_length, return_length=True,
                                   return_overflowing_tokens=False, padding="max_length", return_tensors="pt")
            return batch["input_ids"]

    modules.BERTTokenizer = BERTTokenizer


def _on_cpu(node):
    """Drops checkpoint paths from a config and puts its conditioners on the CPU."""
    if isinstance(node, dict):
        node.pop("ckpt_path", None)
        target, params = node.get("target", ""), node.get("params", {})
        if target.endswith("BERTEmbedder") or (target.endswith("ClassEmbedder") and "device" in params):
            params["device"] = "cpu"
        for child in node.values():
            _on_cpu(child)
    return node


def diffusion(path, seed=0):
    """The LatentDiffusion of a config on the CPU, with random weights and an EMA equal to them."""
    config = _on_cpu(OmegaConf.to_container(load_config(path)))["model"]
    model = instantiate_from_config(OmegaConf.create({"target": config["target"], "params": config["params"]})).eval()
    model.device_ = "cpu"
    randomize(model.model, seed)
    randomize(model.first_stage_model, seed + 1)
    if model.cond_stage_model is not None and model.cond_stage_model is not model.first_stage_model:
        randomize(model.cond_stage_model, seed + 2)
    if model.use_ema:
        model.model_ema = type(model.model_ema)(model.model)
    return model


def ddim(model):
    """CompVis' DDIM and PLMS samplers of a model, on the CPU."""
    from ldm.models.diffusion.ddim import DDIMSampler
    from ldm.models.diffusion.plms import PLMSSampler

    for sampler in (DDIMSampler, PLMSSampler):
        sampler.register_buffer = lambda self, name, value: setattr(self, name, value)
    return DDIMSampler(model), PLMSSampler(model)


def save_lightning(model, path, step=1234):
    """Writes a checkpoint as Lightning 1.4 did: the state dict next to optimizer states, callbacks and counters."""
    monitor = {"monitor": "val/loss", "best_model_score": torch.tensor(0.1), "best_model_path": "x/y.ckpt"}
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(3)}},
                 "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0]}]}
    torch.save({"epoch": 7, "global_step": step, "pytorch-lightning_version": "1.4.2",
                "state_dict": model.state_dict(), "callbacks": {"ModelCheckpoint": monitor},
                "optimizer_states": [optimizer], "lr_schedulers": []}, path)
