"""Tokenizers from files and CLIP's text encoder from its sizes, instead of CompVis' downloads."""
import gzip
import os
from pathlib import Path

import torch
import transformers
from ldm.modules.encoders import modules
from transformers import BertTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

# openai/clip-vit-large-patch14's text encoder.
LARGE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
         "vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "quick_gelu"}


def bert_tokenizer(path):
    return BertTokenizer(vocab={word: number for number, word in enumerate(path.read_text().splitlines())})


def clip_tokenizer(path):
    """Builds the vocabulary from the merges, as OpenAI/CLIP does (`simple_tokenizer.py:62`)."""
    from clip.simple_tokenizer import bytes_to_unicode

    lines = gzip.open(path).read().decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    tokens = list(bytes_to_unicode().values())
    tokens += [token + "</w>" for token in tokens] + ["".join(merge) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=merges)


def clip_text_model(_version):
    """With the parameter names of published checkpoints: transformers 5 drops a level of them."""
    model = CLIPTextModel(CLIPTextConfig(**LARGE))
    model.register_state_dict_post_hook(as_published)
    return model


def as_published(_module, state, prefix, _metadata):
    inner = prefix + "text_model."
    for name in [name for name in state if name.startswith(prefix) and not name.startswith(inner)]:
        state[inner + name.removeprefix(prefix)] = state.pop(name)
    state[inner + "embeddings.position_ids"] = torch.arange(77)[None]


def install(tokenizers):
    """Makes CompVis' embedders use these, including FrozenCLIPEmbedder, which only stable-diffusion has."""
    bert, clip = tokenizers / "bert-base-uncased-vocab.txt", tokenizers / "bpe_simple_vocab_16e6.txt.gz"
    transformers.BertTokenizerFast.from_pretrained = lambda *_: bert_tokenizer(bert)
    file = Path(os.environ["LDM_REF"]) / "stable-diffusion/ldm/modules/encoders/modules.py"
    space = {"__name__": modules.__name__}
    exec(compile(file.read_text(), str(file), "exec"), space)
    space["CLIPTokenizer"] = type("Hub", (), {"from_pretrained": staticmethod(lambda _: clip_tokenizer(clip))})
    space["CLIPTextModel"] = type("Hub", (), {"from_pretrained": staticmethod(clip_text_model)})
    modules.FrozenCLIPEmbedder = space["FrozenCLIPEmbedder"]


def to_cpu(embedder):
    """CompVis' embedders assume a GPU, wherever their weights are."""
    for part in (embedder, getattr(embedder, "tknz_fn", None)):
        if isinstance(getattr(part, "device", None), str):
            part.device = "cpu"
