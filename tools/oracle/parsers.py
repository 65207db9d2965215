"""What SGLang's own parsers make of models' outputs: goldens of `parsers`.

Writes crates/parsers/testdata/outputs.json. Needs an unpacked SGLang 0.5.23
(`pip download --no-deps sglang==0.5.23`, then unzip) and, from PyPI,
partial-json-parser, orjson, pydantic and transformers; no Torch:

    python tools/oracle/parsers.py <folder that holds sglang/>

Only the complete-text paths are asked: they are upstream's reference. Cases
with `ours` are deliberate differences; why is said beside each.
"""

import contextlib
import importlib
import io
import json
import sys
import types
from pathlib import Path

OUT = Path(__file__).parents[2] / "crates/parsers/testdata/outputs.json"

TOOLS = [
    {"name": "get_weather", "parameters": {"type": "object", "properties": {
        "city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer"}, "detailed": {"type": "boolean"}}}},
    {"name": "search", "parameters": {"type": "object", "properties": {
        "query": {"type": "string"}, "limit": {"type": ["integer", "null"]},
        "filters": {"type": "object"}, "tags": {"type": "array", "items": {"type": "string"}},
        "min_score": {"type": "number"}}}},
    {"name": "write_file", "parameters": {"type": "object", "properties": {
        "path": {"type": "string"}, "content": {"type": "string"}}}},
    {"name": "now", "parameters": {"type": "object", "properties": {}}},
]

CODE = 'fn main() {\n    let s = "a < b && c > d";\n    println!("{s}");\n}\n'
WEATHER = '{"name": "get_weather", "arguments": {"city": "Zürich", "days": 3}}'
SEARCH = '{"name": "search", "arguments": {"query": "a \\"b\\" {c}", "tags": ["x", "y"], "filters": {"k": {"n": null}}}}'
WRITE = json.dumps({"name": "write_file", "arguments": {"path": "src/main.rs", "content": CODE}})


def case(parser, title, text, ours=None, forced=None):
    return {"parser": parser, "title": title, "text": text, "ours": ours, "forced": forced}


def text_only(text):
    return {"text": text, "calls": []}


def calls(*calls, text=""):
    return {"text": text, "calls": [list(call) for call in calls]}


def tagged(name):
    """Qwen 2.5, Qwen 3 and Hermes."""
    return [
        case(name, "one call", f"<tool_call>\n{WEATHER}\n</tool_call>"),
        case(name, "text first", f"I will look.\n\n<tool_call>\n{WEATHER}\n</tool_call>"),
        case(name, "two calls", f"<tool_call>\n{WEATHER}\n</tool_call>\n<tool_call>\n{SEARCH}\n</tool_call>"),
        case(name, "code in arguments", f"<tool_call>\n{WRITE}\n</tool_call>"),
        case(name, "no call", "Tags like <tool or </tool_call are only text.\n"),
        case(name, "no arguments", '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'),
        case(name, "arguments first", '<tool_call>\n{"arguments": {"city": "Bern"}, "name": "get_weather"}\n</tool_call>'),
        case(name, "unknown function", 'Well. <tool_call>\n{"name": "fly", "arguments": {"to": "moon"}}\n</tool_call>'),
        # Upstream drops what it cannot read (Qwen) or strips it (Hermes): here it is text.
        case(name, "malformed", '<tool_call>\n{"name": "get_weather", "arguments": {"city": }}\n</tool_call>',
             ours=text_only('<tool_call>\n{"name": "get_weather", "arguments": {"city": }}\n</tool_call>')),
        case(name, "cut short", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Be',
             ours=text_only('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Be')),
        # Upstream drops text after calls, though its streams do not.
        case(name, "text after", f"<tool_call>\n{WEATHER}\n</tool_call>\nDone.",
             ours=calls(("get_weather", '{"city": "Zürich", "days": 3}'), text="\nDone.")),
        # Upstream hands out `null`, a string in a string and a number; clients expect an object.
        case(name, "null as arguments", '<tool_call>\n{"name": "now", "arguments": null}\n</tool_call>', ours=calls(("now", "{}"))),
        case(name, "an object in a string", '<tool_call>\n{"name": "search", "arguments": "{\\"query\\":\\"a\\", \\"limit\\": 12345678901234567890123}"}\n</tool_call>',
             ours=calls(("search", '{"query": "a", "limit": 12345678901234567890123}'))),
        case(name, "a number as arguments", '<tool_call>\n{"name": "now", "arguments": 5}\n</tool_call>',
             ours=text_only('<tool_call>\n{"name": "now", "arguments": 5}\n</tool_call>')),
    ]


