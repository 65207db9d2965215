"""Goldens of tiny decoders that give vectors: the hidden state after the last norm, or the scores of a head of labels,
by mlx-lm in f32 and numpy.

    python pooled_models.py

writes crates/models/tests/it/pooled/<case>.json: the config, a prompt, and the vector of its last token. Weights come
from names, as in tiny_models.py; `bare` cases are stored without `model.` before their names.
"""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model
from tiny_models import LLAMA, PROMPT, QWEN2, QWEN3, tensor, write_folder

OUT = Path(__file__).resolve().parents[2] / "crates/models/tests/it/pooled"
LABELS = {"id2label": {"0": "bad", "1": "fair", "2": "good"}}
Q4 = {"quantization": {"group_size": 64, "bits": 4}}

# What is changed, and whether names are bare.
CASES = {
    "qwen3-embedding": (QWEN3 | {"tie_word_embeddings": True}, True),
    "qwen3-embedding-q4": (QWEN3 | {"tie_word_embeddings": True} | Q4, False),
    "qwen2-embedding": (QWEN2, False),
    "mistral-embedding": (LLAMA | {"architectures": ["MistralModel"], "model_type": "mistral"}, True),
    "qwen3-labels": (QWEN3 | LABELS | {"architectures": ["Qwen3ForSequenceClassification"]}, False),
    "llama-labels": (LLAMA | LABELS | {"architectures": ["LlamaForSequenceClassification"]}, False),
    "qwen2-reward": (QWEN2 | {"architectures": ["Qwen2ForRewardModel"]}, False),
}


def numbers(name, shape):
    return np.array(tensor(name, shape))


def head(config, hidden):
    """`hidden` through the head that the architecture has."""
    size, architecture = config["hidden_size"], config["architectures"][0]
    if architecture.endswith("ForSequenceClassification"):
        return numbers("score.weight", (3, size)) @ hidden
    if architecture.endswith("ForRewardModel"):
        inner = numbers("score.0.weight", (size, size)) @ hidden + numbers("score.0.bias", (size,))
        return numbers("score.2.weight", (1, size)) @ np.maximum(inner, 0) + numbers("score.2.bias", (1,))
    return hidden


def main():
    mx.set_default_device(mx.cpu)
    OUT.mkdir(parents=True, exist_ok=True)
    for name, (config, bare) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            write_folder(config, Path(folder))
            model, _ = load_model(Path(folder))
        hidden = np.array(model.model(mx.array([PROMPT]))[0, -1])
        vector = [float(f"{x:.7g}") for x in head(config, hidden)]
        made_by = f"mlx-lm {version('mlx-lm')}"
        golden = {"config": config, "bare": bare, "made_by": made_by, "prompt": PROMPT, "vector": vector}
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
        (OUT / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
