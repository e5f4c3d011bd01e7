"""A listing that is kept: in a file, or in an object of the cluster, for all ranks and for the next job."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from aisdatapipes.datasets.indexing import checked_index, kept_tables, resolved
from aisdatapipes.datasets.sources import Prefixes, as_list, checked_parts
from aisdatapipes.flow.catalog import Catalog
from aisdatapipes.flow.changes import Changes, changes
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.listing import Listing, NameFilter
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.resolve import IndexMode
from aisdatapipes.flow.savedtable import restored_table, saved_table
from aisdatapipes.flow.shardtable import ShardTable
from aisdatapipes.model.config import ClientConfig
from aisdatapipes.model.errors import ConfigError, InvalidURL, UnreadableManifest
from aisdatapipes.model.url import AISURL
from aisdatapipes.pipes.lister import checked_name_filter
from aisdatapipes.store.source import Source, Where, config_of
from aisdatapipes.store.write import read_object, write_object
from aisdatapipes.wire.malformed import Malformed
from aisdatapipes.wire.manifest import Saved, SavedFilter, SavedSource, decoded_manifest, encoded_manifest
from aisdatapipes.wire.manifest_samples import SavedSamples

_REMEDY = "make it again: Manifest.of(sources).save(...)"
_SEEN = 5  # bucket URLs in a repr


class Manifest:
    """The names and sizes of all objects of some sources, to be used in their place without listing them again.

    One process lists and saves; all ranks, and the next job, load. Each dataset made of it has the same objects in
    the same order, so a state of one resumes in another: a state names the fingerprint of the listing that it counts
    in, and that of a loaded manifest is the saved one's.

    Made by `Manifest.of` or `Manifest.load`. It is a snapshot: objects that come later are not in it until `refresh`.
    An object that is gone meanwhile raises ``ObjectNotFound`` when it is read. A dataset takes what the manifest holds
    when the dataset is made.

    With ``index=`` it also keeps where all samples of tar shards are (``table``): then datasets read no index.

    Memory: 16 bytes an object and its name; of samples as in `AISShardMapDataset`. Pickles, if its name_filter does.

    >>> from aisdatapipes.devserver import DevCluster
    >>> with DevCluster.demo() as cluster:
    ...     manifest = Manifest.of("ais://demo/a", config=cluster.endpoint)
    ...     manifest.save("ais://demo/lists/demo.npz")
    ...     loaded = Manifest.load("ais://demo/lists/demo.npz", config=cluster.endpoint)
    ...     print(loaded, list(loaded.names), loaded.sizes.tolist())
    ...     print(manifest.refresh())
    <Manifest: 1 objects of ais://demo/a, fingerprint 0177bd56b6f62072> ['a.txt'] [1]
    0 added, 0 removed, 0 changed
    """

    def __init__(
        self,
        listing: Listing,
        name_filter: NameFilter | None = None,
        *,
        filter_lost: bool = False,
        table: ShardTable | None = None,
        index: IndexMode = "off",
    ) -> None:
        self.listing = listing.with_sources(listing.sources)  # sizes that a dataset finds out are not the manifest's
        self.fingerprint = self.listing.fingerprint
        self._name_filter = name_filter
        self._filter_lost = filter_lost  # a function, which no file can hold; or each part had its own
        self.table = table
        self._index: IndexMode = index  # how the table was made

    @classmethod
    def of(
        cls,
        sources: Any,
        prefix_map: Mapping[Any, Prefixes] | None = None,
        *,
        name_filter: Any = None,
        config: Where | None = None,
        index: IndexMode = "off",
    ) -> Manifest:
        """The manifest of some sources, which are listed now; or of a dataset, which is listed once at most.

        Of an `AISShardReader` or `AISShardMapDataset` it has the table of samples by which that goes, if it has one.

        Args:
            sources: What a dataset takes as ``ais_source_list``, other manifests too; or a dataset of this package.
            prefix_map: As in `AISBaseIterDataset`.
            name_filter: As there.
            config: How to reach the cluster; None for what the clients of the sources say.
            index: Of sources that are tar shards: also keep where all samples are, so that nobody who loads it reads
                an index. ``"server"``, ``"client"`` and ``"auto"`` as in `AISShardReader`; ``"auto"`` keeps no table
                where not every shard has an index.

        Raises: ``ConfigError``, ``BucketNotFound``, ``CorruptShard`` and the like.
        """
        catalog = getattr(sources, "_catalog", None)
        meter, index = Meter(), checked_index(index)
        if isinstance(catalog, Catalog):
            if prefix_map is not None or name_filter is not None or config is not None or index != "off":
                raise ConfigError("Manifest.of(dataset) takes what the dataset has; give prefix_map and the like to it")
            if getattr(sources, "_columns", ()):
                raise ConfigError("Manifest.of: a join has several listings; make a manifest of each of its sources")
            made = cls(catalog.listing(meter), catalog.name_filter, filter_lost=catalog.has_given)
            sources._shared.add(meter, Meter())  # noqa: SLF001 - the listing is the dataset's, and counted there
            made.table = getattr(sources, "_table", None)
            made._index = "off" if made.table is None else getattr(sources, "_index", "auto")
            return made
        if isinstance(sources, Dataset):
            raise ConfigError(
                f"Manifest.of: {type(sources).__name__} has no listing of its own; make one of each dataset that it "
                "reads"
            )
        things = as_list(sources, "Manifest.of")
        chosen = checked_name_filter(name_filter)
        filtered = any(isinstance(thing, Manifest) and thing._is_filtered for thing in things)  # noqa: SLF001 - its own
        where = None if config is None else config_of(config)
        catalog = Catalog(checked_parts(things, prefix_map, where, name_filter=chosen), chosen)
        listing = catalog.listing(meter)
        table = _table(listing, index, meter, kept_tables(things))
        return cls(listing, chosen, filter_lost=filtered, table=table, index=index)

    @classmethod
    def load(cls, path_or_url: str | os.PathLike[str], *, config: Where | None = None) -> Manifest:
        """The manifest that was saved there; nothing is listed.

        Args:
            path_or_url: A path, or the URL of an object, such as ``ais://bucket/lists/train.npz``.
            config: How to reach the cluster of the object, and of all sources: an endpoint, a `ClientConfig` or a
                ``Client`` of the SDK. None for ``AIS_ENDPOINT``. A manifest does not say it, for it would send tokens
                to wherever it says.

        Raises: ``UnreadableManifest`` for what is damaged, of another version or something else;
            ``FileNotFoundError`` (``ObjectNotFound`` of the cluster), and the like.
        """
        url = _url(path_or_url)
        where = config_of(config if config is not None or url is None else url.endpoint)
        data = Path(path_or_url).read_bytes() if url is None else read_object(url, _at(url, where))
        shown = os.fspath(path_or_url)
        try:
            saved = decoded_manifest(data)
            listing = _restored(saved, where)
            name_filter, lost = _restored_filter(saved.name_filter)
            table, index = _restored_table(saved.samples, listing)
        except (Malformed, InvalidURL) as error:
            raise UnreadableManifest(f"{shown}: cannot be read as a manifest: {error}; {_REMEDY}") from None
        manifest = cls(listing, name_filter, filter_lost=lost, table=table, index=index)
        if manifest.fingerprint != saved.fingerprint:
            raise UnreadableManifest(
                f"{shown}: damaged: its names and sizes have the fingerprint {manifest.fingerprint}, and it says "
                f"{saved.fingerprint}; {_REMEDY}"
            )
        return manifest

    def save(self, path_or_url: str | os.PathLike[str], *, config: Where | None = None) -> None:
        """Write it to a file, or to an object of the cluster; whoever loads meanwhile gets the old one, or the new one.

        No endpoint and no token is in it, and no ``name_filter`` that is a function. The form is that of
        `aisdatapipes.wire.manifest`: ``numpy.load`` reads it.

        Args:
            path_or_url: A path, or the URL of an object; the name is free (``.npz`` is what it is).
            config: Cluster of the object; None for that of the sources.

        Raises: ``ConfigError`` for sources on several clusters, ``OSError``, ``BucketNotFound`` and the like.
        """
        configs = {source.config.endpoint: source.config for source in self.listing.sources}
        if len(configs) > 1:
            raise ConfigError(
                f"a saved manifest is of one cluster, and this one is of {len(configs)} ({', '.join(configs)}): "
                f"save one for each, and give a dataset the list of them"
            )
        url = _url(path_or_url)
        data = encoded_manifest(self._saved())
        if url is None:
            _replace(Path(path_or_url), data)
            return
        (known,) = configs.values()
        write_object(url, _at(url, known if config is None else config_of(config)), data)

    def refresh(self, *, name_filter: Any = None) -> Changes:
        """List the sources again, and hold the result; says what was added, removed and changed.

        Where samples are is looked up again too, in the same way as before.

        Datasets that were made before keep what they have. If listing fails, nothing has changed here.

        Args:
            name_filter: Which names stay, where this manifest cannot know: loaded, and made with a function; or put
                together out of manifests that had filters, or of a dataset of manifests.

        Raises: ``ConfigError`` without that, ``BucketNotFound`` and the like.
        """
        if name_filter is not None and not self._filter_lost:
            raise ConfigError("refresh: this manifest knows its name_filter; make another one for another filter")
        if name_filter is None and self._filter_lost:
            raise ConfigError(
                "refresh: this manifest does not know which names stay: its name_filter was a function, which no file "
                "can hold, or it is made of other manifests; say it, refresh(name_filter=...), or make it again"
            )
        chosen = checked_name_filter(name_filter) or self._name_filter
        renewed = Manifest(Listing.of(self.listing.sources, Meter(), chosen), chosen)
        table = _table(renewed.listing, self._index, Meter())
        found = changes(self.listing, renewed.listing)
        self.listing, self.fingerprint, self.table = renewed.listing, renewed.fingerprint, table
        self._name_filter, self._filter_lost = chosen, False
        return found

    @property
    def _is_filtered(self) -> bool:
        return self._name_filter is not None or self._filter_lost

    @property
    def names(self) -> Sequence[str]:
        """The names, in listing order, each made when it is looked at."""
        return _Names(self.listing)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each object, -1 where no listing told: shape (N,), read-only."""
        view: npt.NDArray[np.int64] = self.listing.sizes.view()
        view.flags.writeable = False
        return view

    def __len__(self) -> int:
        return len(self.listing)

    def __repr__(self) -> str:
        shown = dict.fromkeys(f"{one.bucket}/{prefix}" for one in self.listing.sources for prefix in one.prefixes)
        more = ["..."] if len(shown) > _SEEN else []
        places = ", ".join([*list(shown)[:_SEEN], *more])
        samples = "" if self.table is None else f" with {len(self.table)} samples"
        return f"<Manifest: {len(self)} objects of {places}{samples}, fingerprint {self.fingerprint}>"

    def _saved(self) -> Saved:
        listing = self.listing
        sources = tuple(
            SavedSource(str(one.bucket), count, one.prefixes, one.names is not None, one.etl_name)
            for one, count in zip(listing.sources, listing.counts, strict=True)
        )
        name_filter = SavedFilter(None) if self._filter_lost else _saved_filter(self._name_filter)
        samples = None if self.table is None else saved_table(self.table, self._index)
        return Saved(sources, self.fingerprint, name_filter, listing.blob, listing.ends, listing.sizes, samples)


