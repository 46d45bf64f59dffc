"""A function's name, good for finding it again in another process: ``package.module:function`` or ``file.py:function``.

A test module need not be importable by its name (pytest loads it from its file), nor is a script; so the file counts
where the name does not lead to it.
"""

from __future__ import annotations

import importlib
import importlib.util
import operator
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import attrs

from trioqt.testing.simulation.places import short_path

__all__ = ["Target"]


@attrs.frozen
class Target:
    """Where a function is."""

    module: str
    """Empty for a script, or a file that has no other name."""
    file: str
    name: str
    started: bool = False
    """It is of the module that Python was started with, whose name there is ``__main__``."""

    def __str__(self) -> str:
        return f"{self.module if self._name_leads_there() else short_path(self.file)}:{self.name}"

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Target:
        """Where ``function`` is.

        Raises:
          ValueError: it is not to be found by a name.
        """
        name = getattr(function, "__qualname__", "")
        module = sys.modules.get(getattr(function, "__module__", None) or "")
        file = getattr(module, "__file__", None)
        try:
            found = module is not None and operator.attrgetter(name)(module) is function
        except AttributeError:
            found = False
        if not found or module is None or file is None:
            raise ValueError(
                f"{function!r} cannot be found by name in another process: it must be a function at the top level of a"
                " module or a script"
            )
        started = module.__name__ == "__main__"
        if started:
            # `python -m package.module` leaves the module's own name here, and a script nothing.
            called = "" if module.__spec__ is None else module.__spec__.name
        else:
            called = module.__name__
        return cls(called, os.path.abspath(file), name, started)

    @classmethod
    def parse(cls, text: str) -> Target:
        """What ``str`` gave.

        Raises:
          ValueError: it does not read like that, or there is no such file or module.
        """
        place, colon, name = text.rpartition(":")
        if not (place and colon and name):
            raise ValueError(f"{text!r} is neither package.module:function nor file.py:function")
        if place.endswith(".py"):
            if not os.path.isfile(place):
                raise ValueError(f"there is no file {place}")
            return cls("", os.path.abspath(place), name)
        spec = _find_spec(place)
        if spec is None or spec.origin is None:
            raise ValueError(f"there is no module {place}")
        return cls(place, os.path.abspath(spec.origin), name)

    def load(self) -> Callable[..., Any]:
        """The function itself, in a process that may not have its module yet.

        Raises:
          ValueError: the module has no such function.
        """
        module = importlib.import_module(self.module) if self._name_leads_there() else self._load_file()
        if self.started:
            sys.modules["__main__"] = module  # pickles look there for its classes
        try:
            function = operator.attrgetter(self.name)(module)
        except AttributeError:
            raise ValueError(f"{self.file} has no {self.name}") from None
        if not callable(function):
            raise ValueError(f"{self} is no function")
        found: Callable[..., Any] = function
        return found

    def _name_leads_there(self) -> bool:
        spec = _find_spec(self.module) if self.module else None
        return spec is not None and spec.origin is not None and os.path.abspath(spec.origin) == self.file

    def _load_file(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location(self.module or "__script__", self.file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        if not self.module:
            sys.path.insert(0, os.path.dirname(self.file))
        spec.loader.exec_module(module)
        return module


def _find_spec(module: str) -> ModuleSpec | None:
    """Look where an import would, but not at what is imported already: that may have come in another way."""
    parent = module.rpartition(".")[0]
    try:
        path = importlib.import_module(parent).__path__ if parent else None
    except (ImportError, AttributeError):
        return None
    finders = (finder.find_spec for finder in sys.meta_path)
    return next((found for find in finders if (found := find(module, path)) is not None), None)
