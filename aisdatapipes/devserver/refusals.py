"""What the cluster says no with: statuses, types and messages in AIStore's words, for clients read them."""

from __future__ import annotations

from aisdatapipes.model.url import bucket_url

# The scheme that messages use for a provider.
SCHEMES = {"aws": "s3", "gcp": "gs", "azure": "az", "oci": "oc"}
_BACKENDS = {"aws": "AWS", "gcp": "GCP", "azure": "Azure", "oci": "OCI"}


class Refused(Exception):
    """An answer other than success.

    Args:
        status: HTTP status.
        message: What the body says, or the header of a HEAD.
        tcode: Go's name of the error's type; empty for plain ones.
        headers: Further headers.
    """

    def __init__(
        self, status: int, message: str, tcode: str = "", headers: list[tuple[str, str]] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.tcode, self.headers = status, message, tcode, headers or []


def printed_bucket(provider: str, namespace: str, bucket: str) -> str:
    """The bucket as messages print it: ``ais://bk``, ``s3://bk``, ``ais://@uuid#ns/bk``."""
    shown = namespace.removesuffix("#")
    if shown.startswith("@#"):  # of this cluster: printed without the "@"
        shown = shown[1:]
    return bucket_url(SCHEMES.get(provider, provider), bucket, shown)


def no_bucket(provider: str, namespace: str, bucket: str) -> Refused:
    """The bucket is not there."""
    printed = printed_bucket(provider, namespace, bucket)
    if provider != "ais":
        return Refused(404, f'{provider} bucket "{printed}" does not exist', "ErrRemoteBckNotFound")
    if namespace.startswith("@") and not namespace.startswith("@#"):
        return Refused(404, f'remote bucket "{printed}" does not exist', "ErrRemoteBckNotFound")
    return Refused(404, f'bucket "{printed}" does not exist', "ErrBckNotFound")


def no_backend(node: str, provider: str, namespace: str, bucket: str) -> Refused:
    """The cluster does not know the cloud that the bucket is in."""
    printed = printed_bucket(provider, namespace, bucket)
    backend = _BACKENDS.get(provider, provider.upper())
    why = f"{backend} backend is missing in the cluster configuration"
    return Refused(404, f"{node}: failed to lookup bucket {printed}, err: {why}", "ErrFailedTo")


def no_object(node: str, what: str) -> Refused:
    """The object, or the member of an archive, is not there."""
    return Refused(404, f"{node}: {what} does not exist", "ErrNotFound")


def not_recovered(node: str, what: str) -> Refused:
    """The object is not there, and of an erasure coded bucket: no target has a part of it."""
    return Refused(400, f"{node}: failed to EC-recover {what}, err: no metafile", "ErrFailedTo")


def unsupported(what: str, status: int = 501) -> Refused:
    """AIStore can do it, or not; this cluster does not."""
    return Refused(status, f"{what} - operation not supported", "ErrUnsupp")


def wrong_action(action: object) -> Refused:
    """No such verb."""
    return Refused(400, f'invalid action "{action}"')


NOT_ALLOWED = "Method Not Allowed\n"
