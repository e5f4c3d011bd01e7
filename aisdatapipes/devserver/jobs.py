"""Jobs: copies, summaries, deletions, indexes of whole buckets. All end before the client hears of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from aisdatapipes.devserver import archives, shardindex
from aisdatapipes.devserver.calls import Call, Reply, as_json, text
from aisdatapipes.devserver.refusals import Refused, unsupported

if TYPE_CHECKING:
    from aisdatapipes.devserver.buckets import Bucket
    from aisdatapipes.devserver.state import Job, State

Value = dict[str, Any]  # of a control message

# Verbs of AIStore that this cluster knows by name only.
UNSUPPORTED = (
    "archive", "copy-listrange", "create-inventory", "create-nbi", "destroy-nbi", "download", "ec-encode",
    "etl-bck", "etl-listrange", "evict-listrange", "make-n-copies", "move-bck", "prefetch-listrange",
    "promote", "reset-bprops", "set-bprops", "show-nbi",
)  # fmt: skip


def described(bucket: Bucket) -> dict[str, Any]:
    """A bucket in lists of buckets."""
    uuid, _, name = bucket.namespace.removeprefix("@").partition("#")
    return {"name": bucket.name, "provider": bucket.provider, "namespace": {"uuid": uuid, "name": name}}


def indexed(state: State, bucket: Bucket, _call: Call, value: Value) -> Reply:
    """Builds the index of every tar; what is none does not keep the others from theirs."""
    prefix = str(value.get("prefix") or "")
    errors = []
    for name, stored in list(bucket.objects.items()):
        if name.startswith(prefix) and name.endswith(".tar"):
            try:
                state.indexes[bucket.uname(name)] = shardindex.encoded(stored)
            except Refused as refused:
                errors.append(refused.message)
    return text(state.new_job("index-shard", ", ".join(errors[:1])).id)


def copied(state: State, bucket: Bucket, call: Call, value: Value) -> Reply:
    """Copies all objects to a bucket, which is made if it is not there."""
    to = call.query.get("bck_to", "")
    parts = to.strip("/").split("/")
    if len(parts) != 3:
        raise Refused(400, f'invalid destination bucket "{to}"')
    place = parts[0], "" if parts[1] == "@#" else parts[1], parts[2]
    into = state.buckets.get(*place) or state.buckets.create(*place)
    prepend, prefix = str(value.get("prepend") or ""), str(value.get("prefix") or "")
    for name, stored in list(bucket.objects.items()):
        if name.startswith(prefix) and not value.get("dry_run"):
            into.put(prepend + name, stored.data, dict(stored.custom))
    return text(state.new_job("copy-bck").id)


def deleted(state: State, bucket: Bucket, _call: Call, value: Value) -> Reply:
    """Deletes the objects that are listed, or that a template or prefix describes."""
    names = value.get("objnames")
    if not names:
        names = _of_template(str(value.get("template") or ""))
    if names is None:
        prefix = str(value["template"])
        names = [name for name in list(bucket.objects) if name.startswith(prefix)]
    for name in names:
        bucket.delete(name)
    return text(state.new_job("delete-listrange").id)


def _of_template(template: str) -> list[str] | None:
    """Names of a template such as ``a{0001..0010}.tar``; None for a plain prefix."""
    if "{" not in template:
        return None
    found = re.fullmatch(r"([^{]*)\{(\d+)\.\.(\d+)(?:\.\.(\d+))?\}([^{]*)", template)
    if found is None:
        raise unsupported(f"template {template!r}")
    width, step = len(found[2]), int(found[4] or 1)
    numbers = range(int(found[2]), int(found[3]) + 1, step)
    return [f"{found[1]}{number:0{width}}{found[5]}" for number in numbers]


def summary(state: State, bucket: Bucket, _call: Call, value: Value) -> Reply:
    """First the id of the job, then what it found."""
    if not value.get("uuid"):
        job = text(state.new_job("summary-bck").id)
        return Reply(202, job.headers, job.body)
    return as_json([summarised(bucket, str(value.get("prefix") or ""))])


def summarised(bucket: Bucket, prefix: str) -> dict[str, Any]:
    """Number and bytes of the objects of a bucket."""
    sizes = [len(stored.data) for name, stored in list(bucket.objects.items()) if name.startswith(prefix)]
    total, number = sum(sizes), len(sizes)
    return {
        **described(bucket),
        "obj_count": {"obj_count_present": str(number), "obj_count_remote": "0"},
        "obj_size": {
            "obj_min_size": min(sizes, default=0),
            "obj_avg_size": total // number if number else 0,
            "obj_max_size": max(sizes, default=0),
        },
        "total_size": {
            "size_on_disk": str(total),
            "size_all_present_objs": str(total),
            "size_all_remote_objs": "0",
        },
        "used_pct": 0,
        "is_present": True,
    }


async def status(state: State, call: Call) -> Reply:
    """What became of a job."""
    what = call.query.get("what", "")
    if what not in ("status", "status_all", "running_all", "qryxstats"):
        raise unsupported(f"what={what!r}")
    message = await call.message()
    wanted = str(message.get("id") or "")
    found = [job for job in list(state.jobs.values()) if wanted in ("", job.id)]
    if what == "running_all":
        return as_json([])
    if what == "qryxstats":
        return as_json({target.id: [_snapshot(job) for job in found] for target in state.map.targets})
    ended = [_ended(job) for job in found]
    if what == "status_all":
        return as_json(ended)
    if not ended:
        raise Refused(404, f"xaction[{wanted}] not found")
    return as_json(ended[0])


def _ended(job: Job) -> dict[str, Any]:
    return {"kind": job.kind, "uuid": job.id, "err": job.err, "end_time": job.end_ns, "aborted": False}


def _snapshot(job: Job) -> dict[str, Any]:
    when = "2026-01-02T03:04:05Z"
    return {
        "id": job.id,
        "kind": job.kind,
        "start-time": when,
        "end-time": when,
        "aborted": False,
        "is_idle": True,
    }


def check_mode(mode: str, call: Call) -> None:
    """Refuses a way to select members that there is not; the proxy looks at the query before it redirects."""
    if mode != "*" and mode not in archives.MODES:
        expected = f"expecting one of: [{' '.join(archives.MODES)}]"
        raise Refused(400, f"dpq: 'archmode={mode}', err: invalid matching mode \"{mode}\", {expected}")
    if call.query.get("archpath"):
        raise Refused(400, "dpq: archpath and archmode are mutually exclusive")
