"""The backend that is trioqt: runs scenario files, which import PySide6, on the stand-ins instead."""

from __future__ import annotations

import functools
import runpy
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import trio

from tests.conformance import trace
from tests.conformance.stage import Stage
from tests.conformance.stand_in import modules, on_stage
from tests.conformance.trace import Entry, Scenario, Trace

__all__ = ["load", "run"]


def _module(name: str, namespace: types.SimpleNamespace) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(vars(namespace))
    return module


MODULES: dict[str, types.ModuleType] = {
    "PySide6": types.ModuleType("PySide6"),
    "PySide6.QtCore": _module("PySide6.QtCore", modules.CORE),
    "PySide6.QtNetwork": _module("PySide6.QtNetwork", modules.NETWORK),
    "shiboken6": _module("shiboken6", modules.SHIBOKEN),
    "harness": trace,
}
"""What a scenario imports, in its functions too."""


def load(files: Iterable[Path]) -> dict[str, Scenario]:
    """The scenarios in ``files``, bound to trioqt.  Files that say ``from harness import scenario`` are welcome."""
    found: dict[str, Scenario] = {}
    with mock.patch.dict(sys.modules, MODULES), mock.patch.dict(trace.SCENARIOS, clear=True):
        for file in files:
            runpy.run_path(str(file))
        found.update(trace.SCENARIOS)
    return found


class TrioqtBackend:
    """See ``trace.Backend``."""

    network = modules.NETWORK
    core = modules.CORE

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def ready(self) -> None:
        self._stage.ready()

    def turn(self, seconds: float) -> None:
        self._stage.wait(lambda: self._stage.turn(seconds))

    def now(self) -> float:
        return self._stage.see(trio.current_time)

    def on_warning(self, record: Callable[[str], None]) -> None:
        self._stage.warned = record

    def connect_recorder(self, obj: Any, signal_name: str, slot: Callable[..., None]) -> None:
        getattr(obj, signal_name).recorders.append(slot)

    def signal_view(self, obj: Any) -> dict[str, object]:
        return self._stage.see(obj.view)


def write_aside(recorder: Trace, obj: object, kind: str, what: str) -> None:
    """Write down what only trioqt's side can have: a stand-in did it in place of Qt's object, or a law was broken."""
    if id(obj) in recorder.names:
        recorder.add(k=kind, obj=recorder.name(obj), what=what)


def run(scenario: Scenario) -> tuple[list[Entry], str]:
    """Its entries, and how it ended: ``ok``, or what it raised."""
    stage = Stage()
    on_stage.use(stage)
    ended: list[tuple[list[Entry], str]] = []

    def play() -> None:
        recorder = Trace(TrioqtBackend(stage))
        stage.aside = functools.partial(write_aside, recorder)
        how = "ok"
        try:
            scenario.fn(recorder)
        except Exception as exc:
            how = f"exception: {type(exc).__name__}: {exc}"
        ended.append((recorder.finish(), how))

    with mock.patch.dict(sys.modules, MODULES):
        stage.play(play)
    return ended[0]
