"""Writes crates/tokenizer/testdata/tiktoken: a small file of ranks and what Python's `tiktoken` makes of strings with it,
split as each family splits them and with the family's special tokens after the ranks.
"""

import base64
import json
import random
import unicodedata
from pathlib import Path

import tiktoken
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

PLACE = Path(__file__).resolve().parents[2] / "crates/tokenizer/testdata/tiktoken"
WORDS = "the a of to and in token model text server prompt page cache Hello World größe été мир 世界 你好 def return self".split()
ODD = ["  ", "\n", "\r\n\n", "\t", "e\u0301", "é", "👩‍👧", "1234", "١٢", "日本", "ß", "\u200d", "{}();", "ﬁ", "Ω", "\0"]
ODD += ["don't", "WE'LL", "camelCase", "漢字かな", "中a", "々", "\u212b", "...\n", "ǅ"]

WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
THREE, ONE = "|".join([WORD, r"\p{N}{1,3}", REST]), "|".join([WORD, r"\p{N}", REST])
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
AROUND = (r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?")
KIMI = "|".join(
    [r"[\p{Han}]+", f"{AROUND[0]}{UPPER}*{LOWER}+{AROUND[1]}", f"{AROUND[0]}{UPPER}+{LOWER}*{AROUND[1]}", r"\p{N}{1,3}", REST]
)
EXTRAS = [f"<|extra_{index}|>" for index in range(205)]
# Kimi's names are those of the test's own tokenizer_config.json.
FAMILIES = {
    "glm": (THREE, False, ["<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>"]),
    "hunyuan": (ONE, True, ["<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>", *EXTRAS]),
    "kimi": (KIMI, False, ["[BOS]", "[EOS]", "<|im_end|>", "<|reserved_token_{}|>"]),
    "llama3": (THREE, False, ["<|begin_of_text|>", "<|end_of_text|>"]),
    "qwen": (ONE, True, ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *EXTRAS]),
}


def ranks(generator):
    lines = [" ".join(generator.choices(WORDS + ODD, k=12)) for _ in range(400)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False))
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}
    return {bytes(byte_of[c] for c in token): rank for token, rank in tokenizer.get_vocab().items()}


def main():
    generator = random.Random(5)
    vocabulary = ranks(generator)
    PLACE.mkdir(parents=True, exist_ok=True)
    by_rank = sorted(vocabulary.items(), key=lambda item: item[1])
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in by_rank]
    (PLACE / "small.tiktoken").write_text("".join(lines))
    cases = {}
    for family, (pattern, composes, special) in FAMILIES.items():
        special = {token.format(len(vocabulary) + at): len(vocabulary) + at for at, token in enumerate(special)}
        encoding = tiktoken.Encoding(family, pat_str=pattern, mergeable_ranks=vocabulary, special_tokens=special)
        cases[family] = []
        for _ in range(60):
            parts = WORDS + ODD + [" "] * 12 + list(special)[:4]
            text = "".join(generator.choices(parts, k=generator.randint(1, 12)))
            composed = unicodedata.normalize("NFC", text) if composes else text
            cases[family].append([text, encoding.encode(composed, allowed_special="all")])
    lists = ",\n".join(
        f'"{family}": [\n' + ",\n".join(json.dumps(case, ensure_ascii=False) for case in list_) + "\n]"
        for family, list_ in cases.items()
    )
    (PLACE / "small.json").write_text(f"{{\n{lists}\n}}\n")


if __name__ == "__main__":
    main()
