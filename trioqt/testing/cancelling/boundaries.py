"""Where a cancellation can arrive in a trio program, numbered while it runs.

A task runs synchronously between two checkpoints.  So a cancellation that comes from outside (a timeout, a nursery
that fails, a user who presses Stop) arrives between two task steps, after the system or the clock has woken tasks,
or has arrived before the code under test even starts.  An instrument sees all of these, and one schedule has finitely
many: that is why a walk over them is complete, and not a sample.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import attrs
import trio

from trioqt.testing.cancelling.report import Boundary, Kind
from trioqt.testing.cancelling.walker import Subject, Task, Walker, name_of, short_name, where_defined, where_stands

__all__ = ["Boundaries"]

T = TypeVar("T")


@attrs.define(eq=False, slots=False)
class Boundaries(Walker):
    """Places are the boundaries of task steps; at the one that is asked for it cancels the subject."""

    _woken: list[Task] = attrs.Factory(list)
    _woken_by_system: int = 0
    _between_steps: bool = False

    async def call(self, fn: Callable[..., Awaitable[T]], args: tuple[object, ...]) -> tuple[T | None, bool]:
        scope = trio.CancelScope()
        subject = Subject(trio.lowlevel.current_task(), fn, scope)
        with scope:
            self.enter(subject)
            try:
                return await fn(*args), False
            finally:
                self.leave(subject)
        return None, True

    def enter(self, subject: Subject) -> None:
        super().enter(subject)
        self._place("start", [subject.task], subject)

    def let_go(self) -> None:
        super().let_go()
        self._woken.clear()

    # ---- what trio calls ---------------------------------------------------------------------------------------

    def task_scheduled(self, task: Task) -> None:
        super().task_scheduled(task)
        if self._between_steps:
            self._woken.append(task)

    def before_io_wait(self, timeout: float) -> None:
        self._woken = []
        self._woken_by_system = 0
        self._between_steps = True

    def after_io_wait(self, timeout: float) -> None:
        # Here, and not at the first step: a timeout expires between the two, and what it wakes joins the same batch.
        if self._woken:
            self._woken_by_system = len(self._woken)
            self._boundary("io", self._woken)
        super().after_io_wait(timeout)

    def before_task_step(self, task: Task) -> None:
        if self._between_steps:
            self._between_steps = False
            # The batch has been taken, so the cancelled task runs one batch later than after a real timeout.  Trio
            # has no hook in between.
            if self._woken[self._woken_by_system :]:
                self._boundary("timer", self._woken[self._woken_by_system :])
        super().before_task_step(task)

    def _stepped(self, task: Task) -> None:
        self._boundary("step", [task])

    # ---- places ------------------------------------------------------------------------------------------------

    def _boundary(self, kind: Kind, tasks: Sequence[Task]) -> None:
        if kind != "step":
            self._trace = hash((self._trace, 0, len(tasks)))
        for subject in self._active:
            if self.points == "any" or not subject.family.isdisjoint(tasks):
                self._place(kind, tasks, subject)

    def _place(self, kind: Kind, tasks: Sequence[Task], subject: Subject) -> None:
        index = self.next_place()
        if self.hit is not None:
            return
        self.traces.append(self._trace)
        if index == self.target:
            # The eldest speaks for all: in which order a cancellation wakes tasks depends on their addresses.
            task = min(tasks, key=lambda task: self.alive.get(task, 0))
            if kind == "start":
                stack = where_defined(subject.fn)
            else:
                stack = where_stands(subject.task, below=self._depth_of(subject))
            self.strike(Boundary(index, kind, short_name(task.name), name_of(subject.fn), stack))
            self._between_steps = False
            assert subject.scope is not None
            subject.scope.cancel()
