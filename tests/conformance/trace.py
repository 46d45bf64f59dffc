"""The recorder: writes down, in order, what a scenario does and what its sockets and servers answer.

A scenario is a synchronous program in the manner of Qt, run against a ``Backend``: real Qt, or the stand-ins that drive
trioqt.  One ``Trace`` is one run of one scenario.  Each entry is a plain dict, and ``k`` says what it is:

=================  =================================================================================================
``signal``         ``obj``, ``name``, ``args``, and what the object was like then (``Backend.signal_view``)
``call``           a method was called: ``obj``, ``fn``, ``args``, and ``ret`` if nothing was recorded during the call
``ret``            the end of a call during which something was: ``obj``, ``fn``, ``ret``; or of one that ``raised``
``query``          ``obj``, ``fn``, and the ``value`` of that getter
``peer``           ``what`` the raw peer, a plain socket, did or saw
``warning``        Qt warned: ``fn``, the function that it named
``wait_timeout``   a bounded wait ran out: ``what`` it was for
``note``           ``text``, and what the scenario found out by itself
=================  =================================================================================================

Ports, descriptors and addresses are symbolic (``SERVER``, ``FD``, ``addr:127.0.0.1``), so that runs can be compared.
Names are in snake_case, those of signals too.  The format is that of the recorded traces in ``traces/``.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import re
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol, TextIO

import attrs

from tests.unused_ports import unused_port

__all__ = ["SCENARIOS", "Backend", "Entry", "Scenario", "Trace", "scenario"]

Entry = dict[str, Any]

# What a wait turns the event loop for at a time, in seconds: ever longer while nothing is recorded.
SHORTEST_STEP = 0.0005
LONGEST_STEP = 0.02

# How many turns a scenario's pause has at least.
FEWEST_TURNS = 8

# How much of one read a trace shows.
LONGEST_DATA = 120

PORT_GETTERS = frozenset({"localPort", "peerPort", "serverPort", "senderPort", "destinationPort"})

# The signals that `watch` records, by the first of these classes of QtNetwork that an object is of.  A class with
# signals of its own (QSslSocket, QSslServer) goes above the one that it is derived from.
SOCKET_SIGNALS = (
    *("stateChanged", "errorOccurred", "hostFound", "connected", "disconnected", "readyRead", "bytesWritten"),
    *("aboutToClose", "readChannelFinished", "proxyAuthenticationRequired"),
)
SERVER_SIGNALS = ("newConnection", "pendingConnectionAvailable", "acceptError")
SIGNALS: dict[str, tuple[str, ...]] = {
    "QSslSocket": (
        *SOCKET_SIGNALS,
        *("encrypted", "sslErrors", "peerVerifyError", "modeChanged", "encryptedBytesWritten"),
        *("alertSent", "alertReceived", "handshakeInterruptedOnError", "newSessionTicketReceived"),
    ),
    "QAbstractSocket": SOCKET_SIGNALS,
    "QSslServer": (
        *SERVER_SIGNALS,
        *("sslErrors", "peerVerifyError", "errorOccurred", "startedEncryptionHandshake"),
        *("handshakeInterruptedOnError", "handshakeTimeout", "alertSent", "alertReceived"),
    ),
    "QTcpServer": SERVER_SIGNALS,
}

STATUS = (
    *("state", "error", "errorString", "isOpen", "openMode", "isValid", "bytesAvailable", "bytesToWrite"),
    *("localAddress", "localPort", "peerAddress", "peerPort", "peerName", "socketDescriptor"),
)


class Backend(Protocol):
    """What a scenario runs on."""

    network: Any
    """The classes of QtNetwork, as attributes."""
    core: Any
    """The classes of QtCore."""

    def ready(self) -> bool:
        """Called before each call that is recorded: a backend whose slots may not act at once waits here.

        Whether it is a slot that had to wait.
        """

    def turn(self, seconds: float) -> None:
        """Let the event loop work, for at most so long.  May return earlier."""

    def now(self) -> float:
        """The clock that ``turn`` and the bounds of waits count in."""

    def on_warning(self, record: Callable[[str], None]) -> None:
        """Call ``record`` with the name of the function for every warning that Qt prints."""

    def connect_recorder(self, obj: Any, signal_name: str, slot: Callable[..., None]) -> None:
        """Connect the recorder's own slot to a signal, whose name is in camelCase."""

    def signal_view(self, obj: Any) -> dict[str, object]:
        """What an entry says of the object beside a signal: ``state``, ``error``, ``avail``; ``has_pending``.

        And ``same_step`` if no slot could have acted since the signal before.
        """


