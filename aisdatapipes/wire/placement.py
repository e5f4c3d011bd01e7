"""Which target owns an object: AIStore's highest random weight, one name at a time or a page at once.

Every target has a 64-bit digest, and so has every object's full name. Each target scores the object with a
mix of both, and the highest score wins; so a target that leaves moves only its own objects. The digest is
xxh64; the mix is one output of xoshiro256** whose state SplitMix64 fills from the seed (Blackman and Vigna,
prng.di.unimi.it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

SEED = 1103515245  # AIStore's constant for all digests of names
GLOBAL_NAMESPACE = "@#"

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def uname(provider: str, namespace: str, bucket: str, name: str) -> str:
    """The name that identifies an object in the whole cluster.

    Args:
        provider: Canonical provider, such as ``ais``.
        namespace: ``@uuid#name``; empty for the global one.
        bucket: Name of the bucket.
        name: Name of the object; empty gives the prefix of all names in the bucket.

    >>> uname("ais", "", "photos", "2024/a.jpg")
    'ais/@#/photos/2024/a.jpg'
    """
    return f"{provider}/{namespace or GLOBAL_NAMESPACE}/{bucket}/{name}"


def digest(text: str) -> int:
    """The 64-bit digest of a node's id or an object's `uname`."""
    return xxhash.xxh64_intdigest(_encoded(text), SEED)


def owner(uname: str, digests: Iterable[int]) -> int:
    """The index, in ``digests``, of the target that owns the object.

    Args:
        uname: The object's, as `uname` gives it.
        digests: Those of the targets that can own objects; at least one.
    """
    ours, best, winner = digest(uname), -1, 0
    for index, theirs in enumerate(digests):
        score = _score(int(theirs) ^ ours)
        if score > best:
            best, winner = score, index
    return winner


def owners(bucket_uname_prefix: str, names: Sequence[str], digests: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """For each name the index of its owner in ``digests``: `owner` of a whole page.

    Args:
        bucket_uname_prefix: ``uname(provider, namespace, bucket, "")``.
        names: Names of objects in that bucket.
        digests: Those of the targets that can own objects; at least one.
    """
    prefix, of_text = _encoded(bucket_uname_prefix), xxhash.xxh64_intdigest
    ours = np.fromiter((of_text(prefix + _encoded(name), SEED) for name in names), np.uint64, len(names))
    # axes: target, name
    winners: npt.NDArray[np.intp] = np.argmax(_scores(digests[:, None] ^ ours[None, :]), axis=0)
    return winners


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _score(seed: int) -> int:
    """`_mixed_all` twice and the output of the generator, written out: this runs for each object and target."""
    state = seed + _GOLDEN & _MASK
    state = (state ^ state >> 30) * _MIX_1 & _MASK
    state = (state ^ state >> 27) * _MIX_2 & _MASK
    state = (state ^ state >> 31) + _GOLDEN & _MASK
    state = (state ^ state >> 30) * _MIX_1 & _MASK
    state = (state ^ state >> 27) * _MIX_2 & _MASK
    state = (state ^ state >> 31) * 5 & _MASK
    return (state << 7 | state >> 57) * 9 & _MASK


def _scores(seeds: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """`_score` of every element; unsigned arithmetic of numpy wraps as the formula wants it."""
    golden, five, nine = np.uint64(_GOLDEN), np.uint64(5), np.uint64(9)
    state = _mixed_all(_mixed_all(seeds + golden) + golden) * five
    scores: npt.NDArray[np.uint64] = (state << np.uint64(7) | state >> np.uint64(57)) * nine
    return scores


def _mixed_all(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state = (state ^ state >> np.uint64(30)) * np.uint64(_MIX_1)
    state = (state ^ state >> np.uint64(27)) * np.uint64(_MIX_2)
    mixed: npt.NDArray[np.uint64] = state ^ state >> np.uint64(31)
    return mixed
