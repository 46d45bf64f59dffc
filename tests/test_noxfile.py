"""What noxfile.py does besides running commands: which Pythons it finds, which releases it asks for, what it keeps."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import attrs
import nox
import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.setattr(os, "environ", os.environ.copy())  # it changes PATH, for its sessions
    import noxfile

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

A_PYTHON = f'exec {sys.executable} "$@"'
A_SHIM = "echo pyenv: command not found >&2; exit 127"
ANOTHER_VERSION = "echo 2.7"


# ---- Pythons -------------------------------------------------------------------------------

Put = Callable[[str, str], str]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts a program where a Python may be, and gives its path; there are no others."""
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / folder) for folder in ("shims", "bin")))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))

    def put(folder: str, script: str) -> str:
        program = tmp_path / folder / f"python{VERSION}"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        return str(program)

    return put


def test_the_first_python_on_path_that_runs_is_found(put: Put) -> None:
    """A shim of pyenv's comes before it, and only says that it cannot run."""
    put("shims", A_SHIM)
    there = put("bin", A_PYTHON)
    put(f"versions/{VERSION}.1/bin", A_PYTHON)

    assert noxfile.find_python(VERSION) == there


def test_else_the_newest_of_pyenv_is_found(put: Put) -> None:
    """By its number, not by its spelling; what is no plain release is left alone."""
    put("shims", A_SHIM)
    put("bin", ANOTHER_VERSION)
    put(f"versions/{VERSION}.9/bin", A_PYTHON)
    newest = put(f"versions/{VERSION}.10/bin", A_PYTHON)
    put(f"versions/{VERSION}.11/bin", ANOTHER_VERSION)
    put(f"versions/{VERSION}.12t/bin", A_PYTHON)

    assert noxfile.find_python(VERSION) == newest


def test_without_any_none_is_found(put: Put) -> None:
    """Nor is a file that is no program."""
    put("shims", A_SHIM)
    os.chmod(put("bin", A_PYTHON), 0o644)

    assert noxfile.find_python(VERSION) is None


# ---- releases ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "oldest"),
    [("trio >= 0.31", "trio == 0.31"), ("anyio[trio] >= 4.9.1", "anyio[trio] == 4.9.1")],
)
def test_the_minimum_of_a_requirement(declared: str, oldest: str) -> None:
    """The oldest release that it allows."""
    assert noxfile.minimum(declared) == oldest


@pytest.mark.parametrize(
    "declared", ["trio", "trio>=0.31", "trio ~= 0.31", "trio >= 0.31, < 1", "trio >= 0.31; python_version < '3.12'"]
)
def test_a_requirement_without_one_minimum_is_refused(declared: str) -> None:
    """Nothing is left untried in silence."""
    with pytest.raises(ValueError, match="a requirement is like"):
        noxfile.minimum(declared)


# ---- environments --------------------------------------------------------------------------


@attrs.define
class Recorder:
    """A session that makes no environment but an empty folder, and fails if told."""

    commands: list[list[str]] = attrs.Factory(list)
    failing: bool = False

    def run(self, *command: str) -> None:
        self.commands.append([*command])
        if "virtualenv" in command:
            shutil.rmtree(command[-1], ignore_errors=True)
            Path(command[-1]).mkdir(parents=True)
        elif self.failing:
            raise RuntimeError("no net")

    def environment(self, *arguments: str) -> int:
        """How many commands it took."""
        self.commands.clear()
        noxfile.environment(cast(nox.Session, self), "oldest", *arguments)
        return len(self.commands)


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is used as it is, so that no net is needed."""
    monkeypatch.chdir(tmp_path)
    session = Recorder()

    python = noxfile.environment(cast(nox.Session, session), "oldest", "/usr/bin/python3", "trio == 0.31")

    place = tmp_path / ".nox" / "oldest"
    assert python == str(place / "bin" / "python")
    assert session.commands == [
        [sys.executable, "-m", "virtualenv", "-q", "--clear", "-p", "/usr/bin/python3", str(place)],
        [python, "-m", "pip", "install", "-q", "-e", ".[cli,test]", "trio == 0.31"],
    ]
    assert session.environment("/usr/bin/python3", "trio == 0.31") == 0


def test_an_environment_for_something_else_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For another Python, other releases, or another pyproject.toml, as far as it says what is installed."""
    monkeypatch.chdir(tmp_path)
    session = Recorder()
    project: dict[str, Any] = noxfile.PYPROJECT["project"]
    took = [session.environment("python3", "trio == 0.31")]

    took.append(session.environment("python4", "trio == 0.31"))
    took.append(session.environment("python4", "trio == 0.32"))
    monkeypatch.setitem(project, "dependencies", ["trio >= 0.33"])
    took.append(session.environment("python4", "trio == 0.32"))
    monkeypatch.setitem(noxfile.PYPROJECT, "tool", {"ruff": {}})
    took.append(session.environment("python4", "trio == 0.32"))

    assert took == [2, 2, 2, 2, 0]


def test_an_environment_that_could_not_be_filled_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half of one is never used, whatever it is wanted for."""
    monkeypatch.chdir(tmp_path)
    session = Recorder()
    session.environment("python3")
    session.failing = True
    with pytest.raises(RuntimeError, match="no net"):
        session.environment("python4")

    session.failing = False

    assert [session.environment("python3"), session.environment("python3")] == [2, 0]
