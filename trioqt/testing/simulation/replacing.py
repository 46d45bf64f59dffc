"""Functions of the standard library, replaced wherever a module keeps them, and put back.

``from time import time`` copies a function into a module before anybody simulates, a class may have it as an
attribute, and a function as a default.  So every module is searched, once; after that only those that have changed.
What stands in for a function asks at each call whether it is in a simulation, so one that is left behind somewhere
does no harm.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final, NamedTuple, Protocol

from trioqt.testing.simulation.worlds import BYSTANDERS, WAITERS

__all__ = ["Place", "Replacing", "Setting", "TypeEntry", "class_entry"]

Table = Mapping[Any, Any]
"""| what is there | what stands in for it |"""

_MISSING: Final = object()

# Whoever presses Ctrl-C more often than that, in the milliseconds that it takes, gets what is left.
_TRIES: Final = 10

_LEFT_ALONE: Final = BYSTANDERS - WAITERS

# What stands in for a function keeps the real one.
_OURS: Final = __name__.removesuffix(".replacing")

# Everywhere here `type(...)` and not `isinstance`: that asks the object for its class, and an object that stands for
# another, or is to be made when it is needed, would go and get it.
_KINDS: Final = frozenset({BuiltinFunctionType, MethodType, FunctionType})


class Place(Protocol):
    """Where something is kept."""

    def swap(self, table: Table) -> None:
        """Put what the table has for it there; nothing if that has nothing."""


class Entry:
    """A key of a dict: a module's name, an object's attribute, a keyword's default."""

    __slots__ = ("_dict", "_key")

    def __init__(self, mapping: dict[Any, Any], key: Any) -> None:
        self._dict = mapping
        self._key = key

    def swap(self, table: Table) -> None:
        found = _look_up(table, self._dict.get(self._key))
        if found is not _MISSING:
            self._dict[self._key] = found


class ClassEntry:
    """An attribute of a class that Python code has made."""

    __slots__ = ("_class", "_name", "_replaced")

    def __init__(self, cls: type, name: str) -> None:
        self._class = cls
        self._name = name
        self._replaced: Any = _MISSING  # what was there, before something else was put there

    def swap(self, table: Table) -> None:
        kept = self._class.__dict__.get(self._name)
        found = _look_up(table, _within(kept))
        if found is _MISSING:
            return
        # A function of C does not bind itself to the object; one of Python would.  And past the class of the class,
        # which may refuse it.
        if _within(self._replaced) is found:
            type.__setattr__(self._class, self._name, self._replaced)
        else:
            self._replaced = kept
            type.__setattr__(self._class, self._name, staticmethod(found))


class Defaults:
    """The defaults of a function."""

    __slots__ = ("_function",)

    def __init__(self, function: FunctionType) -> None:
        self._function = function

    def swap(self, table: Table) -> None:
        defaults = self._function.__defaults__ or ()
        found = tuple(_looked_up(table, each) for each in defaults)
        if any(new is not old for new, old in zip(found, defaults, strict=True)):
            self._function.__defaults__ = found


class Cell:
    """A variable of an outer function; so a dataclass keeps its factories."""

    __slots__ = ("_cell",)

    def __init__(self, cell: CellType) -> None:
        self._cell = cell

    def swap(self, table: Table) -> None:
        found = _look_up(table, _contents(self._cell))
        if found is not _MISSING:
            self._cell.cell_contents = found


class TypeEntry:
    """A name of a type that is written in C, whose attributes nobody can set.

    There is no public way; the dict behind the proxy takes it, and Python is told to forget what it has cached.
    """

    def __init__(self, cls: type, name: str) -> None:
        self._class = cls
        self._name = name
        self._dict: dict[str, Any] = gc.get_referents(cls.__dict__)[0]
        self._try_it()

    def _try_it(self) -> None:
        """Raises: TypeError if it is not the type's own dict; AttributeError if this is no CPython."""
        probe = "trioqt was here"
        self._dict[probe] = None
        is_own = probe in self._class.__dict__
        del self._dict[probe]
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(self._class))
        if not is_own:
            raise TypeError(f"the dict of {self._class.__name__} cannot be reached")

    @property
    def kept(self) -> Any:
        """What is there."""
        return self._dict[self._name]

    def put(self, value: Any) -> None:
        """Have this there."""
        self._dict[self._name] = value
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(self._class))


def class_entry(cls: type, name: str) -> Callable[[Any], None]:
    """What sets this attribute of the class."""
    return lambda value: setattr(cls, name, value)


Setting = tuple[Callable[[Any], object], Any, Any]
"""| how to set something | to what | and to what afterwards |"""


