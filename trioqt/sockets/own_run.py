"""Whose thread may call: a socket or server belongs to the ``trio.run`` in which its scope began, until that ends.

From anywhere else a call would wake no task, start none, and race with those that run.  Two ways to look: the number of
the thread costs 0.03 us, and is enough where every byte passes; the token of the run costs 0.12 us.
"""

from __future__ import annotations

from _thread import get_ident
from typing import NoReturn, Protocol, SupportsIndex

import trio

from trioqt.links.interrupts import protected

__all__ = ["OfOneRun"]


class OfThisRun(Protocol):
    """What belongs to the run already."""

    _run: trio.lowlevel.TrioToken | None
    _thread: int


@protected
class OfOneRun:
    """What can be called in its own run only, once it has one."""

    __slots__ = ("_run", "_thread")

    def __init__(self) -> None:
        self._run: trio.lowlevel.TrioToken | None = None
        self._thread = 0  # no thread has this number

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """What copy and pickle ask: two of them would share what each takes for its own, as a file's do."""
        raise TypeError(f"cannot copy or pickle a {type(self).__name__}")

    def _belongs_here(self) -> None:
        """From now on it may only be called in this run."""
        self._run = trio.lowlevel.current_trio_token()
        self._thread = get_ident()

    def _belongs_with(self, other: OfThisRun) -> None:
        """From now on it may only be called where ``other`` may."""
        self._run = other._run
        self._thread = other._thread  # a number of its own would be 32 bytes

    def _belong_to(self, nursery: trio.Nursery) -> None:
        """The same, if that is the run of ``nursery``.  Raises: RuntimeError."""
        task = nursery.parent_task
        while task.parent_nursery is not None:
            task = task.parent_nursery.parent_task
        if not trio.lowlevel.in_trio_run() or task is not trio.lowlevel.current_root_task():
            raise RuntimeError("the parent is a nursery of another trio.run")
        self._belongs_here()

    def _belongs_nowhere(self) -> None:
        """Its life is over: there is nothing left that a call from elsewhere could harm."""
        self._run = None
        self._thread = 0

    def _check_call(self) -> None:
        """What every call begins with.  Raises: RuntimeError."""
        self._check_run()

    def _check_run(self) -> None:
        """Raises: RuntimeError if this is not its run."""
        if self._run is None:
            return
        try:
            here = trio.lowlevel.current_trio_token()
        except RuntimeError:
            here = None
        if here is not self._run:
            raise RuntimeError(
                f"this {type(self).__name__} belongs to another trio.run; a thread that was started there calls it with"
                " trio.from_thread.run_sync or trio.from_thread.run"
            )
