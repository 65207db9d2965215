"""Embeddings of a running server against mlx-lm's hidden states, through OpenAI's Python client.

    python embeddings.py FOLDER                              # writes a tiny Qwen3 there
    sglang-mlx launch-server --model-path FOLDER --is-embedding --skip-tokenizer-init --dtype float32 \
        --json-model-override-args '{"is_matryoshka": true}' --port PORT
    python embeddings.py FOLDER http://127.0.0.1:PORT        # needs mlx-lm and openai

Prompts of 1 to 300 tokens, some with a common prefix: one at a time, all at once, again (from the cache), and cut to 16
numbers.
"""

import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model
from openai import BadRequestError, OpenAI

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "oracle"))
from tiny_models import QWEN3, write_folder  # noqa: E402

LIMIT = 2e-4


def prompts():
    draw = np.random.default_rng(5)
    common = draw.integers(0, 256, 200).tolist()
    own = [draw.integers(0, 256, length).tolist() for length in (1, 2, 17, 64, 100, 300)]
    return own + [common + tail for tail in own[:5]]


def expected(folder, ids, size=None):
    model, _ = load_model(folder)
    vectors = [np.array(model.model(mx.array([prompt]))[0, -1])[:size] for prompt in ids]
    return np.array([vector / np.linalg.norm(vector) for vector in vectors])


def main(folder, url=None):
    mx.set_default_device(mx.cpu)
    folder = Path(folder)
    if url is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_folder(QWEN3 | {"tie_word_embeddings": True, "torch_dtype": "float32"}, folder)
        return
    client, ids = OpenAI(base_url=f"{url}/v1", api_key="none"), prompts()
    ask = lambda inputs, **options: client.embeddings.create(model="tiny", input=inputs, **options)
    vectors = lambda answer: np.array([item.embedding for item in answer.data])
    whole, cut = expected(folder, ids), expected(folder, ids, 16)
    alone = np.concatenate([vectors(ask(prompt)) for prompt in ids])
    print("one at a time: off by", abs(alone - whole).max())
    answer = ask(ids)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, ids)), answer.usage
    together, floats = vectors(answer), vectors(ask(ids, encoding_format="float"))
    print("at once: off by", abs(together - whole).max(), "as floats", abs(floats - whole).max())
    short = vectors(ask(ids, dimensions=16))
    print("cut to 16: off by", abs(short - cut).max())
    for found, right in ((alone, whole), (together, whole), (floats, whole), (short, cut)):
        assert found.shape == right.shape and abs(found - right).max() < LIMIT
    try:
        ask([999])
    except BadRequestError as error:
        print("refused:", error.message)
    else:
        raise AssertionError("a token outside of the vocabulary was accepted")


if __name__ == "__main__":
    main(*sys.argv[1:])
