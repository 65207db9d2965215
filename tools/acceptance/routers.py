"""Two servers behind the routers people put in front of SGLang: sglang-router and smg, as PyPI has them.

    python routers.py BINARY [ARGUMENTS OF launch-server ...]

Makes a virtual environment for each router (in ROUTER_VENVS, or third_party/router-venvs), starts two servers, and
routes `/generate`, chat and completions through each, whole and as streams: at temperature 0 an answer must be that of a
server asked directly, and both servers must get requests. Then one server is killed (SIGKILL) under load: requests go on,
at most those fail that ran on it, and when it is back it gets requests again. Without a model in the arguments it is the
server's own.
"""

import os
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path

from local_server import LocalServer, Process, ask, ask_json, check, events, free_port, until

ROUTERS = {"sglang-router": "0.3.2", "smg": "1.13.0"}
VENVS = Path(os.environ.get("ROUTER_VENVS", Path(__file__).resolve().parents[2] / "third_party/router-venvs"))
GREEDY = {"temperature": 0, "max_new_tokens": 24}
CHAT = {"temperature": 0, "max_tokens": 24, "messages": [{"role": "user", "content": "Name three colours of the rainbow."}]}
NUM_CLIENTS = 6


def generate(text):
    return "/generate", {"text": text, "sampling_params": GREEDY}, lambda answer: answer["text"], lambda all: all[-1]["text"]


def chat(model):
    body = {"model": model, **CHAT}
    joined = lambda all: "".join(choice["delta"].get("content") or "" for event in all for choice in event["choices"])
    return "/v1/chat/completions", body, lambda answer: answer["choices"][0]["message"]["content"], joined


def completion(model):
    body = {"model": model, "prompt": "Water boils at", "temperature": 0, "max_tokens": 16}
    joined = lambda all: "".join(choice["text"] for event in all for choice in event["choices"])
    return "/v1/completions", body, lambda answer: answer["choices"][0]["text"], joined


def whole(url, request):
    path, body, text, _ = request
    return text(ask_json(url + path, body))


def streamed(url, request):
    path, body, _, joined = request
    status, raw = ask(url + path, {**body, "stream": True})
    assert status == 200, f"{path}: {status} {raw[:200]}"
    return joined(events(raw))


def install(name):
    """The command of router `name`, installed if it is not yet there."""
    command = VENVS / name / "bin" / name
    if not command.exists():
        venv.create(VENVS / name, with_pip=True)
        pip = [VENVS / name / "bin/pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, f"{name}=={ROUTERS[name]}"], check=True)
    return command


def start(name, servers):
    """Router `name` before `servers`, and its address, once it knows both."""
    port = free_port()
    flags = {"port": port, "prometheus-port": free_port(), "policy": "round_robin", "health-check-interval-secs": 1,
             "health-failure-threshold": 2, "health-success-threshold": 1, "cb-timeout-duration-secs": 2}
    words = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
    router = Process([install(name), "launch", *words, "--worker-urls", *(server.url for server in servers)], name)
    url = f"http://127.0.0.1:{port}"
    with_router = lambda: sum(worker["is_healthy"] for worker in ask_json(f"{url}/workers")["workers"]) == len(servers)
    until(with_router, f"{name} knows its workers", 120)
    return router, url


def num_served(server):
    """Requests for tokens that `server` has had."""
    lines = ask(f"{server.url}/metrics")[1].decode().splitlines()
    counted = [line for line in lines if line.startswith("sglang:http_requests_total") and 'method="POST"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in counted)


def same_answers(name, url, servers, requests):
    before = [num_served(server) for server in servers]
    for request in requests:
        path = request[0]
        expected = whole(servers[0].url, request)
        check(expected and whole(servers[1].url, request) == expected, f"{path}: both servers say {expected[:40]!r}")
        answers = [whole(url, request) for _ in range(4)]
        check(answers == [expected] * 4, f"{name} {path}: four times the direct answer")
        answers = [streamed(url, request) for _ in range(4)]
        check(answers == [expected] * 4, f"{name} {path}: four streams of the direct answer")
    got = [num_served(server) - count for server, count in zip(servers, before)]
    check(min(got) > 2 * len(requests), f"{name}: the servers had {got} requests")


class Load:
    """Clients that ask, whole and streamed in turns, until they are told to end."""

    def __init__(self, url, requests, expected):
        self.url, self.requests, self.expected = url, requests, expected
        self.ended, self.failed, self.served, self.wrong = threading.Event(), [], [], []
        self.clients = [threading.Thread(target=self.ask_on) for _ in range(NUM_CLIENTS)]
        for thread in self.clients:
            thread.start()

    def ask_on(self):
        index = 0
        while not self.ended.is_set():
            request, expected = self.requests[index % len(self.requests)], self.expected[index % len(self.requests)]
            try:
                text = (whole if index % 2 else streamed)(self.url, request)
            except Exception as error:  # whatever a client may see of a server that dies
                self.failed.append((time.monotonic(), repr(error)[:160]))
            else:
                (self.served if text == expected else self.wrong).append(time.monotonic())
            index += 1

    def end(self):
        self.ended.set()
        for thread in self.clients:
            thread.join()


def loses_a_server(name, url, servers, requests):
    load = Load(url, requests, [whole(servers[0].url, request) for request in requests])
    try:
        until(lambda: len(load.served) > 2 * NUM_CLIENTS, "clients are served")
        check(not load.failed, f"{name}: {len(load.served)} requests under load, none failed")
        servers[1].process.kill()
        killed = time.monotonic()
        until(lambda: sum(at > killed + 4 for at in load.served) > 2 * NUM_CLIENTS, "requests go on")
    finally:
        load.end()
    late = [error for at, error in load.failed if at > killed + 4]
    check(len(load.failed) <= NUM_CLIENTS, f"{name}: a server was killed, {len(load.failed)} requests failed: {load.failed[:2]}")
    check(not late, f"{name}: from 4 s after that on, none failed")
    check(not load.wrong, f"{name}: no answer was wrong")


def comes_back(name, url, server, request):
    fresh = num_served(server)

    def gets_requests():
        whole(url, request)
        return num_served(server) > fresh + 1

    until(gets_requests, f"{name} uses the server that is back", 60)
    check(True, f"{name}: the server that came back gets requests again")


def main():
    binary, *more = sys.argv[1:]
    with LocalServer(binary, *more) as first:
        model = ask_json(f"{first.url}/v1/models")["data"][0]["id"]
        requests = [generate("The capital of France is"), chat(model), completion(model)]
        port = free_port()
        for name in ROUTERS:
            with LocalServer(binary, *more, port=port) as second:
                servers = [first, second]
                router, url = start(name, servers)
                with router:
                    same_answers(name, url, servers, requests)
                    loses_a_server(name, url, servers, requests)
                    with LocalServer(binary, *more, port=port) as again:
                        comes_back(name, url, again, requests[0])


if __name__ == "__main__":
    main()
