"""What every object of Qt has, and no socket is needed for: signals and slots, names, properties."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

from tests.conformance.stage import Actor
from tests.conformance.stand_in.on_stage import NOT_THERE, stage
from tests.conformance.stand_in.values import OpenModeFlag
from trioqt.core.events import Event
from trioqt.sockets.subscription import EventSource, Subscription

__all__ = ["Hook", "QIODevice", "QIODeviceBase", "QObject", "Signal"]


class Signal:
    """What slots are connected to: those of the recorder run at once, the program's own are actors."""

    def __init__(self, sender: QObject) -> None:
        self.recorders: list[Callable[..., object]] = []
        self.slots: list[Callable[..., object]] = []
        self._sender = sender
        self._begun: list[Actor] = []

    def connect(self, slot: Callable[..., object], type: object = None) -> None:
        self.slots.append(slot)

    def disconnect(self, slot: Callable[..., object] | None = None) -> None:
        if slot is None:
            self.slots.clear()
        else:
            self.slots.remove(slot)

    def emit(self, *args: object) -> None:
        if self._sender.signalsBlocked():
            return
        self._sender.tells_inside = any(actor.acts for actor in self._begun)
        for recorder in self.recorders:
            recorder(*args)
        self._begun = [actor for actor in self._begun if not actor.has_ended]
        for slot in tuple(self.slots):
            self._begun.append(stage().start_slot(functools.partial(slot, *args)))


class Hook(Subscription[Event]):
    """The harness's private subscription: it is told of an event while that is posted."""

    def __init__(self, source: EventSource, tell: Callable[[Event], None]) -> None:
        super().__init__(source, ())
        self._tell = tell

    def post(self, event: Event) -> bool:
        self._tell(event)
        return True


class QObject:
    """Names, properties and blocked signals, which have nothing to do with sockets."""

    ABSENT: ClassVar[frozenset[str]] = frozenset()
    """Members of the class in Qt that trioqt has no counterpart of."""

    def __init__(self, parent: object = None) -> None:
        self._parent = parent
        self._name = ""
        self._properties: dict[str, object] = {}
        self._blocked = False
        self.tells_inside = False  # a slot of the signal that is told just now is acting on an earlier one

    def parent(self) -> object:
        return self._parent

    def setParent(self, parent: object) -> None:
        self._parent = parent

    def objectName(self) -> str:
        return self._name

    def setObjectName(self, name: str) -> None:
        self._name = name

    def property(self, name: str) -> object:
        return self._properties.get(name)

    def setProperty(self, name: str, value: object) -> bool:
        known = name in self._properties
        self._properties[name] = value
        return known

    def blockSignals(self, block: bool) -> bool:
        before, self._blocked = self._blocked, block
        return before

    def signalsBlocked(self) -> bool:
        return self._blocked

    def deleteLater(self) -> None:
        stage().do(lambda: stage().nursery.start_soon(self._destroy))

    async def _destroy(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name not in self.ABSENT:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return lambda *args: NOT_THERE


class QIODeviceBase:
    OpenModeFlag = OpenModeFlag


for _name, _mode in OpenModeFlag.__members__.items():
    setattr(QIODeviceBase, _name, _mode)


class QIODevice(QObject, QIODeviceBase):
    pass
