"""The checks.  ``nox`` runs them all, in this order, and stops at the first that fails.

There is one environment: the one that nox itself runs in (README, Set up).  A session installs nothing, so after the
first installation everything works offline.  ``nox -s tests -- -k half_close`` hands the rest to pytest.
"""

import os
import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.stop_on_first_error = True

# `.venv/bin/nox` works without activating .venv.  pyright, too, finds trioqt by the first python on PATH: it does not
# look at --pythonpath when it verifies types.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# The node that is installed with pyright, and no look on the net for a newer pyright.
os.environ |= {"PYRIGHT_PYTHON_GLOBAL_NODE": "off", "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}


@nox.session
def lint(session: nox.Session) -> None:
    """Rules and formatting.  To mend: ``ruff check --fix . && ruff format .``"""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """What the annotations say holds, and every public name has one (less than 100 % is a failure)."""
    session.run("mypy", "--strict", "trioqt", "tests", "examples")
    session.run("pyright", "--verifytypes", "trioqt", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, into docs/_build/html.  A warning is a failure."""
    session.run("sphinx-build", "-q", "-E", "-W", "--keep-going", "docs", "docs/_build/html")


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

    Twenty hosts replayed in ten processes, each conformance scenario twenty times, and the figures of the network.
    """
    soaking = {"TRIOQT_SOAK": "9"}
    session.run("pytest", "tests/testing/simulation/test_twenty_hosts.py", *session.posargs, env=soaking)
    session.run("pytest", "tests/conformance", "-k", "every_time", *session.posargs, env=soaking)
    session.run("python", "benchmarks/network.py")


@nox.session(default=False)
def chaos(session: nox.Session) -> None:
    """What goes wrong in networks, on purpose; ``-- --peers`` puts others beside.  A part of it is in ``tests``."""
    session.run("python", "-m", "benchmarks.chaos", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All other tests, and which of them were slowest.

    Those of cancel_everywhere itself have processes of their own: they watch everything that a process has open.
    """
    tool = "tests/testing/cancelling"
    if not session.posargs:
        session.run("pytest", "-n", "2", tool)
    rest = ("--ignore=tests/test_examples.py", *(session.posargs or [f"--ignore={tool}"]))
    session.run("pytest", "-n", "2", "--tb=short", "--durations=10", "--durations-min=0.5", *rest)
