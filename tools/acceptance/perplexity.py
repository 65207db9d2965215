"""What packed K/V caches cost a model: the perplexity of a text under each `--kv-cache-dtype`, by the real binary.

    python perplexity.py BINARY MODEL [--dtype float32] [--window 4000] [--every 1] [--text FILE] [--types int8 ...]

MODEL is what `--model-path` takes. The text is the constitution and the declaration of independence of the Debian
package `miscfiles`, in the public domain, fetched in a pinned version; each window of so many characters is a prompt of
its own, and all of its tokens but the first count. Exits 1 where a type is above its bar. Needs NumPy and apt.
"""

import argparse
import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PACKAGE = "miscfiles=1.5+dfsg-4"
SHA256 = "b29fdc907760ded52adbc1b4322da22b94108cd124caf0b23da8c23cc3578a28"
TEXTS = ["usr/share/state/us-constitution.gz", "usr/share/state/us-declaration.gz"]
# Perplexity over that of `auto`, at most.
BARS = {"fp8_e4m3": 1.01, "int8": 1.01, "int4": 1.05}


def public_text(folder):
    """The texts, one after the other."""
    subprocess.run(["apt-get", "download", "-qq", PACKAGE], cwd=folder, check=True)
    (package,) = folder.glob("*.deb")
    if hashlib.sha256(package.read_bytes()).hexdigest() != SHA256:
        sys.exit(f"{package.name} is not the package that it was")
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return "\n".join(gzip.decompress((folder / name).read_bytes()).decode() for name in TEXTS)


def read_tensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + size])
    types = {"F32": np.float32, "I32": np.int32}

    def tensor(entry):
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        return np.frombuffer(data[start:end], types[entry["dtype"]]).reshape(entry["shape"])

    return {name: tensor(entry) for name, entry in entries.items() if name != "__metadata__"}


def losses(args, kv_dtype, window, dump):
    """Minus the log-probability of every token of a window but the first."""
    command = [args.binary, "generate", "--model-path", args.model, "--dtype", args.dtype, "--prompt", window]
    command += ["--kv-cache-dtype", kv_dtype, "--dump-logits", dump, "--log-level", "error"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit((done.stdout + done.stderr).strip()[-300:])
    tensors = read_tensors(dump)
    logits, targets = tensors["logits"][:-1].astype(np.float64), tensors["input_ids"][1:]
    highest = logits.max(axis=1)
    total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return total - logits[np.arange(len(targets)), targets]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=Path)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--window", type=int, default=4000)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--types", nargs="+", default=list(BARS), choices=list(BARS))
    parser.add_argument("--every", type=int, default=1, help="one window of so many")
    args = parser.parse_args()
    types = ["auto", *args.types]
    all_losses = {kv_dtype: [] for kv_dtype in types}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        text = args.text.read_text() if args.text else public_text(folder)
        windows = [text[at : at + args.window] for at in range(0, len(text), args.window)][:: args.every]
        for number, window in enumerate(windows, 1):
            for kv_dtype in types:
                all_losses[kv_dtype].append(losses(args, kv_dtype, window, folder / "logits.safetensors"))
            means = ", ".join(f"{kv_dtype} {np.concatenate(all_losses[kv_dtype]).mean():.5f}" for kv_dtype in types)
            print(f"{number} of {len(windows)} windows, mean losses: {means}", file=sys.stderr, flush=True)
    all_losses = {kv_dtype: np.concatenate(parts) for kv_dtype, parts in all_losses.items()}
    plain, good = all_losses["auto"], True
    for kv_dtype, of_type in all_losses.items():
        ratio = np.exp((of_type - plain).mean())
        # Of the mean difference: windows are few, tokens are many.
        spread = (of_type - plain).std() / np.sqrt(len(plain))
        good &= kv_dtype == "auto" or ratio <= BARS[kv_dtype]
        line = f"{kv_dtype:9} perplexity {np.exp(of_type.mean()):8.4f}  {100 * (ratio - 1):+.2f} % (±{100 * spread:.2f})"
        print(f"{line}  over {len(plain)} tokens")
    sys.exit(not good)


main()
