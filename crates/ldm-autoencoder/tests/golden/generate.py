"""Golden values of the first stage from CompVis' own code.

    LDM_REF=FOLDER python generate.py    # see docs/tools/compvis_reference.py

LDM_REF holds latent-diffusion and taming-transformers. Weights are not stored: both sides compute them by the formula of
`ldm_core::testing::fill_weights`. Files: one a model or quantizer, `used.npy`, and `manifest.txt` with every
parameter's name and shape of the nine official first stages. Everything is computed in float64 and stored as float32:
what the tests allow is then the error of the port alone.
"""
import contextlib, glob, io, json, os, subprocess, sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
import compvis_reference as ref
from ldm.models.autoencoder import AutoencoderKL, VQModel, VQModelInterface
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from taming.modules.vqvae.quantize import VectorQuantizer2

torch.set_num_threads(1)
CLASSES = {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel, "VQModelInterface": VQModelInterface}


def commit(name):
    return subprocess.check_output(["git", "-C", f"{ref.REF}/{name}", "rev-parse", "HEAD"], text=True).strip()


COMMITS = {"latent-diffusion": commit("latent-diffusion"), "taming-transformers": commit("taming-transformers")}


def save(name, tensors, config):
    metadata = {"reference": json.dumps(COMMITS), "torch": torch.__version__, "config": json.dumps(config)}
    tensors = {key: value.detach().contiguous() for key, value in tensors.items()}
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    save_file(tensors, HERE / f"{name}.safetensors", metadata=metadata)
    size = (HERE / f"{name}.safetensors").stat().st_size
    assert size <= 200_000, f"{name}: {size} bytes"


def fill_weights(module, seed):
    """The formula of `ldm_core::testing::fill_weights`."""
    with torch.no_grad():
        for k, (name, tensor) in enumerate(sorted(module.state_dict().items())):
            count, size = tensor.numel(), tensor.shape
            i = np.arange(count, dtype=np.float64)
            x = np.sin((i + 1) * 12.9898 + ((k + 1) * 78.233 + seed * 37.719)) * 43758.5453
            v = 2 * (x - np.floor(x)) - 1
            if len(size) >= 2:
                v = v * (1.2 / np.sqrt(count / size[0]))
            else:
                v = (1.0 if name.endswith("weight") else 0.0) + 0.1 * v
            tensor.copy_(torch.from_numpy(v.astype(np.float32)).reshape(size))
    return module


def build(config, seed):
    params = dict(config["params"], lossconfig={"target": "torch.nn.Identity"})
    with contextlib.redirect_stdout(io.StringIO()):
        model = CLASSES[config["target"].rsplit(".", 1)[-1]](**params)
    return fill_weights(model.eval(), seed).double()


def net(**changes):
    base = dict(double_z=True, z_channels=4, resolution=16, in_channels=3, out_ch=3, ch=32, ch_mult=[1, 2],
                num_res_blocks=1, attn_resolutions=[], dropout=0.0)
    return {**base, **changes}


def randn(seed, *size):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def image(config, size, seed=1):
    return randn(seed, 2, config["params"]["ddconfig"]["in_channels"], *size).tanh().double()


def gradients(model, loss, names):
    loss.backward()
    parameters = dict(model.named_parameters())
    return {f"gradient.{name}": parameters[name].grad for name in names}


def kl(name, size, ddconfig, embed_dim=3, gradient_of=(), **params):
    config = {"target": "ldm.models.autoencoder.AutoencoderKL",
              "params": {"embed_dim": embed_dim, "ddconfig": ddconfig, **params}}
    model, x = build(config, seed=1), image(config, size)
    features = model.encoder(x)
    torch.manual_seed(7)
    reconstruction, posterior = model(x)
    torch.manual_seed(7)
    noise = torch.randn(posterior.mean.shape)
    mode, _ = model(x, sample_posterior=False)
    tensors = {"image": x, "features": features, "mean": posterior.mean, "logvar": posterior.logvar, "noise": noise,
               "kl": posterior.kl(), "reconstruction": reconstruction, "reconstruction_of_mode": mode}
    if "colorize_nlabels" in params:
        tensors["rgb"] = model.to_rgb(x)
    if gradient_of:
        loss = (reconstruction - x).square().mean() + 1e-3 * posterior.kl().mean()
        tensors |= {"loss": loss, **gradients(model, loss, gradient_of)}
    save(name, tensors, config)


def vq(name, target, size, ddconfig, embed_dim=4, n_embed=24, gradient_of=(), **params):
    config = {"target": f"ldm.models.autoencoder.{target}",
              "params": {"embed_dim": embed_dim, "n_embed": n_embed, "ddconfig": dict(ddconfig, double_z=False), **params}}
    model, x = build(config, seed=2), image(config, size)
    features = model.encoder(x)
    prequant = model.encode_to_prequant(x)
    # VQModelInterface.forward cannot run: its encode returns no triple. Its parts are called as its parent's forward.
    quant, loss, (_, _, indices) = VQModel.encode(model, x)
    reconstruction = VQModel.decode(model, quant)
    tensors = {"image": x, "features": features, "prequant": prequant, "quant": quant, "codebook_loss": loss,
               "indices": indices, "reconstruction": reconstruction}
    if target == "VQModelInterface":
        assert torch.equal(model.encode(x), prequant) and torch.equal(model.decode(prequant), reconstruction)
        tensors["unquantized"] = model.decode(prequant, force_not_quantize=True)
    else:
        again, loss_again = model(x)
        assert torch.equal(again, reconstruction) and torch.equal(loss_again, loss)
    margin(model.quantize, prequant)
    if gradient_of:
        total = (reconstruction - x).square().mean() + loss
        tensors |= {"loss": total, **gradients(model, total, gradient_of)}
    save(name, tensors, config)


