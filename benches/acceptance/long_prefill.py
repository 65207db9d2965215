"""Peak memory above weights and K/V pool, for prompts of growing length.

Every length runs with a pool of the same size, so what stays constant cancels out. The reference
is the shortest prompt that fills a chunk, by the chunk that is in force.
"""

from common import bench, options, parse, verdict


def main():
    parser = options(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192, 32768])
    parser.add_argument("--chunk", type=int, default=2048)
    parser.add_argument("--slack-mib", type=float, default=64)
    args = parse(parser)
    lengths = sorted(args.lengths)
    flags = ["--chunked-prefill-size", args.chunk, "--max-total-tokens", lengths[-1] + 1024]
    lines = bench(args, "--input-len", *lengths, "--output-len", 2, *flags)
    peaks = {line["input_len"]: line["peak_memory_bytes"] / 2**20 for line in lines}
    for length, peak in peaks.items():
        print(f"{length} tokens: peak {peak:.1f} MiB")
    chunk = lines[0]["chunked_prefill_size"]
    print(f"chunk in force: {chunk or 'none, prompts are not split'}")
    filling = [length for length in lengths if length >= (chunk or 0)]
    bar = f"{args.slack_mib:g} MiB"
    if len(filling) < 2:
        verdict("long_prefill", f"fewer than two lengths fill a chunk of {chunk}", bar, False)
    growth = max(peaks[length] for length in filling) - peaks[filling[0]]
    figure = f"{growth:.1f} MiB above {filling[0]} tokens'"
    verdict("long_prefill", figure, bar, growth <= args.slack_mib)


if __name__ == "__main__":
    main()
