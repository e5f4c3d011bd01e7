"""What goes over the wire, where clients of all kinds look at it: redirects, headers, connections, messages."""

import json
import re
import subprocess

import pytest
from multidict import CIMultiDict

from aisdatapipes.devserver import DevCluster
from aisdatapipes.wire import placement
from aisdatapipes.wire.clustermap import decoded_map
from aisdatapipes.wire.listing import ListOptions, decoded_page, encoded_list
from tests.devserver.conftest import followed, tar_of

MISSING_OBJECT = r"t\[t\d\]: ais://bk/nope does not exist"


@pytest.fixture
def filled(cluster):
    cluster.create_bucket("bk")
    cluster.put("bk", "ten", b"0123456789")
    cluster.put("bk", "empty", b"")
    cluster.put("bk", "a #?%é", b"odd")
    cluster.put("bk", "s.tar", tar_of({"x/1.jpg": b"J", "./y": b"YY"}))
    return cluster


def message(response):
    return json.loads(response.content)["message"]


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 301), ("HEAD", 307), ("PUT", 307), ("DELETE", 307), ("PATCH", 307)]
)
def test_redirects(filled, http_to, method, status):
    """An object is answered by its owner: 301 for GET, 307 for the rest, the query first and then the mark."""
    response = http_to(filled.endpoint)(method, "/v1/objects/bk/ten?provider=ais&x=1")
    assert status == response.status
    owner = filled.owner("bk", "ten").url
    assert re.fullmatch(rf"{owner}/v1/objects/bk/ten\?provider=ais&x=1&pid=p1&utm=\w+", response.headers["Location"])


def test_redirect_of_an_odd_name(filled, http_to):
    """A name with characters that mean something in a URL is encoded again in the redirect."""
    response = http_to(filled.endpoint)("GET", "/v1/objects/bk/a%20%23%3f%25%c3%a9")
    assert "/v1/objects/bk/a%20%23%3F%25%C3%A9?pid=p1" in response.headers["Location"]
    assert b"odd" == followed(http_to, filled.endpoint, "GET", "/v1/objects/bk/a%20%23%3f%25%c3%a9").content


def test_name_that_is_no_text(filled, http_to):
    """A name with a byte that is no UTF-8 is stored, read and listed as it is."""
    assert 200 == followed(http_to, filled.endpoint, "PUT", "/v1/objects/bk/a%ffb", b"raw").status
    assert b"raw" == followed(http_to, filled.endpoint, "GET", "/v1/objects/bk/a%ffb").content
    listed = http_to(filled.endpoint)(
        "GET", "/v1/buckets/bk", encoded_list(ListOptions(prefix="a")), Accept="application/msgpack"
    )
    assert ["a #?%é", "a\udcffb"] == [entry.name for entry in decoded_page(listed.content).entries]


def test_headers_of_get(filled, http_to):
    """A whole object comes with its checksum, which is xxh64 of the content, its version and its length."""
    response = followed(http_to, filled.endpoint, "GET", "/v1/objects/bk/empty")
    headers = CIMultiDict(response.headers.items())
    assert ("xxhash2", "ef46db3751d8e999", "1", "0") == tuple(
        headers[name] for name in ("Ais-Checksum-Type", "Ais-Checksum-Value", "Ais-Version", "Content-Length")
    )


@pytest.mark.parametrize(
    ("asked", "status", "content", "content_range"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=5-2", 416, None, None),
        ("bytes=0-1,4-5", 416, None, None),
        ("chars=0-1", 416, None, None),
    ],
)
def test_ranges(filled, http_to, asked, status, content, content_range):
    """A range carries the checksum of the whole; one that cannot be is 416."""
    response = followed(http_to, filled.endpoint, "GET", "/v1/objects/bk/ten", Range=asked)
    assert (status, content_range) == (response.status, response.headers["Content-Range"])
    if content is not None:
        assert (content, "3f5fc178a81867e7") == (response.content, response.headers["Ais-Checksum-Value"])


