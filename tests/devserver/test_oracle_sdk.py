"""The SDK's own client, unchanged, against the embedded cluster: what it can do with AIStore it can do here.

The file runs under any SDK from 1.24 on, also without torch.
"""

import pytest
from aistore.sdk import Client
from aistore.sdk.archive_config import ArchiveConfig, ArchiveMode
from aistore.sdk.errors import AISError, ErrBckAlreadyExists, ErrBckNotFound, ErrObjNotFound
from aistore.sdk.list_object_flag import ListObjectFlag
from aistore.sdk.namespace import Namespace
from aistore.sdk.retry_config import RetryConfig

from aisdatapipes.devserver import DevCluster
from tests.devserver.conftest import tar_of

ODD_NAMES = ["a#b?c%20d", "dir/with blank/é.txt", "a+b&c=d", "日本/語.bin", "x;y,z", "[brackets]"]


@pytest.fixture
def client(cluster):
    return Client(cluster.endpoint, retry_config=RetryConfig.default())


@pytest.fixture
def bucket(client):
    return client.bucket("bk").create()


def put(bucket, name, data):
    bucket.object(name).get_writer().put_content(data)


def read(bucket, name, **how):
    return bucket.object(name).get_reader(**how).read_all()


def test_cluster(client):
    """The cluster is ready and tells its map."""
    assert client.cluster().is_ready()
    info = client.cluster().get_info()
    assert ["t1", "t2", "t3"] == sorted(info.tmap)
    assert "p1" == info.proxy_si.daemon_id


def test_buckets(client):
    """Buckets are made, listed, described and destroyed; twice or not at all is an error of its own."""
    bucket = client.bucket("bk").create()
    with pytest.raises(ErrBckAlreadyExists):
        bucket.create()
    assert bucket.create(exist_ok=True)
    assert ["bk"] == [found.name for found in client.cluster().list_buckets()]
    assert "Ais-Bucket-Props" in bucket.head()
    bucket.delete()
    with pytest.raises(ErrBckNotFound):
        bucket.delete()
    bucket.delete(missing_ok=True)
    with pytest.raises(ErrBckNotFound):
        bucket.list_objects()


@pytest.mark.parametrize("name", ["plain", *ODD_NAMES])
def test_object_round_trip(bucket, name):
    """What is put under a name is what is read under it, listed with its size, and gone when deleted."""
    put(bucket, name, b"0123456789")
    assert b"0123456789" == read(bucket, name)
    assert [(name, 10)] == [(entry.name, entry.size) for entry in bucket.list_all_objects(props="name,size")]
    bucket.object(name).delete()
    with pytest.raises(ErrObjNotFound):
        read(bucket, name)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, 5 << 20])
def test_sizes(bucket, size):
    """Empty, small and large objects come back whole."""
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    put(bucket, "x", data)
    assert data == read(bucket, "x")
    assert data == b"".join(bucket.object("x").get_reader())


def test_attributes(bucket):
    """Size, checksum, version and custom metadata are those of the last PUT."""
    put(bucket, "x", b"one")
    put(bucket, "x", b"two!")
    bucket.object("x").get_writer().set_custom_props({"k": "v"})
    attributes = bucket.object("x").get_reader().attributes
    assert (4, "2", "xxhash2") == (attributes.size, attributes.obj_version, attributes.checksum_type)
    assert {"k": "v"} == attributes.custom_metadata
    bucket.object("x").head()
    props = bucket.object("x").props
    assert (4, attributes.checksum_value) == (props.size, props.checksum_value)


def test_missing(bucket):
    """A missing object is 404 for GET, HEAD and DELETE, and a missing bucket is told apart."""
    with pytest.raises(ErrObjNotFound):
        read(bucket, "nope")
    for attempt in (bucket.object("nope").head, bucket.object("nope").delete):
        with pytest.raises(AISError) as caught:
            attempt()
        assert 404 == caught.value.status_code
    bucket.delete()
    with pytest.raises(ErrBckNotFound):
        read(bucket, "nope")


@pytest.mark.parametrize(
    ("asked", "content"),
    [("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-3", b"789"), ("bytes=8-99", b"89")],
)
def test_ranges(bucket, asked, content):
    """A range is the bytes it says, cut at the end of the object."""
    put(bucket, "x", b"0123456789")
    assert content == read(bucket, "x", byte_range=asked)


def test_range_beyond(bucket):
    """A range past the end is 416."""
    put(bucket, "x", b"0123456789")
    with pytest.raises(AISError) as caught:
        read(bucket, "x", byte_range="bytes=10-12")
    assert 416 == caught.value.status_code


def test_direct(bucket, cluster):
    """A read straight from the owner finds every object: SDK and cluster agree on the placement."""
    for number in range(30):
        put(bucket, f"o{number}", b"%d" % number)
    found = [read(bucket, f"o{number}", direct=True) for number in range(30)]
    assert [b"%d" % number for number in range(30)] == found
    assert 30 == cluster.requests["direct"]


