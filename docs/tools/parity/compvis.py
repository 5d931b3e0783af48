"""Compares `ldm` with CompVis' own code at full size: the same random weights through a .ckpt, on the CPU, in f32.

    cargo build --release -p ldm-cli -p ldm-pipelines --bins --examples
    LDM_REF=… python3 docs/tools/parity/compvis.py --tokenizers FOLDER [--only NAME…] [--write docs/lab/parity.md]

`compvis_reference.py` describes LDM_REF. FOLDER holds `bert-base-uncased-vocab.txt` and `bpe_simple_vocab_16e6.txt.gz`.
Needs up to 12 GB of memory and 8 GB of disk; each checkpoint is removed when its model is done. Prints a line per model
and exits with 1 if a difference is above its bound.
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
    parser.add_argument("--only", nargs="+", default=[], help="models whose name contains one of these words")
    parser.add_argument("--release", type=Path, default=HERE.parents[2] / "target/release", help="the folder with the built binaries")
    parser.add_argument("--tokenizers", type=Path, default=Path(os.environ.get("LDM_DATA", ".")) / "tokenizers")
    parser.add_argument("--keep", type=Path, help="a folder for all files, including checkpoints; a temporary one by default")
    parser.add_argument("--write", type=Path, help="a Markdown page whose tables are updated with the rows of this run")
    return parser.parse_args()


def main():
    args = arguments()
    sys.path.insert(0, str(HERE.parent))
    import compvis_diffusion
    import compvis_first_stages
    from compvis_ours import Ours

    ours = Ours(args.release, args.tokenizers)
    failed = False
    for part in (compvis_first_stages, compvis_diffusion):
        for case in part.cases():
            if args.only and not any(word in case.name for word in args.only):
                continue
            start = time.time()
            with tempfile.TemporaryDirectory() as scratch:
                folder = args.keep / case.name if args.keep else Path(scratch)
                folder.mkdir(parents=True, exist_ok=True)
                with torch.no_grad():
                    row = part.compare(case, folder, ours)
            failed |= row.far()
            print(f"{row}  ({time.time() - start:.0f} s)", flush=True)
            if args.write:
                compvis_table.write(args.write, part.TABLE, row)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
