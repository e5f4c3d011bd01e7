"""The command against both clusters: what it prints, what it does, and how it ends.

Each of its parts runs in a process of its own once. A process imports torch, for some seconds; so what else there is to
know of them is asked in this process, by click's own runner.
"""

from __future__ import annotations

import configparser
import importlib
import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from aisdatapipes import AISShardMapDataset, ShardWriter, __version__
from aisdatapipes.cli.command import main
from aisdatapipes.devserver import DevCluster
from aisdatapipes.wire.tar import END, entry
from tests.wire import tars

ROOT = Path(__file__).parent.parent.parent
SECONDS = 100  # for one process, on a busy machine


@pytest.fixture
def run_here(monkeypatch, tmp_path):
    """The same as `run`, in this process."""
    for name in [name for name in os.environ if name.startswith("AIS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    log = logging.getLogger("aisdatapipes")
    level = log.level

    def run(*arguments, endpoint=None, **more):
        done = CliRunner().invoke(main, arguments, env={"AIS_ENDPOINT": endpoint, **more}, prog_name="aisdatapipes")
        out, errors = (
            text.decode("utf-8", "surrogateescape").splitlines() for text in (done.stdout_bytes, done.stderr_bytes)
        )
        return done.exit_code, out, errors

    yield run
    log.setLevel(level)


@pytest.fixture
def run(tmp_path):
    """``run(*arguments, endpoint=None)``: status, lines of output, lines of errors."""

    def run(*arguments, endpoint=None, **more):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIS_")}
        environment |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache"), **more}
        environment |= {"AIS_ENDPOINT": endpoint} if endpoint else {}
        command = [sys.executable, "-W", "error", "-m", "aisdatapipes.cli", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=SECONDS, check=False)
        out, errors = (text.decode("utf-8", "surrogateescape").splitlines() for text in (done.stdout, done.stderr))
        return done.returncode, out, errors

    return run


def written(bucket, count=7, **options):
    with ShardWriter(f"{bucket.url}train-%02d.tar", maxcount=3, config=bucket.server.config, **options) as writer:
        for number in range(count):
            writer.write({"__key__": f"{number:04d}", "bin": b"b" * 10, "cls": number})
    return writer.shards


# ---- index


@pytest.mark.slow
def test_index_by_the_cluster(bucket, run):
    """It has made what was lacking, and says what there is now; --check tells before and after, and makes nothing."""
    shards = written(bucket, index=False)
    bucket.put("note.txt", b"no shard")
    lacking = [f"{url}: no index (there is none)" for url in shards]
    for _ in range(2):
        assert (1, [*lacking, "0 of 3 shards have an index"], []) == run(
            "index", "--check", bucket.url, endpoint=bucket.endpoint
        )
    made = ["3 shards, 7 samples, 14 members", "3 shards by the server's index"]
    assert (0, made, []) == run("index", f"{bucket.url}train-", endpoint=bucket.endpoint)
    have = [f"{url}: an index of the cluster's" for url in shards]
    assert (0, [*have, "3 of 3 shards have an index"], []) == run(
        "index", "--check", bucket.url, endpoint=bucket.endpoint
    )


def test_index_by_the_client(bucket, run_here, tmp_path, monkeypatch):
    """It is kept on this machine, where a dataset finds it, and nothing is written to the cluster."""
    shards = written(bucket, index=False)
    made = ["3 shards, 7 samples, 14 members", "3 shards by an index of this machine's"]
    assert (0, made, []) == run_here("index", "--client", bucket.url, "--endpoint", bucket.endpoint)
    assert 3 == len(list((tmp_path / "cache").rglob("*.idx")))
    have = [f"{url}: an index of this machine's" for url in shards]
    assert (0, [*have, "3 of 3 shards have an index"], []) == run_here(
        "index", "--check", bucket.url, endpoint=bucket.endpoint
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert 7 == len(AISShardMapDataset(bucket.url, config=bucket.server.config))


def test_index_of_what_the_cluster_leaves_out(bucket, run_here):
    """A hard link is indexed here, and an index that is out of date is told of and made anew."""
    bucket.put("plain.tar", entry("a.txt", b"A") + END)
    bucket.put(
        "link.tar", tars.block(b"a.txt", 1) + tars.padded(b"A") + tars.block(b"b.txt", kind=b"1", link=b"a.txt") + END
    )
    made = ["2 shards, 3 samples, 3 members", "1 shards by the server's index, 1 shards by an index of this machine's"]
    assert (0, sorted(made), []) == _sorted(run_here("index", bucket.url, endpoint=bucket.endpoint))
    bucket.put("plain.tar", entry("b.txt", b"BB") + END)
    status, lines, _ = run_here("index", "--check", bucket.url, endpoint=bucket.endpoint)
    stale = f"{bucket.url}plain.tar: no index (the shard is another one since)"
    assert (1, [f"{bucket.url}link.tar: an index of this machine's", stale]) == (status, lines[:2])
    assert (0, sorted(made), []) == _sorted(run_here("index", bucket.url, endpoint=bucket.endpoint))


def _sorted(result):
    status, out, errors = result
    return status, sorted(out), errors


@pytest.mark.parametrize("status", [403, 501])
def test_index_where_the_cluster_makes_none(embedded_bucket, run_here, status):
    """One line, which says what is left to do."""
    written(embedded_bucket, index=False)
    faults = embedded_bucket.server.embedded.faults
    faults.add("status", "index-shard", status=status)
    try:
        code, out, (line,) = run_here("index", embedded_bucket.url, endpoint=embedded_bucket.endpoint)
    finally:
        faults.clear()
    assert (1, []) == (code, out)
    assert line.startswith(f"aisdatapipes: ais://{embedded_bucket.name}: the cluster does not index its shards for us")


def test_index_of_a_shard_that_is_none(bucket, run_here):
    """It is named, with the place."""
    bucket.put("bad.tar", entry("a.txt", b"A" * 600)[:700])
    code, out, (line,) = run_here("index", "--client", bucket.url, endpoint=bucket.endpoint)
    assert (1, []) == (code, out)
    assert re.match(rf"aisdatapipes: {bucket.url}bad\.tar: member 'a\.txt' at offset 0: truncated", line)


# ---- ls


@pytest.mark.slow
def test_ls(bucket, run):
    """Names byte for byte, one a line, with sizes where they are asked for; of prefixes too."""
    names = ["a b/ü #1%.txt", "train-0.tar", "train-1.tar"]
    bucket.fill({name: b"x" * size for size, name in enumerate(names)})
    assert (0, [f"{bucket.url}{name}" for name in names], []) == run("ls", bucket.url, endpoint=bucket.endpoint)
    told = run("ls", "-l", f"{bucket.url}train-1", f"{bucket.url}a", endpoint=bucket.endpoint)
    assert (0, [f"{2:>14}  {bucket.url}{names[2]}", f"{0:>14}  {bucket.url}{names[0]}"], []) == told


def test_ls_of_nothing(bucket, run_here):
    """Nothing, and no error."""
    assert (0, [], []) == run_here("ls", f"{bucket.url}none/", endpoint=bucket.endpoint)


# ---- peek


def test_peek(bucket, run_here):
    """Key, fields, sizes, and how each begins; the first sample, or that of a key."""
    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    image.new("L", (3, 2)).save(out, "PNG")
    with ShardWriter(f"{bucket.url}%d.tar", config=bucket.server.config) as writer:
        writer.write({"__key__": "a/1", "png": out.getvalue(), "cls": 3, "bin": b"\0\xff", "txt": "t" * 70})
        writer.write({"__key__": "a/2", "txt": "über\nzwei", "empty": b""})
    first = [
        "a/1",
        f"  bin  {2:>12,} bytes  00 ff",
        f"  cls  {1:>12,} bytes  3",
        f"  png  {len(out.getvalue()):>12,} bytes  PNG, 3 x 2, L",
        f"  txt  {70:>12,} bytes  {'t' * 60}...",
    ]
    assert (0, first, []) == run_here("peek", bucket.url, endpoint=bucket.endpoint)
    code, lines, _ = run_here("peek", "--key", "a/2", bucket.url, endpoint=bucket.endpoint)
    assert (0, "a/2", f"  txt    {10:>12,} bytes  über") == (code, lines[0], lines[-1])
    none = f"aisdatapipes: {bucket.url}: there is no sample 'a/3'"
    assert (1, [], [none]) == run_here("peek", "--key", "a/3", bucket.url, endpoint=bucket.endpoint)


def test_peek_into_what_is_no_shard(bucket, run_here):
    """It is named."""
    bucket.put("a.txt", b"A")
    code, out, (line,) = run_here("peek", bucket.url, endpoint=bucket.endpoint)
    assert (1, [], True) == (code, out, line.startswith(f"aisdatapipes: {bucket.url}a.txt: "))


# ---- check


def test_check_of_good_shards(bucket, run_here):
    """All samples are counted, of every kind of archive; what is odd is a note."""
    written(bucket)
    bucket.put("odd.tar", entry("b.txt", b"B") + entry("README", b"r") + entry("c/", b""))
    told = [
        f"{bucket.url}odd.tar: note: the two zero blocks at its end are missing",
        f"{bucket.url}odd.tar: note: 2 members belong to no sample, such as 'README' at offset 1024",
        "4 shards, 8 samples, 0 problems",
    ]
    assert (0, told, []) == run_here("check", bucket.url, endpoint=bucket.endpoint)


@pytest.mark.slow
def test_check_of_bad_shards(bucket, run):
    """Each is told with shard, member and offset; the good ones between them are read."""
    good = entry("a.txt", b"A") + entry("a.cls", b"1") + END
    bucket.fill({
        "0.tar": entry("a.txt", b"A" * 600)[:700],
        "1.tar": good,
        "2.tar": entry("a.txt", b"A") + entry("b.txt", b"B") + entry("a.cls", b"1") + END,
        "3.tar": b"no tar at all" * 100,
        "4.tar": b"",
        "5.tar": END,
        "6.tar": good,
        "7.tgz": b"\x1f\x8b broken",
    })  # fmt: skip
    code, out, errors = run("check", bucket.url, endpoint=bucket.endpoint)
    assert (1, "8 shards, 4 samples, 6 problems", []) == (code, out[-1], errors)
    for line, says in zip(out, [
        "0.tar: member 'a.txt' at offset 0: truncated",
        "2.tar: member 'a.cls' at offset 2048: sample 'a' had ended",
        "3.tar: ",
        "4.tar: empty file",
        "5.tar: there is no sample in it",
        "7.tgz: ",
    ], strict=False):  # fmt: skip
        assert line.startswith(f"{bucket.url}{says}"), (line, says)


def test_check_compares_checksums(embedded_bucket, run_here):
    """A byte that is another one than the cluster promised is a problem of its shard."""
    written(embedded_bucket)
    faults = embedded_bucket.server.embedded.faults
    faults.add("corrupt", "get", match="train-01", at=600)
    try:
        code, out, errors = run_here("check", embedded_bucket.url, endpoint=embedded_bucket.endpoint)
    finally:
        faults.clear()
    assert (1, "3 shards, 6 samples, 1 problems", []) == (code, out[-1], errors)
    assert "train-01.tar: cannot read: its xxh64 is" in out[0]


# ---- what all have


@pytest.mark.parametrize("command", ["ls", "index", "check", "peek"])
def test_a_bucket_that_is_not_there(server, run_here, command):
    """One line, status 1, no traceback."""
    code, out, (line,) = run_here(command, "ais://no-such-bucket-of-ours/", endpoint=server.endpoint)
    assert (1, []) == (code, out)
    assert line.startswith("aisdatapipes: ais://no-such-bucket-of-ours: cannot list")


@pytest.mark.parametrize("command", ["index", "check"])
def test_no_shards(bucket, run_here, command):
    """There is nothing to do, and that is told."""
    bucket.put("a.txt", b"A")
    code, out, (line,) = run_here(command, bucket.url, endpoint=bucket.endpoint)
    assert (1, []) == (code, out)
    assert line.startswith(f"aisdatapipes: {bucket.url}: no object there has")


@pytest.mark.parametrize(("arguments", "says"), [
    (("index", "bucket/x"), "no scheme; expected provider://bucket/name"),
    (("ls", "ais://b"), "ais://b: at which cluster? Give --endpoint http://host:port, or set AIS_ENDPOINT."),
    (("ls",), "Missing argument 'URL...'"),
    (("index", "--client", "--check", "ais://b"), "--check makes nothing"),
    (("index", "--fast", "ais://b"), "No such option"),
    (("idnex", "ais://b"), "No such command 'idnex'"),
])  # fmt: skip
def test_wrong_usage(run_here, arguments, says):
    """Status 2, and how it is meant."""
    code, out, errors = run_here(*arguments)
    assert (2, []) == (code, out)
    assert errors[0].startswith("Usage: ")
    assert says in errors[-1]


@pytest.mark.parametrize(("more", "lines"), [([], False), (["-v"], True)])
@pytest.mark.slow
def test_nobody_listens(run, more, lines):
    """One line; -v tells of each try."""
    code, out, errors = run("ls", *more, "ais://b", endpoint="http://127.0.0.1:9")
    assert (1, [], lines) == (code, out, len(errors) > 1)
    assert errors[-1].startswith("aisdatapipes: ais://b: cannot list: Failed to connect")


def test_an_endpoint_that_is_none(run_here):
    """It is quoted."""
    assert (
        1,
        [],
        ["aisdatapipes: not an endpoint: 'ftp://x'; expected http://host:port or https://host:port"],
    ) == run_here("ls", "ais://b", endpoint="ftp://x")


def test_a_token_is_taken_from_the_environment(run_here):
    """As the SDK does; it stands in no message."""
    with DevCluster(targets=2, token="T0KEN") as guarded:
        guarded.create_bucket("b")
        guarded.put("b", "o", b"1")
        code, _, (line,) = run_here("ls", "ais://b", endpoint=guarded.endpoint)
        assert (1, True) == (code, line.startswith("aisdatapipes: ais://b: cannot list: "))
        code, _, (line,) = run_here("ls", "ais://b", endpoint=guarded.endpoint, AIS_AUTHN_TOKEN="WR0NG")
        assert (1, False) == (code, "WR0NG" in line)
        assert (0, ["ais://b/o"], []) == run_here("ls", "ais://b", endpoint=guarded.endpoint, AIS_AUTHN_TOKEN="T0KEN")


def test_version(run_here):
    """That of the package."""
    assert (0, [f"aisdatapipes, version {__version__}"], []) == run_here("--version")


def test_the_entry_point_is_the_command():
    """What pip puts on the path is what these tests run."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    scripts = settings["options.entry_points"]["console_scripts"]
    module, _, name = scripts.partition("=")[2].strip().partition(":")
    command = getattr(importlib.import_module(module), name)
    assert (True, "aisdatapipes") == (isinstance(command, click.Group), scripts.partition("=")[0].strip())
    assert {"check", "index", "ls", "peek"} == set(command.commands)
