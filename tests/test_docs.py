"""The documents tell the truth: every Python block of the README, docs/order.md and docs/mixing.md runs; names and links
in them exist."""

from __future__ import annotations

import ast
import inspect
import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import aisdatapipes
from aisdatapipes.devserver import DevCluster
from tests.environments import path_with

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text())
OF_ORDER = BLOCK.findall((ROOT / "docs/order.md").read_text())
OF_MIXING = BLOCK.findall((ROOT / "docs/mixing.md").read_text())
# Seconds for one block: importing torch and starting two workers on a busy machine.
PATIENCE = 100


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A cluster with what the blocks read."""
    with DevCluster() as cluster:
        cluster.create_bucket("photos")
        for number in range(25):
            cluster.put("photos", f"train/{number:03d}.jpg", b"photo" * number)
        cluster.create_bucket("shards")
        for number in range(3):
            cluster.put("shards", f"{number}.tar", _shard(number))
        cluster.create_bucket("parts")
        for name, extensions in (("img", ("jpg",)), ("txt", ("txt",))):
            cluster.put("parts", f"{name}-0.tar", _shard(0, extensions))
        yield cluster.endpoint


def _shard(number: int, extensions: tuple[str, ...] = ("jpg", "cls")) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for sample in range(4):
            for extension in extensions:
                info = tarfile.TarInfo(f"{number}{sample}.{extension}")
                info.size = 1
                tar.addfile(info, io.BytesIO(b"1"))
    return file.getvalue()


@pytest.mark.parametrize("block", BLOCKS, ids=[str(number) for number in range(len(BLOCKS))])
def test_readme_block_runs(block: str, endpoint: str, tmp_path: Path) -> None:
    """A block runs as a program of its own, with nothing but an endpoint."""
    run_block(block, endpoint, tmp_path)


@pytest.mark.parametrize("block", OF_ORDER, ids=[str(number) for number in range(len(OF_ORDER))])
def test_block_about_order_runs(block: str, endpoint: str, tmp_path: Path) -> None:
    """So does one of docs/order.md; nodes are in a later torchdata than DataLoader2."""
    run_block(block, endpoint, tmp_path, *([path_with("torchdata-0.11.0")] if "torchdata.nodes" in block else []))


@pytest.mark.parametrize("block", OF_MIXING, ids=[str(number) for number in range(len(OF_MIXING))])
def test_block_about_mixing_runs(block: str, endpoint: str, tmp_path: Path) -> None:
    """And one of docs/mixing.md."""
    run_block(block, endpoint, tmp_path)


def run_block(block: str, endpoint: str, tmp_path: Path, *first: str) -> None:
    program = tmp_path / "block.py"
    program.write_text(block)
    places = os.pathsep.join([*first, str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    environment = {**os.environ, "AIS_ENDPOINT": endpoint, "PYTHONPATH": places}
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr if done.returncode else "") == (0, "")


def test_readme_has_examples() -> None:
    """The README has Python blocks, so that the test above is not empty."""
    assert len(BLOCKS) >= 5
    assert len(OF_ORDER) >= 5
    assert len(OF_MIXING) >= 2


def test_first_example_is_short() -> None:
    """The first example fits into a glance: 15 lines of code, the imports aside."""
    lines = [line for line in BLOCKS[0].splitlines() if line.strip() and not line.startswith(("from ", "import "))]
    assert len(lines) <= 15


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    """A link to a file leads to a file that is there."""
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)[^)]*\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_paths_exist(document: Path) -> None:
    """A file of the package or of the tests that a document names is there."""
    named = re.findall(
        r"`((?:model|wire|order|store|flow|pipes|datasets|devserver|testing)/[\w/]*\.py)`", document.read_text()
    )
    assert [path for path in named if not (ROOT / "aisdatapipes" / path).exists()] == []
    tests = re.findall(r"`(tests/[\w/]+\.py)[`:]", document.read_text())
    assert [path for path in tests if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_tests_exist(document: Path) -> None:
    """A test that a document names is there."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", document.read_text())
    if document.name == "migration.md":
        named += [
            ("tests/test_reference_defects.py", name)
            for name in re.findall(r"\| `(test_\w+)` \|$", document.read_text(), re.MULTILINE)
        ]
    assert [f"{path}::{name}" for path, name in named if name not in _tests(ROOT / path)] == []


def _tests(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_public_class_is_in_the_readme() -> None:
    """Whatever can be imported from the package and is no error of detail stands in the README."""
    text = (ROOT / "README.md").read_text()
    classes = [name for name in aisdatapipes.__all__ if inspect.isclass(getattr(aisdatapipes, name))]
    missing = {name for name in classes if not re.search(rf"\b{name}\b", text)}
    # The long names of two pipes; and an AISURL and a NotResumable that nobody makes by hand.
    assert missing == {"AISFileListerIterDataPipe", "AISFileLoaderIterDataPipe", "AISURL", "NotResumable"}


def test_every_test_of_the_migration_table_is_named_once() -> None:
    """Each row of the table has a test of its own."""
    names = re.findall(r"\| `(test_\w+)` \|$", (ROOT / "docs/migration.md").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(set(names))
    assert names


def test_tables_of_the_performance_page_are_those_of_the_results():
    """The page shows what the benchmarks printed last."""
    from benchmarks import plots

    text = "".join(page.read_text() for page in plots.PAGES)
    assert text == plots.filled(text, plots.results())
    assert set(plots.results()) <= {found[1] for found in plots.TABLE.findall(text)} | {"embedded", "tar_reader"}


def test_pictures_are_drawn(tmp_path, monkeypatch):
    """Every benchmark that has a picture gets one."""
    from benchmarks import plots

    monkeypatch.setattr(plots, "DOCS", tmp_path)
    found = plots.results()
    made = {path.name for path in plots.draw(found)}
    assert made == {path.name for path in tmp_path.glob("*.png")} >= {"rates.png", "order.png"}
