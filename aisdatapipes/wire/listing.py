"""Listings of objects, as AIStore's proxy takes and gives them.

A request is a JSON control message; a reply, where msgpack is asked for, is one msgpack map (AIStore:
cmn/objlist.go). Names are bytes on the server: those that are no UTF-8 come out as text with surrogate
escapes, as from `os.fsdecode`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from aisdatapipes.wire.malformed import Malformed

# What `ListOptions.flags` can ask for (a bit set).
ARCH_DIR = 1 << 3  # members of archives, each after its shard
NAME_ONLY = 1 << 4
NAME_SIZE = 1 << 5
NO_RECURSION = 1 << 11  # names up to the next slash only; folders come as entries

# What `Entry.flags` says (a bit set; the five lowest bits are a status, 0 is good).
STATUS = 0b11111
CACHED = 1 << 6  # is in the cluster; always set for provider ais
IN_ARCHIVE = 1 << 7  # a member of an archive
DIRECTORY = 1 << 8
ARCHIVE = 1 << 9  # an archive, whose members follow
CHUNKED = 1 << 13  # is stored in several files, as after a multipart upload

# What `Page.flags` says (a bit set).
REBALANCING = 1 << 0  # objects are being moved between targets: some of them may be missing

PAGE_SIZE = 10_000  # entries in a page when the request says 0

_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Entry(
    msgspec.Struct,
    gc=False,
    omit_defaults=True,
    rename={
        "name": "n",
        "checksum": "cs",
        "atime": "a",
        "version": "v",
        "location": "t",
        "custom": "m",
        "size": "s",
        "copies": "c",
        "flags": "f",
    },
):
    """One object, archive member or folder of a listing; what was not asked for is empty or 0.

    Attributes:
        name: Name of the object; of a member, ``shard/member``; of a folder, with the slash at its end.
        size: Bytes; of a member, uncompressed.
        flags: Bits: `CACHED`, `IN_ARCHIVE`, `DIRECTORY`, `ARCHIVE`, `CHUNKED`, and a status in the `STATUS` bits.
        checksum: Hexadecimal digest of the content.
        version: The version, as text.
        atime: Time of the last access, as RFC 822 text.
        location: Target and disk, as text.
        copies: Copies in the cluster.
        custom: Custom metadata, as text.
    """

    name: _Name
    checksum: str = ""
    atime: str = ""
    version: str = ""
    location: str = ""
    custom: str = ""
    size: _Size = 0
    copies: int = 0
    flags: int = 0


class Page(
    msgspec.Struct,
    rename={"uuid": "UUID", "token": "ContinuationToken", "entries": "Entries", "flags": "Flags"},
):
    """One page of a listing.

    Attributes:
        entries: In the bytewise order of their names.
        token: What the next request passes on; empty when this page is the last.
        uuid: The listing that the page belongs to; the next request passes it on as well.
        flags: Bits about the page: `REBALANCING`; 0 is ordinary.
    """

    entries: list[Entry] = []
    token: str = ""
    uuid: str = ""
    flags: int = 0


class _Received(
    msgspec.Struct,
    rename={"uuid": "UUID", "token": "ContinuationToken", "entries": "Entries", "flags": "Flags"},
):
    """A page as it can come: a Go server writes nil for what is empty."""

    entries: list[Entry] | None = None
    token: str | None = None
    uuid: str | None = None
    flags: int | None = None


class Brief(msgspec.Struct, gc=False, rename={"name": "n", "size": "s"}):
    """What a reader needs of an entry: a third of the memory of an `Entry`, and decoded in half the time."""

    name: _Name
    size: _Size = 0


class _ReceivedBriefly(
    msgspec.Struct,
    rename={"uuid": "UUID", "token": "ContinuationToken", "entries": "Entries", "flags": "Flags"},
):
    entries: list[Brief] | None = None
    token: str | None = None
    uuid: str | None = None
    flags: int | None = None


class BriefPage(msgspec.Struct):
    """A page of names and sizes.

    Attributes:
        entries: In the bytewise order of their names.
        token: What the next request passes on; empty when this page is the last.
        uuid: The listing that the page belongs to.
        flags: As those of a `Page`.
    """

    entries: list[Brief] = []
    token: str = ""
    uuid: str = ""
    flags: int = 0


_brief_decoder = msgspec.msgpack.Decoder(_ReceivedBriefly)
_decoder = msgspec.msgpack.Decoder(_Received)
_encoder = msgspec.msgpack.Encoder()


def decoded_page(body: bytes) -> Page:
    """The page that ``body`` holds, in msgpack.

    Raises: `Malformed` when it holds none.
    """
    try:
        page = _decoder.decode(body)
    except UnicodeDecodeError:
        return _page_of_odd_names(body)
    except msgspec.MsgspecError as error:
        raise Malformed(f"not a page of a listing ({len(body)} bytes): {error}") from None
    return Page(page.entries or [], page.token or "", page.uuid or "", page.flags or 0)


def decoded_brief_page(body: bytes) -> BriefPage:
    """Names and sizes of the page that ``body`` holds, in msgpack.

    Raises: `Malformed` when it holds none.
    """
    try:
        page = _brief_decoder.decode(body)
    except UnicodeDecodeError:
        whole = _page_of_odd_names(body)
        return BriefPage(
            [Brief(entry.name, entry.size) for entry in whole.entries], whole.token, whole.uuid, whole.flags
        )
    except msgspec.MsgspecError as error:
        raise Malformed(f"not a page of a listing ({len(body)} bytes): {error}") from None
    return BriefPage(page.entries or [], page.token or "", page.uuid or "", page.flags or 0)


def encoded_page(page: Page) -> bytes:
    """``page`` in msgpack, with the keys that the server writes."""
    try:
        return _encoder.encode(page)
    except UnicodeEncodeError:
        return _encoder.encode(_with_raw_texts(msgspec.to_builtins(page)))


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What a page of a listing is asked for.

    Args:
        prefix: Names begin with this.
        page_size: Entries in one page; 0 leaves it to the server (`PAGE_SIZE`).
        token: That of the page before; empty for the first page.
        uuid: That of the page before; empty for the first page.
        props: Attributes to fill in, such as ``"name,size"``; empty leaves it to the server.
        flags: Bits: `ARCH_DIR`, `NAME_ONLY`, `NAME_SIZE`, `NO_RECURSION`.
        start_after: Names after this one only.
        target: The only target to ask; empty for all.
    """

    prefix: str = ""
    page_size: int = 0
    token: str = ""
    uuid: str = ""
    props: str = ""
    flags: int = 0
    start_after: str = ""
    target: str = ""


