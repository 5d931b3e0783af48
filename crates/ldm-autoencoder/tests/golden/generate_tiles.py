"""Makes tiles.safetensors: a VQ first stage of CompVis that encodes in overlapping tiles, with and without a tie breaker.

    LDM_REF=FOLDER python generate_tiles.py    # see docs/tools/compvis_reference.py
"""
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))

import torch
from safetensors.torch import save_file

import compvis_reference as reference
import golden_weights
from ldm.models.autoencoder import VQModelInterface
from ldm.models.diffusion.ddpm import LatentDiffusion

torch.set_num_threads(1)
DDCONFIG = dict(double_z=False, z_channels=3, resolution=16, in_channels=3, out_ch=3, ch=32, ch_mult=[1, 2],
                num_res_blocks=1, attn_resolutions=[8], dropout=0.0)


class Split:
    """What CompVis' encode_first_stage needs of a LatentDiffusion."""
    encode_first_stage, get_fold_unfold = LatentDiffusion.encode_first_stage, LatentDiffusion.get_fold_unfold
    get_weighting, delta_border = LatentDiffusion.get_weighting, LatentDiffusion.delta_border
    meshgrid = LatentDiffusion.meshgrid

    def __init__(self, first_stage, tie_braker):
        self.first_stage_model = first_stage
        self.split_input_params = {
            "ks": (16, 16), "stride": (8, 8), "vqf": 2, "patch_distributed_vq": True, "tie_braker": tie_braker,
            "clip_min_weight": 0.01, "clip_max_weight": 0.5, "clip_min_tie_weight": 0.1, "clip_max_tie_weight": 0.4}


with torch.no_grad():
    model = VQModelInterface(embed_dim=3, n_embed=16, ddconfig=DDCONFIG, lossconfig={"target": "torch.nn.Identity"}).eval()
    golden_weights.fill(model.named_parameters(), 3)
    image = torch.randn(1, 3, 40, 32, generator=torch.Generator().manual_seed(1)).tanh()
    tensors = {"image": image, "whole": model.encode(image), "tiles": Split(model, False).encode_first_stage(image),
               "tie": Split(model, True).encode_first_stage(image)}
    for one, other in (("whole", "tiles"), ("tiles", "tie")):
        assert (tensors[one] - tensors[other]).std() > 1e-3 * tensors[one].std(), (one, other)
save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / "tiles.safetensors",
          metadata={"reference": f"CompVis/latent-diffusion {reference.commit('latent-diffusion')}",
                    "torch": torch.__version__})
