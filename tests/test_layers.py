"""The layers, read from the source: imports point one way, and the lowest one waits for nothing."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the bottom up.  A layer imports itself and those before it.  "trioqt" is the package's own __init__, and
# "testing" what lies beside the three rooms of that folder.
ROOMS = ["testing.network", "testing.simulation", "testing.cancelling"]
LAYERS = ["core", "links", "sockets", "trioqt", *ROOMS, "testing", "cli"]

ATTRS = {"attr", "attrs"}
OTHERS = {
    "core": {*ATTRS, "outcome"},
    "links": {*ATTRS, "outcome", "trio"},
    "sockets": {*ATTRS, "outcome", "trio"},
    "trioqt": set[str](),
    **{room: {*ATTRS, "outcome", "trio"} for room in (*ROOMS, "testing")},
    "cli": {*ATTRS, "outcome", "trio", "click", "rich"},
}
EXCEPTIONS = {
    "trioqt.core.errors": {"trio"},  # SocketError is a trio.BrokenResourceError
    "trioqt.links.chain": {"OpenSSL", "cryptography"},  # imported where certificates are judged outside of a handshake
    "trioqt.testing.pytest_plugin": {"pytest"},  # loaded by pytest, and by nothing of ours
    "trioqt.testing.network.strategies": {"hypothesis"},  # imported by who uses hypothesis, and by nothing of ours
}

# What core must not have at all: a clock, tasks, threads, a way to wait.
NOT_IN_CORE = {"asyncio", "concurrent", "multiprocessing", "select", "selectors", "signal", "threading", "time"}

ASYNC_NODES = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)


def sources_of_trioqt() -> dict[str, str]:
    """Every module of trioqt by its name."""
    sources: dict[str, str] = {}
    for path in sorted((ROOT / "trioqt").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return sources


def layer_of(module: str) -> str | None:
    """The layer that a module of trioqt belongs to."""
    parts = module.split(".")[1:]
    room = ".".join(parts[:2])
    if room in ROOMS:
        return room
    first = parts[0] if parts else "trioqt"
    layer = "cli" if first == "__main__" else first
    return layer if layer in LAYERS else None


def imports_of(module: str, tree: ast.AST, modules: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Every module that is imported in ``tree``, inside of functions too, and in which line."""
    # Whoever knows where relative imports start from must know which modules are packages.
    is_package = any(other.startswith(f"{module}.") for other in modules)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                source = ".".join([*parts, source] if source else parts)
            for alias in node.names:
                yield (f"{source}.{alias.name}" if f"{source}.{alias.name}" in modules else source), node.lineno


def layer_complaints(sources: Mapping[str, str]) -> list[str]:
    """Every import that points the wrong way, or at something that its layer must not know."""
    complaints: list[str] = []
    for module, source in sources.items():
        layer = layer_of(module)
        if layer is None:
            complaints.append(f"{module} belongs to no layer")
            continue
        allowed = OTHERS[layer] | EXCEPTIONS.get(module, set())
        for imported, line in imports_of(module, ast.parse(source), sources):
            first = imported.split(".")[0]
            if first == "trioqt":
                other = layer_of(imported)
                if other is None or LAYERS.index(other) > LAYERS.index(layer):
                    complaints.append(f"{module}:{line} ({layer}) imports {imported} ({other})")
            elif (first not in sys.stdlib_module_names and first not in allowed) or (
                layer == "core" and first in NOT_IN_CORE
            ):
                complaints.append(f"{module}:{line} ({layer}) imports {imported}")
    return complaints


def waiting_complaints(sources: Mapping[str, str]) -> list[str]:
    """Every place in core that could wait."""
    return [
        f"{module}:{line} waits"
        for module, source in sources.items()
        if layer_of(module) == "core"
        for line in sorted(
            {
                node.lineno if isinstance(node, ast.stmt | ast.expr) else node.target.lineno
                for node in ast.walk(ast.parse(source))
                if isinstance(node, ASYNC_NODES) or (isinstance(node, ast.comprehension) and node.is_async)
            }
        )
    ]


def cycles(sources: Mapping[str, str]) -> list[str]:
    """Modules that import each other, directly or around the corner.

    Under ``if TYPE_CHECKING:`` too: who reads one of them must know the other.
    """
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        graph[module] = {imported for imported, _ in imports_of(module, ast.parse(source), sources)} & set(sources)
    complaints: list[str] = []
    for start in sorted(graph):
        ways = [[start]]
        seen: set[str] = set()
        while ways:
            way = ways.pop()
            for following in sorted(graph[way[-1]]):
                if following == start and start == min(way):  # each cycle once, from its first module
                    complaints.append(" -> ".join([*way, start]))
                elif following not in seen:
                    seen.add(following)
                    ways.append([*way, following])
    return complaints


# ---- trioqt itself -------------------------------------------------------------------------


def test_imports_point_one_way() -> None:
    """cli -> testing -> sockets -> links -> core -> (attrs, outcome, the standard library), and trio above core.

    Within testing: the plug-in and its like -> cancelling -> simulation -> network.
    """
    sources = sources_of_trioqt()

    assert layer_complaints(sources) == []
    assert {"trioqt", "trioqt.core.states", "trioqt.links.native", "trioqt.sockets.tcp_server"} <= set(sources)


def test_core_never_waits() -> None:
    """What is true can be asked at any time: no ``async``, no ``await``."""
    assert waiting_complaints(sources_of_trioqt()) == []


def test_no_module_imports_one_that_imports_it() -> None:
    """Each module can be read, and tested, before those that use it."""
    assert cycles(sources_of_trioqt()) == []


