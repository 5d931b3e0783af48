"""Golden values of ldm-metrics' measures of sets, and of structural similarity.

    python generate_sets.py GUIDED-DIFFUSION

Needs torch-fidelity (FID, KID, Inception score, precision and recall), prdc (density and coverage, by the authors of that
paper), scikit-image (SSIM) and pytorch-msssim (MS-SSIM), and a checkout of openai/guided-diffusion: its evaluator is run on
given features, with NumPy in the place of the one product that TensorFlow computes.
"""
import importlib.metadata
import importlib.util
import json
import pathlib
import sys
from unittest import mock

import numpy as np
import torch
from prdc import compute_prdc
from pytorch_msssim import ms_ssim
from safetensors.torch import save_file
from skimage.metrics import structural_similarity
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

HERE = pathlib.Path(__file__).parent
PACKAGES = ["torch-fidelity", "prdc", "scikit-image", "pytorch-msssim", "numpy", "torch"]


def adm(real, made):
    """Results of ADM's evaluator for two sets of features."""
    sys.modules["tensorflow"] = sys.modules["tensorflow.compat"] = sys.modules["tensorflow.compat.v1"] = mock.MagicMock()
    np.bool = bool  # as the NumPy of its time
    spec = importlib.util.spec_from_file_location("evaluator", pathlib.Path(sys.argv[1]) / "evaluations/evaluator.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Block:
        def pairwise_distances(self, u, v):
            u, v = u.astype(np.float64), v.astype(np.float64)
            return np.square(u[:, None] - v[None]).sum(-1)

        def less_thans(self, u, radii_u, v, radii_v):
            apart = self.pairwise_distances(u, v)[..., None]
            return (apart <= radii_v).any(1), (apart <= radii_u[:, None]).any(0)

    module.DistanceBlock = lambda session: Block()
    manifold = module.ManifoldEstimator(None, row_batch_size=300, col_batch_size=300)
    precision, recall = module.Evaluator.compute_prec_recall(mock.MagicMock(manifold_estimator=manifold), real, made)
    one, other = [module.Evaluator.compute_statistics(None, x.astype(np.float64)) for x in (real, made)]
    return {"adm_fid": one.frechet_distance(other), "adm_precision": precision, "adm_recall": recall}


def sets(g):
    mix = torch.randn((24, 24), generator=g)
    real = torch.randn((260, 24), generator=g) @ mix
    made = (torch.randn((230, 24), generator=g) * 0.8) @ mix + 0.7
    fid = fid_statistics_to_metric(fid_features_to_statistics(real), fid_features_to_statistics(made), False)
    # One subset, of all: then its order says nothing.
    kid = kid_features_to_metric(real[:230], made, kid_subsets=1, kid_subset_size=230, verbose=False)
    prc = prc_features_to_metric(made, real, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=False, verbose=False)
    prdc = compute_prdc(real.numpy(), made.numpy(), nearest_k=5)
    logits = torch.randn((230, 7), generator=g) * 3
    isc = isc_features_to_metric(logits, splits=4, shuffle=False)
    statistics = fid_features_to_statistics(real)
    # `arr_0` are the images in ADM's reference batches.
    np.savez(HERE / "moments.npz", arr_0=np.zeros((2, 4, 4, 3), np.uint8), mu=statistics["mu"], sigma=statistics["sigma"],
             mu_s=statistics["mu"][:5].astype(np.float32), sigma_s=statistics["sigma"][:5, :5].astype(np.float32))
    np.savez_compressed(HERE / "moments_pytorch_fid.npz", mu=statistics["mu"], sigma=statistics["sigma"])
    values = {**fid, **kid, **isc, **prc, **adm(real.numpy(), made.numpy()), "precision_5": prdc["precision"], "recall_5": prdc["recall"],
              "density": prdc["density"], "coverage": prdc["coverage"]}
    return {"real": real, "made": made, "logits": logits}, {key: float(value) for key, value in values.items()}


def images(g):
    a = torch.nn.functional.interpolate(torch.rand((2, 1, 12, 14), generator=g) * 2 - 1, (177, 182), mode="bicubic").clamp(-1, 1)
    # Held in 8 bits, so that the file is small: whoever reads it draws the same.
    a = ((a + 1) * 127.5).round().to(torch.uint8)
    noise = torch.randint(-40, 41, (2, 1, 177, 182), generator=g) * torch.tensor([1.0, 0.3]).view(2, 1, 1, 1)
    b = (a + noise).clamp(0, 255).round().to(torch.uint8)
    def one(x, y):
        full = structural_similarity(x.numpy(), y.numpy(), channel_axis=0, gaussian_weights=True, sigma=1.5, data_range=255,
                                     use_sample_covariance=False, full=True)[1]
        return full[:, 5:-5, 5:-5].mean()
    # scikit-image filters by a window cut off at 3.5 deviations, 5 pixels: the window of the paper.
    ssim = torch.tensor([one(x, y) for x, y in zip(a, b)], dtype=torch.float64)
    both = ms_ssim(a.double(), b.double(), data_range=255, size_average=False)
    return {"a": a, "b": b, "ssim": ssim, "ms_ssim": both}


def main():
    g = torch.Generator().manual_seed(3)
    tensors, values = sets(g)
    tensors |= images(g)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    save_file(tensors, HERE / "sets.safetensors", metadata={"reference": json.dumps(versions), "config": json.dumps(values)})
    print(values, tensors["ssim"], tensors["ms_ssim"])


main()
