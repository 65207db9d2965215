"""Time to the first token of a prompt that is new, and of one whose prefix is cached."""

from common import median, options, parse, prompt, server, verdict


def main():
    parser = options(__doc__)
    parser.add_argument("--prefix-len", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bar", type=float, default=10)
    args = parse(parser)
    cold, warm = [], []
    with server(args) as running:
        # Kernels of these shapes, cold and warm, are compiled before anything is measured.
        for _ in range(2):
            running.ttft(prompt(args, args.prefix_len, 0))
        for seed in range(1, args.rounds + 1):
            ids = prompt(args, args.prefix_len, seed)
            cold.append(running.ttft(ids))
            warm.append(running.ttft(ids))
    ratio = median(cold) / median(warm)
    print(f"cold {median(cold) * 1e3:.1f} ms, warm {median(warm) * 1e3:.1f} ms")
    verdict("ttft_warm", f"{ratio:.1f}x shorter", f"{args.bar:g}x", ratio >= args.bar)


if __name__ == "__main__":
    main()
