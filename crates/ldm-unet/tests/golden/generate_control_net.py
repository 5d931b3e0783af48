"""Makes control_net.safetensors of this folder with diffusers' ControlNetModel and UNet2DConditionModel.

LDM_REF=folder-of-checkouts python generate_control_net.py
The folder holds `latent-diffusion` and `stable-diffusion`. Needs torch, diffusers, einops, omegaconf, safetensors, pyyaml.

- tiny models: config.json, names and shapes as `save_pretrained` writes them; residuals, and the U-Net's output with
  them. Weights are not stored: both sides compute them by the formula of `ldm_testing::fill_weights`.
- metadata `official`: names and shapes of the ControlNet of Stable Diffusion v1 (defaults of the class, context of 768),
  and the table of names of diffusers' converter from lllyasviel's.
"""
import json
from pathlib import Path

import diffusers
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from generate import OFFICIAL, UNetModel, fill, unet_params
from generate_diffusers import digest, saved
from safetensors.torch import save_file

HERE = Path(__file__).parent
torch.set_num_threads(1)

CASES = {
    "three_levels": (
        {"block_out_channels": (32, 64, 64), "layers_per_block": 1, "cross_attention_dim": 24, "attention_head_dim": (2, 4, 4),
         "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")},
        {"conditioning_embedding_out_channels": (16, 32)}, (2, 8, 8)),
    "bgr_depth_two": (
        {"block_out_channels": (32, 64), "layers_per_block": 2, "cross_attention_dim": 40, "attention_head_dim": 4,
         "transformer_layers_per_block": 2, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")},
        {"conditioning_embedding_out_channels": (16, 24, 20), "controlnet_conditioning_channel_order": "bgr"}, (1, 4, 4)),
}


def cases():
    tensors, cases = {}, {}
    for seed, (name, (config, control, (batch, height, width))) in enumerate(CASES.items(), start=500):
        up = tuple(kind.replace("Down", "Up") for kind in reversed(config["down_block_types"]))
        unet = fill(UNet2DConditionModel(**config, up_block_types=up), seed).eval()
        net = fill(ControlNetModel(**config, **control), seed + 50).eval()
        factor = 2 ** (len(control["conditioning_embedding_out_channels"]) - 1)
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(batch, 4, height, width, generator=generator)
        t = torch.tensor([981.0, 17.25][:batch])
        context = torch.randn(batch, 5, config["cross_attention_dim"], generator=generator)
        hint = torch.rand(1, 3, factor * height, factor * width, generator=generator)
        with torch.no_grad():
            down, middle = net(x, t, context, hint.expand(batch, -1, -1, -1), conditioning_scale=0.7, return_dict=False)
            y = unet(x, t, context, down_block_additional_residuals=down, mid_block_additional_residual=middle).sample
            without = unet(x, t, context).sample
            elsewhere, _ = net(x, t, context, 1 - hint.expand(batch, -1, -1, -1), return_dict=False)
        assert (y - without).std() > 0.05 and (down[-1] - elsewhere[-1]).std() > 0.01, name
        case = {"x": x, "t": t, "context": context, "hint": hint, "y": y, "middle": middle}
        case |= {f"down.{index}": residual for index, residual in enumerate(down)}
        tensors |= {f"{name}.{key}": value.contiguous() for key, value in case.items()}
        (unet_config, unet_shapes), (net_config, net_shapes) = saved(unet), saved(net)
        cases[name] = {
            "seed": seed, "unet": {"config": unet_config, "shapes": unet_shapes},
            "net": {"config": net_config, "shapes": net_shapes}}
    return tensors, cases


def official():
    params = unet_params(OFFICIAL["sd-v1"])
    with torch.device("meta"):
        model = ControlNetModel(cross_attention_dim=768)
        unet = UNetModel(**params).state_dict()
    names = [name for name in unet if name.split(".")[0] in ("time_embed", "input_blocks", "middle_block")]
    for module in [f"zero_convs.{index}.0" for index in range(12)] + ["middle_block_out.0"] + [
            f"input_hint_block.{index}" for index in range(0, 16, 2)]:
        names += [f"{module}.weight", f"{module}.bias"]
    places = {f"control_model.{name}": torch.tensor(float(index)) for index, name in enumerate(names)}
    converted = convert_controlnet_checkpoint(places, dict(model.config))
    assert converted.keys() == model.state_dict().keys()
    return {
        "config": json.loads(model.to_json_string()), "tensors": len(converted),
        "shapes_sha256": digest(f"{key} {list(tensor.shape)}" for key, tensor in model.state_dict().items()),
        "names_sha256": digest(f"{key} {names[int(place)]}" for key, place in converted.items()),
    }


if __name__ == "__main__":
    tensors, described = cases()
    metadata = {
        "reference": f"diffusers {diffusers.__version__}", "torch": torch.__version__,
        "cases": json.dumps(described), "official": json.dumps(official())}
    save_file(tensors, HERE / "control_net.safetensors", metadata)
