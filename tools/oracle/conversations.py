"""Goldens of SGLang's conversations: every name, every separator style as a JSON file, and continued answers.

    python conversations.py .../sglang/srt/parser/conversation.py

writes crates/tokenizer/testdata/chat_templates/conversations.json. The file is that of the wheel of sglang 0.5.23; what
it imports of SGLang is replaced by stubs, so nothing else has to be installed.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path
from types import SimpleNamespace

OUT = Path(__file__).resolve().parents[2] / "crates/tokenizer/testdata/chat_templates/conversations.json"
# Prompts of embedding models.
NOT_FOR_CHAT = ("gme-qwen2-vl", "QWEN2_VL_EMBED")


def sglang(path):
    def stub(name, **attributes):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(attributes)

    for name in ("sglang", "sglang.srt", "sglang.srt.entrypoints", "sglang.srt.entrypoints.openai"):
        stub(name)
    stub("sglang.srt.entrypoints.openai.protocol", ChatCompletionRequest=object)
    # System prompts that are files of the model's repository: none without it.
    stub("sglang.srt.utils", GLM_MEDIA_CONFIG_KEYS=(), ImageData=object, VideoData=object, read_system_prompt_from_file=lambda _: "")
    spec = importlib.util.spec_from_file_location("conversation", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["conversation"] = module
    spec.loader.exec_module(module)
    return module


def message(role, content):
    return {"role": role, "content": content}


ONE = [message("user", " What is the capital of France?\n")]
SYSTEM = [message("system", "Be brief.\n"), message("user", "Hi\r\n\n\nthere"), message("assistant", " Hello! "), message("user", "Bye")]
PARTS = [message("user", [{"type": "text", "text": "a"}, {"type": "text", "text": " b"}])]
# An answer without a text, two users in a row, a second system message.
ODD = [message("user", "a"), message("assistant", ""), message("user", "b"), message("user", "c"), message("system", "late")]
CONTINUED = [message("user", "Count."), message("assistant", "One, two,")]


def request(messages):
    def typed(content):
        return content if isinstance(content, str) else [SimpleNamespace(**part) for part in content]

    return SimpleNamespace(messages=[SimpleNamespace(role=m["role"], content=typed(m["content"])) for m in messages])


def continued(conversation):
    """The prompt inside the last answer, as `_apply_conversation_template` makes it."""
    conversation.messages.pop()
    prompt = conversation.get_prompt()
    stops = conversation.stop_str or []
    for end in [*([stops] if isinstance(stops, str) else stops), conversation.sep, conversation.sep2]:
        if end and prompt.endswith(end):
            prompt = prompt[: -len(end)]
    return prompt


def main(path):
    module = sglang(path)
    cases = []

    def add(argument, name, title, messages):
        prompt = module.generate_chat_conv(request(messages), name).get_prompt()
        cases.append({**argument, "case": title, "messages": messages, "expected": prompt})

    names = [name for name in sorted(module.chat_templates) if name not in NOT_FOR_CHAT]
    for name in names:
        for title, messages in (("one", ONE), ("system", SYSTEM)):
            add({"name": name}, name, title, messages)
        prompt = continued(module.generate_chat_conv(request(CONTINUED), name))
        # Upstream leaves the end of the turn where it is followed by more than one separator.
        if prompt.endswith(CONTINUED[-1]["content"]):
            cases.append({"name": name, "case": "continued", "messages": CONTINUED, "continued": True, "expected": prompt})
    for name in ("vicuna_v1.1", "llama-2", "chatml", "gemma-it"):
        add({"name": name}, name, "parts", PARTS)
        add({"name": name}, name, "odd", ODD)
    for style in module.SeparatorStyle:
        if style.name in NOT_FOR_CHAT:
            continue
        file = {"name": "chatglm2" if style.name == "CHATGLM" else "mine", "system": "<sys>", "user": "<u>", "assistant": "<a>", "sep_style": style.name, "sep": "<1>", "sep2": "<2>", "stop_str": "<stop>"}
        conversation = module.Conversation(name=file["name"], system_template=file["system"] + "\n{system_message}", roles=(file["user"], file["assistant"]), sep_style=style, sep=file["sep"], sep2=file["sep2"])
        module.register_conv_template(conversation, override=True)
        add({"file": file}, file["name"], "one", ONE)
        add({"file": file}, file["name"], "system", SYSTEM)
    stops = {name: module.chat_templates[name].stop_str or [] for name in names}
    stops = {name: [stop] if isinstance(stop, str) else list(stop) for name, stop in stops.items()}
    OUT.write_text(json.dumps({"stop_strings": stops, "cases": cases}, indent=1, ensure_ascii=False) + "\n")
    print(len(names), "names,", len(cases), "cases")


if __name__ == "__main__":
    main(sys.argv[1])
