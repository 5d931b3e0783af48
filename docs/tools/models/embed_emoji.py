"""Makes the files of the embedded emoji model from a run of configs/experiments/emoji/text.yaml.

    cargo build --release
    python3 docs/tools/models/embed_emoji.py RUN DATA crates/ldm-models/emoji

The weights are those of the export, with the U-Net's EMA, in f16. The vocabulary keeps the word pieces of the training captions: the network has learned no
others, and they are two thirds of the text model's size. A word of others becomes [UNK], whose vector is zero. The
environment variable LDM names the binary (default target/release/ldm). Needs safetensors, transformers, torch, PyYAML.
"""
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import BertTokenizerFast

LDM = os.environ.get("LDM", "target/release/ldm")
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PER_TOKEN = [f"cond_stage_model.transformer.{name}" for name in ["token_emb.weight", "to_logits.weight", "to_logits.bias"]]


def kept_tokens(words, captions):
    """Ids of the marks and of the word pieces of the captions, in their old order but for the marks, which come first."""
    tokenizer = BertTokenizerFast(vocab=str(words))
    used = {token for caption in captions for token in tokenizer.tokenize(caption)} - set(MARKS)
    number = {word: index for index, word in enumerate(words.read_text(encoding="utf-8").splitlines())}
    return [number[mark] for mark in MARKS] + sorted(number[token] for token in used), number["[UNK]"]


def main():
    run, data, out = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "model"
        subprocess.run([LDM, "convert", run, whole, "--to", "ldm"], check=True)
        config = yaml.safe_load((whole / "config.yaml").read_text())
        weights = load_file(whole / "model.safetensors")
        words = whole / "tokenizer/vocab.txt"
        with open(data / "emoji/captions.tsv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        kept, unknown = kept_tokens(words, [row["caption"] for row in rows if row["split"] == "train"])
        lines = words.read_text(encoding="utf-8").splitlines()

    weights[PER_TOKEN[0]][unknown] = 0
    weights |= {name: weights[name][kept].contiguous() for name in PER_TOKEN}
    # The buffers of the schedule stay f32: f16 has three digits for them.
    is_network = lambda name: name.startswith(("model.", "first_stage_model.", "cond_stage_model."))
    weights = {name: x.to(torch.float16) if is_network(name) else x for name, x in weights.items()}
    config["model"]["params"]["cond_stage_config"]["params"]["vocab_size"] = len(kept)
    (out / "tokenizer").mkdir(parents=True, exist_ok=True)
    (out / "tokenizer/vocab.txt").write_text("\n".join(lines[index] for index in kept) + "\n", encoding="utf-8")
    (out / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    save_file(weights, out / "model.safetensors")
    print(f"{len(kept)} word pieces, {sum(x.numel() for x in weights.values()) / 1e6:.1f} M numbers, "
          f"{(out / 'model.safetensors').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
