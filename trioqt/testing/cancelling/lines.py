"""Where a Ctrl-C can arrive in a trio program: at any line, and exactly there it is raised.

Trio hears of it in the main thread only, and asks the frames below: in one that is protected it waits for the main
task's next checkpoint, in any other it raises KeyboardInterrupt at once, in whatever task that is.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from types import CodeType, FrameType, ModuleType
from typing import Any, TypeVar

import attrs
import trio

from trioqt.testing.cancelling.report import Boundary, Line, Problem, steady
from trioqt.testing.cancelling.walker import Subject, Task, Walker, name_of, short_name
from trioqt.testing.simulation.watchdog import Watchdog, is_machinery, is_tool

__all__ = ["Code", "Lines", "is_interrupt"]

T = TypeVar("T")

UNHEARD = Problem("swallowed", "nobody has heard of the Ctrl-C")

Way = tuple[tuple[CodeType, int], ...]


@attrs.define(eq=False)
class Code:
    """Whose lines are walked."""

    prefixes: tuple[str, ...]
    """Files, and directories with a separator at the end."""
    _known: dict[str, bool] = attrs.Factory(dict)

    @classmethod
    def of(cls, things: Sequence[ModuleType | str | os.PathLike[str]]) -> Code:
        """Packages, modules, files and directories.  Raises: TypeError, ValueError."""
        prefixes = []
        for thing in things:
            path = getattr(thing, "__file__", None) if isinstance(thing, ModuleType) else os.path.abspath(thing)
            if path is None or not os.path.exists(path):
                raise ValueError(f"no source to walk: {thing!r}")
            if isinstance(thing, ModuleType) and os.path.basename(path) == "__init__.py":
                path = os.path.dirname(path)
            prefixes.append(path + os.sep if os.path.isdir(path) else path)
        return cls(tuple(prefixes))

    def has(self, filename: str) -> bool:
        found = self._known.get(filename)
        if found is None:
            found = filename.startswith(self.prefixes) and not is_tool(filename)
            self._known[filename] = found
        return found


@attrs.define(eq=False, slots=False, kw_only=True)
class Lines(Walker):
    """Places are lines that are about to run; at the one that is asked for a SIGINT arrives.

    A line counts once for each way in which it is reached, which is what decides whether it is protected: the lines of
    all its callers.  So a loop is walked once, and a helper once for each of its callers.
    """

    code: Code
    survives: bool
    """The subject's caller catches the KeyboardInterrupt."""
    groups: bool
    """It may come in a group."""
    main: Task | None = None
    """The task that hears of it."""

    _chosen: list[int] = attrs.Factory(list)
    _ways: set[Way] = attrs.Factory(set)
    _heard: bool = False
    _found: Any = None  # the trace function of a debugger, or of a tool for coverage

    def begin(self) -> None:
        super().begin()
        self.main = trio.lowlevel.current_task()

    async def call(self, fn: Callable[..., Awaitable[T]], args: tuple[object, ...]) -> tuple[T | None, bool]:
        task = trio.lowlevel.current_task()
        if self.survives and task is not self.main:
            raise RuntimeError("only the main task hears of a Ctrl-C: call subject() there, or say survives=False")
        nurseries = task.child_nurseries
        try:
            result = await self._traced(Subject(task, fn), args)
        except BaseException as exc:
            if not is_interrupt(exc):
                await self._hear()
                raise
            if not (self.groups or isinstance(exc, KeyboardInterrupt)):
                self.problems.append(Problem("escaped", f"the KeyboardInterrupt comes out as {exc!r}"))
            if task.child_nurseries != nurseries:
                self.problems.append(Problem("leak", "a nursery left open"))
            if not self.survives:
                raise
            self._heard = True
            return None, True
        if not await self._hear():
            self.problems.append(UNHEARD)
        return result, False

    async def _traced(self, subject: Subject, args: tuple[object, ...]) -> Any:
        self.enter(subject)
        try:
            return await subject.fn(*args)  # type: ignore[misc]
        finally:
            self.leave(subject)

    async def _hear(self) -> bool:
        """A program that survives a Ctrl-C hears of it now; False if it cannot, because there is none any more."""
        if self.hit is not None and self.survives and not self._heard:
            try:
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.checkpoint()
            except KeyboardInterrupt:
                self._heard = True
            return self._heard
        return True

    def chosen(self) -> list[int]:
        return self._chosen

    def may_end_with(self, exc: BaseException) -> bool:
        return self.hit is not None and not self.survives and is_interrupt(exc)

    def interrupted(self) -> bool:
        return self.hit is not None

    def ended_normally(self) -> None:
        if self.hit is not None and not self.survives:
            self.problems.append(UNHEARD)

    # ---- tracing -----------------------------------------------------------------------------------------------

    def enter(self, subject: Subject) -> None:
        if not self._active:
            self._found = sys.gettrace()
            sys.settrace(self._on_call)
        super().enter(subject)

    def leave(self, subject: Subject) -> None:
        super().leave(subject)
        if not self._active:
            sys.settrace(self._found)

    def let_go(self) -> None:
        if self._active:  # the run fell apart
            sys.settrace(self._found)
        super().let_go()
        self._ways.clear()
        self._found = self.main = None

    def _on_call(self, frame: FrameType, event: str, arg: object) -> Any:
        # Also when a coroutine goes on, so tasks that were there before the subject are traced too.
        return self._on_line if self.code.has(frame.f_code.co_filename) else None

    def _on_line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line" and self.hit is None and self._active:
            self._place(frame)
        return self._on_line

    def _place(self, frame: FrameType) -> None:
        task = _current_task()
        if self.points == "subject" and not any(task in subject.family for subject in self._active):
            return
        index = self.next_place()
        self._trace = hash((self._trace, frame.f_code.co_name, frame.f_lineno))
        if self.target is None:
            self.traces.append(self._trace)
            way = tuple((caller.f_code, caller.f_lineno) for caller in _callers(frame))
            if way not in self._ways:
                self._ways.add(way)
                self._chosen.append(index)
        elif index == self.target:
            self.traces.append(self._trace)
            name = "trio" if task is None else steady(short_name(task.name))
            self.strike(Boundary(index, "line", name, name_of(self._active[-1].fn), self._stack(frame)))
            # Python forgets a trace function that raises, so the next one would not be noticed anyway.
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)

    def _stack(self, frame: FrameType) -> tuple[Line, ...]:
        lines = [
            Line(caller.f_code.co_filename, caller.f_lineno, caller.f_code.co_name)
            for caller in _callers(frame)
            if self.code.has(caller.f_code.co_filename) or not is_machinery(caller.f_code.co_filename)
        ]
        return tuple(reversed(lines))


def is_interrupt(exc: BaseException) -> bool:
    """Is it a KeyboardInterrupt, or a group of nothing else?  Trio's nurseries make groups."""
    if isinstance(exc, BaseExceptionGroup):
        return all(map(is_interrupt, exc.exceptions))
    return isinstance(exc, KeyboardInterrupt)


_BOTTOM = (Lines._traced.__code__, Watchdog.call.__code__)


def _callers(frame: FrameType | None) -> list[FrameType]:
    """``frame`` and all below it, down to the subject, or to the run."""
    found = []
    while frame is not None and frame.f_code not in _BOTTOM:
        found.append(frame)
        frame = frame.f_back
    return found


def _current_task() -> Task | None:
    try:
        return trio.lowlevel.current_task()
    except RuntimeError:
        return None  # between two steps