def test_archive(bucket):
    """Members of a shard: one by its path, several by a pattern, none is 404, and listed under the shard."""
    put(bucket, "s.tar", tar_of({"b/1.jpg": b"J", "a/1.cls": b"CC", "b/2.jpg": b"K"}))
    put(bucket, "s.tar.idx", b"not an archive")
    assert b"CC" == read(bucket, "s.tar", archive_config=ArchiveConfig(archpath="a/1.cls"))
    several = read(bucket, "s.tar", archive_config=ArchiveConfig(mode=ArchiveMode.SUFFIX, regex="jpg"))
    assert b"J" in several
    assert b"CC" not in several
    with pytest.raises(ErrObjNotFound):
        read(bucket, "s.tar", archive_config=ArchiveConfig(archpath="nope"))
    entries = bucket.list_all_objects(prefix="s.tar", flags=[ListObjectFlag.ARCH_DIR], props="name,size")
    listed = {entry.name: entry.size for entry in entries}
    # In the order of their names: "." comes before "/".
    assert ["s.tar", "s.tar.idx", "s.tar/a/1.cls", "s.tar/b/1.jpg", "s.tar/b/2.jpg"] == list(listed)
    assert {"s.tar/a/1.cls": 2, "s.tar/b/1.jpg": 1, "s.tar/b/2.jpg": 1} == {
        name: size for name, size in listed.items() if name.startswith("s.tar/")
    }


@pytest.mark.parametrize("page_size", [0, 1, 3, 7, 100])
def test_pages(bucket, cluster, page_size):
    """Whatever the page's size, a listing has every name once, in bytewise order, and nothing else."""
    names = [f"{letter}{number:02}" for letter in "zaZé" for number in range(5)]
    for name in names:
        cluster.put("bk", name, b"")
    expected = sorted(names, key=str.encode)
    assert expected == [entry.name for entry in bucket.list_all_objects(page_size=page_size)]
    assert [name for name in expected if name.startswith("a")] == [
        entry.name for entry in bucket.list_all_objects(prefix="a", page_size=page_size)
    ]


@pytest.mark.parametrize("page_size", [0, 1, 2, 3])
def test_pages_of_folders(bucket, cluster, page_size):
    """Without recursion a listing has the objects of one level and its folders, each once."""
    for name in ("a/1", "a/2", "b", "c/d/e", "c/f", "g"):
        cluster.put("bk", name, b"")
    entries = bucket.list_all_objects(page_size=page_size, flags=[ListObjectFlag.NO_RECURSION])
    assert ["a/", "b", "c/", "g"] == sorted(entry.name for entry in entries)
    inside = bucket.list_all_objects(prefix="c/", page_size=page_size, flags=[ListObjectFlag.NO_RECURSION])
    assert ["c/d/", "c/f"] == sorted(entry.name for entry in inside)


@pytest.mark.parametrize("page_size", [0, 1, 2, 4])
def test_pages_of_archives(bucket, cluster, page_size):
    """Members count in pages, and a page may end within a shard."""
    cluster.put("bk", "a.txt", b"")
    cluster.put("bk", "s1.tar", tar_of({"2": b"", "1": b""}))
    cluster.put("bk", "s2.tar", tar_of({"x/1": b"1"}))
    entries = bucket.list_all_objects(page_size=page_size, flags=[ListObjectFlag.ARCH_DIR])
    assert ["a.txt", "s1.tar", "s1.tar/1", "s1.tar/2", "s2.tar", "s2.tar/x/1"] == [entry.name for entry in entries]


def test_batch_streaming(client, bucket):
    """A batch has what was asked, in that order, twice where asked twice, and nothing where there is nothing."""
    put(bucket, "a", b"A")
    put(bucket, "s.tar", tar_of({"x/1.jpg": b"J"}))
    long_name = "long/" + "é" * 120
    put(bucket, long_name, b"L")
    batch = client.batch(bucket=bucket)
    batch.add("a").add("nope").add("s.tar", archpath="x/1.jpg").add(long_name).add("a")
    found = [(info.obj_name, content) for info, content in batch.get()]
    assert [("a", b"A"), ("nope", b""), ("s.tar", b"J"), (long_name, b"L"), ("a", b"A")] == found


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("output", [".tar", ".tgz", ".zip"])
def test_batch_formats(client, bucket, output, streaming):
    """All formats, streamed or in one piece, carry the same."""
    put(bucket, "a", b"A")
    put(bucket, "b", b"BB")
    batch = client.batch(["a", "b"], bucket=bucket, output_format=output, streaming_get=streaming)
    assert [("a", b"A"), ("b", b"BB")] == [(info.obj_name, content) for info, content in batch.get()]