# ---- the scenarios -----------------------------------------------------------------------------


@attrs.frozen
class Scenario:
    """A scenario program."""

    fn: Callable[[Trace], None]
    doc: str
    group: str
    crashy: bool = False
    """Real Qt may crash in it: what it did until then is kept."""
    fresh: bool = True
    """It needs a process of its own, without any name looked up before."""


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    doc: str, group: str, crashy: bool = False, fresh: bool = True
) -> Callable[[Callable[[Trace], None]], Callable[[Trace], None]]:
    """Enter a program in ``SCENARIOS``, under the name of its function."""

    def enter(fn: Callable[[Trace], None]) -> Callable[[Trace], None]:
        SCENARIOS[fn.__name__] = Scenario(fn, doc, group, crashy, fresh)
        return fn

    return enter


def snake(name: str) -> str:
    """``waitForConnected`` as ``wait_for_connected``."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


# ---- the recorder ------------------------------------------------------------------------------


class Trace:
    """One run of a scenario: what it is given to work with, and its entries.

    ``side`` gets a line for every entry at once, for a process that may crash.
    """

    def __init__(self, backend: Backend, side: TextIO | None = None) -> None:
        self.backend = backend
        self.side = side
        self.events: list[Entry] = []
        self.active = True  # entries are dropped while it is not
        self.names: dict[int, str] = {}  # by id()
        self.keep: list[Any] = []  # objects that must not go away before the end
        self.raw: list[socket.socket] = []  # to be closed at the end
        self.ports: dict[int, str] = {}
        self.auto_ports = 0
        self.cleanups: list[Callable[[], object]] = []
        backend.on_warning(lambda fn: self.add(k="warning", fn=fn))

    # ---- values

    def port(self, number: int, symbol: str) -> int:
        """Call this port by ``symbol`` from now on."""
        self.ports[int(number)] = symbol
        return number

    def symbolic_port(self, number: int) -> int | str:
        if number in (0, -1):
            return number
        if number not in self.ports:
            self.auto_ports += 1
            self.ports[number] = f"EPHEMERAL_{self.auto_ports}"
        return self.ports[number]

    def norm(self, value: Any, hint: str | None = None) -> Any:
        """``value`` as it stands in an entry; ``hint`` is the method that it came from."""
        match value:
            case int() if hint in PORT_GETTERS:
                return self.symbolic_port(value)
            case None | bool() | float():
                return value
            case enum.Enum():
                return value.name or str(value)
            case int():
                return self.ports.get(value, value) if value > 1023 else value
            case str():
                for port, symbol in self.ports.items():
                    value = value.replace(f":{port}", f":{symbol}")
                return value
            case bytes() | bytearray() | memoryview():
                return self.norm_data(bytes(value))
            case list() | tuple():
                return [self.norm(item) for item in value]
            case dict():
                return {key: self.norm(item) for key, item in value.items()}
        return self.norm_object(value)

    def norm_data(self, data: bytes) -> str:
        if len(data) > LONGEST_DATA:
            return f"bytes[{len(data)}]"
        return data.decode("latin-1").encode("unicode_escape").decode()

    def norm_object(self, value: Any) -> Any:
        """An object of a class of Qt.  QSslError has its place here."""
        network, core = self.backend.network, self.backend.core
        if isinstance(value, core.QByteArray):
            return self.norm_data(bytes(value))
        if isinstance(value, network.QHostAddress):
            return "addr:" + (value.toString() or "null")
        if isinstance(value, network.QSslError):
            return value.error().name
        if isinstance(value, network.QNetworkProxy):
            return "proxy:" + value.type().name
        if isinstance(value, network.QHostInfo):
            return {
                "error": value.error().name,
                "error_string": value.errorString(),
                "addresses": [self.norm(address) for address in value.addresses()],
            }
        if isinstance(value, network.QNetworkDatagram):
            return {
                "valid": value.isValid(),
                "data": self.norm(value.data()),
                "sender": self.norm(value.senderAddress()),
                "sender_port": self.norm(value.senderPort(), "senderPort"),
                "destination": self.norm(value.destinationAddress()),
                "destination_port": self.norm(value.destinationPort(), "destinationPort"),
                "hop_limit": value.hopLimit(),
                "interface_index": "N" if value.interfaceIndex() else 0,
            }
        if isinstance(value, core.QObject):
            return self.name(value)
        return type(value).__name__

    def norm_read(self, result: Any) -> Any:
        """What ``readDatagram`` gave: data, address and port."""
        if result is None:
            return None
        data, address, port = result
        if address.isNull():
            return "failed (PySide6 gives back an undefined buffer, a null address and port 0)"
        return [self.norm(data), self.norm(address), self.symbolic_port(port)]

    # ---- entries

    def add(self, **entry: Any) -> None:
        """Write an entry down."""
        if self.active:
            self.events.append(entry)
            if self.side is not None:
                print(json.dumps(entry), file=self.side, flush=True)

    def note(self, text: str, **values: Any) -> None:
        """What the scenario found out by itself."""
        self.add(k="note", text=text, **{key: self.norm(value) for key, value in values.items()})

    def peer(self, what: str, **values: Any) -> None:
        """What the raw peer did or saw."""
        self.add(k="peer", what=what, **{key: self.norm(value) for key, value in values.items()})

    def name(self, obj: Any) -> str:
        """What ``obj`` is called in entries."""
        return self.names.get(id(obj), type(obj).__name__)

    def watch(self, obj: Any, name: str, only: list[str] | None = None) -> Any:
        """Record every signal of ``obj``, or only those, under this name."""
        self.names[id(obj)] = name
        self.keep.append(obj)
        for signal in only or self.signals_of(obj):
            if hasattr(getattr(obj, signal, None), "connect"):
                self.backend.connect_recorder(obj, signal, self.recording_slot(obj, name, signal))
        return obj

    def signals_of(self, obj: Any) -> tuple[str, ...]:
        for class_name, signals in SIGNALS.items():
            if isinstance(obj, getattr(self.backend.network, class_name)):
                return signals
        return ()

    def recording_slot(self, obj: Any, name: str, signal: str) -> Callable[..., None]:
        def record(*args: Any) -> None:
            if not self.active:
                return
            entry: Entry = {"k": "signal", "obj": name, "name": snake(signal)}
            if signal == "proxyAuthenticationRequired":
                args = args[:1]  # the second is for the answer
            if args:
                entry["args"] = [self.norm(arg) for arg in args]
            self.add(**entry, **self.backend.signal_view(obj))

        return record

    def on(self, obj: Any, sig: str, fn: Callable[..., object]) -> None:
        """Connect a slot of the scenario, which runs after the recording one."""
        getattr(obj, sig).connect(fn)

    def call(self, obj: Any, method: str, *args: Any, show: list[Any] | None = None) -> Any:
        """Call a method and record it, its arguments as they are or as ``show`` gives them."""
        in_slot = self.backend.ready()
        what: Entry = {"obj": self.name(obj), "fn": snake(method)}
        entry = {"k": "call", **what}
        if args:
            entry["args"] = [self.norm(arg) for arg in (args if show is None else show)]
        if in_slot:
            entry["in_slot"] = True
        here = len(self.events)
        self.add(**entry)
        try:
            result = getattr(obj, method)(*args)
        except Exception as error:
            self.add(k="ret", **what, raised=type(error).__name__)
            return None
        shown = self.norm_read(result) if method == "readDatagram" else self.norm(result, method)
        if self.active:
            if len(self.events) == here + 1:
                self.events[here]["ret"] = shown
            else:
                self.add(k="ret", **what, ret=shown)
        return result

    def query(self, obj: Any, *methods: str) -> None:
        """Record the values of these getters."""
        for method in methods:
            value = getattr(obj, method)()
            if method == "openMode" and value is not None:
                value = str(value).split(".")[-1]
            elif method == "socketDescriptor":
                value = "FD" if int(value) >= 0 else int(value)
            self.add(k="query", obj=self.name(obj), fn=snake(method), value=self.norm(value, method))

    def status(self, s: Any) -> None:
        """Record all that a socket says of itself."""
        self.query(s, *STATUS)

    # ---- waiting, always bounded

    def spin(self, ms: float = 30) -> None:
        """Let the event loop work for so long, and for a few turns even if the machine is too busy for them."""
        end = self.backend.now() + ms / 1000
        turns = 0
        while (left := end - self.backend.now()) > 0 or turns < FEWEST_TURNS:
            self.backend.turn(max(left, 0))
            turns += 1

    def until(self, cond: Callable[[], object], what: str = "", ms: float = 3000) -> bool:
        """Let the event loop work until this holds.  If it does not in so long, that is an entry."""
        end = self.backend.now() + ms / 1000
        step = SHORTEST_STEP
        while not cond():
            left = end - self.backend.now()
            if left <= 0:
                self.add(k="wait_timeout", what=what)
                return False
            before = len(self.events)
            self.backend.turn(min(step, left))
            step = min(step * 2, LONGEST_STEP) if len(self.events) == before else SHORTEST_STEP
        return True

    def until_state(self, s: Any, state: str, ms: float = 3000) -> bool:
        """Let the event loop work until the socket is in this state."""
        states = type(s).SocketState if hasattr(type(s), "SocketState") else type(s).LocalSocketState
        wanted = getattr(states, state)
        return self.until(lambda: s.state() == wanted, "state==" + state, ms)

    def seen(self, obj_name: str, sig: str) -> bool:
        """Whether this signal was recorded."""
        return self.count(obj_name, sig) > 0

    def count(self, obj_name: str, sig: str) -> int:
        """How often this signal was recorded."""
        return sum(e["k"] == "signal" and e["obj"] == obj_name and e["name"] == sig for e in self.events)

    # ---- raw peers

    def raw_listener(
        self, backlog: int = 16, addr: str = "127.0.0.1", symbol: str = "SERVER"
    ) -> tuple[socket.socket, int]:
        """A plain listening socket, and its port."""
        listener = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET)
        self.raw.append(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((addr, 0))
        listener.listen(backlog)
        listener.settimeout(3)
        number = listener.getsockname()[1]
        self.port(number, symbol)
        return listener, number

    def accept(self, lst: socket.socket) -> socket.socket:
        """The next connection of a raw listener; the event loop works only if none is there yet."""
        end = self.backend.now() + 3
        lst.setblocking(False)
        while True:
            try:
                peer, address = lst.accept()
                break
            except BlockingIOError:
                if self.backend.now() > end:
                    raise TimeoutError("no connection came") from None
                self.backend.turn(SHORTEST_STEP)
        lst.settimeout(3)
        peer.settimeout(3)
        self.raw.append(peer)
        self.port(address[1], "CLIENT")
        return peer

    def closed_port(self) -> int:
        """A port of the loopback on which nobody listens."""
        number = unused_port()
        self.port(number, "CLOSED")
        return number

    def tcp(self, name: str = "client") -> Any:
        """A new QTcpSocket, watched."""
        return self.watch(self.backend.network.QTcpSocket(), name)

    def connected_pair(self, name: str = "client", **kw: Any) -> tuple[Any, socket.socket]:
        """A QTcpSocket, watched, and the raw peer that it is connected to.  How they came together is not recorded.

        ``setReadBufferSize=4`` calls that method before connecting.
        """
        network = self.backend.network
        listener, number = self.raw_listener()
        was, self.active = self.active, False
        client = network.QTcpSocket()
        for method, value in kw.items():
            getattr(client, method)(value)
        client.connectToHost(network.QHostAddress("127.0.0.1"), number)
        self.until_state(client, "ConnectedState")
        peer = self.accept(listener)
        self.active = was
        self.watch(client, name)
        return client, peer

    def recv_all(
        self, sock: socket.socket, ms: float = 1000, until_eof: bool = True, want: int | None = None
    ) -> tuple[bytes, str]:
        """What a raw peer receives while the event loop works, and how that ended.

        It ends with ``got`` (as many bytes as wanted), ``eof``, ``reset``, the name of another error, or ``timeout``.
        ``until_eof`` says nothing: scenarios may give it.
        """
        sock.setblocking(False)
        got = bytearray()
        end = self.backend.now() + ms / 1000
        step = SHORTEST_STEP
        while (left := end - self.backend.now()) > 0:
            self.backend.turn(min(step, left))
            try:
                piece = sock.recv(1 << 18)
            except BlockingIOError:
                step = min(step * 2, LONGEST_STEP)
                continue
            except ConnectionResetError:
                return bytes(got), "reset"
            except OSError as error:
                return bytes(got), type(error).__name__
            if not piece:
                return bytes(got), "eof"
            got += piece
            step = SHORTEST_STEP
            if want is not None and len(got) >= want:
                return bytes(got), "got"
        return bytes(got), "timeout"

    def rst(self, sock: socket.socket) -> None:
        """Close a raw socket with a reset."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def give_back(self, descriptor: int) -> None:
        """Close it at the end, whether a socket has taken it or not."""
        self.cleanups.append(lambda: os.close(descriptor))

    # ---- the end

    def finish(self) -> list[Entry]:
        """Close everything, unrecorded, and hand out the entries."""
        self.active = False
        network = self.backend.network
        for cleanup in self.cleanups:
            with contextlib.suppress(Exception):
                cleanup()
        for obj in reversed(self.keep):
            with contextlib.suppress(Exception):
                if isinstance(obj, network.QAbstractSocket):
                    obj.abort()
                elif isinstance(obj, network.QTcpServer):
                    obj.close()
        for sock in self.raw:
            with contextlib.suppress(Exception):
                sock.close()
        self.spin(5)
        return self.events
