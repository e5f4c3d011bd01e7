"""The datasets, the sampler and the worker's client, on both servers."""

from __future__ import annotations

import gc
import pickle
import threading
import time

import pytest
from aistore.sdk import Client
from torch.utils.data import DataLoader

from aisdatapipes import (
    AISBatchIterDataset,
    AISIterDataset,
    AISMapDataset,
    AISMultiShardStream,
    AISParallelMapDataset,
    AISShardReader,
    ConfigError,
    DynamicBatchSampler,
    FetchPlan,
    ObjectNotFound,
    WorkerRequestClient,
    World,
)
from tests.datasets.samples import OldStyle, Sizes, numbered, shard

METHODS = ("fork", "spawn", "forkserver")
OBJECTS = {f"d{i // 10}/{i:03d}": bytes([i]) * i for i in range(37)}
SAMPLES = sorted(OBJECTS.items())


def iterable(bucket, **options):
    return AISIterDataset(bucket.sdk, **options)


def batch(bucket, **options):
    return AISBatchIterDataset(bucket.sdk, bucket.server.client(), max_batch_size=8, **options)


def old_style(bucket, **options):
    return OldStyle(bucket.sdk, **options)


ITERABLE = [iterable, batch, old_style]


@pytest.mark.parametrize("make", ITERABLE)
def test_iterable_datasets_yield_every_object_in_order(bucket, make):
    """Names and contents of all objects, zero-size ones too, in listing order; again in the next epoch."""
    bucket.fill(OBJECTS)
    dataset = make(bucket)
    assert list(dataset) == SAMPLES
    assert list(dataset) == SAMPLES
    assert len(dataset) == len(SAMPLES)


@pytest.mark.parametrize("make", ITERABLE)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_share_the_objects_and_keep_the_order(bucket, make, workers):
    """With ``batch_size`` known, batches are those of a loader without workers."""
    bucket.fill(OBJECTS)
    loader = DataLoader(make(bucket, batch_size=5), batch_size=5, num_workers=workers)
    found = [list(zip(*pair, strict=True)) for pair in loader]
    assert found == [SAMPLES[i : i + 5] for i in range(0, len(SAMPLES), 5)]
    assert len(loader) == len(found)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("workers", [1, 4])
def test_start_methods_give_the_same(bucket, method, workers):
    """fork, spawn and forkserver: every sample once, also after ``len()`` in the parent, and one listing in all."""
    bucket.fill(OBJECTS)
    dataset = AISIterDataset(bucket.sdk, batch_size=5)
    loader = DataLoader(dataset, batch_size=5, num_workers=workers, multiprocessing_context=method)
    for _ in range(2):
        assert [name for names, _ in loader for name in names] == [name for name, _ in SAMPLES]
    assert dataset.stats()["lists"] == 1
    assert len(loader) == 8
    assert dataset.stats()["lists"] == 1
    assert dataset.stats()["objects"] == 2 * len(SAMPLES)


