"""Golden values of ldm-conditioning, made by CompVis' own code, by transformers and by diffusers.

    LDM_REF=FOLDER LDM_DATA=<folder with tokenizers/> python generate.py    # see docs/tools/compvis_reference.py

- class.safetensors, spatial.safetensors: layers with their weights.
- tokens.safetensors, clip_text.safetensors: transformers over tokens and texts. Their weights are not stored: both
  sides compute them by the formula of `ldm_core::testing::fill_weights`.
- prompts.json, prompts.safetensors: prompts of every kind, and their ids by BertTokenizer and CLIPTokenizer.
- manifest.json: what the published models' conditioners are made of, and diffusers' table of names.
"""
import gzip
import hashlib
import json
import os
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
import compvis_reference  # noqa: E402  makes `ldm` importable

import diffusers  # noqa: E402
import transformers  # noqa: E402
import yaml  # noqa: E402
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel  # noqa: E402
from diffusers.pipelines.stable_diffusion.convert_from_ckpt import convert_ldm_bert_checkpoint  # noqa: E402
from ldm.modules.encoders import modules  # noqa: E402
from transformers import BertTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # noqa: E402

from prompts import prompts  # noqa: E402

torch.set_num_threads(1)
REF = pathlib.Path(os.environ["LDM_REF"])
DATA = pathlib.Path(os.environ["LDM_DATA"]) / "tokenizers"
COMMIT = "a506df5756472e2ebaf9078affdde2c4f1502cd4"  # CompVis/latent-diffusion


def write(name, tensors, **metadata):
    tensors = {key: value.detach().contiguous().clone() for key, value in tensors.items()}
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    save_file(tensors, HERE / name, metadata={"reference": COMMIT, "torch": torch.__version__, **metadata})


def fill(model, seed):
    with torch.no_grad():
        for k, (name, p) in enumerate(sorted(model.named_parameters())):
            i = np.arange(p.numel(), dtype=np.float64)
            x = np.sin((i + 1) * 12.9898 + ((k + 1) * 78.233 + seed * 37.719)) * 43758.5453
            v = 2 * (x - np.floor(x)) - 1
            if p.ndim >= 2:
                v = v * (1.2 / np.sqrt(p.numel() / p.shape[0]))
            else:
                v = 0.1 * v + (1 if name.endswith("weight") else 0)
            p.copy_(torch.from_numpy(v.astype(np.float32)).view(p.shape))
    return model.eval()


def class_embedder():
    config = {"embed_dim": 8, "n_classes": 6, "key": "class_label"}
    model = compvis_reference.randomize(modules.ClassEmbedder(**config), seed=1)
    label = torch.tensor([0, 5, 3, 3])
    tensors = {f"weights.{name}": value for name, value in model.state_dict().items()}
    tensors |= {"class": label, "context": model({"class_label": label})}
    write("class.safetensors", tensors, config=config)


SPATIAL = {
    "semantic": ({"n_stages": 2, "in_channels": 7, "out_channels": 3}, (16, 24)),
    "defaults": ({}, (9, 12)),
    "nearest": ({"method": "nearest", "multiplier": 0.7, "n_stages": 2, "in_channels": 2}, (13, 11)),
    "bicubic_bias": (
        {"method": "bicubic", "multiplier": 0.6, "in_channels": 4, "out_channels": 5, "bias": True}, (15, 17)),
    "area": ({"method": "area", "multiplier": 0.3, "in_channels": 3, "out_channels": 2}, (20, 14)),
    "larger": ({"method": "bilinear", "multiplier": 1.5, "in_channels": 1}, (5, 6)),
    "map_alone": ({"n_stages": 0, "in_channels": 6, "out_channels": 4}, (4, 5)),
}


def spatial():
    tensors, generator = {}, torch.Generator().manual_seed(3)
    for name, (config, size) in SPATIAL.items():
        model = compvis_reference.randomize(modules.SpatialRescaler(**config), seed=2)
        classes = config.get("in_channels", 3)
        labels = torch.randint(classes, (2, *size), generator=generator)
        one_hot = torch.nn.functional.one_hot(labels, classes).permute(0, 3, 1, 2).float()
        # A map of one class is all ones and says nothing of the interpolation.
        mask = one_hot if classes > 1 else torch.rand(2, 1, *size, generator=generator)
        tensors |= {f"{name}.weights.{key}": value for key, value in model.state_dict().items()}
        tensors |= {f"{name}.mask": mask, f"{name}.concat": model.encode(mask)}
    write("spatial.safetensors", tensors, cases={name: config for name, (config, _) in SPATIAL.items()})


