#!/usr/bin/env python3
"""Writes what the fuzz targets begin with: fuzz/corpus/TARGET/* and fuzz/dictionaries/TARGET.dict.

Most of it is test data of the crates in the form that a target reads (see the first lines of
each); the rest is written down here. Usage: python3 fuzz/seeds.py
"""

import hashlib
import json
import re
import struct
from pathlib import Path

FUZZ = Path(__file__).resolve().parent
CRATES = FUZZ.parent / "crates"


def text_of(path):
    return (CRATES / path).read_text(encoding="utf-8")


def seed(target, data):
    folder = FUZZ / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def dictionary(target, words):
    folder = FUZZ / "dictionaries"
    folder.mkdir(exist_ok=True)
    words = sorted({word for word in words if 0 < len(word.encode()) < 64})
    escape = lambda byte: chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02X}"
    lines = ['"' + "".join(map(escape, word.encode())) + '"\n' for word in words]
    (folder / f"{target}.dict").write_text("".join(lines))


def literals(*paths):
    """String literals of Rust files: marks, keys, names."""
    found = []
    for path in paths:
        for file in sorted((CRATES / path).rglob("*.rs")):
            source = file.read_text(encoding="utf-8").split("#[cfg(test)]")[0]
            for literal in re.findall(r'"((?:[^"\\\n]|\\[n"\\t])*)"', source):
                found.append(literal.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\"))
    return found


def names(path, pattern, table):
    """Names in the order of a registry's table."""
    return re.findall(pattern, text_of(path).split(table)[1])


def parsers():
    outputs = json.loads(text_of("parsers/testdata/outputs.json"))
    of_calls = names("parsers/src/tool_call/registry.rs", r'(?:known|any)\("([^"]+)"', "pub static TOOL_CALL_PARSERS")
    of_reasoning = names(
        "parsers/src/reasoning/registry.rs", r'(?:think|qwen|entry)\("([^"]+)"', "pub static REASONING_PARSERS"
    )
    for target, cases, known in [
        ("tool_call", outputs["tool_call"], of_calls + ["json_array"]),
        ("reasoning", outputs["reasoning"], of_reasoning),
    ]:
        for index, case in enumerate(cases):
            head = bytes([known.index(case["parser"]), index & 255])
            seed(target, head + case["text"].encode())
    calls = '[{"name": "get_weather", "parameters": {"city": "Bern"}}, {"name": "now", "arguments": {}}]'
    seed("tool_call", bytes([len(of_calls), 0]) + calls.encode())
    tool_names = [tool["function"]["name"] for tool in outputs["tools"]]
    dictionary("tool_call", literals("parsers/src/tool_call", "parsers/src/harmony.rs") + tool_names + ["city", "\\u00e9"])
    dictionary("reasoning", literals("parsers/src/reasoning"))


def templates():
    folder = CRATES / "tokenizer/testdata/chat_templates"
    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))["cases"]
    for case in cases:
        source = (folder / f"{case['template']}.jinja").read_text(encoding="utf-8")
        kept = {name: case[name] for name in ("messages", "tools", "kwargs") if name in case}
        seed("chat_template", f"{source}\n----\n{json.dumps(kept)}".encode())
    for source in [
        "{{ messages[0].content * 100000 }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99999) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% for i in range(100000000000) %}{{ i }}{% endfor %}",
        "{{ messages | tojson(indent=100000) }}{{ '%1000000d' | format(1) }}{{ 'x' | center(10000000) }}",
        "{{ strftime_now('%Y-%m-%d %H:%M:%S %j %U %%') }}{{ raise_exception('no') }}",
        "{% for m in messages recursive %}{{ loop([m]) }}{% endfor %}",
        "{{ messages[::-1] | map(attribute='content') | list | join('x') | replace('', 'y') | title }}",
        "{{ 'a,b'.split(',')[-1:] }}{{ 'x'.strip().lstrip('a').upper() }}{{ {'a': 1}.items() | list }}",
    ]:
        seed("chat_template", source.encode() + b'\n----\n[{"role": "user", "content": "\\u00e9 <x>"}]')
    words = "for if else elif endif endfor set endset macro endmacro block in not is defined loop.index0 namespace range "
    words += "tojson trim upper lower join replace split strip items length default list map selectattr reject batch "
    words += "slice groupby unique sum round int float string dictsort strftime_now raise_exception messages tools role "
    words += "content tool_calls function arguments add_generation_prompt generation endgeneration break continue"
    dictionary("chat_template", words.split() + ["{%-", "-%}", "{{", "}}", "{#", "#}", "~", "**", "//", "[::-1]", "\n----\n"])


