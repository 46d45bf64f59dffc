"""trioqt in a program of Qt's, in one thread: ``python docs/howto/beside_qt.py``; it needs PySide6."""

from collections.abc import Callable
from typing import Any

import outcome
import trio
from PySide6.QtCore import QCoreApplication, QEvent, QObject

from trioqt import TcpServer, TcpSocket


class Call(QEvent):
    """Something that trio wants to be called by Qt's loop."""

    KIND = QEvent.Type(QEvent.registerEventType())

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__(self.KIND)
        self.function = function


class Caller(QObject):
    def event(self, event: QEvent) -> bool:
        if isinstance(event, Call):
            event.function()
            return True
        return super().event(event)


def run_beside_qt(app: QCoreApplication, main: Callable[[], Any]) -> Any:
    """Run ``main`` in trio and the program in Qt's loop, until ``main`` is done."""
    caller = Caller()
    results: list[outcome.Outcome[Any]] = []

    def done(result: outcome.Outcome[Any]) -> None:
        results.append(result)
        app.quit()

    trio.lowlevel.start_guest_run(
        main,
        run_sync_soon_threadsafe=lambda function: app.postEvent(caller, Call(function)),
        done_callback=done,
    )
    app.exec()
    return results[0].unwrap()


async def echo(sock: TcpSocket) -> None:
    async for chunk in sock:
        await sock.send_all(chunk)


async def main() -> bytes:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        await nursery.start(server.serve, echo)
        async with TcpSocket() as sock:
            await sock.connect_to_host("127.0.0.1", server.server_port())
            await sock.send_all(b"hello from Qt's thread\n")
            line = await sock.receive_line()
        nursery.cancel_scope.cancel()
    return line


if __name__ == "__main__":
    print(run_beside_qt(QCoreApplication([]), main))
