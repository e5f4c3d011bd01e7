"""Errors: one string rebuilds them, pickling keeps them, and ``except`` clauses of others catch them."""

from __future__ import annotations

import inspect
import pickle
import traceback

import pytest
from aistore.sdk.errors import AISError, ErrBckNotFound, ErrObjNotFound, ErrRemoteBckNotFound
from hypothesis import given
from hypothesis import strategies as st

from aisdatapipes.model import errors
from aisdatapipes.model.errors import (
    AISPipeError,
    BucketNotFound,
    ConfigError,
    CorruptBody,
    CorruptSample,
    CorruptShard,
    Denied,
    InvalidURL,
    NotFound,
    NotResumable,
    ObjectNotFound,
    RemoteBucketNotFound,
    StoreError,
    Truncated,
    Unavailable,
    UnreadableManifest,
)
from aisdatapipes.model.url import AISURL

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, AISPipeError)]
URLS = [
    "ais://b/o",
    "ais://b/a b: c",
    "ais://b/'quoted'",
    'ais://b/"\\',
    "ais://b/line\nbreak",
    "ais://b/NotFound: x",
    "ais://b/ObjectNotFound: x",
    "ais://@u#ns/b/é/漢?#%",
    "ais://b/\udcff",
    "http://h:8080/v1/objects/b/o%20o?provider=ais",
    "ais://b/ends [status 404, attempts 1]",
]

pytestmark = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


def as_torch_does(error: AISPipeError) -> AISPipeError:
    """What torch's ``ExceptionWrapper`` makes of an error: the class, of the text of the traceback."""
    try:
        raise error
    except AISPipeError as caught:
        text = "".join(traceback.format_exception(type(caught), caught, caught.__traceback__))
    return type(error)(f"Caught {type(error).__name__} in DataLoader worker process 0.\nOriginal {text}")


def attributes(error: AISPipeError) -> tuple[object, ...]:
    return (type(error), error.url, error.status, error.attempts)


def test_one_string_is_the_whole_message(kind):
    """An error made of one text says that text and nothing else."""
    error = kind("something: happened")
    assert (str(error), error.url, error.status, error.attempts) == ("something: happened", None, None, 0)


def test_nothing_at_all_makes_an_error_too(kind):
    """An error can be made without arguments, as ``raise ObjectNotFound`` does."""
    assert str(kind()) == ""


def test_pickling_keeps_all(kind):
    """A pickled error has its class, message and attributes."""
    for url in URLS:
        error = kind("cannot read: gone", url=url, status=404, attempts=3)
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), attributes(copy)) == (str(error), (kind, url, 404, 3))


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (None, 0), (None, 20), (503, 0)])
def test_a_traceback_rebuilds_the_attributes(kind, status, attempts):
    """What torch hands over from a worker still says which object, what status and how many tries."""
    for url in URLS:
        error = kind("cannot read: gone", url=url, status=status, attempts=attempts)
        assert attributes(as_torch_does(error)) == (kind, url, status, attempts)


def test_what_torch_adds_is_not_in_the_way(kind):
    """An error that passes pipes of torch's, each of which adds a line about itself, keeps its attributes as well."""
    for url in URLS:
        error = kind("cannot read: gone", url=url, status=404, attempts=3)
        added = "\nThis exception is thrown by __iter__ of ShardingFilterIterDataPipe(source_datapipe=AISPipe)"
        error.args = (f"{error}{added}{added}", *error.args[1:])
        assert attributes(as_torch_does(error)) == (kind, url, 404, 3)


def test_rebuilt_twice(kind):
    """An error that went through two loaders, one inside the other, keeps its attributes."""
    error = kind("cannot read", url="ais://b/o", status=404, attempts=2)
    assert attributes(as_torch_does(as_torch_does(error))) == (kind, "ais://b/o", 404, 2)


def test_the_url_keeps_its_parts(kind):
    """An `AISURL` stays one when its error is pickled."""
    error = kind("cannot read", url=AISURL.parse("s3://b/o"), status=404)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.url, copy.url.provider) == ("s3://b/o", "aws")


@given(name=st.text(), message=st.text(st.characters(categories=["L", "N", "P", "Zs"])))
def test_any_name_survives(kind, name, message):
    """Whatever the object is called, the rebuilt error names it."""
    error = kind(f"cannot read {message}", url=f"ais://b/{name}", status=404, attempts=1)
    assert attributes(as_torch_does(error)) == (kind, f"ais://b/{name}", 404, 1)


PARENTS = {
    AISPipeError: (Exception,),
    ConfigError: (AISPipeError, ValueError),
    InvalidURL: (ConfigError, ValueError),
    StoreError: (AISPipeError, AISError),
    NotFound: (StoreError, FileNotFoundError, OSError, AISError),
    ObjectNotFound: (NotFound, FileNotFoundError, ErrObjNotFound),
    BucketNotFound: (NotFound, FileNotFoundError, ErrBckNotFound),
    RemoteBucketNotFound: (NotFound, FileNotFoundError, ErrRemoteBckNotFound),
    Denied: (StoreError, PermissionError),
    Unavailable: (StoreError, ConnectionError),
    Truncated: (Unavailable, ConnectionError, AISError),
    CorruptBody: (Unavailable,),
    CorruptSample: (AISPipeError, ValueError),
    CorruptShard: (AISPipeError, ValueError),
    NotResumable: (AISPipeError, ValueError),
    UnreadableManifest: (AISPipeError, ValueError),
}


def test_who_catches_it(kind):
    """Each error is caught by the names that people already write in their ``except`` clauses."""
    missing = [parent for parent in PARENTS[kind] if not issubclass(kind, parent)]
    assert missing == []


def test_the_names_of_the_sdk(kind):
    """Code written for the SDK's errors finds ``status_code`` and ``message``."""
    error = kind("cannot read", url="ais://b/o", status=404, attempts=1)
    if isinstance(error, AISError):
        assert (error.status_code, error.message) == (404, str(error))
    else:
        assert not hasattr(error, "status_code")
