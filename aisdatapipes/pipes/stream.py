"""What the loader yields instead of an open connection."""

from __future__ import annotations

import io
from typing import Any

from torch.utils.data.datapipes.utils.common import StreamWrapper


class ObjectStream(StreamWrapper):
    """A torch ``StreamWrapper`` over a content that is all here: seekable, picklable, never closed behind your back.

    torch's own class closes its file as soon as the wrapper is forgotten, so ``next(iter(pipe))[1].read()`` reads
    from a closed file.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))

    def __del__(self) -> None:
        """Leave the memory to whoever still uses it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (self.file_obj.getvalue(), self.file_obj.tell()))

    def __repr__(self) -> str:
        return f"ObjectStream({len(self.file_obj.getbuffer())} bytes)"


def _restored(data: bytes, position: int) -> ObjectStream:
    stream = ObjectStream(data)
    stream.seek(position)
    return stream
