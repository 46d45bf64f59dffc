"""The checks.  ``nox`` runs them all, in this order, and stops at the first that fails.

A session runs in the environment that nox itself runs in (README, Set up), and installs nothing.  Two need others:
``minima`` one with the oldest releases that we claim to work with, ``pythons`` one for each other Python that this
machine has.  Those are made in .nox/ at the first run, and again when pyproject.toml asks for something else; so after
the first run everything works offline.  ``nox -s tests -- -k half_close`` hands the rest to pytest.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.stop_on_first_error = True

# The tests start hundreds of processes: one that may not keep what it has compiled takes half as long again to start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# `.venv/bin/nox` works without activating .venv.  pyright, too, finds trioqt by the first python on PATH: it does not
# look at --pythonpath when it verifies types.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# The node that is installed with pyright, and no look on the net for a newer pyright.
os.environ |= {"PYRIGHT_PYTHON_GLOBAL_NODE": "off", "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}

PYPROJECT = nox.project.load_toml(Path(__file__).with_name("pyproject.toml"))

# The tests of cancel_everywhere itself have processes of their own: they watch everything that a process has open.
TOOL = "tests/testing/cancelling"


@nox.session
def lint(session: nox.Session) -> None:
    """Rules and formatting.  To mend: ``ruff check --fix . && ruff format .``"""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """What the annotations say holds, and every public name has one (less than 100 % is a failure)."""
    session.run("mypy", "--strict", "trioqt", "tests", "examples", "docs/howto", "docs/blocks.py", "docs/qt_names.py")
    session.run("pyright", "--verifytypes", "trioqt", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, into docs/_build/html, and a browser looks at all of it; a warning is a failure.

    That no block is behind its file is a test of ``tests/test_docs.py``.
    """
    site = Path("docs/_build/html").absolute()
    session.run("sphinx-build", "-q", "-E", "-W", "--keep-going", "docs", str(site))
    session.run("pytest", "-q", "tests/test_site.py", *session.posargs, env={"TRIOQT_SITE": str(site)})


@nox.session
def examples(session: nox.Session) -> None:
    """Every example runs."""
    session.run("pytest", "tests/test_examples.py", *session.posargs)


@nox.session(default=False)
def conformance(session: nox.Session) -> None:
    """trioqt beside what the real Qt did; with ``-- --live`` beside a PySide6 that runs now.  Part of ``tests``."""
    if "--live" in session.posargs:
        session.run("python", "-m", "tests.conformance", *session.posargs)
    else:
        session.run("pytest", "-n", "2", "tests/conformance", *session.posargs)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """What takes too long for every day.

    The tests of sockets with five other lots, twenty hosts replayed in ten processes, each conformance scenario twenty
    times, a Ctrl-C at every line of every scenario of cancellation, 11,000 clients that leave at once, an hour of the
    model of a socket, and the figures of the network.
    """
    soaking = {"TRIOQT_SOAK": "9"}
    for lot in "12345":
        session.run("pytest", "-n", "2", "tests/sockets", *session.posargs, env={"TRIOQT_LOT": lot})
    session.run("pytest", "tests/testing/simulation/test_twenty_hosts.py", *session.posargs, env=soaking)
    session.run("pytest", "tests/conformance", "-k", "every_time", *session.posargs, env=soaking)
    session.run("pytest", "-n", "2", "tests/cancel/test_every_line.py", *session.posargs, env=soaking)
    session.run("pytest", "tests/testing/test_every_coroutine.py", "-k", "interrupted", *session.posargs, env=soaking)
    session.run("pytest", "tests/sockets/test_subscription.py", "-k", "only_reads", *session.posargs, env=soaking)
    session.run("pytest", "-n", "2", "tests/model", *session.posargs, env={"TRIOQT_MODEL": "60"})
    session.run("python", "benchmarks/network.py")


@nox.session(default=False)
def chaos(session: nox.Session) -> None:
    """What goes wrong in networks, on purpose; ``-- --peers`` puts others beside.  A part of it is in ``tests``."""
    session.run("python", "-m", "benchmarks.chaos", *session.posargs)


