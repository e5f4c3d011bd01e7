"""What `pip install` gives: the wheel, its metadata, and names that stand beside torchdata's in any order of imports."""

from __future__ import annotations

import ast
import configparser
import os
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]  # building and importing torch, on a busy machine

CHECKOUT = Path(__file__).parent.parent
SECONDS = 200  # for one process
BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torchdata":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""
NAMES = (
    "list_files_by_ais",
    "load_files_by_ais",
    "ais_list_files",
    "ais_load_files",
    "ais_list_sources",
    "ais_read_shards",
    "ais_plan",
)
SHOW = f"""
from torch.utils.data.datapipes.iter import IterableWrapper
pipe = IterableWrapper(["ais://b/"])
print([name for name in {NAMES!r} if not callable(getattr(pipe, name, None))])
print(type(pipe.list_files_by_ais(url="http://127.0.0.1:1")).__module__)
"""
RELOAD = "import importlib, aisdatapipes.pipes.lister\nimportlib.reload(aisdatapipes.pipes.lister)\n"
WITH_DATAPIPES = ("0.7.", "0.8.", "0.9.")
OURS = "[]\naisdatapipes.pipes.lister\n"


def run(code: str, path: Path | None = None) -> str:
    """What the code prints, in a new process that sees the package only below ``path``."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    program = f"import sys\nsys.path.insert(0, {str(path or CHECKOUT)!r})\n{code}"
    # -P: neither the working directory nor the script's is on the path.
    command = [sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy, for a build leaves folders behind where it runs."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    found = [name for name in listed.stdout.decode().split("\0") if name] if listed.returncode == 0 else _files()
    for name in found:
        if (CHECKOUT / name).is_file() and name.startswith(
            ("aisdatapipes/", "setup.cfg", "pyproject.toml", "README", "LICENSE")
        ):
            (folder / "src" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "src" / name).write_bytes((CHECKOUT / name).read_bytes())
    (folder / "src" / "README.md").touch()
    # In an environment of its own, which pip fills from an index, only where this one has no setuptools that will do.
    isolation = ["--no-build-isolation"] if _has_setuptools() else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        *isolation,
        "-w",
        str(folder / "out"),
        str(folder / "src"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = (folder / "out").glob("*.whl")
    return made


def _has_setuptools() -> bool:
    try:
        return int(version("setuptools").partition(".")[0]) >= 68
    except PackageNotFoundError:
        return False


def _files() -> list[str]:
    return [
        path.relative_to(CHECKOUT).as_posix() for path in (*CHECKOUT.glob("*"), *(CHECKOUT / "aisdatapipes").rglob("*"))
    ]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where pip put the wheel, without what it depends on."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(CHECKOUT / "setup.cfg")
    return parser


def test_the_wheel_has_every_module_and_the_mark_of_types(wheel: Path) -> None:
    """All of the package and nothing of the tests; ``py.typed`` tells type checkers to look."""
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "aisdatapipes").rglob("*.py")}
    assert modules | {"aisdatapipes/py.typed"} == inside


def test_the_metadata_names_the_extras(wheel: Path) -> None:
    """Those of setup.cfg, the version of the package, and the Python that it needs."""
    found, said = metadata(wheel), settings()
    assert set(found.get_all("Provides-Extra")) == set(said["options.extras_require"])
    assert found["Requires-Python"] == said["options"]["python_requires"]
    (assigned,) = ast.parse((CHECKOUT / "aisdatapipes/version.py").read_text()).body[-1:]
    assert found["Version"] == ast.literal_eval(assigned.value)


def test_nothing_but_extras_needs_torchdata(wheel: Path) -> None:
    """torchdata is welcome, not needed."""
    needed = [line for line in metadata(wheel).get_all("Requires-Dist") if "extra ==" not in line]
    assert [line for line in needed if line.startswith("torchdata")] == []
    assert any(line.startswith("torch>=") for line in needed)


def test_an_installed_wheel_imports_without_torchdata(installed: Path) -> None:
    """From where pip put it, with torchdata kept out; all public names are there, and so are the functional ones, reloaded too."""
    code = (
        BLOCKED
        + "import aisdatapipes\nprint(aisdatapipes.__file__)\nprint([n for n in aisdatapipes.__all__ if not hasattr(aisdatapipes, n)])\n"
    )
    place, missing, functional = run(code + SHOW + RELOAD + SHOW, installed).split("\n", 2)
    assert (Path(place).parent.parent, missing, functional) == (installed, "[]", OURS * 2)


def test_the_block_on_torchdata_works() -> None:
    """The test above would notice an import of torchdata."""
    code = BLOCKED + "try:\n    import torchdata\nexcept ModuleNotFoundError as error:\n    print(error)"
    assert run(code) == "No module named 'torchdata'\n"


ORDERS = {
    "ours first": "import aisdatapipes\nimport torchdata.datapipes.iter, torchdata.dataloader2\n",
    "torchdata first": "import torchdata.datapipes.iter, torchdata.dataloader2\nimport aisdatapipes\n",
}


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS)
def test_functional_names_are_ours_in_any_order_of_imports(imports: str) -> None:
    """torchdata registers two of the names as well: both packages import, and the names give our pipes; reloaded too."""
    if find_spec("torchdata") is None or not version("torchdata").startswith(WITH_DATAPIPES):
        pytest.skip("no torchdata with datapipes here")
    assert run(imports + SHOW + RELOAD + SHOW) == OURS * 2
