"""Samples out of the members of a shard, and the fields that every sample must have.

The convention is WebDataset's: files of one sample stand next to each other and share their path up to the
first dot of the last component. Where its reader splits or merges samples without a word, this one raises.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from aisdatapipes.model.errors import ConfigError, CorruptShard

if TYPE_CHECKING:
    from collections.abc import Iterator

Missing = Literal["zero", "error", "skip"]

# What stands for the content of a member: the bytes, or where they are.
Content = TypeVar("Content")


def split(name: str) -> tuple[str, str] | None:
    """``(key, extension)`` of a member; None when it belongs to no sample.

    The key is the path up to the first dot of the last component, without a leading ``./``; the extension is
    the rest, in lower case. To no sample belong folders, names without an extension, and names whose last
    component begins with a dot: what macOS leaves behind (``._a.jpg``, ``.DS_Store``) and other hidden files.

    >>> split("./v1.0/a.seg.PNG"), split("v1.0/README"), split("v1.0/._a.jpg")
    (('v1.0/a', 'seg.png'), None, None)
    """
    while name.startswith("./"):
        name = name[2:]
    last = name.rfind("/") + 1
    dot = name.find(".", last)
    if dot <= last or dot + 1 == len(name):
        return None
    return name[:dot], name[dot + 1 :].lower()


def samples(
    members: Iterable[tuple[str, Content, int] | tuple[str, Content, int, int]], shard: str
) -> Iterator[tuple[str, dict[str, Content]]]:
    """``(key, {extension: content})`` of every sample, in archive order, when the next one begins.

    Args:
        members: ``(name, content, offset)`` of those of one shard, in archive order; what follows does not matter.
        shard: Name or URL for messages.

    Memory: one sample, and the keys of the shard so far, about 110 bytes each, to see one that comes back.
    Raises: ``CorruptShard`` when a key comes back behind another one, or a sample has two members of one
        extension. A sample that an error cuts short is not yielded.

    >>> from aisdatapipes.wire.tar import Member
    >>> list(samples([Member("a.jpg", b"J", 0), Member("a.cls", b"1", 1024)], "a.tar"))
    [('a', {'jpg': b'J', 'cls': b'1'})]
    """
    seen: set[str] = set()
    key = ""  # no key is empty
    sample: dict[str, Content] = {}
    for member in members:
        name, offset = member[0], member[2]
        parts = split(name)
        if parts is None:
            continue
        if parts[0] != key:
            if key:
                yield key, sample
                seen.add(key)
            key, sample = parts[0], {}
            if key in seen:
                raise CorruptShard(
                    f"member {name!r} at offset {offset}: sample {key!r} had ended, and others came in"
                    " between; pack the members of a sample next to each other (tar --sort=name)",
                    url=shard,
                )
        if parts[1] in sample:
            raise CorruptShard(
                f"member {name!r} at offset {offset}: sample {key!r} has a second member with the extension"
                f" {parts[1]!r}; upper and lower case count as one",
                url=shard,
            )
        sample[parts[1]] = member[1]
    if key:
        yield key, sample


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields that every sample is to have, in this order.

    Args:
        alternatives: For each field the extensions that may hold it, the preferred one first. The first one
            is also the field's name in the sample, whichever was found.
        missing: What happens to a sample that lacks a field: ``"zero"`` fills in ``b""``, ``"error"`` raises,
            ``"skip"`` leaves the sample out.

    >>> fields = Fields.parse(("jpg;jpeg;png", "cls"))
    >>> fields.picked({"cls": b"1", "png": b"P", "txt": b"T"}, "a", "a.tar")
    {'jpg': b'P', 'cls': b'1'}
    """

    alternatives: tuple[tuple[str, ...], ...]
    missing: Missing = "zero"

    def __post_init__(self) -> None:
        if self.missing not in get_args(Missing):
            raise ConfigError(f"missing must be one of {get_args(Missing)}, not {self.missing!r}")
        if not self.alternatives or not all(self.alternatives):
            raise ConfigError("fields must name at least one extension each, such as ('jpg;png', 'cls')")
        for extension in (one for field in self.alternatives for one in field):
            if not extension or extension != extension.lower() or "/" in extension or extension.startswith("."):
                raise ConfigError(f"fields: {extension!r} is no extension; expected such as 'jpg' or 'seg.png'")
        if len(set(self.names)) < len(self.names):
            raise ConfigError(f"fields: a name stands twice in {self.names}")

    @staticmethod
    def parse(fields: Iterable[str], missing: Missing = "zero") -> Fields:
        """Fields as users write them: extensions, ``;`` between alternatives, ``.JPG`` meaning ``jpg``."""
        if isinstance(fields, str):
            raise ConfigError(f"fields is a tuple such as ({fields!r},), not the text {fields!r}")
        if not isinstance(fields, Iterable):
            raise ConfigError(f"fields is a tuple such as ('jpg;png', 'cls'), not {fields!r}")
        written = list(fields)
        if not all(isinstance(field, str) for field in written):
            raise ConfigError(f"fields must be texts such as 'jpg;png', not {written!r}")
        alternatives = (tuple(one.strip().lower().removeprefix(".") for one in field.split(";")) for field in written)
        return Fields(tuple(alternatives), missing)

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of every sample."""
        return tuple(field[0] for field in self.alternatives)

    def picked(self, sample: dict[str, bytes], key: str, shard: str) -> dict[str, bytes] | None:
        """The sample with exactly these fields, in this order; None when it is to be skipped.

        Raises: ``CorruptShard`` with ``missing="error"`` when a field is missing.
        """
        picked: dict[str, bytes] = {}
        for field in self.alternatives:
            for extension in field:
                if extension in sample:
                    picked[field[0]] = sample[extension]
                    break
            else:
                if self.missing == "skip":
                    return None
                if self.missing == "error":
                    raise CorruptShard(
                        f"sample {key!r} has no field {';'.join(field)!r}, only {', '.join(sample)};"
                        " missing='zero' fills it in, missing='skip' leaves the sample out",
                        url=shard,
                    )
                picked[field[0]] = b""
        return picked