TOKENS = {
    "bert": (
        "BERTEmbedder",
        {"n_embed": 32, "n_layer": 2, "vocab_size": 50, "max_seq_len": 16, "use_tokenizer": False, "device": "cpu"},
        16),
    "bert_shorter": (
        "BERTEmbedder",
        {"n_embed": 24, "n_layer": 2, "vocab_size": 19, "max_seq_len": 12, "use_tokenizer": False,
         "embedding_dropout": 0.4}, 9),
    "transformer": (
        "TransformerEmbedder", {"n_embed": 40, "n_layer": 3, "vocab_size": 30, "max_seq_len": 10, "device": "cpu"}, 10),
}
TEXTS = ["A painting of a café, in the style of Hokusai!", "", "snow " * 90]


def bert_vocab():
    words = (DATA / "bert-base-uncased-vocab.txt").read_text().splitlines()
    return {word: number for number, word in enumerate(words)}


def bert_tokenizer(*_, **__):
    """CompVis asks a hub for bert-base-uncased; this is the same vocabulary from a file."""
    return BertTokenizer(vocab=bert_vocab())


def tokens():
    tensors, cases, generator = {}, {}, torch.Generator().manual_seed(4)
    for seed, (name, (kind, config, length)) in enumerate(TOKENS.items()):
        model = fill(getattr(modules, kind)(**config), seed)
        ids = torch.randint(config["vocab_size"], (3, length), generator=generator)
        tensors |= {f"{name}.tokens": ids, f"{name}.context": model.encode(ids)}
        cases[name] = {"target": f"ldm.modules.encoders.modules.{kind}", "params": config, "seed": seed}
    config = {"n_embed": 16, "n_layer": 2, "max_seq_len": 40}
    transformers.BertTokenizerFast.from_pretrained = bert_tokenizer
    model = modules.BERTEmbedder(**config, device="cpu")
    model.tknz_fn.device = "cpu"
    tensors["text.context"] = fill(model, 9).encode(TEXTS)
    cases["text"] = {"target": "ldm.modules.encoders.modules.BERTEmbedder", "params": config, "seed": 9}
    write("tokens.safetensors", tensors, cases=cases, texts=TEXTS, transformers=transformers.__version__)


def clip_tokenizer():
    """openai/clip-vit-large-patch14's vocabulary, which OpenAI/CLIP makes of its merges (`simple_tokenizer.py:62`)."""
    from clip.simple_tokenizer import bytes_to_unicode

    lines = gzip.open(DATA / "bpe_simple_vocab_16e6.txt.gz").read().decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    tokens = list(bytes_to_unicode().values())
    tokens += [token + "</w>" for token in tokens] + ["".join(merge) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=merges)


def stable_diffusion_embedder():
    """`FrozenCLIPEmbedder` out of Stable Diffusion's file, whose other names latent-diffusion's file has too."""
    text = (REF / "stable-diffusion/ldm/modules/encoders/modules.py").read_text()
    space = {"__name__": "modules"}
    exec(compile(text, "modules.py", "exec"), space)
    return space["FrozenCLIPEmbedder"]


CLIP = {
    "quick_gelu": ({"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
                    "vocab_size": 60, "max_position_embeddings": 12, "hidden_act": "quick_gelu"}, 12),
    "gelu_shorter": ({"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2,
                      "vocab_size": 33, "max_position_embeddings": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-3}, 9),
}


def clip_text():
    tensors, cases, generator = {}, {}, torch.Generator().manual_seed(5)
    for seed, (name, (sizes, length)) in enumerate(CLIP.items()):
        model = fill(CLIPTextModel(CLIPTextConfig(**sizes, bos_token_id=0, eos_token_id=1)), seed)
        ids = torch.randint(sizes["vocab_size"], (3, length), generator=generator)
        tensors |= {f"{name}.tokens": ids, f"{name}.context": model(input_ids=ids).last_hidden_state}
        cases[name] = {"params": sizes | {"max_length": sizes["max_position_embeddings"]}, "seed": seed}
    sizes = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    embedder = stable_diffusion_embedder()
    model = embedder.__new__(embedder)
    torch.nn.Module.__init__(model)
    model.tokenizer, model.max_length, model.device = clip_tokenizer(), 30, "cpu"
    model.transformer = fill(CLIPTextModel(CLIPTextConfig(**sizes)), 9)
    tensors["text.context"] = model.encode(TEXTS)
    cases["text"] = {"params": sizes | {"max_length": 30}, "seed": 9}
    write("clip_text.safetensors", tensors, cases=cases, texts=TEXTS, transformers=transformers.__version__)


LENGTH = 77


