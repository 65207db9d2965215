"""Log-probabilities and penalties of our server against transformers' logits, in f32 on the CPU.

    python transformers_parity.py BINARY FOLDER [ARGUMENTS OF launch-server ...]      # needs torch and transformers

FOLDER holds f32 weights in Hugging Face's format (`plain` of smollm2_folder.py). Each prompt is completed by the server
under each setting; transformers then computes logits for prompt and completion in one go, and what the server has told of
every position is compared with log-softmaxes over them: the prompt's tokens, the completion's, the most likely ones, named
ones. Penalties count the completion's tokens, as SGLang's do: repetition by transformers' own LogitsProcessor, frequency
and presence by OpenAI's formula; then comes the temperature. Prints the largest difference of each setting and kind; fails
above 1e-3, or if a greedy token is not the most likely one by more than that. On a busy machine OMP_NUM_THREADS=1 helps torch.
"""

import sys
from collections import defaultdict
from pathlib import Path

import torch
from parity_prompts import PROMPTS
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "acceptance"))
from local_server import LocalServer, ask_json  # noqa: E402

LIMIT = 1e-3
NUM_TOKENS, NUM_TOP = 12, 5
SMALL = ["--max-total-tokens", "8192", "--chunked-prefill-size", "256"]
NAMED = [0, 2, 30, 198, 504, 49151]
MORE_PROMPTS = [
    "The capital of France is", "Q: Who wrote Hamlet?\nA:", "1, 2, 3, 4, 5,", "fn main() {\n    println!(", "Dear Sir or Madam,",
    "no no no no no no no", "The quick brown fox", "Les enfants jouent dans", "Der Zug nach Berlin", "import numpy as np\n",
    "SELECT name FROM", "Once upon a time, a very long time ago,", "E = mc", "\n\n\n", "{\"a\": 1, \"b\":",
    "To be, or not to be, that is", "x = [x for x in", "Roses are red, violets are", "¿Dónde está la", "Breaking news:",
]
SETTINGS = {
    "greedy": {"temperature": 0},
    "repetition_penalty 1.3": {"temperature": 0, "repetition_penalty": 1.3},
    "repetition_penalty 0.8": {"temperature": 0, "repetition_penalty": 0.8},
    "frequency_penalty 0.7": {"temperature": 0, "frequency_penalty": 0.7},
    "presence_penalty 0.9": {"temperature": 0, "presence_penalty": 0.9},
    "negative penalties": {"temperature": 0, "frequency_penalty": -0.4, "presence_penalty": -0.3},
    "temperature 0.6": {"temperature": 0.6},
    "temperature 1.8": {"temperature": 1.8},
    "all at once": {"temperature": 1.3, "repetition_penalty": 1.2, "frequency_penalty": 0.5, "presence_penalty": 0.6},
}


class Reference:
    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def prompts(self):
        texts = [(text, keep) for _, text, keep in PROMPTS] + [(text, None) for text in MORE_PROMPTS]
        return [self.tokenizer(text, add_special_tokens=False)["input_ids"][:keep] for text, keep in texts]

    def logits(self, ids):
        with torch.inference_mode():
            return self.model(torch.tensor([ids])).logits[0]


def sampled_from(logits, completed, params):
    """Log-probabilities of the token after `completed`, as the sampler sees them."""
    logits = logits.clone()
    counts = torch.bincount(torch.tensor(completed, dtype=torch.long), minlength=len(logits)).float()
    # Additive penalties come first, as in SGLang's orchestrator of penalties.
    logits -= params.get("frequency_penalty", 0) * counts
    logits -= params.get("presence_penalty", 0) * (counts > 0)
    if (repetition := params.get("repetition_penalty", 1)) != 1 and completed:
        logits = RepetitionPenaltyLogitsProcessor(repetition)(torch.tensor([completed]), logits[None])[0]
    return torch.log_softmax(logits / (params["temperature"] or 1), dim=-1)


def differences(meta, prompt, output, logits, params):
    """Kind and difference of everything that was told, as pairs."""

    def position(kind, expected, told, top, named, is_greedy=False):
        logprob, token, _ = told
        yield f"{kind} token", abs(logprob - expected[token].item())
        best = torch.topk(expected, NUM_TOP).values.tolist()
        yield f"{kind} top", max(abs(entry[0] - value) for entry, value in zip(top, best, strict=True))
        yield f"{kind} top", max(abs(entry[0] - expected[entry[1]].item()) for entry in top)
        assert [entry[1] for entry in named] == NAMED
        yield f"{kind} named", max(abs(entry[0] - expected[entry[1]].item()) for entry in named)
        if is_greedy:
            yield "greedy lead", best[0] - expected[token].item()

    fields = ("token_logprobs", "top_logprobs", "token_ids_logprobs")
    told = [meta[f"input_{field}"] for field in fields]
    assert all(len(of) == len(prompt) for of in told) and told[0][0][0] is None and told[1][0] is None
    for index in range(1, len(prompt)):
        expected = torch.log_softmax(logits[index - 1], dim=-1)
        yield from position("prompt", expected, *(of[index] for of in told))
    told = [meta[f"output_{field}"] for field in fields]
    assert all(len(of) == len(output) for of in told)
    for index in range(len(output)):
        expected = sampled_from(logits[len(prompt) - 1 + index], output[:index], params)
        yield from position("completion", expected, *(of[index] for of in told), is_greedy=params["temperature"] == 0)


def main():
    binary, folder, *more = sys.argv[1:]
    reference, worst = Reference(folder), defaultdict(float)
    all_prompts = reference.prompts()
    with LocalServer(binary, "--model-path", folder, "--dtype", "float32", *SMALL, *more) as server:
        for name, params in SETTINGS.items():
            largest, count = defaultdict(float), 0
            # A long prompt says nothing new of penalties.
            prompts = [prompt for prompt in all_prompts if name == "greedy" or len(prompt) < 100]
            # All prompts at once: what one is told must not depend on the others.
            sampling = [{**params, "max_new_tokens": NUM_TOKENS, "ignore_eos": True, "sampling_seed": i} for i in range(len(prompts))]
            answers = ask_json(f"{server.url}/generate", {
                "input_ids": prompts, "sampling_params": sampling, "return_logprob": True, "logprob_start_len": 0,
                "top_logprobs_num": NUM_TOP, "token_ids_logprob": [NAMED] * len(prompts)})
            for prompt, answer in zip(prompts, answers, strict=True):
                output = answer["output_ids"]
                assert len(output) == NUM_TOKENS
                logits = reference.logits(prompt + output[:-1])
                for kind, difference in differences(answer["meta_info"], prompt, output, logits, params):
                    largest[kind], count = max(largest[kind], difference), count + 1
            print(f"{name}: {count} comparisons:", ", ".join(f"{kind} {value:.1e}" for kind, value in largest.items()), flush=True)
            for kind, value in largest.items():
                worst[kind] = max(worst[kind], value)
    print(f"{len(all_prompts)} prompts, {len(SETTINGS)} settings: largest difference {max(worst.values()):.1e} (limit {LIMIT:.0e})")
    sys.exit(max(worst.values()) > LIMIT)


if __name__ == "__main__":
    main()
