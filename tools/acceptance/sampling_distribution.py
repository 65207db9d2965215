"""What a running server draws, against what the parameters say: 100 000 draws for each setting.

    python sampling_distribution.py model FOLDER          # writes a toy Llama
    sglang-mlx serve --model-path FOLDER --skip-tokenizer-init --random-seed 1 --port 30000
    python sampling_distribution.py check http://127.0.0.1:30000 FOLDER [DRAWS]

The reference is plain numpy over the logits of mlx-lm. Draws are compared by chi-square, at a
level that a right server fails once in 10 000 settings; penalties and log-probabilities are
compared as numbers. Ends with 1 if something differs.

Needs: mlx-lm 0.32.2, numpy.
"""

import json
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import mlx.core as mx
import numpy as np

VOCAB, HIDDEN, LAYERS, HEADS, INNER = 32, 64, 2, 2, 128
# A page and one token more: with the page in the cache, a draw costs a token.
PROMPT = [3, 17, 8, 25, 11, 30, 5, 19, 22, 4, 14, 27, 9, 16, 28, 12, 7]
BATCH = 4000
TOLERANCE = 1e-3


def write_model(folder):
    """A Llama whose distributions have a long tail: every filter cuts somewhere."""
    rng = np.random.default_rng(20)

    def matrix(rows, columns, scale):
        return mx.array((rng.standard_normal((rows, columns)) * scale).astype(np.float32))

    ones = mx.ones(HIDDEN)
    weights = {"model.embed_tokens.weight": matrix(VOCAB, HIDDEN, 1.0), "model.norm.weight": ones,
               "lm_head.weight": matrix(VOCAB, HIDDEN, 0.2)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        weights |= {f"{at}.self_attn.{name}_proj.weight": matrix(HIDDEN, HIDDEN, 0.15) for name in "qkvo"}
        weights |= {f"{at}.mlp.{name}_proj.weight": matrix(INNER, HIDDEN, 0.15) for name in ("gate", "up")}
        weights |= {f"{at}.mlp.down_proj.weight": matrix(HIDDEN, INNER, 0.15)}
        weights |= {f"{at}.{name}_layernorm.weight": ones for name in ("input", "post_attention")}
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": VOCAB,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))


class Reference:
    """Logits of mlx-lm, and the distributions that the parameters make of them, in f64."""

    def __init__(self, folder):
        from mlx_lm.utils import load_model

        self.model, _ = load_model(folder)

    def logits(self, ids):
        """After each of `ids`, `[len(ids), VOCAB]`."""
        return np.array(self.model(mx.array([ids]))[0].astype(mx.float32)).astype(np.float64)

    def distribution(self, params, completion=()):
        """Of the token after the prompt and `completion`."""
        logits = edited(self.logits(PROMPT + list(completion))[-1], params, completion)
        return filtered(softmax(logits / params.get("temperature", 1.0)), params)

    def pairs(self, params):
        """Of the first two tokens, `[VOCAB * VOCAB]`."""
        first = self.distribution(params)
        return np.concatenate([p * self.distribution(params, [token]) for token, p in enumerate(first)])


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def edited(logits, params, completion):
    """Penalties, bias, and tokens that may not come yet, in SGLang's order."""
    logits = logits.copy()
    counts = np.bincount(np.array(completion, dtype=np.int64), minlength=VOCAB)
    logits -= params.get("frequency_penalty", 0.0) * counts
    logits -= params.get("presence_penalty", 0.0) * (counts > 0)
    repetition = params.get("repetition_penalty", 1.0)
    seen = counts > 0
    logits[seen] = np.where(logits[seen] < 0, logits[seen] * repetition, logits[seen] / repetition)
    for token, bias in params.get("logit_bias", {}).items():
        logits[int(token)] += bias
    if len(completion) < params.get("min_new_tokens", 0):
        logits[[2, *params.get("stop_token_ids", [])]] = -np.inf
    return logits


def filtered(probs, params):
    """top_k, then top_p of what is left, then min_p of the most likely."""
    order = np.argsort(-probs, kind="stable")
    keep = np.zeros(VOCAB, dtype=bool)
    kept = order[: params["top_k"] if params.get("top_k", -1) > 0 else VOCAB]
    before = np.cumsum(probs[kept]) - probs[kept]
    keep[kept[before <= params.get("top_p", 1.0) * probs[kept].sum()]] = True
    keep &= probs >= params.get("min_p", 0.0) * probs.max()
    probs = np.where(keep, probs, 0.0)
    return probs / probs.sum()


def chi_square(counts, probs, draws):
    """The statistic and its critical value; infinite if something came that cannot."""
    if counts[probs == 0].any():
        return np.inf, 0.0
    expected = probs[probs > 0] * draws
    seen = counts[probs > 0]
    # Rare cells are one cell: the approximation needs a few of each.
    rare = expected < 5
    if rare.any():
        expected = np.append(expected[~rare], expected[rare].sum())
        seen = np.append(seen[~rare], seen[rare].sum())
    k = max(len(expected) - 1, 1)
    critical = k * (1 - 2 / (9 * k) + 3.719 * np.sqrt(2 / (9 * k))) ** 3
    return float(((seen - expected) ** 2 / expected).sum()), float(critical)


class Server:
    """`/generate` of a server without a tokenizer."""

    def __init__(self, base_url):
        self.base_url = base_url

    def generate(self, **body):
        request = urllib.request.Request(f"{self.base_url}/generate", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)

    def draws(self, params, num_tokens, draws):
        """How often each completion of `num_tokens` tokens came, `[VOCAB ** num_tokens]`."""
        counts = Counter()
        for start in range(0, draws, BATCH):
            n = min(BATCH, draws - start)
            sampling = {"max_new_tokens": num_tokens, "ignore_eos": True, **params, "n": n}
            if "sampling_seed" in sampling:
                sampling["sampling_seed"] += start
            answers = self.generate(input_ids=PROMPT, sampling_params=sampling)
            counts.update(tuple(answer["output_ids"]) for answer in (answers if n > 1 else [answers]))
        flat = np.zeros(VOCAB ** num_tokens, dtype=np.int64)
        for ids, count in counts.items():
            flat[int(np.ravel_multi_index(ids, (VOCAB,) * num_tokens))] = count
        return flat


FIRST = {
    "temperature 0.5": {"temperature": 0.5},
    "temperature 1": {},
    "temperature 1.7": {"temperature": 1.7},
    "top_k 2": {"top_k": 2},
    "top_k 7": {"top_k": 7},
    "top_p 0.6": {"top_p": 0.6},
    "top_p 0.9": {"top_p": 0.9},
    "min_p 0.05": {"min_p": 0.05},
    "min_p 0.15": {"min_p": 0.15},
    "top_k and top_p": {"top_k": 6, "top_p": 0.8},
    "top_p and min_p": {"top_p": 0.95, "min_p": 0.1},
    "all filters": {"temperature": 0.8, "top_k": 12, "top_p": 0.9, "min_p": 0.05},
    "logit_bias": {"logit_bias": {"4": 2.0, "9": -1.5, "20": 0.7}},
    "min_new_tokens": {"min_new_tokens": 1, "stop_token_ids": [4, 6], "ignore_eos": False},
    "sampling_seed": {"sampling_seed": 1234},
}
PAIRS = {
    "two tokens": {},
    "frequency_penalty": {"frequency_penalty": 1.5},
    "presence_penalty": {"presence_penalty": -1.0},
    "repetition_penalty": {"repetition_penalty": 1.8},
    "all penalties": {"frequency_penalty": 0.6, "presence_penalty": 0.5, "repetition_penalty": 1.3},
    "all at once": {"temperature": 0.9, "top_k": 20, "top_p": 0.95, "min_p": 0.01, "frequency_penalty": 0.5, "presence_penalty": 0.3,
                    "repetition_penalty": 1.2, "logit_bias": {"4": 1.0}},
}
GREEDY = {
    "log-probabilities": {},
    "and frequency_penalty": {"frequency_penalty": 0.7},
    "and presence_penalty": {"presence_penalty": 1.1},
    "and repetition_penalty": {"repetition_penalty": 1.5},
    "and all of them, and logit_bias": {"frequency_penalty": 0.4, "presence_penalty": 0.3, "repetition_penalty": 1.3, "logit_bias": {"4": 1.5, "9": -2.0}},
}


def check_logprobs(server, reference, params):
    """The largest difference over all tokens of prompt and completion."""
    sampling = {"max_new_tokens": 24, "temperature": 0, "ignore_eos": True, **params}
    answer = server.generate(input_ids=PROMPT, sampling_params=sampling, return_logprob=True, logprob_start_len=0, top_logprobs_num=VOCAB)
    ids, meta = answer["output_ids"], answer["meta_info"]
    logits = reference.logits(PROMPT + ids)
    worst = max(abs(given[0] - log_softmax(logits[at])[PROMPT[at + 1]]) for at, given in enumerate(meta["input_token_logprobs"][1:]))
    for at, (token, chosen, top) in enumerate(zip(ids, meta["output_token_logprobs"], meta["output_top_logprobs"], strict=True)):
        wanted = log_softmax(edited(logits[len(PROMPT) - 1 + at], params, ids[:at]))
        worst = max(worst, abs(chosen[0] - wanted[token]), *(abs(given[0] - wanted[given[1]]) for given in top))
        assert len(top) == VOCAB and token == int(np.argmax(wanted))
    return worst


def check_seeds(server):
    """One seed gives the same tokens alone, again, and amid others."""
    sampling = {"max_new_tokens": 32, "temperature": 1.0, "ignore_eos": True}
    seeded = sampling | {"sampling_seed": 77}
    alone = [server.generate(input_ids=PROMPT, sampling_params=seeded)["output_ids"] for _ in range(2)]
    others = [sampling | {"sampling_seed": seed, "top_k": 5} for seed in range(7)]
    amid = server.generate(input_ids=[PROMPT] * 8, sampling_params=[*others[:3], seeded, *others[3:]])
    return alone[0] == alone[1] == amid[3]["output_ids"] != amid[2]["output_ids"]


def main(base_url, folder, draws):
    server, reference = Server(base_url), Reference(folder)
    failed = 0

    def report(name, holds, figures):
        nonlocal failed
        failed += not holds
        print(f"{'ok  ' if holds else 'FAIL'} {name:32} {figures}", flush=True)

    for name, params in GREEDY.items():
        worst = check_logprobs(server, reference, params)
        report(name, worst < TOLERANCE, f"largest difference {worst:.1e}")
    report("sampling_seed in a batch", check_seeds(server), "")
    for settings, num_tokens, expected in ((FIRST, 1, reference.distribution), (PAIRS, 2, reference.pairs)):
        for name, params in settings.items():
            start = time.monotonic()
            counts = server.draws(params, num_tokens, draws)
            statistic, critical = chi_square(counts, expected(params), draws)
            report(name, statistic < critical,
                   f"{counts.sum()} draws, chi-square {statistic:.1f} of {critical:.1f}, {time.monotonic() - start:.0f} s")
    sys.exit(failed > 0)


if __name__ == "__main__":
    if sys.argv[1] == "model":
        write_model(Path(sys.argv[2]))
    else:
        main(sys.argv[2].rstrip("/"), Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 100_000)
