"""Our tokenizer against the Python library `tokenizers`, on strings of many kinds.

    python tokenizer_diff.py [--strings 10000] [--model FOLDER ...]

trains a small tokenizer of each kind on texts of this Python's own documentation and code, adds those of the model
folders, and compares tokens, and texts of the tokens with and without special ones; streamed text must equal the whole.
Prints a line for each kind; the exit status tells. Builds the example `tokenize` of crates/tokenizer.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = Path(__file__).resolve().parents[2]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>"]
# First and last code points of the scripts that strings are made of.
SCRIPTS = [
    (0x20, 0x7E), (0x20, 0x7E), (0xA1, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF), (0x600, 0x6FF),
    (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x2000, 0x206F), (0x2190, 0x22FF), (0x3040, 0x30FF),
    (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xFE00, 0xFE0F), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF),
]


def corpus(scripts=True):
    folder = Path(os.__file__).parent
    files = sorted(folder.glob("*.py"))[:150]
    texts = [path.read_text(errors="ignore") for path in files]
    if not scripts:
        return texts
    generator = random.Random(7)
    scripts = ["".join(chr(generator.randint(*span)) for _ in range(4000)) for span in SCRIPTS]
    return texts + scripts


def byte_level(split=None):
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    if split is not None:
        level = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), level])
    tokenizer.pre_tokenizer, tokenizer.decoder = level, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, trainers.BpeTrainer(vocab_size=3000, special_tokens=SPECIAL, initial_alphabet=alphabet)


def sentencepiece_bpe():
    """As Llama 2 and Mistral have it: spaces are letters, unknown characters are bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokens = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)]
    return tokenizer, trainers.BpeTrainer(vocab_size=3000, special_tokens=tokens, limit_alphabet=400, max_token_length=16)


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return tokenizer, trainers.UnigramTrainer(vocab_size=3000, special_tokens=SPECIAL, unk_token="<unk>")


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=True)
    return tokenizer, trainers.WordPieceTrainer(vocab_size=3000, special_tokens=SPECIAL, limit_alphabet=600)


KINDS = {
    "byte-level BPE": byte_level,
    "byte-level BPE, Llama 3's split": lambda: byte_level(LLAMA3),
    "SentencePiece BPE": sentencepiece_bpe,
    "Unigram": unigram,
    "WordPiece": wordpiece,
}


def train(make, folder):
    tokenizer, trainer = make()
    # Every character of its texts would be a token of a Unigram model.
    tokenizer.train_from_iterator(corpus(scripts=make is not unigram), trainer)
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    tokenizer.save(str(folder / "tokenizer.json"))


def strings(count):
    generator = random.Random(11)
    texts = corpus()

    def one(index):
        kind = index % 4
        if kind == 0:  # code and prose
            text = generator.choice(texts)
            start = generator.randrange(len(text))
            return text[start : start + generator.randint(0, 200)]
        if kind == 1:  # one script after the other
            spans = [generator.choice(SCRIPTS) for _ in range(generator.randint(1, 6))]
            return "".join(chr(generator.randint(*span)) for span in spans for _ in range(generator.randint(1, 12)))
        if kind == 2:  # random bytes, as far as they are text
            return generator.randbytes(generator.randint(0, 80)).decode(errors="replace")
        pieces = [" ", "  ", "\n", "\t", "\r\n", "\0", "<s>", "</s>", "<|im_start|>", "<unk>", "<0x0A>", "'s", "1234567"]
        pieces += ["e\u0301", "👩‍👩‍👧", "🇫🇷", "\u200d", "\ufeff", "▁", "Ġ", "don't", "ﬁ", "İ", "ß", "##ing"]
        return "".join(generator.choice(pieces) for _ in range(generator.randint(0, 20)))

    return [one(index).encode("utf-8", "replace").decode() for index in range(count)]


def compare(name, folder, texts):
    command = ["cargo", "run", "-q", "-p", "tokenizer", "--release", "--example", "tokenize", "--", str(folder)]
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    wrong = {"tokens": [], "text": [], "text with special tokens": [], "stream": []}
    for text, line in zip(texts, done.stdout.split("\n")[:-1], strict=True):
        ours = json.loads(line)
        ids = tokenizer.encode(text).ids
        pairs = {
            "tokens": (ours["ids"], ids),
            "text": (ours["text"], tokenizer.decode(ids)),
            "text with special tokens": (ours["special"], tokenizer.decode(ids, skip_special_tokens=False)),
            "stream": (ours["streamed"], ours["text"]),
        }
        for what, (found, expected) in pairs.items():
            if found != expected:
                wrong[what].append((text, found, expected))
    print(f"{name}: {len(texts)} strings; different: " + ", ".join(f"{what} {len(w)}" for what, w in wrong.items()))
    for what, differences in wrong.items():
        for text, found, expected in differences[:2]:
            print(f"  {what} of {text!r}:\n    {found!r}\n    {expected!r}")
    return not any(wrong.values())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--strings", type=int, default=10000)
    parser.add_argument("--model", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    texts = strings(args.strings)
    results = []
    with tempfile.TemporaryDirectory() as place:
        for name, make in KINDS.items():
            train(make, Path(place))
            results.append(compare(name, Path(place), texts))
    results += [compare(str(folder), folder, texts) for folder in args.model]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
