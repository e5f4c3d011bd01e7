"""The payload of one member, out of the pieces in which it arrives."""

from __future__ import annotations

import io

# A payload that is larger is gathered in one place, which grows as it comes, whatever size a header claims; of smaller
# ones the pieces are joined, which is faster but needs the memory twice for a moment.
LARGE_BYTES = 8 << 20


class Payload:
    """Pieces of one payload after the other."""

    __slots__ = ("_file", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._file: io.BytesIO | None = None

    def add(self, piece: bytes, size: int) -> None:
        """One piece more of a payload of so many bytes."""
        if size > LARGE_BYTES:
            if self._file is None:
                self._file = io.BytesIO()
            self._file.write(piece)
        else:
            self._pieces.append(piece)

    def taken(self) -> bytes:
        """All pieces, which are forgotten here; of a single one, and of a large payload, no copy."""
        if self._file is not None:
            whole, self._file = self._file.getvalue(), None
        else:
            whole, self._pieces = b"".join(self._pieces), []
        return whole
