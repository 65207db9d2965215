"""Many streaming clients for minutes: errors, memory drift, time between tokens."""

import time

from common import bench, gaps, in_threads, median, options, parse, prompt, server, verdict


def main():
    parser = options(__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=256)
    parser.add_argument("--bar", type=float, default=1.2)
    parser.add_argument("--drift-mib", type=float, default=64)
    args = parse(parser)
    flags = ["--batch-size", args.clients, "--input-len", args.input_len]
    line = bench(args, *flags, "--output-len", args.output_len)[-1]
    alone = line["step_ms_median"]
    counts, between = [0] * args.clients, []

    def client(i):
        while time.monotonic() < end:
            ids = prompt(args, args.input_len, f"{i} {counts[i]}")
            between.extend(gaps(running.stream(ids, args.output_len)[1]))
            counts[i] += 1

    with server(args, "--max-running-requests", args.clients) as running:
        began = time.monotonic()
        end = began + args.minutes * 60
        join = in_threads(client, args.clients)
        # The first fifth fills the caches.
        time.sleep(args.minutes * 12)
        first = running.rss_bytes(), running.active_gib()
        time.sleep(max(end - time.monotonic(), 0))
        last = running.rss_bytes(), running.active_gib()
        errors = join()[1]
    for error in errors[:5]:
        print(f"error: {error}")
    rss = (last[0] - first[0]) / 2**20 if None not in (first[0], last[0]) else 0
    device = (last[1] - first[1]) * 1024
    ratio = median(between) * 1e3 / alone
    print(f"{sum(counts)} requests, {len(errors)} errors; RSS {rss:+.1f} MiB, device {device:+.1f} MiB")
    print(f"between tokens {median(between) * 1e3:.2f} ms; bench-one-batch {alone:.2f} ms a step")
    passed = not errors and max(rss, device) <= args.drift_mib and ratio <= args.bar
    bar = f"{args.bar:g}x, no errors, {args.drift_mib:g} MiB"
    figure = f"{ratio:.2f}x, {len(errors)} errors, {max(rss, device):+.1f} MiB"
    verdict("soak", figure, bar, passed)


if __name__ == "__main__":
    main()
