"""Makes lycoris.safetensors with LyCORIS' and PEFT's own code: LoHa, LoKr, LoCon with a core, and DoRA.

python generate_lycoris.py
Needs torch, diffusers, transformers, safetensors, lycoris-lora, peft.

The model is the case `stable_diffusion` of generate_folders.py. For each case the file holds `CASE.file.NAME`, the tensors
that the trainer writes (kohya's names, or those of diffusers); `CASE.weights.NAME`, the product of every changed weight
with a fixed vector; and `CASE.answer`, the U-Net's output with the adapter applied, not merged. The weights are those of
LyCORIS' `forward`: its `get_diff_weight` of LoHa and LoKr multiplies by the scale twice (lycoris-lora 4.1.3).
"""
import json

import diffusers
import peft
import torch
from generate_folders import HERE, fill
from generate_lora import answer, base
from importlib.metadata import version
from lycoris.kohya import LycorisNetworkKohya
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

UNET = ["mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
        "down_blocks.1.attentions.0.proj_in", "down_blocks.0.resnets.0.conv1", "conv_in"]
TEXT = ["encoder.layers.1.mlp.fc1"]
# Arguments of LyCORIS; `wd_on_out` chooses the side of the magnitudes of `weight_decompose`, which is DoRA.
CASES = {
    "loha": {"network_module": "loha"},
    "loha_core": {"network_module": "loha", "use_tucker": True, "weight_decompose": True, "wd_on_out": False},
    "lokr": {"network_module": "lokr", "decompose_both": True, "factor": 8},
    "lokr_core": {"network_module": "lokr", "use_tucker": True, "factor": 4, "weight_decompose": True},
    "lokr_full": {"network_module": "lokr", "full_matrix": True, "factor": 4},
    "locon_core": {"network_module": "locon", "use_tucker": True},
    "dora_in": {"network_module": "locon", "weight_decompose": True, "wd_on_out": False},
    "dora_out": {"network_module": "locon", "weight_decompose": True, "rs_lora": True},
}


def product(weight):
    rows = weight.detach().double().flatten(1)
    return rows @ torch.cos(torch.arange(rows.shape[1], dtype=torch.float64))


def merged(module):
    """The weight of `forward`."""
    weight = module._current_weight()
    if hasattr(module, "make_weight"):
        change = module.make_weight(weight.device) * module.scale
    else:
        change = module.get_weight(module.shape) * module.scalar
    return module.apply_weight_decompose(weight + change) if module.wd else weight + change


def ours(name):
    """The name of the weight in diffusers, below the part."""
    for part, prefix, modules in (("unet", "lora_unet_", UNET), ("text_encoder", "lora_te_", TEXT)):
        for module in modules:
            if name == prefix + module.replace(".", "_"):
                return f"{part}.{module}.weight"
    raise ValueError(name)


def scaled(network):
    """Random factors of a size that changes the output, and magnitudes near those of the weights."""
    named = {}
    for name, value in network.named_parameters():
        if name.endswith("dora_scale"):
            value.mul_(1 + 0.3 * torch.sin(torch.arange(value.numel(), dtype=value.dtype)).view_as(value))
        else:
            named[name] = value
    fill(sorted(named.items()), 31)
    for value in named.values():
        value.mul_(2)


def lycoris(case, arguments):
    pipeline = base()
    plain = answer(pipeline)["answer"]
    LycorisNetworkKohya.apply_preset({
        "unet_target_module": [], "unet_target_name": UNET, "text_encoder_target_module": [],
        "text_encoder_target_name": TEXT})
    network = LycorisNetworkKohya(
        pipeline.text_encoder, pipeline.unet, lora_dim=2, conv_lora_dim=3, alpha=1, conv_alpha=2, **arguments)
    network.apply_to(pipeline.text_encoder, pipeline.unet, True, True)
    network.eval()
    scaled(network)
    tensors = {f"{case}.{key}": value.contiguous() for key, value in answer(pipeline).items()}
    assert (tensors[f"{case}.answer"] - plain).abs().max() > 0.03, (tensors[f"{case}.answer"] - plain).abs().max()
    modules = network.text_encoder_loras + network.unet_loras
    assert len(modules) == len(UNET) + len(TEXT), len(modules)
    for module in modules:
        for key, value in module.custom_state_dict().items():
            tensors[f"{case}.file.{module.lora_name}.{key}"] = value.detach().contiguous()
        tensors[f"{case}.weights.{ours(module.lora_name)}"] = product(merged(module))
    print(case, (tensors[f"{case}.answer"] - plain).abs().max().item())
    return tensors


def dora_of_peft():
    """PEFT has vectors of the outputs for layers, and `[1, out, 1, 1]` for convolutions."""
    pipeline = base()
    plain = answer(pipeline)["answer"]
    tensors, parts = {}, {"unet": (pipeline.unet, UNET), "text_encoder": (pipeline.text_encoder, TEXT)}
    for part, (model, modules) in parts.items():
        inject_adapter_in_model(LoraConfig(r=2, lora_alpha=3, target_modules=modules, use_dora=True), model)
        model.eval()
        fill([(key, value) for key, value in sorted(model.named_parameters()) if ".lora_A" in key or ".lora_B" in key], 32)
        for key, value in model.named_parameters():
            if "magnitude" in key:
                value.mul_(1 + 0.3 * torch.sin(torch.arange(value.numel(), dtype=value.dtype)).view_as(value))
        for key, value in get_peft_model_state_dict(model).items():
            tensors[f"peft.file.{part}.{key}"] = value.detach().clone().contiguous()
    tensors |= {f"peft.{key}": value.contiguous() for key, value in answer(pipeline).items()}
    assert (tensors["peft.answer"] - plain).abs().max() > 0.03
    metadata = {f"{part}.{key}": value for part in parts for key, value in (("r", 2), ("lora_alpha", 3), ("use_dora", True))}
    for part, (model, modules) in parts.items():
        for module in modules:
            layer = model.get_submodule(module)
            layer.merge()
            tensors[f"peft.weights.{part}.{module}.weight"] = product(layer.base_layer.weight)
    print("peft", (tensors["peft.answer"] - plain).abs().max().item())
    # As `save_lora_weights` writes it, of which only these keys matter.
    return tensors, {"lora_adapter_metadata": json.dumps(metadata)}


def main():
    tensors = {}
    for case, arguments in CASES.items():
        tensors |= lycoris(case, arguments)
    more, metadata = dora_of_peft()
    tensors |= more
    # The inputs are those of every case.
    for key in ("x", "tokens"):
        tensors[key] = tensors[f"peft.{key}"]
    tensors = {key: value for key, value in tensors.items() if key.rsplit(".", 1)[-1] not in ("x", "tokens") or "." not in key}
    save_file(tensors, HERE / "lycoris.safetensors", {
        "reference": f"lycoris-lora {version('lycoris-lora')}, peft {peft.__version__}, diffusers {diffusers.__version__}",
        "torch": torch.__version__} | metadata)


if __name__ == "__main__":
    with torch.no_grad():
        main()
