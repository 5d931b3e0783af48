"""Makes dims.safetensors: CompVis' U-Net over sequences (dims 1) and volumes (dims 3).

    LDM_REF=FOLDER python generate_dims.py
"""
import torch

from generate import base, build, run, save_file

SIZES = {1: (12,), 3: (3, 8, 12)}
CASES = {
    "sequence": base(num_heads=2, dims=1, model_channels=64),
    "sequence_pooled": base(num_heads=1, dims=1, conv_resample=False, use_scale_shift_norm=True, num_classes=5),
    "sequence_updown": base(num_heads=2, dims=1, resblock_updown=True, n_embed=7),
    "volume": base(num_heads=2, dims=3),
    "volume_pooled": base(num_heads=1, dims=3, conv_resample=False, attention_resolutions=[]),
    "volume_updown": base(num_heads=2, dims=3, resblock_updown=True, attention_resolutions=[]),
}

if __name__ == "__main__":
    tensors, configs = {}, {}
    for seed, (name, config) in enumerate(CASES.items()):
        generator = torch.Generator().manual_seed(seed)
        given = {"x": torch.randn(2, 3, *SIZES[config["dims"]], generator=generator), "t": torch.tensor([17.25, 981.0])}
        if "num_classes" in config:
            given["label"] = torch.tensor([0, 4])
        with torch.no_grad():
            given["y"] = run(build(config, seed).eval(), given)
        assert given["y"].std() > 0.1, name
        tensors |= {f"{name}.{key}": value for key, value in given.items()}
        configs[name] = {"seed": seed, "config": config}
    save_file(tensors, "dims.safetensors", configs)
