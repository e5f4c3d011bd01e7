"""Buckets, and the words of refusals: the SDK and other clients tell errors apart by them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator

import pytest

from tests.conformance.conftest import Http, Place, error_of, said

CREATE = {"action": "create-bck", "name": "", "value": None}
DESTROY = {"action": "destroy-bck", "name": "", "value": None}
LIST = {"action": "list", "name": "", "value": None}


@pytest.fixture
def fresh(http: Http) -> Iterator[str]:
    """The name of a bucket that is not there, and is not there afterwards."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    http.once("DELETE", f"/v1/buckets/{name}?provider=ais", DESTROY)


def test_life_of_a_bucket(http: Http, fresh: str) -> None:
    """Not there, created, there, not created twice, destroyed, not there."""
    path, missing = f"/v1/buckets/{fresh}?provider=ais", f'bucket "ais://{fresh}" does not exist'
    assert said(http.once("HEAD", path)) == (404, missing)
    assert said(http.once("DELETE", path, DESTROY)) == (404, missing)
    created = http.once("POST", path, CREATE)
    assert (created.status, created.data) == (200, b"")
    assert http.once("HEAD", path).status == 200
    again = http.once("POST", path, CREATE)
    assert said(again) == (409, f'bucket "ais://{fresh}" already exists')
    assert error_of(again)["tcode"] == "ErrBucketAlreadyExists"
    destroyed = http.once("DELETE", path, DESTROY)
    assert (destroyed.status, destroyed.data) == (200, b"")
    assert said(http.once("HEAD", path)) == (404, missing)


def test_a_destroyed_bucket_comes_back_empty(http: Http, fresh: str) -> None:
    """A new bucket of the same name has none of the old objects."""
    path = f"/v1/buckets/{fresh}?provider=ais"
    http.once("POST", path, CREATE)
    assert http("PUT", f"/v1/objects/{fresh}/x?provider=ais", b"old").status == 200
    http.once("DELETE", path, DESTROY)
    http.once("POST", path, CREATE)
    assert http("GET", f"/v1/objects/{fresh}/x?provider=ais").status == 404
    assert not http.listed(fresh)["Entries"]


def test_what_an_erasure_coded_bucket_lacks(http: Http, fresh: str) -> None:
    """Its owner tries to make it of copies and slices, finds none, and says 400; a HEAD says 404."""
    coded = {"enabled": True, "data_slices": 1, "parity_slices": 1, "objsize_limit": -1}
    created = http.once("POST", f"/v1/buckets/{fresh}?provider=ais", {**CREATE, "value": {"ec": coded}})
    assert created.status == 200
    props = json.loads(http.once("HEAD", f"/v1/buckets/{fresh}?provider=ais").headers["Ais-Bucket-Props"])
    assert (props["ec"]["enabled"], props["ec"]["objsize_limit"]) == (True, -1)
    for query in ("", "&archpath=x"):
        reply = http("GET", f"/v1/objects/{fresh}/nope?provider=ais{query}")
        assert said(reply) == (400, f"t[ID]: failed to EC-recover ais://{fresh}/nope, err: no metafile")
        assert error_of(reply)["tcode"] == "ErrFailedTo"
    assert http("HEAD", f"/v1/objects/{fresh}/nope?provider=ais").status == 404


def test_props_are_in_a_header(place: Place) -> None:
    """JSON; big numbers as text, checksum and versioning as objects."""
    reply = place.http.once("HEAD", f"/v1/buckets/{place.name}?provider=ais")
    props = json.loads(reply.headers["Ais-Bucket-Props"])
    assert (reply.status, reply.data, props["provider"]) == (200, b"", "ais")
    assert (props["checksum"]["type"], props["versioning"]["enabled"]) == ("xxhash2", True)
    assert all(isinstance(props[key], str) for key in ("access", "features", "bid", "created"))