class Replacing:
    """A block within which functions are replaced; afterwards all of them are back, whatever happened.

    Args:
      table: What stands in for which function, wherever that is kept.
      settings: What else is set.
    """

    def __init__(self, table: Table, settings: Sequence[Setting]) -> None:
        self._table = table
        self._back = {new: old for old, new in table.items()}
        self._wanted = {*self._table, *self._back}
        self._settings = settings
        self._is_back = True

    def __enter__(self) -> None:
        self._is_back = False
        try:
            self._swap(self._table)
            for put, value, _ in self._settings:
                put(value)
        except BaseException:
            self.put_back()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.put_back()

    def put_back(self) -> None:
        """All of it, wherever that was interrupted, and again if this is: each part of it may be done twice."""
        interrupted: BaseException | None = None
        for _ in range(_TRIES):
            try:
                self._put_back_once()
                break
            except BaseException as exc:
                interrupted = exc
        if interrupted is not None:
            raise interrupted

    def _put_back_once(self) -> None:
        if not self._is_back:
            for put, _, value in self._settings:
                put(value)
            self._swap(self._back)
            self._is_back = True

    def _swap(self, table: Table) -> None:
        if table:
            for place in _index.places(self._wanted):
                place.swap(table)


class _Searched(NamedTuple):
    """A module, as it was when it was searched."""

    module: ModuleType
    names: dict[str, Any]
    size: int
    places: list[Place]


class _Index:
    """Where the modules of this process keep what has ever been looked for."""

    def __init__(self) -> None:
        self._searched: dict[str, _Searched] = {}
        self._looked_for: set[Any] = set()
        self._places: list[Place] = []

    def places(self, wanted: set[Any]) -> list[Place]:
        """All places that may have something of these; what has changed since the last time is searched again."""
        if not self._looked_for.issuperset(wanted):
            self._looked_for.update(wanted)
            self._searched.clear()
        modules = dict(sys.modules)
        gone = [name for name in self._searched if name not in modules]
        for name in gone:
            del self._searched[name]
        changed = bool(gone)
        # For each run, and a thousand modules; so it is no more than this.  A name that has come and one that has gone
        # in the same module is not noticed.
        for name, module in modules.items():
            known = self._searched.get(name)
            if known is None or known.module is not module or known.size != len(known.names):
                self._searched[name] = self._search(name, module)
                changed = True
        if changed:
            self._places = [place for known in self._searched.values() for place in known.places]
        return self._places

    def _search(self, name: str, module: ModuleType) -> _Searched:
        names = _names_of(module)
        if name.partition(".")[0] in _LEFT_ALONE or name.startswith(_OURS):
            return _Searched(module, names, len(names), [])
        return _Searched(module, names, len(names), list(_search(name, names, self._looked_for)))


_index = _Index()


def _names_of(value: object) -> dict[str, Any]:
    """The attributes that it keeps itself, without asking it for them."""
    if not type(value).__dictoffset__:
        return {}  # most of what a module has: numbers, texts, tuples
    for cls in type(value).__mro__:
        kept = cls.__dict__.get("__dict__")
        if kept is not None:
            names = kept.__get__(value) if type(kept) in (GetSetDescriptorType, MemberDescriptorType) else {}
            return names if type(names) is dict else {}
    return {}


def _search(module: str, names: dict[str, Any], wanted: set[Any]) -> Iterator[Place]:
    for key, value in list(names.items()):
        if type(value) in _KINDS and value in wanted:
            yield Entry(names, key)
        elif type(value) is FunctionType:
            yield from _search_function(value, names, wanted)
        elif issubclass(type(value), type):
            if value.__dict__.get("__module__") == module:
                yield from _search_class(value, names, wanted)
        elif not issubclass(type(value), ModuleType) and key != "__builtins__":
            # An object of the module, such as a client or its settings, or a dict, such as a registry.
            yield from _search_dict(value if type(value) is dict else _names_of(value), wanted)


def _search_dict(kept: dict[Any, Any], wanted: set[Any]) -> Iterator[Place]:
    for key, value in list(kept.items()):
        if type(value) in _KINDS and value in wanted:
            yield Entry(kept, key)


def _search_class(cls: type, names: dict[str, Any], wanted: set[Any]) -> Iterator[Place]:
    for name, value in list(cls.__dict__.items()):
        inner = value.__func__ if type(value) in (staticmethod, classmethod) else value
        if type(inner) in _KINDS and inner in wanted:
            if cls.__flags__ & _HEAP_TYPE:
                yield ClassEntry(cls, name)
        elif type(inner) is FunctionType:
            yield from _search_function(inner, names, wanted)


# Of `type.__flags__`: Python code has made it, so its attributes can be set.
_HEAP_TYPE: Final = 1 << 9


def _search_function(function: FunctionType, names: dict[str, Any], wanted: set[Any]) -> Iterator[Place]:
    if any(type(each) in _KINDS and each in wanted for each in function.__defaults__ or ()):
        yield Defaults(function)
    yield from _search_dict(function.__kwdefaults__ or {}, wanted)
    for cell in function.__closure__ or ():
        value = _contents(cell)
        if type(value) in _KINDS and value in wanted:
            yield Cell(cell)
    # attrs gives the methods that it makes globals of their own: those of the module, and the factories.
    own = function.__globals__
    if own is not names and own is not _names_of(sys.modules.get(own.get("__name__", ""))):
        yield from _search_dict(own, wanted)


def _within(kept: Any) -> Any:
    return kept.__func__ if type(kept) is staticmethod else kept


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING  # it has no value yet


def _look_up(table: Table, value: Any) -> Any:
    return table.get(value, _MISSING) if type(value) in _KINDS else _MISSING


def _looked_up(table: Table, value: Any) -> Any:
    found = _look_up(table, value)
    return value if found is _MISSING else found
