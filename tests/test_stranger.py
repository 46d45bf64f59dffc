"""The tutorial, followed to the letter; ``nox -s stranger`` does so in fresh environments, other pages too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests import stranger
from tests.stranger import Fence, LostError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def environment() -> dict[str, str]:
    """Activated, as the tutorial says."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def test_the_tutorial_can_be_followed_to_the_letter(tmp_path: Path, environment: dict[str, str]) -> None:
    """Each file is saved, each command typed, and what is printed is what the page shows."""
    page = (ROOT / "docs" / "tutorial.md").read_text()
    saved = {fence.file for fence in stranger.fences(page) if fence.file}

    count = stranger.walk(page, tmp_path, environment)

    assert count == 14
    assert {path.name for path in (ROOT / "docs" / "tutorial").glob("*.py")} <= saved


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```sh\necho one\n```\n\n```text\ntwo\n```\n", r"\$ echo one\nprinted\none\nand not\ntwo"),
        ("```sh\nexit 3\n```\n", r"\$ exit 3\nended with status 3"),
        (
            "Save this as `quits.py`:\n\n```python\n# server.listen(\n```\n\n```sh\npython quits.py\n```\n",
            "does not listen on port 4000",
        ),
    ],
)
def test_a_page_that_says_what_is_not_so_is_told_of(
    tmp_path: Path, environment: dict[str, str], page: str, complaint: str
) -> None:
    """Another output, a command that fails, and a server that does not serve."""
    with pytest.raises(LostError, match=complaint):
        stranger.walk(page, tmp_path, environment)


def test_a_page_is_taken_apart() -> None:
    """What a block is to be saved as stands in the sentence above it, whatever comments are between."""
    page = "Save this as `a.py`, beside `b.py`:\n\n<!-- code: a.py -->\n\n```python\nx = 1\n```\n\n```sh\nls\n```\n"

    assert stranger.fences(page) == [Fence("python", "x = 1\n", "a.py"), Fence("sh", "ls\n", None)]


def test_commands_that_are_left_out_are_those_of_the_readme() -> None:
    """Each is a session of its own, which takes minutes; none is left out that the page has no longer."""
    readme = stranger.fences((ROOT / "README.md").read_text())
    commands = {line for fence in readme if fence.language == "sh" for line in fence.text.splitlines()}

    assert commands - stranger.LEFT_OUT.keys() == {
        "python3 -m venv .venv && .venv/bin/pip install -e '.[cli]' && .venv/bin/trioqt demo"
    }
    assert stranger.LEFT_OUT.keys() <= commands
