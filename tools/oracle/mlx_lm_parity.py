"""Greedy tokens, their margins and one set of logits by mlx-lm in f32: the goldens of the parity test.

    python mlx_lm_parity.py MODEL_DIR OUT_DIR/<name>

writes <name>.json (prompts, 48 greedy tokens each, and the lead of each token over the runner-up in nats) and
<name>.logits.f32 (little-endian logits after the last token of the prompt `LOGITS_OF`). Run with mlx-lm 0.32.2 on
mlx 0.32.4; the weights are cast to f32, so quantized layers multiply in f32 too.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model
from parity_prompts import PROMPTS
from tokenizers import Tokenizer

NUM_TOKENS = 48
LOGITS_OF = "python"


def greedy(model, input_ids):
    output_ids, margins = [], []
    for token, logprobs in generate_step(mx.array(input_ids), model, max_tokens=NUM_TOKENS):
        runner_up, best = np.sort(np.partition(np.array(logprobs), -2)[-2:])
        output_ids.append(int(token))
        margins.append(round(float(best - runner_up), 6))
    return output_ids, margins


def main(model_dir, target):
    mx.set_default_device(mx.cpu)
    model, _ = load_model(Path(model_dir))
    model.set_dtype(mx.float32)
    tokenizer = Tokenizer.from_file(f"{model_dir}/tokenizer.json")
    cases = []
    for name, text, keep in PROMPTS:
        start = time.perf_counter()
        input_ids = tokenizer.encode(text, add_special_tokens=False).ids
        whole = keep is None or keep == len(input_ids)
        input_ids = input_ids[:keep]
        output_ids, margins = greedy(model, input_ids)
        text = {"text": text} if whole else {}
        cases.append({"name": name, **text, "input_ids": input_ids, "output_ids": output_ids, "margins": margins})
        print(f"{name}: {len(input_ids)} tokens in, least margin {min(margins)}, {time.perf_counter() - start:.1f} s", flush=True)
        if name == LOGITS_OF:
            logits = model(mx.array([input_ids]), cache=make_prompt_cache(model))[0, -1]
            np.array(logits.astype(mx.float32)).astype("<f4").tofile(f"{target}.logits.f32")
    made_by = f"mlx-lm {version('mlx-lm')}, mlx {version('mlx-cpu')}, float32, CPU"
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    Path(f"{target}.json").write_text(
        f'{{"made_by":{json.dumps(made_by)},"logits_of":{json.dumps(LOGITS_OF)},"prompts":[\n{lines}\n]}}\n'
    )


if __name__ == "__main__":
    main(*sys.argv[1:3])