def test_head_says_the_length(filled, http_to):
    """HEAD says the length of the object and has no body; of an empty object only when properties are asked for."""
    lengths = {
        target: followed(http_to, filled.endpoint, "HEAD", f"/v1/objects/bk/{target}").headers["Content-Length"]
        for target in ("ten", "ten?props=name,size", "empty?props=size")
    }
    assert {"ten": "10", "ten?props=name,size": "10", "empty?props=size": "0"} == lengths


def test_head_says_what_is_wrong(filled, http_to):
    """The error of a HEAD is in a header."""
    response = followed(http_to, filled.endpoint, "HEAD", "/v1/objects/bk/nope?props=size")
    assert (404, b"") == (response.status, response.content)
    assert re.fullmatch(MISSING_OBJECT, json.loads(response.headers["Hdr-Error"])["message"])


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "said"),
    [
        ("GET", "/v1/objects/nosuch/a", None, 404, r'bucket "ais://nosuch" does not exist'),
        ("GET", "/v1/objects/nosuch/a?namespace=%40u%23n", None, 404, r'remote bucket "ais://@u#n/nosuch" does not exist'),
        ("GET", "/v1/objects/bk/a?provider=s3", None, 404, r".*AWS backend is missing in the cluster configuration"),
        ("GET", "/v1/objects/bk/nope", None, 404, MISSING_OBJECT),
        ("DELETE", "/v1/objects/bk/nope", None, 404, r"ais://bk/nope doesn't exist"),
        ("GET", "/v1/objects/bk/s.tar?archpath=nope", None, 404, r"t\[t\d\]: nope in ais://bk/s.tar does not exist"),
        ("GET", "/v1/objects/bk/s.tar?archmode=what&archregx=x", None, 400, r"dpq: .*invalid matching mode \"what\".*"),
        ("GET", "/v1/objects/bk/dir/", None, 400, r'invalid object name "dir/"'),
        ("PUT", "/v1/objects/bk/../x", b"", 400, r'invalid object name "../x"'),
        ("GET", "/v1/objects/bk", None, 400, r"URL 'v1/objects/bk' is too short: expected 4 items, got 3"),
        ("POST", "/v1/buckets/bk", b'{"action":"create-bck"}', 409, r'bucket "ais://bk" already exists'),
        ("POST", "/v1/buckets/b..k", b'{"action":"create-bck"}', 400, r"bucket name is invalid: .*"),
        ("POST", "/v1/buckets/bk", b'{"action":"what"}', 400, r'invalid action "what"'),
        ("POST", "/v1/buckets/bk", b'{"action":"etl-bck"}', 501, r".*operation not supported"),
        ("GET", "/v1/buckets/bk", b"", 400, r"failed to unmarshal .* err: EOF"),
        ("GET", "/v1/ml/moss/bk", b'{"in":[]}', 400, r"moss: empty input"),
        ("GET", "/v1/ml/moss/nosuch", b'{"in":[{"objname":"a"}]}', 404, r'bucket "ais://nosuch" does not exist'),
        ("GET", "/v1/etl", None, 501, r"cannot use ETL in a build without ETL support - operation not supported"),
        ("POST", "/v1/sort", b"{}", 501, r".*operation not supported"),
    ],
)  # fmt: skip
def test_messages(filled, http_to, method, target, body, status, said):
    """What is wrong is said with AIStore's status and words: clients tell errors apart by them."""
    response = followed(http_to, filled.endpoint, method, target, body)
    assert status == response.status
    assert re.fullmatch(said, message(response))
    assert response.content.endswith(b"\n")


def test_method_not_allowed(filled, http_to):
    """An unknown method is 405, in plain text, with those that there are."""
    response = http_to(filled.endpoint)("TRACE", "/v1/objects/bk/ten")
    assert (405, "DELETE, GET, HEAD, POST, PUT") == (response.status, response.headers["Allow"])


def test_range_of_a_member(filled, http_to):
    """A range of an archive's member is refused, as AIStore does."""
    response = followed(http_to, filled.endpoint, "GET", "/v1/objects/bk/s.tar?archpath=x/1.jpg", Range="bytes=0-1")
    assert (400, "cannot range-read archived content range: bytes=0-1, arch query: (archpath=x/1.jpg) - operation not supported") == (
        response.status, message(response)
    )  # fmt: skip


