"""Our tokenizer against the Python libraries `tokenizers`, `tiktoken` and `sentencepiece`, on strings of many kinds.

    python tokenizer_diff.py [--strings 10000] [--model FOLDER ...] [--tiktoken FILE ...] [--sentencepiece FILE ...]

trains a small vocabulary of each kind on texts of this Python's own documentation and code, adds the model folders with a
`tokenizer.json` and the vocabulary files, and compares tokens, and texts of the tokens with and without special ones;
streamed text must equal the whole. Prints a line for each kind; the exit status tells. Builds the example `tokenize` of
crates/tokenizer.
"""

import argparse
import base64
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import sentencepiece
import tiktoken
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


def trained(make):
    """A function that writes a trained `tokenizer.json` to a folder."""

    def write(folder):
        tokenizer, trainer = make()
        # Every character of its texts would be a token of a Unigram model.
        tokenizer.train_from_iterator(corpus(scripts=make is not unigram), trainer)
        begin = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
        tokenizer.save(str(folder / "tokenizer.json"))
        return library(folder)

    return write


def library(folder):
    """What the library `tokenizers` makes of a string: ids, their text without and with special tokens."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def oracle(text):
        ids = tokenizer.encode(text).ids
        return ids, tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=False)

    return oracle


WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
AROUND = (r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?")
KIMI = [r"[\p{Han}]+", f"{AROUND[0]}{UPPER}*{LOWER}+{AROUND[1]}", f"{AROUND[0]}{UPPER}+{LOWER}*{AROUND[1]}", r"\p{N}{1,3}", REST]
EXTRAS = [f"<|extra_{index}|>" for index in range(205)]
GLM = "<|endoftext|> [MASK] [gMASK] [sMASK] <sop> <eop> <|system|> <|user|> <|assistant|> <|observation|>".split()
# File, tokenizer_class, pattern, whether text is composed, special tokens, those in front of every text.
FAMILIES = {
    "GLM-4": ("tokenizer.model", "ChatGLM4Tokenizer", "|".join([WORD, r"\p{N}{1,3}", REST]), False, GLM, GLM[2:5:2]),
    "Hunyuan": ("hy.tiktoken", "HYTokenizer", "|".join([WORD, r"\p{N}", REST]), True,
                ["<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>", *EXTRAS], []),
    "Kimi": ("tiktoken.model", "TikTokenTokenizer", "|".join(KIMI), False, ["[BOS]", "[EOS]", "<|im_end|>", "<|im_start|>"], []),
    "Llama 3": ("tokenizer.model", None, "|".join([WORD, r"\p{N}{1,3}", REST]), False,
                ["<|begin_of_text|>", "<|end_of_text|>"], ["<|begin_of_text|>"]),
    "Qwen": ("qwen.tiktoken", "QWenTokenizer", "|".join([WORD, r"\p{N}", REST]), True,
             ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *EXTRAS], []),
}  # fmt: skip


def trained_ranks():
    tokenizer, trainer = byte_level(LLAMA3)
    trainer.special_tokens = []
    tokenizer.train_from_iterator(corpus(), trainer)
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}
    return {bytes(byte_of[c] for c in token): rank for token, rank in tokenizer.get_vocab().items()}


def ranks_of(file):
    lines = (line.split() for line in file.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def tiktoken_file(family, ranks):
    """Writes the ranks as a family's file; the oracle is `tiktoken`."""
    file, name, pattern, composes, special, before = FAMILIES[family]

    def write(folder):
        vocabulary = ranks()
        by_rank = sorted(vocabulary.items(), key=lambda item: item[1])
        lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in by_rank]
        (folder / file).write_text("".join(lines))
        ids = {token: len(vocabulary) + index for index, token in enumerate(special)}
        flags = {"special": True, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
        config = {"added_tokens_decoder": {str(id_): {"content": token, **flags} for token, id_ in ids.items()}}
        (folder / "tokenizer_config.json").write_text(json.dumps(config | ({"tokenizer_class": name} if name else {})))
        encoding = tiktoken.Encoding(family, pat_str=pattern, mergeable_ranks=vocabulary, special_tokens=ids)

        def oracle(text):
            text = unicodedata.normalize("NFC", text) if composes else text
            tokens = [ids[token] for token in before] + encoding.encode(text, allowed_special="all")
            ordinary = [token for token in tokens if token < len(vocabulary)]
            return tokens, encoding.decode(ordinary), encoding.decode(tokens)

        return oracle

    return write


def trained_model(**options):
    def train(place):
        texts = [line for text in corpus(scripts=False) for line in text.split("\n") if line]
        scripts = corpus()[-len(SCRIPTS) :]
        lines = texts + [text[at : at + 50] for text in scripts for at in range(0, len(text), 50)]
        with open(place, "wb") as model:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines), model_writer=model, vocab_size=3000, num_threads=2, minloglevel=2,
                user_defined_symbols=["<|im_start|>", "1234", "▁▁"], hard_vocab_limit=False, character_coverage=0.98,
                max_sentence_length=100000, **options,
            )  # fmt: skip

    return train


