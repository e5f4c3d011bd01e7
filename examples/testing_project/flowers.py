"""The data of a training: pictures of flowers, with the species in the folder's name."""

from __future__ import annotations

from torch.utils.data import DataLoader

from aisdatapipes import AISIterDataset, AISShardReader, ClientConfig

SPECIES = ("daisy", "rose", "tulip")


class Flowers(AISIterDataset):
    """(picture, number of the species) of every object such as ``rose/17.jpg``."""

    def __iter__(self):
        for name, picture in super().__iter__():
            yield picture, SPECIES.index(name.partition("/")[0])


def flowers(url: str, endpoint: str, **options) -> Flowers:
    """The dataset; other files in the bucket are left alone."""
    return Flowers(url, config=ClientConfig(endpoint), name_filter=r"\.jpg$", **options)


def shards(url: str, endpoint: str) -> AISShardReader:
    """The same pictures from tar shards: (key, {"jpg": ..., "cls": ...})."""
    return AISShardReader(url, config=ClientConfig(endpoint), fields=("jpg;jpeg", "cls"))


def loader(url: str, endpoint: str, workers: int = 2) -> DataLoader:
    """Batches of two, shuffled anew in each epoch."""
    dataset = flowers(url, endpoint, shuffle=True, batch_size=2)
    return DataLoader(dataset, batch_size=2, num_workers=workers)
