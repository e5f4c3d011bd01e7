"""An AIStore URL: a text that carries its parts.

Formats: ``provider://bucket/name`` with the namespace as AIStore prints it (``ais://@uuid#ns/bucket/name``), and
``http(s)://endpoint/v1/objects/bucket/name?provider=..``, the address that any HTTP client can open. In the first
form a name is written as it is, byte for byte: ``#``, ``?``, ``%``, blanks and ``..`` are ordinary. In the second
it is percent-encoded.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from aisdatapipes.model.errors import InvalidURL

# Canonical name of every provider and alias (AIStore: docs/providers.md).
PROVIDERS = {
    "ais": "ais",
    "aws": "aws", "s3": "aws",
    "gcp": "gcp", "gs": "gcp",
    "azure": "azure", "az": "azure",
    "oci": "oci", "oc": "oci",
}  # fmt: skip

# The server's own rule for bucket names: 1 to 64 of these, no "..", no leading dot.
_BUCKET = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_.\-]{1,64}")
_NAMESPACE = re.compile(r"(?:@(?P<uuid>[^#/]*))?(?:#(?P<name>[^/]*))?")
# Characters that stay as they are in a path; everything else is percent-encoded, so that no HTTP
# library finds anything to "repair".
_SAFE = "/-_.~!$&'()*+,;=:@"
_HTTP_FORM = "http://host:port/v1/objects/bucket/name?provider=ais"


class AISURL(str):
    """A URL of a bucket, a prefix or an object, with its parts as attributes.

    It is a ``str`` and equal to one; pipes downstream use the parts and never parse the text again.

    Attributes:
        provider: Canonical provider: ``ais``, ``aws``, ``gcp``, ``azure`` or ``oci``.
        namespace: ``@uuid#name`` as AIStore writes it; empty for the global namespace.
        bucket: Name of the bucket.
        name: Name of the object, or the prefix; empty for the whole bucket.
        size: Bytes of the object where a listing told it, else -1.
        endpoint: The cluster, where the URL itself says it (the HTTP form), else None.
        etl_name: The ETL that the cluster applies, else None.
    """

    __slots__ = ("bucket", "endpoint", "etl_name", "name", "namespace", "provider", "size")

    provider: str
    namespace: str
    bucket: str
    name: str
    size: int
    endpoint: str | None
    etl_name: str | None

    @staticmethod
    def make(
        text: str,
        provider: str,
        bucket: str,
        name: str,
        *,
        namespace: str = "",
        size: int = -1,
        endpoint: str | None = None,
        etl_name: str | None = None,
    ) -> AISURL:
        """A URL whose parts are known; nothing is parsed or checked."""
        self = AISURL(text)
        self.provider, self.namespace, self.bucket, self.name = provider, namespace, bucket, name
        self.size, self.endpoint, self.etl_name = size, endpoint, etl_name
        return self

    @staticmethod
    def parse(text: str) -> AISURL:
        """The parts of ``text``; raises `InvalidURL` that says what is wrong and what is expected.

        >>> url = AISURL.parse("s3://photos/2024/a #1.jpg")
        >>> url.provider, url.bucket, url.name
        ('aws', 'photos', '2024/a #1.jpg')
        """
        if isinstance(text, AISURL):
            return text
        if not isinstance(text, str):
            raise InvalidURL(f"a URL is a text such as ais://bucket/name, not {text!r}")
        if text.startswith(("http://", "https://")):
            return _parsed_http(text)
        return _parsed(text)

    @property
    def bucket_url(self) -> str:
        """The URL of the bucket alone, as AIStore prints it."""
        return bucket_url(self.provider, self.bucket, self.namespace)

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (
            self.provider,
            self.namespace,
            self.bucket,
            self.name,
            self.size,
            self.endpoint,
            self.etl_name,
        )
        return (_restored, (str(self), *parts))


def bucket_url(provider: str, bucket: str, namespace: str = "") -> str:
    """``ais://bucket``, or ``ais://@uuid#ns/bucket`` with a namespace."""
    return f"{provider}://{namespace}/{bucket}" if namespace else f"{provider}://{bucket}"


