"""URLs: one table used both ways, any name there and back, and a useful message for what is none."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aisdatapipes.model.errors import InvalidURL
from aisdatapipes.model.url import AISURL, PROVIDERS, bucket_url, checked_bucket, checked_provider, http_url

# text, provider, namespace, bucket, name; written by AIStore in this form, so the parts give the text again
TABLE = [
    ("ais://b", "ais", "", "b", ""),
    ("ais://b/o", "ais", "", "b", "o"),
    ("ais://b/a/b/c.tar", "ais", "", "b", "a/b/c.tar"),
    ("aws://b/o", "aws", "", "b", "o"),
    ("gcp://b/o", "gcp", "", "b", "o"),
    ("azure://b/o", "azure", "", "b", "o"),
    ("oci://b/o", "oci", "", "b", "o"),
    ("ais://@uuid#ns/b/o", "ais", "@uuid#ns", "b", "o"),
    ("ais://@#ns/b/o", "ais", "@#ns", "b", "o"),
    ("ais://@uuid#/b/o", "ais", "@uuid#", "b", "o"),
    ("ais://b/#1?x=%20&y= z", "ais", "", "b", "#1?x=%20&y= z"),
    ("ais://b/../a/./b//c", "ais", "", "b", "../a/./b//c"),
    ("ais://b//o", "ais", "", "b", "/o"),
    ("ais://b/é漢\U0001f600", "ais", "", "b", "é漢\U0001f600"),
    ("ais://b/@x#y/z", "ais", "", "b", "@x#y/z"),
    ("ais://b/line\nbreak", "ais", "", "b", "line\nbreak"),
    ("ais://b/c:d://e", "ais", "", "b", "c:d://e"),
]


def parts(url: AISURL) -> tuple[str, str, str, str]:
    return (url.provider, url.namespace, url.bucket, url.name)


@pytest.mark.parametrize(("text", "provider", "namespace", "bucket", "name"), TABLE)
def test_the_table_is_read(text, provider, namespace, bucket, name):
    """A text gives its parts and stays what it was."""
    url = AISURL.parse(text)
    assert (str(url), parts(url)) == (text, (provider, namespace, bucket, name))
    assert (url.size, url.endpoint, url.etl_name) == (-1, None, None)


@pytest.mark.parametrize(("text", "provider", "namespace", "bucket", "name"), TABLE)
def test_the_table_is_written(text, provider, namespace, bucket, name):
    """The parts give the text."""
    root = bucket_url(provider, bucket, namespace)
    assert (f"{root}/{name}" if name else root) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ais:b/o", ("ais", "", "b", "o")),
        ("s3:b/o", ("aws", "", "b", "o")),
        ("S3://b/o", ("aws", "", "b", "o")),
        ("gs://b/", ("gcp", "", "b", "")),
        ("az://b/o", ("azure", "", "b", "o")),
        ("oc://b/o", ("oci", "", "b", "o")),
        ("ais://@/b/o", ("ais", "", "b", "o")),
        ("ais://@#/b/o", ("ais", "", "b", "o")),
        ("ais://#ns/b/o", ("ais", "@#ns", "b", "o")),
        ("ais://@uuid/b/o", ("ais", "@uuid#", "b", "o")),
    ],
)
def test_other_spellings(text, canonical):
    """Aliases and short forms mean the same parts."""
    assert parts(AISURL.parse(text)) == canonical


BUCKETS = st.from_regex(r"[A-Za-z0-9_\-][A-Za-z0-9_\-]{0,30}", fullmatch=True)
NAMESPACES = st.sampled_from(["", "@uuid#ns", "@#ns", "@u-1#"])
# Any text, also what a name of bytes that are no UTF-8 becomes.
NAMES = st.one_of(st.text(), st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))


@given(st.sampled_from(sorted(PROVIDERS)), NAMESPACES, BUCKETS, NAMES)
def test_any_name_there_and_back(provider, namespace, bucket, name):
    """Every name is written into a URL as it is and read from it as it was."""
    url = AISURL.parse(f"{bucket_url(provider, bucket, namespace)}/{name}")
    assert parts(url) == (PROVIDERS[provider], namespace, bucket, name)


@given(st.sampled_from(sorted(set(PROVIDERS.values()))), NAMESPACES, BUCKETS, NAMES, st.none() | st.just("an etl&"))
def test_any_name_through_http(provider, namespace, bucket, name, etl_name):
    """The address for HTTP clients leads back to every part, and is plain ASCII."""
    text = http_url("https://h:1/pre", provider, bucket, name, namespace, etl_name)
    url = AISURL.parse(text)
    assert parts(url) == (provider, namespace, bucket, name)
    assert (url.endpoint, url.etl_name, text.isascii()) == ("https://h:1/pre", etl_name, True)


def test_parsed_once():
    """A URL that is parsed already is handed back, sizes and all."""
    url = AISURL.make("ais://b/o", "ais", "b", "o", size=3)
    assert AISURL.parse(url) is url


def test_pickling_keeps_the_parts():
    """A pickled URL is equal, and has its parts."""
    url = AISURL.make("ais://b/o", "ais", "b", "o", namespace="@#n", size=3, endpoint="http://h", etl_name="e")
    copy = pickle.loads(pickle.dumps(url))
    assert (type(copy), str(copy), parts(copy)) == (AISURL, "ais://b/o", ("ais", "@#n", "b", "o"))
    assert (copy.size, copy.endpoint, copy.etl_name) == (3, "http://h", "e")


BAD = [
    ("", "expected provider://bucket/name"),
    ("bucket/name", "expected provider://bucket/name"),
    ("/bucket", "such as ais://bucket"),
    ("bucket", "no scheme"),
    ("ais://", "the bucket is empty"),
    ("ais:", "the bucket is empty"),
    ("ais:///o", "the bucket is empty"),
    ("swift://b/o", "known are ais"),
    ("localhost:8080/b", "unknown provider 'localhost'"),
    ("ais://a b/o", "letters, digits"),
    ("ais://.b/o", "single dots"),
    ("ais://a..b/o", "single dots"),
    (f"ais://{'b' * 65}/o", "1 to 64"),
    ("ais://b?x", "letters, digits"),
    ("ais://@uuid#ns", "followed by a bucket"),
    ("ais://#ns", "followed by a bucket"),
    ("ais://@uuid#ns/", "the bucket is empty"),
    ("http://h:1/", "expected http://host:port/v1/objects/bucket/name"),
    ("http://h:1/v1/buckets/b", "expected http://host:port/v1/objects/bucket/name"),
    ("http:///v1/objects/b/o", "expected http://host:port/v1/objects/bucket/name"),
    ("http://h/v1/objects/", "the bucket is empty"),
    ("http://h/v1/objects/b/o?provider=swift", "known are ais"),
    ("http://h/v1/objects/b/o?namespace=x", "expected @uuid#name"),
    ("http://[::1/v1/objects/b/o", "expected http://host:port/v1/objects/bucket/name"),
    ("http://h/v1/objects/b/a#1", "%23"),
    (None, "a URL is a text"),
    (3, "a URL is a text"),
    (b"ais://b/o", "a URL is a text"),
]


@pytest.mark.parametrize(("text", "says"), BAD)
def test_bad_input_is_named(text, says):
    """What is no URL is an `InvalidURL` that says what was written and what is expected."""
    with pytest.raises(InvalidURL) as caught:
        AISURL.parse(text)
    assert says in str(caught.value)
    assert repr(text) in str(caught.value)


@given(st.text(st.characters(codec="utf-8")))
def test_never_another_error(text):
    """Whatever the text, it is a URL or an `InvalidURL`."""
    for prefix in ("", "ais://", "http://", "http://h/v1/objects/", "ais://@"):
        try:
            url = AISURL.parse(prefix + text)
        except InvalidURL:
            continue
        assert url == prefix + text


def test_buckets_are_texts():
    """A bucket's name is checked where it is given alone, too."""
    assert checked_bucket("a.b-c_1", "x") == "a.b-c_1"
    for bad in (None, "ais://b", ""):
        with pytest.raises(InvalidURL):
            checked_bucket(bad, "x")
    with pytest.raises(InvalidURL, match="known are"):
        checked_provider("nope", "x")
