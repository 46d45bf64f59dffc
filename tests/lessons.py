"""The lessons of examples/lessons, run: what they print, what their answers print, and the picture of each.

``python -m tests.lessons`` writes what they print into the files that the tests compare it with.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import re
from pathlib import Path
from unittest import mock

import attrs

import trioqt.testing
from trioqt.testing import VirtualNetwork

__all__ = ["ANSWERS", "FOLDER", "LESSONS", "Outcome", "answer_to", "lesson", "patched", "play"]

FOLDER = Path(__file__).parents[1] / "examples" / "lessons"
ANSWERS = FOLDER / "answers"
# In the order in which docs/lessons.md teaches them.
LESSONS = (
    "no_messages",
    "half_close",
    "back_pressure",
    "fin_and_rst",
    "cancelled_send",
    "one_bad_handler",
    "partition",
    "lost_syn",
)


@attrs.frozen
class Outcome:
    """What a lesson came to."""

    printed: str
    picture: str
    """The ladder that it prints, as an SVG."""


def play(text: str, *, seed: int = 0) -> Outcome:
    """Run the text of a lesson as a script, with the tasks in the order of that seed."""
    simulate, ladder = functools.partial(trioqt.testing.simulate, seed=seed), VirtualNetwork.ladder
    pictures: list[str] = []

    def draw_too(net: VirtualNetwork) -> str:
        pictures.append(ladder(net, "svg"))
        return ladder(net)

    printed = io.StringIO()
    disabled = logging.root.manager.disable
    logging.disable()  # one lesson is about a bug, which is logged
    try:
        with (
            mock.patch.object(trioqt.testing, "simulate", simulate),
            mock.patch.object(VirtualNetwork, "ladder", draw_too),
            contextlib.redirect_stdout(printed),
        ):
            exec(compile(text, "lesson", "exec"), {"__name__": "__main__"})
    finally:
        logging.disable(disabled)
    (picture,) = pictures
    return Outcome(printed.getvalue(), picture)


def lesson(name: str) -> str:
    """Its text."""
    return (FOLDER / f"{name}.py").read_text()


def answer_to(name: str) -> str:
    """The text of a lesson as the answer to its exercise changes it."""
    return patched(lesson(name), (ANSWERS / f"{name}.diff").read_text())


def patched(text: str, diff: str) -> str:
    """What ``git apply`` makes of it.  Raises: ValueError if the diff is not for just this text."""
    old = text.splitlines(keepends=True)
    new: list[str] = []
    done = 0
    for hunk in re.split(r"^(?=@@ )", diff, flags=re.MULTILINE)[1:]:
        head, *lines = hunk.splitlines(keepends=True)
        match = re.match(r"@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@", head)
        if match is None:
            raise ValueError(f"{head!r} begins no hunk")
        start = int(match[1]) - 1
        new += old[done:start]
        done = start
        for line in lines:
            if line[0] != "+":
                if done == len(old) or old[done] != line[1:]:
                    raise ValueError(f"the diff is not for this text: line {done + 1} is not {line[1:]!r}")
                done += 1
            if line[0] != "-":
                new.append(line[1:])
    return "".join(new + old[done:])


def main() -> None:
    """Write what they print."""
    for name in LESSONS:
        (FOLDER / f"{name}.txt").write_text(play(lesson(name)).printed)
        (ANSWERS / f"{name}.txt").write_text(play(answer_to(name)).printed)


if __name__ == "__main__":
    main()
