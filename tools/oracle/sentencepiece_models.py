"""Writes crates/tokenizer/testdata/sentencepiece: a small model of each kind, and what Python's `sentencepiece` makes of
strings with it: their ids, and for the Unigram models the text of the ids (null where a token is unknown, and where the
string has SentencePiece's spelling of a space, which transformers does not take off the begin more than once).
"""

import io
import json
import random
import tempfile
from pathlib import Path

import sentencepiece

PLACE = Path(__file__).resolve().parents[2] / "crates/tokenizer/testdata/sentencepiece"
WORDS = "the a of to and in token model text server prompt page cache hello world größe été мир 世界 def return self".split()
ODD = ["  ", "\n", "\t", "é", "👩‍👧", "123", "日本", "ß", "\u200d", "{}();", "ﬁ", "e\u0301", "Ω", "\0"]
# Sequences of characters and what replaces them, as NFKC and SentencePiece's own rules have them.
RULES = {
    "\t": " ", "\n": " ", "\u3000": " ", "\u200d": "", "e\u0301": "é", "e\u0301\u0323": "ẹ\u0301", "ﬁ": "fi",
    "Ω": "ω", "½": "1⁄2", "\u0344": " \u0308\u0301", "カ\u3099": "ガ", "カ": "か", "…": "...", "\ufdfa": "a b",
}  # fmt: skip
MAPPED = [*RULES, "e", "\u0301", "\u0323", "<tool>", "<tool>", "▁", "<s>", "▁▁"]


def train(lines, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, user_defined_symbols=["<tool>"], num_threads=1, minloglevel=2,
        **options,
    )  # fmt: skip
    return model.getvalue()


def write(name, model, cases):
    (PLACE / f"{name}.model").write_bytes(model)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (PLACE / f"{name}.json").write_text(f"[\n{lines}\n]\n")


def bpe():
    generator = random.Random(5)
    lines = [" ".join(generator.choices(WORDS, k=12)) for _ in range(400)]
    model = train(lines, model_type="bpe", vocab_size=420, byte_fallback=True, normalization_rule_name="identity",
                  remove_extra_whitespaces=False)  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    texts = ["".join(generator.choices(WORDS + ODD + [" "] * 12, k=generator.randint(1, 14))) for _ in range(200)]
    write("bpe", model, [[text, processor.encode(text)] for text in texts])


def unigram(name, seed, **options):
    generator = random.Random(seed)
    words = ["".join(generator.choices(WORDS, k=generator.randint(1, 2))) for _ in range(200)]
    lines = [" ".join(generator.choices(words + list(RULES), k=12)) for _ in range(400)]
    model = train(lines, model_type="unigram", hard_vocab_limit=False, **options)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    cases = []
    for _ in range(150):
        text = "".join(generator.choices(WORDS + ODD + MAPPED + [" "] * 12, k=generator.randint(1, 14)))
        ids = processor.encode(text)
        cases.append([text, ids, None if processor.unk_id() in ids or "▁" in text else processor.decode(ids)])
    write(name, model, cases)


def main():
    PLACE.mkdir(parents=True, exist_ok=True)
    bpe()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        for sequence, replacement in RULES.items():
            print(*(" ".join(f"{ord(c):X}" for c in text) for text in (sequence, replacement)), sep="\t", file=rules)
        rules.flush()
        unigram("unigram", 6, vocab_size=150, normalization_rule_tsv=rules.name)
    unigram("unigram_bytes", 7, vocab_size=400, normalization_rule_name="identity", byte_fallback=True,
            remove_extra_whitespaces=False, add_dummy_prefix=False)  # fmt: skip


if __name__ == "__main__":
    main()
