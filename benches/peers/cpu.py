"""Us, llama.cpp and mlx-lm on this machine's CPU, in turn, on the same weights.

    cpu.py [--rounds 3] [--only decode prefill streams] [--skip-mlx-lm] [--output FILE]

Started by run.sh, which installs the peers. A round runs every engine once, so
that what else happens on the machine hits all of them; figures are medians over
the rounds. The model is the default one, SmolLM2-135M-Instruct Q4_1: llama.cpp
and we read the GGUF file, mlx-lm the same codes as an MLX folder, in f32.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

from bench import PEERS, ROOT, Figures, compare, free_port, our_binary, report, run, say, server

MODEL = ROOT / "third_party/models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf"
LLAMA = PEERS / "llama.cpp-build" / "bin"
PROMPT, OUTPUT, STREAMS = 128, 64, 8

# What, peer, first bar, goal.
BARS = [
    ("decode, 1 stream", "llama.cpp", 0.6, 1.2),
    ("decode, 1 stream", "mlx-lm", 7, None),
    ("prefill 128", "llama.cpp", 0.4, 1.0),
    ("prefill 128", "mlx-lm", 9, None),
    ("8 streams", "llama.cpp", 1.0, 1.5),
]


def ours_one_batch(figures):
    command = [our_binary(), "bench-one-batch", "--device", "cpu", "--model-path", MODEL, "--json"]
    # The first token of the output belongs to the prefill.
    command += ["--input-len", PROMPT, "--output-len", OUTPUT + 1, "--log-level", "error"]
    result = json.loads(run(command).splitlines()[-1])
    figures.add("sglang-mlx", "prefill 128", result["prefill_tps"])
    figures.add("sglang-mlx", "decode, 1 stream", result["decode_tps"])


def llama_bench(figures, threads):
    command = [LLAMA / "llama-bench", "-m", MODEL, "-p", PROMPT, "-n", OUTPUT]
    results = json.loads(run(command + ["-t", threads, "-r", 3, "-o", "json"]))
    for result in results:
        what = "prefill 128" if result["n_prompt"] else "decode, 1 stream"
        figures.add("llama.cpp", what, result["avg_ts"])


def mlx_lm(figures):
    command = [PEERS / "venv-cpu/bin/python", Path(__file__).with_name("mlx_lm_bench.py")]
    command += [PEERS / "smollm2/mlx-f16", "--cpu", "--dtype", "float32", "--repeat", 1]
    result = json.loads(run(command + ["--prompt", 16, "--output", 24, "--prefill", PROMPT]))
    figures.add("mlx-lm", "prefill 128", result["prefill"])
    figures.add("mlx-lm", "decode, 1 stream", result["decode_1"])


def streams(figures, engine, round_number, threads, scratch):
    """8 clients at once on the same interface, prompts of their own in each round."""
    port = free_port()
    if engine == "llama.cpp":
        command = [LLAMA / "llama-server", "-m", MODEL, "--port", port, "-np", STREAMS]
        command += ["-c", STREAMS * 512, "-t", threads, "-tb", threads]
    else:
        command = [our_binary(), "launch-server", "--device", "cpu", "--model-path", MODEL]
        command += ["--port", port, "--max-running-requests", STREAMS]
    results = Path(scratch) / f"{engine}-{round_number}.jsonl"
    with server(command, port, Path(scratch) / f"{engine}.log"):
        load = [our_binary(), "bench-serving", "--backend", "sglang-oai"]
        load += ["--port", port, "--num-prompts", 3 * STREAMS, "--max-concurrency", STREAMS]
        load += ["--random-input-len", PROMPT, "--random-output-len", OUTPUT]
        load += ["--random-range-ratio", 1, "--seed", round_number + 1, "--disable-tqdm"]
        run(load + ["--output-file", results])
    result = json.loads(results.read_text())
    assert result["failed"] == 0, result
    assert result["total_output_tokens"] == 3 * STREAMS * OUTPUT, result
    figures.add(engine, "8 streams", result["output_throughput"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    kinds = ["decode", "prefill", "streams"]
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--skip-mlx-lm", action="store_true")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, default=PEERS / "cpu.json")
    args = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory() as scratch:
        for round_number in range(args.rounds):
            say(f"round {round_number + 1} of {args.rounds}")
            if {"decode", "prefill"} & set(args.only):
                ours_one_batch(figures)
                llama_bench(figures, args.threads)
                if not args.skip_mlx_lm:
                    mlx_lm(figures)
            if "streams" in args.only:
                for engine in ("sglang-mlx", "llama.cpp"):
                    streams(figures, engine, round_number, args.threads, scratch)
    bars = [bar for bar in BARS if any(kind in bar[0] for kind in args.only)]
    about = f"SmolLM2-135M-Instruct Q4_1, tokens/s, CPU with {args.threads} threads"
    report(compare(figures, bars), figures, about, args.output)


main()
