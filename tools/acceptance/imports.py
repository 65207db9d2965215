"""Checkpoints that other tools quantized, in the real binary: its greedy tokens in f32 against mlx-lm's on the same
weights, dense.

    python tools/acceptance/imports.py target/release/sglang-mlx [flag ...]

Every case of tools/oracle/imports.py as a tiny Llama, and some as tiny models of other families. Flags go to `generate`. Needs mlx-lm and tokenizers; exits non-zero on a difference.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "oracle"))

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model
from tokenizers import Tokenizer, models

import imports
from tiny_models import FAMILIES

NUM_TOKENS = 24
VOCAB = 64
PROMPT = [(i * 37 + 11) % VOCAB for i in range(12)]
# A token whose lead is a smaller part of the largest logit may turn into the runner-up by rounding.
MARGIN = 1e-4
OTHERS = [
    "deepseek_v2", "deepseek_v3", "ernie4_5", "glm4_moe", "glm4_moe_lite", "mixtral", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "seed_oss", "smollm3",
]  # fmt: skip
# Those whose oracle takes any model.
OF_FAMILIES = ["ct-int4", "fp8-blocks", "fp8-tensor", "gptq", "modelopt-nvfp4"]
PACKED = ["ct-int4", "gptq"]
# Parts of a packed matrix are packed anew there, by mlx-lm too: dense weights give other tokens.
REPACKED = ["deepseek_v3", "glm4_moe_lite"]


def dense(tensors, bits):
    """The weights of MLX in f32; `bits` of those with biases."""
    found = {}
    for name, array in tensors.items():
        module, _, part = name.rpartition(".")
        if f"{module}.scales" not in tensors or part == "bias":
            found[name] = array.astype(mx.float32)
        elif part == "weight":
            scales, biases = tensors[f"{module}.scales"], tensors.get(f"{module}.biases")
            if biases is None:
                mode = "mxfp4" if array.shape[-1] == scales.shape[-1] * 4 else "mxfp8"
                found[name] = mx.dequantize(array, scales, mode=mode, dtype=mx.float32)
            else:
                group_size = array.shape[-1] * 32 // bits // scales.shape[-1]
                scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
                found[name] = mx.dequantize(array, scales, biases, group_size, bits)
    return found


def greedy(folder):
    """Tokens, and how many of them are sure."""
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    cache, tokens, step, sure = make_prompt_cache(model), [], PROMPT, None
    for _ in range(NUM_TOKENS):
        logits = model(mx.array([step]), cache=cache)[0, -1]
        second, first = mx.sort(logits)[-2:].tolist()
        if sure is None and first - second <= MARGIN * mx.abs(logits).max().item():
            sure = len(tokens)
        tokens.append(mx.argmax(logits).item())
        step = tokens[-1:]
    return tokens, NUM_TOKENS if sure is None else sure


def ours(binary, folder, flags):
    vocab = {f"t{token}": token for token in range(VOCAB)}
    Tokenizer(models.WordLevel(vocab, unk_token="t0")).save(str(folder / "tokenizer.json"))
    ids = ",".join(map(str, PROMPT))
    command = [binary, "generate", "--model-path", str(folder), "--input-ids", ids, "--ignore-eos", "--json"]
    command += ["--max-new-tokens", str(NUM_TOKENS), "--dtype", "float32", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)["output_ids"]


def is_same(binary, case, config, flags):
    quantization_config, plain, parts, exceptions, compute = imports.CASES[case]
    entries = imports.layout(config, plain, parts, exceptions)
    with tempfile.TemporaryDirectory() as place:
        theirs, own = Path(place) / "dense", Path(place) / "imported"
        theirs.mkdir()
        own.mkdir()
        imports.write(own, config | {"quantization_config": quantization_config}, entries)
        tensors = dense(dict(compute(own, entries)), 8 if "8bit" in case or "int8" in case else 4)
        mx.save_safetensors(str(theirs / "model.safetensors"), tensors)
        (theirs / "config.json").write_text(json.dumps(config))
        expected, sure = greedy(theirs)
        found = ours(binary, own, flags)
    same = expected[:sure] == found[:sure] and sure > 0
    name = f"{config['model_type']}, {case}"
    print(f"{name}: {sure} sure tokens, {len(set(expected[:sure]))} different: {'same' if same else 'DIFFERENT'}")
    return same


def main():
    binary, *flags = sys.argv[1:]
    mx.set_default_device(mx.cpu)
    # The random bits of its weights are not numbers everywhere.
    llamas = [(case, imports.CONFIG) for case in imports.CASES if case != "mxfp8"]
    configs = [FAMILIES[family][0] | {"vocab_size": VOCAB} for family in OTHERS]
    others = [
        (case, config)
        for config in configs
        for case in OF_FAMILIES
        if config["model_type"] not in REPACKED or case not in PACKED
    ]
    results = [is_same(binary, case, config, flags) for case, config in llamas + others]
    print(f"{sum(results)} of {len(results)} checkpoints give the same tokens")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
