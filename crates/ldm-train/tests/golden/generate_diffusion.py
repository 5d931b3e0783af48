"""Makes diffusion_losses.safetensors and diffusion_training.safetensors with CompVis' own LatentDiffusion: losses, their
gradients, and five steps of its optimizer and its EMA.

    LDM_REF=FOLDER python generate_diffusion.py    # see docs/tools/compvis_reference.py

The model is that of ldm-pipelines/tests/golden/class.yaml; its weights are computed by `fill`, on both sides.
"""
import copy
import json
import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

HERE = Path(__file__).parent
PIPELINES = HERE.parents[2] / "ldm-pipelines/tests/golden"
sys.path.insert(0, str(PIPELINES))
from generate import commit, draw, fill, reference  # noqa: E402
from ldm.modules.ema import LitEma  # noqa: E402

SEED, BATCH, STEPS, LR = 7, 4, 5, 1e-3
UNET = "model.diffusion_model."
NAMES = [
    *(UNET + name for name in (
        "input_blocks.0.0.weight", "input_blocks.1.0.in_layers.0.weight", "input_blocks.1.0.emb_layers.1.bias",
        "input_blocks.1.1.transformer_blocks.0.norm1.weight", "input_blocks.1.1.proj_in.bias", "time_embed.0.bias",
        "middle_block.1.norm.weight", "output_blocks.0.0.skip_connection.bias", "out.2.weight")),
    "cond_stage_model.embedding.weight",
]
CASES = {
    "eps_l2": {},
    "eps_l1": {"loss_type": "l1"},
    "x0_l2": {"parameterization": "x0"},
    "x0_l1_elbo": {"parameterization": "x0", "loss_type": "l1", "original_elbo_weight": 0.3},
    "eps_elbo": {"original_elbo_weight": 0.5, "l_simple_weight": 0.8},
    "eps_logvar": {"learn_logvar": True, "logvar_init": 0.4, "original_elbo_weight": 0.01, "l_simple_weight": 0.7},
    "eps_fixed_logvar": {"logvar_init": -0.3},
}
TRAINED = {"learn_logvar": True, "logvar_init": 0.2, "original_elbo_weight": 0.001, "use_ema": True}


def build(overrides):
    config = yaml.safe_load((PIPELINES / "class.yaml").read_text())["model"]
    config["params"].update(overrides)
    config["params"]["cond_stage_config"]["params"].pop("null_class")
    model = reference.instantiate_from_config(copy.deepcopy(config)).train()
    fill([item for item in model.named_parameters() if item[0] != "logvar"], SEED)
    if model.use_ema:
        model.model_ema = LitEma(model.model)  # of the weights as they are now
    return model


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": draw(seed + 1, BATCH, 3, 16, 16).tanh(),
        "posterior_noise": draw(seed + 2, BATCH, 4, 8, 8),
        "eps": draw(seed + 3, BATCH, 4, 8, 8),
        "t": torch.cat((torch.randint(0, 30, (1,), generator=generator), torch.randint(0, 1000, (BATCH - 1,), generator=generator))),
        "class": torch.randint(0, 11, (BATCH,), generator=generator),
    }


def losses(model, given):
    """`training_step` with the draws of `given`: get_input, the conditioner, p_losses."""
    posterior = model.encode_first_stage(given["image"])
    posterior.sample = lambda: posterior.mean + posterior.std * given["posterior_noise"]
    z = model.get_first_stage_encoding(posterior).detach()
    c = model.get_learned_conditioning({"class": given["class"]})
    return model.p_losses(z, c, given["t"], noise=given["eps"])


def save(name, tensors, **config):
    tensors = {key: tensor.detach().contiguous().clone() for key, tensor in tensors.items()}
    for key, tensor in tensors.items():
        assert tensor.isfinite().all() and (tensor.numel() < 2 or not tensor.is_floating_point() or tensor.std() > 0), key
    save_file(tensors, HERE / name, {
        "reference": f"CompVis/latent-diffusion {commit()}",
        "torch": torch.__version__,
        "config": json.dumps({"file": "class.yaml", "seed": SEED, **config}),
    })


def one_step():
    given = batch(100)
    tensors = dict(given)
    for case, overrides in CASES.items():
        model = build(overrides)
        loss, parts = losses(model, given)
        loss.backward()
        for name, part in parts.items():
            tensors[f"{case}/{name.removeprefix('train/')}"] = part
        parameters = dict(model.named_parameters())
        for name in NAMES + ["logvar"] * model.learn_logvar:
            assert parameters[name].grad.abs().max() > 0, (case, name)
            tensors[f"{case}/grad.{name}"] = parameters[name].grad
    save("diffusion_losses.safetensors", tensors, cases=CASES)


def probe(change):
    """A change's norm, and its product with a wave: one number for its size, one for its direction."""
    flat = change.flatten().double()
    return torch.stack((flat.norm(), (flat * torch.sin(torch.arange(len(flat), dtype=torch.float64) * 0.7)).sum()))


def five_steps():
    model = build(TRAINED)
    model.learning_rate = LR
    optimizer = model.configure_optimizers()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    batches = [batch(200 + 10 * step) for step in range(STEPS)]
    seen = []
    for given in batches:
        optimizer.zero_grad()
        loss, _ = losses(model, given)
        loss.backward()
        optimizer.step()
        model.model_ema(model.model)  # on_train_batch_end
        seen.append(loss.detach())
    tensors = {key: torch.stack([given[key] for given in batches]) for key in batches[0]}
    tensors["losses"] = torch.stack(seen)
    after = dict(model.named_parameters())
    moved = [name for name in sorted(after) if not name.startswith("first_stage_model.")]
    tensors["changes"] = torch.stack([probe(after[name].detach() - before[name]) for name in moved])
    averages = dict(model.model_ema.named_buffers())
    for name in NAMES + ["logvar"]:
        tensors[f"after.{name}"] = after[name]
        if name.startswith("model."):
            tensors[f"ema.{name}"] = averages[name.removeprefix("model.").replace(".", "")]
    save("diffusion_training.safetensors", tensors, overrides=TRAINED, lr=LR)


if __name__ == "__main__":
    one_step()
    five_steps()
