"""Runs `ldm` and the example `parity`."""
import os
import subprocess
from pathlib import Path

from safetensors.torch import load_file, save_file

LIBTORCH = Path(__file__).resolve().parents[3] / ".libtorch/torch/lib"


class Ours:
    """`ldm`, and the example `parity` of ldm-pipelines for conditions that no command takes."""

    def __init__(self, release, tokenizers):
        self.ldm, self.parity, self.tokenizers = release / "ldm", release / "examples/parity", tokenizers
        for program in (self.ldm, self.parity):
            if not program.is_file():
                raise SystemExit(f"{program}: expected a binary, got no file; try --release FOLDER")
        # For these binaries only: Python's torch must find its own libtorch.
        paths = [str(LIBTORCH), os.environ.get("LD_LIBRARY_PATH", "")]
        self.environment = os.environ | {"LD_LIBRARY_PATH": ":".join(path for path in paths if path)}

    def run(self, program, *words):
        words = [str(program), *map(str, words)]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}\n{done.stdout}{done.stderr}exited with {done.returncode}")

    def encode(self, image, config, weights):
        out = weights.with_name("encoded.safetensors")
        out.unlink(missing_ok=True)
        self.run(self.ldm, "encode", image, "--model", weights, "--config", config, "--device", "cpu", "--out", out)
        return load_file(out)["latents"]

    def decode(self, latents, config, weights):
        given, out = weights.with_name("latents.safetensors"), weights.with_name("pixels.safetensors")
        save_file({"latents": latents.contiguous()}, given)
        self.run(self.ldm, "decode", given, "--model", weights, "--config", config, "--device", "cpu", "--force",
                 "--out", weights.parent / "decoded", "--save-pixels", out)
        return load_file(out)["pixels"]

    def sample(self, command, words, noise, pixels, steps, scale, config, weights):
        """`ldm sample` or `ldm txt2img` with DDIM, and the sampler's latents."""
        given, out = weights.with_name("noise.safetensors"), weights.with_name("sampled.safetensors")
        save_file({"noise": noise}, given)
        self.run(self.ldm, command, *words, "--model", weights, "--config", config, "--device", "cpu", "--force",
                 "--sampler", "ddim", "--eta", 0, "--steps", steps, "--guidance-scale", scale, "--height", pixels[0],
                 "--width", pixels[1], "--init-noise", given, "--out", weights.parent / "out", "--save-latents", out)
        return load_file(out)["latents"]

    def generate(self, given, noise, steps, scale, config, weights):
        """The example `parity`: as `sample`, from tensors."""
        path, out = weights.with_name("given.safetensors"), weights.with_name("sampled.safetensors")
        save_file({name: tensor.contiguous() for name, tensor in given.items()} | {"noise": noise}, path)
        self.run(self.parity, config, weights, path, out, steps, scale)
        return load_file(out)["latents"]
