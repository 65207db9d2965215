"""Converts a model with us and with mlx-lm, and each side reads what the other wrote.

    python convert_round_trip.py BINARY MODEL_FOLDER [--bits 4] [--dtype bfloat16]

prints, and fails on, any difference: names, types, shapes and bytes of the tensors; logits that mlx-lm computes from
both folders; greedy tokens that we generate from both. Needs mlx-lm 0.32.2. The folders are written to a temporary
place.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.convert import convert
from mlx_lm.utils import load_model

PROMPT = [504, 3575, 282, 4649, 314] + list(range(100, 130))


def tensors(folder):
    found = {}
    for shard in sorted(folder.glob("model*.safetensors")):
        found |= mx.load(str(shard))
    return found


def same_tensors(ours, theirs):
    ours, theirs = tensors(ours), tensors(theirs)
    wrong = sorted(set(ours) ^ set(theirs))
    for name in sorted(set(ours) & set(theirs)):
        a, b = ours[name], theirs[name]
        same = a.dtype == b.dtype and a.shape == b.shape
        if not same or not mx.array_equal(a.reshape(-1).view(mx.uint8), b.reshape(-1).view(mx.uint8)):
            wrong.append(name)
    print(f"tensors: {len(theirs)}, different: {len(wrong)} {wrong[:5]}")
    return not wrong


def same_logits(ours, theirs):
    logits = [np.array(load_model(folder)[0](mx.array([PROMPT])).astype(mx.float32)) for folder in (ours, theirs)]
    off = float(np.abs(logits[0] - logits[1]).max())
    print(f"logits by mlx-lm: {logits[0].shape}, off by {off}")
    return off == 0.0


def our_tokens(binary, folder):
    command = [binary, "generate", "--device", "cpu", "--model-path", folder, "--max-new-tokens", "24", "--ignore-eos"]
    command += ["--json", "--log-level", "error", "--input-ids", ",".join(map(str, PROMPT))]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["output_ids"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)
    with tempfile.TemporaryDirectory() as place:
        ours, theirs = Path(place) / "ours", Path(place) / "theirs"
        flags = ["-q", "--q-bits", str(args.bits), "--dtype", args.dtype, "--device", "cpu"]
        command = [args.binary, "convert", "--hf-path", args.model, "--mlx-path", str(ours), *flags]
        subprocess.run(command, check=True)
        convert(args.model, str(theirs), quantize=True, q_bits=args.bits, dtype=args.dtype)
        results = [same_tensors(ours, theirs), same_logits(ours, theirs)]
        tokens = [our_tokens(args.binary, str(folder)) for folder in (ours, theirs)]
        print(f"our tokens: {len(tokens[0])}, equal: {tokens[0] == tokens[1]}")
        results.append(tokens[0] == tokens[1])
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