class _Names(Sequence[str]):
    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    def __len__(self) -> int:
        return len(self._listing)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._listing.name(position) for position in range(len(self))[index]]
        return self._listing.name(range(len(self))[index])


def _url(path_or_url: str | os.PathLike[str]) -> AISURL | None:
    """The URL of an object; None for a path."""
    if not isinstance(path_or_url, str) or "://" not in path_or_url:
        return None
    url = AISURL.parse(path_or_url)
    if not url.name or url.name.endswith("/"):
        raise InvalidURL(f"{path_or_url!r}: this is no object; expected ais://bucket/name.npz")
    return url


def _at(url: AISURL, config: ClientConfig) -> ClientConfig:
    """How to reach the object itself: its URL may say the endpoint."""
    return config if url.endpoint is None else config.at(url.endpoint)


def _restored(saved: Saved, config: ClientConfig) -> Listing:
    urls = [AISURL.parse(one.bucket) for one in saved.sources]
    bare = [Source(config, url, one.prefixes, None, one.etl_name) for url, one in zip(urls, saved.sources, strict=True)]
    listing = Listing(bare, [one.objects for one in saved.sources], saved.blob, saved.ends, saved.sizes)
    named = [index for index, one in enumerate(saved.sources) if one.named]
    for index in named:
        names = tuple(map(listing.name, listing.of_sources(slice(index, index + 1)).tolist()))
        bare[index] = Source(config, urls[index], bare[index].prefixes, names, bare[index].etl_name)
    return listing.with_sources(bare) if named else listing