def test_batch_buffered(client, bucket):
    """A buffered reply says the sizes, what was missing, and brings back what it was given."""
    put(bucket, "a", b"A")
    batch = client.batch(bucket=bucket, streaming_get=False).add("a", opaque=b"\1\2\3").add("nope")
    (first, content), (second, nothing) = list(batch.get())
    assert ("a", 1, b"\1\2\3", b"A") == (first.obj_name, first.size, first.opaque, content)
    assert ("nope", b"") == (second.obj_name, nothing)
    assert "ais://bk/nope does not exist" in second.err_msg


def test_batch_too_many_missing(client, bucket):
    """One missing entry more than is borne ends a streamed batch early, without an error."""
    put(bucket, "a", b"A")
    batch = client.batch([*(f"nope{number}" for number in range(9)), "a"], bucket=bucket)
    assert 8 == len(list(batch.get()))


def test_batch_strict(client, bucket):
    """A strict buffered batch with a missing entry is 404."""
    batch = client.batch(["nope"], bucket=bucket, streaming_get=False, cont_on_err=False)
    with pytest.raises(ErrObjNotFound):
        list(batch.get())


def test_copy(client, bucket, cluster):
    """A copied bucket has the same objects when the job is done."""
    put(bucket, "a", b"A")
    job = bucket.copy(client.bucket("bk2"))
    client.job(job, "copy-bck").wait(timeout=10, verbose=False)
    assert b"A" == cluster.get("bk2", "a")


def test_delete_several(bucket, cluster):
    """Objects are deleted by a list of names."""
    for name in ("a", "b", "c"):
        put(bucket, name, b"")
    bucket.objects(obj_names=["a", "c"]).delete()
    assert ["b"] == cluster.names("bk")


def test_summary(bucket):
    """A summary has number and bytes."""
    put(bucket, "a", b"12345")
    summary = bucket.summary()
    assert ("1", "5") == (
        summary["obj_count"]["obj_count_present"],
        summary["total_size"]["size_all_present_objs"],
    )


def test_namespace(client, cluster):
    """Buckets of one name in two namespaces are two buckets."""
    inner = client.bucket("bk", namespace=Namespace(name="ns")).create()
    client.bucket("bk").create()
    put(inner, "a", b"inner")
    assert b"inner" == read(inner, "a")
    assert [] == client.bucket("bk").list_all_objects()
    assert b"inner" == cluster.get("ais://@#ns/bk", "a")


def test_etl(bucket, cluster):
    """A registered function transforms what is read by its name; an unknown one is 404."""
    etl = pytest.importorskip("aistore.sdk.etl").ETLConfig
    cluster.etl("upper-case", bytes.upper)
    put(bucket, "a", b"abc")
    assert b"ABC" == read(bucket, "a", etl=etl("upper-case"))
    with pytest.raises(AISError) as caught:
        read(bucket, "a", etl=etl("no-such-etl"))
    assert 404 == caught.value.status_code


def test_token():
    """With tokens a client needs one; whoever has it reads through the proxy, not directly."""
    with DevCluster(token={"secret": "rw", "reader": "ro"}) as cluster:
        cluster.create_bucket("bk")
        cluster.put("bk", "a", b"A")
        assert b"A" == read(Client(cluster.endpoint, token="secret").bucket("bk"), "a")
        for token, status in ((None, 401), ("wrong", 401)):
            with pytest.raises(AISError) as caught:
                read(Client(cluster.endpoint, token=token).bucket("bk"), "a")
            assert status == caught.value.status_code
        with pytest.raises(AISError) as caught:
            put(Client(cluster.endpoint, token="reader").bucket("bk"), "b", b"")
        assert 403 == caught.value.status_code
        with pytest.raises(AISError) as caught:
            read(Client(cluster.endpoint, token="secret").bucket("bk"), "a", direct=True)
        assert 403 == caught.value.status_code


def test_https(monkeypatch):
    """With TLS the certificate is good for whoever trusts the cluster's authority."""
    for variable in (
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
    ):  # `requests` lets them win over what a client says
        monkeypatch.delenv(variable, raising=False)
    with DevCluster(tls=True) as cluster:
        bucket = Client(cluster.endpoint, ca_cert=cluster.ca_file).bucket("bk").create()
        for data in (b"A" * 100_000, b""):
            put(bucket, "a", data)
            assert data == read(bucket, "a")


def test_remote_buckets():
    """Buckets of a cloud that the cluster knows are there; others, and other clouds, are not."""
    with DevCluster(remote={"aws": ["photos"]}) as cluster:
        cluster.put("aws://photos", "a", b"A", cold=True)
        client = Client(cluster.endpoint)
        photos = client.bucket("photos", provider="aws")
        batch = client.batch(["a"], bucket=photos)
        assert [b""] == [content for _, content in batch.get()]  # a batch reads no cold object
        assert b"A" == read(photos, "a")
        assert ["a"] == [entry.name for entry in photos.list_all_objects()]
        with pytest.raises(AISError, match="s3://other"):
            client.bucket("other", provider="aws").list_objects()
        with pytest.raises(AISError, match="GCP backend is missing"):
            client.bucket("photos", provider="gcp").list_objects()
