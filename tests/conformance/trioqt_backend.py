"""The backend that is trioqt: runs scenario files, which import PySide6, on the stand-ins instead."""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import runpy
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import trio

from tests.conformance import trace
from tests.conformance.stage import Stage
from tests.conformance.stand_in import modules, on_stage
from tests.conformance.trace import Entry, Scenario, Trace

__all__ = ["load", "run"]


BESIDE = ("proxy", "ssl")
"""The groups of scenarios in which something runs beside the program."""


class Module(types.ModuleType):
    """A module of PySide6; what is not in ``namespace`` is absent, and only a scenario that uses it fails."""

    def __init__(self, name: str, namespace: types.SimpleNamespace | None = None) -> None:
        super().__init__(name)
        vars(self).update(vars(namespace or types.SimpleNamespace()))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return modules.absent(name)


class AbsentModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every other module of PySide6, in which all is absent."""

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name.startswith("PySide6.") else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


CORE = Module("PySide6.QtCore", modules.CORE)
NETWORK = Module("PySide6.QtNetwork", modules.NETWORK)
MODULES: dict[str, types.ModuleType] = {
    "PySide6": Module("PySide6", types.SimpleNamespace(__path__=[], QtCore=CORE, QtNetwork=NETWORK)),
    "PySide6.QtCore": CORE,
    "PySide6.QtNetwork": NETWORK,
    "shiboken6": Module("shiboken6", modules.SHIBOKEN),
    "harness": trace,
}
"""What a scenario imports, in its functions too."""


@contextlib.contextmanager
def stand_in_modules() -> Iterator[None]:
    """Within the block PySide6 is the stand-ins."""
    with mock.patch.dict(sys.modules, MODULES), mock.patch.object(sys, "meta_path", [AbsentModules(), *sys.meta_path]):
        yield


def load(files: Iterable[Path]) -> dict[str, Scenario]:
    """The scenarios in ``files``, bound to trioqt.  Files that say ``from harness import scenario`` are welcome.

    A class of Qt that trioqt has no counterpart of may be imported; the scenarios that do not use it run.
    """
    found: dict[str, Scenario] = {}
    with stand_in_modules(), mock.patch.dict(trace.SCENARIOS, clear=True):
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
        self._steps: dict[int, int] = {}  # the last one in which an object told something, by id()

    def ready(self) -> bool:
        return self._stage.ready()

    def turn(self, seconds: float) -> None:
        self._stage.wait(lambda: self._stage.turn(seconds))

    def now(self) -> float:
        return self._stage.see(trio.current_time)

    def on_warning(self, record: Callable[[str], None]) -> None:
        self._stage.warned = record

    def connect_recorder(self, obj: Any, signal_name: str, slot: Callable[..., None]) -> None:
        getattr(obj, signal_name).recorders.append(slot)

    def signal_view(self, obj: Any) -> dict[str, object]:
        before, self._steps[id(obj)] = self._steps.get(id(obj)), self._stage.step
        view: dict[str, object] = self._stage.see(obj.view)
        marks = {"same_step": before == self._stage.step, "inside": obj.tells_inside}
        return view | {mark: True for mark, holds in marks.items() if holds}


def write_aside(recorder: Trace, obj: object, kind: str, what: str) -> None:
    """Write down what only trioqt's side can have: a stand-in did it in place of Qt's object, or a law was broken."""
    if id(obj) in recorder.names:
        recorder.add(k=kind, obj=recorder.name(obj), what=what)


def run(scenario: Scenario) -> tuple[list[Entry], str]:
    """Its entries, and how it ended: ``ok``, or what it raised."""
    stage = Stage(beside=scenario.group in BESIDE)
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

    with stand_in_modules():
        stage.play(play)
    return ended[0]