def deepseek(name, call):
    begin, end = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
    weather, search = call("get_weather", '{"city": "Paris"}'), call("search", '{"query": "x", "limit": 5}')
    broken = begin + call("get_weather", '{"city": Paris}') + end
    return [
        case(name, "one call", begin + weather + end),
        case(name, "text and two calls", "Let me see.\n" + begin + weather + "\n" + search + end),
        case(name, "code in arguments", begin + call("write_file", json.dumps({"path": "m.rs", "content": CODE})) + end),
        case(name, "no call", "A <｜tool is nothing."),
        case(name, "malformed", broken),
        # Upstream loses the text of a call that is cut short.
        case(name, "cut short", begin + weather.split("Paris")[0], ours=text_only(begin + weather.split("Paris")[0])),
    ]


def kimi(function, arguments):
    return f"<|tool_call_begin|>{function}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"


def harmony(channel, body, end="<|end|>"):
    return f"<|channel|>{channel}<|message|>{body}{end}"


def xml_qwen(function, **parameters):
    body = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in parameters.items())
    return f"<tool_call>\n<function={function}>\n{body}</function>\n</tool_call>"


def xml_minimax(*invokes):
    parts = []
    for function, parameters in invokes:
        body = "".join(f'<parameter name="{key}">{value}</parameter>\n' for key, value in parameters.items())
        parts.append(f'<invoke name="{function}">\n{body}</invoke>\n')
    return "<minimax:tool_call>\n" + "".join(parts) + "</minimax:tool_call>"


def glm(function, **arguments):
    body = "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in arguments.items())
    return f"<tool_call>{function}\n{body}</tool_call>"


def glm47(function, **arguments):
    body = "".join(f"<arg_key>{key}</arg_key><arg_value>{value}</arg_value>" for key, value in arguments.items())
    return f"<tool_call>{function}{body}</tool_call>"


