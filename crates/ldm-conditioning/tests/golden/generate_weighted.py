"""Golden values of weighted, long and skipped prompts, and of textual inversion, by transformers' CLIPTextModel.

    python generate_weighted.py

The syntax, the chunks and the weighting are AUTOMATIC1111's (`modules/prompt_parser.py`, `sd_hijack_clip.py`,
`sd_emphasis.py`), written here anew from their documented behavior. Weights are not stored: both sides compute them by a
formula (`golden_weights.fill`).
"""
import json
import pathlib
import re
import sys

import torch
import transformers
from safetensors.torch import save_file
from diffusers.loaders import TextualInversionLoaderMixin
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
from golden_weights import fill  # noqa: E402

SIZES = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 520,
         "max_position_embeddings": 77}
# The mean of no prompt is near zero: weighting divides by it, and a machine's rounding would be seen.
SEED = 22
ROOM, BACKTRACK = 75, 20
# Words of the learned embeddings and the numbers of their vectors.
LEARNED = {"<cat>": 1, "my-style": 3}
MERGES = [("c", "a"), ("ca", "t</w>")]

# Prompts as AUTOMATIC1111's users write them, one for each rule.
PROMPTS = [
    "", "a cat", "a (cat)", "a ((cat)) [dog]", "(a:1.5) (b:0.25) [c]", "a (b [c] d:1.3) e", r"a \(cat\) \[x\] \\ \x",
    "(a", "a]) b", "[[a", "a : b :1.2) c", "(a: 1.2 ) b", "(a:-0.5) b", "(a:+2) b", "(a:1.2:0.5) b",
    "a BREAK b", "a BREAK BREAK b", "BREAK", "a BREAK", "(a BREAK b:1.2)", "aBREAK b", "a\nBREAK\n(b)",
    "word " * 30, "w, " * 60, "long " * 10 + ", " + "tail " * 30, "(" + "x " * 90 + ":1.1) y",
    "a, " + "b " * 74, "a " * 56 + ", " + "b " * 30, "a " * 50 + ", " + "b " * 40, "cafe\u0301 (\u732b:1.4)",
    "a <cat>, (my-style:1.3) b", "x " * 73 + "my-style y", "MY-STYLE my-styles <cat><cat>", "a " * 70 + ", b b b my-style c",
]
PLAIN = ["a (cat) [dog:1.2]", "x " * 73 + "my-style y", "a <cat>, my-style"]


def byte_characters():
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(code) for code in visible] + [chr(256 + n) for n in range(256 - 188)]


def tokenizer():
    tokens = byte_characters()
    tokens = tokens + [token + "</w>" for token in tokens] + ["".join(pair) for pair in MERGES]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=MERGES)


ITEM = re.compile(r"\\[()\[\]\\]|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|\]|[^\\()\[\]:]+|:")


def parse(prompt):
    """Pairs of text and weight; a break is `("BREAK", -1)`."""
    parts, opened = [], {"(": [], "[": []}

    def scale(start, factor):
        for part in parts[start:]:
            part[1] *= factor

    for item in ITEM.finditer(prompt):
        text, number = item.group(0), item.group(1)
        if text[0] == "\\":
            parts.append([text[1:], 1.0])
        elif text in opened:
            opened[text].append(len(parts))
        elif number is not None and opened["("]:
            scale(opened["("].pop(), float(number))
        elif text == ")" and opened["("]:
            scale(opened["("].pop(), 1.1)
        elif text == "]" and opened["["]:
            scale(opened["["].pop(), 1 / 1.1)
        else:
            for number, part in enumerate(re.split(r"\s*\bBREAK\b\s*", text)):
                if number:
                    parts.append(["BREAK", -1])
                parts.append([part, 1.0])
    for start in opened["("]:
        scale(start, 1.1)
    for start in opened["["]:
        scale(start, 1 / 1.1)
    merged = []
    for text, weight in parts:
        if merged and merged[-1][1] == weight:
            merged[-1][0] += text
        else:
            merged.append([text, weight])
    return merged


