"""What running streams, and a short request, notice of a long prompt that is prefilled.

A chunk is --chunk tokens of the prompt, however the server splits it: beside running requests
it comes in pieces that are smaller.
"""

import threading
import time

from common import gaps, in_threads, median, options, parse, prompt, server, verdict


def main():
    parser = options(__doc__)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--stream-len", type=int, default=2000, help="tokens of each stream")
    parser.add_argument("--undisturbed", type=int, default=100, help="tokens before the prompt")
    parser.add_argument("--long-len", type=int, default=32768)
    parser.add_argument("--chunk", type=int, default=2048)
    parser.add_argument("--bar", type=float, default=3)
    parser.add_argument("--chunks-bar", type=float, default=2)
    args = parse(parser)
    pool = args.streams * (args.stream_len + 128) + args.long_len + 1024
    flags = ["--max-total-tokens", pool, "--chunked-prefill-size", args.chunk]
    ready = threading.Event()

    def stream(i):
        def on_token(tokens):
            if i == 0 and tokens >= args.undisturbed:
                ready.set()

        try:
            return running.stream(prompt(args, 64, i), args.stream_len, on_token)[1]
        finally:
            if i == 0:
                ready.set()

    with server(args, *flags) as running:
        info = running.info()
        running.ttft(prompt(args, args.chunk, 99))
        join_streams = in_threads(stream, args.streams)
        ready.wait()
        begin = time.perf_counter()
        long = prompt(args, args.long_len, 100)
        join_long = in_threads(lambda _: running.ttft(long, 1), 1)
        # Into the first chunk or two, so that most of the prompt is still to come.
        time.sleep(0.05)
        short = running.ttft(prompt(args, 16, 101))
        (long_ttft,), errors = join_long()
        end = begin + (long_ttft or 0)
        streams, stream_errors = join_streams()
    for error in errors + stream_errors:
        print(f"error: {error}")
    if errors or stream_errors:
        verdict("beside_long_prompt", "errors", "none", False)
    before = [gap for events in streams for gap in gaps(events, end=begin)]
    during = [gap for events in streams for gap in gaps(events, begin, end)]
    if min(events[-1][0] for events in streams) < end:
        print("note: a stream ended before the prompt was prefilled; give a larger --stream-len")
    chunk = long_ttft / (args.long_len / args.chunk)
    calm, busy = median(before) * 1e3, median(during) * 1e3
    tokens = sum(begin < at <= end for events in streams for at, _ in events)
    mean = long_ttft * args.streams / max(tokens, 1) * 1e3
    print_pieces(args.long_len, info["chunked_prefill_size"], info["prefill_sharing"])
    print(f"between tokens: undisturbed {calm:.2f} ms, during: mean {mean:.2f} ms, ", end="")
    print(f"median {busy:.2f} ms, max {max(during) * 1e3:.2f} ms")
    print(f"long prompt {long_ttft:.2f} s, a chunk of {args.chunk} {chunk * 1e3:.1f} ms, ", end="")
    print(f"short request {short * 1e3:.1f} ms = {short / chunk:.2f} chunks")
    # Most gaps may be short while a few are very long: the mean has to hold too.
    slower = max(mean, busy) / calm
    passed = slower < args.bar and short <= args.chunks_bar * chunk
    figure = f"{slower:.2f}x, {short / chunk:.2f} chunks"
    verdict("beside_long_prompt", figure, f"{args.bar:g}x, {args.chunks_bar:g} chunks", passed)


def print_pieces(length, chunk, sharing):
    """How a server splits a prompt while requests run; a chunk of -1 is no limit."""
    chunk = chunk if chunk and chunk > 0 else length
    shares = sharing and length > sharing["above"]
    piece = min(sharing["chunk"], chunk) if shares else chunk
    print(f"the server's chunk: {chunk} tokens; ", end="")
    print(f"beside streams {-(-length // piece)} pieces of {piece} tokens")


if __name__ == "__main__":
    main()
