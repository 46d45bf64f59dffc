"""Every socket's life: the scope that it lives in, its state, its last error; and so which call is refused, and why.

Everything here that changes a state feeds the table of ``core/states.py``.  What the socket is for is not known here:
no address, no option, no bytes.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import NoReturn, Self

import trio

from trioqt.core.errors import ErrorKind, SocketError, is_cancellation, keeping, put_behind
from trioqt.core.events import (
    Connected,
    Disconnected,
    ErrorOccurred,
    Event,
    HostFound,
    ReadChannelFinished,
    StateChanged,
)
from trioqt.core.socket_state import SocketState
from trioqt.core.states import Input, StateMachine, Told
from trioqt.links.base import Resettable
from trioqt.links.interrupts import protected
from trioqt.sockets.block import Block
from trioqt.sockets.generation import Failure, Generation, is_another_task, raise_failure
from trioqt.sockets.own_run import OfOneRun
from trioqt.sockets.proxy_choice import HasProxy

__all__ = ["ScopedSocket"]

# Events without a value of their own are built once.
EVENTS: dict[Told, Event] = {state: StateChanged(state) for state in SocketState}
EVENTS.update({kind: kind() for kind in (HostFound, Connected, ReadChannelFinished, Disconnected)})

UNCONNECTED, CONNECTED = SocketState.UNCONNECTED, SocketState.CONNECTED


@protected
class ScopedSocket(HasProxy, Resettable):
    """A socket as who begins and ends its life sees it.

    Args:
      parent: As for ``AbstractSocket``.
    """

    __slots__ = (
        "__weakref__",
        "_block",
        "_closed",
        "_ends",
        "_error",
        "_error_string",
        "_generation",
        "_home",
        "_lot",
        "_machine",
        "_open",
        "_parent",
        "_retired",
    )

    def __init__(self, parent: trio.Nursery | None = None) -> None:
        if parent is not None and not isinstance(parent, trio.Nursery):
            hint = "; an address is given to connect_to_host() or bind()" if isinstance(parent, str) else ""
            raise TypeError(f"a parent is a trio.Nursery, not {type(parent).__name__}{hint}")
        super().__init__()
        self._machine = StateMachine()
        self._parent = parent
        # Where its tasks run: the parent, or its own block, or the nursery of its server's.
        self._home: trio.Nursery | Block | None = parent
        if parent is not None:
            self._belong_to(parent)
        self._block: Block | None = None
        self._closed = False
        self._retired = False  # aclose, or the end of the block, has begun: nothing new begins
        self._generation = Generation()
        self._ends = 0  # how often it became UNCONNECTED, or a connection was replaced
        self._open = False  # a connection was begun or given, and none was aborted since
        self._error: ErrorKind | None = None
        self._error_string = ""
        self._lot: trio.lowlevel.ParkingLot | None = None

    # -- the scope ------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begin the socket's life.  Its tasks, if it needs any, end with the block.

        May be nested (a handler may enter the socket that ``serve`` entered): the inner exit ends the socket, the
        outer one finds nothing to do.  After its block a socket is closed.

        Raises: trio.ClosedResourceError if it has been closed.
        """
        self._check_call()
        if self._closed:
            raise trio.ClosedResourceError("the socket is closed")
        if self._home is None:
            block = Block()
            if self._may_fail():
                await block.open_nursery()
            self._home = self._block = block
            self._belongs_here()
            block.entries = 1
        elif self._block is not None and self._block.task is trio.lowlevel.current_task():
            self._block.entries += 1
        self._entered()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it: flush and disconnect after a normal body, abort after a cancellation, reset after an exception.

        A peer must not take half an answer for the whole, so whatever else than a cancellation leaves the block, also
        KeyboardInterrupt, or a group that is not of cancellations alone, is as ``abort(reset=True)``.

        The body's exception goes out as it is, never wrapped in an ExceptionGroup: the socket's own tasks do not
        raise.  (A bug in trioqt itself is the one thing that arrives in a group.)

        Raises:
          SocketError: After a normal body, if queued bytes could not be sent (SOCKET_TIMEOUT after
            ``flush_timeout``, UNFINISHED_SOCKET_OPERATION if that ends an attempt), unless a call has already raised
            that failure.
        Cancelled: the connection has ended, as by ``abort()``.
        """
        self._check_call()
        # Whatever goes wrong at one of these steps, as when somebody has closed the descriptor, the others follow.
        try:
            try:
                if exc is not None:
                    self.abort(reset=not is_cancellation(exc))
                else:
                    await self._leave()
            finally:
                try:
                    self._close()
                finally:
                    if self._block is not None and self._block.task is trio.lowlevel.current_task():
                        self._block.entries -= 1
                        if self._block.entries == 0:
                            block, self._block = self._block, None
                            with keeping(sys.exception()):
                                await block.end()
        except BaseException as raised:
            put_behind(raised, exc)
            raise

    def _may_fail(self) -> bool:
        """Will its tasks call what is not ours, and so may fail in a way that is to end its block?"""
        return False

    def _entered(self) -> None:
        """A block was entered."""

    async def _leave(self) -> None:
        """End the connection in order, at the end of a block whose body ended normally."""
        raise NotImplementedError

    def _close(self) -> None:
        """Abort whatever is left, for good."""
        try:
            self._abort()
        finally:
            self._closed = self._retired = True
            self._open = False
            self._end_events()
        if self._lot is not None:
            self._lot.unpark_all()
        self._belongs_nowhere()

    def _check_call(self) -> None:
        """What every call begins with.  Raises: RuntimeError."""
        if self._parent is None:
            OfOneRun._check_run(self)  # what super() finds, for a third of its cost
        else:
            self._check_run()
            self._in_scope()  # which closes it, if that nursery has ended

    def _check_thread(self) -> None:
        """The same where bytes pass, which must not cost more than it has to."""
        if get_ident() != self._thread:
            self._check_run()
        if self._parent is not None:
            self._in_scope()

    def _check_run(self) -> None:
        if self._parent is not None and not self._closed and get_ident() == self._thread:
            over = not trio.lowlevel.in_trio_run() and self._parent not in self._parent.parent_task.child_nurseries
            if over:
                return  # its run is over too: there it lives no more, only nobody has looked yet
        super()._check_run()

    def _in_scope(self) -> bool:
        """Has it a nursery that can hold its tasks?"""
        if self._parent is None or self._closed:
            return self._home is not None
        if self._parent in self._parent.parent_task.child_nurseries:
            return True
        # Nobody told us when it ended: a nursery has no exit hook, and a task that waits for it would keep it open.
        self._close()
        return False

    # -- its state and its last error -----------------------------------------------------

    def state(self) -> SocketState:
        """Where in its life it is.  Qt: state()."""
        self._check_call()
        return self._machine.state

    def error(self) -> ErrorKind | None:
        """The last error, or None; reset when ``connect_to_host`` begins.

        Qt: error().  There, UnknownSocketError means none.
        """
        self._check_call()
        return self._error

    def error_string(self) -> str:
        """The last error in words; empty if there was none.  Qt: errorString(), with our wording."""
        self._check_call()
        return self._error_string

    def is_valid(self) -> bool:
        """Is it in use: bound, connecting, connected, or with a past of which something may be left to read?

        It is from ``connect_to_host``, ``bind`` or ``set_socket_descriptor`` on, and still is after a failed attempt,
        ``disconnect_from_host`` or the end of the connection.  It is not when new, after ``abort``, ``aclose`` or its
        block, and after what was only bound has ended; nor in the moment in which the loss of the connection, or with
        ``half_open=False`` the peer's end, is found and CLOSING has not been told yet.

        Qt: isValid().  There, a loss that a write finds closes the device, so it is not valid after that.
        """
        state = self.state()
        if state is CONNECTED:
            return self._generation.failure is None
        return self._open or state is not UNCONNECTED

    # -- the end --------------------------------------------------------------------------

    def abort(self, *, reset: bool = False) -> None:
        """Drop the connection, unsent and unread bytes, now.  Never waits, never fails, works when cancelled.

        Tasks waiting on the socket wake with ``trio.ClosedResourceError``, and so ends every later call that needs the
        connection, until ``connect_to_host`` starts anew.  The peer sees a reset if queued bytes were dropped, or if
        ``reset``; else the end.  Over a stream it sees what the stream can do.

        Bytes that were queued for the connection of an attempt that it drops are told as ``ErrorOccurred``:
        UNFINISHED_SOCKET_OPERATION.

        Args:
          reset: The peer must not take this for a clean end, because something went wrong here.

        Qt: abort().  There, the peer never sees a reset.
        """
        raise NotImplementedError

    def _abort(self, *, reset: bool = False) -> None:
        """The same, whoever asks."""
        raise NotImplementedError

    # -- for the classes below ------------------------------------------------------------

    def _tell(self, thing: Told) -> None:
        """Post one thing that the table tells, if anybody listens."""
        if thing is UNCONNECTED:
            self._ends += 1
        if self._subscriptions:
            if thing is ErrorOccurred:
                assert self._error is not None
                self._post(ErrorOccurred(self._error, self._error_string))
            else:
                self._post(EVENTS[thing])

    def _set_error(self, kind: ErrorKind, message: str) -> None:
        self._error, self._error_string = kind, message

    def _set_failure(self, kind: ErrorKind, message: str, cause: BaseException | None) -> None:
        """The connection ends by this; from now on every call that needs it raises it."""
        self._set_error(kind, message)
        # Without its traceback: that would keep frames, and through them this socket, alive.
        self._generation.failure = Failure(kind, message, cause.with_traceback(None) if cause is not None else None)

    def _raise_failure(self) -> NoReturn:
        assert self._generation.failure is not None
        raise_failure(self._generation.failure)

    def _is_shielded(self) -> bool:
        """Do our tasks outlive a cancellation from outside, until the block has ended the socket?

        Where they run among trio's system tasks they meet none but the end of the run, which would wait for them for
        ever if the program has not left the block.
        """
        return self._parent is None and not (isinstance(self._home, Block) and self._home.nursery is None)

    def _start(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run one of our tasks in the scope."""
        self._check_run()
        assert self._home is not None
        try:
            self._home.start_soon(task, *args)
        except RuntimeError:
            self._close()  # the parent's block is being left in this very step, and takes no more tasks

    async def _wait_changed(self) -> None:
        """Wait for a call of ``_changed``: then look again."""
        if self._lot is None:
            self._lot = trio.lowlevel.ParkingLot()
        await self._lot.park()

    def _changed(self) -> None:
        """Wake whoever waits for anything about this socket."""
        if self._lot is not None:
            self._lot.unpark_all()

    # -- which call is refused, and why ---------------------------------------------------

    def _check_open(self, attempted: str) -> None:
        """Raises: trio.ClosedResourceError."""
        if self._closed:
            raise trio.ClosedResourceError(f"cannot {attempted}: the socket is closed")

    def _need(self, call: Input, attempted: str) -> None:
        """Raise if the table or the scope does not allow ``call`` now."""
        self._check_can_begin(attempted)
        if not self._machine.allows(call):
            self._refuse(attempted, ended=False)

    async def _yield_to_its_end(self) -> None:
        """A task that is cancelled with the block, and has its first turn after that, has nothing to complain of."""
        if self._retired:
            await trio.lowlevel.checkpoint_if_cancelled()

    def _check_can_begin(self, attempted: str) -> None:
        """Raise if nothing may begin any more: the socket is closed, or out of its scope, or about to be closed."""
        if self._retired and not self._closed:
            raise trio.ClosedResourceError(f"cannot {attempted}: the socket is being closed")
        if self._closed or not self._in_scope():
            self._refuse(attempted, ended=False)

    def _refuse(self, attempted: str, *, ended: bool = True, began: Generation | None = None) -> NoReturn:
        """Raise what a call gets that cannot be done: closed, the failure that ended it, or the wrong state.

        The one place that says whose mistake it is.  What another task did to the connection, whether it closed,
        aborted, replaced or ended it in order, the caller could not know: that is ``trio.ClosedResourceError``.  To go
        on with a connection that this very task has ended in order is its mistake, and so is a call that was never
        possible.

        Args:
          ended: The call needs a connection, so the reason why that ended is the answer.
          began: The attempt or connection that the call had rightly begun with, and has waited for.
        """
        in_scope = self._in_scope()  # which closes it, if its parent nursery has ended
        self._check_open(attempted)
        if ended:
            generation = self._generation
            if began is not None:
                self._check_same(began, attempted)
            if self._generation.failure is not None:
                self._raise_failure()
            if generation.aborted or is_another_task(generation.ended_by):
                raise trio.ClosedResourceError(f"cannot {attempted}: the connection was ended here")
        if not in_scope:
            raise SocketError(ErrorKind.OPERATION, f"cannot {attempted} outside of the socket's `async with` block")
        raise SocketError(ErrorKind.OPERATION, self._wrong_state(attempted))

    def _is_idle(self) -> bool:
        """Is there neither a connection nor an attempt at one?

        Then a call that would wait is judged in the step in which it is made, and lets others run after that: an
        attempt that has been scheduled may begin while they do, or may have begun, and the outcome was by lot.
        """
        return self.state() in (UNCONNECTED, SocketState.BOUND)

    async def _refuse_at_once(self, attempted: str) -> NoReturn:
        """``_refuse`` by what is so now, as a checkpoint."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._refuse(attempted)
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _check_same(self, generation: Generation, attempted: str) -> None:
        """Every call that waits looks at this when it goes on: it belongs to the connection that it began with.

        Raises: SocketError, trio.ClosedResourceError: Another attempt or connection has begun since; how its own ended.
        """
        if self._generation is not generation:
            if generation.failure is not None:
                raise_failure(generation.failure)
            raise trio.ClosedResourceError(f"cannot {attempted}: the connection was ended here")

    def _wrong_state(self, attempted: str) -> str:
        return f"cannot {attempted} while {self._machine.state.name.lower().replace('_', ' ')}"

    def _refuse_aloud(self, attempted: str, told: Input) -> NoReturn:
        """The same for a call that is wrong in this state and, as in Qt, tells so too."""
        message = self._wrong_state(attempted)
        self._set_error(ErrorKind.OPERATION, message)
        self._machine.feed(told, self._tell)
        raise SocketError(ErrorKind.OPERATION, message)
