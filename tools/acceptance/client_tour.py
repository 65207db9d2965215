"""A tour of a running server with the clients people use: openai, anthropic and ollama from PyPI.

    python -m venv tour && tour/bin/pip install openai==3.57.0 anthropic==2.14.0 ollama==0.6.3
    tour/bin/python client_tour.py http://127.0.0.1:30000 [--embeddings URL] [--record FILE | --compare FILE]

`client_tour.smollm2.json` is the transcript of the folder `plain` of tools/oracle/smollm2_folder.py on the CPU, with
the same folder behind `--is-embedding` for the embeddings.

Each stop asks something and checks what must hold whatever the model says: streams add up to the whole answer, counts
add up, errors arrive as the client's own classes. What a greedy model says is written to a transcript, so that two runs
(or two servers) can be compared. The model must be a chat model; it need not be good at calling tools.
"""

import argparse
import difflib
import json
import sys

import anthropic
import ollama
import openai

QUESTION = "What is the capital of France? Answer in one word."
NOW = {"type": "object", "properties": {"zone": {"type": "string", "maxLength": 8}}, "required": ["zone"],
       "additionalProperties": False}
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"],
        "additionalProperties": False}


def city(text):
    """What an answer says that follows CITY."""
    value = json.loads(text)
    assert list(value) == ["city"] and isinstance(value["city"], str), value
    return value


class Tour:
    """Stops, and what was seen at them."""

    def __init__(self):
        self.seen = []
        self.failures = 0

    def stop(self, name, visit):
        try:
            seen = visit()
        except Exception as error:  # one stop must not end the tour
            self.failures += 1
            print(f"FAIL  {name}: {type(error).__name__}: {error}")
            return
        self.seen.append({"stop": name, "seen": seen})
        print(f"ok    {name}: {json.dumps(seen)[:110]}")


def refused(error_class, call, word):
    """The client's own error, whose text names what is wrong."""
    try:
        call()
    except error_class as error:
        assert word in str(error), f"{word!r} is not in {error}"
        return f"refused: {word}"
    raise AssertionError("it was accepted")