@pytest.mark.parametrize("path", ["x/1.jpg", "/x/1.jpg", "s.tar/x/1.jpg", "y"])
def test_member_has_no_checksum(filled, http_to, path):
    """A member is found also with a slash or the shard in front, and comes without attributes."""
    response = followed(http_to, filled.endpoint, "GET", f"/v1/objects/bk/s.tar?archpath={path}")
    assert 200 == response.status
    assert [] == [name for name in response.headers if name.lower().startswith("ais-")]


def test_direct_reads(filled, http_to):
    """The owner answers whom no proxy sent; another target has nothing; writing needs the proxy."""
    owner = filled.owner("bk", "ten")
    for target in filled.map.targets:
        response = http_to(target.url)("GET", "/v1/objects/bk/ten?provider=ais")
        assert (200 if target == owner else 404) == response.status
    refused = http_to(owner.url)("PUT", "/v1/objects/bk/ten", b"x")
    assert (400, f"t[{owner.id}]: PUT(obj) is expected to be redirected") == (
        refused.status,
        message(refused),
    )


def test_batch_is_answered_once(filled, http_to):
    """A get-batch needs the proxy, and the address that it gives is good for one time."""
    body = b'{"in":[{"objname":"ten"}],"coer":true,"strm":true}'
    first = http_to(filled.endpoint)("GET", "/v1/ml/moss/bk?provider=ais", body)
    node, _, rest = first.headers["Location"].partition("/v1/")
    target = http_to(node)
    assert 200 == target("GET", f"/v1/{rest}", body).status
    assert 404 == target("GET", f"/v1/{rest}", body).status
    assert 401 == target("GET", f"/v1/{rest.partition('?')[0]}", body).status


def test_map_of_every_node(filled, http_to):
    """Proxy and targets give the same map, whose digests are those of the ids."""
    nodes = (*filled.map.targets, *filled.map.proxies)
    maps = [decoded_map(http_to(node.url)("GET", "/v1/daemon?what=smap").content) for node in nodes]
    assert [filled.map] * 4 == maps
    assert [placement.digest(node.id) for node in nodes] == [node.digest for node in nodes]


def test_listing_in_json(filled, http_to):
    """Who does not ask for msgpack gets JSON with sizes as text."""
    response = http_to(filled.endpoint)("GET", "/v1/buckets/bk", encoded_list(ListOptions(prefix="t")))
    assert [{"name": "ten", "size": "10", "flags": 64}] == json.loads(response.content)["entries"]


def test_connections_are_kept(filled, http_to):
    """One connection serves hits, misses, bodies of GETs, empty objects, redirects and refused writes alike."""
    proxy, owner = http_to(filled.endpoint), http_to(filled.owner("bk", "empty").url)
    ports = set()
    for method, target, body in [
        ("GET", "/v1/objects/bk/ten", None),
        ("PUT", "/v1/objects/bk/ten", b"x" * 1000),
        ("GET", "/v1/buckets/bk", encoded_list(ListOptions())),
        ("GET", "/v1/objects/nosuch/x", b'{"a":1}'),
        ("HEAD", "/v1/objects/bk/ten", None),
        ("GET", "/v1/health", None),
    ]:
        proxy(method, target, body)
        ports.add(proxy.local_port())
    assert 1 == len(ports)
    ports = set()
    for method, target in [
        ("GET", "empty"),
        ("GET", "nope"),
        ("HEAD", "empty"),
        ("HEAD", "nope"),
        ("GET", "empty"),
    ]:
        owner(method, f"/v1/objects/bk/{target}")
        ports.add(owner.local_port())
    assert 1 == len(ports)


