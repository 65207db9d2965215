"""A running server through the frameworks people put before it: LangChain and LiteLLM.

    python -m venv frameworks && frameworks/bin/pip install langchain-openai==1.7.4 litellm==1.110.2
    frameworks/bin/python frameworks.py http://127.0.0.1:30000

Each call asks what the framework offers (chat, streams, tools, structured output, reasoning, other dialects) in the words
that the framework puts it in. The model must be a chat model; what it says does not matter. Exits with the number of failures.
"""

import logging
import sys

import litellm
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel, Field

QUESTION = "What is the capital of France? Answer in one word."
NOW = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {
    "type": "object", "properties": {"zone": {"type": "string", "maxLength": 5}}, "required": ["zone"],
    "additionalProperties": False}}}


class City(BaseModel):
    city: str = Field(max_length=12)


class Stops:
    def __init__(self):
        self.failures = 0

    def __call__(self, name, visit):
        try:
            seen = visit()
            assert seen, seen
            print(f"ok    {name}: {str(seen)[:90]!r}")
        except Exception as error:  # one stop must not end the tour
            self.failures += 1
            print(f"FAIL  {name}: {type(error).__name__}: {error}")


def langchain(stop, url, responses):
    name = "langchain, responses" if responses else "langchain, chat"
    asked = {"base_url": f"{url}/v1", "api_key": "none", "model": "m", "temperature": 0, "use_responses_api": responses,
             "max_retries": 0}
    short = ChatOpenAI(**asked, max_tokens=16)
    long = ChatOpenAI(**asked, max_tokens=256)
    whole = short.invoke(QUESTION)
    stop(f"{name}: whole", lambda: whole.text)

    def stream():
        text = "".join(chunk.text for chunk in short.stream(QUESTION))
        assert text == whole.text, text
        return text

    def usage():
        counted = whole.usage_metadata
        assert counted["total_tokens"] == counted["input_tokens"] + counted["output_tokens"]
        return counted

    def tools():
        calls = long.bind_tools([NOW], tool_choice="any").invoke("What time is it in Rome?").tool_calls
        assert calls[0]["name"] == "now" and list(calls[0]["args"]) == ["zone"], calls
        return calls

    stop(f"{name}: stream", stream)
    stop(f"{name}: usage", usage)
    stop(f"{name}: tools", tools)
    for method in ("json_schema", "function_calling"):
        stop(f"{name}: {method}", lambda: long.with_structured_output(City, method=method).invoke(QUESTION))


def of_litellm(stop, url):
    def chat(model, base=f"{url}/v1", **more):
        messages = [{"role": "user", "content": QUESTION}]
        return litellm.completion(model=model, api_base=base, api_key="none", messages=messages, max_tokens=12, **more)

    def said(*args, **more):
        return chat(*args, **more).choices[0].message.content

    def stream():
        chunks = list(chat("openai/m", stream=True, stream_options={"include_usage": True}))
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    extra = {"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}, "separate_reasoning": True}
    stop("litellm: whole", lambda: said("openai/m"))
    stop("litellm: stream", stream)
    stop("litellm: SGLang's own fields", lambda: said("openai/m", extra_body=extra))
    stop("litellm: tools", lambda: chat("openai/m", tools=[NOW], tool_choice="auto", parallel_tool_calls=False).id)
    stop("litellm: an effort", lambda: said("hosted_vllm/m", reasoning_effort="low"))
    stop("litellm: no thinking", lambda: said("hosted_vllm/m", thinking={"type": "disabled"}))
    stop("litellm: as Anthropic", lambda: said("anthropic/m", base=url))
    stop("litellm: as Ollama", lambda: said("ollama_chat/m", base=url))
    asked = {"api_base": f"{url}/v1", "api_key": "none"}
    text = litellm.text_completion
    prompt = "The capital of France is"
    stop("litellm: completions",
         lambda: text(model="text-completion-openai/m", prompt=prompt, max_tokens=4, **asked).choices[0].text)
    stop("litellm: responses", lambda: litellm.responses(model="openai/m", input=QUESTION, max_output_tokens=8, **asked).output)


def main():
    url = sys.argv[1].rstrip("/")
    logging.disable(logging.WARNING)  # it looks for prices on the internet
    litellm.suppress_debug_info = True
    stop = Stops()
    for responses in (False, True):
        langchain(stop, url, responses)
    completion = OpenAI(base_url=f"{url}/v1", api_key="none", model="m", max_tokens=6)
    stop("langchain: completions", lambda: completion.invoke("The capital of France is"))
    of_litellm(stop, url)
    sys.exit(stop.failures)


if __name__ == "__main__":
    main()
