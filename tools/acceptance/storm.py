"""A server among many clients, good, bad and broken ones: every good one must get its exact tokens, and nothing may leak.

    python storm.py BINARY [--minutes 30] [--connections 200] [--any-tokens] [ARGUMENTS OF launch-server ...]

Starts the server with its audit on (SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY: the engine proves after every step that
each page is in one hand, and ends where one is not). Good requests (greedy and seeded, whole and streamed, batches, `n`,
log-probabilities, grammars, chat) are answered once alone first; afterwards the answer must be the same whoever else is
there, or a 503 where the queue is full. At the end pages, sockets and memory must be back where they were.
Needs Python's standard library and Linux's /proc. Fails with exit status 1 and the list of what does not hold.
"""

import argparse
import asyncio
import collections
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time


class Failure(Exception):
    """What does not hold."""


class Answer:
    """A response: its head is there, its body may be yet to come."""

    def __init__(self, reader, writer, status, headers):
        self.reader, self.writer, self.status, self.headers = reader, writer, status, headers

    async def pieces(self):
        """The body as it comes."""
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                yield (await self.reader.readexactly(size + 2))[:-2]
        elif "content-length" in self.headers:
            yield await self.reader.readexactly(int(self.headers["content-length"]))
        else:
            yield await self.reader.read()

    async def body(self):
        data = b"".join([piece async for piece in self.pieces()])
        self.close()
        return data

    async def events(self, pause=0.0):
        """Payloads of a stream; a slow reader pauses after each piece."""
        rest = b""
        async for piece in self.pieces():
            rest += piece
            *frames, rest = rest.split(b"\n\n")
            for frame in frames:
                if frame == b"data: [DONE]":
                    self.close()
                    return
                yield json.loads(frame.removeprefix(b"data: "))
            await asyncio.sleep(pause)
        raise Failure("a stream ended without [DONE]")

    def close(self):
        self.writer.close()


