"""Goldens of chat template rendering, by jinja2 set up as transformers sets it up.

    python chat_templates.py

renders the cases below with the templates of crates/tokenizer/testdata/chat_templates and writes cases.json beside
them. Needs jinja2 3.1. The set-up follows transformers' chat_template_utils: sandboxed environment, block trimming,
loop controls, `{% generation %}`, and a `tojson` that escapes nothing.
"""

import json
from datetime import datetime
from pathlib import Path

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = Path(__file__).resolve().parents[2] / "crates/tokenizer/testdata/chat_templates"
NOW = "2024-07-05T09:05:03"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


class Generation(Extension):
    """`{% generation %}` prints its body."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def environment():
    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = datetime.fromisoformat(NOW).strftime
    return env


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, call_id="abc123456"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather at a place: <°C> & \"wind\"", "parameters": {
        "type": "object", "properties": {
            "place": {"type": "string", "description": "City, e.g. \u6771\u4eac"},
            "days": {"type": "integer", "default": 1, "minimum": 0.5, "enum": [1, 2, 3]}},
        "required": ["place"], "additionalProperties": False}}}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "", "parameters": {"type": "object", "properties": {}}}}

ONE = [message("user", "What is the capital of France?")]
SYSTEM = [message("system", "  Be brief.\n"), message("user", " Hi <b>&amp; 'you'\n\n"), message("assistant", "Hello!\n"), message("user", "Bye \U0001f44b")]
TOOLS = [message("user", "Weather in Oslo?"), message("assistant", "", tool_calls=[call("get_weather", {"place": "Oslo", "days": 2, "x": None})]),
         message("tool", "12.5 <rain>", tool_call_id="abc123456"), message("assistant", "Rain."), message("user", "Thanks")]
THINK = [message("user", "1+1?"), message("assistant", "<think>\nadd\n</think>\n\n2"), message("user", "2+2?"), message("assistant", "<think>\nagain\n</think>\n\n4")]
PARALLEL = [message("user", "Both?"), message("assistant", "Looking.", tool_calls=[call("clock", {}), call("get_weather", {"place": "B\u00fcrgeln"}, "zyx987654")]),
            message("tool", "{\"hour\": 9}", tool_call_id="abc123456"), message("tool", "[1, 2]", tool_call_id="zyx987654")]
EXTRA = {"name": "z\u00fcrich \U0001f600", "a": [1, -2, 3.0, 0.1, True, False, None], "nested": {"k\"ey": "tab\tnl\nbs\\ del\u007f ctl\u0001"}, "empty": [], "none": {}, "html": "<&'>"}

# template, case, messages, further arguments
CASES = [
    (template, name, messages, more)
    for template in ("smollm2", "header_ids", "inst", "chatml_tools", "parts")
    for name, messages, more in [
        ("one", ONE, {}),
        ("no_generation_prompt", ONE, {"add_generation_prompt": False}),
        ("system", SYSTEM, {}),
    ]
] + [
    ("parts", "list", [message("user", [{"type": "text", "text": "a"}, {"type": "text", "text": " b "}])], {}),
    ("header_ids", "date", ONE, {"kwargs": {"date_string": "1 Apr 2025"}}),
    ("header_ids", "tools", SYSTEM, {"tools": [WEATHER, CLOCK]}),
    ("header_ids", "custom_tools", ONE, {"kwargs": {"custom_tools": [CLOCK]}}),
    ("header_ids", "tool_turns", TOOLS, {"tools": [WEATHER]}),
    ("header_ids", "parallel", PARALLEL, {"tools": [WEATHER, CLOCK]}),
    ("header_ids", "tools_without_user", [message("system", "x")], {"tools": [CLOCK]}),
    ("inst", "tools", SYSTEM, {"tools": [WEATHER, CLOCK]}),
    ("inst", "tool_turns", TOOLS, {"tools": [WEATHER]}),
    ("inst", "parallel", PARALLEL, {"tools": [WEATHER, CLOCK]}),
    ("inst", "two_users", ONE + ONE, {}),
    ("inst", "unknown_role", [ONE[0], message("critic", "no")], {}),
    ("inst", "bad_id", [ONE[0], message("assistant", "", tool_calls=[call("clock", {}, "short")])], {}),
    ("chatml_tools", "tools", ONE, {"tools": [WEATHER, CLOCK]}),
    ("chatml_tools", "system_tools", SYSTEM, {"tools": [WEATHER]}),
    ("chatml_tools", "tool_turns", TOOLS, {"tools": [WEATHER]}),
    ("chatml_tools", "parallel", PARALLEL, {}),
    ("chatml_tools", "think", THINK, {"add_generation_prompt": False}),
    ("chatml_tools", "no_think", ONE, {"kwargs": {"enable_thinking": False}}),
    ("features", "all", [message("user", " Hello, World! "), message("skip", "no"), message("assistant", "\u00e9t\u00e9 o!"), message("halt", "no"), message("user", "no")], {"kwargs": {"extra": EXTRA, "floats": [1e16, 1e15, -1.5e300, 1e-05, 0.0001, 0.0, 1e22, 123456.789]}}),
]


def render(template, messages, more):
    arguments = {"tools": None, "documents": None, "add_generation_prompt": True, **SPECIAL, **more.get("kwargs", {}), **{k: v for k, v in more.items() if k != "kwargs"}}
    compiled = environment().from_string((HERE / f"{template}.jinja").read_text())
    try:
        return {"expected": compiled.render(messages=messages, **arguments)}
    except jinja2.exceptions.TemplateError as error:
        return {"error": str(error)}


def main():
    cases = [{"template": template, "name": name, "messages": messages, **more, **render(template, messages, more)} for template, name, messages, more in CASES]
    data = {"now": NOW, "special_tokens": SPECIAL, "cases": cases}
    (HERE / "cases.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