def tool_cases():
    q = '<|"|>'
    thought = harmony("analysis", "The user wants the weather.")
    call_weather = '<|start|>assistant' + harmony("commentary to=functions.get_weather <|constrain|>json", '{"city":"Oslo"}', "<|call|>")
    section = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
    return [
        *tagged("qwen25"), *tagged("hermes"),
        case("hermes", "without line breaks", f"<tool_call>{WEATHER}</tool_call><tool_call>{SEARCH}</tool_call>"),
        case("hermes", "not closed", f"<tool_call>{WEATHER}"),
        case("hermes", "a list", f"<tool_call>[{WEATHER}, {SEARCH}]</tool_call>"),
        case("llama3", "with the marker", '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Rome"}}'),
        case("llama3", "without the marker", '{"name": "get_weather", "parameters": {"city": "Rome"}}'),
        case("llama3", "two", '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Rome"}};{"name": "now", "parameters": {}}'),
        case("llama3", "text first", 'Sure. <|python_tag|>{"name": "now", "parameters": {}}',
             # White space before a call is not content.
             ours=calls(("now", "{}"), text="Sure.")),
        case("llama3", "no call", "The set {a, b} is small."),
        # Upstream answers nothing to someone who asked for JSON.
        case("llama3", "other JSON", '{"colour": "blue"}', ours=text_only('{"colour": "blue"}')),
        case("llama3", "null as parameters", '{"name": "now", "parameters": null}'),
        case("llama3", "null first", '{"parameters": null, "arguments": {"city": "Rome"}, "name": "get_weather"}'),
        case("llama3", "malformed", '{"name": "get_weather", "parameters": {"city": Rome}}'),
        case("mistral", "a list", f"[TOOL_CALLS] [{WEATHER}, {SEARCH}]"),
        case("mistral", "compact", '[TOOL_CALLS]get_weather[ARGS]{"city": "Lyon"}'),
        case("mistral", "two compact", 'Yes.[TOOL_CALLS]get_weather[ARGS]{"city": "Lyon"}[TOOL_CALLS]now[ARGS]{}'),
        case("mistral", "no call", "A list: [1, 2] and [TOOL."),
        case("mistral", "null and no arguments", '[TOOL_CALLS] [{"name": "now", "arguments": null}, {"name": "now"}]',
             ours=calls(("now", "{}"), ("now", "{}"))),
        case("mistral", "malformed list", '[TOOL_CALLS] [{"name": "now", "arguments": }]',
             ours=text_only('[TOOL_CALLS] [{"name": "now", "arguments": }]')),
        *deepseek("deepseekv3", lambda name, arguments: f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>"),
        *deepseek("deepseekv31", lambda name, arguments: f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>"),
        case("kimi_k2", "one call", section[0] + kimi("functions.get_weather:0", '{"city": "Beijing"}') + section[1]),
        case("kimi_k2", "two calls", section[0] + kimi("functions.get_weather:0", '{"city": "北京"}') + kimi("functions.now:1", "{}") + section[1]),
        case("kimi_k2", "a bare number", section[0] + kimi("3", '{"query": "x", "limit": 2}') + section[1]),
        case("kimi_k2", "no call", "Nothing <|to see."),
        case("kimi_k2", "odd id", section[0] + kimi("what is this", "{}") + section[1],
             ours=text_only(section[0] + kimi("what is this", "{}") + section[1])),
        case("qwen3_coder", "types", xml_qwen("search", query="rust & <b>", limit="5", tags='["a", "b"]', min_score="0.5")),
        case("qwen3_coder", "code", "Writing.\n" + xml_qwen("write_file", path="src/main.rs", content=CODE),
             ours=calls(("write_file", json.dumps({"path": "src/main.rs", "content": CODE})), text="Writing.")),
        case("qwen3_coder", "two calls", xml_qwen("get_weather", city="Oslo", detailed="True") + "\n" + xml_qwen("now")),
        case("qwen3_coder", "null and literals", xml_qwen("search", limit="null", filters="{'a': True}")),
        case("qwen3_coder", "a parameter not closed", "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>",
             # Upstream's value begins at the bracket of the next tag.
             ours=calls(("get_weather", '{"city": "Oslo", "days": 2}'))),
        case("qwen3_coder", "no call", "if a <tool_cal then"),
        case("glm45", "types", glm("search", query="42", limit="5", tags='["a"]', filters='{"k": "v"}')),
        case("glm45", "two calls", "Looking.\n" + glm("get_weather", city="北京", days="3") + "\n" + glm("now")),
        case("glm45", "an unknown parameter", glm("get_weather", where="Bonn", n="3")),
        case("glm45", "unknown function", glm("fly", to="moon")),
        case("glm47", "without line breaks", glm47("get_weather", city="Bonn", days="3")),
        case("gemma4", "types", f"<|tool_call>call:search{{query:{q}a, {{b}}{q},limit:5,tags:[{q}x{q},{q}y{q}],filters:{{k:true}}}}<tool_call|>"),
        case("gemma4", "two calls", f"Yes.<|tool_call>call:get_weather{{city:{q}Rom{q}}}<tool_call|><|tool_call>call:now{{}}<tool_call|>"),
        case("gemma4", "no call", "A <|tool is nothing."),
        case("gemma4", "malformed", "<|tool_call>now<tool_call|>"),
        case("lfm2", "pythonic", '<|tool_call_start|>[get_weather(city="Nice", days=2), now()]<|tool_call_end|>'),
        case("lfm2", "JSON", f"<|tool_call_start|>[{WEATHER}]<|tool_call_end|>Looking.",
             # Upstream strips what follows.
             ours=calls(("get_weather", '{"city": "Zürich", "days": 3}'), text="Looking.")),
        case("lfm2", "no call", "Nothing."),
        case("pythonic", "one call", '[get_weather(city="Nice", days=2)]'),
        case("pythonic", "two calls", "[get_weather(city='Nice'), search(query='[x](y)', tags=['a', 'b'], filters={'k': None})]"),
        case("pythonic", "with noise", '<|python_start|>[now()]<|python_end|>'),
        case("pythonic", "no call", "See [1] and [the docs](http://x)."),
        case("minimax-m2", "types", xml_minimax(("search", {"query": "7", "limit": "7", "tags": '["a"]', "min_score": "1.5"})),
             # Upstream makes null of every value that may be null.
             ours=calls(("search", '{"query": "7", "limit": 7, "tags": ["a"], "min_score": 1.5}'))),
        case("minimax-m2", "two calls", xml_minimax(("get_weather", {"city": "Pau", "days": "3"}), ("now", {}))),
        case("minimax-m2", "no call", "a <minimax: b"),
        case("gpt-oss", "thought and call", thought + call_weather,
             # Upstream loses this one's text, which is nothing but a line break.
             ours=calls(("get_weather", '{"city": "Oslo"}'))),
        case("gpt-oss", "no call", "Plain text."),
    ]


def reasoning_cases():
    think = "First,\nI think.\n</think>\n\nThe answer is 4."
    opened = "<think>\n" + think
    cases = []
    for name in ["deepseek-r1", "qwen3", "qwen3-thinking", "glm45", "kimi_k2", "minimax", "nemotron_3", "step3", "deepseek-v3"]:
        cases += [
            case(name, "opened", opened), case(name, "not opened", think), case(name, "forced", think, forced=True),
            case(name, "forced and opened", opened, forced=True),
            case(name, "no reasoning", "Only an answer with a < in it.", forced=False),
            case(name, "cut short", "<think>\nI think and", forced=True),
        ]
    for name in ["qwen3", "glm45"]:
        cases.append(case(name, "a call ends it", "<think>\nI need a tool.<tool_call>\n{}\n</tool_call>", forced=True))
    cases += [
        case("kimi_k2", "a call ends it", "I need a tool.<|tool_calls_section_begin|>x", forced=True),
        case("kimi", "opened", "◁think▷hm◁/think▷yes"), case("kimi", "none", "yes ◁ no"),
        case("mistral", "opened", "[THINK]hm [x][/THINK]yes"), case("mistral", "none", "[1] yes"),
        case("gemma4", "opened", "<|channel>thought\nhm<channel|>yes"), case("gemma4", "none", "a <| b"),
        case("minimax-append-think", "as it is", "hm</think>yes"),
        case("gpt-oss", "analysis and final", harmony("analysis", "hm") + "<|start|>assistant" + harmony("final", "yes", "<|return|>")),
        case("gpt-oss", "a call", harmony("analysis", "hm") + "<|start|>assistant" + harmony("commentary to=functions.now <|constrain|>json", "{}", "<|call|>")),
        case("gpt-oss", "final without an end", harmony("analysis", "hm") + "<|start|>assistant" + harmony("final", "yes", "")),
    ]
    return cases


def stub_modules(root):
    """SGLang's parsers without the rest of it."""
    from pydantic import BaseModel

    class Function(BaseModel):
        name: str
        parameters: object = None
        strict: bool | None = None

    class Tool(BaseModel):
        type: str = "function"
        function: Function

    for package in ["sglang", "sglang.srt", "sglang.srt.function_call", "sglang.srt.parser",
                    "sglang.srt.entrypoints", "sglang.srt.entrypoints.openai"]:
        module = types.ModuleType(package)
        module.__path__ = [str(root / package.replace(".", "/"))]
        sys.modules[package] = module

    class Anything(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    protocol = Anything("sglang.srt.entrypoints.openai.protocol")
    protocol.Tool, protocol.Function = Tool, Function
    sys.modules[protocol.__name__] = protocol
    environ = types.ModuleType("sglang.srt.environ")

    class Off:
        def __getattr__(self, _):
            return self

        def get(self):
            return 0

    environ.envs = Off()
    sys.modules[environ.__name__] = environ
    for name in ["sglang.srt.parser.beam", "sglang.srt.parser.response_template"]:
        sys.modules[name] = Anything(name)
    return Tool, Function


DETECTORS = {
    "qwen25": "qwen25_detector.Qwen25Detector", "hermes": "hermes_detector.HermesDetector",
    "llama3": "llama32_detector.Llama32Detector", "mistral": "mistral_detector.MistralDetector",
    "deepseekv3": "deepseekv3_detector.DeepSeekV3Detector", "deepseekv31": "deepseekv31_detector.DeepSeekV31Detector",
    "kimi_k2": "kimik2_detector.KimiK2Detector", "qwen3_coder": "qwen3_coder_detector.Qwen3CoderDetector",
    "glm45": "glm4_moe_detector.Glm4MoeDetector", "glm47": "glm47_moe_detector.Glm47MoeDetector",
    "gemma4": "gemma4_detector.Gemma4Detector", "lfm2": "lfm2_detector.Lfm2Detector",
    "pythonic": "pythonic_detector.PythonicDetector", "minimax-m2": "minimax_m2.MinimaxM2Detector",
    "gpt-oss": "gpt_oss_detector.GptOssDetector",
}


def upstream_calls(case, tools):
    module, name = DETECTORS[case["parser"]].split(".")
    detector = getattr(importlib.import_module("sglang.srt.function_call." + module), name)()
    has_call = detector.has_tool_call(case["text"])
    result = detector.detect_and_parse(case["text"], tools)
    if not result.calls and not has_call:
        return text_only(case["text"])
    return calls(*((call.name, call.parameters) for call in result.calls), text=result.normal_text)


def upstream_reasoning(case):
    from sglang.srt.parser.reasoning_parser import ReasoningParser

    parser = ReasoningParser(case["parser"], stream_reasoning=False, force_reasoning=case["forced"])
    reasoning, content = parser.parse_non_stream(case["text"])
    return {"reasoning": reasoning, "content": content}


def golden(case, upstream):
    if case["ours"] == upstream:
        case["ours"] = None
    return {**{key: value for key, value in case.items() if value is not None}, "upstream": upstream}


def main():
    Tool, Function = stub_modules(Path(sys.argv[1]))
    tools = [Tool(function=Function(**tool)) for tool in TOOLS]
    with contextlib.redirect_stderr(io.StringIO()):
        found = {
            "tools": [{"type": "function", "function": tool} for tool in TOOLS],
            "tool_call": [golden(c, upstream_calls(c, tools)) for c in tool_cases()],
            "reasoning": [golden(c, upstream_reasoning(c)) for c in reasoning_cases()],
        }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


main()
