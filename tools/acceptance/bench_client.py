"""SGLang's own benchmark client, to its end, against our server.

    python3.11 bench_client.py BINARY MODEL [ARGUMENTS OF launch-server ...]

MODEL is a folder with a `tokenizer.json`, which the client reads. The client is the compiled one of the wheel of sglang
0.5.23 (Linux x86-64, Python 3.11), loaded by file: nothing else of SGLang is needed. The wheel is kept in KITS_VENV, or
third_party/kits-venv. Every request must succeed, with as many tokens as were asked for.
"""

import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from local_server import LocalServer, check

WHEEL = "sglang==0.5.23"
VENV = Path(os.environ.get("KITS_VENV", Path(__file__).resolve().parents[2] / "third_party/kits-venv"))
NUM_PROMPTS, OUTPUT_LEN = 12, 16
RUNS = {
    "sglang": [],
    "sglang, log-probabilities": ["--backend", "sglang", "--return-logprob", "--top-logprobs-num", "2"],
    "sglang, whole answers": ["--backend", "sglang", "--disable-stream", "--profile"],
    "sglang, token ids": ["--backend", "sglang", "--tokenize-prompt"],
    "sglang-oai": ["--backend", "sglang-oai"],
    "sglang-oai-chat": ["--backend", "sglang-oai-chat"],
    "sglang-oai-chat, whole answers": ["--backend", "sglang-oai-chat", "--disable-stream"],
    "sglang-oai-chat, two at a time": ["--backend", "sglang-oai-chat", "--max-concurrency", "2", "--request-rate", "20"],
}


def client():
    if not (VENV / "bin/python").exists():
        venv.create(VENV, with_pip=True)
    extensions = "lib/python3.11/site-packages/sglang/srt/rust_extensions"
    if not (VENV / extensions).exists():
        subprocess.run([VENV / "bin/pip", "install", "-q", "--no-deps", WHEEL], check=True)
    [path] = (VENV / extensions).glob("_bench.*.so")
    loader = importlib.machinery.ExtensionFileLoader("_bench", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("_bench", path, loader=loader))
    loader.exec_module(module)
    return module.run_argv


def main():
    binary, model, *more = sys.argv[1:]
    run = client()
    with LocalServer(binary, "--model-path", model, *more) as server, tempfile.TemporaryDirectory() as folder:
        workload = ["--dataset-name", "random-ids", "--num-prompts", str(NUM_PROMPTS), "--random-input-len", "48",
                    "--random-output-len", str(OUTPUT_LEN), "--random-range-ratio", "1", "--flush-cache"]
        for index, (name, flags) in enumerate(RUNS.items()):
            results = f"{folder}/{index}.jsonl"
            run(["sglang-bench", *flags, "--base-url", server.url, "--model", model, *workload, "--disable-tqdm",
                 "--output-details", "--output-file", results])
            [result] = [json.loads(line) for line in open(results)]
            errors = [error for error in result["errors"] if error]
            check(result["completed"] == NUM_PROMPTS and not errors, f"{name}: all requests succeed {errors[:1]}")
            lengths = set(result["output_lens"])
            check(lengths == {OUTPUT_LEN}, f"{name}: {OUTPUT_LEN} tokens each ({lengths})")
            check(all(result["generated_texts"]), f"{name}: there is text in every answer")
            check(result["server_info"]["max_total_num_tokens"] > 0, f"{name}: /server_info is understood")


if __name__ == "__main__":
    main()