def test_chunked_put(filled, http_to):
    """A body without a length is stored whole; so is an empty one."""
    for body in (iter([b"abc", b"def"]), iter([])):
        pieces = list(body)
        place = http_to(filled.endpoint)("PUT", "/v1/objects/bk/new").headers["Location"]
        node, _, rest = place.partition("/v1/")
        connection = http_to(node).connection
        connection.request("PUT", f"/v1/{rest}", iter(pieces), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        assert 200 == connection.getresponse().status
        assert b"".join(pieces) == filled.get("bk", "new")


def test_curl(filled, tmp_path):
    """Plain curl uploads and downloads, following redirects."""
    url = f"{filled.endpoint}/v1/objects/bk/up%20load"
    (tmp_path / "data").write_bytes(bytes(3_000_000))  # large enough for curl to ask before it sends
    for command in (["-T", str(tmp_path / "data"), url], ["-o", str(tmp_path / "back"), url]):
        subprocess.run(
            ["curl", "-sS", "-f", "-L", "--noproxy", "*", *command],
            check=True,
            timeout=20,
            capture_output=True,
        )
    assert bytes(3_000_000) == (tmp_path / "back").read_bytes()


def test_shard_index(filled, http_to):
    """The index of a shard is at the shard's owner, and says where each member's header is."""
    job = http_to(filled.endpoint)("POST", "/v1/buckets/bk", b'{"action":"index-shard","name":"","value":null}')
    state = http_to(filled.endpoint)(
        "GET", "/v1/cluster?what=status", json.dumps({"id": job.content.decode()}).encode()
    )
    assert json.loads(state.content)["end_time"] > 0
    target = "/v1/objects/.sys-shardidx/ais/@%23/bk/s.tar.idx?provider=ais"
    owner = filled.owner("bk", "s.tar")
    found = {node.id: http_to(node.url)("GET", target) for node in filled.map.targets}
    assert [owner.id] == [name for name, response in found.items() if response.status == 200]
    index = found[owner.id].content
    assert b"\x01\x00\x01" == index[:3]
    assert b"\x07x/1.jpg\x00\x01" in index  # offset 0, one byte


def test_maintenance(filled, http_to):
    """A target in maintenance owns nothing any more, and the map is newer."""
    before = filled.map.version
    number = int(filled.owner("bk", "ten").id[1:]) - 1
    filled.maintain(number)
    assert b"0123456789" == followed(http_to, filled.endpoint, "GET", "/v1/objects/bk/ten").content
    assert (before + 1, 2) == (filled.map.version, len(filled.map.usable_targets))


def test_killed_target(filled, http_to):
    """A killed target refuses connections until it is revived, on the same port."""
    owner = filled.owner("bk", "ten")
    number = int(owner.id[1:]) - 1
    filled.kill(number)
    with pytest.raises(ConnectionError):
        http_to(owner.url)("GET", "/v1/objects/bk/ten")
    filled.revive(number)
    assert 200 == http_to(owner.url)("GET", "/v1/objects/bk/ten").status


@pytest.mark.parametrize("verb", ["kill", "revive", "expel", "readmit", "maintain"])
@pytest.mark.parametrize("number", [-1, 99])
def test_no_such_target(filled, verb, number):
    """Not the proxy, and nobody else."""
    with pytest.raises(IndexError, match=rf"no target {number} in this cluster; there are \d, from 0 on"):
        getattr(filled, verb)(number)


def test_targets_that_cannot_come_or_go(filled):
    """One that is away already, or is not; and while another is away, numbers stay what they were."""
    with pytest.raises(ValueError, match="target 0 was not expelled"):
        filled.readmit(0)
    filled.expel(0)
    with pytest.raises(ValueError, match="target 0 was expelled already"):
        filled.expel(0)
    filled.maintain(1)
    assert ["t3"] == [node.id for node in filled.map.usable_targets]
    with pytest.raises(RuntimeError, match="has not been started yet"):
        DevCluster().kill(0)


def test_counters(filled, http_to):
    """Requests are counted by what they ask for."""
    followed(http_to, filled.endpoint, "GET", "/v1/objects/bk/ten")
    followed(http_to, filled.endpoint, "HEAD", "/v1/objects/bk/ten")
    http_to(filled.endpoint)("GET", "/v1/buckets/bk", encoded_list(ListOptions()))
    assert {"redirect": 2, "get": 1, "head": 1, "list": 1} == filled.requests


def test_demo():
    """The demo has two objects."""
    with DevCluster.demo() as cluster:
        assert (("ais://demo",), [b"A", b"B"]) == (
            cluster.buckets, [cluster.get("demo", name) for name in cluster.names("demo")]
        )  # fmt: skip
