"""Every flag of the scheduler on the real binary: what it does, that it changes no token, or that it is refused by name.

    python scheduling.py BINARY [ARGUMENTS OF launch-server ...]

Starts a server for each choice, with a small pool, so that requests wait, prefixes are evicted and now and then a request is
retracted. Needs Python's standard library.
"""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from local_server import LocalServer, ask, ask_json, check

CHOICES = [
    *(["--schedule-policy", policy] for policy in ("fcfs", "lpm", "dfs-weight", "hrrn", "shortest-prefill-first", "lof", "random")),
    *(["--radix-eviction-policy", policy] for policy in ("lru", "lfu", "slru", "priority")),
    ["--radix-eviction-policy", "slru", "--radix-eviction-policy-config", '{"protected_threshold": 3}'],
    ["--enable-mixed-chunk"],
    ["--enable-priority-scheduling", "--schedule-policy", "priority", "--retraction-policy", "priority"],
    ["--enable-priority-scheduling", "--schedule-low-priority-values-first", "--priority-scheduling-preemption-threshold", "0"],
    ["--enable-priority-scheduling", "--disable-priority-preemption", "--default-priority-value", "3"],
    ["--disable-radix-cache"], ["--disable-overlap-schedule"], ["--schedule-conservativeness", "0.3"],
    ["--prefill-max-requests", "2", "--max-prefill-tokens", "0.1k"], ["--chunked-prefill-size", "-1"], ["--page-size", "1"],
]
# Flags of the command line, and a part of the answer.
REFUSED = [
    (["--schedule-policy", "routing-key"], "`routing-key` is not one of dfs-weight, fcfs"),
    (["--radix-eviction-policy", "tlru"], "`tlru` is not one of"),
    (["--radix-eviction-policy-config", '{"protected_threshold": 3}'], "lru takes no parameter `protected_threshold`"),
    (["--retraction-policy", "priority"], "needs --enable-priority-scheduling"),
    (["--schedule-low-priority-values-first"], "needs --enable-priority-scheduling"),
    (["--priority-scheduling-preemption-threshold", "3"], "needs --enable-priority-scheduling"),
    (["--max-queued-requests", "0"], "--max-queued-requests must be at least 1"),
    (["--max-total-tokens", "1.5Ki"], "decimals are for the suffixes"),
    (["--num-continuous-decode-steps", "2"], "SGLang option that sglang-mlx does not support (only `1`"),
    (["--scheduler-recv-interval", "2"], "SGLang option that sglang-mlx does not support (only `1`"),
    *((flag, "SGLang option that sglang-mlx does not support") for flag in (
        ["--prefill-decode-interval", "4"], ["--enable-dynamic-chunking"], ["--enable-prefill-delayer"], ["--min-free-slots-delay", "2"],
        ["--enable-hierarchical-cache"], ["--enable-session-radix-cache"], ["--radix-cache-backend", "x"], ["--swa-prefix-tails", "2"])),
]
SMALL = ["--max-total-tokens", "0.4k", "--max-running-requests", "4", "--chunked-prefill-size", "64"]


def body(index, num_tokens=24, **more):
    """Prompts of 21 to 161 tokens, some of which begin alike."""
    prompt = [100 + index % 3] * (20 * (index % 8 + 1)) + [1000 + index]
    return {"input_ids": prompt, "sampling_params": {"temperature": 0, "max_new_tokens": num_tokens, "ignore_eos": True}, **more}


def run_all(server, num_requests=16):
    with ThreadPoolExecutor(8) as pool:
        bodies = [body(index, priority=index % 4) for index in range(num_requests)]
        answers = list(pool.map(lambda one: ask_json(f"{server.url}/generate", one), bodies))
    return [answer["output_ids"] for answer in answers]


def total(server, name):
    lines = ask(f"{server.url}/metrics")[1].decode().splitlines()
    [value] = [line.split()[-1] for line in lines if line.startswith(f"sglang:{name}_total{{")]
    return int(value)


def every_choice(binary, more):
    expected = None
    for flags in CHOICES:
        # The last flag of a name counts.
        small = [word for pair in zip(SMALL[::2], SMALL[1::2]) if pair[0] not in flags for word in pair]
        with LocalServer(binary, *small, *flags, *more) as server:
            tokens = run_all(server)
            expected = expected or tokens
            state = ask_json(f"{server.url}/server_info")
            name = flags[0].removeprefix("--").replace("-", "_")
            shown = state[name]
            evicted, retracted = (total(server, name) for name in ("evicted_tokens", "num_retracted_requests"))
            what = f"{' '.join(flags)}: the same tokens; {evicted} evicted, {retracted} retractions"
            check(tokens == expected and str(shown) in (flags[1:2] or ["True"]) + ["True", "100", "-1"], what)
            check(evicted > 0 or "--disable-radix-cache" in flags, "the pool was too small for all prefixes")


def refusals(binary):
    for flags, text in REFUSED:
        result = subprocess.run([binary, "launch-server", "--model-path", "/nowhere", *flags], capture_output=True, text=True)
        words = result.stderr
        check(result.returncode != 0 and text in words and "/nowhere" not in words, f"{' '.join(flags)}: refused")


def full_queue(binary, more):
    with LocalServer(binary, "--max-running-requests", "1", "--max-queued-requests", "2", *more) as server:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda index: ask(f"{server.url}/generate", body(index, 60)), range(8)))
        statuses = sorted(status for status, _ in answers)
        check(set(statuses) == {200, 503} and statuses.count(200) >= 2, f"--max-queued-requests 2, 1 running, 8 at once: {statuses}")
        refused = [json.loads(text) for status, text in answers if status == 503]
        check(all("The request queue is full." in json.dumps(answer) for answer in refused), f"the reason: {refused[0]}")


def timeouts(binary, more):
    os.environ.update(SGLANG_REQ_WAITING_TIMEOUT="1", SGLANG_REQ_RUNNING_TIMEOUT="4")
    with LocalServer(binary, "--max-running-requests", "1", *more) as server:
        answers = {}
        threads = [threading.Thread(target=lambda i=i: answers.update({i: ask(f"{server.url}/generate", body(i, 4000))})) for i in range(2)]
        for thread in threads:
            thread.start()
            time.sleep(0.3)
        for thread in threads:
            thread.join()
        check(answers[1][0] == 503 and b"Request waiting timeout reached." in answers[1][1], f"SGLANG_REQ_WAITING_TIMEOUT: {answers[1]}")
        check(answers[0][0] == 503 and b"Request running timeout reached." in answers[0][1], f"SGLANG_REQ_RUNNING_TIMEOUT: {answers[0]}")
    del os.environ["SGLANG_REQ_WAITING_TIMEOUT"], os.environ["SGLANG_REQ_RUNNING_TIMEOUT"]


def main():
    binary, *more = sys.argv[1:]
    refusals(binary)
    full_queue(binary, more)
    timeouts(binary, more)
    every_choice(binary, more)


if __name__ == "__main__":
    main()
