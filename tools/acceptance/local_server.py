"""The real binary as a child process on a free port, for the scripts beside this file. Python's standard library alone."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until(holds, what, seconds=60):
    """Waits until `holds()` is true; whatever it raises for want of a server means not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


def check(holds, what):
    """Prints what holds; ends the script if it does not."""
    if not holds:
        sys.exit(f"FAIL  {what}")
    print(f"ok    {what}", flush=True)


def ask(url, body=None, headers=(), timeout=300):
    """Status and bytes of the answer to a POST of `body`, or to a GET."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **dict(headers)})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def ask_json(url, body=None, **options):
    status, answer = ask(url, body, **options)
    assert status == 200, f"{url}: {status} {answer.decode(errors='replace')[:300]}"
    return json.loads(answer)


def events(raw):
    """The JSON of each `data:` line of a stream that must end with `[DONE]`."""
    lines = [line[5:].strip() for line in raw.decode().splitlines() if line.startswith("data:")]
    assert lines and lines[-1] == "[DONE]", raw[-200:]
    return [json.loads(line) for line in lines[:-1]]


class Process:
    """A child process whose output goes to a file, and that does not outlive the `with`."""

    def __init__(self, command, name):
        self.log = tempfile.NamedTemporaryFile("w+", prefix=f"{name}-", suffix=".log", delete=False)
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.kill()
        self.process.wait()
        if kind:
            print(f"the end of {self.log.name}:\n{self.output()[-2000:]}", file=sys.stderr)
        else:
            os.unlink(self.log.name)

    def output(self):
        with open(self.log.name, errors="replace") as log:
            return log.read()


class LocalServer(Process):
    """`sglang-mlx launch-server` on 127.0.0.1, ready when made."""

    def __init__(self, binary, *arguments, port=None):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__([binary, "launch-server", "--port", str(self.port), *arguments], "server")
        until(self.is_ready, f"{self.url} is ready", 300)

    def is_ready(self):
        assert self.process.poll() is None, f"the server ended:\n{self.output()[-2000:]}"
        return ask(f"{self.url}/ready", timeout=5)[0] == 200
