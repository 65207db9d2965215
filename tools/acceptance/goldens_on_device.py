"""Every golden of crates/models by the real binary, on whatever device this machine has: CI knows the CPU only.

    python goldens_on_device.py write FOLDER            the tiny checkpoints, by MLX (needs mlx-lm 0.32.2)
    python goldens_on_device.py run BINARY FOLDER       compares; needs NumPy alone [--jobs 4] [--only NAME ...]

Logits of the prompt agree within 2e-4 (f32, TF32 off), and the 32 greedy tokens are equal up to the first whose lead
over the runner-up is below 1e-3. The two may run on different machines.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "crates/models/testdata"
BAR, SURE = 2e-4, 1e-3


def write(args):
    sys.path.insert(0, str(ROOT / "tools/oracle"))
    import mlx.core as mx
    from tiny_models import write_folder

    mx.set_default_device(mx.cpu)
    for path in sorted(GOLDENS.glob("*/*.json")):
        folder = args.folder / path.stem
        folder.mkdir(parents=True, exist_ok=True)
        golden = json.loads(path.read_text())
        write_folder(golden["config"], folder)
        (folder / "golden.json").write_text(json.dumps(golden))


def read_tensor(path, name):
    """One f32 tensor of a safetensors file."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + size])[name]
    start, end = (8 + size + offset for offset in entry["data_offsets"])
    return np.frombuffer(data[start:end], np.float32).reshape(entry["shape"])


def ours(binary, folder, more):
    golden = json.loads((folder / "golden.json").read_text())
    command = [binary, "generate", "--model-path", folder, "--dtype", "float32", "--skip-tokenizer-init"]
    command += ["--input-ids", ",".join(map(str, golden["prompt"])), "--log-level", "error"]
    command += ["--max-total-tokens", "4096", *more]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"MLX_ENABLE_TF32": "0"})
    if done.returncode != 0:
        raise RuntimeError((done.stdout + done.stderr).strip()[-300:])
    return golden, done.stdout


def sure_tokens(golden):
    """Greedy tokens before the first that another order of sums may change."""
    unsure = (at for at, margin in enumerate(golden["margins"]) if margin < SURE)
    return golden["output_ids"][: next(unsure, None)]


def check(binary, folder):
    try:
        dump = folder / "logits.safetensors"
        golden, _ = ours(binary, folder, ["--dump-logits", dump])
        off = float(np.abs(read_tensor(dump, "logits")[-1] - golden["logits"]).max())
        _, out = ours(binary, folder, ["--max-new-tokens", "32", "--ignore-eos", "--json"])
        expected = sure_tokens(golden)
        same = json.loads(out)["output_ids"][: len(expected)] == expected
    except RuntimeError as error:
        return False, f"{folder.name}: {error}"
    tokens = f"{len(expected)} tokens {'equal' if same else 'NOT equal'}"
    return off <= BAR and same, f"{folder.name}: logits off by {off:.1e}, {tokens}"


def run(args):
    folders = sorted(path.parent for path in args.folder.glob("*/golden.json"))
    folders = [folder for folder in folders if not args.only or folder.name in args.only]
    num_good = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for good, line in pool.map(lambda folder: check(args.binary, folder), folders):
            print("ok    " if good else "FAILED", line, flush=True)
            num_good += good
    print(f"{num_good} of {len(folders)} goldens agree")
    sys.exit(num_good != len(folders) or not folders)


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    writing = commands.add_parser("write")
    writing.add_argument("folder", type=Path)
    writing.set_defaults(run=write)
    running = commands.add_parser("run")
    running.add_argument("binary", type=Path)
    running.add_argument("folder", type=Path)
    running.add_argument("--jobs", type=int, default=4)
    running.add_argument("--only", nargs="+")
    running.set_defaults(run=run)
    args = parser.parse_args()
    args.run(args)


main()