GRAMMARS = {
    0: [
        "$$ANY$$",
        '{"type": "object", "properties": {"a": {"type": "string", "maxLength": 4}, "b": {"enum": ["x", 5, null]}}, "required": ["a"], "additionalProperties": false}',
        '{"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"v": {"type": "boolean"}, "n": {"$ref": "#/$defs/n"}}}}}',
        '{"type": "array", "items": {"type": "integer", "minimum": -5, "maximum": 1000000}, "minItems": 2, "maxItems": 50000}',
        '{"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "pattern": "^[a-z]{1,9}$"}, {"const": {"k": [1.5]}}]}',
        '{"type": "number", "multipleOf": 0.01, "exclusiveMinimum": 0}',
        '{"allOf": [{"type": "object", "properties": {"a": {}}}, {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}]}',
        '{"type": "object", "patternProperties": {"^x-": {"type": "string"}}, "minProperties": 1}',
    ],
    1: [r"\d{3}-[a-c]+", "(a|b)*abb", "(a{1,1000}){1,1000}", "[^\\s]{0,10000}", "(?i)é|x", "a\\$", "^(yes|no)$", "(((((a*)*)*)*)*)b"],
    2: [
        'root ::= "a" root "b" | "x"',
        'root ::= expr\nexpr ::= term (("+" | "-") term)*\nterm ::= [0-9]+ | "(" expr ")"',
        'root ::= [a-z]{2,5} ("," [^\\n]?)* # comment\n',
        'root ::= (a | b){3} a? b*\na ::= "\\u00e9" | "\\x41"\nb ::= [\\-\\]] a',
        "root ::= root root | \"\"",
    ],
    3: [
        '{"structures": [{"begin": "<f>", "schema": {"type": "object"}, "end": "</f>"}], "triggers": ["<f"]}',
        '{"type": "structural_tag", "format": {"type": "triggered_tags", "triggers": ["<f"], "tags": [{"type": "tag", "begin": "<f>", "content": {"type": "json_schema", "json_schema": {}}, "end": "</f>"}], "at_least_one": true, "stop_after_first": true}}',
        '{"type": "structural_tag", "format": {"type": "sequence", "elements": [{"type": "const_string", "value": "a"}, {"type": "regex", "pattern": "[0-9]+"}, {"type": "any_text"}]}}',
        '{"type": "structural_tag", "format": {"type": "or", "elements": [{"type": "tags_with_separator", "separator": ",", "tags": [{"begin": "<", "content": {"type": "any_text"}, "end": ">"}]}, {"type": "const_string", "value": ""}]}}',
    ],
}


def grammars():
    for kind, grammars in GRAMMARS.items():
        for index, grammar in enumerate(grammars):
            for backend in (0, 1):
                seed("grammar", bytes([kind + 4 * backend, index]) + grammar.encode())
    words = "type object array string number integer boolean null properties required additionalProperties items "
    words += "prefixItems minItems maxItems minLength maxLength pattern format date-time uuid email ipv4 enum const anyOf "
    words += "oneOf allOf not $ref $defs # minimum maximum exclusiveMinimum multipleOf patternProperties minProperties "
    words += "maxProperties root ::= | {1,9} [^ \\d \\w \\s \\b (?i) (?: \\u00e9 \\x41 %json %regex <[1]>"
    dictionary("grammar", words.split() + literals("constrained/src/structural_tag", "constrained/src/ebnf"))


def bodies():
    source = text_of("fuzz-targets/src/http_body.rs")
    routes = re.findall(r'^    "(/[^"]*)",$', source, re.M)
    of_routes = json.loads(text_of("server/testdata/bodies.json"))
    for route, bodies in of_routes.items():
        for index, body in enumerate(bodies):
            seed("http_body", bytes([routes.index(route), index]) + json.dumps(body).encode())
    session = [("/open_session", 0), ("/generate", -2), ("/generate", -1), ("/close_session", 0)]
    parts = [bytes([routes.index(route)]) + json.dumps(of_routes[route][index]).encode() for route, index in session]
    seed("http_body", parts[0][:1] + b"\0" + b"\n----\n".join([parts[0][1:], *parts[1:]]))
    fields = re.findall(r"pub (\w+):", "".join(file.read_text() for file in sorted((CRATES / "protocol/src").rglob("*.rs"))))
    values = ["1e999", "-1", "null", "true", "18446744073709551616", "-0.0", "\\ud800", "\\u0000", "auto", "none", "required", "json_object"]
    roles = ["user", "assistant", "tool", "system", "function", "text", "image_url", "input_text"]
    dictionary("http_body", [f'"{word}"' for word in fields + roles] + values + ["<think>", "</think>", "<tool_call>", "</tool_call>", "<|im_end|>"])


