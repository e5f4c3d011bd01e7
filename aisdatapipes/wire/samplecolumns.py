"""Which members of an index make which samples: as columns, for a loop over names takes longer.

The rule is that of `aisdatapipes.wire.samples`, which also says what is wrong where something is.
"""

from __future__ import annotations

import operator
import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aisdatapipes.wire.shardindex import ShardIndex

_SLASH, _DOT = b"/."
_LED = re.compile(rb"(?:\./)+")

Numbers = npt.NDArray[np.int64]


class SampleColumns(NamedTuple):
    """The samples of a shard, in archive order.

    Attributes:
        keys: Of each sample: N of them.
        begins: Index of the first field of each: shape (N,).
        members: Which member of the index each field is: shape (F,).
        extensions: Of each field, as it is written: F of them.
    """

    keys: list[bytes]
    begins: Numbers
    members: Numbers
    extensions: list[bytes]


def sample_columns(index: ShardIndex) -> SampleColumns | None:
    """The samples of a shard; None where a key comes back behind another one, which is an error."""
    starts, dots, ends = _parts(index)
    members = np.flatnonzero(dots >= 0)
    starts, dots, ends = starts[members], dots[members], ends[members]
    keys = _slices(index.blob, starts, dots)
    begins = np.flatnonzero(np.fromiter(map(operator.ne, keys, [b"", *keys]), np.bool_, len(keys)))  # no key is empty
    firsts = [keys[begin] for begin in begins.tolist()]
    if len(set(firsts)) < len(firsts):
        return None
    return SampleColumns(firsts, begins, members, _slices(index.blob, dots + 1, ends))


def _parts(index: ShardIndex) -> tuple[Numbers, Numbers, Numbers]:
    """Where in ``blob`` the key of each member begins, the dot behind it is, and its name ends.

    A member that belongs to no sample has no such dot, but -1.
    """
    blob, ends = index.blob, index.ends.astype(np.int64)
    chars = np.frombuffer(blob + bytes(2), np.uint8)  # of an empty name two may be looked at, too
    starts = np.append(0, ends)[:-1]
    for name in np.flatnonzero((chars[starts] == _DOT) & (chars[starts + 1] == _SLASH)).tolist():
        found = _LED.match(blob, starts[name], ends[name])
        starts[name] = starts[name] if found is None else found.end()
    slashes, dots = np.flatnonzero(chars == _SLASH), np.flatnonzero(chars == _DOT)
    # Of the last slash before the end of a name, which may be of a name before it.
    bases = np.maximum(starts, np.append(slashes, -1)[np.searchsorted(slashes, ends) - 1] + 1)
    firsts = np.append(dots, len(chars))[np.searchsorted(dots, bases)]
    return starts, np.where((firsts > bases) & (firsts + 1 < ends), firsts, -1), ends


def _slices(blob: bytes, starts: Numbers, ends: Numbers) -> list[bytes]:
    return list(map(blob.__getitem__, map(slice, starts.tolist(), ends.tolist())))
