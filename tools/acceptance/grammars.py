"""Constrained completions of a running server at temperature 2: none may break its grammar.

    python grammars.py URL [--count 5000] [--parallel 16] [--max-tokens 160]

Needs Python and `jsonschema` alone (no server library). Prints the violations, how many completions ran into their
length, and the tokens a second with and without a grammar.
"""

import argparse
import collections
import json
import random
import re
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import jsonschema

CLOSED = {"additionalProperties": False}
SCHEMAS = [
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer"}},
     "required": ["name", "age"], **CLOSED},
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 5},
    {"type": "object", "properties": {"ok": {"type": "boolean"}, "score": {"type": "number"},
     "tags": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 3}},
     "required": ["ok", "score", "tags"], **CLOSED},
    {"anyOf": [{"type": "integer", "minimum": 3, "maximum": 1000}, {"const": "none"}]},
    {"type": "object", "properties": {"date": {"type": "string", "format": "date"},
     "id": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2,4}$"}}, "required": ["date", "id"], **CLOSED},
]
REGEXES = [r"[0-9]{3}-[0-9]{4}", r"(yes|no|maybe)( [a-z]{1,8}){0,3}\.", r"#[0-9a-f]{6}"]
EBNFS = [
    ('root ::= "<" [a-z]{1,8} ">" [0-9]+ "!"', r"<[a-z]{1,8}>[0-9]+!"),
    ('root ::= pair (", " pair){0,2}\npair ::= [a-z]{1,5} "=" ("on" | "off")',
     r"[a-z]{1,5}=(on|off)(, [a-z]{1,5}=(on|off)){0,2}"),
]


def post(url, body):
    request = urllib.request.Request(f"{url}/generate", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def valid_json(schema, text):
    try:
        jsonschema.validate(json.loads(text), schema)
        return True
    except (ValueError, jsonschema.ValidationError):
        return False


def cases():
    for schema in SCHEMAS:
        yield {"json_schema": json.dumps(schema)}, lambda text, schema=schema: valid_json(schema, text)
    for regex in REGEXES:
        yield {"regex": regex}, lambda text, regex=regex: re.fullmatch(regex, text) is not None
    for ebnf, regex in EBNFS:
        yield {"ebnf": ebnf}, lambda text, regex=regex: re.fullmatch(regex, text) is not None


def one(args, index, case):
    params, is_valid = case
    seeded = {"temperature": 2.0, "max_new_tokens": args.max_tokens, "sampling_seed": index}
    answer = post(args.url, {"text": f"Item {index}:", "sampling_params": {**seeded, **params}})
    end, text = answer["meta_info"]["finish_reason"]["type"], answer["text"]
    tokens = answer["meta_info"]["completion_tokens"]
    if end == "length":
        return "length", tokens, None
    if end == "stop" and is_valid(text):
        return "valid", tokens, None
    return "violation", tokens, (params, end, text)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--parallel", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=160)
    args = parser.parse_args()
    every = list(cases())
    random.seed(1)
    picks = [random.choice(every) for _ in range(args.count)]
    started = time.time()
    with ThreadPoolExecutor(args.parallel) as pool:
        results = list(pool.map(lambda pick: one(args, *pick), enumerate(picks)))
    seconds = time.time() - started
    counts = collections.Counter(kind for kind, _, _ in results)
    tokens = sum(tokens for _, tokens, _ in results)
    for _, _, violation in results:
        if violation:
            print("violation:", *violation, sep="\n  ")
    print(f"{args.count} completions: {dict(counts)}; {tokens} tokens, {tokens / seconds:.1f} tokens/s")
    raise SystemExit(counts["violation"] > 0)


if __name__ == "__main__":
    main()