def tokenizers():
    texts = prompts()
    (HERE / "prompts.json").write_text(json.dumps(texts, ensure_ascii=False, indent=0) + "\n")
    tensors = {}
    for name, tokenizer in [("bert", bert_tokenizer()), ("clip", clip_tokenizer())]:
        out = tokenizer(texts, truncation=True, max_length=LENGTH, return_length=True,
                        return_overflowing_tokens=False, padding="max_length", return_tensors="pt")
        lengths = out["attention_mask"].sum(1)
        rest = torch.arange(LENGTH) >= lengths[:, None]
        assert out["input_ids"].shape == (len(texts), LENGTH)
        assert (out["input_ids"][rest] == tokenizer.pad_token_id).all()
        tensors |= {f"{name}.ids": out["input_ids"][~rest].int(), f"{name}.lengths": lengths.int()}
        tensors[f"{name}.pad"] = torch.tensor([tokenizer.pad_token_id])
    write("prompts.safetensors", tensors, transformers=transformers.__version__)


def digest(lines):
    return hashlib.sha256("".join(sorted(line + "\n" for line in lines)).encode()).hexdigest()


def made_of(shapes, prefix=""):
    shapes = {prefix + name: list(shape) for name, shape in shapes.items()}
    return {
        "tensors": len(shapes),
        "parameters": int(sum(np.prod(shape) for shape in shapes.values())),
        "sha256": digest(f"{name} {shape}" for name, shape in shapes.items()),
    }


def shapes_of(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


OFFICIAL = {
    "txt2img-1p4B-eval": "configs/latent-diffusion/txt2img-1p4B-eval.yaml",
    "text2img256": "models/ldm/text2img256/config.yaml",
    "layout2img-openimages256": "models/ldm/layout2img-openimages256/config.yaml",
    "semantic_synthesis256": "models/ldm/semantic_synthesis256/config.yaml",
    "cin256-v2": "configs/latent-diffusion/cin256-v2.yaml",
    "bsr_sr": "models/ldm/bsr_sr/config.yaml",
    "rdm768x768": "configs/retrieval-augmented-diffusion/768x768.yaml",
}


def manifest():
    models = {}
    transformers.BertTokenizerFast.from_pretrained = bert_tokenizer
    for name, path in OFFICIAL.items():
        config = yaml.safe_load((REF / "latent-diffusion" / path).read_text())
        config = config["model"]["params"]["cond_stage_config"]
        with torch.device("meta"):
            if config["target"] == "torch.nn.Identity":
                model = torch.nn.Identity()
            else:
                model = getattr(modules, config["target"].split(".")[-1])(**config["params"])
        models[name] = {"config": config, **made_of(shapes_of(model))}
    # The sizes of openai/clip-vit-large-patch14's text model.
    large = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768)
    with torch.device("meta"):
        clip = shapes_of(CLIPTextModel(large))
        bert = shapes_of(LDMBertModel(LDMBertConfig()))
    config = yaml.safe_load((REF / "stable-diffusion/configs/stable-diffusion/v1-inference.yaml").read_text())
    config = config["model"]["params"]["cond_stage_config"]
    models["v1-inference"] = {"config": config, **made_of(clip, "transformer.text_model.")}

    # diffusers' own conversion of a small embedder: which name becomes which, by value.
    small = {"n_embed": 16, "n_layer": 2, "vocab_size": 20, "max_seq_len": 8}
    reference = fill(modules.BERTEmbedder(**small, use_tokenizer=False), 6)
    theirs_config = LDMBertConfig(d_model=16, encoder_layers=2, encoder_ffn_dim=64, vocab_size=20,
                                  max_position_embeddings=8)
    theirs = convert_ldm_bert_checkpoint(reference, theirs_config).eval()
    ids = torch.tensor([[1, 19, 7, 0, 0], [3, 2, 8, 8, 11]])
    assert torch.allclose(theirs(ids)[0], reference.encode(ids), rtol=1e-4, atol=1e-5)
    ours = reference.state_dict()
    table = {}
    for name, value in theirs.state_dict().items():
        same = [key for key, other in ours.items() if other.shape == value.shape and torch.equal(other, value)]
        assert len(same) == 1, (name, same)
        table[name] = same[0]
    theirs_config.architectures = ["LDMBertModel"]
    foreign = {
        "bert": {"table": table, "config": json.loads(theirs_config.to_json_string(use_diff=False)), "params": small},
        "bert_names": made_of(bert),
        "clip_config": json.loads(large.to_json_string(use_diff=False)) | {"architectures": ["CLIPTextModel"]},
        "clip_names": made_of(clip, "text_model."),
        "clip_names_since_5": made_of(clip),
    }
    head = {"reference": COMMIT, "torch": torch.__version__, "transformers": transformers.__version__,
            "diffusers": diffusers.__version__}
    text = json.dumps({**head, "models": models, "foreign": foreign}, indent=1)
    (HERE / "manifest.json").write_text(text + "\n")


if __name__ == "__main__":
    made = {"class": class_embedder, "spatial": spatial, "tokens": tokens, "clip_text": clip_text,
            "tokenizers": tokenizers, "manifest": manifest}
    for name in sys.argv[1:] or made:
        made[name]()
