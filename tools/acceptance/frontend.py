"""SGLang's frontend language against our server: gen, select, fork, roles, grammars, types, batches, streams.

    python frontend.py BINARY [ARGUMENTS OF launch-server ...]

To be run by a Python that can `import sglang`: `pip install --no-deps sglang==0.5.23`, and beside it torch, transformers,
numpy, requests, aiohttp, orjson, psutil, pybase64, packaging, pillow, starlette, fastapi, msgspec, pydantic, pyzmq, tqdm
and IPython. Without a model in the arguments it is the server's own, SmolLM2-135M-Instruct; the answers below are what that
model says greedily, and are facts that other models know too. Of the ways to choose in `select` only the default works
with servers of 0.5.23: the others count with the first scored token's log-probability, which SGLang leaves out, as we do.
"""

import json
import re
import sys

import sglang as sgl

from local_server import LocalServer, ask_json, check

CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Italy": "Rome"}


@sgl.function
def capital(s, country):
    s += f"The capital of France is Paris. The capital of Germany is Berlin. The capital of {country} is"
    s += sgl.gen("answer", max_tokens=8, stop=[".", ","], temperature=0)


@sgl.function
def choose(s):
    s += "The capital of France is Paris. The capital of Japan is"
    s += sgl.select("city", choices=[" London", " Tokyo", " Ottawa"])


@sgl.function
def typed(s, dtype):
    s += f"Here is a value of type {dtype.__name__}: "
    s += sgl.gen("value", max_tokens=24, dtype=dtype, temperature=0)


@sgl.function
def constrained(s, **how):
    s += "Give me an example: " + sgl.gen("text", max_tokens=48, temperature=0, **how)


@sgl.function
def forked(s):
    s += "Two things to say of cats:\n"
    branches = s.fork(2)
    for number, branch in enumerate(branches):
        branch += f"{number + 1}. Cats" + sgl.gen("line", max_tokens=12, stop="\n", temperature=0)
    for branch in branches:
        s += branch["line"] + "\n"
    s += "In short, cats" + sgl.gen("rest", max_tokens=6, temperature=0)


@sgl.function
def conversation(s):
    s += sgl.system("You answer in one word.")
    s += sgl.user("What is the capital of France?")
    s += sgl.assistant(sgl.gen("answer", max_tokens=16, temperature=0))
    s += sgl.user("And what did you say?")
    s += sgl.assistant(sgl.gen("again", max_tokens=16, temperature=0))


@sgl.function
def counted(s):
    s += "One, two, three, four," + sgl.gen("next", max_tokens=4, temperature=0, return_logprob=True, top_logprobs_num=2,
                                              logprob_start_len=0, return_text_in_logprobs=True)


def greedy(url, prompt, **params):
    return ask_json(f"{url}/generate", {"text": prompt, "sampling_params": {"temperature": 0, **params}})


def generation(url):
    for country, city in CAPITALS.items():
        state = capital.run(country=country)
        check(state["answer"].strip() == city, f"gen: {country}: {state['answer']!r}")
    states = capital.run_batch([{"country": country} for country in CAPITALS], num_threads=3)
    check([state["answer"].strip() for state in states] == list(CAPITALS.values()), "run_batch: the same three answers")
    streamed = capital.run(country="Italy", stream=True)
    pieces = list(streamed.text_iter("answer"))
    check("".join(pieces) == states[2]["answer"], f"stream: {pieces}")
    state = counted.run()
    meta = state.get_meta_info("next")
    direct = greedy(url, "One, two, three, four,", max_new_tokens=4)
    check(state["next"] == direct["text"] and "five" in state["next"], f"gen: as asked directly: {state['next']!r}")
    tokens = meta["output_token_logprobs"]
    check("".join(text for _, _, text in tokens) == state["next"], "return_text_in_logprobs: the tokens' text is the text")
    check(len(meta["input_token_logprobs"]) == meta["prompt_tokens"] and meta["input_token_logprobs"][0][0] is None,
          "logprob_start_len 0: every token of the prompt, the first without a log-probability")
    check(all(top[0][:2] == token[:2] for top, token in zip(meta["output_top_logprobs"], tokens)), "the greedy token leads")


def selection():
    state = choose.run()
    meta = state.get_meta_info("city")
    scores = [round(score, 3) for score in meta["normalized_prompt_logprobs"]]
    check(state["city"] == " Tokyo" and max(scores) == scores[1], f"select: {scores}")
    check(all(tokens[0][0] is None for tokens in meta["input_token_logprobs"]), "the first of the scored tokens has no score")


def grammars():
    for dtype, is_valid in {int: int, float: float, bool: {"True": 1, "False": 1}.__getitem__, str: json.loads}.items():
        value = typed.run(dtype=dtype)["value"]
        is_valid(value.strip())
        check(True, f"dtype {dtype.__name__}: {value!r}")
    for regex in (r"(yes|no), [a-z]{3,6}\.", r"\d{3}-\d{4}"):
        text = constrained.run(regex=regex)["text"]
        check(re.fullmatch(regex, text), f"regex {regex}: {text!r}")
    schema = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 99}}, "required": ["age"],
              "additionalProperties": False}
    value = json.loads(constrained.run(json_schema=json.dumps(schema))["text"])
    check(list(value) == ["age"] and value["age"] <= 99, f"json_schema: {value}")
    text = constrained.run(choices=["apple", "pear"])["text"]
    check(text in ("apple", "pear"), f"gen with choices: {text!r}")


def programs(url):
    text = forked.run().text()
    lines = text.splitlines()
    for number in (1, 2):
        prompt = f"Two things to say of cats:\n{number}. Cats"
        alone = greedy(url, prompt, max_new_tokens=12, stop="\n")["text"]
        check(lines[number] == alone, f"fork: branch {number} is its prompt alone: {alone!r}")
    prompt = text[: text.index("In short, cats") + len("In short, cats")]
    check(text == prompt + greedy(url, prompt, max_new_tokens=6)["text"], "fork: joined, and went on")
    state = conversation.run()
    messages = [{"role": message["role"], "content": message["content"]} for message in state.messages()]
    answer = ask_json(f"{url}/v1/chat/completions", {"messages": messages[:2], "temperature": 0, "max_tokens": 16})
    check(state["answer"] == answer["choices"][0]["message"]["content"], f"roles: as chat answers: {state['answer']!r}")
    check([message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant"], "roles: in turns")
    check(state["again"], f"roles: a second turn: {state['again']!r}")


def main():
    binary, *more = sys.argv[1:]
    with LocalServer(binary, *more) as server:
        backend = sgl.RuntimeEndpoint(server.url, chat_template_name="chatml")
        sgl.set_default_backend(backend)
        check(backend.get_server_info()["max_total_num_tokens"] > 0, "get_server_info")
        generation(server.url)
        selection()
        grammars()
        programs(server.url)
        backend.cache_prefix("A prefix that is worth keeping, for it is long enough for pages of it. " * 4)
        cached = greedy(server.url, "A prefix that is worth keeping, for it is long enough for pages of it. " * 4, max_new_tokens=1)
        check(cached["meta_info"]["cached_tokens"] > 32, f"cache_prefix: {cached['meta_info']['cached_tokens']} tokens are kept")
        backend.flush_cache()
        check(True, "flush_cache")


if __name__ == "__main__":
    main()
