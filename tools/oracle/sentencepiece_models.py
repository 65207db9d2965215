"""Writes crates/tokenizer/testdata/sentencepiece: a small BPE model and what Python's `sentencepiece` makes of strings.

None of the strings has an added token: text after one gets a space in front again here, not in `sentencepiece`.
"""

import io
import json
import random
from pathlib import Path

import sentencepiece

PLACE = Path(__file__).resolve().parents[2] / "crates/tokenizer/testdata/sentencepiece"
WORDS = "the a of to and in token model text server prompt page cache hello world größe été мир 世界 def return self".split()
ODD = ["  ", "\n", "\t", "é", "👩‍👧", "123", "日本", "ß", "\u200d", "{}();", "ﬁ", "e\u0301", "Ω", "\0"]


def main():
    generator = random.Random(5)
    lines = [" ".join(generator.choices(WORDS, k=12)) for _ in range(400)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=420, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=["<tool>"],
        num_threads=1, minloglevel=2,
    )  # fmt: skip
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / "bpe.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    cases = []
    while len(cases) < 200:
        parts = generator.choices(WORDS + ODD + [" "] * 12, k=generator.randint(1, 14))
        text = "".join(parts)
        cases.append([text, processor.encode(text)])
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (PLACE / "bpe.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
