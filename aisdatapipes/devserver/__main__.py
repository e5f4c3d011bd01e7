"""``python -m aisdatapipes.devserver``: the embedded cluster, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading

from aisdatapipes.devserver import DevCluster

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(arguments: list[str] | None = None) -> int:
    """Serves until it is told to end; the first line it prints is the endpoint."""
    options = _options(arguments)
    ended, end = os.pipe()
    os.set_blocking(end, False)
    # The kernel may hand a signal to any thread: what reaches the main one for sure is a byte in this pipe.
    signal.set_wakeup_fd(end)
    for number in _SIGNALS:
        signal.signal(number, lambda _number, _frame: None)
    make = DevCluster.demo if options.demo else DevCluster
    try:
        cluster = make(targets=options.targets, tls=options.tls, token=options.token, port=options.port).start()
    except (OSError, ImportError) as error:
        sys.stderr.write(f"the embedded cluster did not start: {error}\n")
        return 1
    _say(cluster, demo=options.demo)
    if options.until_eof:
        threading.Thread(target=_end_with_input, args=(end,), daemon=True).start()
    os.read(ended, 1)
    cluster.stop()
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m aisdatapipes.devserver", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="of the proxy; any free one by default")
    parser.add_argument("--targets", type=int, default=3, help="how many (3)")
    parser.add_argument("--demo", action="store_true", help="with a bucket 'demo' of two objects")
    parser.add_argument("--token", help="the bearer token that clients must have")
    parser.add_argument("--tls", action="store_true", help="https, with a certificate made at start")
    parser.add_argument("--until-eof", action="store_true", help="end when the standard input does")
    return parser.parse_args(arguments)


def _say(cluster: DevCluster, *, demo: bool) -> None:
    targets = len(cluster.map.targets)
    lines = [
        cluster.endpoint,
        f"An AIStore-compatible cluster of {targets} targets, in memory, on this machine only.",
        f"    export AIS_ENDPOINT={cluster.endpoint}",
    ]
    if cluster.ca_file:
        lines.append(f"    export AIS_CLIENT_CA={cluster.ca_file}")
    if demo:
        lines.append(f"    curl -L {cluster.endpoint}/v1/objects/demo/a.txt")
    sys.stdout.write("\n".join([*lines, "Ctrl-C ends it.", ""]))
    sys.stdout.flush()


def _end_with_input(end: int) -> None:
    sys.stdin.buffer.read()
    os.write(end, b"\0")


if __name__ == "__main__":
    sys.exit(main())
