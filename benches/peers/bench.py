"""What both comparisons need: running programs in turn, medians, ratios, the table."""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "third_party" / "peers"


def our_binary():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    binary = target / "release" / "sglang-mlx"
    if not binary.exists():
        sys.exit(f"{binary} is missing: run `make build`")
    return binary


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command, timeout=1800):
    """Standard output; what failed is shown with all that it printed."""
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        sys.exit(f"failed ({done.returncode}): {' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def server(command, port, log):
    """A server until the end of the block, from the moment its /health says 200."""
    with open(log, "w") as output:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 300
        while not is_healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{command[0]} did not start:\n{Path(log).read_text()}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def is_healthy(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


class Figures:
    """Tokens a second by (engine, what), one for each round."""

    def __init__(self):
        self.samples = {}

    def add(self, engine, what, tokens_per_second):
        say(f"  {engine:<14} {what:<16} {tokens_per_second:10.1f} tok/s")
        self.samples.setdefault((engine, what), []).append(tokens_per_second)

    def median(self, engine, what):
        samples = self.samples.get((engine, what))
        return statistics.median(samples) if samples else None


def compare(figures, bars):
    """Rows for (what, peer, first bar, goal)."""
    rows = []
    for what, peer, bar, goal in bars:
        ours, theirs = figures.median("sglang-mlx", what), figures.median(peer, what)
        if ours is None or theirs is None:
            continue
        ratio = ours / theirs
        rows.append(
            {
                "what": what,
                "peer": peer,
                "ours_tps": round(ours, 2),
                "peer_tps": round(theirs, 2),
                "ratio": round(ratio, 3),
                "bar": bar,
                "goal": goal,
                "meets_bar": ratio >= bar,
                "meets_goal": goal is not None and ratio >= goal,
            }
        )
    return rows


def report(rows, figures, about, output):
    heading = ("what", "peer", "ours", "peer's", "ratio", "bar", "goal", "")
    print(about)
    layout = "{:<28} {:<13} {:>10} {:>10} {:>8} {:>6} {:>6}  {}"
    print(layout.format(*heading))
    for row in rows:
        verdict = "goal" if row["meets_goal"] else "bar" if row["meets_bar"] else "below the bar"
        goal = "-" if row["goal"] is None else f"{row['goal']}x"
        print(
            layout.format(
                row["what"],
                row["peer"],
                f"{row['ours_tps']:.1f}",
                f"{row['peer_tps']:.1f}",
                f"{row['ratio']:.2f}x",
                f"{row['bar']}x",
                goal,
                verdict,
            )
        )
    samples = [
        {"engine": engine, "what": what, "tokens_per_second": values}
        for (engine, what), values in figures.samples.items()
    ]
    text = json.dumps({"about": about, "rows": rows, "samples": samples}, indent=1)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text + "\n")
    print(f"written: {output}")
