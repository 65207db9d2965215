"""A server for several scripts: prints its address and process, and runs until it is ended."""

import signal
import sys

from common import options, parse, server


def main():
    args = parse(options(__doc__))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with server(args, "--profile") as running:
        print(running.url, running.pid, flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
