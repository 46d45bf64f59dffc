"""Qt's event loop, which turns trio's, and its timers."""

from __future__ import annotations

import enum
from collections.abc import Callable

import trio

from tests.conformance.stand_in.objects import QObject, Signal
from tests.conformance.stand_in.on_stage import stage

__all__ = ["ConnectionType", "QCoreApplication", "QEventLoop", "QTimer"]


class QCoreApplication:
    @staticmethod
    def processEvents(flags: object = None, milliseconds: int = 0) -> None:
        stage().wait(lambda: stage().turn(milliseconds / 1000))


class QEventLoop(QObject):
    class ProcessEventsFlag(enum.Flag):
        AllEvents = 0

    AllEvents = ProcessEventsFlag.AllEvents

    def __init__(self, parent: object = None) -> None:
        super().__init__(parent)
        self._code: int | None = 0

    def exec(self) -> int:
        self._code = None
        while self._code is None:
            stage().wait(lambda: stage().turn(0.01))
        return self._code

    def exit(self, code: int = 0) -> None:
        self._code = code

    def quit(self) -> None:
        self.exit()

    def isRunning(self) -> bool:
        return self._code is None

    def processEvents(self, flags: object = None, milliseconds: int = 0) -> None:
        QCoreApplication.processEvents(flags, milliseconds)


class QTimer(QObject):
    def __init__(self, parent: object = None) -> None:
        super().__init__(parent)
        self.timeout = Signal(self)
        self._interval = 0
        self._single_shot = False
        self._running: trio.CancelScope | None = None

    @staticmethod
    def singleShot(milliseconds: int, slot: Callable[[], object]) -> None:
        timer = QTimer()
        timer.setSingleShot(True)
        timer.timeout.connect(slot)
        timer.start(milliseconds)

    def setInterval(self, milliseconds: int) -> None:
        self._interval = milliseconds

    def setSingleShot(self, single_shot: bool) -> None:
        self._single_shot = single_shot

    def isActive(self) -> bool:
        return self._running is not None

    def start(self, milliseconds: int | None = None) -> None:
        self.stop()
        if milliseconds is not None:
            self._interval = milliseconds
        self._running = trio.CancelScope()
        scope = self._running
        stage().do(lambda: stage().nursery.start_soon(self._run, scope))

    def stop(self) -> None:
        if self._running is not None:
            stage().do(self._running.cancel)
            self._running = None

    async def _run(self, scope: trio.CancelScope) -> None:
        with scope:
            while self._running is scope:
                await trio.sleep(max(self._interval, 1) / 1000)
                if self._single_shot:
                    self._running = None
                self.timeout.emit()


class ConnectionType(enum.Enum):
    """All the same here: a slot acts after the step that emitted the signal."""

    AutoConnection, DirectConnection, QueuedConnection, BlockingQueuedConnection = range(4)
