"""Peak memory above weights and K/V pool, for prompts of growing length.

Every length runs with a pool of the same size, so what stays constant cancels out.
"""

from common import bench, options, parse, verdict


def main():
    parser = options(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192, 32768])
    parser.add_argument("--chunk", type=int, default=2048)
    parser.add_argument("--slack-mib", type=float, default=64)
    args = parse(parser)
    flags = ["--chunked-prefill-size", args.chunk, "--max-total-tokens", max(args.lengths) + 1024]
    peaks = {}
    for length in args.lengths:
        line = bench(args, "--input-len", length, "--output-len", 2, *flags)[-1]
        peaks[length] = line["peak_memory_bytes"] / 2**20
        print(f"{length} tokens: peak {peaks[length]:.1f} MiB", flush=True)
    first = min(args.lengths)
    if first < args.chunk:
        raise SystemExit("the shortest prompt must fill one chunk")
    growth = max(peaks.values()) - peaks[first]
    bar = f"{args.slack_mib:g} MiB"
    verdict("long_prefill", f"{growth:.1f} MiB above one chunk's", bar, growth <= args.slack_mib)


if __name__ == "__main__":
    main()
