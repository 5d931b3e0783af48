"""Holds `ldm` against CompVis' own code at full size: the same random weights through a .ckpt, on the CPU, in f32.

    cargo build --release -p ldm-cli -p ldm-pipelines --bins --examples
    LDM_REF=… LDM_PEERS=… python3 docs/parity/compvis.py --tokenizers FOLDER [--only NAME…] [--write docs/parity.md]

LDM_REF and LDM_PEERS as in docs/CONTRIBUTING.md. FOLDER holds `bert-base-uncased-vocab.txt` and
`bpe_simple_vocab_16e6.txt.gz`. Needs up to 12 GB of memory and 8 GB of disk; each checkpoint is removed when its model
is done. Prints a line a model, and exits 1 when one is further away than its bound.
"""
import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

import compvis_table

HERE = Path(__file__).resolve().parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="models whose name holds one of these words")
    parser.add_argument("--release", type=Path, default=HERE.parents[1] / "target/release", help="where ldm was built")
    parser.add_argument("--tokenizers", type=Path, default=Path(os.environ.get("LDM_DATA", ".")) / "tokenizers")
    parser.add_argument("--keep", type=Path, help="a folder for every file, checkpoints too; else a temporary one")
    parser.add_argument("--write", type=Path, help="a page whose tables get the rows of this run")
    return parser.parse_args()


def main():
    asked = arguments()
    for name in ("LDM_REF", "LDM_PEERS"):
        if name not in os.environ:
            sys.exit(f"{name} is not set, see docs/CONTRIBUTING.md")
    sys.path.insert(0, os.environ["LDM_PEERS"])
    import compvis_diffusion
    import compvis_first_stages
    from compvis_ours import Ours

    ours = Ours(asked.release, asked.tokenizers)
    failed = False
    for part in (compvis_first_stages, compvis_diffusion):
        for case in part.cases():
            if asked.only and not any(word in case.name for word in asked.only):
                continue
            begun = time.time()
            with tempfile.TemporaryDirectory() as scratch:
                folder = asked.keep / case.name if asked.keep else Path(scratch)
                folder.mkdir(parents=True, exist_ok=True)
                with torch.no_grad():
                    row = part.compare(case, folder, ours)
            failed |= row.far()
            print(f"{row}  ({time.time() - begun:.0f} s)", flush=True)
            if asked.write:
                compvis_table.write(asked.write, part.TABLE, row)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