@nox.session(default=False)
def others(session: nox.Session) -> None:
    """Test suites of other people, unmodified, on a simulated network; the first time, pip fetches them."""
    session.run("python", "-m", "tests.others", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """trioqt's speed beside raw trio, anyio, asyncio, uvloop, PySide6 and bare epoll; ``-- --quick`` is short."""
    session.run("python", "-m", "benchmarks.speed", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All other tests, and which of them were slowest; those of sockets once more, and somebody listens to each."""
    if not session.posargs:
        session.run("python", "-m", "pytest", "-n", "2", "--tb=short", "tests/sockets", "--watched")
        session.run("python", "-m", "pytest", "-n", "2", TOOL)
    slowest = ("--durations=10", "--durations-min=0.5")
    rest = session.posargs or [f"--ignore={TOOL}"]
    # Half of their time goes by in other programs, so two cores have enough to do for four of them.
    session.run(
        "python",
        "-m",
        "pytest",
        "-n",
        "4",
        "--tb=short",
        "--ignore=tests/test_examples.py",
        "--ignore=tests/test_site.py",
        *slowest,
        *rest,
    )


@nox.session
def minima(session: nox.Session) -> None:
    """The README's demo, and the tests of core, links and cli, with the oldest releases that pyproject.toml allows."""
    project = PYPROJECT["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["cli"]]
    python = environment(session, "minima", sys.executable, *map(minimum, declared))
    session.run(python, "-m", "trioqt", "demo")
    folders = ("tests/core", "tests/links", "tests/cli")
    session.run(python, "-m", "pytest", "-n", "2", *folders, *session.posargs)


@nox.session
def pythons(session: nox.Session) -> None:
    """The tests of core, links and sockets, with each other Python that we claim to run on and this machine has."""
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in nox.project.python_versions(PYPROJECT):
        if version == this:
            continue
        if (found := find_python(version)) is None:
            session.log(f"Python {version}: there is none on this machine")
            continue
        python = environment(session, f"python{version}", found)
        folders = ("tests/core", "tests/links", "tests/sockets")
        session.run(python, "-m", "pytest", "-n", "2", "--tb=short", "-m", "not once", *folders, *session.posargs)


@nox.session(default=False)
def stranger(session: nox.Session) -> None:
    """README, tutorial, lessons and how-to to the letter, from a clean clone and from a wheel, with each Python here.

    It follows what is committed, makes fresh environments, and so needs the net.  The tutorial is in ``tests``, too.
    """
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in nox.project.python_versions(PYPROJECT):
        python = sys.executable if version == this else find_python(version)
        if python is None:
            session.log(f"Python {version}: there is none on this machine")
            continue
        for source in ("clone", "wheel"):
            session.run("python", "-m", "tests.stranger", "--python", python, "--from", source)


# ---- how -----------------------------------------------------------------------------------


def minimum(requirement: str) -> str:
    """``trio == 0.31`` of ``trio >= 0.31``.

    Raises: ValueError if it has not just such a minimum, which could not be tried.
    """
    if not re.fullmatch(r"[\w.-]+(\[[\w,-]+\])? >= [\d.]+", requirement):
        raise ValueError(f"a requirement is like 'trio >= 0.31', not {requirement!r}")
    return requirement.replace(">=", "==")


def environment(session: nox.Session, name: str, python: str, *requirements: str) -> str:
    """The Python of the environment of that name, which has trioqt, its command, and what its tests need.

    Made if there is none, if the last attempt failed, or if it was made for something else.
    """
    place = Path(".nox", name).absolute()
    recipe = json.dumps([str(place), python, requirements, PYPROJECT["build-system"], PYPROJECT["project"]], indent=1)
    made_for = place / "made-for.json"
    inside = str(place / "bin" / "python")
    if not made_for.is_file() or made_for.read_text(encoding="utf-8") != recipe:
        # Not venv, which Debian's Pythons do not always have; virtualenv comes with nox.
        session.run(sys.executable, "-m", "virtualenv", "-q", "--clear", "-p", python, str(place))
        session.run(inside, "-m", "pip", "install", "-q", "-e", ".[cli,test]", *requirements)
        made_for.write_text(recipe, encoding="utf-8")
    return inside


def find_python(version: str) -> str | None:
    """A Python of that version, on PATH or of pyenv."""
    return next((path for path in places_of(version) if reports(path, version)), None)


def places_of(version: str) -> Iterator[str]:
    """Where there may be one; of pyenv's, the newest first."""
    for folder in os.environ["PATH"].split(os.pathsep):
        yield os.path.join(folder, f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    releases = [path for path in pyenv.glob(f"versions/{version}.*") if re.fullmatch(r"[\d.]+", path.name)]
    for release in sorted(releases, key=lambda path: int(path.name.rpartition(".")[2]), reverse=True):
        yield str(release / "bin" / f"python{version}")


def reports(path: str, version: str) -> bool:
    """Tried, because pyenv puts programs on PATH that only say that such a Python is not chosen."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([path, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError:
        return False
    return (done.returncode, done.stdout) == (0, f"{version}\n")
