"""Training, evaluation and commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ldm
import pytest

FIRST_STAGE: dict[str, Any] = {
    "model": {
        "target": "kl",
        "params": {
            "embed_dim": 4,
            "ddconfig": {
                "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1,
                "attn_resolutions": [], "dropout": 0.0, "z_channels": 4, "double_z": True,
            },
            "lossconfig": {"target": "reconstruction", "params": {"pixel_loss": "l1", "kl_weight": 1e-6}},
        },
    },
    "data": {
        "target": "data_module",
        "params": {
            "batch_size": 4,
            "train": {"target": "scenes", "params": {"size": 16, "count": 64}},
            "validation": {"target": "scenes", "params": {"size": 16, "count": 8, "split": "validation"}},
        },
    },
    "train": {"steps": 6, "learning_rate": 1e-3, "log_every": 2, "checkpoint_every": 2, "samples": {"count": 4}},
}


def test_a_run_has_metrics_samples_and_a_model(tmp_path: Path) -> None:
    seen: list[int] = []
    run = ldm.train(
        FIRST_STAGE, {"train.seed": 3}, run=tmp_path / "run", device="cpu", callback=lambda step: seen.append(step["step"])
    )
    assert seen == [2, 4, 6, 6]  # and a validation
    assert [step["step"] for step in run.metrics] == seen and "rec_loss" in run.metrics[0]
    assert run.samples and run.samples[-1].suffix == ".png"
    assert "seed: 3" in run.config
    assert (run.model / "model.safetensors").is_file()
    scores = ldm.evaluate("reconstruction", "scenes", model=run.model, size=16, num_images=4, out=tmp_path / "scores")
    assert scores["images"] == 4 and scores["psnr"]["mean"] > 0
    with pytest.raises(ldm.CommandError, match="run"):
        ldm.train(FIRST_STAGE, run=tmp_path / "run")


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(step: dict[str, Any]) -> None:
        raise Enough

    with pytest.raises(Enough):
        ldm.train(FIRST_STAGE, {"train.steps": 100000}, run=tmp_path / "run", device="cpu", callback=stop)
    done = ldm.TrainingRun(tmp_path / "run").metrics[-1]["step"]
    steps = (done // 2 + 3) * 2
    run = ldm.train(resume=tmp_path / "run", overrides={"train.steps": steps}, device="cpu")
    assert run.metrics[-1]["step"] == steps > done


def test_errors_of_commands(tmp_path: Path) -> None:
    with pytest.raises(ldm.CommandError, match="^nowhere.yaml: No such file") as error:
        ldm.train("nowhere.yaml")
    assert error.value.returncode == 1
    with pytest.raises(ldm.CommandError, match="stepss"):
        ldm.train(FIRST_STAGE, {"train.stepss": 1}, run=tmp_path / "run")
    with pytest.raises(ldm.CommandError) as usage:
        ldm.run("sample", "--stepz")
    assert usage.value.returncode == 2
    for arguments in ({}, {"config": "a.yaml", "resume": "b"}, {"config": FIRST_STAGE}):
        with pytest.raises(ldm.RequestError):
            ldm.train(**arguments)


def test_a_command_returns_its_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert ldm.run("--version").startswith("ldm ")
    assert "scenes" in ldm.run("data", "info", "scenes", json=True, quiet=True)
