"""What grammars cost a server: tokens a second of 32 requests at once, without a grammar and with each kind.

    python grammar_cost.py BINARY [--rows 32] [--tokens 96] [--rounds 3] [ARGUMENTS OF launch-server ...]

All completions have the same length (`min_new_tokens` suppresses the end where a grammar may end), so the rounds differ by
the grammar alone; they take turns, so a busy machine is busy for all. A round before the first compiles the grammars.
Python's standard library alone.
"""

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from local_server import LocalServer, ask_json

CALLS = {"triggers": ["<call>"], "structures": [{"begin": "<call>", "schema": {"type": "object"}, "end": "</call>"}]}
TEXT = {"type": "array", "minItems": 200, "items": {"type": "string"}}
KINDS = {
    "no grammar": {},
    "structural tag": {"structural_tag": json.dumps(CALLS)},
    "regex": {"regex": r"[^\n]{1,2000}"},
    "ebnf": {"ebnf": "root ::= item (\"\\n\" item)*\nitem ::= \"'\" [^'\\n]* \"'\" | \"[\" item \"]\""},
    "json_schema": {"json_schema": json.dumps(TEXT)},
}


def tokens_a_second(url, args, grammar):
    def complete(row):
        params = {"max_new_tokens": args.tokens, "min_new_tokens": args.tokens, "temperature": 1.0, **grammar}
        answer = ask_json(f"{url}/generate", {"text": f"Notes of day {row}, in a few words:", "sampling_params": params})
        return answer["meta_info"]["completion_tokens"]

    with ThreadPoolExecutor(args.rows) as pool:
        started = time.monotonic()
        num_tokens = sum(pool.map(complete, range(args.rows)))
        return num_tokens, num_tokens / (time.monotonic() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    args, more = parser.parse_known_args()
    rates = {name: [] for name in KINDS}
    with LocalServer(args.binary, *more) as server:
        for round_ in range(args.rounds + 1):
            for name, grammar in KINDS.items():
                num_tokens, rate = tokens_a_second(server.url, args, grammar)
                rates[name] += [rate] * (round_ > 0)
                print(f"round {round_}: {name:16} {num_tokens:6} tokens {rate:8.1f} a second", flush=True)
    alone = statistics.median(rates["no grammar"])
    for name, each in rates.items():
        middle = statistics.median(each)
        print(f"{name:16} {middle:8.1f} tokens a second, {1e6 * (1 / middle - 1 / alone):7.1f} us more a token")


if __name__ == "__main__":
    main()
