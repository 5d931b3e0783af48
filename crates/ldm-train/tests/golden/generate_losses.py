"""Golden values of the first stages' losses from CompVis' own code: CompVis' `LPIPSWithDiscriminator`,
taming-transformers' `VQLPIPSWithDiscriminator` and CompVis' copy of it, with CompVis' autoencoders, optimizers and
step order.

    LDM_REF=FOLDER python generate_losses.py [NAME…]    # see docs/tools/compvis_reference.py

Weights are not stored: both sides compute them by the formula of `ldm_core::testing::fill_weights`, LPIPS' as in
`ldm-metrics/tests/golden/generate_lpips.py`. Computed in float64, stored as float32. Losses with kinks (|x|, ReLU, max
pooling, the nearest code) have gradients that jump, so batches are searched in which rounding decides nothing: the same
run from weights disturbed by what float32 rounds must come out the same. Where five steps meet a kink with every batch,
the file has four. A file holds, for one loss:

- `image.K`, `map.K`, `noise.K.T`: the batch of step K, its label maps (conditional discriminator), and the posterior's draw in turn T (KL)
- `before.*`, `after.*`: all that is logged at a step before `disc_start` and at it, from the initial weights; and the
  gradients of named parameters
- `step.K.*`: what is logged in each step of stage one, and `end.NAME`: evenly spaced elements of each parameter after
  them, `moved.NAME` how far those went
"""
import contextlib, importlib.util, io, json, os, subprocess, sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
import compvis_reference as ref
from ldm.models.autoencoder import AutoencoderKL, VQModel
from ldm.modules.losses import vqperceptual as compvis_vq

spec = importlib.util.spec_from_file_location(
    "generate_lpips", HERE.parents[2] / "ldm-metrics/tests/golden/generate_lpips.py")
lpips = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lpips)
lpips.without_downloads()

torch.set_num_threads(1)
compvis_vq.exists = lambda x: x is not None  # a name the file uses and never imports
COMMITS = {name: subprocess.check_output(["git", "-C", f"{ref.REF}/{name}", "rev-parse", "HEAD"], text=True).strip()
           for name in ("latent-diffusion", "taming-transformers")}
STEPS, START, RATE, PLACES = 5, 2, 2e-5, 16
# No attention and two channels a group at least: no parameter has a gradient of pure rounding, which Adam would make as
# large as any other.
NET = dict(z_channels=3, resolution=16, in_channels=3, out_ch=3, ch=64, ch_mult=[1, 1], num_res_blocks=1,
           attn_resolutions=[], attn_type="none", dropout=0.0)
GRADIENTS = ["encoder.conv_in.bias", "encoder.down.0.block.0.norm1.weight", "encoder.down.1.block.0.conv2.bias",
             "encoder.norm_out.bias", "quant_conv.weight", "post_quant_conv.weight", "decoder.conv_in.bias",
             "decoder.up.0.block.1.norm2.weight", "decoder.conv_out.weight", "decoder.conv_out.bias"]
CRITIC = ["main.0.bias", "main.0.weight", "main.5.bias"]


def randn(seed, *size):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def fill(model):
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("loss.perceptual_loss.")}
    with torch.no_grad():
        for k, (name, tensor) in enumerate(sorted(state.items())):
            tensor.copy_(lpips.formula(name, tensor, k, seed=5))
    if hasattr(model.loss, "perceptual_loss"):
        lpips.fill(model.loss.perceptual_loss, seed=3)
    return model.double()


def turn(model, image, index, step, noise, cond=None):
    """One of Lightning's calls of `training_step`: a fresh pass and the loss of optimizer `index`. `cond` is what a
    conditional discriminator sees, which CompVis' models never pass."""
    last = model.get_last_layer()
    if isinstance(model, AutoencoderKL):
        torch.manual_seed(noise)
        reconstruction, posterior = model(image)
        torch.manual_seed(noise)
        drawn = torch.randn(posterior.mean.shape)
        loss, log = model.loss(image, reconstruction, posterior, index, step, last_layer=last, cond=cond, split="t")
        return loss, log, drawn
    reconstruction, latent, indices = model(image, return_pred_indices=True)
    margin(model, image)
    more = {}
    if index == 0 and isinstance(model.loss, compvis_vq.VQLPIPSWithDiscriminator):
        more = {"predicted_indices": indices}
    loss, log = model.loss(latent, image, reconstruction, index, step, last_layer=last, split="t", **more)
    return loss, log, None


