"""Goldens of tiny BERT and XLM-RoBERTa by numpy in f64, written after the papers: the outputs of three tokens. Those
of pairs of texts, of their first token, are by transformers in f64.

    python bert_models.py        (with numpy, torch, transformers)

writes crates/models/tests/it/encoders/<case>.json: the config, a prompt, where its second text begins, and the
outputs, `[3, width]`. Weights come from names, as in tiny_models.py; gains of norms are around one.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
import transformers
from tiny_models import PROMPT, tensor

OUT = Path(__file__).resolve().parents[2] / "crates/models/tests/it/encoders"

BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 256,
    "max_position_embeddings": 48,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
ROBERTA = BERT | {"model_type": "xlm-roberta", "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}

CASES = {
    "bert": BERT,
    "xlm-roberta": ROBERTA | {"architectures": ["XLMRobertaModel"]},
    "xlm-roberta-labels": ROBERTA | {"architectures": ["XLMRobertaForSequenceClassification"]},
}
SIGMOID = {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}
PAIRS = {
    "bert-pair": BERT | {"architectures": ["BertForSequenceClassification"]},
    "bert-pair-sigmoid": BERT | {"architectures": ["BertForSequenceClassification"]} | SIGMOID,
    "xlm-roberta-pair": ROBERTA | {"architectures": ["XLMRobertaForSequenceClassification"]},
}
# Of a pair, the second text's first token.
SECOND = 5


def weight(name, *shape):
    value = np.array(tensor(name, shape), dtype=np.float64)
    return value + 1 if name.endswith("LayerNorm.weight") else value


def linear(x, name, width):
    return x @ weight(f"{name}.weight", width, x.shape[-1]).T + weight(f"{name}.bias", width)


def norm(x, name, eps):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return scaled * weight(f"{name}.weight", x.shape[-1]) + weight(f"{name}.bias", x.shape[-1])


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attention(x, name, heads):
    q, k, v = (linear(x, f"{name}.{part}", x.shape[-1]) for part in ("query", "key", "value"))
    size = x.shape[-1] // heads
    out = []
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        scores = q[:, at] @ k[:, at].T / math.sqrt(size)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        out.append(scores / scores.sum(-1, keepdims=True) @ v[:, at])
    return np.concatenate(out, -1)


def outputs(config):
    architecture, hidden = config["architectures"][0], config["hidden_size"]
    has_head = architecture.endswith("Classification")
    prefix = "roberta." if has_head else ""
    first = config["pad_token_id"] + 1 if "Roberta" in architecture else 0
    at, eps = f"{prefix}embeddings", config["layer_norm_eps"]
    words = weight(f"{at}.word_embeddings.weight", config["vocab_size"], hidden)[PROMPT]
    positions = weight(f"{at}.position_embeddings.weight", config["max_position_embeddings"], hidden)
    types = weight(f"{at}.token_type_embeddings.weight", config["type_vocab_size"], hidden)
    x = norm(words + positions[first : first + len(PROMPT)] + types[0], f"{at}.LayerNorm", eps)
    for layer in range(config["num_hidden_layers"]):
        at = f"{prefix}encoder.layer.{layer}"
        attended = attention(x, f"{at}.attention.self", config["num_attention_heads"])
        x = norm(x + linear(attended, f"{at}.attention.output.dense", hidden), f"{at}.attention.output.LayerNorm", eps)
        inner = gelu(linear(x, f"{at}.intermediate.dense", config["intermediate_size"]))
        x = norm(x + linear(inner, f"{at}.output.dense", hidden), f"{at}.output.LayerNorm", eps)
    if has_head:
        x = linear(np.tanh(linear(x, "classifier.dense", hidden)), "classifier.out_proj", 1)
    return x


def score_of_pair(config):
    """The only label's, after the activation that the config names: what a cross-encoder gives."""
    model = getattr(transformers, config["architectures"][0])
    model = model(transformers.AutoConfig.for_model(**config, num_labels=1, attn_implementation="eager"))
    state = {name: torch.from_numpy(np.array(weight(name, *value.shape)))
             for name, value in model.state_dict().items() if value.is_floating_point()}
    model = model.double().eval()
    model.load_state_dict(state, strict=False)
    ids = torch.tensor([PROMPT])
    types = (torch.arange(len(PROMPT)) >= SECOND).long()[None] * (config["type_vocab_size"] > 1)
    with torch.no_grad():
        score = model(input_ids=ids, token_type_ids=types).logits
    return [[(score.sigmoid() if config.keys() & SIGMOID.keys() else score).item()]]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name, config in (CASES | PAIRS).items():
        if name in PAIRS:
            outcome, at = score_of_pair(config), {"second_text": SECOND, "rows": [0]}
        else:
            outcome, at = outputs(config)[[0, 5, -1]], {"rows": [0, 5, len(PROMPT) - 1]}
        rows = [[float(f"{value:.7g}") for value in row] for row in outcome]
        golden = {"config": config, "prompt": PROMPT} | at | {"outputs": rows}
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
        (OUT / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
