"""Golden values of the `Searcher` of CompVis' scripts/knn2img.py, on a small random database.

    LDM_REF=FOLDER python generate.py

FOLDER holds CompVis' latent-diffusion. ScaNN, which only some machines can install, is replaced by the brute-force products
that `score_brute_force` stands for. `database/` is a database as CompVis publishes them, in two files.
"""
import os
import pathlib
import subprocess
import sys
import time
import types

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
REF = pathlib.Path(os.environ["LDM_REF"]) / "latent-diffusion"
COUNT, WIDTH, QUERIES, K = 40, 12, 3, 5


class BruteForce:
    """A searcher of ScaNN, for the metric `dot_product`."""

    def __init__(self, data, k, metric):
        assert metric == "dot_product"
        self.data, self.k = data, k

    def score_brute_force(self):
        return self

    def build(self):
        return self

    def search_batched(self, queries, final_num_neighbors):
        scores = queries @ self.data.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :final_num_neighbors]
        return order, np.take_along_axis(scores, order, axis=1)


def searcher_class():
    """The class out of CompVis' file, without what the rest of the file imports."""
    text = (REF / "scripts/knn2img.py").read_text()
    text = text[text.index("class Searcher("):text.index('if __name__ == "__main__"')]
    builder = types.SimpleNamespace(builder=BruteForce)
    space = {"np": np, "torch": torch, "time": time, "scann": types.SimpleNamespace(scann_ops_pybind=builder)}
    exec(compile(text, "knn2img.py", "exec"), space)
    return space["Searcher"]


def main():
    rng = np.random.default_rng(3)
    embedding = (rng.standard_normal((COUNT, WIDTH)) * rng.uniform(0.5, 20, (COUNT, 1))).astype("f4")
    embedding[31] = embedding[7]  # a tie
    names = np.array([f"image-{i:02}" for i in range(COUNT)])
    places = rng.integers(0, 500, (COUNT, 4))
    folder = HERE / "database"
    folder.mkdir(exist_ok=True)
    for part, rows in [("a", slice(0, 25)), ("b", slice(25, COUNT))]:
        save = np.savez_compressed if part == "a" else np.savez
        save(folder / f"{part}.npz", embedding=embedding[rows], img_id=names[rows], patch_coords=places[rows])

    Searcher = searcher_class()
    searcher = Searcher.__new__(Searcher)
    searcher.database = {"embedding": embedding, "img_id": names, "patch_coords": places}
    searcher.searcher = None
    queries = torch.from_numpy(rng.standard_normal((QUERIES, 1, WIDTH)).astype("f4"))
    queries[1, 0] = torch.from_numpy(embedding[7] * 3)
    found = searcher(queries, K)
    # scripts/knn2img.py:359, with the text embedding, which is of unit length
    c = queries / queries.norm(dim=-1, keepdim=True)
    c = torch.cat([c, torch.from_numpy(found["nn_embeddings"])], dim=1)
    scores = np.einsum("qd,qkd->qk", found["q_embeddings"], found["nn_embeddings"])
    commit = subprocess.check_output(["git", "-C", str(REF), "rev-parse", "HEAD"], text=True).strip()
    tensors = {"queries": queries[:, 0], "nns": torch.from_numpy(found["nns"]), "scores": torch.from_numpy(scores), "c": c}
    save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / "searcher.safetensors",
              metadata={"commit": commit, "torch": torch.__version__, "numpy": np.__version__})
    print(found["nns"], scores, file=sys.stderr)


if __name__ == "__main__":
    main()
