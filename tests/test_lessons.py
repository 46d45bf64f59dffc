"""The lessons print what stands beside them, on every machine and in every order of tasks; so do their answers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.lessons import ANSWERS, FOLDER, LESSONS, answer_to, lesson, patched, play
from trioqt.testing.simulation import simulate as simulation

SEEDS = range(20)

each_lesson = pytest.mark.parametrize("name", LESSONS)


@each_lesson
def test_a_lesson_is_short_and_says_what_one_will_see_and_what_to_try(name: str) -> None:
    """Under 60 lines; a docstring with "will see" and an exercise; ``main`` is the last function."""
    text = lesson(name)
    module = ast.parse(text)
    functions = [node.name for node in module.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    docstring = ast.get_docstring(module) or ""

    assert text.count("\n") < 60
    assert re.search(r"will\s+see", docstring)
    assert docstring.count("\n\nExercise: ") == 1
    assert functions[-1] == "main"


@each_lesson
def test_a_lesson_prints_what_stands_beside_it_in_every_order_of_tasks(name: str) -> None:
    """Twenty orders, one text, and its last part is the sequence diagram."""
    expected = (FOLDER / f"{name}.txt").read_text()

    assert {play(lesson(name), seed=seed).printed for seed in SEEDS} == {expected}
    said, ladder = expected.split("\n\n")
    assert said
    assert re.match(r" +time  arrives  +\w+ +server", ladder)


@each_lesson
def test_an_answer_prints_what_stands_beside_it_in_every_order_of_tasks(name: str) -> None:
    """The answer is a diff for the lesson; what it prints is another text than the lesson's."""
    expected = (ANSWERS / f"{name}.txt").read_text()

    assert {play(answer_to(name), seed=seed).printed for seed in SEEDS} == {expected}
    assert expected != (FOLDER / f"{name}.txt").read_text()


@each_lesson
def test_a_lesson_needs_no_pinned_scheduler(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With trio's own lot, which no seed decides, it prints the same."""

    @contextmanager
    def unpinned() -> Iterator[Callable[[int], None]]:
        yield lambda seed: None

    monkeypatch.setattr(simulation, "pinned_scheduler", unpinned)

    for text, expected in (
        (lesson(name), (FOLDER / f"{name}.txt").read_text()),
        (answer_to(name), (ANSWERS / f"{name}.txt").read_text()),
    ):
        assert {play(text).printed for _ in range(5)} == {expected}


@each_lesson
def test_the_page_for_teachers_shows_a_lesson_whole(name: str) -> None:
    """Its program, what it prints, its picture, its exercise, and the answer; and how long it takes."""
    sections = re.split(r"^## ", (FOLDER.parents[1] / "docs" / "lessons.md").read_text(), flags=re.MULTILINE)
    (section,) = (each for each in sections if f"code: examples/lessons/{name}.py " in each)
    title = section.partition("\n")[0]
    (minutes,) = re.findall(r"^\*(\d+) minutes\.\*$", section, re.MULTILINE)

    assert f"code: examples/lessons/{name}.txt " in section
    assert f"code: examples/lessons/answers/{name}.diff " in section
    assert f"(_static/pictures/{name}.svg)" in section
    assert section.index("**Exercise.**") < section.index("**Answer.**")
    assert re.search(rf"^\| \[{title}\]\(#[a-z-]+\) \| .+ \| {minutes} \|$", sections[0], re.MULTILINE)


def test_the_page_for_teachers_has_them_in_order() -> None:
    """As ``LESSONS`` has."""
    page = (FOLDER.parents[1] / "docs" / "lessons.md").read_text()

    assert re.findall(r"code: examples/lessons/(\w+)\.py", page) == list(LESSONS)


def test_every_file_of_the_folder_is_a_lesson_or_belongs_to_one() -> None:
    """A program with its output, and the answer's diff with its output; nothing else, and nothing is missing."""
    found = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    found = {name for name in found if "__pycache__" not in name}

    assert found == {
        each
        for name in LESSONS
        for each in (f"{name}.py", f"{name}.txt", f"answers/{name}.diff", f"answers/{name}.txt")
    }


def test_a_lesson_prints_it_as_a_script_too() -> None:
    """As a class runs it: status 0, and the log's traceback on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / "one_bad_handler.py")], capture_output=True, text=True
    )

    assert (done.returncode, done.stdout) == (0, (FOLDER / "one_bad_handler.txt").read_text())
    assert done.stderr.rstrip().endswith("ZeroDivisionError: integer division or modulo by zero")


@each_lesson
def test_the_picture_of_a_lesson_is_the_ladder_that_it_prints(name: str) -> None:
    """Word for word."""
    outcome = play(lesson(name))
    svg = ElementTree.fromstring(outcome.picture)
    texts = ["".join(each.itertext()) for each in svg.iter("{http://www.w3.org/2000/svg}text")]
    ladder = outcome.printed.split("\n\n")[1].rstrip()

    heads, *lines = ladder.splitlines()
    assert set(heads.split()) <= set(texts)
    assert [text for text in texts if text not in ladder] == []
    times = [text for text in texts if re.fullmatch(r"\d+\.\d{3}|lost", text)]
    assert times == [word for line in lines for word in re.findall(r"\d+\.\d{3}|(?<= )lost(?= )", line)]


# ---- diffs -------------------------------------------------------------------------------------

TEXT = "".join(f"{number}\n" for number in range(1, 21))
DIFF = """--- a/x
+++ b/x
@@ -1,3 +1,2 @@
 1
-2
 3
@@ -18,3 +17,4 @@
 18
-19
+nineteen
 20
+21
"""


def test_a_diff_is_applied() -> None:
    """What is taken away, what is put there, and what is between two hunks."""
    lines = patched(TEXT, DIFF).split()

    assert lines == ["1", *(str(number) for number in range(3, 19)), "nineteen", "20", "21"]


@pytest.mark.parametrize(
    ("text", "diff"),
    [(TEXT.replace("18", "eighteen"), DIFF), (TEXT[:-3], DIFF), (TEXT, DIFF.replace("@@ -18,3", "@@ what"))],
)
def test_a_diff_for_another_text_is_refused(text: str, diff: str) -> None:
    """So a lesson that changes takes its answer with it."""
    with pytest.raises(ValueError, match=r"the diff is not for this text|begins no hunk"):
        patched(text, diff)
