"""Trains both stages twice, by CompVis' modules in PyTorch and by `ldm`: the same recipe, weights, batches and noise.

    cargo build --release -p ldm-cli -p ldm-train --bins --examples
    LDM_REF=… LDM_DATA=… python3 docs/tools/parity/same_recipe/train.py [--steps 300] [--threads 2] [--plots docs/images]

`compvis_reference.py` describes LDM_REF; LDM_DATA holds `cifar10/train.tar.gz`. PyTorch's batches are in memory before
its clock starts; `ldm` reads, decodes and flips its own while it trains. CompVis' hard-coded checkpointing in
transformers is off, because it would only slow PyTorch down. Speeds are medians over windows of ten steps.
"""
import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
import yaml
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
EVERY = 10


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, default=HERE.parents[3] / "target/release", help="the folder with the built binaries")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["first_stage", "diffusion"], help="one stage; diffusion needs --keep")
    parser.add_argument("--keep", type=Path, help="a folder for all files; a temporary one by default")
    parser.add_argument("--plots", type=Path, help="a folder for the loss curves as SVG; needs matplotlib")
    return parser.parse_args()


def built(config):
    """Builds CompVis' model with its own initial weights."""
    import compvis_reference as reference
    from taming.modules.losses import lpips

    lpips.LPIPS.load_from_pretrained = lambda self, name="vgg_lpips": None  # no downloads; it has no weight here
    lpips.models.vgg16 = lambda pretrained=True, make=lpips.models.vgg16: make(weights=None)
    torch.manual_seed(1)
    with contextlib.redirect_stdout(io.StringIO()):
        return reference.instantiate_from_config(config["model"]).train()


def save(model, config, path):
    """Writes a CompVis checkpoint and its config next to it."""
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("loss.perceptual_loss.")}
    torch.save({"state_dict": state, "global_step": 0}, path)
    path.with_suffix(".yaml").write_text(yaml.safe_dump({"model": config["model"]}))


class FirstStage:
    """Lightning's two optimizer phases per step, each with its own forward pass and the other's parameters frozen."""

    def __init__(self, model, rate):
        model.learning_rate = rate
        self.model, self.optimizers = model, model.configure_optimizers()[0]

    def step(self, number, tensors):
        image, log = tensors[f"image.{number}"], {}
        for index, optimizer in enumerate(self.optimizers):
            for each in self.optimizers:
                for parameter in each.param_groups[0]["params"]:
                    parameter.requires_grad = each is optimizer
            torch.manual_seed(int(tensors["seeds"][2 * number + index]))
            reconstruction, posterior = self.model(image)
            loss, parts = self.model.loss(image, reconstruction, posterior, index, number,
                                          last_layer=self.model.get_last_layer(), split="train")
            log |= parts
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return log


class Diffusion:
    """One optimizer, and the EMA after it (`ddpm.py:365` on_train_batch_end)."""

    def __init__(self, model, rate):
        model.learning_rate = rate
        for module in model.modules():
            if hasattr(module, "checkpoint"):
                module.checkpoint = False
        self.model, self.optimizer = model, model.configure_optimizers()

    def step(self, number, tensors):
        batch = {"image": tensors[f"image.{number}"].permute(0, 2, 3, 1), "class": tensors[f"class.{number}"]}
        torch.manual_seed(int(tensors["seeds"][number]))
        loss, log = self.model.shared_step(batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.model.model_ema(self.model.model)
        return log


def by_pytorch(trainer, tensors, steps):
    """One line per ten steps, as in `metrics.jsonl`: means, and images per second."""
    lines, sums, start = [], {}, time.perf_counter()
    for number in range(steps):
        for name, value in trainer.step(number, tensors).items():
            name = name.split("/")[1]
            sums[name] = sums.get(name, 0.0) + torch.as_tensor(value).detach().double()
        if (number + 1) % EVERY == 0:
            seconds = time.perf_counter() - start
            line = {name: float(value) / EVERY for name, value in sums.items()}
            lines.append(line | {"step": number + 1, "images_per_second": EVERY * len(tensors["image.0"]) / seconds})
            sums, start = {}, time.perf_counter()
    return lines


def by_ldm(args, config, folder, words):
    # For these binaries only: Python's torch must find its own libtorch.
    libtorch = HERE.parents[3] / ".libtorch/torch/lib"
    environment = os.environ | {"LD_LIBRARY_PATH": f"{libtorch}:{os.environ.get('LD_LIBRARY_PATH', '')}"}

    def run(*command):
        done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}exited with {done.returncode}")

    given = folder / "batches.safetensors"
    run(args.release / "examples/batches", config, given, *words)
    yield load_file(given)
    run(args.release / "ldm", "train", config, *words, "--run", folder / "run", "--device", "cpu", "--threads",
        args.threads)
    yield [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]


