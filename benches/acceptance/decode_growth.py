"""Decode time of a token at a short and a long context, against the bytes read."""

from common import bench, options, parse, server, verdict


def main():
    parser = options(__doc__)
    parser.add_argument("--short", type=int, default=128)
    parser.add_argument("--long", type=int, default=16384)
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--bar", type=float, default=1.15)
    args = parse(parser)
    pool = ["--max-total-tokens", args.long + args.output_len + 1024]
    with server(args, *pool) as running:
        usage = running.memory_usage()
    weights = usage["weight"]
    per_token = usage["kvcache"] / usage["token_capacity"]
    steps = []
    for length in (args.short, args.long):
        flags = ["--batch-size", 1, "--input-len", length, "--output-len", args.output_len]
        steps.append(bench(args, *flags, *pool)[-1]["step_ms_median"])
    read = [weights + per_token * length for length in (args.short, args.long)]
    time_growth, read_growth = steps[1] / steps[0], read[1] / read[0]
    print(f"step {steps[0]:.3f} ms to {steps[1]:.3f} ms: {time_growth:.3f}x", end="; ")
    print(f"bytes read {read_growth:.3f}x")
    ratio = time_growth / read_growth
    verdict("decode_growth", f"{ratio:.3f}x the bytes'", f"{args.bar:g}x", ratio <= args.bar)


if __name__ == "__main__":
    main()
