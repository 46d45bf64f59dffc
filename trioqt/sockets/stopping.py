"""Signals as a way to stop a server: the first drains it, the second cuts."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Sequence
from typing import Any

import trio

from trioqt.core.errors import raise_bare
from trioqt.sockets.arguments import check_seconds
from trioqt.sockets.serving import DrainReport, Serving
from trioqt.sockets.signal_queue import SignalQueue

__all__ = ["stop_on_signals"]

# What `kill` and service managers send, and what Ctrl-C sends.
SIGNALS: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)


@trio.lowlevel.enable_ki_protection
async def stop_on_signals(
    server: Serving[Any],
    grace: float,
    *,
    signals: Sequence[int] = SIGNALS,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> DrainReport:
    """Turn the first of ``signals`` into ``server.drain(grace)``, the second into its end now.

    To be awaited beside ``serve``: ``await nursery.start(server.serve, handler)``, then ``await stop_on_signals(server,
    10)``.  It returns when the server is drained, whoever began that, or closed for good and its handlers have ended;
    then so has ``serve``, or it is about to.  Until then the signals do nothing else: SIGINT is no KeyboardInterrupt.
    Several servers may each have one, and a signal stops them all.

    Args:
      grace: As for ``drain``, in seconds.
      task_status: Told once signals are caught.

    Returns: The report of ``drain``.
    Raises:
      RuntimeError: This is not Python's main thread, the only one that gets signals.
      TypeError, ValueError: ``server`` is no server, ``grace`` is no number of seconds, or there are no such signals.
      OSError: A signal that cannot be caught.
    Cancelled: the signals do what they did before; a drain that has begun cuts what is left.
    Qt: no counterpart.
    """
    check_seconds(grace, "grace")
    if not isinstance(server, Serving):
        raise TypeError(f"a server is a TcpServer, not {type(server).__name__}")
    try:
        with SignalQueue(signals) as received:
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_obey, received, server, grace, nursery)
                with contextlib.suppress(trio.ClosedResourceError):  # closed: there may be handlers left all the same
                    await server.wait_for_draining()
                report = await server.drain(math.inf)  # joins the one that has begun
                nursery.cancel_scope.cancel(reason="the server is drained")
    except BaseExceptionGroup as group:
        raise_bare(group)
    return report


@trio.lowlevel.enable_ki_protection
async def _obey(received: SignalQueue, server: Serving[Any], grace: float, nursery: trio.Nursery) -> None:
    """The first signal gives ``grace``; those after it give none."""
    while True:
        await received.next()
        nursery.start_soon(server.drain, grace)
        grace = 0