class Model:
    def __init__(self):
        self.tokenizer = tokenizer()
        self.start, self.end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        self.comma = self.tokenizer.convert_tokens_to_ids(",</w>")
        self.clip = CLIPTextModel(CLIPTextConfig(**SIZES)).eval().requires_grad_(False)
        fill(dict(self.clip.named_parameters()).items(), SEED)
        g = torch.Generator().manual_seed(3)
        self.vectors = {word: torch.randn(count, SIZES["hidden_size"], generator=g) for word, count in LEARNED.items()}
        firsts, first = {}, SIZES["vocab_size"]
        for word, count in LEARNED.items():
            firsts[word] = [first + n for n in range(count)]
            first += count
        self.ids = firsts

    def groups(self, text):
        """Lists of tokens that stay together: one of the vocabulary, or all of a learned word."""
        pattern = r"(?<![a-z0-9])(my-style)(?![a-z0-9])|(<cat>)"
        found, start = [], 0
        plain = lambda part: [[token] for token in self.tokenizer(part, add_special_tokens=False)["input_ids"]]
        for item in re.finditer(pattern, text, re.IGNORECASE):
            found += plain(text[start:item.start()]) + [self.ids[item.group(0).lower()]]
            start = item.end()
        return found + plain(text[start:])

    def chunks(self, prompt):
        full, tokens, weights, comma = [], [], [], None

        def close():
            nonlocal tokens, weights, comma
            full.append((tokens, weights))
            tokens, weights, comma = [], [], None

        for text, weight in parse(prompt):
            if text == "BREAK" and weight == -1:
                close()
                continue
            for group in self.groups(text):
                if group == [self.comma]:
                    comma = len(tokens)
                elif len(tokens) == ROOM and comma is not None and len(tokens) - comma <= BACKTRACK:
                    rest = tokens[comma + 1:], weights[comma + 1:]
                    tokens, weights = tokens[:comma + 1], weights[:comma + 1]
                    close()
                    tokens, weights = rest
                if len(tokens) == ROOM or len(tokens) + len(group) > ROOM:
                    close()
                tokens = tokens + group
                weights = weights + [weight] * len(group)
        if tokens or not full:
            close()
        return [self.padded(*chunk) for chunk in full]

    def padded(self, tokens, weights):
        spare = ROOM - len(tokens)
        return [self.start, *tokens, *[self.end] * (spare + 1)], [1.0, *weights, *[1.0] * (spare + 1)]

    def layer(self, tokens, skip=1):
        """The hidden state of the layer `skip` from the last, under the last norm, of tokens `[1, 77]`."""
        table = torch.cat([self.clip.get_input_embeddings().weight, *self.vectors.values()])
        handle = self.clip.get_input_embeddings().register_forward_hook(lambda module, given, out: table[given_tokens])
        given_tokens = tokens
        out = self.clip(input_ids=tokens.clamp(max=SIZES["vocab_size"] - 1), output_hidden_states=True)
        handle.remove()
        text_model = getattr(self.clip, "text_model", self.clip)
        return text_model.final_layer_norm(out.hidden_states[-skip])

    def encode(self, prompt, skip=1):
        parts = []
        for tokens, weights in self.chunks(prompt):
            z = self.layer(torch.tensor([tokens]), skip)
            mean = z.mean()
            z = z * torch.tensor(weights)[None, :, None]
            parts.append(z * (mean / z.mean()))
        return torch.cat(parts, 1)

    def plain(self, prompt):
        tokens = [token for group in self.groups(prompt) for token in group][:ROOM]
        return self.padded(tokens, [1.0] * len(tokens))


class Pipeline(TextualInversionLoaderMixin):
    """What diffusers' `load_textual_inversion` needs of a pipeline."""

    def __init__(self, tokenizer, text_encoder):
        self.tokenizer, self.text_encoder = tokenizer, text_encoder
        self.components = {"tokenizer": tokenizer, "text_encoder": text_encoder}
        self.hf_device_map = None

    def encode(self, prompt):
        prompt = self.maybe_convert_prompt(prompt, self.tokenizer)
        ids = self.tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        return self.text_encoder(ids)[0]


def by_diffusers(prompts):
    """Contexts of prompts with words that diffusers loaded."""
    model = Model()
    pipeline = Pipeline(model.tokenizer, model.clip)
    model.clip.resize_token_embeddings(len(model.tokenizer))
    for word, vectors in model.vectors.items():
        pipeline.load_textual_inversion({word: vectors if len(vectors) > 1 else vectors[0]})
    return torch.cat([pipeline.encode(prompt) for prompt in prompts])


def main():
    model = Model()
    chunks = [model.chunks(prompt) for prompt in PROMPTS]
    plain = [model.plain(prompt) for prompt in PLAIN]
    tensors = {f"vectors.{word}": vectors for word, vectors in model.vectors.items()}
    # Stored for a few prompts; `sum` holds the first moments of all.
    for name, prompt, skip in [("weights", PROMPTS[5], 1), ("break", PROMPTS[15], 1), ("learned", PROMPTS[30], 1),
                               ("skip2", PROMPTS[5], 2), ("skip3", "a cat", 3)]:
        tensors[name] = model.encode(prompt, skip)
    tensors["diffusers"] = by_diffusers(PLAIN)
    tensors["means"] = torch.stack([model.encode(prompt)[0].mean(0) for prompt in PROMPTS])
    a1111 = torch.randn(2, SIZES["hidden_size"], generator=torch.Generator().manual_seed(8))
    tensors["a1111"] = a1111
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": a1111}, "name": "another",
                "step": 100, "sd_checkpoint": None, "sd_checkpoint_name": None}, HERE / "a1111.pt")
    words = [token for token, _ in sorted(model.tokenizer.get_vocab().items(), key=lambda item: item[1])]
    assert len(words) == 516
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, HERE / "weighted.safetensors", metadata={
        "prompts": json.dumps(PROMPTS), "sizes": json.dumps(SIZES),
        "ids": json.dumps([[tokens for tokens, _ in each] for each in chunks]),
        "weights": json.dumps([[weights for _, weights in each] for each in chunks]),
        "plain": json.dumps(PLAIN), "plain_ids": json.dumps([tokens for tokens, _ in plain]),
        "merges": "#version\n" + "".join(f"{left} {right}\n" for left, right in MERGES),
        "transformers": transformers.__version__, "torch": torch.__version__})


main()
