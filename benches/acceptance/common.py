"""What the acceptance scripts share: options, a server of their own, streams, verdicts.

Prompts are token ids, so a model without a tokenizer will do.
"""

import argparse
import contextlib
import http.client
import json
from pathlib import Path
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse

ROOT = Path(__file__).resolve().parents[2]


def options(description):
    parser = argparse.ArgumentParser(
        description=description, epilog="Flags of the server come last, after --."
    )
    parser.add_argument("--binary", default=ROOT / "target/release/sglang-mlx")
    parser.add_argument("--model-path")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--pid", type=int, help="its process, for the memory it takes")
    parser.add_argument("--start-timeout", type=float, default=300)
    parser.add_argument("--vocab-size", type=int, default=32000)
    return parser


def parse(parser):
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:split])
    args.extra = words[split + 1 :]
    if not args.url and not args.model_path:
        parser.error("--model-path or --url is needed")
    return args


def prompt(args, length, seed):
    rng = random.Random(seed)
    return [rng.randrange(100, args.vocab_size) for _ in range(length)]


def bench(args, *flags):
    """The lines of bench-one-batch."""
    if not args.model_path:
        raise SystemExit("bench-one-batch needs --model-path")
    command = [args.binary, "bench-one-batch", "--model-path", args.model_path, "--json"]
    command += ["--log-level", "error", *flags, *args.extra]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]


class Server:
    def __init__(self, url, pid=None):
        self.url, self.pid = url, pid
        self.address = urllib.parse.urlsplit(url)

    def request(self, method, path, body=None, timeout=600):
        connection = http.client.HTTPConnection(
            self.address.hostname, self.address.port, timeout=timeout
        )
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        return connection, connection.getresponse()

    def info(self):
        connection, response = self.request("GET", "/server_info")
        with contextlib.closing(connection):
            return json.loads(response.read())

    def active_gib(self):
        """GiB that MLX's allocator has handed out."""
        return find(self.info(), "memory_usage")["active"]

    def decode_profile(self):
        """Mean times of the decode steps so far; None without --profile."""
        return self.info().get("profile", {}).get("decode")

    def rss_bytes(self):
        if self.pid is None:
            return None
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return None

    def stream(self, ids, max_new_tokens, on_token=None):
        """Start, and the time at which each event with new tokens came: (time, tokens so far)."""
        body = {
            "input_ids": ids,
            "stream": True,
            "sampling_params": {
                "max_new_tokens": max_new_tokens,
                "ignore_eos": True,
                "temperature": 0,
            },
        }
        start, events, seen = time.perf_counter(), [], 0
        connection, response = self.request("POST", "/generate", body)
        with contextlib.closing(connection):
            if response.status != 200:
                raise RuntimeError(f"status {response.status}: {response.read()[:300]!r}")
            for line in response:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(str(event["error"]))
                tokens = event["meta_info"]["completion_tokens"]
                if tokens > seen:
                    seen = tokens
                    events.append((time.perf_counter(), tokens))
                    if on_token:
                        on_token(tokens)
        if seen != max_new_tokens:
            raise RuntimeError(f"{seen} tokens instead of {max_new_tokens}")
        return start, events

    def ttft(self, ids, max_new_tokens=2):
        start, events = self.stream(ids, max_new_tokens)
        return events[0][0] - start


def find(value, key):
    """The first value with this key, however deep."""
    if isinstance(value, dict):
        if key in value:
            return value[key]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            found = find(item, key)
            if found is not None:
                return found
    return None


@contextlib.contextmanager
def server(args, *flags):
    if args.url:
        yield Server(args.url, args.pid)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [args.binary, "serve", "--model-path", args.model_path, "--port", port]
    command += ["--log-level", "error", *flags, *args.extra]
    process = subprocess.Popen([str(word) for word in command])
    try:
        running = Server(f"http://127.0.0.1:{port}", process.pid)
        wait_ready(running, process, args.start_timeout)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_ready(running, process, timeout):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection, response = running.request("GET", "/health", timeout=5)
            connection.close()
            if response.status == 200:
                return
        time.sleep(0.1)
    raise SystemExit("the server did not start in time")


def mean_between(before, after, figure):
    """Mean of a profile's figure over the steps between two readings."""
    steps = after["num_steps"] - before["num_steps"]
    sums = [profile[figure] * profile["num_steps"] for profile in (before, after)]
    return (sums[1] - sums[0]) / steps if steps else float("nan")


def gaps(events, begin=float("-inf"), end=float("inf")):
    """Seconds between events that overlap the span."""
    pairs = zip(events, events[1:])
    return [b[0] - a[0] for a, b in pairs if b[0] > begin and a[0] < end]


def median(values):
    return statistics.median(values) if values else float("nan")


def in_threads(work, count):
    """work(i) in a thread each; returns a function that waits and gives results and errors."""
    results, errors = [None] * count, []

    def guarded(i):
        try:
            results[i] = work(i)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()

    def join():
        for thread in threads:
            thread.join()
        return results, errors

    return join


def verdict(name, figure, bar, passed):
    """Prints the line that run.sh collects and ends the script."""
    print(f"{'PASS' if passed else 'MISS'} {name}: {figure} (bar: {bar})", flush=True)
    raise SystemExit(0 if passed else 1)
