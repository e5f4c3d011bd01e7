"""HTTPS: whom a client trusts, and as whom it shows itself; by both transports."""

from __future__ import annotations

import datetime as dt
import logging
import ssl

import pytest
import trustme

from aisdatapipes import AISIterDataset, ClientConfig, FetchPlan, RetryPolicy, Unavailable
from aisdatapipes.store import pool, threads
from tests.hostile import honest
from tests.hostile.server import HostileServer

QUICK = RetryPolicy(attempts=3, first_delay=0.01, max_delay=0.01, deadline=10)
YESTERDAY = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)


@pytest.fixture(params=["pycurl", "urllib3"], autouse=True)
def transport(request, monkeypatch):
    monkeypatch.setattr(pool, "_warned", False)
    if request.param == "urllib3":
        monkeypatch.setattr(pool, "new_transport", threads.ThreadTransport)
    return request.param


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def files(authority, tmp_path):
    """Of the authority, of a stranger, and of a client: certificate and key apart, and together."""
    client = authority.issue_cert("someone@example.org")
    paths = {name: str(tmp_path / name) for name in ("ca", "stranger", "cert", "key", "both")}
    authority.cert_pem.write_to_path(paths["ca"])
    trustme.CA().cert_pem.write_to_path(paths["stranger"])
    client.cert_chain_pems[0].write_to_path(paths["cert"])
    client.private_key_pem.write_to_path(paths["key"])
    client.private_key_and_cert_chain_pem.write_to_path(paths["both"])
    return paths


def cluster(authority, *names, client_authority=None, **options):
    """A cluster that shows a certificate for these names, and may ask for one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **options).configure_cert(context)
    if client_authority is not None:
        client_authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    server = HostileServer(lambda asked: honest.answer(asked, server.url), tls=context)
    return server


def names_of(server, **options):
    config = ClientConfig(server.url, retry=QUICK, connect_timeout=5, read_timeout=5, **options)
    try:
        dataset = AISIterDataset("ais://b/", {"ais://b/": "objects/"}, config=config, fetch=FetchPlan(width=4))
        return {name for name, _ in dataset}
    finally:
        pool.close_all()


def test_a_private_authority(authority, files):
    """With its certificate everything is read; without, nothing, and the error says what to pass."""
    with cluster(authority, "127.0.0.1") as server:
        assert names_of(server, ca_file=files["ca"]) == set(honest.OBJECTS)
        for ca_file in (None, files["stranger"]):
            with pytest.raises(Unavailable, match=r"certificate.*pass ca_file=") as caught:
                names_of(server, ca_file=ca_file)
            assert caught.value.attempts == 1
    assert {asked.kind for asked in server.asked} == {"map", "list", "get"}


@pytest.mark.parametrize("options", [{}, {"not_after": YESTERDAY, "not_before": YESTERDAY - dt.timedelta(days=9)}])
def test_certificates_that_do_not_count(authority, files, options):
    """Of another host, or expired: no request is sent."""
    names = ("127.0.0.1",) if options else ("other.example", "127.0.0.9")
    with cluster(authority, *names, **options) as server:
        with pytest.raises(Unavailable, match=r"(?i)expired|match|name|address") as caught:
            names_of(server, ca_file=files["ca"])
        assert (caught.value.attempts, server.asked) == (1, [])


@pytest.mark.parametrize("form", ["pair", "one file"])
def test_a_client_shows_its_certificate(authority, files, form):
    """As two files or as one."""
    shown = (files["cert"], files["key"]) if form == "pair" else files["both"]
    with cluster(authority, "127.0.0.1", client_authority=authority) as server:
        assert names_of(server, ca_file=files["ca"], client_cert=shown) == set(honest.OBJECTS)


def test_a_client_without_a_certificate(authority, files):
    """It is told that one is wanted."""
    with cluster(authority, "127.0.0.1", client_authority=authority) as server:
        with pytest.raises(Unavailable, match="client_cert="):
            names_of(server, ca_file=files["ca"])
        assert server.asked == []


def test_a_client_with_a_strange_certificate(authority, files):
    """One that the cluster's authority has not signed."""
    other = trustme.CA().issue_cert("someone@example.org")
    other.private_key_and_cert_chain_pem.write_to_path(files["both"])
    with cluster(authority, "127.0.0.1", client_authority=authority) as server:
        with pytest.raises(Unavailable, match="client_cert="):
            names_of(server, ca_file=files["ca"], client_cert=files["both"])
        assert server.asked == []


def test_files_that_are_none(authority, files, tmp_path):
    """No file, and one with something else in it, are errors that do not show what is in it."""
    broken = tmp_path / "broken"
    broken.write_text("S3CRET")
    with cluster(authority, "127.0.0.1", client_authority=authority) as server:
        for client_cert in ("/no/such", (files["cert"], "/no/such"), str(broken), (files["cert"], str(broken))):
            with pytest.raises(Unavailable) as caught:
                names_of(server, ca_file=files["ca"], client_cert=client_cert)
            assert "S3CRET" not in str(caught.value)
    assert server.asked == []


def test_verify_false_reads_anything(authority):
    """It was the user's word."""
    with cluster(authority, "other.example") as server:
        assert names_of(server, verify=False) == set(honest.OBJECTS)


def test_verify_false_is_warned_of_once(authority, caplog, transport):
    """Once in a process, however many clusters, datasets and epochs; never where certificates are checked."""
    if transport == "urllib3":
        pytest.skip("the warning is of both")
    with cluster(authority, "127.0.0.1") as one, cluster(authority, "127.0.0.1") as two:
        for server in (one, two, one):
            names_of(server, verify=False)
    told = [record for record in caplog.records if "certificates are not checked" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING]


def test_targets_without_tls_are_warned_of(authority, files, caplog):
    """The endpoint speaks HTTPS, its map says http: what is read travels in clear."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with HostileServer(lambda asked: honest.answer(asked, plain.url)) as plain:
        with HostileServer(lambda asked: honest.answer(asked, plain.url), tls=context) as server:
            assert names_of(server, ca_file=files["ca"], token="T0KEN") == set(honest.OBJECTS)
            assert {asked.headers.get("authorization") for asked in server.asked} == {"Bearer T0KEN"}
        assert [asked for asked in plain.asked if "authorization" in asked.headers] == []
    assert len([record for record in caplog.records if "travels in clear" in record.getMessage()]) == 1
