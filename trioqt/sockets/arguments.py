"""What a caller passes, checked before anything is done with it: hosts, ports, sizes, single bytes."""

from __future__ import annotations

import dis
import functools
import inspect
import math
import operator
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from types import FunctionType

from trioqt.core.addresses import HostAddress, NetworkLayerProtocol, parse_address
from trioqt.core.options import SocketType, SystemOption
from trioqt.links.names import LONGEST_NAME

__all__ = [
    "Host",
    "check_char",
    "check_factory",
    "check_handler",
    "check_host",
    "check_hosts",
    "check_limit",
    "check_options",
    "check_port",
    "check_protocol",
    "check_delimiter",
    "check_seconds",
    "check_size",
    "check_stream_type",
    "name_of",
    "spelled",
]

# Of a name that is longer than a name can be, so much is shown.
SHOWN = 60

# Addresses are shorter, and most names.
LONGEST_KEPT = 64

Host = HostAddress | str | IPv4Address | IPv6Address


def check_host(host: Host) -> HostAddress | str:
    """An address, or a name still to be looked up.  Raises: TypeError."""
    if type(host) is str and len(host) <= LONGEST_KEPT:
        return _kept(host)
    if isinstance(host, HostAddress):
        return host
    if isinstance(host, (IPv4Address, IPv6Address)):
        return HostAddress(str(host))
    if not isinstance(host, str):
        raise TypeError(f"a host is a name or an address, not {type(host).__name__}")
    return _read(host)


def _read(text: str) -> HostAddress | str:
    address = parse_address(text.strip())  # as Qt does
    return text if address is None else address


# Who connects again and again does so to few hosts.
_kept = functools.lru_cache(256)(_read)


def spelled(host: HostAddress | str) -> str:
    """A host as messages have it: whatever a caller took out of a URL or a file, it can be printed, and is not long."""
    text = str(host)
    if len(text) > LONGEST_NAME:
        text = f"{text[:SHOWN]}..."
    return text if text.isprintable() else repr(text)


def check_hosts(hosts: Host | Sequence[Host]) -> list[HostAddress | str]:
    """One, or several.  Raises: TypeError, ValueError."""
    if isinstance(hosts, str) or not isinstance(hosts, Sequence):
        return [check_host(hosts)]
    if not hosts:
        raise ValueError("there must be at least one host")
    return [check_host(host) for host in hosts]


def check_port(port: int) -> int:
    """Raises: TypeError, ValueError."""
    if type(port) is int and 0 <= port <= 65535:
        return port
    if not hasattr(port, "__index__"):
        raise TypeError(f"a port is an int, not {type(port).__name__}")
    port = operator.index(port)
    if not 0 <= port <= 65535:
        raise ValueError(f"a port is 0 to 65535, not {port}")
    return port


def check_protocol(protocol: NetworkLayerProtocol) -> None:
    """Of a connection.  Raises: TypeError, ValueError."""
    if not isinstance(protocol, NetworkLayerProtocol):
        raise TypeError(f"a protocol is a NetworkLayerProtocol, not {type(protocol).__name__}")
    if protocol is NetworkLayerProtocol.UNKNOWN:
        raise ValueError("connecting needs a protocol that is known")


def check_size(size: int, name: str, *, least: int = 0) -> int:
    """Raises: TypeError, ValueError."""
    if type(size) is int and size >= least:
        return size  # as each new socket's are
    if not hasattr(size, "__index__"):
        raise TypeError(f"{name} is an int, not {type(size).__name__}")
    size = operator.index(size)
    if size < least:
        raise ValueError(f"{name} must be at least {least}, not {size}")
    return size


def check_delimiter(delimiter: bytes | bytearray) -> bytes:
    """Raises: TypeError, ValueError."""
    if not isinstance(delimiter, (bytes, bytearray)):
        raise TypeError(f"a delimiter is bytes, not {type(delimiter).__name__}")
    if not delimiter:
        raise ValueError("a delimiter must not be empty")
    return bytes(delimiter)


def check_seconds(seconds: float, name: str) -> float:
    """A time, infinity included.  Raises: TypeError, ValueError."""
    if type(seconds) is float and seconds >= 0:
        return seconds  # as each new socket's is
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name} is a number of seconds, not {type(seconds).__name__}")
    if not seconds >= 0:  # nan too
        raise ValueError(f"{name} must be at least 0, not {seconds}")
    try:
        return float(seconds)
    except OverflowError:
        raise ValueError(f"{name} is more than a float can hold") from None


def check_handler(handler: object, of: str = "socket") -> None:
    """Raises: TypeError if it can be seen, before it is called, that it is no async function of one such thing."""
    _check_is_async(handler)
    _check_takes(handler, 1, f"a handler is called with one {of}")


def check_factory(factory: object, kind: type) -> None:
    """Raises: TypeError if it can be seen, before it is called, that it does not make things of that kind."""
    if not callable(factory):
        raise TypeError(f"a socket factory is callable, not {type(factory).__name__}")
    if isinstance(factory, type) and not issubclass(factory, kind):
        raise TypeError(f"a socket factory must make {kind.__name__}s, not {factory.__name__}s")
    if inspect.iscoroutinefunction(factory) or inspect.isasyncgenfunction(factory):
        raise TypeError("a socket factory is an ordinary function, and not an async one; a handler is given to serve()")
    _check_takes(factory, 0, "a socket factory is called without arguments")


