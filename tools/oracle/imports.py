"""What MLX should hold of checkpoints that other tools quantized: names, types, shapes and a hash of each tensor.

    python imports.py [case ...]

writes crates/model-loader/testdata-imports/<case>.json: the config, what the checkpoint stores, and the tensors after
the import. Run with mlx-lm 0.32.2 on mlx 0.32.4.

Stored tensors are not kept: both sides compute them from their names (`stored` below and src/imports/tests.rs in
crates/model-loader). Where mlx-lm imports a format, the tensors are those of its model (`by_mlx_lm`) or of the code
that its model files have for the format (`by_model_file`). The others are computed from the formats' definitions in
NumPy, one element at a time in meaning: packed numbers are taken apart, scaled, and packed as MLX packs them.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
from convert import digest
from mlx.utils import tree_flatten
from mlx_lm.models import deepseek_v3, deepseek_v41, minimax
from mlx_lm.utils import load_model

from tiny_models import LLAMA, MINIMAX, shapes

OUT = Path(__file__).resolve().parents[2] / "crates/model-loader/testdata-imports"
DIMS = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 1, "vocab_size": 64}
CONFIG = LLAMA | DIMS
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
SIZES = {"F32": 4, "U32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8, "U8": 1, "F8_E4M3": 1, "F8_E8M0": 1}


def random_bytes(name, count):
    """The upper byte of a hash of the name and the place."""
    digest = np.uint64(0xCBF29CE484222325)
    with np.errstate(over="ignore"):
        for byte in name.encode():
            digest = (digest ^ np.uint64(byte)) * np.uint64(0x100000001B3)
        x = digest + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(56)).astype(np.uint8)


def stored(name, dtype, shape):
    """Any bits for integers; floats between 0.5 and 1, or around 0 for embeddings and heads, exact in every type; E4M3
    without its NaN; E8M0 around 1; `g_idx` counts groups of 64."""
    count = int(np.prod(shape))
    if name.endswith("g_idx"):
        return (np.arange(count, dtype=np.int32) // 64).reshape(shape)
    if dtype in ("F32", "F16", "BF16"):
        floats = (np.float32(128) + (random_bytes(name, count) & 127).astype(np.float32)) / np.float32(256)
        if "embed_tokens" in name or "lm_head" in name:
            floats -= np.float32(0.75)
        if dtype == "BF16":
            return np.array(mx.array(floats).astype(mx.bfloat16).view(mx.uint16)).reshape(shape)
        return floats.astype(np.float32 if dtype == "F32" else np.float16).reshape(shape)
    data = random_bytes(name, count * SIZES[dtype])
    if dtype == "F8_E4M3":
        data[(data & 127) == 127] ^= 1
    elif dtype == "F8_E8M0":
        data = data % 16 + np.uint8(120)
    kind = {"I32": np.int32, "U32": np.uint32, "I64": np.int64}.get(dtype, np.uint8)
    return data.view(kind).reshape(shape)


def write(folder, config, entries):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape) in entries.items():
        content = stored(name, dtype, shape).tobytes()
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    (folder / "config.json").write_text(json.dumps(config))


def layout(config, plain, parts, exceptions=()):
    """The tensors of the checkpoint: `parts` gives those of a matrix, the others are `plain`."""
    entries = {}
    for name, shape in shapes(config):
        module = name.removesuffix(".weight")
        is_matrix = "_proj" in name or module.endswith((".w1", ".w2", ".w3"))
        if is_matrix and module != name and module not in exceptions:
            for part, entry in parts(*shape).items():
                entries[f"{module}{part if part.startswith('_') else f'.{part}'}"] = list(entry)
        else:
            entries[name] = [plain, list(shape)]
    return entries


def by_mlx_lm(folder, _):
    model, _ = load_model(folder)
    return dict(tree_flatten(model.parameters()))


def by_model_file(folder, _, file=deepseek_v3):
    """Such files take tensors of any names apart before they look for their own."""
    weights = mx.load(str(folder / "model.safetensors"))
    unused = SimpleNamespace(args=SimpleNamespace(num_hidden_layers=0))
    return file.Model.sanitize(unused, weights)


def by_minimax(folder, entries):
    return by_model_file(folder, entries, minimax)


def by_module(rule):
    """`rule` makes the parts of a module from its stored parts."""

    def tensors(_, entries):
        modules, found = {}, {}
        for name, (dtype, shape) in entries.items():
            module, _, part = name.rpartition(".")
            array = stored(name, dtype, shape)
            modules.setdefault(module, {})[part] = mx.array(array).view(mx.bfloat16) if dtype == "BF16" else array
        for module, parts in modules.items():
            if parts.keys() & {"qweight", "weight_packed", "weight_scale", "weight_scale_inv"}:
                kept = {"bias": parts.pop("bias")} if "bias" in parts else {}
                parts = rule(parts) | kept
            found |= {f"{module}.{part}": mx.array(array) for part, array in parts.items()}
        return found

    return tensors


def pack(elements, bits):
    """MLX: along the last axis, the first element in the lowest bits."""
    per_word = 32 // bits
    grouped = elements.astype(np.uint64).reshape(*elements.shape[:-1], -1, per_word)
    return (grouped << (np.arange(per_word, dtype=np.uint64) * np.uint64(bits))).sum(axis=-1).astype(np.uint32)


def take_apart(words, bits, axis):
    """Elements of words along an axis, the first in the lowest bits."""
    words = np.moveaxis(words.view(np.uint32), axis, -1)
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    elements = (words[..., None] >> shifts) & np.uint32((1 << bits) - 1)
    return np.moveaxis(elements.reshape(*words.shape[:-1], -1), -1, axis)


def gptq(bits, zero_offset):
    def rule(parts):
        weight = take_apart(parts["qweight"], bits, 0).T
        zeros = (take_apart(parts["qzeros"], bits, 1) + zero_offset).T
        scales = parts["scales"].T
        biases = (-zeros.astype(np.float32) * scales.astype(np.float32)).astype(scales.dtype)
        # Groups of 64 where a row has one scale.
        times = weight.shape[1] // 64 // scales.shape[1]
        scales, biases = (np.repeat(array, times, axis=1) for array in (scales, biases))
        return {"weight": pack(weight, bits), "scales": scales, "biases": biases}

    return rule


def asymmetric(parts):
    weight = take_apart(parts["weight_packed"], 4, 1)
    zeros = take_apart(parts["weight_zero_point"], 4, 0)
    scales = parts["weight_scale"]
    return {
        "weight": pack(weight, 4),
        "scales": scales,
        "biases": (-zeros.astype(np.float32) * scales.astype(np.float32)).astype(scales.dtype),
    }


def eight_bits(parts):
    weight = pack(take_apart(parts["weight_packed"], 8, 1), 8)
    scales = parts["weight_scale"]
    scales = np.repeat(scales, weight.shape[1] * 4 // 64 // scales.shape[1], axis=1)
    return {"weight": weight, "scales": scales, "biases": scales * np.float16(-128)}


def e4m3(data):
    return np.array(mx.from_fp8(mx.array(data), dtype=mx.float32))


def bf16(array):
    return mx.array(array.astype(np.float32)).astype(mx.bfloat16)


def fp8(part):
    def rule(parts):
        scale = parts[part]
        scale = np.array(scale.astype(mx.float32)) if isinstance(scale, mx.array) else scale
        return {"weight": bf16(e4m3(parts["weight"]) * scale)}

    return rule


def nvfp4(weight_part, global_scale):
    def rule(parts):
        packed = parts[weight_part]
        elements = E2M1[np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)]
        blocks = elements * np.repeat(e4m3(parts["weight_scale"]), 16, axis=-1)
        return {"weight": bf16(global_scale(blocks, parts))}

    return rule


def mxfp4(parts):
    return {"weight": parts["weight_packed"].view(np.uint32), "scales": parts["weight_scale"]}


def mxfp8(parts):
    weight, scales = deepseek_v41._repack(mx.array(parts["weight"]), mx.array(parts["weight_scale_inv"]))
    return {"weight": weight, "scales": scales}


def awq_parts(group, zeros=True):
    def parts(rows, columns):
        found = {"qweight": ("I32", [columns, rows // 8]), "scales": ("F16", [columns // group, rows])}
        return found | ({"qzeros": ("I32", [columns // group, rows // 8])} if zeros else {})

    return parts


def gptq_parts(bits, g_idx, whole_rows=False):
    def parts(rows, columns):
        words, groups = rows * bits // 32, 1 if whole_rows else columns // 64
        found = {
            "qweight": ("I32", [columns * bits // 32, rows]),
            "qzeros": ("I32", [groups, words]),
            "scales": ("F16", [groups, rows]),
        }
        return found | ({"g_idx": ("I32", [columns])} if g_idx else {})

    return parts


def ct_int_parts(bits, group, dtype, asymmetric=False):
    def parts(rows, columns):
        words, groups = columns * bits // 32, columns // group if group else 1
        found = {
            "weight_packed": ("I32", [rows, words]),
            "weight_scale": (dtype, [rows, groups]),
            "weight_shape": ("I64", [2]),
        }
        zeros = {"weight_zero_point": ("I32", [rows * bits // 32, groups])}
        return found | (zeros if asymmetric else {})

    return parts


def fp8_parts(name, scale, extra=()):
    """`scale` gives type and shape of the scales."""

    def parts(rows, columns):
        return {"weight": ("F8_E4M3", [rows, columns]), name: scale(rows, columns)} | dict(extra)

    return parts


def blocks(dtype, size):
    return lambda rows, columns: (dtype, [-(-rows // size), -(-columns // size)])


def nvfp4_parts(weight, global_part, activations):
    return lambda rows, columns: {
        weight: ("U8", [rows, columns // 2]),
        "weight_scale": ("F8_E4M3", [rows, columns // 16]),
        global_part: ("F32", [] if global_part == "weight_scale_2" else [1]),
        activations: ("F32", [1]),
    }


def mlx_parts(bits):
    return lambda rows, columns: {
        "weight": ("U32", [rows, columns * bits // 32]),
        "scales": ("U8", [rows, columns // 32]),
    }


def block_parts(rows, columns):
    return {"_blocks": ("U8", [rows, columns // 32, 16]), "_scales": ("U8", [rows, columns // 32])}


def joined_blocks(_, entries):
    """As gpt_oss of mlx-lm does it."""
    found = {}
    for name, (dtype, shape) in entries.items():
        array = mx.array(stored(name, dtype, shape))
        if name.endswith("_blocks"):
            found[name.replace("_blocks", ".weight")] = array.view(mx.uint32).flatten(-2)
        else:
            found[name.replace("_scales", ".scales")] = array.view(mx.bfloat16) if dtype == "BF16" else array
    return found


def ct(form, **weights):
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed"} | (
        {"config_groups": groups} if weights else {}
    )


ALONE = "model.layers.0.mlp.down_proj"
AWQ = {"quant_method": "awq", "bits": 4, "zero_point": True, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "desc_act": False, "sym": True, "group_size": 64}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
POWERS = FP8 | {"scale_fmt": "ue8m0", "weight_block_size": [32, 32]}
ONE = ("BF16", [])

# quantization_config, the type of plain tensors, the parts of a matrix, modules left plain, and who computes.
CASES = {
    "awq": (AWQ | {"group_size": 64, "modules_to_not_convert": [ALONE]}, "F16", awq_parts(64), [ALONE], by_mlx_lm),
    "awq-no-zeros": (AWQ | {"group_size": 32}, "F16", awq_parts(32, False), [], by_mlx_lm),
    "ct-fp8-channel": (
        ct("float-quantized", num_bits=8, type="float", strategy="channel"),
        "BF16",
        fp8_parts("weight_scale", lambda rows, _: ("BF16", [rows, 1])),
        [],
        by_module(fp8("weight_scale")),
    ),
    "ct-int4": (ct("pack-quantized"), "BF16", ct_int_parts(4, 32, "BF16"), [ALONE], by_model_file),
    "ct-int4-asymmetric": (
        ct("pack-quantized", num_bits=4, type="int", strategy="group", group_size=64, symmetric=False),
        "F16",
        ct_int_parts(4, 64, "F16", True),
        [],
        by_module(asymmetric),
    ),
    "ct-int8": (
        ct("pack-quantized", num_bits=8, type="int", strategy="group", group_size=64, symmetric=True),
        "F16",
        ct_int_parts(8, 64, "F16"),
        [],
        by_module(eight_bits),
    ),
    "ct-int8-channel": (
        ct("pack-quantized", num_bits=8, type="int", strategy="channel", group_size=None, symmetric=True),
        "F16",
        ct_int_parts(8, None, "F16"),
        [],
        by_module(eight_bits),
    ),
    "ct-mxfp4": (
        ct("mxfp4-pack-quantized"),
        "BF16",
        lambda rows, columns: {
            "weight_packed": ("U8", [rows, columns // 2]),
            "weight_scale": ("U8", [rows, columns // 32]),
        },
        [],
        by_module(mxfp4),
    ),
    "ct-nvfp4": (
        ct("nvfp4-pack-quantized"),
        "BF16",
        nvfp4_parts("weight_packed", "weight_global_scale", "input_global_scale"),
        [],
        by_module(nvfp4("weight_packed", lambda blocks, parts: blocks / parts["weight_global_scale"])),
    ),
    "fp8-blocks": (
        FP8 | {"weight_block_size": [128, 128]},
        "BF16",
        fp8_parts("weight_scale_inv", blocks("F32", 128)),
        [ALONE],
        by_model_file,
    ),
    "fp8-minimax": (
        FP8 | {"fmt": "float8_e4m3fn", "weight_block_size": [128, 128], "modules_to_not_convert": ["gate", "lm_head"]},
        "BF16",
        fp8_parts("weight_scale_inv", blocks("F32", 128)),
        [],
        by_minimax,
    ),
    "fp8-tensor": (
        FP8,
        "BF16",
        fp8_parts("weight_scale_inv", lambda *_: ONE, {"activation_scale": ONE}),
        [],
        by_module(fp8("weight_scale_inv")),
    ),
    "fp8-ue8m0": (POWERS, "BF16", fp8_parts("weight_scale_inv", blocks("F8_E8M0", 32)), [], by_module(mxfp8)),
    "gptq": (GPTQ | {"bits": 4}, "F16", gptq_parts(4, True), [ALONE], by_module(gptq(4, 1))),
    "gptq-8bit": (GPTQ | {"bits": 8}, "F16", gptq_parts(8, False), [], by_module(gptq(8, 1))),
    "gptq-rows": (
        GPTQ | {"bits": 4, "group_size": -1},
        "F16",
        gptq_parts(4, False, True),
        [],
        by_module(gptq(4, 1)),
    ),
    "gptq-v2": (
        GPTQ | {"bits": 4, "checkpoint_format": "gptq_v2"},
        "F16",
        gptq_parts(4, True),
        [],
        by_module(gptq(4, 0)),
    ),
    "modelopt-nvfp4": (
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16},
        "BF16",
        nvfp4_parts("weight", "weight_scale_2", "input_scale"),
        [],
        by_module(nvfp4("weight", lambda blocks, parts: blocks * parts["weight_scale_2"])),
    ),
    "mxfp4": ({"quant_method": "mxfp4"}, "BF16", mlx_parts(4), [ALONE], by_mlx_lm),
    "mxfp4-blocks": ({"quant_method": "mxfp4"}, "BF16", block_parts, [ALONE], joined_blocks),
    "mxfp8": ({"quant_method": "mxfp8"}, "BF16", mlx_parts(8), [], by_mlx_lm),
}


# Of models other than Llama.
CONFIGS = {
    "fp8-minimax": MINIMAX | DIMS | {"num_local_experts": 2, "num_experts_per_tok": 1, "attn_type_list": [1]},
}


def write_golden(case, quantization_config, plain, parts, exceptions, compute):
    config = CONFIGS.get(case, CONFIG) | {"quantization_config": quantization_config}
    entries = layout(config, plain, parts, exceptions)
    with tempfile.TemporaryDirectory() as place:
        write(Path(place), config, entries)
        tensors = compute(Path(place), entries)
        found = {
            name: [str(array.dtype).removeprefix("mlx.core."), array.shape, digest(array)]
            for name, array in sorted(tensors.items())
        }
    golden = {"made_by": f"mlx-lm {version('mlx-lm')}" if compute in (by_mlx_lm, by_model_file, by_minimax) else "NumPy"}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in (golden | {"config": config}).items()]
    for key, table in (("stored", entries), ("tensors", found)):
        rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in table.items())
        lines.append(f'"{key}": {{\n{rows}\n}}')
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{case}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main():
    mx.set_default_device(mx.cpu)
    for case in sys.argv[1:] or CASES:
        write_golden(case, *CASES[case])


if __name__ == "__main__":
    main()
