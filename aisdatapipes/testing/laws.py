"""Laws of data loading, to be checked on any dataset or pipe: ours, or one that is built on ours.

Each raises ``AssertionError`` that says which sample broke the law. They read the whole dataset several times, so
they are for small ones, in tests; an `AISBucket` of the fixture ``ais_bucket`` is a good place for it.
"""

from __future__ import annotations

import pickle
import warnings
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from aisdatapipes.testing.contents import content, contents, samples, shown
from aisdatapipes.testing.leaks import Open

_TIMEOUT = 60.0  # seconds until a worker that says nothing is given up: torch alone takes several to import
_COPIES = ("pickle", "fork", "spawn")
_END = object()


def check_dataset(dataset: Any, *, num_workers: int = 2) -> None:
    """Every law that a dataset must obey, one after the other."""
    check_epochs(dataset)
    check_copies(dataset)
    check_loader(dataset, num_workers=num_workers)
    check_early_break(dataset)


def check_epochs(dataset: Any, *, any_order: bool = False) -> None:
    """A second pass gives what the first gave; where there is ``set_epoch``, both are epoch 0.

    Args:
        dataset: Iterable, map-style, or a pipe.
        any_order: The order may differ, as it does with a shuffle that has no ``set_epoch``.
    """
    first, second = _epoch(dataset), _epoch(dataset)
    if any_order:
        _same_samples(first, second, "the second epoch")
    else:
        _same_order(first, second, "the second epoch")


def check_copies(dataset: Any, *, ways: Sequence[str] = _COPIES, timeout: float = _TIMEOUT) -> None:
    """A copy gives the same samples, in the same order, even of a dataset that is in use.

    Args:
        dataset: Without a shuffle, or one that has ``set_epoch``.
        ways: How the copy is made: ``"pickle"`` in this process, ``"fork"`` and ``"spawn"`` in one worker.
        timeout: Seconds without a sample until a worker is given up.
    """
    expected = _epoch(dataset)
    in_use = samples(dataset)
    next(in_use, None)  # whatever iteration leaves on the dataset must not travel, nor prevent travelling
    for way in ways:
        _begin(dataset)
        try:
            found = _copied(dataset, way, timeout)
        except Exception as error:
            raise AssertionError(f"a copy by {way} cannot be read: {type(error).__name__}: {error}") from error
        _same_order(expected, found, f"a copy by {way}")


def check_loader(
    dataset: Any, *, num_workers: int = 2, batch_size: int = 3, timeout: float = _TIMEOUT, **options: Any
) -> None:
    """A DataLoader with workers gives every sample exactly once, in any order.

    Args:
        dataset: Iterable, map-style, or a pipe.
        num_workers: Of the loader.
        batch_size: Of the loader; a number that does not divide the number of samples shows more.
        timeout: Seconds without a batch until the loader is given up.
        options: Further ones of the loader, such as ``persistent_workers`` or ``multiprocessing_context``.
    """
    expected = _epoch(dataset)
    _begin(dataset)
    loader = _loader(dataset, num_workers, timeout, batch_size=batch_size, **options)
    found = [sample for batch in loader for sample in batch]
    _same_samples(expected, found, f"a DataLoader with {num_workers} workers")


def check_early_break(dataset: Any, *, after: int = 1, patience: float = 10.0) -> None:
    """A loop that breaks off leaves no thread and no socket of this process behind.

    Args:
        dataset: Iterable, map-style, or a pipe.
        after: Samples until the break.
        patience: Seconds that may pass until everything is closed: connections are kept a moment for the next loop.
    """
    before = Open.now()
    passing = samples(dataset)
    for _ in range(after):
        next(passing, None)
    del passing
    left = before.left(patience)
    if left:
        raise AssertionError(f"a loop that broke off after {after} samples left behind: {', '.join(left)}")


