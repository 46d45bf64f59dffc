"""What type checkers say of calls whose type depends on their arguments; ``nox -s types`` runs mypy over this file.

``assert_type`` does nothing when it runs.  The test has pyright look, too.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, assert_never, assert_type

from trioqt import (
    Connected,
    ConnectionFinished,
    Disconnected,
    Draining,
    ErrorOccurred,
    Event,
    NewConnection,
    ReadyRead,
    StateChanged,
    TcpServer,
    TcpSocket,
)
from trioqt.testing import SignalSpy

if TYPE_CHECKING:

    async def what_events_gives(sock: TcpSocket, server: TcpServer[TcpSocket]) -> None:
        """One kind is that kind, some are their union, none is any."""
        assert_type(sock.events(), AbstractAsyncContextManager[AsyncIterator[Event]])
        assert_type(sock.events(Connected), AbstractAsyncContextManager[AsyncIterator[Connected]])
        async with sock.events(Connected, StateChanged) as two:
            assert_type(two, AsyncIterator[Connected | StateChanged])
        async with server.events(NewConnection, ConnectionFinished, Draining, facts=5) as three:
            assert_type(three, AsyncIterator[NewConnection | ConnectionFinished | Draining])
        async with sock.events(Connected, Disconnected, ErrorOccurred, ReadyRead) as four:
            async for event in four:
                match event:
                    case Connected() | Disconnected() | ReadyRead():
                        pass
                    case ErrorOccurred(kind):
                        print(kind)
                    case other:
                        assert_never(other)

    async def what_a_spy_holds(sock: TcpSocket) -> None:
        """The same."""
        assert_type(SignalSpy(sock), SignalSpy[Event])
        assert_type(SignalSpy(sock, Connected), SignalSpy[Connected])
        async with SignalSpy(sock, Connected, StateChanged) as spy:
            assert_type(spy[0], Connected | StateChanged)
            assert_type([*spy], list[Connected | StateChanged])


def test_pyright_says_the_same() -> None:
    """With its own rules of what is inferred."""
    python = Path(sys.executable)
    command = [str(python.with_name("pyright")), "--pythonpath", str(python), __file__]

    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)

    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["0 errors, 0 warnings, 0 informations"]), done
