"""What SGLang's Grafana dashboard asks for, on a server under load; and the request log at every level, in both formats.

    python observability.py BINARY [ARGUMENTS OF launch-server ...]

The series are those that the expressions of `examples/monitoring` in SGLang's repository name, with the labels that they
select and sum by. Needs Python's standard library.
"""

import glob
import json
import re
import sys
import tempfile
import threading
import time

from local_server import LocalServer, ask, ask_json, check, until

# name -> labels that its panels need beside `instance`, which Prometheus adds.
GAUGES = {name: {"model_name"} for name in ("num_running_reqs", "num_queue_reqs", "gen_throughput", "cache_hit_rate")}
HISTOGRAMS = {
    "e2e_request_latency_seconds": {"model_name", "is_streaming"},
    "time_to_first_token_seconds": {"model_name", "is_streaming"},
    "inter_token_latency_seconds": {"model_name"},
}
# Beside the dashboard: what SGLang's gateway reads.
GATEWAY = ("token_usage", "utilization", "max_total_num_tokens", "num_used_tokens")
SAMPLE = re.compile(r"^sglang:(\w+)(?:\{(.*)\})? (\S+)$")
FIELDS = {0: set(), 1: {"sampling_params"}, 2: {"sampling_params", "text", "input_ids"}, 3: {"sampling_params", "text", "input_ids"}}


def scrape(server):
    """Name -> list of (labels, value)."""
    samples = {}
    for line in ask(f"{server.url}/metrics")[1].decode().splitlines():
        found = SAMPLE.match(line)
        assert found or line.startswith("#"), f"no line of the text format: {line}"
        if found:
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or ""))
            samples.setdefault(found[1], []).append((labels, float(found[3])))
    return samples


def load(server, num_clients=8, num_tokens=24):
    """Clients that stream or wait, each with a prefix that the others have."""
    def run(index):
        params = {"temperature": 0, "max_new_tokens": num_tokens, "ignore_eos": True}
        body = {"text": "The quick brown fox jumps over the lazy dog. " * 12 + str(index), "sampling_params": params, "stream": index % 2 == 0}
        assert ask(f"{server.url}/generate", body)[0] == 200

    threads = [threading.Thread(target=run, args=(index,)) for index in range(num_clients)]
    for thread in threads:
        thread.start()
    return threads


def check_histogram(samples, name, labels):
    buckets = {}
    for sample, value in samples.get(f"{name}_bucket", []):
        assert labels | {"le"} <= set(sample), f"{name}: {sample}"
        series = tuple(sorted((key, label) for key, label in sample.items() if key != "le"))
        buckets.setdefault(series, []).append((float(sample["le"]), value))
    counts = {tuple(sorted(sample.items())): value for sample, value in samples.get(f"{name}_count", [])}
    sums = {tuple(sorted(sample.items())): value for sample, value in samples.get(f"{name}_sum", [])}
    check(buckets and set(buckets) == set(counts) == set(sums), f"{name}: {len(buckets)} series, by {sorted(labels)}")
    for series, values in buckets.items():
        values.sort()
        rising = all(low[1] <= high[1] for low, high in zip(values, values[1:]))
        assert rising and values[-1][0] == float("inf") and values[-1][1] == counts[series] > 0, (series, values)
        assert sums[series] > 0, series


def dashboard(server):
    seen = dict.fromkeys(GAUGES, 0.0)
    threads = load(server)
    while any(thread.is_alive() for thread in threads):
        samples = scrape(server)
        for name in seen:
            seen[name] = max([seen[name], *(value for _, value in samples[name])])
        time.sleep(0.05)
    samples = scrape(server)
    for name, labels in GAUGES.items():
        check(all(labels <= set(sample) for sample, _ in samples[name]) and seen[name] > 0, f"{name}: up to {seen[name]:g} under load")
    for name, labels in HISTOGRAMS.items():
        check_histogram(samples, name, labels)
    check(all(samples.get(name) for name in GATEWAY), f"and {', '.join(GATEWAY)}")
    streams = {sample["is_streaming"]: value for sample, value in samples["e2e_request_latency_seconds_count"]}
    check(streams["true"] >= 4 and streams["false"] >= 4, f"requests by is_streaming: {streams}")


def new_lines(path, so_far):
    """Both lines of the one request after `so_far` bytes."""
    def whole():
        return open(path).read()[so_far:].count("\n") == 2

    until(whole, "two lines in the log", 10)
    return [line.split("] ", 1)[1] for line in open(path).read()[so_far:].splitlines()]


def read_lines(lines, style):
    if style == "json":
        received, finished = map(json.loads, lines)
        assert (received["event"], finished["event"]) == ("request.received", "request.finished") and received["timestamp"]
        assert received["rid"] == finished["rid"] == received["obj"]["rid"]
        return received["obj"], finished["obj"], finished["out"]
    received, (finished, out) = lines[0].removeprefix("Receive: obj="), lines[1].removeprefix("Finish: obj=").split(", out=", 1)
    return json.loads(received), json.loads(finished), json.loads(out)


def log_levels(server, folder):
    [path] = glob.glob(f"{folder}/*_0.log")
    prompt = [504] * 3000
    for style in ("text", "json"):
        for level, fields in FIELDS.items():
            setting = {"log_requests_level": level, "log_requests_format": style}
            assert ask(f"{server.url}/configure_logging", setting)[0] == 200
            so_far = len(open(path).read())
            ask_json(f"{server.url}/generate", {"input_ids": prompt, "sampling_params": {"max_new_tokens": 2, "temperature": 0}})
            received, finished, out = read_lines(new_lines(path, so_far), style)
            assert received == finished and set(received) == {"rid", "stream"} | fields, (level, set(received))
            assert set(out) == {"meta_info"} | ({"text", "output_ids"} if level >= 2 else set()), (level, set(out))
            assert out["meta_info"]["prompt_tokens"] == 3000 and out["meta_info"]["e2e_latency"] > 0
            if level >= 2:
                ids = received["input_ids"]
                whole = ids == prompt
                assert whole == (level == 3) and (whole or len(ids) == 2049 and ids[1024] == "..."), (level, len(ids))
        check(True, f"levels 0 to 3 as {style}")
    for bad in ({"log_requests_level": 4}, {"log_requests_format": "xml"}):
        assert ask(f"{server.url}/configure_logging", bad)[0] == 400
    check(True, "other levels and formats are refused")


def main():
    binary, *more = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        log = ["--log-requests", "--log-requests-target", folder, "stdout", "--log-requests-level", "0"]
        with LocalServer(binary, "--max-running-requests", "4", *log, *more) as server:
            dashboard(server)
            log_levels(server, folder)
            [path] = glob.glob(f"{folder}/*_0.log")
            lines = open(path).read().splitlines()
            printed = set(server.output().splitlines())
            check(len(lines) >= 24 and all(line in printed for line in lines), f"{len(lines)} lines, in the file and on standard output")


if __name__ == "__main__":
    main()
