"""What grammars cost a server (on Linux): tokens a second of 32 requests at once, and processor time a token, without a
grammar and with each kind.

    python grammar_cost.py BINARY [--rows 32] [--tokens 96] [--rounds 3] [ARGUMENTS OF launch-server ...]

All completions have the same length (`min_new_tokens` suppresses the end where a grammar may end), so the rounds differ by
the grammar alone; they take turns, so a busy machine is busy for all. A round before the first compiles the grammars.
Python's standard library alone.
"""

import argparse
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def completions(server, args, grammar):
    """How many tokens, tokens a second, and the processor's milliseconds for one."""
    def complete(row):
        params = {"max_new_tokens": args.tokens, "min_new_tokens": args.tokens, "temperature": 1.0, **grammar}
        answer = ask_json(f"{server.url}/generate", {"text": f"Notes of day {row}, in a few words:", "sampling_params": params})
        return answer["meta_info"]["completion_tokens"]

    with ThreadPoolExecutor(args.rows) as pool:
        started, busy = time.monotonic(), processor_seconds(server.process.pid)
        num_tokens = sum(pool.map(complete, range(args.rows)))
        busy = processor_seconds(server.process.pid) - busy
        return num_tokens, num_tokens / (time.monotonic() - started), 1e3 * busy / num_tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    args, more = parser.parse_known_args()
    measured = {name: [] for name in KINDS}
    with LocalServer(args.binary, *more) as server:
        for round_ in range(args.rounds + 1):
            for name, grammar in KINDS.items():
                num_tokens, *figures = completions(server, args, grammar)
                measured[name] += [figures] * (round_ > 0)
                rate, busy = figures
                print(f"round {round_}: {name:16} {num_tokens:6} tokens, {rate:7.1f} a second, {busy:6.2f} ms", flush=True)
    print("medians")
    for name, rounds in measured.items():
        rate, busy = map(statistics.median, zip(*rounds))
        print(f"{name:16} {rate:7.1f} tokens a second, {busy:6.2f} ms of the processor a token")


if __name__ == "__main__":
    main()