def files():
    for path in sorted((CRATES / "model-loader/testdata/gguf").glob("*.gguf")):
        if path.stat().st_size < 60_000:
            seed("gguf", path.read_bytes())
    dictionary("gguf", literals("model-loader/src/gguf", "tokenizer/src/gguf") + ["GGUF", "llama", "qwen3", "gpt2"])

    header = {"__metadata__": {"format": "mlx"}, "a.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
              "b": {"dtype": "BF16", "shape": [], "data_offsets": [16, 18]}}
    shard = json.dumps(header).encode()
    shard = struct.pack("<Q", len(shard)) + shard + bytes(18)
    index = json.dumps({"weight_map": {"a.weight": "model.safetensors", "b": "model.safetensors"}}).encode()
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "quantization_config": gptq}
    for index in [b"", index]:
        for config_text in [b"", json.dumps(config).encode(), b'{"model_type": "x", "quantization": {"bits": 4, "group_size": 64}}']:
            seed("safetensors", struct.pack("<HH", len(index), len(config_text)) + index + config_text + shard)
    for path in sorted((CRATES / "model-loader/testdata-imports").glob("*.json")):
        config = json.loads(path.read_text()).get("config")
        if config:
            text = json.dumps(config).encode()
            seed("safetensors", struct.pack("<HH", 0, len(text)) + text + shard)
    dictionary("safetensors", literals("model-loader/src/safetensors.rs", "model-loader/src/imports", "nn/src/quant_config.rs"))


def tokenizers():
    folder = CRATES / "tokenizer/testdata"
    vocab = {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "\u0120": 4, "\u2581": 5, "<0x0A>": 6}
    added = [{"id": 7, "content": "<s>", "special": True, "single_word": False, "lstrip": False, "rstrip": True, "normalized": False}]
    models = [
        {"type": "BPE", "vocab": vocab, "merges": ["a b"], "byte_fallback": True, "unk_token": "<unk>"},
        {"type": "WordPiece", "vocab": vocab, "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
        {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
        {"type": "Unigram", "vocab": [["<unk>", 0], ["a", -1.5], ["\u2581a", -2]], "unk_id": 0, "byte_fallback": False},
    ]
    shapes = [
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}, "decoder": {"type": "ByteLevel"}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " +"}, "content": "\u2581"}]},
         "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"},
         "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?i:'s)|\\p{L}+|\\s+(?!\\S)"}, "behavior": "Isolated", "invert": False},
         "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}}}, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}},
    ]
    for model in models:
        for shape in shapes:
            seed("tokenizer", b"\0" + json.dumps({"version": "1.0", "added_tokens": added, **shape, "model": model}).encode())
    seed("tokenizer", b"\1" + (folder / "tiktoken/small.tiktoken").read_bytes())
    for path in sorted((folder / "sentencepiece").glob("*.model")):
        seed("tokenizer", b"\2" + path.read_bytes())
    seed("tokenizer", b"\3" + "[UNK]\n[CLS]\n[SEP]\nhello\n##lo\nw\n".encode())
    seed("tokenizer", b"\4" + json.dumps({"added_tokens_decoder": {"300": {**added[0], "content": "<x>"}}, "bos_token": "<s>", "chat_template": "x",
                                           "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False}).encode())
    kinds = "NFD Lowercase BertNormalizer Precompiled Prepend StripAccents Whitespace WhitespaceSplit Punctuation Digits CharDelimiterSplit "
    kinds += "UnicodeScripts BertPreTokenizer RobertaProcessing BertProcessing CTC BPEDecoder dropout fuse_unk ignore_merges end_of_word_suffix"
    dictionary("tokenizer", kinds.split() + literals("tokenizer/src/detokenizer.rs", "tokenizer/src/tiktoken", "tokenizer/src/length_bound.rs"))


if __name__ == "__main__":
    for make in (parsers, templates, grammars, bodies, files, tokenizers):
        make()
    for folder in sorted((FUZZ / "corpus").iterdir()):
        print(f"{folder.name}: {len(list(folder.iterdir()))} seeds")
