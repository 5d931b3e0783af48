"""Makes export.json: the tokenizer files that ldm-conditioning writes, and the ids that transformers gives with them.

    LDM_KEEP_EXPORT=FOLDER cargo test -p ldm-conditioning --test it export
    python generate_export.py FOLDER

FOLDER has the files of two small tokenizers; where the published vocabularies are there (LDM_DATA), theirs too: with those
transformers must give the ids of prompts.safetensors.
"""
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertTokenizer, CLIPTokenizer

HERE = Path(__file__).parent
CLASSES = {"clip": CLIPTokenizer, "bert": BertTokenizer}
TEXTS = ["the cat", "THE CAT, sing!", "", "  cats   in the café  ", "a cat's thing", "猫 cat “quoted” — 12",
         "the cat " * 20, "in the the cats singing 1 2 12", "😀 cat\tthe\n"]


def ids(tokenizer, texts):
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]


def main(folder):
    made = {"transformers": transformers.__version__, "texts": TEXTS}
    for kind, cls in CLASSES.items():
        files = {path.name: path.read_text() for path in sorted((folder / kind).iterdir())}
        found = ids(cls.from_pretrained(folder / kind), TEXTS)
        assert torch.equal(found, ids(AutoTokenizer.from_pretrained(folder / kind), TEXTS)), kind
        made[kind] = {"files": files, "ids": found.tolist()}
        published = folder / f"published-{kind}"
        if published.is_dir():
            prompts = json.loads((HERE / "prompts.json").read_text())
            known = load_file(HERE / "prompts.safetensors")
            found = ids(cls.from_pretrained(published), prompts)
            assert found.shape == (len(prompts), 77)
            kept = torch.arange(77) < known[f"{kind}.lengths"][:, None]
            assert torch.equal(found[kept].int(), known[f"{kind}.ids"]), kind
            assert (found[~kept] == known[f"{kind}.pad"]).all(), kind
            print(f"{kind}: {len(prompts)} prompts with the published files, all equal")
    (HERE / "export.json").write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
