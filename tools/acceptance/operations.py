"""What operators do to a running server, on the real binary: keys, HTTPS, pauses, other weights, logs, traces, drains.

    python operations.py BINARY MODEL OTHER_WEIGHTS [ARGUMENTS OF launch-server ...]

OTHER_WEIGHTS is a folder of the same architecture and sizes as MODEL, of which it may be a copy. Needs Python's standard
library, and `openssl` for a certificate. Prints a line for each check and fails at the first that does not hold.
"""

import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

CLIENT, ADMIN = "client-key", "admin-key"
spans = []


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes spans as an OpenTelemetry collector does."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in body["resourceSpans"]:
            spans.extend(span for scope in resource["scopeSpans"] for span in scope["spans"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


class Server:
    """The binary, over HTTPS, with everything on."""

    def __init__(self, binary, model, more, folder):
        self.folder = folder
        certificate = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        files = ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
        subprocess.run(["openssl", *certificate, *names, *files], check=True, capture_output=True)
        collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        flags = {
            "port": self.port, "api-key": CLIENT, "admin-api-key": ADMIN, "ssl-keyfile": f"{folder}/key.pem",
            "ssl-certfile": f"{folder}/cert.pem", "log-requests-level": 0, "log-requests-format": "json",
            "log-requests-target": f"{folder}/log", "otlp-traces-endpoint": f"127.0.0.1:{collector.server_port}",
            "drain-timeout": 3, "crash-dump-folder": f"{folder}/crash", "bucket-time-to-first-token": "0.5",
        }
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        command = [binary, "launch-server", "--model-path", model, "--log-requests", "--enable-trace", *words, *more]
        self.process = subprocess.Popen(command, stderr=open(f"{folder}/stderr", "w"))
        self.context = ssl.create_default_context(cafile=f"{folder}/cert.pem")
        until(lambda: self.process.poll() is None and self.try_ready(), "the server is ready", 300)

    def try_ready(self):
        try:
            return self.ask("/ready")[0] == 200
        except OSError:
            return False

    def ask(self, path, body=None, key=CLIENT, headers=()):
        """Status and body of the answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}", **dict(headers)}
        request = urllib.request.Request(f"https://localhost:{self.port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def generate(self, num_tokens=12, headers=()):
        params = {"temperature": 0, "max_new_tokens": num_tokens, "ignore_eos": True}
        status, text = self.ask("/generate", {"input_ids": [1, 504, 2644, 216], "sampling_params": params}, headers=headers)
        return json.loads(text) if status == 200 else (status, text)

    def operate(self, path, body=None, key=ADMIN):
        return self.ask(path, body, key)


def until(holds, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)
    print(f"ok    {what}")


def check(holds, what):
    assert holds, what
    print(f"ok    {what}")


def in_background(call):
    result = []
    thread = threading.Thread(target=lambda: result.append(call()))
    thread.start()
    return thread, result


def running(server):
    return json.loads(server.ask("/v1/loads")[1])["loads"][0]


def tour(server, model, other):
    check(server.ask("/v1/models", key="wrong")[0] == 401, "a wrong key is refused")
    check(server.ask("/flush_cache", {})[0] == 401, "the clients' key does not flush")
    first = server.generate()["output_ids"]
    check(server.generate()["output_ids"] == first, "greedy answers repeat")

    for mode in ("in_place", "retract"):
        thread, result = in_background(lambda: server.generate(200))
        until(lambda: running(server)["num_running_reqs"] == 1, "a request runs")
        check(server.operate("/pause_generation", {"mode": mode})[0] == 200, f"paused: {mode}")
        held = running(server)
        waits = "num_running_reqs" if mode == "in_place" else "num_waiting_reqs"
        check(held[waits] == 1 and held["queues"]["paused"] == 1, "it is held")
        check(server.ask("/health")[0] == 200, "probes stay green")
        flushed = server.operate("/flush_cache", {})[0]
        check(flushed == (400 if mode == "in_place" else 200), "the cache is flushed only if nobody has pages")
        if mode == "retract":
            status, text = server.operate("/update_weights_from_disk", {"model_path": model, "weight_version": "2"})
            check(status == 200 and json.loads(text)["num_paused_requests"] == 1, "weights in a pause")
        server.operate("/continue_generation", {})
        thread.join()
        check(result[0]["output_ids"][:12] == first and len(result[0]["output_ids"]) == 200, "and goes on as if nothing had been")

    status, text = server.operate("/update_weights_from_disk", {"model_path": other, "weight_version": "3"})
    check(status == 200, f"other weights: {text}")
    check(server.generate()["meta_info"]["weight_version"] == "3", "answers name them")
    status, text = server.operate("/update_weights_from_disk", {"model_path": server.folder})
    check(status == 400 and not json.loads(text)["success"], f"no weights: {json.loads(text)['message']}")
    server.operate("/update_weights_from_disk", {"model_path": model, "weight_version": "1"})
    check(server.generate()["output_ids"] == first, "the old weights give the old answer")

    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    server.generate(headers=[("traceparent", parent)])
    until(lambda: any(span["traceId"] == parent[3:35] for span in spans), "a span joins the caller's trace")
    check(server.operate("/start_profile", {"output_dir": server.folder, "profile_id": "p", "num_steps": 4})[0] == 200, "a profile")
    server.generate()
    until(lambda: os.path.exists(f"{server.folder}/p.json"), "is written")
    check(server.operate("/configure_logging", {"log_requests_level": 2, "log_level": "debug"})[0] == 200, "another log level")
    server.generate()
    [log] = os.listdir(f"{server.folder}/log")
    lines = [json.loads(line.split("] ", 1)[1]) for line in open(f"{server.folder}/log/{log}")]
    check("output_ids" not in lines[-3]["out"] and lines[-1]["out"]["output_ids"] == first, "more in the log")
    metrics = server.ask("/metrics", key="")[1]
    check('time_to_first_token_seconds_bucket{model_name=' in metrics and 'le="0.5"' in metrics, "buckets as asked for")


def drain(server):
    thread, result = in_background(lambda: server.generate(4000))
    until(lambda: running(server)["num_running_reqs"] == 1, "a long request runs")
    server.process.send_signal(signal.SIGTERM)
    check(server.process.wait(30) == 0, "a drain ends with 0, in time")
    thread.join()
    reason = result[0]["meta_info"]["finish_reason"] if isinstance(result[0], dict) else result[0]
    check("abort" in str(reason), f"what took too long was aborted: {str(reason)[:80]}")


def main():
    binary, model, other, *more = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        server = Server(binary, model, more, folder)
        try:
            tour(server, model, other)
            drain(server)
        finally:
            server.process.kill()
            print(open(f"{folder}/stderr").read()[-2000:], file=sys.stderr)


if __name__ == "__main__":
    main()