def check_worker_error(error: Exception, *, timeout: float = _TIMEOUT) -> None:
    """An error raised in a DataLoader's worker arrives with its class, its message and its attributes.

    torch builds it anew, as ``type(error)(text of the traceback)``: a class that wants other arguments arrives as
    ``RuntimeError``, and attributes are lost unless the class finds them in the text.

    Args:
        error: One with everything set that a user could ask for.
        timeout: Seconds until the worker is given up: an error that cannot be pickled hangs the loader.
    """
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    _same_error(error, copy, "pickled")
    try:
        list(_loader(_Failing(error), 1, timeout))
    except Exception as found:  # noqa: BLE001 - which one it is is the question
        _same_error(error, found, "through a DataLoader's worker")
    else:
        raise AssertionError(f"{type(error).__name__} did not arrive: the loader ended as if all were well")


class _Failing(IterableDataset[Any]):
    """Raises, where it is read."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __iter__(self) -> Iterator[Any]:
        raise self._error


def _same_error(expected: Exception, found: Exception, way: str) -> None:
    name = type(expected).__name__
    if type(found) is not type(expected):
        raise AssertionError(f"{name} {way} arrives as {type(found).__name__}: {found}")
    if str(expected) not in str(found):
        raise AssertionError(f"{name} {way} lost its message {str(expected)!r}: it says {str(found)!r}")
    for attribute, value in vars(expected).items():
        other = getattr(found, attribute, None)
        # An attribute that repeats the message has the traceback around it too.
        if other != value and not (value == str(expected) and value in str(other)):
            raise AssertionError(f"{name} {way} lost .{attribute}: {other!r}, not {value!r}")


def _begin(dataset: Any) -> None:
    """The next pass is epoch 0, where a dataset can be told."""
    if callable(set_epoch := getattr(dataset, "set_epoch", None)):
        set_epoch(0)


def _epoch(dataset: Any) -> list[Hashable]:
    _begin(dataset)
    return contents(dataset)


def _copied(dataset: Any, way: str, timeout: float) -> list[Hashable]:
    if way == "pickle":
        return contents(pickle.loads(pickle.dumps(dataset)))  # noqa: S301 - our own bytes
    loader = _loader(dataset, 1, timeout, batch_size=1, multiprocessing_context=way)
    return [sample for batch in loader for sample in batch]


def _loader(dataset: Any, num_workers: int, timeout: float, **options: Any) -> Iterator[list[Hashable]]:
    """Batches of samples, each as `content`, which the workers make: not every sample can travel."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)  # the caller chose it
        options.setdefault("collate_fn", _batch)
        yield from DataLoader(dataset, num_workers=num_workers, timeout=timeout if num_workers else 0, **options)


def _batch(batch: list[Any]) -> list[Hashable]:
    return [content(sample) for sample in batch]


def _same_order(expected: list[Hashable], found: list[Hashable], what: str) -> None:
    for position, (one, other) in enumerate(zip_longest(expected, found, fillvalue=_END)):
        if other is _END:
            raise AssertionError(f"{what} ends after {len(found)} of {len(expected)} samples")
        if one is _END:
            raise AssertionError(f"{what} goes on after {len(expected)} samples, with {shown(other)}")
        if one != other:
            raise AssertionError(f"{what} differs at sample {position}: {shown(other)}, not {shown(one)}")


def _same_samples(expected: list[Hashable], found: list[Hashable], what: str) -> None:
    missing, extra = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    if not missing and not extra:
        return
    told = []
    if missing:
        told.append(f"{missing.total()} missing, such as {shown(next(iter(missing)))}")
    if extra:
        again = " (a pipe without sharding_filter or ais_plan?)" if set(extra) <= set(expected) else ""
        told.append(f"{extra.total()} too many{again}, such as {shown(next(iter(extra)))}")
    raise AssertionError(f"{what} gives {len(found)} samples, {len(expected)} expected: {'; '.join(told)}")
