"""The shape of the code, held by nothing but `ast`: the floor under the contracts of import-linter.

Each rule is a function from a tree of modules to the places that break it. Each is shown a small tree that does break
it, for a rule that cannot fail holds nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import aisdatapipes

PACKAGE = "aisdatapipes"
ROOT = Path(aisdatapipes.__file__).parent

# What each folder may import of the package, besides itself.
_DOWN_TO_MODEL = {"model"}
_DOWN_TO_WIRE = _DOWN_TO_MODEL | {"wire", "order"}
_DOWN_TO_STORE = _DOWN_TO_WIRE | {"store"}
_DOWN_TO_FLOW = _DOWN_TO_STORE | {"flow"}
_DOWN_TO_PIPES = _DOWN_TO_FLOW | {"pipes"}
_EVERYTHING = _DOWN_TO_PIPES | {"datasets", "devserver"}
BELOW = {
    "model": set(),
    "wire": _DOWN_TO_MODEL,
    "order": _DOWN_TO_MODEL,
    "store": _DOWN_TO_WIRE,
    "flow": _DOWN_TO_STORE,
    "pipes": _DOWN_TO_FLOW,
    "datasets": _DOWN_TO_PIPES,
    "devserver": {"wire", "model"},
    "testing": _EVERYTHING,
    "cli": _EVERYTHING,
    "version": set(),
    "": _EVERYTHING,  # the list of public names
}
TORCH = {"torch", "torchdata"}
MAY_TORCH = {"pipes", "datasets", "testing"}
NETWORK = {"socket", "ssl", "http", "urllib", "urllib3", "requests", "pycurl", "aiohttp"}
HARMLESS = ("urllib.parse",)  # text to text
MAY_NETWORK = {"store", "devserver"}
# The SDK wants a session from this one and uses it itself.
NETWORK_EXCEPTIONS = {("datasets/worker_client.py", "requests")}
MAY_READ_ENVIRONMENT = {"model/config.py", "pipes/place.py"}  # the SDK's variables; torchrun's
NO_NAMES = {"utils", "util", "common", "helpers", "helper", "core", "misc"}
MAX_LINES = 400


@dataclass(frozen=True)
class Import:
    """One imported module, with the name that was taken out of it if it may be a module too."""

    module: str
    name: str
    line: int
    for_types: bool = False  # under ``if TYPE_CHECKING``: nothing is imported when the program runs

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    path: str  # from the package's root, with slashes
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def name(self) -> str:
        """Dotted, from the package's root: ``wire.tar``, ``wire`` for its ``__init__``, empty for the root's."""
        return self.path.removesuffix(".py").replace("/", ".").removesuffix("__init__").rstrip(".")

    @property
    def folder(self) -> str:
        return self.name.partition(".")[0]

    @cached_property
    def imports(self) -> list[Import]:
        """Every import anywhere in the file, those for type checkers and those inside functions included."""
        found = []
        for node in ast.walk(self.tree):
            for_types = id(node) in self._for_types
            if isinstance(node, ast.Import):
                found += [Import(alias.name, "", node.lineno, for_types) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                source = "." * node.level + (node.module or "")
                found += [Import(source, alias.name, node.lineno, for_types) for alias in node.names]
        return found

    @cached_property
    def _for_types(self) -> set[int]:
        conditions = (node for node in ast.walk(self.tree) if isinstance(node, ast.If))
        bodies = (node.body for node in conditions if ast.unparse(node.test) == "TYPE_CHECKING")
        return {id(inner) for body in bodies for statement in body for inner in ast.walk(statement)}

    def at(self, line: int, what: str) -> str:
        return f"{self.path}:{line}: {what}"


Tree = dict[str, Module]


def tree_of(files: dict[str, str]) -> Tree:
    return {module.name: module for module in (Module(path, text) for path, text in files.items())}


def read_tree(root: Path) -> Tree:
    return tree_of({path.relative_to(root).as_posix(): path.read_text() for path in sorted(root.rglob("*.py"))})


# ---- the rules


def upward_imports(tree: Tree) -> Iterator[str]:
    """A folder imports from those below it, and a folder nobody has placed from none."""
    for module in tree.values():
        allowed = BELOW.get(module.folder)
        if allowed is None:
            yield module.at(1, f"{module.folder!r} has no place among the layers")
            continue
        for found in module.imports:
            for target in _of_package(found):
                folder = target.partition(".")[0]
                if folder not in {*allowed, module.folder, "version"}:
                    yield module.at(found.line, f"imports {folder or 'the whole package'!r}")


def _of_package(found: Import) -> list[str]:
    """What is imported of this package, dotted from its root."""
    if found.module == PACKAGE:
        return [found.name]
    return [found.module.removeprefix(f"{PACKAGE}.")] if found.root == PACKAGE else []


def relative_imports(tree: Tree) -> Iterator[str]:
    """Imports say the whole path."""
    for module in tree.values():
        yield from (
            module.at(found.line, "relative import") for found in module.imports if found.module.startswith(".")
        )


def torch_imports(tree: Tree) -> Iterator[str]:
    """torch is known to the folders that are its skin."""
    for module in tree.values():
        if module.folder not in MAY_TORCH:
            yield from (
                module.at(found.line, f"imports {found.module}") for found in module.imports if found.root in TORCH
            )


def network_imports(tree: Tree) -> Iterator[str]:
    """The network is known to the client's and the server's folder."""
    for module in tree.values():
        if module.folder in MAY_NETWORK:
            continue
        for found in module.imports:
            full = f"{found.module}.{found.name}"
            harmless = full.startswith(HARMLESS) or (module.path, found.root) in NETWORK_EXCEPTIONS
            if found.root in NETWORK and not harmless:
                yield module.at(found.line, f"imports {found.module}")


def cycles(tree: Tree) -> Iterator[str]:
    """No two modules import each other when they run, by whatever detour."""
    graph: dict[str, set[str]] = {}
    for module in tree.values():
        targets = set()
        for found in module.imports:
            if found.root == PACKAGE and not found.for_types:
                inside = found.module.removeprefix(PACKAGE).lstrip(".")
                member = f"{inside}.{found.name}".lstrip(".")
                targets.add(member if member in tree else inside)
        graph[module.name] = targets
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield " -> ".join(name or PACKAGE for name in error.args[1])


def unexplained_asserts(tree: Tree) -> Iterator[str]:
    """An ``assert`` is not for a user's error: python -O takes it away; the line says why it stands."""
    for module in tree.values():
        lines = module.text.splitlines()
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Assert) and not re.search(r"# noqa: S101 - \w", lines[node.lineno - 1]):
                yield module.at(node.lineno, "assert")


