"""At the default log level no line of the server's output holds a prompt, an answer or a key.

    python log_privacy.py BINARY [ARGUMENTS OF launch-server ...]

Sends a marked text by every dialect, in requests that are answered and in such that are refused, with right, wrong and
missing keys, streamed, hung up on and aborted; then greps everything that the server has written for the mark, the keys,
and what the model said.
"""

import json
import socket
import sys

from local_server import LocalServer, ask, ask_json, check

MARK, CLIENT, ADMIN, WRONG = "xyzzyplover", "client-key-7f3a", "admin-key-9c1d", "wrong-key-55e0"
KEY = [("Authorization", f"Bearer {CLIENT}")]
TEXT = f"The word {MARK} means"
MESSAGES = [{"role": "user", "content": TEXT}]
TOOL = {"type": "function", "function": {"name": MARK, "parameters": {"type": "object", "properties": {MARK: {"type": "string"}}}}}

# Path and body; whether it is answered or refused does not matter here, only that it is not the server's fault.
REQUESTS = [
    ("/generate", {"text": TEXT, "sampling_params": {"max_new_tokens": 12, "temperature": 0}}),
    ("/generate", {"text": TEXT, "stream": True, "sampling_params": {"max_new_tokens": 4, "stop": [MARK], "stop_regex": MARK}}),
    ("/generate", {"text": TEXT, "sampling_params": {"max_new_tokens": 4, "regex": f"{MARK}("}}),
    ("/generate", {"text": TEXT, "sampling_params": {"max_new_tokens": 4, "json_schema": f'{{"type": "{MARK}"}}'}}),
    ("/generate", {"text": TEXT, "sampling_params": {"max_new_tokens": 4, "ebnf": f"root ::= {MARK}"}}),
    ("/generate", {"text": TEXT, "sampling_params": {"max_new_tokens": MARK}}),
    ("/generate", {"text": TEXT, "sampling_params": {MARK: 1}}),
    ("/generate", {"text": [TEXT, 7]}),
    ("/generate", {"text": TEXT * 4000}),
    ("/generate", {"text": TEXT, "image_data": MARK}),
    ("/v1/completions", {"model": MARK, "prompt": TEXT, "max_tokens": 4, "logprobs": 2, "echo": True}),
    ("/v1/completions", {"model": MARK, "prompt": TEXT, "suffix": MARK}),
    ("/v1/chat/completions", {"model": MARK, "messages": MESSAGES, "max_tokens": 4, "user": MARK, "tools": [TOOL]}),
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 4, "tools": [TOOL], "tool_choice": "required"}),
    ("/v1/chat/completions", {"messages": [{"role": MARK, "content": [{"type": MARK}]}]}),
    ("/v1/chat/completions", {"messages": MESSAGES, "chat_template_kwargs": {"tools": MARK}, "max_tokens": 2}),
    ("/v1/messages", {"model": "m", "max_tokens": 4, "messages": MESSAGES, "system": MARK}),
    ("/v1/responses", {"model": "m", "input": TEXT, "max_output_tokens": 16}),
    ("/api/chat", {"model": "m", "messages": MESSAGES, "options": {"num_predict": 4}}),
    ("/api/generate", {"model": "m", "prompt": TEXT, "options": {"num_predict": 4}}),
    ("/v1/embeddings", {"model": "m", "input": TEXT}),
    ("/v1/score", {"query": TEXT, "items": [MARK], "label_token_ids": [1]}),
    ("/v1/rerank", {"query": TEXT, "documents": [MARK]}),
    ("/tokenize", {"prompt": TEXT}),
    ("/parse_function_call", {"text": TEXT, "tools": [TOOL], "tool_call_parser": "qwen25"}),
    ("/separate_reasoning", {"text": f"<think>{MARK}", "reasoning_parser": "qwen3"}),
    ("/abort_request", {"rid": MARK}),
    ("/update_weights_from_disk", {"model_path": f"/nowhere/{CLIENT}"}),
]


def raw(server, text):
    """Sends `text` as it is and hangs up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(text.encode())


def visit(server):
    answered = 0
    for path, body in REQUESTS:
        status, answer = ask(server.url + path, body, KEY)
        assert status < 500 or status == 501, f"{path} {body}: {status} {answer[:300]}"
        answered += status == 200
        for key in ([], [("Authorization", f"Bearer {WRONG}")], [("x-api-key", WRONG)]):
            assert ask(f"{server.url}{path}?key={MARK}", body, key)[0] == 401, f"{path} without the key"
    check(answered >= 10, f"{len(REQUESTS)} requests, {answered} answered, the others refused; none without a key")
    assert ask(f"{server.url}/flush_cache", {}, [("Authorization", f"Bearer {ADMIN}")])[0] == 200
    head = f"POST /generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CLIENT}\r\nContent-Type: application/json\r\n"
    body = json.dumps({"text": TEXT, "stream": True, "sampling_params": {"max_new_tokens": 200, "ignore_eos": True}})
    raw(server, f"{head}Content-Length: {len(body)}\r\n\r\n{body}")
    raw(server, f"{head}Content-Length: {len(body) + 50}\r\n\r\n{body}")
    raw(server, f"{head}Content-Length: 12\r\n\r\n{{\"{MARK}\": no")
    raw(server, f"GET /{MARK} HTP/9\r\n{MARK}\r\n\r\n")
    return ask_json(f"{server.url}/generate", REQUESTS[0][1], headers=KEY)["text"]


def main():
    binary, *more = sys.argv[1:]
    with LocalServer(binary, "--api-key", CLIENT, "--admin-api-key", ADMIN, *more) as server:
        said = visit(server).strip()
        server.process.terminate()
        check(server.process.wait(60) == 0, "the server drains")
        lines = server.output().splitlines()
    check(any("ready to roll" in line for line in lines) and len(lines) > 20, f"{len(lines)} lines of log")
    for secret in (MARK, CLIENT, ADMIN, WRONG, said):
        told = [line for line in lines if secret and secret in line]
        check(not told, f"no line holds {secret[:40]!r} {told[:2]}")


if __name__ == "__main__":
    main()