def test_the_package_asks_for_three_others() -> None:
    """Who installs trioqt gets trio, attrs and outcome; the command line's two are an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {requirement.split()[0] for requirement in requirements}

    assert names(project["dependencies"]) == {"trio", "attrs", "outcome"}
    assert names(project["optional-dependencies"]["cli"]) == {"click", "rich"}


# ---- the checks can fail -------------------------------------------------------------------

# A small trioqt in order, which the tests below spoil in one place each.
SOUND = {
    "trioqt": "from trioqt.sockets.tcp import Tcp",
    "trioqt.core": "",
    "trioqt.core.errors": "import enum, trio",
    "trioqt.core.states": "import attrs\nfrom .errors import Kind\nfrom . import errors",
    "trioqt.links": "",
    "trioqt.links.native": "import trio\nfrom trioqt.core import states",
    "trioqt.sockets": "",
    "trioqt.sockets.tcp": "import outcome\nimport trioqt.links.native\nfrom ..core.errors import Kind",
    "trioqt.testing": "from trioqt import Tcp\nfrom trioqt.testing.spy import Spy",
    "trioqt.testing.spy": "import trio.testing\nfrom trioqt.testing.cancelling import walk",
    "trioqt.testing.network": "",
    "trioqt.testing.network.tcp": "from trioqt.links import native",
    "trioqt.testing.simulation": "",
    "trioqt.testing.simulation.a": "from trioqt.testing.network.tcp import Tcp",
    "trioqt.testing.cancelling": "",
    "trioqt.testing.cancelling.walk": "from trioqt.testing.simulation import a",
    "trioqt.testing.pytest_plugin": "import pytest",
    "trioqt.cli": "import click, rich.table\nfrom trioqt.testing import Spy",
    "trioqt.__main__": "from trioqt.cli import main",
}


def test_the_small_package_is_sound() -> None:
    """The checks find nothing where there is nothing, whichever way an import is spelled."""
    assert layer_complaints(SOUND) == waiting_complaints(SOUND) == cycles(SOUND) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("trioqt.core.states", "import trio", "trioqt.core.states:1 (core) imports trio"),
        ("trioqt.core.states", "from trio import abc", "trioqt.core.states:1 (core) imports trio"),
        ("trioqt.core.states", "import time", "trioqt.core.states:1 (core) imports time"),
        (
            "trioqt.core.states",
            "\nfrom trioqt.links import native",
            "trioqt.core.states:2 (core) imports trioqt.links.native (links)",
        ),
        (
            "trioqt.core.states",
            "def f():\n    import trioqt.sockets.tcp",
            "trioqt.core.states:2 (core) imports trioqt.sockets.tcp (sockets)",
        ),
        (
            "trioqt.core.states",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from trioqt.links.native import Link",
            "trioqt.core.states:3 (core) imports trioqt.links.native (links)",
        ),
        (
            "trioqt.links.native",
            "from ..sockets.tcp import Tcp",
            "trioqt.links.native:1 (links) imports trioqt.sockets.tcp (sockets)",
        ),
        ("trioqt.sockets.tcp", "import trioqt", "trioqt.sockets.tcp:1 (sockets) imports trioqt (trioqt)"),
        (
            "trioqt.sockets.tcp",
            "from trioqt import testing",
            "trioqt.sockets.tcp:1 (sockets) imports trioqt.testing (testing)",
        ),
        ("trioqt", "import trioqt.cli", "trioqt:1 (trioqt) imports trioqt.cli (cli)"),
        ("trioqt.sockets.tcp", "import rich", "trioqt.sockets.tcp:1 (sockets) imports rich"),
        ("trioqt.testing.spy", "import pytest", "trioqt.testing.spy:1 (testing) imports pytest"),
        (
            "trioqt.testing.network.tcp",
            "from trioqt.testing.simulation.a import A",
            "trioqt.testing.network.tcp:1 (testing.network) imports trioqt.testing.simulation.a (testing.simulation)",
        ),
        (
            "trioqt.testing.simulation.a",
            "from trioqt.testing import cancelling",
            "trioqt.testing.simulation.a:1 (testing.simulation) imports trioqt.testing.cancelling (testing.cancelling)",
        ),
        (
            "trioqt.testing.cancelling.walk",
            "from trioqt.testing.spy import Spy",
            "trioqt.testing.cancelling.walk:1 (testing.cancelling) imports trioqt.testing.spy (testing)",
        ),
        ("trioqt.cli", "import hypothesis", "trioqt.cli:1 (cli) imports hypothesis"),
        ("trioqt.extras", "", "trioqt.extras belongs to no layer"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, complaint: str) -> None:
    """One line in one module of a sound package is enough, and the complaint names it."""
    assert layer_complaints({**SOUND, module: source}) == [complaint]


@pytest.mark.parametrize(
    "source",
    [
        "async def f():\n    pass",
        "async def f():\n    async with a: pass",
        "def f():\n    return (x async for x in y)",
    ],
)
def test_an_async_line_in_core_is_found(source: str) -> None:
    """Whatever its shape; elsewhere it is nobody's concern."""
    assert waiting_complaints({"trioqt.core.states": source}) != []
    assert waiting_complaints({"trioqt.links.native": source}) == []


def test_a_cycle_is_found() -> None:
    """Also around three corners, inside of a function, and for type checkers only."""
    here = "from trioqt.core.c import C"
    there = "def f():\n    from trioqt.core import a"
    checked = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from trioqt.core import a"
    sources = {"trioqt.core.a": "import trioqt.core.b", "trioqt.core.b": here}

    for back in (there, checked):
        assert cycles({**sources, "trioqt.core.c": back}) == [
            "trioqt.core.a -> trioqt.core.b -> trioqt.core.c -> trioqt.core.a"
        ]
    assert cycles({**sources, "trioqt.core.c": ""}) == []
