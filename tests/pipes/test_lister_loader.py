"""The two pipes of the document, on both servers."""

from __future__ import annotations

from torch.utils.data.datapipes.iter import IterableWrapper

import aisdatapipes  # noqa: F401 - gives the functional names


def test_chain_yields_every_object_with_its_content(bucket):
    """The document's chain yields each object of the prefix once, in the order of names, with its content."""
    objects = bucket.fill({f"a/{i:03d}": bytes([i]) * i for i in range(20)} | {"b/x": b"not this"})
    pipe = IterableWrapper([f"ais://{bucket.name}/a/"]).list_files_by_ais(url=bucket.endpoint)
    loaded = pipe.load_files_by_ais(url=bucket.endpoint)
    found = [(url, stream.read()) for url, stream in loaded]
    assert found == [(f"ais://{bucket.name}/{n}", d) for n, d in sorted(objects.items()) if n.startswith("a/")]
