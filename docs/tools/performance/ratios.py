#!/usr/bin/env python3
"""Times `ldm`'s networks, diffusers' of the same shapes, and optionally those as OpenVINO compiles them, alternately, and
prints the ratios.

    cargo build --release -p ldm-cli
    python3 docs/tools/performance/ratios.py target/release/ldm --threads 2
    python3 docs/tools/performance/ratios.py target/release/ldm --threads 2 --openvino f32 --openvino default

A round is a run of `ldm bench --json` followed by as many calls of each peer's network, each after a warm-up, so that they
are measured minutes apart at most; a ratio is the median of the rounds' ratios. Parameters and floating-point operations of
ldm and diffusers must be equal. Needs torch 2.11 and diffusers; openvino for `--openvino`, whose networks are converted from
diffusers' and compiled for latency, with its own choice of precision (`default`) or without half precision (`f32`).
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import time

import diffusers
import torch

import flop
import peers

CONFIGS = pathlib.Path(__file__).parents[3] / "configs/models"
# Arguments of `ldm bench`, the stage in its output, and the batch size; decoded images have 512x512 pixels.
OURS = {
    "stable-diffusion": (["unet", "--config", "stable-diffusion/v1.yaml"], "unet", 2),
    "imagenet": (["unet", "--config", "latent-diffusion/imagenet.yaml"], "unet", 2),
    "decoder": (["autoencoder", "--config", "autoencoder/kl-f8.yaml", "--height", "512", "--width", "512"], "decode", 1),
}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def ours(name, args):
    arguments, stage, batch = OURS[name]
    arguments = [str(CONFIGS / each) if each.endswith(".yaml") else each for each in arguments]
    command = [args.ldm, "-q", "bench", *arguments, "--batch-size", str(batch), "--repeats", str(args.repeats), "--json"]
    command += ["--dtype", args.dtype, "--device", args.device, "--threads", str(args.threads)]
    document = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return document, next(each for each in document["stages"] if each["stage"] == stage)


def theirs(name, args):
    """A call of diffusers' network, on its device and in its dtype."""
    with torch.device(args.device):
        model, _ = peers.MODELS[name](1)
        if args.dtype != "f32":
            model = model.to(DTYPES[args.dtype])
        if args.channels_last:
            model = model.to(memory_format=torch.channels_last)
        _, run = peers.MODELS[name](OURS[name][2], model, DTYPES[args.dtype])

    def call():
        with torch.inference_mode():
            run()
        if args.device.startswith("cuda"):
            torch.cuda.synchronize()
    return call


def with_openvino(name, precision, args):
    """A call of diffusers' network compiled by OpenVINO."""
    import openvino

    module, inputs = peers.traced(name, OURS[name][2])
    with torch.no_grad():
        converted = openvino.convert_model(module.eval(), example_input=inputs, input=[each.shape for each in inputs])
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": args.threads}
    if precision != "default":
        settings["INFERENCE_PRECISION_HINT"] = precision
    compiled, arrays = openvino.Core().compile_model(converted, "CPU", settings), [each.numpy() for each in inputs]
    return lambda: compiled(arrays)


def timed(call, repeats):
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ldm", help="the binary, built with --release")
    parser.add_argument("--only", choices=OURS, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--channels-last", action="store_true", help="diffusers' networks in channels_last too")
    parser.add_argument("--openvino", choices=("f32", "default"), action="append", default=[], help="repeatable")
    parser.add_argument("--out", help="a JSON file for all measurements")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    kept, lines = [], []
    for name in args.only or OURS:
        counted = flop.count(name, OURS[name][2])
        calls, rounds = {"diffusers": theirs(name, args)}, []
        calls |= {f"OpenVINO {precision}": with_openvino(name, precision, args) for precision in args.openvino}
        for number in range(args.rounds):
            document, stage = ours(name, args)
            same = {"flop": stage["flop"], "parameters": stage["parameters"]}
            assert same == counted, f"{name}: ldm has {same}, diffusers {counted}"
            rounds.append((stage, document["machine"], {peer: timed(call, args.repeats) for peer, call in calls.items()}))
            peers_seconds = ", ".join(f"{peer} {seconds:.3f} s" for peer, seconds in rounds[-1][2].items())
            print(f"{name} round {number + 1}: ldm {stage['median_seconds']:.3f} s, {peers_seconds}", flush=True)
        kept.append({"name": name, "rounds": rounds})
        median = lambda of: statistics.median(of(*each) for each in rounds)
        product = max(machine["matrix_product_flop_per_second"] for _, machine, _ in rounds)
        seconds = median(lambda stage, _, __: stage["median_seconds"])
        shape = "x".join(map(str, stage["shape"]))
        lines.append((
            f"{name} {shape}", f"{counted['flop'] / 1e9:.0f}", f"{stage['bytes'] / 1e9:.1f}",
            f"{median(lambda stage, _, __: stage['roof_seconds']):.2f}", f"{seconds:.2f}",
            f"{100 * counted['flop'] / seconds / product:.0f} %",
            *(f"{median(lambda _, __, other: other[peer]):.2f}" for peer in calls),
            *(f"{median(lambda stage, _, other: stage['median_seconds'] / other[peer]):.3f}" for peer in calls),
        ))
    machine = f"torch {torch.__version__}, diffusers {diffusers.__version__}, {args.device}, {args.threads} threads, {args.dtype}"
    print(f"\n{time.strftime('%Y-%m-%d')}, {machine}, diffusers' channels_last: {args.channels_last}\n")
    columns = ["network", "GFLOP", "GB moved", "roofline s", "ldm s", "ldm of matrix product"]
    columns += [f"{peer} s" for peer in calls] + [f"ldm / {peer}" for peer in calls]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for line in lines:
        print(f"| {' | '.join(line)} |")
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
