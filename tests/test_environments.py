"""The package with the oldest SDK, with a newer torchdata, without torchdata, and as a wheel."""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.environments import CHECKOUT, path_with, python_with, run

# Lists and loads a bucket, by pipes and by a dataset with workers; prints what it read.
READS = """
import sys
from aistore.sdk import Client
from torch.utils.data import DataLoader
import aisdatapipes

endpoint, bucket = sys.argv[1:]
pipe = aisdatapipes.AISFileLoader(aisdatapipes.AISFileLister([f"ais://{bucket}/"], endpoint), endpoint)
print([(url.name, stream.read()) for url, stream in pipe])
dataset = aisdatapipes.AISIterDataset([Client(endpoint).bucket(bucket)])
print([sample for batch in DataLoader(dataset, batch_size=None, num_workers=2) for sample in [tuple(batch)]])
"""
CONTENT = {"a": b"1", "b/c": b"22"}
EXPECTED = f"{list(CONTENT.items())}\n" * 2

ORACLES = 50  # tests with the SDK as oracle, and some more


@pytest.fixture
def filled(embedded_bucket):
    embedded_bucket.fill(CONTENT)
    return embedded_bucket


def test_oldest_sdk_reads_the_same(filled):
    """With the oldest SDK that is supported, pipes and datasets read what they read with the newest."""
    code = "import aistore.version as v; assert v.__version__ == '1.24.0', v.__version__" + READS
    assert python_with("aistore-1.24.0", code, filled.endpoint, filled.name) == EXPECTED


# Runs a file of tests with that SDK.
ORACLE = """
import sys
import aistore.version, pytest
assert aistore.version.__version__ == "1.24.0", aistore.version.__version__
sys.exit(pytest.main(["-q", "-p", "no:randomly", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def test_oldest_sdk_finds_what_it_expects_in_the_embedded_cluster():
    """The oldest SDK passes as an oracle like the newest: every test of that file, none left out."""
    # Its direct reads compute the owner with an xxhash before 4.
    path = path_with("aistore-1.24.0", "xxhash-3.6.0")
    said = run([sys.executable, "-c", ORACLE, str(CHECKOUT / "tests/devserver/test_oracle_sdk.py")], PYTHONPATH=path)
    only_passed = re.fullmatch(r"(\d+) passed in .*", said.splitlines()[-1])
    assert only_passed, said
    assert int(only_passed[1]) >= ORACLES


def test_newer_torchdata_reads_the_same(filled):
    """With torchdata 0.11, which has no pipes any more, the package is the same."""
    code = "import torchdata; assert torchdata.__version__.startswith('0.11')" + READS
    assert python_with("torchdata-0.11.0", code, filled.endpoint, filled.name) == EXPECTED


NODES = """
import sys
from aistore.sdk import Client
from torchdata.nodes import IterableWrapper, Loader
from torchdata.stateful_dataloader import StatefulDataLoader
import aisdatapipes

endpoint, bucket = sys.argv[1:]
dataset = aisdatapipes.AISIterDataset([Client(endpoint).bucket(bucket)])
print([tuple(sample) for sample in StatefulDataLoader(dataset, batch_size=None)])
print([tuple(sample) for sample in Loader(IterableWrapper(dataset))])
"""


def test_loaders_of_newer_torchdata_take_a_dataset(filled):
    """torchdata's StatefulDataLoader and its nodes iterate over a dataset."""
    assert python_with("torchdata-0.11.0", NODES, filled.endpoint, filled.name) == EXPECTED


# ---- as a wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel that users install, built from a copy, so that the checkout stays clean."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "pytest_aisdatapipes.py", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    shutil.copytree(CHECKOUT / "aisdatapipes", source / "aisdatapipes", ignore=shutil.ignore_patterns("__pycache__"))
    run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(out), str(source)])
    (found,) = out.glob("aisdatapipes-*.whl")
    return found


@pytest.fixture(scope="module")
def bare_python(wheel, tmp_path_factory) -> str:
    """An environment with the wheel and its dependencies, but without torchdata and without the checkout."""
    root = tmp_path_factory.mktemp("bare")
    run([sys.executable, "-m", "venv", "--without-pip", str(root / "env")])
    site = next((root / "env" / "lib").glob("python*/site-packages"))
    # The dependencies are big: they are seen, not installed again.
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.startswith(("torchdata", "aisdatapipes", "__editable__", "_distutils", "distutils")):
            (site / entry.name).symlink_to(entry)
    run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)])
    return str(root / "env" / "bin" / "python")


def test_wheel_reads_without_torchdata(bare_python, filled):
    """An installed wheel works where torchdata is not, and nothing of it comes from a checkout."""
    code = """
import importlib.util, pathlib
assert importlib.util.find_spec("torchdata") is None
import aisdatapipes
assert "site-packages" in pathlib.Path(aisdatapipes.__file__).parts
"""
    assert run([bare_python, "-I", "-c", code + READS, filled.endpoint, filled.name]) == EXPECTED


def test_wheel_brings_fixtures_for_other_peoples_tests(bare_python, tmp_path):
    """A project that has installed the wheel has a bucket in its tests by naming a fixture."""
    law = "def test_bucket(ais_bucket):\n    ais_bucket.put('a', b'1')\n    assert ais_bucket.sdk.object('a').get_reader().read_all() == b'1'\n"
    (tmp_path / "test_theirs.py").write_text(law)
    assert "1 passed" in run([bare_python, "-I", "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)])


def test_all_extras_can_be_had_together(wheel):
    """What the extra ``all`` asks for is met by the pinned versions, nothing is missing and nothing conflicts."""
    said = run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--no-index",
            "--force-reinstall",
            "--no-deps",
            str(wheel),
        ]
    )
    assert "Would install aisdatapipes" in said
    run([sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--no-index", f"{wheel}[all]"])
