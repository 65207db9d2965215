"""Goldens of chat template rendering, by transformers.

    python chat_templates.py
    python chat_templates.py FOLDER

The first renders the cases below with the templates of crates/tokenizer/testdata/chat_templates and writes cases.json
beside them. The second renders a battery of conversations with every *.jinja of a folder and writes cases.json there;
`cargo run -p tokenizer --example chat_templates FOLDER` checks it. So published templates can be tried that are not
ours to copy. Needs transformers 5.24 and jinja2 3.1.
"""

import json
import sys
from datetime import datetime
from pathlib import Path

from transformers.utils import chat_template_utils

HERE = Path(__file__).resolve().parents[2] / "crates/tokenizer/testdata/chat_templates"
NOW = "2024-07-05T09:05:03"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


class Clock:
    """Stands still."""

    @staticmethod
    def now():
        return datetime.fromisoformat(NOW)


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


# What published templates look at: tools with nested schemas, thoughts, documents, roles, the last message.
PARAMETERS = {"type": "object", "required": ["place", "when"], "properties": {
    "place": {"type": "string", "description": "City"},
    "when": {"type": "array", "items": {"type": "string", "enum": ["now", "later"]}, "default": ["now"]},
    "unit": {"type": ["string", "null"], "nullable": True, "default": "celsius", "enum": ["celsius", "kelvin"]},
    "limits": {"type": "object", "properties": {"low": {"type": "number"}, "high": {"type": "integer"}}, "required": ["low"]},
    "either": {"anyOf": [{"type": "string"}, {"type": "integer"}], "description": "One\nor the other"},
    "flag": {"type": "boolean", "default": False}}, "additionalProperties": False}
FORECAST = {"type": "function", "function": {"name": "forecast", "description": "The weather: <°C> & \"wind\"\nsoon", "parameters": PARAMETERS, "return": {"type": "string"}}}
SEARCH = {"type": "function", "function": {"name": "search", "description": "Search.", "parameters": {"type": "object", "properties": {"query": {"type": "string"}}}}}
DOCUMENTS = [{"title": "One", "text": "First text."}, {"title": "Two", "text": "Second."}]
THOUGHT = [message("user", "1+1?"), message("assistant", "2", reasoning_content="add\n"), message("user", "2+2?"), message("assistant", "", reasoning_content="call", tool_calls=[call("search", {"query": "2+2"})]), message("tool", "4", name="search", tool_call_id="abc123456"), message("assistant", "It is 4.", reasoning_content="found")]
BATTERY = {
    "one": (ONE, {}),
    "no_generation_prompt": (ONE, {"add_generation_prompt": False}),
    "system": (SYSTEM, {}),
    "empty_system": ([message("system", ""), *ONE], {}),
    "developer": ([message("developer", "Be kind."), *ONE], {}),
    "tools": (ONE, {"tools": [FORECAST, SEARCH]}),
    "system_tools": (SYSTEM, {"tools": [SEARCH]}),
    "tool_turns": (TOOLS, {"tools": [WEATHER]}),
    "tool_turns_end": (TOOLS[:3], {"tools": [WEATHER, CLOCK]}),
    "parallel": (PARALLEL, {"tools": [WEATHER, CLOCK]}),
    "parallel_without_tools": (PARALLEL, {}),
    "think_tags": (THINK, {}),
    "thoughts": (THOUGHT, {"tools": [SEARCH], "add_generation_prompt": False}),
    "thoughts_go_on": ([*THOUGHT, message("user", "Thanks")], {"tools": [SEARCH]}),
    "no_thinking": (SYSTEM, {"kwargs": {"enable_thinking": False, "thinking": False}}),
    "thinking": (SYSTEM, {"kwargs": {"enable_thinking": True, "thinking": True}}),
    "no_thinking_tools": (TOOLS[:3], {"tools": [WEATHER], "kwargs": {"enable_thinking": False, "thinking": False}}),
    "effort": (ONE, {"kwargs": {"reasoning_effort": "high", "thinking_budget": 512, "model_identity": "You are a test."}}),
    "documents": (ONE, {"kwargs": {"documents": DOCUMENTS, "citation_mode": "accurate"}}),
    "date": (ONE, {"kwargs": {"date_string": "1 Apr 2025", "today": "2025-04-01"}}),
    "two_users": (ONE + ONE, {}),
    "assistant_last": (SYSTEM[:3], {"add_generation_prompt": False}),
}


def render(source, messages, more):
    arguments = {"documents": None, "add_generation_prompt": True, **SPECIAL, **more.get("kwargs", {}), **{k: v for k, v in more.items() if k not in ("kwargs", "tools")}}
    try:
        prompts, _ = chat_template_utils.render_jinja_template([messages], tools=more.get("tools"), chat_template=source, **arguments)
        return {"expected": prompts[0]}
    except Exception as error:
        # The template's own words, or that it cannot render.
        raised = type(error).__name__ == "TemplateError"
        return {"error": str(error)} if raised else {"fails": f"{type(error).__name__}: {error}"}


def main(folder=None):
    chat_template_utils.datetime = Clock
    target = Path(folder) if folder else HERE
    cases = CASES
    if folder:
        templates = sorted(path.stem for path in target.glob("*.jinja"))
        cases = [(template, name, messages, more) for template in templates for name, (messages, more) in BATTERY.items()]
    sources = {template: (target / f"{template}.jinja").read_text() for template in {case[0] for case in cases}}
    cases = [{"template": template, "name": name, "messages": messages, **more, **render(sources[template], messages, more)} for template, name, messages, more in cases]
    data = {"now": NOW, "special_tokens": SPECIAL, "cases": cases}
    (target / "cases.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    print(len(cases), "cases,", sum("fails" in case for case in cases), "that cannot be rendered")


if __name__ == "__main__":
    main(*sys.argv[1:])