def sentencepiece_file(make, name="tokenizer.model"):
    """Writes a SentencePiece model; the oracle is `sentencepiece`, for each text between special tokens."""

    def write(folder):
        make(folder / name)
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / name))
        pieces = range(processor.get_piece_size())
        special = {processor.id_to_piece(id_): id_ for id_ in pieces if processor.is_control(id_) or processor.is_unknown(id_)}
        split = re.compile("(" + "|".join(map(re.escape, special)) + ")")
        bos = [processor.bos_id()] if processor.bos_id() >= 0 else []
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        # SentencePiece tells in no other way whether it adds a space.
        strips = processor.decode([processor.piece_to_id("▁"), processor.piece_to_id("▁")]) != "  "
        decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * strips)

        def oracle(text):
            parts = [part for part in split.split(text) if part]
            ids = bos + [id_ for part in parts for id_ in ([special[part]] if part in special else processor.encode(part))]
            tokens = [processor.id_to_piece(id_) for id_ in ids]
            return ids, decoder.decode([token for token in tokens if token not in special]), decoder.decode(tokens)

        return oracle

    return write


IDENTITY = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
KINDS = {
    "byte-level BPE": trained(byte_level),
    "byte-level BPE, Llama 3's split": trained(lambda: byte_level(LLAMA3)),
    "SentencePiece BPE": trained(sentencepiece_bpe),
    "Unigram": trained(unigram),
    "WordPiece": trained(wordpiece),
    **{f"tiktoken file, {family}": tiktoken_file(family, trained_ranks) for family in FAMILIES},
    "BPE model file": sentencepiece_file(trained_model(model_type="bpe", byte_fallback=True, **IDENTITY)),
    "BPE model file, NFKC": sentencepiece_file(trained_model(model_type="bpe")),
    "Unigram model file": sentencepiece_file(trained_model(model_type="unigram"), "spiece.model"),
    "Unigram model file, bytes": sentencepiece_file(
        trained_model(model_type="unigram", byte_fallback=True, add_dummy_prefix=False, **IDENTITY)
    ),
    "Unigram model file, NFKC, folded case": sentencepiece_file(
        trained_model(model_type="unigram", byte_fallback=True, normalization_rule_name="nmt_nfkc_cf")
    ),
}


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


def compare(name, folder, oracle, texts, cargo):
    command = [*cargo, "--example", "tokenize", "--", str(folder)]
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
    wrong = {"tokens": [], "text": [], "text with special tokens": [], "stream": []}
    for text, line in zip(texts, done.stdout.split("\n")[:-1], strict=True):
        ours = json.loads(line)
        ids, plain, special = oracle(text)
        pairs = {
            "tokens": (ours["ids"], ids),
            "text": (ours["text"], plain),
            "text with special tokens": (ours["special"], special),
            "stream": (ours["streamed"], ours["text"]),
        }
        for what, (found, expected) in pairs.items():
            if found != expected:
                wrong[what].append((text, found, expected))
    print(f"{name}: {len(texts)} strings; different: " + ", ".join(f"{what} {len(w)}" for what, w in wrong.items()), flush=True)
    for what, differences in wrong.items():
        for text, found, expected in differences[:2]:
            print(f"  {what} of {text!r}:\n    {found!r}\n    {expected!r}")
    return not any(wrong.values())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--strings", type=int, default=10000)
    parser.add_argument("--kinds", help="only kinds whose name has this in it")
    parser.add_argument("--model", type=Path, nargs="*", default=[], help="folders with tokenizer.json")
    parser.add_argument("--tiktoken", type=Path, nargs="*", default=[], help="files of ranks, read as each family's")
    parser.add_argument("--sentencepiece", type=Path, nargs="*", default=[], help="SentencePiece models")
    parser.add_argument("--profile", default="release", help="cargo's")
    args = parser.parse_args()
    cargo = [os.environ.get("CARGO", "cargo"), "run", "-q", "-p", "tokenizer", "--profile", args.profile]
    kinds = {name: write for name, write in KINDS.items() if args.kinds is None or args.kinds in name}
    for file in args.tiktoken:
        kinds |= {f"{file}, {family}": tiktoken_file(family, lambda file=file: ranks_of(file)) for family in FAMILIES}
    for file in args.sentencepiece:
        kinds[str(file)] = sentencepiece_file(lambda place, file=file: shutil.copy(file, place))
    texts = strings(args.strings)
    results = []
    for name, write in kinds.items():
        with tempfile.TemporaryDirectory() as place:
            results.append(compare(name, Path(place), write(Path(place)), texts, cargo))
    results += [compare(str(folder), folder, library(folder), texts, cargo) for folder in args.model]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
