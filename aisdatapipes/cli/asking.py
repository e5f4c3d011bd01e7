"""What all commands share: URLs and endpoints as arguments, lines as output, errors in one line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.model.config import config_from_environment
from aisdatapipes.model.errors import AISPipeError, InvalidURL
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.source import Source, source_of

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """What ends a command with status 1: one line on the standard error."""

    def show(self, file: Any = None) -> None:
        """Say it."""
        del file
        say(f"aisdatapipes: {' '.join(self.message.split())}", err=True)


class Commands(click.Group):
    """Commands whose errors are told, not traced."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # whoever read the output has seen enough: click ends quietly
        except (AISPipeError, OSError) as error:
            raise Failure(str(error)) from error


def say(text: str, *, err: bool = False) -> None:
    """Print a line; names of objects come out byte for byte, but on a terminal none that would obey them."""
    if (sys.stderr if err else sys.stdout).isatty():
        click.echo("".join(char if char.isprintable() else ascii(char)[1:-1] for char in text), err=err)
    else:
        click.echo(os.fsencode(text), err=err)


def asks_cluster(command: F) -> F:
    """Decorator: the arguments ``urls``, ``endpoint`` and ``verbose``; the last one is taken care of here."""
    log = click.option(
        "-v", "--verbose", is_flag=True, callback=_set_up_log, expose_value=False, help="Tell of retries and decisions."
    )
    endpoint = click.option(
        "--endpoint", envvar="AIS_ENDPOINT", metavar="URL", help="The cluster, http://host:port; else AIS_ENDPOINT."
    )
    argument = click.argument("urls", nargs=-1, required=True, callback=_parsed, metavar="URL...")
    return argument(endpoint(log(command)))


def sources_of(urls: Sequence[AISURL], endpoint: str | None) -> list[Source]:
    """What the URLs stand for, at their own endpoint or at the one that was given."""
    lost = next((url for url in urls if not (url.endpoint or endpoint)), None)
    if lost is not None:
        raise click.UsageError(f"{lost}: at which cluster? Give --endpoint http://host:port, or set AIS_ENDPOINT.")
    return [source_of(url, config_from_environment(url.endpoint or endpoint)) for url in urls]


def clusters_of(sources: Sequence[Source]) -> Clusters:
    """Their clusters."""
    return Clusters(None, {source.config.endpoint: source.config for source in sources})


def _set_up_log(_ctx: click.Context, _param: click.Parameter, verbose: bool) -> None:
    # What matters of it, a command says itself.
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("aisdatapipes").setLevel(logging.INFO if verbose else logging.ERROR)


def _parsed(_ctx: click.Context, _param: click.Parameter, urls: tuple[str, ...]) -> tuple[AISURL, ...]:
    try:
        return tuple(map(AISURL.parse, urls))
    except InvalidURL as error:
        raise click.BadParameter(str(error)) from None
