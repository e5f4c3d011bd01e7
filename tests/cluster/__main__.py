"""``python -m tests.cluster [-t N] [-p N] [--tls] [--authn SECRET] [-- COMMAND ...]``: a real cluster by hand."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys

from tests.cluster import LocalCluster


def main() -> int:
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    argv, command = sys.argv[1:cut], sys.argv[cut + 1 :]
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("-t", "--targets", type=int, default=3)
    parser.add_argument("-p", "--proxies", type=int, default=1)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--authn", default="", metavar="SECRET")
    args = parser.parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with LocalCluster(args.targets, args.proxies, tls=args.tls, authn_secret=args.authn) as cluster:
        env = {"AIS_ENDPOINT": cluster.endpoint, "AIS_AUTHN_TOKEN": cluster.token, "AIS_CLIENT_CA": cluster.ca_file}
        env = {key: value for key, value in env.items() if value}
        print(*(f"export {key}={value}" for key, value in env.items()), sep="\n", flush=True)
        if command:
            return subprocess.run(command, env=os.environ | env, check=False).returncode
        while True:
            signal.pause()


if __name__ == "__main__":
    sys.exit(main())
