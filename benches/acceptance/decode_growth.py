"""Decode time of a token at growing contexts, against the bytes read.

Every length runs with a pool of the same size. The verdict is the last length's, beside the first.
"""

from common import bench, options, parse, verdict


def main():
    parser = options(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 1024, 4096, 16384])
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--bar", type=float, default=1.15)
    args = parse(parser)
    if len(args.lengths) < 2:
        raise SystemExit("--lengths needs two at least")
    pool = ["--max-total-tokens", max(args.lengths) + args.output_len + 1024]
    lines = bench(args, "--input-len", *args.lengths, "--output-len", args.output_len, *pool)
    first = lines[0]
    for line in lines:
        time_growth = line["step_ms_median"] / first["step_ms_median"]
        read_growth = bytes_read(line) / bytes_read(first)
        print(f"context {line['input_len']}: step {line['step_ms_median']:.3f} ms, ", end="")
        print(f"{time_growth:.3f}x; bytes read {read_growth:.3f}x")
    ratio = time_growth / read_growth
    verdict("decode_growth", f"{ratio:.3f}x the bytes'", f"{args.bar:g}x", ratio <= args.bar)


def bytes_read(line):
    return line["weight_bytes"] + line["kv_bytes_per_token"] * line["input_len"]


if __name__ == "__main__":
    main()