@pytest.mark.parametrize("query", ["?provider=ais", "?provider=", ""])
def test_all_buckets(place: Place, query: str) -> None:
    """A list of values with name, provider and namespace."""
    reply = place.http.once("GET", f"/v1/buckets{query}", LIST)
    assert reply.status == 200
    (mine,) = [bucket for bucket in reply.json() if bucket["name"] == place.name]
    assert mine == {"name": place.name, "provider": "ais", "namespace": {"uuid": "", "name": ""}}


@pytest.mark.parametrize("name", ["b..k", ".bk", "b%20k", "x" * 65, "b%C3%A9"])
def test_names_of_buckets(http: Http, name: str) -> None:
    """Letters, digits, dashes, underscores and dots, at most 64; else 400."""
    assert http.once("POST", f"/v1/buckets/{name}?provider=ais", CREATE).status == 400


@pytest.mark.parametrize(
    ("method", "target", "status", "message"),
    [
        ("GET", "/v1/objects/nosuch-bucket/a?provider=ais", 404, 'bucket "ais://nosuch-bucket" does not exist'),
        ("HEAD", "/v1/objects/nosuch-bucket/a?provider=ais", 404, 'bucket "ais://nosuch-bucket" does not exist'),
        ("PUT", "/v1/objects/nosuch-bucket/a?provider=ais", 404, 'bucket "ais://nosuch-bucket" does not exist'),
        ("DELETE", "/v1/objects/nosuch-bucket/a?provider=ais", 404, 'bucket "ais://nosuch-bucket" does not exist'),
        ("GET", "/v1/objects/nosuch-bucket/a?provider=ais&namespace=%40%23ns", 404, 'bucket "ais://#ns/nosuch-bucket" does not exist'),
    ],
)  # fmt: skip
def test_a_missing_bucket_is_known_to_the_proxy(
    http: Http, method: str, target: str, status: int, message: str
) -> None:
    """One request says so; nothing is created by the way."""
    reply = http.once(method, target, b"x" if method == "PUT" else None)
    assert said(reply) == (status, message)
    assert error_of(reply)["tcode"] == "ErrBckNotFound"


@pytest.mark.parametrize(
    ("provider", "said_name"),
    [("aws", "AWS"), ("s3", "AWS"), ("gcp", "GCP"), ("gs", "GCP"), ("azure", "Azure"), ("oci", "OCI")],
)
def test_a_provider_without_a_back_end(http: Http, provider: str, said_name: str) -> None:
    """The words say which one is missing in the cluster."""
    status, message = said(http.once("GET", f"/v1/objects/nosuch-bucket/a?provider={provider}"))
    assert status in (400, 404)
    assert re.search(rf"{said_name} backend is missing in the cluster configuration", message)


def test_a_provider_that_is_none(http: Http) -> None:
    """400."""
    status, message = said(http.once("GET", "/v1/objects/nosuch-bucket/a?provider=nonsense"))
    assert status == 400
    assert 'invalid backend provider "nonsense"' in message


@pytest.mark.parametrize("body", [b"", b"{", b"[]"])
def test_control_messages_that_are_none(place: Place, body: bytes) -> None:
    """400 for a message that cannot be read."""
    reply = place.http.once("GET", f"/v1/buckets/{place.name}?provider=ais", body, Content_Type="application/json")
    assert reply.status == 400


def test_an_unknown_action(place: Place) -> None:
    """400, and the words name it."""
    status, message = said(place.http.once("POST", f"/v1/buckets/{place.name}?provider=ais", {"action": "nonsense"}))
    assert status == 400
    assert '"nonsense"' in message


def test_keys_of_a_control_message_in_any_case(http: Http, fresh: str) -> None:
    """``Action`` is ``action``."""
    assert http.once("POST", f"/v1/buckets/{fresh}?provider=ais", {"Action": "create-bck", "Value": None}).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_etl_is_not_there_without_its_machinery(http: Http, method: str) -> None:
    """501, or 400 of older servers."""
    assert http.once(method, "/v1/etl", {} if method == "PUT" else None).status in (400, 501)


def test_an_unknown_method(place: Place) -> None:
    """405 in plain text, with the methods that there are."""
    reply = place.http.once("TRACE", place.path("x"))
    assert reply.status == 405
    assert "GET" in reply.headers["Allow"]