def prints(tree: Tree) -> Iterator[str]:
    """Only programs print."""
    for module in tree.values():
        if not module.path.endswith("__main__.py"):
            calls = (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))
            yield from (
                module.at(node.lineno, "print")
                for node in calls
                if isinstance(node.func, ast.Name) and node.func.id == "print"
            )


def environment_reads(tree: Tree) -> Iterator[str]:
    """The environment is read in one place for each who sets it."""
    for module in tree.values():
        if module.path in MAY_READ_ENVIRONMENT:
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}:
                yield module.at(node.lineno, node.attr)
        for found in module.imports:
            if found.module == "os" and found.name in {"environ", "environb", "getenv"}:
                yield module.at(found.line, found.name)


def names_of_nothing(tree: Tree) -> Iterator[str]:
    """A file is called after what is in it."""
    for module in tree.values():
        if NO_NAMES & set(module.name.split(".")):
            yield module.at(1, "a name that says nothing")


def long_modules(tree: Tree) -> Iterator[str]:
    """A module is read in one sitting."""
    for module in tree.values():
        if (lines := len(module.text.splitlines())) > MAX_LINES:
            yield module.at(lines, f"{lines} lines")


Rule = Callable[[Tree], Iterator[str]]
BROKEN: list[tuple[Rule, dict[str, str], list[str]]] = [
    (
        upward_imports,
        {"wire/a.py": "from aisdatapipes.store import pool\n", "model/b.py": "import aisdatapipes.wire.tar\n"},
        ["wire/a.py:1: imports 'store'", "model/b.py:1: imports 'wire'"],
    ),
    (upward_imports, {"stray.py": ""}, ["stray.py:1: 'stray' has no place among the layers"]),
    (upward_imports, {"wire/a.py": "import aisdatapipes.order.deal\n"}, ["wire/a.py:1: imports 'order'"]),
    (upward_imports, {"flow/a.py": "from aisdatapipes import devserver\n"}, ["flow/a.py:1: imports 'devserver'"]),
    (upward_imports, {"wire/a.py": "if TYPE_CHECKING:\n    import aisdatapipes.flow.meter\n"}, ["wire/a.py:2: imports 'flow'"]),
    (upward_imports, {"devserver/a.py": "import aisdatapipes.store\n"}, ["devserver/a.py:1: imports 'store'"]),
    (upward_imports, {"flow/a.py": "import aisdatapipes\n"}, ["flow/a.py:1: imports 'the whole package'"]),
    (relative_imports, {"wire/a.py": "from . import b\n"}, ["wire/a.py:1: relative import"]),
    (torch_imports, {"flow/a.py": "if True:\n    import torch.nn\n"}, ["flow/a.py:2: imports torch.nn"]),
    (torch_imports, {"cli/a.py": "from torchdata import nodes\n"}, ["cli/a.py:1: imports torchdata"]),
    (network_imports, {"wire/a.py": "def f():\n    import socket\n"}, ["wire/a.py:2: imports socket"]),
    (network_imports, {"pipes/a.py": "from urllib import request\n"}, ["pipes/a.py:1: imports urllib"]),
    (network_imports, {"flow/a.py": "import http.client\nimport requests\n"}, ["flow/a.py:1: imports http.client", "flow/a.py:2: imports requests"]),
    (cycles, {"wire/a.py": "from aisdatapipes.wire import b\n", "wire/b.py": "from aisdatapipes.wire.a import x\n"}, ["wire.a -> wire.b -> wire.a"]),
    (unexplained_asserts, {"wire/a.py": "assert True\nassert True  # noqa: S101\n"}, ["wire/a.py:1: assert", "wire/a.py:2: assert"]),
    (prints, {"wire/a.py": "print(1)\n"}, ["wire/a.py:1: print"]),
    (environment_reads, {"store/a.py": "import os\nos.getenv('A')\nfrom os import environ\n"}, ["store/a.py:2: getenv", "store/a.py:3: environ"]),
    (names_of_nothing, {"wire/utils.py": "", "core/a.py": ""}, ["wire/utils.py:1: a name that says nothing", "core/a.py:1: a name that says nothing"]),
    (long_modules, {"wire/a.py": "\n" * 401}, ["wire/a.py:401: 401 lines"]),
]  # fmt: skip
ALLOWED: list[tuple[Rule, dict[str, str]]] = [
    (upward_imports, {"flow/a.py": "from aisdatapipes.store import pool\nfrom aisdatapipes.version import __version__\n"}),
    (upward_imports, {"devserver/a.py": "from aisdatapipes.wire import tar\n", "__init__.py": "import aisdatapipes.pipes.base\n"}),
    (torch_imports, {"pipes/a.py": "import torch\n", "flow/a.py": "import torchvision\n"}),
    (network_imports, {"model/a.py": "from urllib.parse import quote\nfrom urllib import parse\n", "store/a.py": "import ssl\n"}),
    (network_imports, {"datasets/worker_client.py": "from requests import Session\n"}),
    (cycles, {"wire/__init__.py": "from aisdatapipes.wire.a import x\n", "wire/a.py": "from aisdatapipes.model import b\n", "model/b.py": ""}),
    (cycles, {"wire/a.py": "import aisdatapipes.wire.b\n", "wire/b.py": "if TYPE_CHECKING:\n    import aisdatapipes.wire.a\n"}),
    (unexplained_asserts, {"wire/a.py": "assert x  # noqa: S101 - started just above\n"}),
    (prints, {"devserver/__main__.py": "print(1)\n"}),
    (environment_reads, {"model/config.py": "import os\nos.environ\n"}),
]  # fmt: skip
RULES = list(dict.fromkeys(rule for rule, _, _ in BROKEN))


