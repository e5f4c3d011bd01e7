"""A listing as the SDK's objects, made when somebody looks at one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from aistore.sdk import Bucket, Client
from aistore.sdk.namespace import Namespace
from aistore.sdk.obj.object import Object
from aistore.sdk.types import BucketEntry

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.listing import Listing
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.window import ordered
from aisdatapipes.store.pages import SizeRead
from aisdatapipes.store.source import Source
from aisdatapipes.store.token import token_of

_WIDTH = 32  # requests in flight for sizes that no listing told
_WINDOW_BYTES = 1 << 20


class ObjectList(Sequence[Object]):
    """The objects of a dataset, as ``get_obj_list()`` gives them; 16 bytes and a name each, not an `Object`.

    Args:
        listing: What was listed.
        things: The sources as users gave them, one for each of the listing's, for their clients.
    """

    def __init__(self, listing: Listing, things: Sequence[Any]) -> None:
        self.listing = listing
        self._things = things
        self._buckets: dict[tuple[str, ...], Bucket] = {}  # of sources that came without a client

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._object(i) for i in range(*index.indices(len(self)))]
        position = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= position < len(self):
            raise IndexError(f"index {index} of {len(self)} objects")
        return self._object(position)

    def sizes(self, meter: Meter) -> npt.NDArray[np.int64]:
        """Bytes of each object, shape (N,); asks the cluster for those that no listing told (ObjectGroup)."""
        unknown = np.flatnonzero(self.listing.sizes < 0)
        if len(unknown):
            sources = self.listing.sources
            clusters = Clusters(None, {source.config.endpoint: source.config for source in sources})
            urls = (self.listing.url(int(position)) for position in unknown)
            reads = (SizeRead(clusters.of(url), url) for url in urls)
            for position, read in zip(unknown, ordered(reads, _WIDTH, _WINDOW_BYTES, meter), strict=True):
                if read.error is not None:
                    raise read.error
                self.listing.learn(int(position), read.size)
        return self.listing.sizes

    def _object(self, position: int) -> Object:
        index = self.listing.source_index(position)
        thing = self._things[index]
        if isinstance(thing, Object):
            return thing
        bucket = getattr(thing, "bucket", None) or getattr(thing, "bck", thing)
        if not isinstance(bucket, Bucket):  # a URL, or a manifest's source
            bucket = self._bucket(self.listing.sources[index])
        name, size = self.listing.name(position), int(self.listing.sizes[position])
        props = BucketEntry(n=name, s=size).generate_object_props() if size >= 0 else None
        return bucket.object(name, props)

    def _bucket(self, source: Source) -> Bucket:
        """The SDK's bucket of a source."""
        if source.identity not in self._buckets:
            self._buckets[source.identity] = _sdk_bucket(source)
        return self._buckets[source.identity]


def _sdk_bucket(source: Source) -> Bucket:
    config, url = source.config, source.bucket
    client = Client(
        config.endpoint,
        skip_verify=not config.verify,
        ca_cert=config.ca_file,
        client_cert=config.client_cert,
        timeout=(config.connect_timeout, config.read_timeout),
        token=token_of(config),
    )
    uuid, _, name = url.namespace.removeprefix("@").partition("#")
    return client.bucket(url.bucket, url.provider, Namespace(uuid=uuid, name=name) if url.namespace else None)
