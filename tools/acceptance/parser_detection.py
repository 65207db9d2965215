"""Compares the choice of parsers by chat template with SGLang's own.

    python tools/acceptance/parser_detection.py <folder that holds sglang/> <template.jinja>...

Needs an unpacked SGLang 0.5.23 and jinja2; runs the example `detect` of the crate `parsers`. Tokens that a template
names count as its vocabulary, on both sides.
"""

import json
import subprocess
import sys
import types
from pathlib import Path


def upstream(root):
    """SGLang's template_detection without the rest of SGLang."""
    for package in ["sglang", "sglang.srt", "sglang.srt.parser", "sglang.srt.arg_groups"]:
        module = types.ModuleType(package)
        module.__path__ = [str(root / package.replace(".", "/"))]
        sys.modules[package] = module
    for name, members in [("muse_spark_hook", ["muse_spark_chat_template_default"]),
                          ("overrides", ["declare_resolution", "resolving_view"])]:
        module = types.ModuleType("sglang.srt.arg_groups." + name)
        for member in members:
            setattr(module, member, None)
        sys.modules[module.__name__] = module
    from sglang.srt.parser import template_detection

    return template_detection


class Vocabulary(set):
    """Everything that the template spells out."""

    def __init__(self, template):
        super().__init__()
        self.template = template

    def __contains__(self, token):
        return token in self.template


def toggle_of(config):
    """As our `Toggle` prints."""
    if config is None or config.special_case == "hunyuan_effort":
        return None
    if config.always_on:
        return "Always"
    if config.special_case == "mistral":
        return "Effort"
    return f'Kwarg {{ name: "{config.toggle_param}", default: {str(config.default_enabled).lower()} }}'


def main():
    detection = upstream(Path(sys.argv[1]))
    paths = sys.argv[2:]
    command = ["cargo", "run", "-q", "-p", "parsers", "--example", "detect", "--", *paths]
    ours = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    differences = 0
    for path, line in zip(paths, ours, strict=True):
        template = Path(path).read_text(encoding="utf-8")
        force, config = detection.detect_reasoning_pattern(template)
        context = detection.TemplateDetectionContext(template, config, force, Vocabulary(template))
        rules = [detection.REASONING_PARSER_RULES, detection.TOOL_CALL_PARSER_RULES]
        theirs = [toggle_of(config), *(detection.match_rules(context, r, "") for r in rules)]
        if json.loads(line) != theirs:
            differences += 1
            print(f"{path}: ours {line}, SGLang's {json.dumps(theirs)}")
    print(f"{len(paths)} templates, {differences} differences")
    sys.exit(differences > 0)


main()