def _table(listing: Listing, index: IndexMode, meter: Meter, kept: Sequence[ShardTable] = ()) -> ShardTable | None:
    """Where all samples are; None with ``index="off"``, and where ``"auto"`` finds that not all shards are indexed."""
    if index == "off":
        return None
    clusters = Clusters(None, {source.config.endpoint: source.config for source in listing.sources})
    return resolved(listing, index, clusters, meter, show_progress=False, kept=kept).table


def _restored_table(saved: SavedSamples | None, listing: Listing) -> tuple[ShardTable | None, IndexMode]:
    """The table, and how it was made."""
    if saved is None:
        return None, "off"
    if saved.index not in get_args(IndexMode):
        raise Malformed(f"its samples were found by an unknown kind of index: {saved.index!r}")
    table = restored_table(saved, listing.urls(range(len(listing))))
    if table.fingerprint != saved.fingerprint:
        raise Malformed(f"its samples have the fingerprint {table.fingerprint}, and it says {saved.fingerprint}")
    return table, cast("IndexMode", saved.index)


def _saved_filter(name_filter: NameFilter | None) -> SavedFilter | None:
    # A regular expression is used by its method `search`.
    pattern = getattr(name_filter, "__self__", None)
    if isinstance(pattern, re.Pattern) and name_filter == pattern.search:
        return SavedFilter(pattern.pattern, pattern.flags)
    return None if name_filter is None else SavedFilter(None)


def _restored_filter(saved: SavedFilter | None) -> tuple[NameFilter | None, bool]:
    """The filter, and whether there was one that is lost."""
    if saved is None or saved.pattern is None:
        return None, saved is not None
    try:
        return re.compile(saved.pattern, saved.flags).search, False
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise Malformed(f"its name_filter is no regular expression: {error}") from None


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that at any time there is the old one or the new one."""
    written = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with written.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a crash can leave an empty file under the name
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)
