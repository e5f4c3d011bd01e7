"""The data loading of this project, tested against a cluster that lives as long as the tests do."""

import pytest
from flowers import flowers, loader, shards

from aisdatapipes import BucketNotFound
from aisdatapipes.testing import check_dataset


@pytest.fixture
def garden(ais_bucket):
    """A bucket of five flowers, and a file that is none."""
    for number, species in enumerate(("daisy", "rose", "tulip", "rose", "daisy")):
        ais_bucket.put(f"{species}/{number}.jpg", b"picture %d" % number)
    ais_bucket.put("README.txt", b"no flower")
    return ais_bucket


def test_folders_are_species(garden):
    """The folder of a picture says its species; other files are left alone."""
    assert sorted(flowers(garden.url, garden.endpoint)) == [
        (b"picture 0", 0),
        (b"picture 1", 1),
        (b"picture 2", 2),
        (b"picture 3", 1),
        (b"picture 4", 0),
    ]


def test_dataset_obeys_the_laws(garden):
    """Epochs, copies, workers and loops that break off."""
    check_dataset(flowers(garden.url, garden.endpoint))


def test_loader_gives_every_flower(garden):
    """Two workers share the flowers."""
    assert sorted(picture for batch, _ in loader(garden.url, garden.endpoint) for picture in batch) == [
        b"picture %d" % number for number in range(5)
    ]


def test_shards(ais_bucket):
    """A shard's samples have a picture and a class, whatever the picture's extension is."""
    ais_bucket.put_shard("a.tar", {"1": {"jpg": b"A", "cls": b"0"}, "2": {"jpeg": b"B", "cls": b"1"}})
    found = [(key, dict(sample)) for key, sample in shards(ais_bucket.url, ais_bucket.endpoint)]
    assert found == [("1", {"jpg": b"A", "cls": b"0"}), ("2", {"jpg": b"B", "cls": b"1"})]


def test_missing_bucket(ais_cluster):
    """A bucket that is not there is an error that says so."""
    with pytest.raises(BucketNotFound, match="no-such-garden"):
        list(flowers("ais://no-such-garden/", ais_cluster.endpoint))