class _Message(msgspec.Struct):
    """The ``value`` of the control message; ``flags`` is a number in text."""

    prefix: str = ""
    pagesize: int = 0
    uuid: str = ""
    props: str = ""
    continuation_token: str = ""
    flags: str = "0"
    target: str = ""
    start_after: str | msgspec.UnsetType = msgspec.UNSET


class _Control(msgspec.Struct):
    action: str
    name: str = ""
    value: _Message | None = None


def encoded_list(options: ListOptions) -> bytes:
    """The body of the request that lists objects: a control message in JSON.

    Raises: `Malformed` for a text that is no UTF-8: JSON cannot carry it.
    """
    message = _Message(
        prefix=options.prefix,
        pagesize=options.page_size,
        uuid=options.uuid,
        props=options.props,
        continuation_token=options.token,
        flags=str(options.flags),
        target=options.target,
        # Servers from before this option existed would not mind it, but nothing is said that was not asked.
        start_after=options.start_after or msgspec.UNSET,
    )
    try:
        return msgspec.json.encode(_Control("list", value=message))
    except UnicodeEncodeError:
        raise Malformed(f"a listing from {options!r} cannot be asked for: JSON carries UTF-8 only") from None


def decoded_list(body: bytes) -> ListOptions:
    """The options that a control message asks for.

    Raises: `Malformed` when ``body`` is no message that lists objects.
    """
    try:
        control = msgspec.json.decode(body, type=_Control)
        message = control.value or _Message()
        flags = int(message.flags or "0")
    except (msgspec.MsgspecError, ValueError) as error:
        raise Malformed(f"not a message that lists objects: {error}") from None
    if control.action != "list" or control.value is None:
        raise Malformed(f"not a message that lists objects: {body[:200]!r}")
    return ListOptions(
        prefix=message.prefix,
        page_size=message.pagesize,
        token=message.continuation_token,
        uuid=message.uuid,
        props=message.props,
        flags=flags,
        start_after=message.start_after or "",
        target=message.target,
    )


# Names that are no UTF-8 are rare enough that only a page which has one takes this way.


def _page_of_odd_names(body: bytes) -> Page:
    try:
        texts_as_raw = msgspec.msgpack.decode(body, type=dict[str, msgspec.Raw])
        fields: dict[str, Any] = {key: _unpacked(raw) for key, raw in texts_as_raw.items() if key != "Entries"}
        entries = msgspec.msgpack.decode(texts_as_raw["Entries"], type=list[dict[str, msgspec.Raw]])
        fields["Entries"] = [{key: _unpacked(raw) for key, raw in entry.items()} for entry in entries]
        return msgspec.convert(fields, Page)
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        raise Malformed(f"not a page of a listing ({len(body)} bytes): {error}") from None


# First byte of a msgpack string -> bytes of the length that follows it (format: msgpack's "str" family).
_LENGTH_BYTES = {0xD9: 1, 0xDA: 2, 0xDB: 4}


def _unpacked(raw: msgspec.Raw) -> Any:
    """The value of one msgpack item; a string by its bytes, whatever they are."""
    data = bytes(raw)
    if data[0] in _LENGTH_BYTES:
        return data[1 + _LENGTH_BYTES[data[0]] :].decode("utf-8", "surrogateescape")
    if data[0] >> 5 == 0b101:  # a string shorter than 32 bytes has its length in the first byte
        return data[1:].decode("utf-8", "surrogateescape")
    return msgspec.msgpack.decode(data)


def _packed(text: str) -> msgspec.Raw:
    data = text.encode("utf-8", "surrogateescape")
    # The long form is valid for any length, and readers do not care.
    return msgspec.Raw(b"\xdb" + len(data).to_bytes(4, "big") + data)


def _with_raw_texts(value: Any) -> Any:
    if isinstance(value, str):
        return _packed(value)
    if isinstance(value, list):
        return [_with_raw_texts(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_raw_texts(item) for key, item in value.items()}
    return value
