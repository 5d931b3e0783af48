"""Writes schedules.json: multipliers of CompVis' learning-rate schedules (`ldm/lr_scheduler.py`).

    LDM_REF=~/reference python3 crates/ldm-train/tests/golden/generate_schedules.py
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[4] / "docs/tools"))

import compvis_reference  # noqa: F401  (CompVis' code on Python's path)
from ldm import lr_scheduler

SCHEDULES = [
    ("LambdaWarmUpCosineScheduler",
     dict(warm_up_steps=10, lr_min=0.05, lr_max=0.9, lr_start=1e-6, max_decay_steps=70)),
    ("LambdaWarmUpCosineScheduler",
     dict(warm_up_steps=0, lr_min=0.0, lr_max=1.0, lr_start=0.5, max_decay_steps=30)),
    ("LambdaWarmUpCosineScheduler2",
     dict(warm_up_steps=[5, 0, 20], f_min=[0.1, 0.0, 0.3], f_max=[1.0, 0.7, 0.5], f_start=[0.0, 0.2, 1e-6],
          cycle_lengths=[30, 25, 64])),
    ("LambdaLinearScheduler",
     dict(warm_up_steps=[5, 0, 70], f_min=[0.1, 0.0, 0.3], f_max=[1.0, 0.7, 0.5], f_start=[0.0, 0.2, 1e-6],
          cycle_lengths=[30, 25, 64])),
    # That of lsun_churches-ldm-kl-8.yaml.
    ("LambdaLinearScheduler",
     dict(warm_up_steps=[10000], cycle_lengths=[10000000000000], f_start=[1e-6], f_max=[1.0], f_min=[1.0])),
]
STEPS = 120


def main():
    found = []
    for name, params in SCHEDULES:
        schedule = getattr(lr_scheduler, name)(**params)
        values = [float(schedule(n)) for n in range(STEPS)]
        found.append({"target": f"ldm.lr_scheduler.{name}", "params": params, "multipliers": values})
    path = pathlib.Path(__file__).with_name("schedules.json")
    path.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
