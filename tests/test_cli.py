"""The command as a whole: what it says without its extra, of itself, and to a stdout that takes nothing."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from tests.cli.commands import run_trioqt

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from trioqt.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["click", "rich"])
async def test_without_the_extra_one_line_says_what_to_install(module: str) -> None:
    """The library needs neither; the command says how to get both, in a clone too, and ends with status 1."""
    command = [sys.executable, "-W", "error", "-c", WITHOUT.format(module=module)]

    ended = await run_trioqt("demo", command=command)

    message = (
        b"trioqt: the command line needs click and rich:"
        b" pip install 'trioqt[cli]', or in a clone pip install -e '.[cli]'\n"
    )
    assert (ended.status, ended.out, ended.err) == (1, b"", message)


async def test_a_module_of_trioqt_that_is_missing_is_no_matter_of_the_extra() -> None:
    """Whatever else cannot be imported is shown as it is, not taken for a missing extra."""
    command = [sys.executable, "-W", "error", "-c", WITHOUT.format(module="attrs")]

    ended = await run_trioqt("states", command=command)

    assert ended.status == 1
    assert b"No module named 'attrs'" in ended.err
    assert b"trioqt[cli]" not in ended.err


async def test_the_help_names_every_command() -> None:
    """And each says what it does in a line."""
    ended = await run_trioqt("--help")

    assert (ended.status, ended.err) == (0, b"")
    listed = ended.out.decode().partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == ["connect", "demo", "serve", "states"]
    assert all(len(line.split()) > 2 and not line.endswith("...") for line in listed)


async def test_the_entry_point_and_the_version_are_those_of_the_package() -> None:
    """``trioqt --version`` says what pip says, and pip's ``trioqt`` is ``python -m trioqt``."""
    ended = await run_trioqt("--version")

    version = importlib.metadata.version("trioqt")
    scripts = importlib.metadata.distribution("trioqt").entry_points.select(group="console_scripts")
    (entry,) = [script.value for script in scripts]
    assert (ended.status, ended.out.decode(), ended.err) == (0, f"trioqt, version {version}\n", b"")
    assert entry == "trioqt.__main__:main"


@pytest.mark.parametrize("arguments", ["--help", "states", "states --help"])
async def test_a_full_disk_is_told_in_one_line(arguments: str) -> None:
    """What cannot be printed is an error, told once, not a traceback at the interpreter's end."""
    command = ["sh", "-c", f'exec "$@" {arguments} > /dev/full', "sh", sys.executable, "-W", "error", "-m", "trioqt"]

    ended = await run_trioqt(command=command)

    assert (ended.status, ended.err) == (1, b"Error: No space left on device\n")