def object_path(bucket: str, name: str) -> str:
    """The path of an object in AIStore's API, percent-encoded: ``/v1/objects/bucket/a%20b``."""
    return f"/v1/objects/{bucket}/{quote(name, _SAFE, errors='surrogateescape')}"


def http_url(endpoint: str, provider: str, bucket: str, name: str, namespace: str, etl_name: str | None) -> str:
    """The address of an object that any HTTP client can open."""
    query = {"provider": provider}
    if namespace:
        query["namespace"] = namespace
    if etl_name:
        query["etl_name"] = etl_name
    return f"{endpoint}{object_path(bucket, name)}?{urlencode(query)}"


def checked_bucket(bucket: object, said: str) -> str:
    """``bucket`` if the server accepts it as a name; ``said`` is what the user wrote."""
    if not isinstance(bucket, str):
        raise InvalidURL(f"{said!r}: a bucket's name is a text, not {bucket!r}")
    if not bucket:
        raise InvalidURL(f"{said!r}: the bucket is empty; expected provider://bucket/name")
    if "://" in bucket:
        raise InvalidURL(f"{said!r}: the bucket's name contains a scheme; write the name alone, without ://")
    if not _BUCKET.fullmatch(bucket):
        raise InvalidURL(
            f"{said!r}: {bucket!r} is no bucket name; allowed are 1 to 64 letters, digits, '-', '_' and single dots"
        )
    return bucket


def checked_provider(provider: str, said: str) -> str:
    """The canonical name of ``provider``, which may be an alias such as ``s3``."""
    try:
        return PROVIDERS[provider.lower()]
    except KeyError:
        raise InvalidURL(f"{said!r}: unknown provider {provider!r}; known are {', '.join(PROVIDERS)}") from None


def _parsed(text: str) -> AISURL:
    scheme, colon, rest = text.partition(":")
    if not colon or "/" in scheme:
        raise InvalidURL(f"{text!r}: no scheme; expected provider://bucket/name, such as ais://{text.lstrip('/')}")
    provider = checked_provider(scheme, text)
    rest = rest.removeprefix("//")
    namespace = ""
    if rest[:1] in ("@", "#"):
        namespace, slash, rest = rest.partition("/")
        if not slash or not _NAMESPACE.fullmatch(namespace):
            raise InvalidURL(f"{text!r}: a namespace is followed by a bucket: provider://@uuid#namespace/bucket/name")
    bucket, _, name = rest.partition("/")
    return AISURL.make(text, provider, checked_bucket(bucket, text), name, namespace=_canonical(namespace, text))


def _parsed_http(text: str) -> AISURL:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise InvalidURL(f"{text!r}: {error}; expected {_HTTP_FORM}") from None
    if parts.fragment:
        raise InvalidURL(f"{text!r}: a '#' in a name is written %23 here; expected {_HTTP_FORM}")
    base, found, rest = parts.path.partition("/v1/objects/")
    bucket, _, name = rest.partition("/")
    if not found or not parts.netloc:
        raise InvalidURL(f"{text!r}: not an object of AIStore; expected {_HTTP_FORM}")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return AISURL.make(
        text,
        checked_provider(query.get("provider") or "ais", text),
        checked_bucket(unquote(bucket), text),
        unquote(name, errors="surrogateescape"),
        namespace=_canonical(query.get("namespace", ""), text),
        endpoint=f"{parts.scheme}://{parts.netloc}{base}",
        etl_name=query.get("etl_name"),
    )


def _canonical(namespace: str, said: str) -> str:
    """``@uuid#name``; empty for the global namespace, however it was written."""
    match = _NAMESPACE.fullmatch(namespace)
    if match is None:
        raise InvalidURL(f"{said!r}: {namespace!r} is no namespace; expected @uuid#name")
    uuid, name = match["uuid"] or "", match["name"] or ""
    return f"@{uuid}#{name}" if uuid or name else ""


def _restored(text: str, *parts: Any) -> AISURL:
    provider, namespace, bucket, name, size, endpoint, etl_name = parts
    return AISURL.make(
        text, provider, bucket, name, namespace=namespace, size=size, endpoint=endpoint, etl_name=etl_name
    )