def _called(rule: object) -> str | None:
    return rule.__name__ if callable(rule) else ""


@pytest.mark.parametrize("rule", RULES, ids=_called)
def test_the_package_keeps_every_rule(rule: Rule) -> None:
    """No place in the package breaks the rule."""
    assert list(rule(read_tree(ROOT))) == []


@pytest.mark.parametrize(("rule", "files", "expected"), BROKEN, ids=_called)
def test_a_tree_that_breaks_a_rule_is_told_where(rule: Rule, files: dict[str, str], expected: list[str]) -> None:
    """Every rule can fail, and names file, line and offence."""
    found = list(rule(tree_of(files)))
    if rule is cycles:  # where a cycle begins is nobody's business
        found, expected = [_rotated(line) for line in found], [_rotated(line) for line in expected]
    assert found == expected


@pytest.mark.parametrize(("rule", "files"), ALLOWED, ids=_called)
def test_a_rule_forbids_no_more_than_it_says(rule: Rule, files: dict[str, str]) -> None:
    """What looks like an offence and is none passes."""
    assert list(rule(tree_of(files))) == []


def test_the_tree_that_is_checked_is_the_package() -> None:
    """All folders of the design are seen, so that no rule passes for want of files."""
    folders = {module.folder for module in read_tree(ROOT).values()}
    assert folders == set(BELOW)


def _rotated(line: str) -> set[str]:
    return set(line.split(" -> "))
