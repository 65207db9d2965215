"""Cross-encoders: /v1/rerank against transformers, on tiny random checkpoints with tokenizers of their own.

    python rerank.py make FOLDER            (with torch, transformers, tokenizers)
    sglang-mlx serve --model-path FOLDER/bert --port 31001
    sglang-mlx serve --model-path FOLDER/xlm-roberta --port 31002
    python rerank.py check FOLDER/bert http://127.0.0.1:31001
    python rerank.py check FOLDER/xlm-roberta http://127.0.0.1:31002

BERT tells the second text of a pair by its tokens' type, XLM-RoBERTa by two marks between the texts. Scores are
compared as they are: logits, as upstream gives them.
"""

import json
import sys
import urllib.request
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

QUERY = "Where does the panda live?"
DOCUMENTS = [
    "The giant panda lives in the mountains of central China.",
    "Bread needs yeast, water and flour.",
    "Pandas eat bamboo. " * 8,
    "A",
    "Où vit le panda géant ? En Chine.",
]
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
         "max_position_embeddings": 200, "num_labels": 1}


def bert_tokenizer():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=special)
    tokenizer.train_from_iterator([QUERY, *DOCUMENTS], trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def roberta_tokenizer():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator([QUERY, *DOCUMENTS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


def make(folder):
    cases = {
        "bert": (bert_tokenizer(), transformers.BertForSequenceClassification, {"type_vocab_size": 2}),
        "xlm-roberta": (roberta_tokenizer(), transformers.XLMRobertaForSequenceClassification,
                        {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}),
    }
    for name, (tokenizer, architecture, more) in cases.items():
        torch.manual_seed(1)
        config = architecture.config_class(vocab_size=tokenizer.get_vocab_size(), **SIZES, **more)
        model = architecture(config)
        for parameter in model.parameters():  # as drawn, scores of different texts hardly differ
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder / name)
        tokenizer.save(str(folder / name / "tokenizer.json"))
        (folder / name / "tokenizer_config.json").write_text("{}")


def expected(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).double().eval()
    scores = []
    for document in DOCUMENTS:
        pair = tokenizer.encode(QUERY, document)
        with torch.no_grad():
            logits = model(torch.tensor([pair.ids]), token_type_ids=torch.tensor([pair.type_ids])).logits
        scores.append(logits.item())
    return scores


def rerank(url, body):
    request = urllib.request.Request(f"{url}/v1/rerank", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def check(folder, url):
    scores = expected(folder)
    found = rerank(url, {"query": QUERY, "documents": DOCUMENTS})
    assert [item["score"] for item in found] == sorted((item["score"] for item in found), reverse=True)
    found = {item["index"]: item["score"] for item in found}
    worst = max(abs(found[index] - score) for index, score in enumerate(scores))
    spread = max(scores) - min(scores)
    alone = rerank(url, {"query": QUERY, "documents": DOCUMENTS[2:3]})[0]["score"]
    print(f"{folder.name}: scores from {min(scores):.4f} to {max(scores):.4f}, off by {worst:.2e} at most; "
          f"alone or beside others: {abs(alone - found[2]):.2e}")
    assert worst < 1e-4 * max(1, spread) and spread > 0.05 and abs(alone - found[2]) < 1e-5


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        check(Path(sys.argv[2]), sys.argv[3].rstrip("/"))
