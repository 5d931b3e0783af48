"""Makes token_merging.safetensors: CompVis' U-Net with tokens merged by tomesd, without its random destinations.

    LDM_REF=FOLDER python generate_token_merging.py

Needs tomesd==0.1.3, too.
"""
import tomesd
import torch

from generate import base, build, inputs, run, save_file

TRANSFORMER = {"num_heads": 2, "use_spatial_transformer": True, "transformer_depth": 2, "context_dim": 24}
# The size of the latent, the share, and the downsampling of the largest maps with transformers.
CASES = {
    "half": (base(**TRANSFORMER, attention_resolutions=[1, 2]), (8, 12), 0.5, 1),
    "most": (base(**TRANSFORMER, attention_resolutions=[1, 2]), (8, 12), 0.9, 1),
    "odd": (base(**TRANSFORMER, attention_resolutions=[1], channel_mult=[1]), (7, 9), 0.3, 1),
    "second_level": (base(**TRANSFORMER, attention_resolutions=[2]), (8, 12), 0.5, 2),
}

class Wrapped(torch.nn.Module):
    """A U-Net where tomesd looks for it."""

    def __init__(self, unet):
        super().__init__()
        self.model = torch.nn.ModuleDict()
        self.model.diffusion_model = unet


if __name__ == "__main__":
    tensors, configs = {}, {}
    for seed, (name, (config, size, share, downsampling)) in enumerate(CASES.items()):
        model = build(config, seed).eval()
        given = inputs(config, {"context": (5, 24), "size": size}, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            whole = run(model, given)
            tomesd.apply_patch(Wrapped(model), ratio=share, max_downsample=downsampling, use_rand=False)
            given["y"] = run(model, given)
        assert (given["y"] - whole).std() > 0.01 * whole.std(), name
        tensors |= {f"{name}.{key}": value for key, value in given.items()}
        configs[name] = {"seed": seed, "config": config, "share": share}
    save_file(tensors, "token_merging.safetensors", configs)
