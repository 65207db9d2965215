"""Masks and verdicts of the crate `constrained` on the public JSON-Schema test suite, against two Python libraries.

    python mask_differential.py TOKENIZER_FOLDER SUITE_FOLDER [--backend llguidance] [--walks 1] [--verbose]

SUITE_FOLDER is `json` of the source package of PyPI's `jsonschema` (`pip download --no-binary :all: jsonschema`, the folder
holds `tests/draft*`): over 1000 different schemas, with instances that are valid and instances that are not. The tokenizer's
folder has a `tokenizer.json`.

1. Every instance is written as JSON and followed token by token: our masks are those of the PyPI package `llguidance` to
   the last bit (only for the backend of that name), which reads the vocabulary by itself.
2. Valid instances are taken as whole completions, and those that are not valid are not.
3. Random completions, drawn from our masks, are valid by PyPI's `jsonschema`.

Prints what differs by the suite's files, which are named after keywords, and what is refused, by reason; `--verbose` each
case. docs/notes/grammars.md has the figures and says why. The exit status is 1 if a mask differs. Builds the example `masks`.
"""

import argparse
import collections
import json
import random
import subprocess
import sys
from pathlib import Path

import jsonschema
import llguidance

ROOT = Path(__file__).resolve().parents[2]
DRAFTS = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
# The limits of our backend.
LIMITS = {"max_lexer_states": 30_000, "max_grammar_size": 100_000}
WALK_TOKENS = 48


