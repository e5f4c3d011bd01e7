"""What users write, which type checkers must accept: checked by mypy, never run."""

from collections.abc import Iterator

from aisdatapipes import (
    AISURL,
    AISFileLister,
    AISFileLoader,
    AISIterDataset,
    AISMapDataset,
    AISMix,
    AISShardMapDataset,
    AISShardReader,
    AISShardSamples,
    ClientConfig,
    FetchPlan,
    Manifest,
    ObjectNotFound,
    RetryPolicy,
    World,
)
from aisdatapipes.pipes.stream import ObjectStream
from aisdatapipes.testing import AISBucket, check_dataset

ENDPOINT = "http://localhost:8080"


def chain() -> Iterator[tuple[AISURL, ObjectStream]]:
    """A chain knows what it yields, to its end."""
    lister: AISFileLister = AISFileLister(["ais://bucket/"], ENDPOINT)
    loader: AISFileLoader = lister.ais_plan(shuffle=True, batch_size=32).ais_load_files(ENDPOINT, length=10)
    for url, stream in loader:
        name: str = url.name
        print(name, stream.read())
    return iter(loader)


def legacy_names() -> AISFileLoader:
    """The names of torchdata are typed like ours."""
    return (
        AISFileLister("ais://bucket/", url=ENDPOINT, length=3)
        .list_files_by_ais(url=ENDPOINT)
        .load_files_by_ais(url=ClientConfig(ENDPOINT, retry=RetryPolicy(attempts=3)))
    )


def samples() -> list[dict[str, bytes]]:
    """Samples of shards are dicts of bytes."""
    shards: AISShardSamples = AISFileLister(["ais://bucket/"]).ais_load_files().ais_read_shards(fields=["png", "cls"])
    return [dict(sample) for _, sample in shards]


def datasets(bucket: AISBucket) -> None:
    """Our arguments are known on every dataset."""
    options = FetchPlan(strategy="get")
    stream = AISIterDataset(bucket.url, shuffle=True, seed=1, world=World(0, 2), fetch=options, on_error="skip")
    stream.set_epoch(3)
    first: tuple[str, bytes] = AISMapDataset(bucket.sdk, config=ClientConfig(bucket.endpoint))[0]
    for key, sample in AISShardReader(bucket.url, fields=("png", "cls"), missing="error", batch_size=4):
        png: bytes = sample["png"]
        print(key, png, first)
    label: bytes = AISShardMapDataset(bucket.url, index="client", fields=("cls",))[0][1]["cls"]
    picture: int = AISShardMapDataset(bucket.url, decode=("pil", "cls"))[0][1]["cls"]
    print(picture, AISShardReader(bucket.url, decode=lambda key, extension, content: (key, extension, len(content))))
    print(label, len(AISShardReader(bucket.url, index="server")))
    check_dataset(stream, num_workers=1)
    weights = {stream: 3}
    mixes = AISMix(weights), AISMix({stream: 0.5, AISShardReader(bucket.url, join="ais://b/txt-"): 1}, even="drop")
    print([len(mix) for mix in mixes])


def errors(error: ObjectNotFound) -> tuple[str | None, int | None, int]:
    """Errors say where, what, and how often."""
    return error.url, error.status, error.attempts


def manifests() -> AISIterDataset:
    """A manifest is saved, loaded, and given for sources."""
    Manifest.of(["ais://bucket/"], name_filter="jpg$", config=ENDPOINT).save("ais://bucket/m.npz")
    manifest: Manifest = Manifest.load("train.npz", config=ClientConfig(ENDPOINT))
    added: tuple[str, ...] = manifest.refresh().added
    total = int(manifest.sizes.sum())
    print(added, total, manifest.names[0].upper(), manifest.fingerprint.upper())
    return AISIterDataset(manifest, {manifest: "train/"})