class Server:
    def __init__(self, binary, arguments, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = open(os.path.join(folder, "log"), "w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            [binary, "launch-server", "--port", str(self.port), *arguments],
            stdout=self.log, stderr=self.log,
            env={**os.environ, "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1", "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0"},
        )

    def text(self):
        self.log.flush()
        with open(self.log.name, encoding="utf-8", errors="replace") as log:
            return log.read()

    async def ready(self):
        while "ready to roll!" not in self.text():
            if self.process.poll() is not None:
                raise Failure(f"the server did not start:\n{self.text()}")
            await asyncio.sleep(0.2)

    def num_sockets(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self):
        """Resident MiB that are no file's."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as status:
            lines = dict(line.split(":", 1) for line in status)
        return int(lines["RssAnon"].split()[0]) / 1024

    async def send(self, method, path, body=b""):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        head = f"{method} {path} HTTP/1.1\r\nhost: storm\r\ncontent-type: application/json\r\n"
        head += f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        try:
            status = int((await reader.readline()).split()[1])
            headers = {}
            while line := (await reader.readline()).strip():
                name, value = line.decode("latin-1").split(":", 1)
                headers[name.lower()] = value.strip().lower()
        except BaseException:
            writer.close()
            raise
        return Answer(reader, writer, status, headers)

    async def json(self, method, path, body=b""):
        answer = await self.send(method, path, body)
        data = await answer.body()
        return answer.status, json.loads(data) if data.startswith((b"{", b"[")) else data.decode()


def good_requests(dice, vocab_size):
    """Pairs of a path and a body whose answer is a function of the body alone."""
    stem = [dice.randrange(300, vocab_size) for _ in range(400)]
    requests = []

    def generate(ids, more=None, **sampling):
        sampling = {"max_new_tokens": dice.randrange(1, 24), "temperature": 0, **sampling}
        requests.append(("/generate", {"input_ids": ids, "sampling_params": sampling, **(more or {})}))

    for _ in range(12):
        generate(stem[: dice.randrange(1, 400)] + [dice.randrange(vocab_size)])
        generate([dice.randrange(vocab_size) for _ in range(dice.randrange(1, 200))], ignore_eos=True)
    for seed in range(4):
        generate(stem[:9], temperature=1.0, top_k=50, top_p=0.9, sampling_seed=seed, frequency_penalty=0.5)
    generate([stem[:n] for n in (3, 90, 200)])
    generate(stem[:5], n=3, temperature=1.0, sampling_seed=7)
    generate(stem[:40], {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 3})
    generate(stem[:4], regex="[a-f]{2,9}(,[0-9]+)*", max_new_tokens=12)
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "n": {"type": "integer"}}}
    generate(stem[:6], json_schema=json.dumps({**schema, "required": ["name", "n"]}), max_new_tokens=20)
    generate(stem[:3], ebnf='root ::= ("yes" | "no") (", " root)?', max_new_tokens=9)
    messages = [{"role": "user", "content": "Name a river in France."}]
    chat = {"messages": messages, "max_tokens": 16, "temperature": 0}
    requests.append(("/v1/chat/completions", chat))
    requests.append(("/v1/chat/completions", {**chat, "logprobs": True, "top_logprobs": 2}))
    requests.append(("/v1/completions", {"prompt": ["Once upon", "The"], "max_tokens": 9, "temperature": 0, "echo": True}))
    return requests


def content_of(path, body):
    """What of an answer must always be the same."""
    if path != "/generate":
        return [[choice.get("text") or choice.get("message"), choice["finish_reason"], choice.get("logprobs")] for choice in body["choices"]]
    found = []
    for one in body if isinstance(body, list) else [body]:
        logprobs = [one["meta_info"].get(f"{kind}_token_logprobs") for kind in ("input", "output")]
        found.append([one["output_ids"], one["text"], one["meta_info"]["finish_reason"], logprobs])
    return found


def hostile_bodies(dice):
    """Bodies that are no requests, or of which nothing good comes."""
    def with_sampling(**sampling):
        return {"input_ids": [1, 2], "sampling_params": {"max_new_tokens": 2, **sampling}}

    deep = b'{"text": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    return [
        b"", b"{", b"null", b"[]", b"\xff\xfe\x00", b'{"text": "\\ud800"}', deep, b'{"text": "' + b"a" * 3_000_000 + b'"}',
        b'{"input_ids": [1e999]}', b'{"input_ids": [99999999999999999999]}', b'{"text": 7, "text": 8}',
        {"text": "a", "input_ids": [1]}, {"input_ids": []}, {"input_ids": [-1]}, {"input_ids": [1] * 100_000}, {"text": None},
        {"text": ["a", 1]}, {"input_ids": [[1], 2]}, {"input_embeds": [[0.5]]}, {"text": "a", "rid": ["x", "y"]},
        with_sampling(temperature=-1), with_sampling(temperature="hot"), with_sampling(top_p=2), with_sampling(top_k=0),
        with_sampling(n=10**9), with_sampling(n=-1), with_sampling(max_new_tokens=-1), with_sampling(min_new_tokens=9),
        with_sampling(stop=["x"] * 1_000_000), with_sampling(stop_token_ids=[2**40]), with_sampling(logit_bias={"a": 1}),
        with_sampling(logit_bias={"999999": 1}), with_sampling(regex="(" * 1000), with_sampling(regex="(a{1,1000}){1,1000}{1,1000}"),
        with_sampling(json_schema="{"), with_sampling(json_schema='{"type": "nonsense"}'), with_sampling(ebnf="root ::= "),
        with_sampling(json_schema='{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}'), with_sampling(ebnf="x" * 2_000_000),
        with_sampling(structural_tag='{"type": "structural_tag", "format": {"type": "martian"}}'), with_sampling(stop_regex="(?=x)"),
        {"input_ids": [1], "return_logprob": True, "top_logprobs_num": 10**12}, {"input_ids": [1], "logprob_start_len": "x"},
        {"input_ids": [1], "return_logprob": True, "token_ids_logprob": [-5]}, {"messages": "x"}, {"messages": [{"role": "user"}] * 3},
        {"messages": [{"role": "martian", "content": [{"type": "image_url"}]}]}, {"prompt": {"a": 1}}, {"prompt": "a", "best_of": "x"},
        bytes(dice.randrange(256) for _ in range(dice.randrange(2000))),
    ]


HOSTILE_PATHS = ["/generate", "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/tokenize", "/v1/embeddings", "/api/chat", "/abort_request"]


class Storm:
    def __init__(self, server, options):
        self.server, self.options = server, options
        self.counts, self.failures, self.memory, self.expected = collections.Counter(), [], [], []
        self.probes_ms = {"/health": [], "/health_generate": []}

    def check(self, holds, what):
        if not holds and len(self.failures) < 50:
            self.failures.append(what)
            print("FAILED:", what[:400], flush=True)

    def compare(self, found, expected, what):
        if self.options.any_tokens:
            found, expected = len(found), len(expected)
        self.check(found == expected, f"{what}: {found} instead of {expected}")

    def note(self, what, status):
        self.counts[f"{what} {status}"] += 1
        self.check(status < 500 or status in (501, 503), f"{what}: status {status}")
        return status == 200

    async def record(self, dice):
        status, info = await self.server.json("GET", "/server_info")
        _, model = await self.server.json("GET", "/model_info")
        vocab_size = model.get("vocab_size") or info.get("vocab_size") or 40_000
        for path, body in good_requests(dice, min(vocab_size, 40_000)):
            status, answer = await self.server.json("POST", path, body)
            if status != 200:
                raise Failure(f"alone: {path} {body}: {status} {answer}")
            self.expected.append((path, body, content_of(path, answer)))

    async def whole(self, dice):
        path, body, expected = dice.choice(self.expected)
        status, answer = await self.server.json("POST", path, body)
        if self.note("whole", status):
            self.compare(content_of(path, answer), expected, f"{path} {json.dumps(body)}")

    async def stream(self, dice, pause=0.0):
        path, body, expected = dice.choice([one for one in self.expected if one[0] == "/generate" and len(one[2]) == 1])
        answer = await self.server.send("POST", path, {**body, "stream": True})
        if not self.note("slow stream" if pause else "stream", answer.status):
            return answer.close()
        last = None
        async for event in answer.events(pause):
            last = event
        if last["meta_info"]["finish_reason"].get("status_code") == 503:
            self.note("stream", 503)
            return
        self.compare(content_of(path, last), expected, f"stream of {json.dumps(body)}")

    async def slow_reader(self, dice):
        await self.stream(dice, pause=dice.random() * 0.3)

    async def hang_up(self, dice):
        sampling = {"max_new_tokens": 500, "ignore_eos": True}
        body = {"input_ids": [5] * dice.randrange(1, 300), "stream": True, "sampling_params": sampling}
        answer = await self.server.send("POST", "/generate", body)
        if self.note("hang up", answer.status):
            async for _ in answer.events():
                if dice.random() < 0.4:
                    break
        answer.writer.transport.abort()

    async def abort(self, dice):
        rid = f"storm-{dice.getrandbits(64)}"
        sampling = {"max_new_tokens": 500, "ignore_eos": True}
        body = {"input_ids": [6] * dice.randrange(1, 300), "rid": rid, "stream": True, "sampling_params": sampling}
        answer = await self.server.send("POST", "/generate", body)
        if not self.note("abort", answer.status):
            return answer.close()
        num_events, last = 0, None
        async for last in answer.events():
            num_events += 1
            if num_events == 2:
                status, _ = await self.server.json("POST", "/abort_request", {"rid": rid})
                self.note("abort_request", status)
        kind = last["meta_info"]["finish_reason"]["type"]
        self.check(kind == "abort", f"an aborted request ended with {kind}")

    async def hostile(self, dice):
        path, body = dice.choice(HOSTILE_PATHS), dice.choice(hostile_bodies(dice))
        if isinstance(body, dict):
            # On another path than it is made for a body may be a request, whose answer would fill the context.
            body = {"max_tokens": 4, **body}
        answer = await self.server.send("POST", path, body)
        self.note("hostile", answer.status)
        text = await answer.body()
        shown = body[:80] if isinstance(body, bytes) else json.dumps(body)[:80]
        self.check(len(text) > 0 or answer.status == 200, f"{path} {shown}: {answer.status} with nothing said")

    async def half_sent(self, dice):
        body = json.dumps({"text": "x" * 5000}).encode()
        _, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        text = f"POST /generate HTTP/1.1\r\nhost: storm\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        writer.write(text[: dice.randrange(len(text))])
        await writer.drain()
        await asyncio.sleep(dice.random())
        writer.transport.abort()
        self.counts["half sent"] += 1

    async def noise(self, dice):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(dice.choice([
            bytes(dice.randrange(256) for _ in range(500)), b"GET / HTTP/9.9\r\n\r\n", b"POST /generate HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000 + b"\r\n", b"POST /generate HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ]))
        if answer := await asyncio.wait_for(reader.read(100), 30):
            self.note("noise", int(answer.split()[1]))
        writer.transport.abort()

    async def client(self, number, end):
        dice = random.Random(number)
        acts = [self.whole] * 8 + [self.stream] * 5 + [self.hostile] * 5 + [self.hang_up] * 2
        acts += [self.slow_reader, self.abort, self.half_sent, self.noise]
        while time.monotonic() < end and self.server.process.poll() is None:
            act = dice.choice(acts)
            try:
                await asyncio.wait_for(act(dice), 300)
            except (ConnectionError, asyncio.IncompleteReadError, IndexError) as error:
                # The server may close in the face of what is no HTTP, or too large.
                self.counts[f"{act.__name__}: {type(error).__name__}"] += 1
                self.check(act in (self.hostile, self.noise, self.half_sent), f"{act.__name__}: {error!r}")
            except asyncio.TimeoutError:
                self.check(False, f"{act.__name__}: no answer in 300 s")
            except Exception as error:
                self.check(False, f"{act.__name__}: {error!r}")
            await asyncio.sleep(dice.random() * 0.2)

    async def probe(self, path, end):
        while time.monotonic() < end and self.server.process.poll() is None:
            began = time.monotonic()
            status, _ = await self.server.json("GET", path)
            self.probes_ms[path].append((time.monotonic() - began) * 1000)
            self.check(status == 200, f"{path}: {status}")
            await asyncio.sleep(0.1)

    async def watch(self, begin, end):
        while time.monotonic() < end and self.server.process.poll() is None:
            self.memory.append(((time.monotonic() - begin) / 60, self.server.memory()))
            await asyncio.sleep(1)

    async def settle(self, num_sockets):
        """Everything comes back to where it was."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            _, loads = await self.server.json("GET", "/v1/loads")
            load = loads["loads"][0]
            if load["num_running_reqs"] + load["num_waiting_reqs"] == 0 and self.server.num_sockets() <= num_sockets + 1:
                break
            await asyncio.sleep(0.5)
        self.check(load["num_running_reqs"] + load["num_waiting_reqs"] == 0, f"still live: {load}")
        self.check((await self.server.json("POST", "/flush_cache"))[0] == 200, "/flush_cache is refused")
        _, loads = await self.server.json("GET", "/v1/loads")
        used = loads["loads"][0]["num_used_tokens"]
        self.check(used == 0, f"{used} tokens are held by nobody")
        _, metrics = await self.server.json("GET", "/metrics")
        lines = [line for line in metrics.splitlines() if line.startswith(("sglang:num_used_tokens", "sglang:num_running_reqs"))]
        self.check(len(lines) >= 2 and all(float(line.split()[-1]) == 0 for line in lines), f"metrics: {lines}")
        now = self.server.num_sockets()
        self.check(now <= num_sockets + 1, f"{now} open files, {num_sockets} before")
        await self.whole(random.Random(0))

    async def run(self):
        server = self.server
        await server.ready()
        await self.record(random.Random(1))
        num_sockets = server.num_sockets()
        begin = time.monotonic()
        end = begin + self.options.minutes * 60
        clients = [self.client(number, end) for number in range(self.options.connections)]
        await asyncio.gather(*clients, *(self.probe(path, end) for path in self.probes_ms), self.watch(begin, end))
        self.check(server.process.poll() is None, f"the server ended with {server.process.poll()}:\n{server.text()[-3000:]}")
        if server.process.poll() is None:
            await self.settle(num_sockets)
        self.check("panicked" not in server.text(), "a panic in the log")

    def report(self):
        for what, count in sorted(self.counts.items()):
            print(f"{count:8} {what}")
        for path, probes in self.probes_ms.items():
            probes = sorted(probes) or [float("inf")]
            p99 = probes[int(len(probes) * 0.99)]
            print(f"{path}: {len(probes)} probes, median {statistics.median(probes):.1f} ms, p99 {p99:.1f} ms, max {probes[-1]:.1f} ms")
            # The other one waits for a step of the engine.
            self.check(p99 < self.options.health_ms or path != "/health", f"{path}: p99 {p99:.1f} ms")
        late = self.memory[len(self.memory) // 2 :]
        slope = statistics.linear_regression(*zip(*late)).slope if len(late) > 2 else 0
        print(f"memory: {self.memory[0][1]:.0f} MiB at first, {self.memory[-1][1]:.0f} at last, {slope:+.2f} MiB a minute in the second half")
        self.check(slope < self.options.mib_per_minute, f"memory grows by {slope:.2f} MiB a minute")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--health-ms", type=float, default=100, help="bound of the probes' 99th percentile")
    parser.add_argument("--mib-per-minute", type=float, default=1, help="bound of the growth in the second half")
    parser.add_argument("--any-tokens", action="store_true", help="for a GPU, where a row's sums depend on the batch it is in")
    options, arguments = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(options.binary, arguments, folder)
        storm = Storm(server, options)
        try:
            asyncio.run(storm.run())
            storm.report()
        finally:
            server.process.kill()
            server.process.wait()
    print("FAILED" if storm.failures else "all of it holds", *storm.failures[:20], sep="\n  ")
    sys.exit(bool(storm.failures))


if __name__ == "__main__":
    main()
