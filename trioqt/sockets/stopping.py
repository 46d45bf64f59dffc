"""Signals as a way to stop a server: the first drains it, the second cuts."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import trio

from trioqt.sockets.arguments import check_seconds
from trioqt.sockets.serving import DrainReport, Serving

__all__ = ["stop_on_signals"]

# What `kill` and service managers send, and what Ctrl-C sends.
SIGNALS: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)


async def stop_on_signals(
    server: Serving[Any],
    grace: float,
    *,
    signals: Sequence[int] = SIGNALS,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> DrainReport:
    """Turn the first of ``signals`` into ``server.drain(grace)``, the second into its end now.

    To be started beside ``serve``: ``await nursery.start(stop_on_signals, server, 10)``; when it has returned, so has
    ``serve``, or it is about to.  Until then the signals do nothing else: SIGINT is no KeyboardInterrupt.

    Args:
      grace: As for ``drain``, in seconds.
      task_status: Told once signals are caught.

    Returns: The report of ``drain``.
    Raises: RuntimeError if called in a thread that is not Python's main thread, the only one that gets signals.
    Cancelled: the signals do what they did before; a drain that has begun cuts what is left.
    Qt: no counterpart.
    """
    check_seconds(grace, "grace")
    if not isinstance(server, Serving):
        raise TypeError(f"a server is a TcpServer, not {type(server).__name__}")
    with trio.open_signal_receiver(*signals) as received:
        task_status.started()
        await anext(received)
        reports: list[DrainReport] = []
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                reports.append(await server.drain(grace))
                nursery.cancel_scope.cancel(reason="the server is drained")

            nursery.start_soon(drain)
            await anext(received)
            await server.drain(0)
    return reports[0]
