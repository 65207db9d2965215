"""What blocks of GGUF files stand for, by the Python package gguf: random bytes of every quantized type that is read.

    python gguf_blocks.py

writes crates/model-loader/testdata/gguf_blocks.json: the bytes in hex, and the numbers as f32. Needs: gguf, numpy.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

OUT = Path(__file__).resolve().parents[2] / "crates/model-loader/testdata/gguf_blocks.json"
# Where f16 factors lie in a block: random bits would make some of them infinite.
FACTORS = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
}
ELEMENTS = 256


def main():
    generator = np.random.default_rng(5)
    goldens = {}
    for name, places in FACTORS.items():
        kind = GGMLQuantizationType[name]
        elements, size = GGML_QUANT_SIZES[kind]
        blocks = generator.integers(0, 256, (ELEMENTS // elements, size), dtype=np.uint8)
        for place in places:
            factors = generator.uniform(-0.1, 0.1, (len(blocks), 1)).astype(np.float16)
            blocks[:, place : place + 2] = factors.view(np.uint8)
        values = dequantize(blocks, kind).reshape(-1)
        goldens[name] = {"type": int(kind), "bytes": blocks.tobytes().hex(), "values": [float(str(x)) for x in values]}
    lines = [f"{json.dumps(name)}: {json.dumps(golden)}" for name, golden in goldens.items()]
    lines.insert(0, f'"made_by": "gguf {version("gguf")}"')
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