class Unstable(Exception):
    pass


def margin(model, image):
    """The nearest entry must win clearly, so that rounding decides nothing."""
    with torch.no_grad():
        rows = model.encode_to_prequant(image).permute(0, 2, 3, 1).reshape(-1, model.embed_dim)
        best = torch.cdist(rows, model.quantize.embedding.weight).topk(2, largest=False).values
        gap = (best[:, 1] - best[:, 0]).min()
        if gap < 3e-5:
            raise Unstable


def toggle(model, optimizers, index):
    """Lightning's toggle_optimizer: only this optimizer's parameters take gradients."""
    for each in optimizers:
        for group in each.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad = each is optimizers[index]


def run(kind, config, size, steps, seed, disturb):
    with contextlib.redirect_stdout(io.StringIO()):
        model = {"kl": AutoencoderKL, "vq": VQModel}[kind](**config)
    model = fill(model).train()
    model.loss.perceptual_loss.eval()  # its dropout: see losses.md, and `ldm_metrics::Lpips`
    if disturb:
        g = torch.Generator().manual_seed(disturb)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 2e-7 * torch.randn(parameter.shape, generator=g))
    model.learning_rate = RATE
    with contextlib.redirect_stdout(io.StringIO()):
        optimizers, _ = model.configure_optimizers()
    parameters = {k: v for k, v in model.named_parameters() if not k.startswith("loss.perceptual_loss.")}
    trained = [p for each in optimizers for group in each.param_groups for p in group["params"]]
    critic = [f"loss.discriminator.{each}" for each in CRITIC if f"loss.discriminator.{each}" in parameters]
    tensors = {f"image.{k}": randn(seed + 20 + k, 2, 3, size, size).tanh() for k in range(steps)}
    images = [tensors[f"image.{k}"].double() for k in range(steps)]
    maps = [None] * steps
    if config["lossconfig"]["params"].get("disc_conditional"):
        labels = config["lossconfig"]["params"]["disc_in_channels"] - 3
        tensors |= {f"map.{k}": randn(seed + 40 + k, 2, size, size).abs().mul(2).long().clamp(max=labels - 1)
                    for k in range(steps)}
        maps = [torch.nn.functional.one_hot(tensors[f"map.{k}"], labels).permute(0, 3, 1, 2).double()
                for k in range(steps)]

    def keep(prefix, log):
        for key, value in log.items():
            tensors[f"{prefix}.{key.split('/')[1]}"] = torch.as_tensor(value).double().reshape(())

    draws = 0
    for moment, step in (("before", START - 1), ("after", START)):
        for index, names in ((0, GRADIENTS), (1, critic)):
            toggle(model, optimizers, index)
            draws += 1
            loss, log, drawn = turn(model, images[0], index, step, seed + 100 + draws, maps[0])
            keep(moment, log)
            found = torch.autograd.grad(loss, [parameters[each] for each in names])
            tensors |= {f"{moment}.gradient.{each}": grad for each, grad in zip(names, found)}
            if drawn is not None:
                tensors[f"noise.{moment}.{index}"] = drawn
    start = {k: v.detach().clone() for k, v in parameters.items()}
    for step in range(steps):
        for index, optimizer in enumerate(optimizers):
            toggle(model, optimizers, index)
            optimizer.zero_grad()
            draws += 1
            loss, log, drawn = turn(model, images[step], index, step, seed + 100 + draws, maps[step])
            keep(f"step.{step}", log)
            loss.backward()
            optimizer.step()
            if drawn is not None:
                tensors[f"noise.{step}.{index}"] = drawn
    for key, value in parameters.items():
        if any(value is each for each in trained):
            at = torch.linspace(0, value.numel() - 1, min(PLACES, value.numel())).long()
            tensors[f"end.{key}"] = value.detach().flatten()[at]
            tensors[f"moved.{key}"] = (value.detach() - start[key]).flatten()[at]
    for key, value in model.loss.discriminator.named_buffers():
        at = torch.linspace(0, max(value.numel() - 1, 0), min(PLACES, value.numel())).long()
        tensors[f"end.loss.discriminator.{key}"] = value.detach().flatten()[at].double()
    return {k: v.detach() for k, v in tensors.items()}