def stage(name, trainer, args, folder, more=()):
    path = HERE / f"{name}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load(path.read_text())
    if name == "diffusion":
        config["model"]["params"]["scale_factor"] = more[0]
    model = built(config)
    if name == "diffusion":
        model.first_stage_model.load_state_dict(more[1], strict=True)
    save(model, config, folder / "start.ckpt")
    words = [f"train.init_from.path={folder / 'start.ckpt'}", "train.init_from.ema=false", f"train.steps={args.steps}",
             f"data.params.train.params.path={Path(os.environ['LDM_DATA']).resolve() / 'cifar10/train.tar.gz'}"]
    if name == "diffusion":
        words.append(f"model.params.scale_factor={more[0]}")
    ours = by_ldm(args, path, folder, words)
    tensors = next(ours)
    rate = config["model"]["base_learning_rate"] * config["data"]["params"]["batch_size"]
    theirs = by_pytorch(trainer(model, rate), tensors, args.steps)
    mine = [line for line in next(ours) if "images_per_second" in line]
    (folder / "curves.json").write_text(json.dumps({"pytorch": theirs, "ldm": mine}))
    report(name, theirs, mine)
    if args.plots:
        plot(name, theirs, mine, args.plots / f"same-recipe-{name.replace('_', '-')}.svg")
    return model


def report(name, theirs, mine):
    assert [line["step"] for line in theirs] == [line["step"] for line in mine]
    shared = sorted(set(theirs[0]) & set(mine[0]) - {"step", "images_per_second"})
    for key in shared:
        pairs = [(a[key], b[key]) for a, b in zip(theirs, mine)]
        size = sum(abs(a) for a, _ in pairs) / len(pairs)
        gaps = [abs(a - b) / max(size, 1e-12) for a, b in pairs]
        print(f"{name}: {key}: PyTorch {pairs[-1][0]:.5f}, ldm {pairs[-1][1]:.5f} at the end; "
              f"apart by {max(gaps[: -(-len(gaps) // 3)]):.1e} of its mean in the first third, {max(gaps):.1e} in all")
    speeds = [median(line["images_per_second"] for line in lines[1:]) for lines in (theirs, mine)]
    print(f"{name}: images/s: PyTorch {speeds[0]:.1f}, ldm {speeds[1]:.1f}: ratio {speeds[1] / speeds[0]:.2f}", flush=True)


def plot(name, theirs, mine, path):
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = name
    keys = {"first_stage": ["rec_loss", "disc_loss"], "diffusion": ["loss_simple"]}[name]
    figure, axes = pyplot.subplots(1, len(keys), figsize=(4.6 * len(keys), 3), layout="constrained")
    for key, axis in zip(keys, [axes] if len(keys) == 1 else axes):
        for lines, label, style in ((theirs, "PyTorch", dict(linewidth=4, color="#f0b070")), (mine, "ldm", dict(linewidth=1.2, color="#204a87"))):
            axis.plot([line["step"] for line in lines], [line[key] for line in lines], label=label, **style)
        axis.set(xlabel="step", ylabel=key)
        axis.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main():
    args = arguments()
    if "LDM_DATA" not in os.environ:
        sys.exit("LDM_DATA: expected a folder with cifar10/train.tar.gz, got nothing")
    sys.path.insert(0, str(HERE.parents[1]))
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        first_stage = folder / "first_stage.pt"
        if args.only != "diffusion":
            model = stage("first_stage", FirstStage, args, folder / "first_stage")
            with torch.no_grad():
                sample = load_file(folder / "first_stage/batches.safetensors")["image.0"]
                latents = model.eval().encode(sample).sample()
            state = {key: value for key, value in model.state_dict().items() if not key.startswith("loss.")}
            torch.save({"state": state, "scale": round(1 / float(latents.std()), 6)}, first_stage)
        if args.only != "first_stage":
            kept = torch.load(first_stage)
            stage("diffusion", Diffusion, args, folder / "diffusion", (kept["scale"], kept["state"]))


if __name__ == "__main__":
    main()
