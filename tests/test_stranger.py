"""The tutorial, followed to the letter; ``nox -s stranger`` follows the other pages too, in fresh environments."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from docs import blocks
from tests import stranger
from tests.stranger import Fence, LostError
from tests.unused_ports import unused_port

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/index.md", "docs/tutorial.md", "docs/lessons.md"]
PAGES += [f"docs/howto/{path.name}" for path in sorted((ROOT / "docs" / "howto").glob("*.md"))]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.fixture
def environment() -> dict[str, str]:
    """Activated, as the tutorial says."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
def port() -> str:
    """In place of 4000, where somebody else on this machine may listen."""
    return str(unused_port())


def test_the_tutorial_can_be_followed_to_the_letter(tmp_path: Path, environment: dict[str, str], port: str) -> None:
    """Each file is saved, each command typed, and what is printed is what the page shows."""
    page = text_of("docs/tutorial.md").replace("4000", port)
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
            'Save this as `quits.py`:\n\n```python\n# server.listen("127.0.0.1", 4000)\n```\n\n'
            "```sh\npython quits.py\n```\n",
            "does not listen on port 4000",
        ),
    ],
)
def test_a_page_that_says_what_is_not_so_is_told_of(
    tmp_path: Path, environment: dict[str, str], port: str, page: str, complaint: str
) -> None:
    """Another output, a command that fails, and a server that does not serve."""
    with pytest.raises(LostError, match=complaint.replace("4000", port)):
        stranger.walk(page.replace("4000", port), tmp_path, environment)


def test_a_page_is_taken_apart() -> None:
    """What a block is to be saved as stands in the sentence above it, what it was written from in the comment."""
    page = "Save this as `a.py`, beside `b.py`:\n\n<!-- code: a.py -->\n\n```python\nx = 1\n```\n\n<!-- end -->\n\n"
    page += "Type `trioqt states`, or `this`:\n\n```sh\nls\n```\n"

    assert stranger.fences(page) == [
        Fence("python", "x = 1\n", "a.py", blocks.Block("code", ("a.py",))),
        Fence("sh", "ls\n"),
    ]
    assert stranger.inline_commands(page) == ["trioqt states"]


@pytest.mark.parametrize("page", PAGES)
def test_everything_on_a_page_is_done_or_has_a_reason(page: str) -> None:
    """Each block, and each command within a sentence."""
    assert stranger.doings(page, text_of(page)) != []


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```text\nsomething = 1\n```\n", "the block that begins with 'something = 1'"),
        ("```cpp\nint x;\n```\n", "the block that begins with 'int x;'"),
        ("Type `trioqt states`.\n", "what is to be done with `trioqt states`"),
    ],
)
def test_a_block_that_nobody_does_is_told_of(page: str, complaint: str) -> None:
    """So a page that gets one makes this fail until it is done, or listed."""
    with pytest.raises(LostError, match=complaint):
        stranger.doings("docs/howto/new.md", page)


def test_what_is_shortened_or_left_out_is_still_on_the_pages() -> None:
    """Each by its name, so that no reason outlives what it was for."""
    typed = {line for page in PAGES for fence in stranger.fences(text_of(page)) for line in fence.text.splitlines()}
    typed |= {command for page in PAGES for command in stranger.inline_commands(text_of(page))}
    left_out = {(page, command) for page in PAGES for command in stranger.inline_commands(text_of(page))}
    left_out |= {(page, fence.text.partition("\n")[0]) for page in PAGES for fence in stranger.fences(text_of(page))}

    assert stranger.SHORTER.keys() - typed == set()
    assert stranger.INLINE.keys() - typed == set()
    assert stranger.LEFT_OUT.keys() - left_out == set()