def _check_takes(function: object, count: int, rule: str) -> None:
    """Raises: TypeError if it cannot be called with so many arguments, as far as it tells what it takes."""
    if not callable(function) or hasattr(function, "__signature__"):
        return  # the latter a decorator may have copied from something else
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except Exception:  # many a built-in has none, and annotations may fail when they are looked at
        return
    try:
        signature.bind(*[None] * count)
    except TypeError as exc:
        raise TypeError(f"{rule}: {exc}") from None


def _check_is_async(handler: object) -> None:
    if not callable(handler):
        hint = ": give the function, do not call it" if inspect.isawaitable(handler) else ""
        if inspect.iscoroutine(handler):
            handler.close()
        raise TypeError(f"a handler is an async function, not {type(handler).__name__}{hint}")
    inner = _within(handler)
    name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    if isinstance(inner, type):
        if not hasattr(inner, "__await__"):
            raise TypeError(f"a handler is an async function, not the class {name}")
        return
    if not inspect.isroutine(inner):
        inner = type(inner).__call__
    inner = getattr(inner, "__func__", inner)
    if inspect.isfunction(inner):
        _check_function(inner, name)
    elif inspect.isbuiltin(inner) and inner.__module__ == "builtins":
        raise TypeError(f"a handler is an async function, and {name} is not")


def _within(handler: object) -> object:
    """What a partial calls."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return handler


def name_of(handler: object) -> str:
    """For its tasks.  Not ``repr``: that of a partial has all that was given to it, and may be long, or fail."""
    inner = _within(handler)
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{getattr(named, '__module__', '?')}.{getattr(named, '__qualname__', '?')}"


def _check_function(function: FunctionType, name: str) -> None:
    flags = function.__code__.co_flags
    if flags & (inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE) or inspect.iscoroutinefunction(function):
        return
    if flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
        raise TypeError(f"a handler is an async function, not a generator: {name}")
    if _returns_only_constants(function):
        raise TypeError(f"a handler is an async function, and {name} is not: write `async def`")


# How bytecode gets a constant that is returned next.
LOADS_CONSTANT = ("LOAD_CONST", "LOAD_SMALL_INT")


def _returns_only_constants(function: FunctionType) -> bool:
    """Then it cannot return an awaitable.  One that returns something else may, as a lambda does."""
    before = ""
    for instruction in dis.get_instructions(function):
        # To a return that is jumped to, another value may come, as in ``return f() or None``.
        if instruction.opname == "RETURN_VALUE" and (instruction.is_jump_target or before not in LOADS_CONSTANT):
            return False
        before = instruction.opname
    return True


def check_options(options: Sequence[SystemOption]) -> tuple[SystemOption, ...]:
    """Options of the system's.  Raises: TypeError, ValueError."""
    given: object = options
    if given == ():
        return ()  # as mostly
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise TypeError(f"options are a list of (level, number, value), not {type(given).__name__}")
    return tuple(_checked_option(option) for option in given)


def _checked_option(option: object) -> SystemOption:
    if not isinstance(option, tuple | list) or len(option) != 3:
        raise TypeError(f"an option is (level, number, value), not {option!r}")
    level, number, value = option
    if not isinstance(value, bytes | bytearray | memoryview):
        return _c_int(level), _c_int(number), _c_int(value)
    return _c_int(level), _c_int(number), bytes(value)


def _c_int(value: object) -> int:
    if not hasattr(value, "__index__"):
        raise TypeError(f"an option's level and number are ints, and its value is an int or bytes, not {value!r}")
    number = operator.index(value)
    if not -(2**31) <= number < 2**31:
        raise ValueError(f"an option's level, number and value are C ints, not {number}")
    return number


def check_stream_type(kind: SocketType) -> SocketType:
    """Raises: TypeError, ValueError if no connection is of that type."""
    if not isinstance(kind, SocketType):
        raise TypeError(f"a socket type is a SocketType, not {type(kind).__name__}")
    if kind not in (SocketType.TCP, SocketType.SCTP):
        raise ValueError(f"a connection is TCP or SCTP, not {kind.name}")
    return kind


def check_limit(seconds: float | None, name: str) -> float | None:
    """A time in seconds, or None where there is no limit, which infinity is too.  Raises: TypeError, ValueError."""
    if seconds is None:
        return None
    seconds = check_seconds(seconds, name)
    if not seconds:
        raise ValueError(f"{name} must be more than 0 s")
    return None if seconds == math.inf else seconds


def check_char(char: bytes) -> bytes:
    """Raises: TypeError, ValueError."""
    if not isinstance(char, (bytes, bytearray)):
        raise TypeError(f"a char is one byte, not {type(char).__name__}")
    if len(char) != 1:
        raise ValueError(f"a char is one byte, not {len(char)}")
    return bytes(char)