def differ(a, b):
    """By what share of its tolerance the worst tensor differs."""
    worst = 0
    for key, x in a.items():
        if key.startswith(("image.", "map.", "noise.", "moved.")):
            continue
        scale = x.double().norm().clamp(min=1e-3) if x.dim() == 0 else x.double().norm().clamp(min=1e-30)
        away = ((x.double() - b[key].double()).norm() / scale).item()
        worst = max(worst, away / (1e-5 if key.startswith(("before.", "after.")) else 1e-4))
    moved = [torch.cat([t[k].double() for k in sorted(a) if k.startswith("moved.")]) for t in (a, b)]
    return max(worst, ((moved[0] - moved[1]).norm() / moved[0].norm()).item() / 1e-2)


def generate(name, kind, target, params, size=16, steps=STEPS, **model_params):
    if sys.argv[1:] and name not in sys.argv[1:]:
        return
    config = {"embed_dim": 3, "ddconfig": dict(NET, double_z=kind == "kl"), **model_params,
              "lossconfig": {"target": target, "params": params}}
    for seed in range(0, 100_000, 1000):
        try:
            tensors = run(kind, config, size, steps, seed, 0)
            share = max(differ(tensors, run(kind, config, size, steps, seed, disturb)) for disturb in range(1, 13))
        except Unstable:
            continue
        print(name, seed, share, flush=True)
        if share < 0.8:
            break
    else:
        raise SystemExit(f"{name}: no stable batches")
    tensors = {k: v.float().contiguous().clone() for k, v in tensors.items()}
    metadata = {"reference": json.dumps(COMMITS), "torch": torch.__version__, "tolerance": "1e-5, steps 1e-4",
                "config": json.dumps({"target": kind, "params": config}),
                "run": json.dumps({"steps": steps, "disc_start": START, "rate": RATE, "seeds": [5, 3, seed]})}
    path = HERE / f"losses_{name}.safetensors"
    save_file(tensors, path, metadata=metadata)
    path.chmod(0o644)
    assert path.stat().st_size <= 200_000, (name, path.stat().st_size)


KL = "ldm.modules.losses.contperceptual.LPIPSWithDiscriminator"
VQ = "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator"
COPY = "ldm.modules.losses.vqperceptual.VQLPIPSWithDiscriminator"
generate("kl_hinge", "kl", KL, {"disc_start": START, "kl_weight": 1e-3, "disc_weight": 0.5, "logvar_init": 0.3,
                                "disc_num_layers": 2, "perceptual_weight": 0.7})
generate("kl_vanilla_actnorm", "kl", KL, {"disc_start": START, "kl_weight": 1e-6, "disc_num_layers": 1,
                                          "use_actnorm": True, "disc_loss": "vanilla", "disc_factor": 0.8})
generate("vq_hinge", "vq", VQ, {"disc_start": START, "disc_weight": 0.75, "codebook_weight": 0.9, "disc_ndf": 16,
                                "disc_in_channels": 3, "disc_conditional": False}, n_embed=20, lr_g_factor=1.5, size=24, steps=4)
generate("vq_vanilla_actnorm", "vq", COPY, {"disc_start": START, "disc_ndf": 8, "disc_num_layers": 2, "use_actnorm": True,
                                            "disc_loss": "vanilla", "pixel_loss": "l2", "n_classes": 11},
         n_embed=11, sane_index_shape=True)
generate("kl_conditional", "kl", KL, {"disc_start": START, "kl_weight": 1e-3, "disc_num_layers": 1,
                                      "disc_in_channels": 6, "disc_conditional": True})