class Masks:
    """The example `masks`: answers in the order of the questions."""

    def __init__(self, args, tokenizer):
        build = ["cargo", "build", "-q", "-p", "constrained", "--example", "masks", "--profile", args.profile]
        if not args.binary:
            subprocess.run(build, cwd=ROOT, check=True)
        folder = "debug" if args.profile == "dev" else args.profile
        binary = args.binary or ROOT / "target" / folder / "examples" / "masks"
        self.mask_bytes = (tokenizer.vocab_size + 31) // 32 * 4
        command = [binary, args.tokenizer, args.backend, str(tokenizer.vocab_size), str(tokenizer.eos_token)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def follow(self, text, tokens):
        case = {"kind": "json_schema", "text": text, "tokens": tokens}
        self.process.stdin.write(json.dumps(case).encode() + b"\n")
        self.process.stdin.flush()
        head = json.loads(self.process.stdout.readline())
        return head, [self.process.stdout.read(self.mask_bytes) for _ in range(head["masks"])]


def schemas(folder):
    """(file, draft, schema, its tests), each schema once; the draft is said in the schema."""
    seen = set()
    for draft, uri in DRAFTS.items():
        for path in sorted((folder / "tests" / draft).rglob("*.json")):
            for group in json.loads(path.read_text()):
                schema = group["schema"]
                if json.dumps(schema) in seen:
                    continue
                seen.add(json.dumps(schema))
                if isinstance(schema, dict):
                    schema = {"$schema": uri, **schema}
                yield path.stem, draft, schema, group["tests"]


def in_order(schema, data):
    """The instance with its keys in the order of the schema's `properties`, as grammars want them."""
    if isinstance(data, list):
        items = schema.get("items") if isinstance(schema, dict) else None
        return [in_order(items, item) for item in data]
    if not isinstance(data, dict):
        return data
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    properties = properties if isinstance(properties, dict) else {}
    keys = [key for key in properties if key in data] + [key for key in data if key not in properties]
    return {key: in_order(properties.get(key), data[key]) for key in keys}


def masks_differ(tokenizer, text, tokens, head, masks):
    """How our masks differ from the library's, which is told not to force tokens where the text is certain."""
    grammar = llguidance.LLMatcher.grammar_from_lark(f'%llguidance {{"no_forcing": true}}\nstart: %json {text}')
    limits = llguidance.LLParserLimits(**LIMITS)
    theirs = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    if head["error"] and not masks:
        return None if theirs.is_error() else f"refused: {head['error']}"
    if theirs.is_error():
        return f"the library refuses it: {theirs.get_error()}"
    for at, mask in enumerate(masks):
        if theirs.compute_bitmask().rstrip(b"\0") != mask.rstrip(b"\0"):
            return f"the mask after {at} tokens"
        if at < len(masks) - 1 and not theirs.consume_token(tokens[at]):
            return f"token {at} is refused"
    return None


def walk(ours, tokenizer, text, chance):
    """A completion drawn from our masks, short tokens preferred; `None` if it does not end soon."""
    tokens = []
    while len(tokens) < WALK_TOKENS:
        head, masks = ours.follow(text, tokens)
        if len(masks) <= len(tokens) or (head["may_end"] and (chance.random() < 0.5 or len(tokens) > 20)):
            break
        mask = int.from_bytes(masks[-1], "little")
        ids = [token for token in range(tokenizer.vocab_size) if mask >> token & 1 and token != tokenizer.eos_token]
        if not ids:
            break
        # Tokens that close something are rare among thousands.
        closing = [token for token in ids if set(tokenizer.decode_bytes([token])) <= set(b'"]}:, 0123456789')]
        tokens.append(chance.choice(closing if closing and chance.random() < 0.7 else ids))
    head, _ = ours.follow(text, tokens)
    return tokenizer.decode_bytes(tokens) if head["may_end"] else None


def is_valid(schema, draft, data):
    validator = jsonschema.validators.validator_for({"$schema": DRAFTS[draft]})
    return validator(schema, format_checker=validator.FORMAT_CHECKER).is_valid(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("suite", type=Path)
    parser.add_argument("--backend", default="llguidance")
    parser.add_argument("--walks", type=int, default=0, help="random completions of each schema (slow)")
    parser.add_argument("--profile", default="dev")
    parser.add_argument("--binary", help="the example, if it is built already")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    tokenizer = llguidance.LLTokenizer((Path(args.tokenizer) / "tokenizer.json").read_text())
    ours = Masks(args, tokenizer)
    chance = random.Random(7)
    counts, by_file, reasons = collections.Counter(), collections.defaultdict(collections.Counter), collections.Counter()

    def note(what, file, *details):
        counts[what] += 1
        by_file[what][file] += 1
        if args.verbose or what == "masks that differ":
            print(f"{what}: {file}:", *details, file=sys.stderr)

    for file, draft, schema, tests in schemas(args.suite):
        text = json.dumps(schema)
        counts["schemas"] += 1
        head, _ = ours.follow(text, [])
        if head["error"]:
            note("refused schemas", file, text, head["error"])
            reasons[head["error"].split(": ", 1)[-1][:90]] += 1
        for test in tests:
            written = json.dumps(in_order(schema, test["data"]), ensure_ascii=False)
            try:
                tokens = tokenizer.tokenize_str(written)
            except (UnicodeError, ValueError):
                counts["instances that are no text"] += 1
                continue
            counts["instances"] += 1
            head, masks = ours.follow(text, tokens)
            counts["masks"] += len(masks)
            if args.backend == "llguidance" and isinstance(schema, dict):
                differ = masks_differ(tokenizer, text, tokens, head, masks)
                if differ:
                    note("masks that differ", file, text, written, differ)
            if head["error"]:
                continue
            taken = head["accepted"] == len(tokens) and head["may_end"]
            counts[f"{'valid' if test['valid'] else 'invalid'} instances {'taken' if taken else 'not taken'}"] += 1
            if taken != test["valid"]:
                what = "valid, but not taken" if test["valid"] else "taken, but not valid"
                note(what, file, text, written, f"up to {tokenizer.decode_str(tokens[: head['accepted']])!r}")
        for _ in range(args.walks):
            written = walk(ours, tokenizer, text, chance)
            if written is None:
                continue
            counts["random completions"] += 1
            try:
                fits = is_valid(schema, draft, json.loads(written))
            except Exception as error:  # A reference that only a server of the suite would resolve.
                note("random completions without a verdict", file, text, written, error)
                continue
            if not fits:
                note("random completions that are not valid", file, text, written)
    for what, count in sorted(counts.items()):
        print(f"{count:8} {what}")
    for what, files in by_file.items():
        print(f"\n{what}, by file:", ", ".join(f"{file} {count}" for file, count in files.most_common()))
    print("\nreasons of refusals:", *(f"\n{count:6} {reason}" for reason, count in reasons.most_common(40)))
    sys.exit(counts["masks that differ"] > 0)


if __name__ == "__main__":
    main()