@pytest.mark.parametrize("workers", [0, 2])
def test_shuffled_epochs_have_every_sample_once(bucket, workers):
    """``shuffle=True`` reorders each epoch differently, the same for any number of workers."""
    bucket.fill(OBJECTS)
    dataset = AISIterDataset(bucket.sdk, shuffle=True, seed=7, batch_size=4)
    alone = AISIterDataset(bucket.sdk, shuffle=True, seed=7, batch_size=4)
    loader = DataLoader(dataset, batch_size=4, num_workers=workers)
    epochs = [[name for names, _ in loader for name in names] for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert [sorted(epoch) for epoch in epochs] == [[name for name, _ in SAMPLES]] * 2
    assert epochs == [[name for name, _ in alone] for _ in range(2)]


@pytest.mark.parametrize(("even", "lengths"), [("none", [19, 18]), ("repeat", [19, 19]), ("drop", [18, 18])])
def test_ranks_get_their_shares(bucket, even, lengths):
    """Two ranks share the objects; the remainder is as ``even`` says, and ``len()`` is exact."""
    bucket.fill(OBJECTS)
    ranks = [AISIterDataset(bucket.sdk, even=even, world=World(rank, 2)) for rank in range(2)]
    assert [len(dataset) for dataset in ranks] == [len(list(dataset)) for dataset in ranks] == lengths


def test_rank_of_torchrun_is_read_when_iteration_starts(bucket, monkeypatch):
    """RANK and WORLD_SIZE count, set before or after construction."""
    bucket.fill(OBJECTS)
    dataset = AISIterDataset(bucket.sdk, even="none")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [name for name, _ in dataset] == [name for name, _ in SAMPLES][1::2]


def test_copy_made_before_the_ranks_exist_asks_for_its_own(embedded_bucket, monkeypatch):
    """A pickle of one process alone says nothing about ranks; one of a rank keeps it for a spawned worker."""
    embedded_bucket.fill(OBJECTS)
    early = pickle.dumps(AISIterDataset(embedded_bucket.sdk, even="none"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    late = pickle.dumps(AISIterDataset(embedded_bucket.sdk, even="none"))
    second_half = [name for name, _ in SAMPLES][1::2]
    assert [name for name, _ in pickle.loads(early)] == second_half
    monkeypatch.delenv("RANK")
    assert [name for name, _ in pickle.loads(late)] == second_half


def test_sources_may_be_partitioned_by_worker(bucket):
    """With ``partition_sources_by_worker`` each worker takes whole sources, and together they take all."""
    bucket.fill(OBJECTS)
    sources = [bucket.url + f"d{i}/" for i in range(4)]
    config = bucket.server.config
    dataset = AISIterDataset(sources, partition_sources_by_worker=True, config=config)
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    assert sorted(name for name, _ in loader) == [name for name, _ in SAMPLES]


def test_set_epoch_reaches_persistent_workers(bucket):
    """An epoch that is set is the one that workers serve, also workers that are there already."""
    bucket.fill(OBJECTS)
    dataset = AISIterDataset(bucket.sdk, shuffle=True, batch_size=4)
    loader = DataLoader(dataset, batch_size=4, num_workers=2, persistent_workers=True)
    orders = []
    for epoch in (5, 6, 5):
        dataset.set_epoch(epoch)
        orders.append([name for names, _ in loader for name in names])
    assert orders[0] == orders[2] != orders[1]
    del loader
    gc.collect()


def test_two_loops_over_one_dataset_do_not_see_each_other(bucket):
    """Loops over one dataset, and len() inside them, are independent."""
    bucket.fill(OBJECTS)
    dataset = AISIterDataset(bucket.sdk)
    pairs = []
    for one, other in zip(dataset, dataset, strict=True):
        assert len(dataset) == len(SAMPLES)
        pairs.append((one, other))
    assert pairs == [(sample, sample) for sample in SAMPLES]


def test_leaving_a_loop_leaves_nothing_under_way(bucket):
    """After a break the iterator is gone at once, and with it what it had under way."""
    bucket.fill(OBJECTS)
    dataset = AISIterDataset(bucket.sdk)
    for _ in dataset:
        break
    assert len(dataset._open) == 0
    iterator = iter(dataset)
    next(iterator)
    dataset.close()
    with pytest.raises(StopIteration):
        next(iterator)


@pytest.mark.parametrize("workers", [0, 2])
def test_leaving_a_loader_early_does_not_hang(bucket, workers):
    """A DataLoader that is left after one batch ends its workers."""
    bucket.fill(OBJECTS)
    loader = DataLoader(AISIterDataset(bucket.sdk), batch_size=2, num_workers=workers)
    for _ in loader:
        break
    del loader
    gc.collect()


def test_map_dataset_reads_by_index(bucket):
    """Positive and negative indices; IndexError and slices are said clearly; batches are one pass."""
    bucket.fill(OBJECTS)
    dataset = AISMapDataset(bucket.sdk)
    assert len(dataset) == len(SAMPLES)
    assert (dataset[3], dataset[-1]) == (SAMPLES[3], SAMPLES[-1])
    assert dataset.__getitems__([5, 0, 36]) == [SAMPLES[5], SAMPLES[0], SAMPLES[36]]
    for wrong in (37, -38):
        with pytest.raises(IndexError, match="<AISMapDataset> index must be in bounds"):
            dataset[wrong]
    with pytest.raises(ConfigError, match="slice"):
        dataset[1:2]
    assert list(dataset) == SAMPLES


@pytest.mark.parametrize("method", [None, *METHODS])
def test_map_dataset_in_a_shuffling_loader(bucket, method):
    """Any torch sampler works, with workers however they start; nothing is listed again."""
    bucket.fill(OBJECTS)
    dataset = AISMapDataset(bucket.sdk)
    loader = DataLoader(
        dataset, batch_size=5, shuffle=True, num_workers=2 if method else 0, multiprocessing_context=method
    )
    found = {name: data for names, contents in loader for name, data in zip(names, contents, strict=True)}
    assert found == OBJECTS
    assert dataset.stats()["lists"] == 1


def test_overridden_getitem_is_honoured_in_batches(bucket):
    """A subclass's ``__getitem__`` decides, also for ``__getitems__``."""
    bucket.fill(OBJECTS)
    assert Sizes(bucket.sdk).__getitems__([1, 2]) == [("d0/001", 1), ("d0/002", 2)]


def test_object_list_is_the_sdks(bucket):
    """``get_obj_list()`` gives the SDK's objects, with sizes, that read by themselves."""
    bucket.fill(OBJECTS)
    objects = AISMapDataset(bucket.sdk).get_obj_list()
    assert (len(objects), objects[5].name, objects[5].props_cached.size) == (37, "d0/005", 5)
    assert objects[5].get_reader().read_all() == OBJECTS["d0/005"]
    assert [item.name for item in objects[:2]] == ["d0/000", "d0/001"]


def test_parallel_dataset_gives_buffers(bucket):
    """Contents come in the interface of the SDK's buffer; empty objects and one worker are fine."""
    data = bytes(range(256)) * 500
    bucket.fill({"big": data, "empty": b""})
    dataset = AISParallelMapDataset(bucket.sdk, num_workers=4, fetch=FetchPlan(range_bytes=10_000))
    (name, buffer), (_, empty) = dataset[0], dataset[1]
    assert (name, len(buffer), bytes(buffer.buf), buffer.tobytes()) == ("big", len(data), data, data)
    assert (len(empty), empty.tobytes()) == (0, b"")
    assert pickle.loads(pickle.dumps(buffer)).tobytes() == data
    with buffer:
        pass
    assert len(buffer) == 0
    assert AISParallelMapDataset(bucket.sdk, num_workers=1)[0][1].tobytes() == data


@pytest.mark.parametrize("form", [{}, {"streaming": False}, {"output_format": ".tgz"}, {"output_format": ".zip"}])
def test_batches_in_every_form_give_the_same(bucket, form):
    """Streaming or buffered, tar, tgz or zip: the same objects in the same order."""
    bucket.fill(OBJECTS)
    dataset = AISBatchIterDataset(bucket.sdk, bucket.server.client(), max_batch_size=10, **form)
    assert list(dataset) == SAMPLES


def test_batch_dataset_raises_or_skips_what_is_missing(bucket):
    """A missing object is an error that names it, or with ``cont_on_err`` skipped and counted; never ``b""``."""
    bucket.fill({"a": b"1", "c": b""})
    group = bucket.sdk.objects(obj_names=["a", "b", "c"])
    client = bucket.server.client()
    with pytest.raises(ObjectNotFound, match="/b"):
        list(AISBatchIterDataset(group, client))
    lenient = AISBatchIterDataset(group, client, cont_on_err=True)
    assert list(lenient) == [("a", b"1"), ("c", b"")]
    assert lenient.stats()["skipped"] == 1


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_shard_reader_yields_every_sample_once(bucket, workers):
    """Samples of all shards, keys and contents, with more workers than shards too."""
    bucket.fill({f"s{i}.tar": numbered(i * 10, 10) for i in range(3)})
    loader = DataLoader(AISShardReader(bucket.sdk), batch_size=None, num_workers=workers)
    found = sorted((key, int(sample["cls"])) for key, sample in loader)
    assert found == [(f"{i:04d}", i) for i in range(30)]


def test_shard_samples_collate_with_missing_fields(bucket):
    """Fields that a sample lacks are filled in from the shard's own listing, before they are first seen."""
    bucket.put("s.tar", shard(("a", {"jpg": b"1"}), ("b", {"jpg": b"2", "txt": b"t"}), ("c", {"txt": b"u"})))
    (collated,) = DataLoader(AISShardReader(bucket.sdk), batch_size=3)
    assert collated == [("a", "b", "c"), {"jpg": [b"1", b"2", b""], "txt": [b"", b"t", b"u"]}]


def test_shard_fields_are_exact(bucket):
    """``fields`` gives exactly these, in this order, with alternatives; missing ones as ``missing`` says."""
    bucket.put("s.tar", shard(("a", {"png": b"P", "cls": b"1", "x": b"."}), ("b", {"cls": b"2"})))
    fields = ("jpg;png", "cls")
    assert list(AISShardReader(bucket.sdk, fields=fields)) == [
        ("a", {"jpg": b"P", "cls": b"1"}),
        ("b", {"jpg": b"", "cls": b"2"}),
    ]
    skipping = AISShardReader(bucket.sdk, fields=fields, missing="skip")
    assert [key for key, _ in skipping] == ["a"]
    assert skipping.stats()["skipped"] == 1
    with pytest.raises(ValueError, match="sample 'b' has no field"):
        list(AISShardReader(bucket.sdk, fields=fields, missing="error"))


def test_several_shard_streams_run_in_step(bucket, caplog):
    """Members of all sources side by side, in archive order; the end of the shorter one is said."""
    from aistore.sdk.dataset.data_shard import DataShard

    from aisdatapipes.wire.tar import END, entry

    left = b"".join(entry(f"f{i}", f"l{i}".encode()) for i in (1, 10, 2)) + END
    right = b"".join(entry(f"g{i}", f"r{i}".encode()) for i in range(4)) + END
    bucket.fill({"left/a.tar": left, "right/b.tar": right})
    sources = [DataShard(bucket.endpoint, bucket.name, prefix=p) for p in ("left/", "right/")]
    expected = [(b"l1", b"r0"), (b"l10", b"r1"), (b"l2", b"r2")]
    assert list(AISMultiShardStream(sources)) == expected
    assert "left/ ended after 3 members" in caplog.text
    with_workers = DataLoader(AISMultiShardStream(sources), batch_size=None, num_workers=2)
    assert sorted(map(tuple, with_workers)) == sorted(expected)
    assert list(AISMultiShardStream(sources[0])) == [(b"l1",), (b"l10",), (b"l2",)]


def test_sampler_packs_by_bytes(bucket):
    """Greedy, exact fits closed, sizes from the listing; ``len()`` counts batches."""
    bucket.fill({"a": b"x" * 10, "b": b"x" * 50, "c": b"x" * 10, "d": b"", "e": b"x" * 20, "f": b"x" * 5})
    dataset = AISMapDataset(bucket.sdk)
    plain = DynamicBatchSampler(dataset, 30)
    assert list(plain) == [[0, 2, 3], [4, 5]]
    assert len(plain) == 2
    assert list(DynamicBatchSampler(dataset, 30, allow_oversized_samples=True)) == [[1], [0, 2, 3], [4, 5]]
    assert list(DynamicBatchSampler(dataset, 30, drop_last=True)) == [[0, 2, 3], [4, 5]]
    assert list(DynamicBatchSampler(dataset, 30, drop_last=True, saturation_factor=0.9)) == [[0, 2, 3]]
    names = [n for names, _ in DataLoader(dataset, batch_sampler=plain) for n in names]
    assert names == ["a", "c", "d", "e", "f"]


def test_sampler_shuffles_by_epoch_and_deals_to_ranks(bucket):
    """Batches differ by epoch, are the same for the same seed, and partition over ranks."""
    bucket.fill({f"{i:02d}": b"x" * 10 for i in range(20)})
    dataset = AISMapDataset(bucket.sdk)
    sampler = DynamicBatchSampler(dataset, 20, shuffle=True, seed=1)
    first, second = list(sampler), list(sampler)
    assert first != second
    assert sorted(i for indices in first for i in indices) == list(range(20))
    shares = [DynamicBatchSampler(dataset, 20, shuffle=True, seed=1, even="none", world=World(r, 2)) for r in range(2)]
    assert sorted(b for share in shares for b in share) == sorted(first)
    assert [len(share) for share in shares] == [5, 5]


def test_sampler_asks_for_sizes_that_no_listing_told(bucket):
    """Objects of a group have no size until somebody asks the cluster."""
    bucket.fill({"a": b"x" * 10, "b": b"x" * 25})
    dataset = AISMapDataset(bucket.sdk.objects(obj_names=["b", "a"]))
    assert list(DynamicBatchSampler(dataset, 30)) == [[0], [1]]


def test_worker_client_has_a_session_for_each_thread(bucket):
    """One session a thread and process, the same settings, picklable; requests work with it."""
    bucket.put("o", b"1")
    client = Client(bucket.endpoint, token="t", timeout=(2, 7))
    own = WorkerRequestClient(client.bucket(bucket.name).client)
    assert (own.base_url, own.token, own.timeout) == (bucket.endpoint + "/v1", "t", (2, 7))
    sessions = [own.session, own.session]
    thread = threading.Thread(target=lambda: sessions.append(own.session))
    thread.start()
    thread.join()
    assert sessions[0] is sessions[1] is not sessions[2]
    bucket.sdk.client = own
    assert bucket.sdk.object("o").get_reader().read_all() == b"1"
    assert pickle.loads(pickle.dumps(own)).base_url == own.base_url


def test_stats_count_what_was_done(bucket):
    """Objects, bytes, requests and listings add up, over epochs and workers."""
    bucket.fill(OBJECTS)
    dataset = AISIterDataset(bucket.sdk)
    list(dataset)
    list(DataLoader(dataset, batch_size=None, num_workers=2))
    stats = dataset.stats()
    assert (stats["objects"], stats["requests"], stats["lists"]) == (2 * 37, 2 * 37, 1)
    assert (stats["bytes"], stats["retries"], stats["skipped"]) == (2 * sum(map(len, OBJECTS.values())), 0, 0)
    assert min(stats["list_s"], stats["wait_s"], stats["consumer_s"]) > 0


def test_stats_say_who_kept_whom_waiting(bucket):
    """Before anything was read, and with a consumer that takes its time."""
    bucket.fill(OBJECTS)
    dataset = AISIterDataset(bucket.sdk)
    assert dataset.stats()["verdict"] == "nothing was read"
    for _ in dataset:
        time.sleep(0.05)
    assert dataset.stats()["verdict"].startswith("held up by the consumer")
