"""The public laws, run on our own pipes and datasets."""

from __future__ import annotations

from aisdatapipes import AISFileLister, AISIterDataset, AISMapDataset, AISShardReader
from aisdatapipes.testing import check_early_break, check_epochs, check_loader
from tests.datasets.samples import numbered


def test_pipes_and_dataset_agree(bucket):
    """The chain of pipes and the dataset give the same names and contents in the same order."""
    bucket.fill({f"d/{i}": bytes([i]) * i for i in range(12)})
    chain = AISFileLister(bucket.url, bucket.endpoint).ais_load_files(bucket.endpoint)
    assert [(url.name, stream.read()) for url, stream in chain] == list(AISIterDataset(bucket.sdk))


def test_laws_hold_for_the_datasets(embedded_bucket):
    """Epochs, loaders and early breaks of each kind of dataset."""
    embedded_bucket.fill({f"o/{i}": bytes([i]) for i in range(9)} | {"s/a.tar": numbered(0, 7)})
    objects, shards = {embedded_bucket.sdk: "o/"}, {embedded_bucket.sdk: "s/"}
    for dataset in (
        AISIterDataset(embedded_bucket.sdk, objects),
        AISMapDataset(embedded_bucket.sdk, objects),
        AISShardReader(embedded_bucket.sdk, shards),
    ):
        check_epochs(dataset)
        check_loader(dataset, num_workers=2)
        check_early_break(dataset)
