"""What all pipes share: typed functional methods, registration, and what a source can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from torch.utils.data import IterDataPipe

from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.url import AISURL

if TYPE_CHECKING:
    from aistore.sdk import Client

    from aisdatapipes.flow.tolerance import OnError
    from aisdatapipes.model.config import ClientConfig, FetchPlan
    from aisdatapipes.model.world import World
    from aisdatapipes.order.deal import Even
    from aisdatapipes.pipes.decoding import Decoding
    from aisdatapipes.pipes.lister import AISFileListerIterDataPipe
    from aisdatapipes.pipes.loader import AISFileLoaderIterDataPipe
    from aisdatapipes.pipes.planner import AISPlanner
    from aisdatapipes.pipes.samples import AISShardSamples

T_co = TypeVar("T_co", covariant=True)
P = TypeVar("P", bound=type)

# What takes a URL takes one text, several, or a pipe of them.
Urls = Iterable[str] | str
Endpoint = "str | ClientConfig | Client | None"


class AISPipe(IterDataPipe[T_co]):
    """A pipe of this package: a chain that starts with one is typed to its end.

    torch gives functional methods to all pipes at run time, as ``Any``; the signatures below tell type checkers.
    """

    if TYPE_CHECKING:

        def ais_list_files(
            self, url: str | ClientConfig | Client | None = None, length: int = -1, *, name_filter: Any = None
        ) -> AISFileListerIterDataPipe:
            """`AISFileListerIterDataPipe` over this pipe."""

        list_files_by_ais = ais_list_files

        def ais_load_files(
            self,
            url: str | ClientConfig | Client | None = None,
            length: int = -1,
            etl_name: str | None = None,
            *,
            fetch: FetchPlan | None = None,
            on_error: OnError = "raise",
            max_errors: float | None = None,
        ) -> AISFileLoaderIterDataPipe:
            """`AISFileLoaderIterDataPipe` over this pipe."""

        load_files_by_ais = ais_load_files

        def ais_read_shards(
            self,
            *,
            fields: Iterable[str] | None = None,
            missing: str = "zero",
            decode: Decoding = None,
            on_error: OnError = "raise",
            max_errors: float | None = None,
        ) -> AISShardSamples:
            """`AISShardSamples` over this pipe."""

        def ais_plan(
            self,
            *,
            shuffle: bool = False,
            seed: int = 0,
            batch_size: int = 1,
            even: Even | None = None,
            world: World | None = None,
        ) -> AISPlanner:
            """`AISPlanner` over this pipe."""


def functional(*names: str) -> Callable[[P], P]:
    """Class decorator: give the pipe to every `IterDataPipe` under ``names``; harmless when repeated.

    torch's own decorator raises when a name is taken, so a module that is imported again, or whose name another
    package uses too, would fail.
    """

    def register(pipe: P) -> P:
        for name in names:
            IterDataPipe.functions.pop(name, None)
            IterDataPipe.register_datapipe_as_function(name, pipe)
        return pipe

    return register


def legacy_name(name: str) -> Callable[[P], P]:
    """Class decorator: like `functional`, for a name that torchdata up to 0.9 registers as well.

    A method of the class is found before any registered function, so it wins whoever is imported first; and
    torchdata, which would fail to import if the name were registered already, does not notice it.
    """

    def register(pipe: P) -> P:
        def method(self: IterDataPipe[Any], *args: Any, **kwargs: Any) -> Any:
            return pipe(self, *args, **kwargs)

        method.__name__ = name
        method.__doc__ = pipe.__doc__
        setattr(IterDataPipe, name, method)
        return pipe

    return register


def checked_source(source: Any, pipe: str) -> Any:
    """A source pipe, list or tuple as it is, one URL as a list of it; anything else is a `ConfigError`."""
    if isinstance(source, str):
        AISURL.parse(source)
        return [source]
    if isinstance(source, (list, tuple)):
        if not source:
            raise ConfigError(f"{pipe}: the source is empty; expected URLs such as ais://bucket/")
        for url in source:
            AISURL.parse(url)
        return source
    if isinstance(source, IterDataPipe) or (isinstance(source, Iterable) and not isinstance(source, (bytes, Iterator))):
        return source
    if isinstance(source, Iterator):
        # A second epoch would find it empty.
        return list(source)
    raise ConfigError(f"{pipe}: a source is a pipe, a list or a tuple of URLs, or one URL, not {source!r}")


def checked_length(length: int, pipe: str) -> int:
    """``length`` if it can be one; -1 stands for "unknown"."""
    if not isinstance(length, int) or length < -1:
        raise ConfigError(f"{pipe}: length must be 0 or more, or -1 for unknown, not {length!r}")
    return length


def length_of(pipe: object, length: int) -> int:
    """``length``, or the `TypeError` that torch expects of a pipe that does not know it."""
    if length == -1:
        raise TypeError(f"{type(pipe).__name__} instance doesn't have valid length")
    return length
