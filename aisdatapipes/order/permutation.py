"""A shuffle without memory: a keyed permutation of ``[0, n)``, computed element by element.

A Feistel network is a bijection whatever its round function is (Luby and Rackoff, 1988). It works on the smallest
power of two that holds ``n``; results outside ``[0, n)`` go through it again until they fall inside ("cycle
walking", Black and Rogaway, 2002), less than twice on average. The round function is the finaliser of SplitMix64
(Steele, Lea and Flood, 2014).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ROUNDS = 8  # even, so that the two halves end where they began; 4 suffice in theory, small domains want more
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_ONE, _ODD = np.uint64(1), np.uint64(_GOLDEN)

Positions = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


def permuted(positions: Positions, n: int, seed: int, epoch: int, streams: Positions | None = None) -> Positions:
    """Where each position of an epoch's order points to: shape as given, each in ``[0, n)``.

    Args:
        positions: In ``[0, n)``, any shape.
        n: Number of items; up to 2**62.
        seed: The same on every rank.
        epoch: Each epoch has an order of its own.
        streams: Of each position the number, 0 or more, of the order that it stands in: each has its own, and none is
            that without a number.

    >>> sorted(permuted(np.arange(5), 5, seed=0, epoch=1).tolist())
    [0, 1, 2, 3, 4]
    """
    if n < 2:
        return positions.astype(np.int64)
    bits = max(2, (n - 1).bit_length())
    # Flat: numpy warns of the overflow that is meant here where there is a single number.
    values = positions.astype(np.uint64).reshape(-1)
    own = np.zeros(1, np.uint64) if streams is None else _mixed((streams.astype(np.uint64).reshape(-1) + _ONE) * _ODD)
    keys = [own ^ np.uint64(key) for key in _round_keys(seed, epoch)]
    values = _network(values, bits, keys)
    outside = values >= n
    while outside.any():
        values[outside] = _network(values[outside], bits, [key if streams is None else key[outside] for key in keys])
        outside = values >= n
    return values.astype(np.int64).reshape(positions.shape)


def _network(values: Words, bits: int, keys: list[Words]) -> Words:
    left_bits, right_bits = bits - bits // 2, bits // 2
    left, right = values >> np.uint64(right_bits), values & np.uint64((1 << right_bits) - 1)
    for key in keys:
        # The halves differ by a bit where `bits` is odd: the mask keeps each as wide as it is.
        mixed = _mixed(right ^ key) & np.uint64((1 << left_bits) - 1)
        left, right = right, left ^ mixed
        left_bits, right_bits = right_bits, left_bits
    joined: Words = (left << np.uint64(right_bits)) | right
    return joined


def _mixed(values: Words) -> Words:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _round_keys(seed: int, epoch: int) -> list[int]:
    """One 64-bit key a round, of seed and epoch."""
    # Mixed twice with the epoch in between: (seed, epoch) and (epoch, seed) must not meet.
    state = int(_mixed(np.array([seed & _MASK], np.uint64))[0]) ^ ((epoch + 1) * _GOLDEN & _MASK)
    states = [(state + (i + 1) * _GOLDEN) & _MASK for i in range(ROUNDS)]
    return [int(key) for key in _mixed(np.array(states, np.uint64))]
