"""The block that a server, or a socket without a parent or a server, was entered by, and the tasks that run there.

Most sockets never have a task, and a nursery costs 25 us of a short life's 210.  So a block has none: what tasks there
are run among trio's system tasks, where nothing from outside cancels them but the end of the run, and end before the
block does.  Only where a task calls what is not ours, as over a stream, is there a nursery, which ends the block at
once if that fails.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import trio

from trioqt.core.errors import raise_bare
from trioqt.links.interrupts import protected

__all__ = ["Block"]


@protected
class Block:
    """The tasks of a socket or a server, from the entry of its block to the exit."""

    __slots__ = ("_bugs", "_lot", "_manager", "child_tasks", "entries", "nursery", "task")

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task = trio.lowlevel.current_task()
        """Who entered it first, and ends it."""
        self.entries: int = 0
        """Of that task, nested."""
        self.nursery: trio.Nursery | None = None
        """If it has one."""
        self.child_tasks: frozenset[trio.CancelScope] = frozenset()
        """Those that run, by their scopes, if there is no nursery."""
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._lot: trio.lowlevel.ParkingLot | None = None
        self._bugs: tuple[Exception, ...] = ()

    async def open_nursery(self) -> trio.Nursery:
        """Have a nursery, for tasks that may fail by what is not ours."""
        self._manager = trio.open_nursery()
        self.nursery = await self._manager.__aenter__()
        return self.nursery

    def start_soon(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """As a nursery's.  Raises: RuntimeError if it is too late for that."""
        if self.nursery is not None:
            self.nursery.start_soon(task, *args)
            return
        scope = trio.CancelScope()
        context = contextvars.copy_context()
        ours = trio.lowlevel.spawn_system_task(self._run, scope, task, *args, name=task, context=context)
        # All of the program has ended before the run cancels its system tasks: whoever has not left a block by then, as
        # a generator that nobody has closed, must not keep it from ending.  But a system task says goodbye only then.
        scope.shield = _top(self.task).parent_nursery is ours.parent_nursery
        self.child_tasks |= {scope}

    async def _run(self, scope: trio.CancelScope, task: Callable[..., Awaitable[None]], *args: object) -> None:
        try:
            with scope:
                await task(*args)
        except Exception as exc:  # a bug in trioqt; as a system task's it would end the run
            self._bugs += (exc,)
        finally:
            self.child_tasks -= {scope}
            if self._lot is not None:
                self._lot.unpark_all()

    async def end(self, reason: str = "the socket's block is left") -> None:
        """Cancel the tasks, and return when they have ended, after others had their turn.

        Raises: BaseExceptionGroup of what tasks have raised.
        Cancelled: does not look for it; whatever leaves the block goes out as it is.
        """
        if self._manager is not None:
            await self._end_nursery(self._manager, reason)
        elif not self.child_tasks:
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            self._lot = trio.lowlevel.ParkingLot()
            for scope in self.child_tasks:
                scope.cancel(reason=reason)
            with trio.CancelScope(shield=True):
                while self.child_tasks:
                    await self._lot.park()
        if self._bugs:
            raise ExceptionGroup("a socket's tasks failed", self._bugs)

    async def _end_nursery(self, manager: AbstractAsyncContextManager[trio.Nursery], reason: str) -> None:
        assert self.nursery is not None
        # Cancelled, because only our own tasks can be in it.  Shielded, because otherwise an outer cancellation would
        # be raised here, in place of the exception that is leaving the block.  And told of no exception, because it
        # would wrap that in a group.  If it is empty, as mostly, trio does no more than give others their turn.
        if self.nursery.child_tasks:
            self.nursery.cancel_scope.cancel(reason=reason)
            self.nursery.cancel_scope.shield = True
        try:
            await manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            raise_bare(group)


def _top(task: trio.lowlevel.Task) -> trio.lowlevel.Task:
    """The one that ``task`` works for in the end: the main task, or a system task."""
    while (above := task.parent_nursery) is not None and above.parent_task.parent_nursery is not None:
        task = above.parent_task
    return task
