"""Makes lora_peft.safetensors, lora_kohya.safetensors and lora.safetensors with diffusers' and PEFT's own code.

python generate_lora.py            makes the three
python generate_lora.py check FILE loads a LoRA of ldm for the same model into diffusers, and prints how far the merged
                                   weights are from the file's formula
Needs torch, diffusers, transformers, peft, safetensors.

The model is the case `stable_diffusion` of generate_folders.py. `lora_peft.safetensors` is a LoRA of attention, feed-forward
and projections, of U-Net and text encoder, as `save_lora_weights` writes it; its alpha is only in the metadata.
`lora_kohya.safetensors` is another, of attention and of convolutions, as `convert_state_dict_to_kohya` writes it but for
the alpha, which that function takes to be the rank, and for `lora_te1_encoder`, which is `lora_te_text_model_encoder` in
kohya's own files (transformers 5 lost the `text_model`).

`lora.safetensors` holds for three cases (`peft`, `kohya`, and `both` with strengths) the product of every weight that
`fuse_lora` changes with a fixed vector, and the U-Net's output with the LoRA not fused.
"""
import sys
import tempfile
from pathlib import Path

import diffusers
import peft
import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_kohya
from generate_folders import HERE, PIPELINES, SEEDS, WORDS, draw, fill
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
LORAS = {
    "peft": (2, 3, ATTENTION + ["proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"], ["q_proj", "out_proj", "fc1", "fc2"]),
    "kohya": (3, 2, ["to_q", "to_out.0", "conv1", "conv_shortcut", "downsamplers.0.conv", "time_emb_proj", "conv_in"],
              ["k_proj", "v_proj", "out_proj"]),
}
CASES = {"peft": {"peft": 1.0}, "kohya": {"kohya": 1.0}, "both": {"peft": 0.7, "kohya": -0.4}}


def base():
    torch.manual_seed(0)
    pipeline = PIPELINES["stable_diffusion"]()
    for name in ("vae", "unet", "text_encoder"):
        fill(pipeline.components[name].eval().named_parameters(), SEEDS[name])
    return pipeline


def write(name, seed):
    rank, alpha, *targets = LORAS[name]
    pipeline = base()
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    states = {}
    for (part, model), modules in zip(parts.items(), targets):
        model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules))
        fill([(key, value) for key, value in model.named_parameters() if ".lora_" in key], seed)
        states[part] = get_peft_model_state_dict(model)
    path = HERE / f"lora_{name}.safetensors"
    if name == "peft":
        StableDiffusionPipeline.save_lora_weights(
            HERE, unet_lora_layers=states["unet"], text_encoder_lora_layers=states["text_encoder"], weight_name=path.name,
            **_collate_lora_metadata(parts))
        return
    state = {f"{part}.{key}": value for part, state in states.items() for key, value in state.items()}
    tensors = {}
    for key, value in convert_state_dict_to_kohya(state).items():
        value = torch.tensor(float(alpha)) if key.endswith(".alpha") else value.detach().contiguous()
        tensors[key.replace("lora_te1_encoder", "lora_te_text_model_encoder")] = value
    save_file(tensors, path, {"ss_network_dim": str(rank), "ss_network_alpha": str(alpha)})


def weights(pipeline):
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    return {f"{part}.{key}": value.detach().clone() for part, model in parts.items()
            for key, value in model.state_dict().items()}


def answer(pipeline):
    tokens = torch.randint(WORDS, (2, 8), generator=torch.Generator().manual_seed(12))
    context = pipeline.text_encoder(tokens)[0]
    x = draw(11, 2, 4, 8, 8)
    return {"tokens": tokens, "x": x, "answer": pipeline.unet(x, 500, encoder_hidden_states=context).sample}


def run(files, strengths):
    pipeline = base()
    before, plain = weights(pipeline), answer(pipeline)["answer"]
    for name, file in files.items():
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
    pipeline.set_adapters(list(strengths), list(strengths.values()))
    found = answer(pipeline)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    fused = answer(pipeline)["answer"]
    assert torch.allclose(found["answer"], fused, atol=1e-5), (found["answer"] - fused).abs().max()
    assert (fused - plain).abs().max() > 0.1, (fused - plain).abs().max()
    after = weights(pipeline)
    assert before.keys() == after.keys(), before.keys() ^ after.keys()
    return found, {key: after[key] for key in before if not torch.equal(before[key], after[key])}, before


def main():
    for seed, name in enumerate(LORAS):
        write(name, 20 + seed)
    tensors = {}
    for case, strengths in CASES.items():
        found, fused, _ = run({name: HERE / f"lora_{name}.safetensors" for name in strengths}, strengths)
        for key, value in fused.items():
            rows = value.double().flatten(1)
            tensors[f"{case}.weights.{key}"] = rows @ torch.cos(torch.arange(rows.shape[1], dtype=torch.float64))
        tensors |= {f"{case}.{key}": value.contiguous() for key, value in found.items()}
        print(case, len(fused), "weights")
    save_file(tensors, HERE / "lora.safetensors", {
        "reference": f"diffusers {diffusers.__version__}, peft {peft.__version__}", "torch": torch.__version__})


def check(file):
    """Compares `alpha/r · B·A` of the file's tensors with the change by diffusers."""
    tensors = load_file(file)
    _, fused, before = run({"ours": file}, {"ours": 1.0})
    worst, seen = 0, 0
    for key, value in fused.items():
        part, module = key.removesuffix(".weight").split(".", 1)
        part = {"unet": "lora_unet_", "text_encoder": "lora_te_"}[part]
        module = part + (module if part != "lora_te_" or module.startswith("text_model") else f"text_model.{module}")
        down, up, alpha = (tensors[f"{module.replace('.', '_')}.{leaf}"]
                           for leaf in ("lora_down.weight", "lora_up.weight", "alpha"))
        change = alpha / down.shape[0] * (up.flatten(1) @ down.flatten(1))
        worst = max(worst, (value - before[key] - change.view(value.shape)).abs().max().item())
        seen += 1
    assert 3 * seen == len(tensors), (seen, len(tensors))
    print(f"{file}: {seen} weights, furthest {worst:.1e}")


if __name__ == "__main__":
    with torch.no_grad():
        check(Path(sys.argv[2]).absolute()) if sys.argv[1:2] == ["check"] else main()
