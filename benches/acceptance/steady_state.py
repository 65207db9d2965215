"""Device memory of a server whose streams decode on and on, and host time of a step."""

import threading

from common import in_threads, mean_between, options, parse, prompt, server, verdict


def main():
    parser = options(__doc__)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--first", type=int, default=200)
    parser.add_argument("--input-len", type=int, default=64)
    parser.add_argument("--slack-mib", type=float, default=1)
    args = parse(parser)
    # The last reading is taken some steps before the end, while every stream still runs.
    last = args.steps - max(args.steps // 20, 5)
    if not 0 < args.first < last:
        raise SystemExit("--first must lie well before --steps")
    marks = {args.first: threading.Event(), last: threading.Event()}
    pool = args.streams * (args.input_len + args.steps + 64)

    def decode(i):
        def on_token(tokens):
            for mark, reached in marks.items():
                if i == 0 and tokens >= mark:
                    reached.set()

        try:
            return running.stream(prompt(args, args.input_len, i), args.steps, on_token)
        finally:
            if i == 0:
                for reached in marks.values():
                    reached.set()

    flags = ["--profile", "--max-total-tokens", pool, "--max-running-requests", args.streams]
    with server(args, *flags) as running:
        join = in_threads(decode, args.streams)
        memory, profiles = [], []
        for reached in marks.values():
            reached.wait()
            memory.append(running.active_gib() * 1024)
            profiles.append(running.decode_profile())
        errors = join()[1]
    for error in errors:
        print(f"error: {error}")
    drift = memory[1] - memory[0]
    print(f"step {args.first}: {memory[0]:.2f} MiB, step {last}: {memory[1]:.2f} MiB")
    if None in profiles:
        print("no time of a step: the server runs without --profile")
    else:
        host, device = (mean_between(*profiles, figure) for figure in ("host_ms", "device_ms"))
        steps = profiles[1]["num_steps"] - profiles[0]["num_steps"]
        print(f"host {host:.3f} ms a step, waiting for the device {device:.3f} ms ({steps} steps)")
    passed = not errors and abs(drift) <= args.slack_mib
    verdict("steady_state", f"{drift:+.2f} MiB", f"{args.slack_mib:g} MiB", passed)


if __name__ == "__main__":
    main()
