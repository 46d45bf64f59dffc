"""Who waits for a simulated socket: at most one task to read and one to write, as trio has it, and worker threads."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import outcome
import trio

from trioqt.links.interrupts import protected

__all__ = ["Waiting", "for_a_thread", "is_system_task", "try_and_wait"]

T = TypeVar("T")

for_a_thread: contextvars.ContextVar[bool] = contextvars.ContextVar("trioqt for a worker thread", default=False)
"""What runs is done for a worker thread, to which its outcome goes; though perhaps by a system task."""


@protected
class Waiting:
    """What is below a socket wakes these, and knows nothing of the socket."""

    __slots__ = ("reader", "reading_threads", "writer", "writing_threads")

    def __init__(self) -> None:
        self.reader: trio.lowlevel.Task | None = None
        self.writer: trio.lowlevel.Task | None = None
        # Of threads there may be many.
        self.reading_threads: tuple[trio.lowlevel.Task, ...] = ()
        self.writing_threads: tuple[trio.lowlevel.Task, ...] = ()

    def has_writer(self) -> bool:
        """Does anybody wait for room?"""
        return self.writer is not None or bool(self.writing_threads)

    async def for_reading(self) -> None:
        """Wait for `wake_reader`.

        Raises: what is given to `end`.
        Cancelled: nothing has changed.
        """
        self.reader = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort_reader)

    async def for_writing(self, prepare: Callable[[], None]) -> None:
        """Wait for `wake_writer`.

        Args:
          prepare: Called when `has_writer` is true already.

        Raises: what is given to `end`.
        Cancelled: nothing has changed.
        """
        self.writer = trio.lowlevel.current_task()
        prepare()
        await trio.lowlevel.wait_task_rescheduled(self._abort_writer)

    async def thread_for_reading(self) -> None:
        """The same for a worker thread, beside whoever else waits; it finds out itself what has happened.

        Cancelled: nothing has changed.
        """
        task = trio.lowlevel.current_task()
        self.reading_threads += (task,)

        def abort(raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
            self.reading_threads = tuple(each for each in self.reading_threads if each is not task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def thread_for_writing(self, prepare: Callable[[], None]) -> None:
        """The same for room; ``prepare`` as in `for_writing`.

        Cancelled: nothing has changed.
        """
        task = trio.lowlevel.current_task()
        self.writing_threads += (task,)

        def abort(raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
            self.writing_threads = tuple(each for each in self.writing_threads if each is not task)
            return trio.lowlevel.Abort.SUCCEEDED

        prepare()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _abort_reader(self, raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        self.reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _abort_writer(self, raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        self.writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake_reader(self) -> None:
        """Something has arrived, or it is over."""
        if self.reader is not None:
            task, self.reader = self.reader, None
            trio.lowlevel.reschedule(task)
        if self.reading_threads:
            tasks, self.reading_threads = self.reading_threads, ()
            _wake(tasks)

    def wake_writer(self) -> None:
        """There is room, or it is over."""
        if self.writer is not None:
            task, self.writer = self.writer, None
            trio.lowlevel.reschedule(task)
        if self.writing_threads:
            tasks, self.writing_threads = self.writing_threads, ()
            _wake(tasks)

    def tell_dead(self) -> None:
        """There is no host any more, or no network: who waits looks again, but a system task waits on."""
        if self.reader is None or not is_system_task(self.reader):
            self.wake_reader()
        if self.writer is None or not is_system_task(self.writer):
            self.wake_writer()

    def end(self, exc: BaseException) -> None:
        """Both waits end with an exception."""
        for task in (self.reader, self.writer):
            if task is not None:
                trio.lowlevel.reschedule(task, outcome.Error(exc))
        self.reader = self.writer = None
        self.wake_reader()
        self.wake_writer()


def _wake(tasks: tuple[trio.lowlevel.Task, ...]) -> None:
    for task in tasks:
        trio.lowlevel.reschedule(task)


async def try_and_wait(wait: Callable[[], Awaitable[None]], call: Callable[..., T], *args: object) -> T:
    """Try at once; if it would block, wait and try again.

    Cancelled: nothing was done.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        result = call(*args)
    except BlockingIOError:
        pass
    except BaseException:
        await trio.lowlevel.cancel_shielded_checkpoint()
        raise
    else:
        await trio.lowlevel.cancel_shielded_checkpoint()
        return result
    while True:
        await wait()
        try:
            return call(*args)
        except BlockingIOError:
            pass


def is_system_task(task: trio.lowlevel.Task) -> bool:
    """Is it, or is it in a nursery of, a task that no nursery of the program's holds?

    What such a task raises ends the run with TrioInternalError, so only its end may be told to it; but to a worker
    thread for which one works, all may be.
    """
    if task.context.get(for_a_thread):
        return False
    root = trio.lowlevel.current_root_task()
    nursery = task.parent_nursery
    while nursery is not None and nursery.parent_task is not root:
        nursery = nursery.parent_task.parent_nursery
    # The root has a nursery for callbacks, in it one for system tasks, in that one for main.
    return root is not None and nursery not in root.child_nurseries[2:]
