"""Tiny GGUF files by the Python package gguf, and what mlx-lm computes from the same weights in f32.

    python gguf_models.py [case ...]

writes crates/model-loader/testdata/gguf/<case>.gguf (matrices in Q4_0, the rest in F32; names, keys and what is done to
tensors as llama.cpp's converter does it) and <case>.json: the logits after the prompt, 32 greedy tokens and the lead of
each over the runner-up. Needs gguf 0.19 beside what tiny_models.py needs.
"""

import json
import math
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
from gguf.quants import dequantize, quantize
from mlx_lm.utils import load_model
from tiny_models import COHERE2, GEMMA2, GEMMA3_TEXT, GLM4, GRANITE, LLAMA3, OLMO2, OLMO3, PHI3, PROMPT, QWEN2_MOE, SEED_OSS, SMOLLM3, greedy, shapes, tensor

OUT = Path(__file__).resolve().parents[2] / "crates/model-loader/testdata/gguf"
Q4_0 = gguf.GGMLQuantizationType.Q4_0
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
LONG = {"type": "longrope", "short_factor": [1.0] * 3, "long_factor": [1.0, 2.5, 4.0]}

# Architecture of GGUF, config of the same model for mlx-lm.
CASES = {
    "cohere2": ("cohere2", COHERE2 | SMALL | {"hidden_size": 64, "sliding_window_pattern": 4, "num_hidden_layers": 5}),
    "gemma2": ("gemma2", GEMMA2 | SMALL | {"query_pre_attn_scalar": 16.0}),
    "gemma3": ("gemma3", GEMMA3_TEXT | SMALL | {"num_hidden_layers": 7, "sliding_window_pattern": 6, "query_pre_attn_scalar": 16.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    "glm4": ("glm4", GLM4 | SMALL),
    "granite": ("granite", GRANITE | SMALL | {"hidden_size": 64, "rope_theta": 500000.0, "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 8192}}),
    "olmo2": ("olmo2", OLMO2 | SMALL),
    "olmo3": ("olmo2", OLMO3 | SMALL),
    "phi3": ("phi3", PHI3 | SMALL | {"hidden_size": 64}),
    "phi3-longrope": ("phi3", PHI3 | SMALL | {"hidden_size": 32, "head_dim": 8, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 16, "rope_scaling": LONG, "tie_word_embeddings": True}),
    "qwen2moe": ("qwen2moe", QWEN2_MOE | SMALL | {"hidden_size": 64, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64, "qkv_bias": True}),
    "seed-oss": ("seed_oss", SEED_OSS | SMALL),
    "smollm3": ("smollm3", SMOLLM3 | SMALL | {"hidden_size": 64}),
}
PERMUTED = ("granite", "smollm3")
ABOVE_ONE = ("gemma2", "gemma3")


def permuted(weight, heads):
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def unpermuted(weight, heads):
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def add_keys(writer, arch, config):
    """What the converter's `set_gguf_parameters` writes."""
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    if arch not in ("gemma2",):
        writer.add_rope_freq_base(config["rope_theta"])
    if arch == "cohere2":
        writer.add_layer_norm_eps(config["layer_norm_eps"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    else:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if arch in ("gemma2", "gemma3", "seed_oss", "olmo2", "glm4"):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    else:
        part = config.get("partial_rotary_factor", 1.0)
        writer.add_rope_dimension_count(int(part * config["hidden_size"]) // config["num_attention_heads"])
    if arch == "glm4":
        writer.add_rope_dimension_count(int(config["partial_rotary_factor"] * config["head_dim"]))
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if arch == "gemma3":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config["rope_scaling"]["factor"])
    if arch == "granite":
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    if arch == "cohere2":
        writer.add_logit_scale(config["logit_scale"])
        writer.add_vocab_size(config["vocab_size"])
    if config.get("sliding_window") is not None:
        writer.add_sliding_window(config["sliding_window"])
    if config["model_type"] == "olmo3":
        writer.add_sliding_window_pattern([(layer + 1) % 4 != 0 for layer in range(config["num_hidden_layers"])])
    if arch == "qwen2moe":
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    if arch == "phi3":
        origin = config["original_max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(origin)
        if "rope_scaling" in config:
            scale = config["max_position_embeddings"] / origin
            writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(origin)))


def add_vocabulary(writer, size):
    """Bytes: the smallest vocabulary that can spell everything."""
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    special = ["<unk>", "<s>", "</s>"]
    tokens = special + [f"<0x{byte:02X}>" for byte in range(size - len(special))]
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * size)
    writer.add_token_types([gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.BYTE] * (size - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def llama3_factors(config):
    """As `generate_extra_tensors` of the converter."""
    scaling, dims, base = config["rope_scaling"], config["head_dim"], config["rope_theta"]
    factors = []
    for i in range(0, dims, 2):
        wavelength = 2 * math.pi * base ** (i / dims)
        low, high, origin = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["original_max_position_embeddings"]
        if wavelength < origin / high:
            factors.append(1.0)
        elif wavelength > origin / low:
            factors.append(scaling["factor"])
        else:
            smooth = (origin / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return factors


def stacked(weights):
    """Experts of a layer in one tensor."""
    merged = {}
    for name, weight in weights.items():
        if ".experts." in name:
            before, after = name.split(".experts.")
            merged.setdefault(f"{before}.experts.{after.split('.', 1)[1]}", []).append(weight)
        else:
            merged[name] = weight
    return {name: np.stack(weight) if isinstance(weight, list) else weight for name, weight in merged.items()}


def unstacked(weights):
    single = {}
    for name, weight in weights.items():
        if ".experts." in name:
            single |= {name.replace(".experts.", f".experts.{n}."): expert for n, expert in enumerate(weight)}
        else:
            single[name] = weight
    return single


def write_gguf(path, arch, config):
    """The file; and the weights by their published names, as the file has them."""
    writer = gguf.GGUFWriter(path, arch)
    add_keys(writer, arch, config)
    add_vocabulary(writer, config["vocab_size"])
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(kind, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    kept = {}
    for name, weight in stacked({name: np.array(tensor(name, shape)) for name, shape in shapes(config)}).items():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if "embed_tokens" in name and config["tie_word_embeddings"]:
            # Or a token would be followed by itself.
            weight = weight * np.float32(0.125)
        permute = heads.get(name.split(".")[-2]) if arch in PERMUTED else None
        if name.endswith("shared_expert_gate.weight"):
            weight = weight.squeeze()
        stored = permuted(weight, permute) if permute else weight
        if name.endswith("norm.weight") and arch in ABOVE_ONE:
            stored = stored + np.float32(1)
        if stored.ndim >= 2 and not name.endswith("mlp.gate.weight"):
            packed = quantize(stored, Q4_0)
            writer.add_tensor(target, packed, raw_dtype=Q4_0)
            stored = dequantize(packed, Q4_0)
        else:
            writer.add_tensor(target, stored)
        if name.endswith("norm.weight") and arch in ABOVE_ONE:
            stored = stored - np.float32(1)
        kept[name] = unpermuted(stored, permute) if permute else stored
        if name.endswith("shared_expert_gate.weight"):
            kept[name] = kept[name].reshape(1, -1)
    scaling = config.get("rope_scaling", {})
    if "long_factor" in scaling:
        for which in ("long", "short"):
            writer.add_tensor(f"rope_factors_{which}.weight", np.array(scaling[f"{which}_factor"], dtype=np.float32))
    if scaling.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", np.array(llama3_factors(config), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return unstacked(kept)


def write_case(name):
    arch, config = CASES[name]
    weights = write_gguf(OUT / f"{name}.gguf", arch, config)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        mx.save_safetensors(str(folder / "model.safetensors"), {name: mx.array(weight) for name, weight in weights.items()}, {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config))
        model, _ = load_model(folder)
    logits, output_ids, margins = greedy(model)
    golden = {"made_by": f"mlx-lm {version('mlx-lm')}, gguf {version('gguf')}", "prompt": PROMPT, "output_ids": output_ids, "margins": margins, "logits": logits}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
    (OUT / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{name}: smallest margins {sorted(margins)[:3]}, {len(set(output_ids))} distinct tokens")


def main():
    mx.set_default_device(mx.cpu)
    OUT.mkdir(exist_ok=True)
    for name in sys.argv[1:] or CASES:
        write_case(name)


if __name__ == "__main__":
    main()
