"""Programs that die with their host, and start again with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from trioqt.links.interrupts import answer_of, protected
from trioqt.testing.network.host import Host

__all__ = ["Program", "crash_programs", "restart_programs"]

Main = Callable[..., Awaitable[object]]


def crash_programs(host: Host) -> None:
    """Cancel what runs on it.  Called before its sockets vanish: so a task that waits for one sees that it is
    cancelled, and not an error.
    """
    for program in list(host.programs):
        program.crash()


def restart_programs(host: Host) -> None:
    """Run them again."""
    for program in list(host.programs):
        program.restart()


@protected
class Program:
    """What one call of `VirtualNetwork.run_on` runs, in all its lives."""

    def __init__(self, host: Host, main: Main, args: tuple[object, ...]) -> None:
        self._host = host
        self._main = main
        self._args = args
        self._scope = trio.CancelScope()
        self._has_crashed = False
        self._boot = trio.Event()

    def crash(self) -> None:
        """The host is down."""
        self._has_crashed = True
        self._scope.cancel(reason=f"{self._host.name} has crashed")

    def restart(self) -> None:
        """The host is up again."""
        self._boot.set()

    async def run(self, task_status: trio.TaskStatus[Any]) -> None:
        """Live, and live again after every crash, until a life ends by itself."""
        status = None if task_status is trio.TASK_STATUS_IGNORED else _Once(task_status)
        self._host.programs[self] = None
        try:
            await trio.lowlevel.checkpoint()
            while True:
                while not self._host.is_up:
                    self._boot = trio.Event()
                    await self._boot.wait()
                await self._live({} if status is None else {"task_status": status.for_one_life()})
                if not self._has_crashed:
                    return
        finally:
            del self._host.programs[self]

    async def _live(self, more: dict[str, Any]) -> None:
        self._has_crashed = False
        with trio.CancelScope() as self._scope:
            try:
                await answer_of(self._main, *self._args, **more)
            except BaseException as exc:
                if not self._has_crashed:
                    raise
                # An error of a machine without power, which nobody would ever have seen.  What is not an Exception,
                # above all Cancelled, is for somebody else.
                self._host.note("died", note=type(exc).__name__)
                rest = _without_errors(exc)
                if rest is exc:
                    raise
                if rest is not None:
                    raise rest from None


def _without_errors(exc: BaseException) -> BaseException | None:
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(Exception)[1]
    return None if isinstance(exc, Exception) else exc


@protected
class _Once:
    """Tells that it has started of the first life that has."""

    def __init__(self, status: trio.TaskStatus[Any]) -> None:
        self._status = status
        self._is_told = False

    def for_one_life(self) -> trio.TaskStatus[Any]:
        return trio.TASK_STATUS_IGNORED if self._is_told else self

    def started(self, value: Any = None) -> None:
        self._is_told = True
        self._status.started(value)
