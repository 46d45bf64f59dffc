"""All tasks of a run as text: who started whom, and the line at which each stands.

Trio tells of a task its nurseries, and of a nursery its tasks, as a set.  They are printed in the order of birth, so
the text of a replayed run is the same, letter for letter.
"""

from __future__ import annotations

import functools
import linecache
import os
import sys
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

import trio

from trioqt.testing.simulation.determinism import birth_number
from trioqt.testing.simulation.places import place

__all__ = ["all_tasks", "children_of", "main_tasks", "task_tree"]

Task = trio.lowlevel.Task

_THIS_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_TRIO = os.path.dirname(trio.__file__) + os.sep
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep


def task_tree(*, limit: int = 100, raised: BaseException | None = None) -> str:
    """The tasks of this run, one a line, each below the one that opened its nursery.

    A line has the task's name and where it stands: its innermost line that is not trio's, this package's or the
    standard library's, or else the function it was started with.  System tasks are left out unless they run such a
    line.  To be called within `trio.run`, by a task or an instrument.

    Args:
      limit: So many tasks at most; a last line says how many are left out.
      raised: An exception that the calling task is about to raise: it stands where that came from.
    """
    mains = main_tasks()
    raising = None if raised is None else _running_task()
    stack = [(task, "", "") for task in reversed(_top()) if task in mains or _own_line(task)]
    rows: list[tuple[str, str]] = []
    left_out = 0
    while stack:
        task, lead, branch = stack.pop()
        if len(rows) < limit:
            rows.append((lead + branch + _short_name(task), _where(task, raised if task is raising else None)))
        else:
            left_out += 1
        children = [child for child in children_of(task) if not _is_of_this_package(child)]
        below = lead + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        branches = ["├─ "] * (len(children) - 1) + ["└─ "]
        stack += reversed([(child, below, mark) for child, mark in zip(children, branches, strict=False)])
    width = max((len(head) for head, _ in rows), default=0)
    lines = [f"{head:<{width}}  {where}" for head, where in rows]
    return "\n".join([*lines, f"and {left_out:,} more"] if left_out else lines)


def all_tasks() -> Iterator[Task]:
    """Every task of this run, trio's own too, parents first, and the eldest child before its siblings."""
    stack = list(reversed(_top()))
    while stack:
        task = stack.pop()
        yield task
        stack += reversed(children_of(task))


def main_tasks() -> list[Task]:
    """The one task that ``trio.run`` was called for; none when it is over."""
    root = trio.lowlevel.current_root_task()
    # The root has a nursery for callbacks, in it one for system tasks, in that one for main.
    if root is None or len(root.child_nurseries) < 3:
        return []
    return list(root.child_nurseries[2].child_tasks)


def children_of(task: Task) -> list[Task]:
    """The tasks in the nurseries that ``task`` has open, the eldest first."""
    return sorted((child for nursery in task.child_nurseries for child in nursery.child_tasks), key=birth_number)


def _top() -> list[Task]:
    root = trio.lowlevel.current_root_task()
    return [] if root is None else children_of(root)


def _short_name(task: Task) -> str:
    return task.name if " " in task.name else task.name.rpartition(".")[2]


def _where(task: Task, raised: BaseException | None) -> str:
    line = _own_line(task) if raised is None else _origin(raised)
    if line is not None:
        file, number, function = line
        source = linecache.getline(file, number).strip()
        return place(file, number, function) + (f": {source}" if source else "")
    for frame, _ in _frames(task):
        return f"in {frame.f_code.co_qualname}"
    return "ending"


def _running_task() -> Task | None:
    try:
        return trio.lowlevel.current_task()
    except RuntimeError:
        return None


def _origin(exc: BaseException) -> tuple[str, int, str] | None:
    own = None
    for frame, number in traceback.walk_tb(exc.__traceback__):
        if not _is_machinery(frame.f_code.co_filename):
            own = (frame.f_code.co_filename, number, frame.f_code.co_name)
    return own


def _is_of_this_package(task: Task) -> bool:
    """Whether the task works for the tool, as the simulated network's does, and not for the code under test."""
    files = [frame.f_code.co_filename for frame, _ in _frames(task)]
    return bool(files) and files[0].startswith(_THIS_PACKAGE) and not _own_line(task) and not task.child_nurseries


def _frames(task: Task) -> Iterator[tuple[FrameType, int]]:
    """As `trio.lowlevel.Task.iter_await_frames`, from the outermost.

    That asks a coroutine what it awaits, which must not be asked of one that runs: CPython 3.11 looks for it beyond its
    stack then, and crashes now and again.  Where it stands is on the stack of calls.
    """
    coro: Any = task.coro
    if not getattr(coro, "cr_running", False):
        yield from task.iter_await_frames()
        return
    found: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        found.append(frame)
        if frame is coro.cr_frame:
            break
        frame = frame.f_back
    else:
        found = []  # it runs in another thread
    yield from ((each, each.f_lineno) for each in reversed(found))


@functools.cache
def _is_machinery(file: str) -> bool:
    """Whether lines of ``file`` say nothing about the code under test."""
    return file.startswith((_THIS_PACKAGE, _TRIO)) or (
        file.startswith(_STANDARD_LIBRARY) and f"{os.sep}site-packages{os.sep}" not in file
    )


def _own_line(task: Task) -> tuple[str, int, str] | None:
    own = None
    for frame, number in _frames(task):
        if not _is_machinery(frame.f_code.co_filename):
            own = (frame.f_code.co_filename, number, frame.f_code.co_name)
    return own