def margin(quantizer, z):
    """The nearest entry must win clearly, so that rounding decides nothing."""
    rows = z.permute(0, 2, 3, 1).reshape(-1, quantizer.e_dim)
    best = torch.cdist(rows.double(), quantizer.embedding.weight.double()).topk(2, largest=False).values
    assert (best[:, 1] - best[:, 0]).min() > 1e-4 and len(quantizer.embedding.weight) > 1


def codebook(name, indices_in_use=None, **options):
    with contextlib.redirect_stdout(io.StringIO()):
        quantizer = VectorQuantizer2(12, 3, beta=0.25, **options)
    with torch.no_grad():
        quantizer.embedding.weight.copy_(randn(3, 12, 3))
    quantizer.double()
    z, cotangent = randn(4, 2, 3, 4, 6).double().requires_grad_(), randn(5, 2, 3, 4, 6)
    margin(quantizer, z)
    quant, loss, (_, _, indices) = quantizer(z)
    # CompVis' unmap_to_all writes into what it is given.
    entries = quantizer.get_codebook_entry(indices.clone(), (2, 4, 6, 3))
    (loss + (quant * cotangent).sum()).backward()
    options = {**options, **({"remap": "used.npy"} if "remap" in options else {})}
    save(name, {"weights.embedding.weight": quantizer.embedding.weight, "z": z, "cotangent": cotangent,
                "quant": quant, "loss": loss, "indices": indices, "entries": entries, "gradient.z": z.grad,
                "gradient.embedding.weight": quantizer.embedding.weight.grad}, options)


def posterior(name):
    moments, other = 3 * randn(8, 2, 6, 3, 5), randn(9, 2, 6, 3, 5)
    moments[0, 3, 0] = torch.tensor([-31.0, -100.0, 20.5, 25.0, 0.0])  # clamped log-variances
    a, b = DiagonalGaussianDistribution(moments.double()), DiagonalGaussianDistribution(other.double())
    z = randn(10, 2, 3, 3, 5)
    torch.manual_seed(7)
    sample = a.sample()
    torch.manual_seed(7)
    save(name, {"moments": moments, "other": other, "z": z, "noise": torch.randn(z.shape), "sample": sample,
                "mode": a.mode(), "kl": a.kl(), "kl_other": b.kl(), "kl_to": b.kl(a), "nll": a.nll(z),
                "nll_other": b.nll(z)}, {})


def manifest():
    lines = ["# Every parameter's name and shape of the official first stages, without the loss. " + json.dumps(COMMITS)]
    for path in sorted(glob.glob(f"{ref.REF}/latent-diffusion/models/first_stage_models/*/config.yaml")):
        with contextlib.redirect_stdout(io.StringIO()):
            model = ref.first_stage(path)
        state = model.state_dict()
        lines.append(f"\n[{Path(path).parent.name}] {sum(t.numel() for t in state.values())}")
        lines += [f"{key} {','.join(map(str, state[key].shape))}" for key in sorted(state)]
    (HERE / "manifest.txt").write_text("\n".join(lines) + "\n")


FEW = ["encoder.conv_in.weight", "encoder.down.1.attn.0.q.weight", "encoder.down.0.downsample.conv.bias",
       "encoder.mid.block_1.norm1.weight", "quant_conv.weight", "post_quant_conv.bias",
       "decoder.up.0.block.1.norm2.bias", "decoder.conv_out.weight"]

kl("kl_f1", (6, 10), net(ch_mult=[1], in_channels=5, out_ch=5), colorize_nlabels=5, image_key="segmentation")
kl("kl_f2_vanilla", (12, 20), net(num_res_blocks=2, attn_resolutions=[8]), gradient_of=FEW)
# Linear attention has no residual, and with few channels a group the norm after it makes float32's rounding grow.
kl("kl_f4_linear", (24, 16), net(ch_mult=[4, 4, 4], attn_resolutions=[8], attn_type="linear"))
kl("kl_f4_none", (16, 16), net(ch_mult=[1, 1, 2], attn_resolutions=[16, 4], attn_type="none", resamp_with_conv=False,
                               tanh_out=True), embed_dim=5)
kl("kl_f8_odd_resolution", (16, 24), net(ch_mult=[1, 1, 2, 1], resolution=36, attn_resolutions=[9, 8]))
kl("kl_f2_pre_end", (8, 8), net(ch_mult=[2, 1], use_linear_attn=True, give_pre_end=True, out_ch=7))
vq("vq_f2_model", "VQModel", (12, 20), net(attn_resolutions=[8]), gradient_of=[*FEW, "quantize.embedding.weight"])
vq("vq_f4_interface", "VQModelInterface", (16, 24), net(ch_mult=[1, 1, 2], z_channels=3), embed_dim=3, n_embed=40,
   sane_index_shape=True)
np.save(HERE / "used.npy", np.array([7, 2, 11, 0, 5, 3, 1]))
USED = str(HERE / "used.npy")
codebook("codebook_legacy")
codebook("codebook", legacy=False, sane_index_shape=True)
codebook("codebook_remap_extra", remap=USED, unknown_index="extra")
codebook("codebook_remap_fixed", remap=USED, unknown_index=4, sane_index_shape=True, legacy=False)
posterior("posterior")
manifest()
