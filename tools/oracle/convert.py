"""What mlx_lm.convert makes of tiny checkpoints: names, types, shapes and a hash of each tensor, and the packing that
config.json names.

    python convert.py [case ...]

writes crates/models/testdata-convert/<case>.json. Run with mlx-lm 0.32.2 on mlx 0.32.4, on Linux: the last bits of
scales depend on the processor's rounding. The checkpoints are those of tiny_models.py, in bfloat16.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import mlx_lm.utils
import numpy as np
from mlx_lm.convert import convert
from tiny_models import FAMILIES, shapes, tensor

OUT = Path(__file__).resolve().parents[2] / "crates/models/testdata-convert"
FACTOR = np.uint64(0x9E3779B97F4A7C15)

Q4 = {"quantize": True}
# Each family as most people convert it; Llama with everything else there is.
CASES = {family: (family, Q4) for family in FAMILIES} | {
    "dense": ("llama", {}),
    "float16": ("llama", Q4 | {"dtype": "float16"}),
    "float32-g128-8bit": ("llama", Q4 | {"dtype": "float32", "q_group_size": 128, "q_bits": 8}),
    "g32-3bit": ("llama", Q4 | {"q_group_size": 32, "q_bits": 3}),
    "2bit": ("llama", Q4 | {"q_bits": 2}),
    "5bit": ("llama", Q4 | {"q_bits": 5}),
    "6bit": ("llama", Q4 | {"q_bits": 6}),
    "mxfp4": ("llama", Q4 | {"q_mode": "mxfp4"}),
    "mxfp8": ("qwen3_moe", Q4 | {"q_mode": "mxfp8"}),
    "nvfp4": ("llama", Q4 | {"q_mode": "nvfp4"}),
    # The family's first checkpoint has experts.
    "granite4-dense": ("granitemoehybrid", Q4, "granite4-dense"),
    "mixed_3_6": ("qwen2_moe", Q4 | {"quant_predicate": "mixed_3_6", "q_group_size": 64}),
}


class NoTokenizer:
    def save_pretrained(self, *_):
        pass


def digest(array):
    """Sum of (byte + 1) * FACTOR^place, modulo 2^64."""
    data = np.array(mx.contiguous(array).reshape(-1).view(mx.uint8)).astype(np.uint64) + np.uint64(1)
    powers = np.cumprod(np.full(data.shape, FACTOR))
    return f"{int(np.sum(data * powers, dtype=np.uint64)):016x}"


def config_of(family, checkpoint):
    """Of a checkpoint by name, or of the family's first that is plain."""
    base, cases = FAMILIES[family]
    plain = next(case for case in cases.values() if "quantization" not in base | case)
    return base | cases.get(checkpoint, plain) | {"torch_dtype": "bfloat16"}


def write_plain(config, folder):
    weights = {name: tensor(name, shape).astype(mx.bfloat16) for name, shape in shapes(config)}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


def write_golden(case, family, settings, checkpoint=None):
    config = config_of(family, checkpoint)
    with tempfile.TemporaryDirectory() as place:
        source, target = Path(place) / "source", Path(place) / "target"
        source.mkdir()
        write_plain(config, source)
        convert(str(source), str(target), **settings)
        tensors, packing = {}, json.loads((target / "config.json").read_text()).get("quantization")
        for shard in sorted(target.glob("model*.safetensors")):
            tensors |= mx.load(str(shard))
        entries = {
            name: [str(array.dtype).removeprefix("mlx.core."), array.shape, digest(array)]
            for name, array in sorted(tensors.items())
        }
    golden = {
        "made_by": f"mlx-lm {version('mlx-lm')}",
        "config": config,
        "settings": settings,
        "quantization": packing,
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
    lines.append('"tensors": {\n' + rows + "\n}")
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{case}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main():
    mx.set_default_device(mx.cpu)
    mlx_lm.utils.load_tokenizer = lambda *_, **__: NoTokenizer()
    for case in sys.argv[1:] or CASES:
        write_golden(case, *CASES[case])


if __name__ == "__main__":
    main()
