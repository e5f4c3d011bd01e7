"""Where an epoch stands, as a value of a few dozen bytes: saved with a checkpoint, loaded on any world.

What a job has consumed is always the first ``position`` positions of the epoch's order, because the ranks take it in
steps (`order.deal`). So the state needs neither world size nor batch size nor number of workers, and it is the same on
every rank.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aisdatapipes.model.errors import ConfigError, NotResumable
from aisdatapipes.order.deal import Even, step_count

VERSION = 1
_HEX_DIGITS = frozenset("0123456789abcdef")
_HOW = "load what state_dict() of this package returned, unchanged"


@dataclass(frozen=True, slots=True)
class OrderState:
    """What was consumed: everything before ``position`` in the order of ``epoch``.

    Args:
        fingerprint: Of the items: 16 hex digits.
        seed: Of the shuffle; None where the order is that of the items.
        epoch: 0 or more.
        position: In ``[0, N]``: the next item, in the epoch's order.
        within: Samples of that item that were consumed, where an item has several (a shard); mostly 0.
        offset: The byte of that item where the next sample can be read from; 0 where only its beginning will do.
        blocks: Bytes of a block and blocks of a window, where blocks are shuffled; mostly None.
        version: Of this form.
    """

    fingerprint: str
    seed: int | None
    epoch: int
    position: int = 0
    within: int = 0
    version: int = VERSION
    blocks: tuple[int, int] | None = None
    offset: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON values; ``within``, ``offset`` and ``blocks`` only where they are there."""
        found: dict[str, Any] = {
            "version": self.version,
            "fingerprint": self.fingerprint,
            "seed": self.seed,
            "epoch": self.epoch,
            "position": self.position,
        }
        inside = {"within": self.within, "offset": self.offset}
        found |= {name: value for name, value in inside.items() if value}
        return found | ({"blocks": list(self.blocks)} if self.blocks else {})

    @classmethod
    def from_dict(cls, state: Any) -> OrderState:
        """The state that `to_dict` gave; `NotResumable` for anything else, saying what is wrong with it."""
        if not isinstance(state, Mapping):
            raise NotResumable(f"a state is a dict, not {type(state).__name__}; {_HOW}")
        if "version" not in state:
            raise NotResumable(f"this is no state of this package: it has no 'version', only {_keys(state)}; {_HOW}")
        if type(state["version"]) is not int or state["version"] != VERSION:
            told = f"the state has version {state['version']!r}, this release reads version {VERSION}"
            raise NotResumable(f"{told}; resume with the release that saved it")
        if lacking := [name for name in ("fingerprint", "seed", "epoch", "position") if name not in state]:
            raise NotResumable(f"the state is incomplete: it lacks {', '.join(lacking)}; {_HOW}")
        if unknown := set(state) - {field.name for field in dataclasses.fields(cls)}:
            raise NotResumable(f"the state has something unknown in it, {_keys(unknown)}; {_HOW}")
        fingerprint, seed = state["fingerprint"], state["seed"]
        if not (isinstance(fingerprint, str) and len(fingerprint) == 16 and set(fingerprint) <= _HEX_DIGITS):
            raise NotResumable(f"the state's fingerprint must be 16 hex digits, not {fingerprint!r}; {_HOW}")
        if seed is not None and type(seed) is not int:
            raise NotResumable(f"the state's seed must be a number or None, not {seed!r}; {_HOW}")
        epoch, position = checked_number(state, "epoch"), checked_number(state, "position")
        within, offset = checked_number(state, "within", 0), checked_number(state, "offset", 0)
        blocks = _checked_blocks(state.get("blocks"))
        return cls(fingerprint, seed, epoch, position, within, blocks=blocks, offset=offset)

    def check_order(self, seed: int | None, blocks: tuple[int, int] | None = None) -> None:
        """Raise `NotResumable` unless the order is that of ``seed`` (None: not shuffled) and ``blocks``."""
        if self.seed == seed:
            if self.blocks != blocks:
                raise NotResumable(
                    f"the state is of an order with {_told_blocks(self.blocks)}, this one has {_told_blocks(blocks)}; "
                    "give the same block_bytes= and window_blocks="
                )
            return
        if self.seed is None or seed is None:
            saved, here = ("not shuffled", "shuffled") if self.seed is None else ("shuffled", "not shuffled")
            raise NotResumable(f"the state is of an order that is {saved}, this one is {here}; give the same shuffle=")
        raise NotResumable(f"the state has seed {self.seed}, this order has seed {seed}; give the same seed=")

    def check_items(self, fingerprint: str, n: int | None) -> None:
        """Raise `NotResumable` unless the items are those of the state.

        Args:
            fingerprint: Of the items that there are.
            n: Their number; None where nobody knows.
        """
        if self.fingerprint != fingerprint:
            raise NotResumable(
                f"the state is of other items: its fingerprint is {self.fingerprint}, that of these is {fingerprint}. "
                "Objects were added, removed or overwritten since, or sources, prefixes or filter differ, or the "
                "items are of another kind (objects, shards, samples; of a mix, also its weights, rule and seeds); "
                "resume with what was there, or begin anew"
            )
        if n is not None and self.position > n:
            raise NotResumable(f"the state stands at position {self.position} of {n} items; {_HOW}")

    def next_epoch(self) -> OrderState:
        """The beginning of the epoch after this one."""
        return dataclasses.replace(self, epoch=self.epoch + 1, position=0, within=0, offset=0)

    def after(self, steps: int, n: int | None, world_size: int, batch_size: int, even: Even) -> OrderState:
        """The state after every rank took so many batches more; after the last one it is the next epoch's beginning.

        Args:
            steps: Batches of each rank since this state; an incomplete one at the end of the epoch counts.
            n: Items of the epoch; None where nobody knows, and then no step is the last one.
            world_size: Ranks.
            batch_size: Samples of a batch.
            even: What the ranks do about a remainder.
        """
        last = None if n is None else step_count(n, world_size, batch_size, even, self.position)
        if last is not None and steps > last:
            raise ConfigError(
                f"batches={steps}: from position {self.position} of epoch {self.epoch} to its end there are {last} "
                f"batches a rank ({n} items, world size {world_size}, batch_size {batch_size}, even={even!r})"
            )
        if not steps:
            return self
        if steps == last:
            return self.next_epoch()
        position = self.position + steps * world_size * batch_size
        return dataclasses.replace(self, position=position, within=0, offset=0)


def _checked_blocks(blocks: Any) -> tuple[int, int] | None:
    if blocks is None:
        return None
    if isinstance(blocks, (list, tuple)) and len(blocks) == 2 and all(type(one) is int and one > 0 for one in blocks):
        return blocks[0], blocks[1]
    raise NotResumable(f"the state's blocks must be two numbers, 1 or more, not {blocks!r}; {_HOW}")


def _told_blocks(blocks: tuple[int, int] | None) -> str:
    return f"block_bytes={blocks[0]} and window_blocks={blocks[1]}" if blocks else "no blocks"


def checked_number(state: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A count in a state, 0 or more; anything else is `NotResumable`."""
    value = state.get(name, default)
    if type(value) is not int or value < 0:
        raise NotResumable(f"the state's {name} must be a number, 0 or more, not {value!r}; {_HOW}")
    return value


def _keys(state: Any) -> str:
    return ", ".join(sorted(map(repr, state))[:8]) or "nothing"