def tour_openai(tour, url, model):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    chat = client.chat.completions.create
    asked = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 24}

    def whole():
        answer = chat(**asked)
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        return [answer.choices[0].message.content, answer.choices[0].finish_reason]

    def stream():
        chunks = list(chat(**asked, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole()[0], text
        assert chunks[-1].usage.completion_tokens > 0
        return text

    def logprobs():
        content = chat(**asked | {"max_tokens": 3}, logprobs=True, top_logprobs=2).choices[0].logprobs.content
        assert len(content) == 3 and all(len(token.top_logprobs) == 2 for token in content)
        assert all(token.logprob <= 0 and token.logprob == token.top_logprobs[0].logprob for token in content)
        return [token.token for token in content]

    function = {"name": "now", "description": "Tells the time", "parameters": NOW}
    offered = {"tools": [{"type": "function", "function": function}]}

    def tools():
        return chat(**asked, **offered).choices[0].finish_reason in ("stop", "length", "tool_calls")

    def forced_tool():
        forced = asked | offered | {"max_tokens": 60, "tool_choice": "required", "parallel_tool_calls": False}
        answer = chat(**forced).choices[0]
        (call,) = answer.message.tool_calls
        arguments = json.loads(call.function.arguments)
        assert call.function.name == "now" and list(arguments) == ["zone"], call
        assert answer.finish_reason == "tool_calls" and not answer.message.content
        chunks = chat(**forced, stream=True)
        deltas = [chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices]
        pieces = [delta[0].function.arguments or "" for delta in deltas if delta]
        assert json.loads("".join(pieces)) == arguments
        return arguments

    def json_schema():
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": CITY, "strict": True}}
        answer = chat(**asked | {"max_tokens": 40}, response_format=form)
        return city(answer.choices[0].message.content)

    def no_embeddings():
        call = lambda: client.embeddings.create(model=model, input="Paris")
        return refused(openai.BadRequestError, call, "embedding")

    tour.stop("openai: models", lambda: client.models.retrieve(model).owned_by)
    tour.stop("openai: chat", whole)
    tour.stop("openai: chat stream", stream)
    tour.stop("openai: log-probabilities", logprobs)
    tour.stop("openai: tools", tools)
    tour.stop("openai: forced tool", forced_tool)
    tour.stop("openai: JSON schema", json_schema)
    tour.stop("openai: no embeddings", no_embeddings)
    tour.stop(
        "openai: refusal", lambda: refused(openai.BadRequestError, lambda: chat(**asked | {"top_p": 3}), "top_p")
    )


def tour_embeddings(tour, url):
    """A server of its own, whose model gives vectors."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    texts = ["The capital of France is Paris.", "Paris is the capital of France.", "Bread needs yeast."]

    def vectors():
        # The client asks for base64 and decodes it.
        answer = client.embeddings.create(model=model, input=texts)
        plain = client.embeddings.create(model=model, input=texts, encoding_format="float")
        rows = [row.embedding for row in answer.data]
        assert [row.index for row in answer.data] == [0, 1, 2] and answer.usage.prompt_tokens > 0
        assert max(abs(a - b) for row, other in zip(rows, plain.data) for a, b in zip(row, other.embedding)) < 1e-6
        assert all(abs(sum(value * value for value in row) - 1) < 1e-3 for row in rows)
        alike = [round(sum(a * b for a, b in zip(rows[0], row)), 2) for row in rows]
        assert alike[1] > alike[2], alike
        return [len(rows[0]), alike]

    tour.stop("embeddings: vectors", vectors)
    tour.stop("embeddings: refusal", lambda: refused(
        openai.BadRequestError, lambda: client.embeddings.create(model=model, input=""), "empty"))
    tour.stop("embeddings: no chat", lambda: refused(openai.BadRequestError, lambda: client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hi"}]), "embeddings"))


def tour_responses(tour, url, model):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    create = client.responses.create
    asked = {"model": model, "input": QUESTION, "temperature": 0, "max_output_tokens": 24}

    def whole():
        answer = create(**asked, instructions="Be brief.")
        assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
        assert client.responses.retrieve(answer.id).output_text == answer.output_text
        return [answer.output_text, answer.status]

    def stream():
        events = list(create(**asked, instructions="Be brief.", stream=True))
        kinds = list(dict.fromkeys(event.type for event in events))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert text == events[-1].response.output_text == whole()[0]
        return kinds

    def goes_on():
        first = create(model=model, input="My name is Ada.", temperature=0, max_output_tokens=16)
        next_one = create(
            model=model, input="What is my name?", previous_response_id=first.id, temperature=0, max_output_tokens=16)
        assert next_one.usage.input_tokens > first.usage.input_tokens
        return next_one.output_text

    def background():
        begun = create(**asked | {"max_output_tokens": 400}, background=True, extra_body={"stop": ["no such text"]})
        assert begun.status == "in_progress"
        ended = client.responses.cancel(begun.id)
        assert ended.status in ("cancelled", "completed", "incomplete"), ended.status
        return begun.status

    def json_schema():
        form = {"format": {"type": "json_schema", "name": "answer", "schema": CITY, "strict": True}}
        answer = create(**asked | {"max_output_tokens": 40}, text=form)
        assert answer.text.format.type == "json_schema"
        return city(answer.output_text)

    def logprobs():
        answer = create(**asked | {"max_output_tokens": 16}, include=["message.output_text.logprobs"], top_logprobs=2)
        tokens = answer.output[0].content[0].logprobs
        assert "".join(token.token for token in tokens).startswith(answer.output_text)
        assert all(token.logprob == token.top_logprobs[0].logprob <= 0 for token in tokens)
        return [token.token for token in tokens][:3]

    tour.stop("responses: whole", whole)
    tour.stop("responses: JSON schema", json_schema)
    tour.stop("responses: log-probabilities", logprobs)
    tour.stop("responses: stream", stream)
    tour.stop("responses: conversation", goes_on)
    tour.stop("responses: background", background)
    tour.stop("responses: refusal", lambda: refused(
        openai.BadRequestError, lambda: create(**asked, tools=[{"type": "web_search"}]), "web_search"))
    tour.stop("responses: unknown", lambda: refused(
        openai.NotFoundError, lambda: client.responses.retrieve("resp_none"), "not found"))


def tour_anthropic(tour, url, model):
    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    asked = {"model": model, "max_tokens": 24, "messages": [{"role": "user", "content": QUESTION}],
             "extra_body": {"temperature": 0}}

    def whole():
        answer = client.messages.create(**asked, system="Be brief.")
        counted = client.messages.count_tokens(model=model, messages=asked["messages"], system="Be brief.")
        usage = answer.usage
        assert usage.input_tokens + usage.cache_read_input_tokens == counted.input_tokens, (usage, counted)
        return [answer.content[0].text, answer.stop_reason]

    def stream():
        with client.messages.stream(**asked, system="Be brief.") as events:
            text = "".join(events.text_stream)
            message = events.get_final_message()
        assert text == message.content[0].text == whole()[0]
        assert message.usage.output_tokens > 0
        return [text, message.stop_reason]

    def tool_result():
        messages = [
            {"role": "user", "content": "What time is it?"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "now", "input": {"zone": "CET"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "noon"}]},
        ]
        tools = [{"name": "now", "description": "Tells the time", "input_schema": NOW}]
        answer = client.messages.create(**asked | {"messages": messages}, tools=tools)
        return answer.stop_reason in ("end_turn", "max_tokens", "tool_use")

    def stop_sequence():
        answer = client.messages.create(**asked, stop_sequences=["a", "e", "i"])
        assert answer.stop_reason == "stop_sequence" and answer.stop_sequence in ("a", "e", "i"), answer
        return answer.stop_sequence

    def forced_tool():
        tools = [{"name": "now", "description": "Tells the time", "input_schema": NOW}]
        more = {"tools": tools, "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}
        answer = client.messages.create(**asked | {"max_tokens": 60}, **more)
        (call,) = answer.content
        assert (call.type, call.name, list(call.input)) == ("tool_use", "now", ["zone"]), call
        with client.messages.stream(**asked | {"max_tokens": 60}, **more) as events:
            (streamed,) = events.get_final_message().content
        assert streamed.input == call.input and answer.stop_reason == "tool_use"
        return call.input

    def json_schema():
        form = {"format": {"type": "json_schema", "schema": CITY}}
        answer = client.messages.create(**asked | {"max_tokens": 40}, output_config=form)
        with client.messages.stream(**asked | {"max_tokens": 40}, output_config=form) as events:
            assert "".join(events.text_stream) == answer.content[0].text
        return city(answer.content[0].text)

    def thinking():
        budget = {"type": "enabled", "budget_tokens": 1024}
        answer = client.messages.create(**asked | {"max_tokens": 1100}, thinking=budget, stop_sequences=["."])
        return answer.stop_reason

    image = [{"role": "user", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]}]
    tour.stop("anthropic: message", whole)
    tour.stop("anthropic: stream", stream)
    tour.stop("anthropic: tools", tool_result)
    tour.stop("anthropic: forced tool", forced_tool)
    tour.stop("anthropic: JSON schema", json_schema)
    tour.stop("anthropic: thinking budget", thinking)
    tour.stop("anthropic: stop sequence", stop_sequence)
    tour.stop("anthropic: refusal", lambda: refused(
        anthropic.BadRequestError, lambda: client.messages.create(**asked | {"messages": image}), "image"))


def tour_ollama(tour, url, model):
    client = ollama.Client(host=url)
    options = {"temperature": 0, "num_predict": 24}
    messages = [{"role": "user", "content": QUESTION}]

    def whole():
        answer = client.chat(model=model, messages=messages, options=options)
        assert answer.total_duration == answer.prompt_eval_duration + answer.eval_duration
        return [answer.message.content, answer.done_reason]

    def stream():
        lines = list(client.chat(model=model, messages=messages, options=options, stream=True))
        text = "".join(line.message.content or "" for line in lines)
        assert text == whole()[0] and lines[-1].done and lines[-1].eval_count > 0
        return text

    def generate():
        answer = client.generate(model=model, prompt=QUESTION, options=options)
        assert answer.response == whole()[0], answer.response
        lines = list(client.generate(model=model, prompt="The capital of Italy is", raw=True, options=options, stream=True))
        return "".join(line.response for line in lines)

    def catalogue():
        assert [card.model for card in client.list().models] == [model]
        shown = client.show(model)
        assert "completion" in shown.capabilities and shown.template
        return shown.capabilities

    def json_schema():
        long = options | {"num_predict": 40}
        said = city(client.chat(model=model, messages=messages, options=long, format=CITY).message.content)
        assert city(client.generate(model=model, prompt=QUESTION, options=long, format=CITY).response) == said
        free = client.chat(model=model, messages=messages, options=options, format="json").message.content
        assert free.lstrip().startswith("{"), free
        return said

    def tools():
        function = {"name": "now", "description": "Tells the time", "parameters": NOW}
        answer = client.chat(
            model=model, messages=messages, options=options, tools=[{"type": "function", "function": function}])
        return answer.done_reason in ("stop", "length")

    tour.stop("ollama: catalogue", catalogue)
    tour.stop("ollama: chat", whole)
    tour.stop("ollama: chat stream", stream)
    tour.stop("ollama: generate", generate)
    tour.stop("ollama: JSON schema", json_schema)
    tour.stop("ollama: tools", tools)
    tour.stop("ollama: refusal", lambda: refused(
        ollama.ResponseError, lambda: client.chat(model=model, messages=messages, options={"mirostat": 2}), "mirostat"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--embeddings", metavar="URL", help="a server with --is-embedding")
    parser.add_argument("--record", metavar="FILE", help="write the transcript")
    parser.add_argument("--compare", metavar="FILE", help="compare the transcript with a recorded one")
    args = parser.parse_args()
    url = args.url.rstrip("/")
    model = openai.OpenAI(base_url=f"{url}/v1", api_key="none").models.list().data[0].id
    tour = Tour()
    for part in (tour_openai, tour_responses, tour_anthropic, tour_ollama):
        part(tour, url, model)
    if args.embeddings:
        tour_embeddings(tour, args.embeddings.rstrip("/"))
    transcript = json.dumps(tour.seen, indent=1) + "\n"
    if args.record:
        with open(args.record, "w") as file:
            file.write(transcript)
    is_same = True
    if args.compare:
        with open(args.compare) as file:
            recorded = file.read()
        diff = list(difflib.unified_diff(recorded.splitlines(), transcript.splitlines(), "recorded", "now", lineterm=""))
        print("\n".join(diff))
        is_same = not diff
    print(f"{len(tour.seen)} passed, {tour.failures} failed" + ("" if is_same else ", and the transcripts differ"))
    sys.exit(0 if is_same and tour.failures == 0 else 1)


if __name__ == "__main__":
    main()
