"""Every family of models in a crowd: each request must get the tokens and log-probabilities that it gets alone.

    python families_in_company.py BINARY [--seed 1] [FAMILY ...]

Starts a server for each tiny config of crates/models/testdata (or those whose path holds a FAMILY), with random weights, a K/V pool
that is too small for the crowd (so requests are retracted), pieces of prompts and, for every other config, mixed chunks. Prompts begin
alike; some clients hang up. The engine's audit is on. For the CPU, where a row's result does not depend on its batch.
Python's standard library alone. Fails with exit status 1 and what differs.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local_server import LocalServer, ask, ask_json

TESTDATA = Path(__file__).resolve().parents[2] / "crates/models/testdata"
NUM_REQUESTS, NUM_CLIENTS = 28, 16
ARGUMENTS = ["--load-format", "dummy", "--skip-tokenizer-init", "--schedule-conservativeness", "0.01"]
POOLS = [
    ["--max-total-tokens", "600", "--page-size", "4", "--chunked-prefill-size", "16", "--swa-full-tokens-ratio", "0.3"],
    ["--max-total-tokens", "640", "--page-size", "16", "--chunked-prefill-size", "48", "--max-running-requests", "5",
     "--enable-mixed-chunk"],
]


def requests(dice, vocab_size, context_length):
    longest = context_length - 80
    stem = [dice.randrange(vocab_size) for _ in range(longest)]
    for seed in range(NUM_REQUESTS):
        ids = stem[: dice.randrange(1, dice.choice([40, longest]))] + [dice.randrange(vocab_size) for _ in range(dice.randrange(20))]
        num_new = dice.randrange(1, min(120, context_length - len(ids)))
        sampling = {"max_new_tokens": num_new, "temperature": dice.choice([0, 1]), "sampling_seed": seed}
        request = {"input_ids": ids, "sampling_params": {**sampling, "ignore_eos": True}}
        if dice.random() < 0.5:
            request.update(return_logprob=True, logprob_start_len=dice.choice([-1, 0, len(ids) // 2]))
        yield request


def content(answer):
    logprobs = [answer["meta_info"].get(f"{side}_token_logprobs") for side in ("input", "output")]
    return [answer["output_ids"], answer["meta_info"]["finish_reason"], *logprobs]


def hang_up(url, request):
    body = json.dumps({**request, "stream": True}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=0.15) as stream:
            stream.readline()
    except OSError:
        pass


def differences(url, dice, vocab_size, context_length):
    """What the crowd gets otherwise; the number of different tokens; requests retracted."""
    crowd = list(requests(dice, vocab_size, context_length))
    alone = []
    for request in crowd:
        ask(f"{url}/flush_cache", {})
        alone.append(content(ask_json(f"{url}/generate", request)))

    def one(job):
        index, leaves = job
        if leaves:
            return hang_up(f"{url}/generate", crowd[index])
        answer = ask_json(f"{url}/generate", crowd[index])
        retractions.append(answer["meta_info"]["num_retractions"])
        return None if content(answer) == alone[index] else (crowd[index], content(answer), alone[index])

    retractions = []
    jobs = [(index, dice.random() < 0.12) for index in 3 * list(range(NUM_REQUESTS))]
    dice.shuffle(jobs)
    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        found = [difference for difference in clients.map(one, jobs) if difference]
    return found, len({token for tokens, *_ in alone for token in tokens}), sum(retractions)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("families", nargs="*")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.environ.update(SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY="1", SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION="0")
    failed = 0
    for number, path in enumerate(sorted(TESTDATA.glob("*/*.json"))):
        config = json.loads(path.read_text()).get("config")
        if not config or options.families and not any(family in str(path) for family in options.families):
            continue
        text = config.get("text_config", config)
        context_length = min(400, text.get("max_position_embeddings", 400))
        if context_length < 200:
            continue
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(json.dumps(config))
            arguments = ["--model-path", folder, "--context-length", str(context_length), *ARGUMENTS, *POOLS[number % 2]]
            with LocalServer(options.binary, *arguments) as server:
                dice = random.Random(options.seed)
                found, num_tokens, num_retractions = differences(server.url, dice, min(text["vocab_size"], 256), context_length)
        failed += bool(found)
        print(f"{path.parent.name}/{path.stem}: {len(found)} differ; {num_tokens} tokens, {num_retractions} retractions", flush=True)
        for difference in found[:1]:
            print("  request, in company, alone:", *(json.dumps(part)[:300] for part in difference), sep="\n    ")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
