"""Us and mlx-lm on this machine's GPU, in turn, on random weights of real shapes.

    gpu.py [--rounds 2] [--models llama-3.1-8b ...] [--batch 1 8 32] [--output FILE]

Started by run.sh. The shapes are those of configs/, 4-bit with groups of 64. Set
PEERS_PYTHON to a Python that has mlx-lm to use that one. The bars are those of
the 8B shape on an H100; the other shapes are printed beside it.
"""

import argparse
import json
import os
from pathlib import Path

from bench import PEERS, Figures, compare, our_binary, report, run, say

CONFIGS = Path(__file__).with_name("configs")
PROMPT, OUTPUT, PREFILL = 128, 128, 2048

# First bar and goal.
BARS = {"batch 1": (1.1, 1.5), "batch 8": (3, 6), "batch 32": (5, 10), "prefill 2048": (1.0, 1.2)}
MOE_BARS = {"batch 1": (1.1, 1.5), "batch 32": (2, 4), "prefill 2048": (1.5, 4)}


def ours(figures, name, batches):
    base = [our_binary(), "bench-one-batch", "--load-format", "dummy", "--log-level", "error"]
    base += ["--model-path", CONFIGS / name, "--json"]
    decode = [*base, "--input-len", PROMPT, "--output-len", OUTPUT, "--batch-size", *batches]
    for line in run(decode).splitlines():
        result = json.loads(line)
        figures.add("sglang-mlx", f"{name} batch {result['batch_size']}", result["decode_tps"])
    prefill = [*base, "--input-len", PREFILL, "--output-len", 4]
    result = json.loads(run(prefill).splitlines()[-1])
    figures.add("sglang-mlx", f"{name} prefill {PREFILL}", result["prefill_tps"])


def mlx_lm(figures, name, batches):
    python = os.environ.get("PEERS_PYTHON", PEERS / "venv-gpu/bin/python")
    command = [python, Path(__file__).with_name("mlx_lm_bench.py"), CONFIGS / name, "--random"]
    command += ["--prompt", PROMPT, "--output", OUTPUT, "--prefill", PREFILL, "--batch", *batches]
    result = json.loads(run(command).splitlines()[-1])
    for batch in batches:
        figures.add("mlx-lm", f"{name} batch {batch}", result[f"batch_{batch}"])
    # Its fastest way for one request; the bar of batch 1 is against BatchGenerator.
    figures.add("mlx-lm stream", f"{name} batch 1", result["decode_1"])
    figures.add("mlx-lm", f"{name} prefill {PREFILL}", result["prefill"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    known = sorted(folder.name for folder in CONFIGS.iterdir())
    parser.add_argument("--models", nargs="+", choices=known, default=known)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--output", type=Path, default=PEERS / "gpu.json")
    args = parser.parse_args()
    figures, bars = Figures(), []
    for name in args.models:
        for round_number in range(args.rounds):
            say(f"{name}: round {round_number + 1} of {args.rounds}")
            ours(figures, name, args.batch)
            mlx_lm(figures, name, args.batch)
        config = json.loads((CONFIGS / name / "config.json").read_text())
        of_model = MOE_BARS if "num_experts" in config else BARS
        for what, (bar, goal) in of_model.items():
            bars.append((f"{name} {what}", "mlx-lm", bar, goal))
            if what == "batch 1":
                bars.append((f"{name} {what}", "mlx-lm stream", bar, goal))
    about = f"random 4-bit weights, tokens/s; prompt {PROMPT}, output {OUTPUT}"
    report(compare(figures, bars), figures, about, args.output)


main()
