"""The command ``aisdatapipes`` and its parts."""

from __future__ import annotations

import click

from aisdatapipes.cli.asking import Commands
from aisdatapipes.cli.check import check
from aisdatapipes.cli.index import index
from aisdatapipes.cli.ls import ls
from aisdatapipes.cli.peek import peek
from aisdatapipes.version import __version__


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="aisdatapipes")
def main() -> None:
    """Look after training data in NVIDIA AIStore clusters.

    A URL is that of a bucket, of a prefix in it, or of an object: ais://bucket/train-. Exit status: 0, 1 for what went
    wrong or was found wrong, 2 for wrong usage.
    """


for _command in (check, index, ls, peek):
    main.add_command(_command)
