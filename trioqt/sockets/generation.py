"""What became of one attempt and its connection: for who waited for it, and must not go on with the next one."""

from __future__ import annotations

from typing import NoReturn

import attrs
import trio

from trioqt.core.errors import ErrorKind, SocketError
from trioqt.links.connect import AttemptsFailed

__all__ = ["Failure", "Generation", "is_another_task", "raise_failure"]


@attrs.define
class Failure:
    """Why the connection ended, kept to be raised in every later call."""

    kind: ErrorKind
    message: str
    cause: BaseException | None
    told: bool = False  # a call has raised it

    def error(self) -> SocketError:
        """A new exception each time, so that tracebacks do not pile up in one."""
        # When several addresses were tried: the last attempt's, as the kind is.
        last = self.cause.exceptions[-1] if isinstance(self.cause, AttemptsFailed) else self.cause
        number = last.errno if isinstance(last, OSError) else None
        error = SocketError(self.kind, self.message, errno=number)
        error.__cause__ = self.cause
        return error


@attrs.define(eq=False)
class Generation:
    """One attempt and its connection, so that who waits for one does not go on with the next, and knows its fate."""

    connected: bool = False  # it came as far as a connection
    failure: Failure | None = None  # it ended by this
    unsent: bool = False  # queued bytes were dropped at its end
    aborted: bool = False  # it was ended here, by abort()
    dropped: bool = False  # what was unread is gone, by an end that was made here
    woken: bool = False  # a task that waited on its link to receive was woken by such an end
    ended_by: trio.lowlevel.Task | None = None  # or in order, or replaced, by this task; others could not know


def raise_failure(failure: Failure) -> NoReturn:
    """Raise what a connection, or an attempt at one, has ended by."""
    failure.told = True
    raise failure.error()


def is_another_task(task: trio.lowlevel.Task | None) -> bool:
    """Was it done by a task, and not by the one that runs?  Then it could not know."""
    return task is not None and task is not trio.lowlevel.current_task()
