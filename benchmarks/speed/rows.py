"""What can be measured: the peers, the modes, the rows of the table, and what we want of ours in each.

A row is written ``echo:30x700`` (connections, bytes of a message) or ``lines:3x40x200`` (connections, lines at a time,
bytes of a line); any numbers will do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Peer:
    """Who serves: a module in ``peers/``, how it is called in print, and which packages it needs besides ours."""

    module: str
    label: str
    needs: tuple[str, ...] = ()


PEERS: dict[str, Peer] = {
    "trio": Peer("trio_peer", "trio"),
    "anyio": Peer("anyio_peer", "anyio on trio", ("anyio",)),
    "asyncio-streams": Peer("asyncio_peer", "asyncio streams"),
    "asyncio-protocol": Peer("asyncio_peer", "asyncio Protocol"),
    "uvloop-streams": Peer("asyncio_peer", "uvloop streams", ("uvloop",)),
    "uvloop-protocol": Peer("asyncio_peer", "uvloop Protocol", ("uvloop",)),
    "pyside6": Peer("qt_peer", "PySide6", ("PySide6.QtNetwork",)),
    "epoll": Peer("epoll_peer", "bare epoll"),
    "trioqt": Peer("trioqt_peer", "trioqt"),
    "trioqt-write": Peer("trioqt_peer", "trioqt, write"),
    "trioqt-send_all": Peer("trioqt_peer", "trioqt, send_all"),
    "trioqt-receive_some": Peer("trioqt_peer", "trioqt, receive_some"),
    "trioqt-qt": Peer("trioqt_peer", "trioqt, Qt's verbs"),
    "trioqt-ssl_stream": Peer("trioqt_peer", "trioqt, under trio.SSLStream"),
    "trioqt-nobody": Peer("trioqt_peer", "trioqt, nobody follows"),
    "trioqt-one": Peer("trioqt_peer", "trioqt, one follows"),
    "trioqt-ten": Peer("trioqt_peer", "trioqt, ten follow"),
}

OTHERS = (
    "trio",
    "anyio",
    "asyncio-streams",
    "asyncio-protocol",
    "uvloop-streams",
    "uvloop-protocol",
    "pyside6",
    "epoll",
)
TLS = (*OTHERS, "trioqt-ssl_stream")
TLS_EXCHANGE = (*TLS, "trioqt-write", "trioqt-send_all")
EXCHANGE = (*OTHERS, "trioqt-write", "trioqt-send_all", "trioqt-qt")

# A busy connection beside a crowd is compared with the same server without one.
ALONE = " alone"


@dataclass(frozen=True)
class Mode:
    """A kind of row.

    Attributes:
      generator: the load generator's mode.
      server: the peers' mode.
      title: with ``{count}``, ``{many}`` (connections), ``{sockets}``, ``{number}`` and ``{size}``.
      number: how many at a time on a connection, where the row does not say; None: there is no such number.
      size: of a message or a line, likewise; 0: lines of 11 to 39 bytes.
      base: the peer that others are compared with; "" is the same peer, alone.
      less_is_better: a row of memory, not of work.
      tls: by TLS 1.3, with a certificate of an ECDSA key.
    """

    generator: str
    server: str
    unit: str
    title: str
    peers: tuple[str, ...]
    number: int | None = None
    size: int | None = None
    base: str = "trio"
    less_is_better: bool = False
    tls: bool = False


MODES: dict[str, Mode] = {
    "echo": Mode("echo", "echo", "trips", "echo of {size} bytes, {many}", EXCHANGE, size=64),
    "lines": Mode("lines", "lines", "lines", "{number} pipelined lines{size}, {many}", EXCHANGE, number=16, size=0),
    "accept": Mode("accept", "accept", "lives", "accept + echo + close, {count} at once", (*OTHERS, "trioqt"), size=64),
    "client": Mode("client", "client", "lives", "connect + ask + close, {count} at once", (*OTHERS, "trioqt")),
    "send": Mode("send", "send", "bytes", "send a stream, {many}", (*OTHERS, "trioqt-write", "trioqt-send_all")),
    "receive": Mode(
        "receive", "receive", "bytes", "receive a stream, {many}", (*OTHERS, "trioqt-receive_some", "trioqt-qt")
    ),
    "idle": Mode(
        "idle",
        "idle",
        "B/conn",
        "memory of an idle connection among {count}",
        (*OTHERS, "trioqt"),
        less_is_better=True,
    ),
    "events": Mode(
        "echo",
        "echo",
        "trips",
        "echo of {size} bytes, {many}, whose events somebody follows",
        ("trioqt-nobody", "trioqt-one", "trioqt-ten"),
        size=64,
        base="trioqt-nobody",
    ),
    "busy": Mode(
        "echo",
        "echo",
        "trips",
        "echo of {size} bytes, 1 connection beside {count} idle ones",
        tuple(
            name + alone
            for name in ("trio", "asyncio-streams", "uvloop-streams", "pyside6", "epoll", "trioqt-write")
            for alone in (ALONE, "")
        ),
        size=64,
        base="",
    ),
    "udp": Mode(
        "datagrams",
        "datagrams",
        "trips",
        "echo of datagrams of {size} bytes, {sockets}, {number} in flight on each",
        (*(name for name in OTHERS if not name.endswith("-streams")), "trioqt", "trioqt-qt"),
        number=1,
        size=64,
    ),
    "tls-echo": Mode("echo", "tls-echo", "trips", "TLS: echo of {size} bytes, {many}", TLS_EXCHANGE, size=64, tls=True),
    "tls-accept": Mode(
        "accept",
        "tls-accept",
        "lives",
        "TLS: accept + handshake + echo + close, {count} at once",
        (*TLS, "trioqt"),
        size=64,
        tls=True,
    ),
    "tls-send": Mode("send", "tls-send", "bytes", "TLS: send a stream, {many}", TLS_EXCHANGE, tls=True),
    "tls-receive": Mode(
        "receive", "tls-receive", "bytes", "TLS: receive a stream, {many}", (*TLS, "trioqt-receive_some"), tls=True
    ),
    "tls-idle": Mode(
        "idle",
        "tls-idle",
        "B/conn",
        "TLS: memory of an idle connection among {count}",
        (*TLS, "trioqt"),
        less_is_better=True,
        tls=True,
    ),
}


@dataclass(frozen=True)
class Row:
    """A line of the table: a mode with its numbers."""

    name: str
    mode: Mode
    count: int
    number: int
    size: int
    goals: dict[str, float] = field(default_factory=dict, hash=False)

    @property
    def title(self) -> str:
        many = f"{self.count:,} connection" + ("s" if self.count > 1 else "")
        size = f"{self.size:,}" if self.mode.generator != "lines" else f" of {self.size:,} bytes" if self.size else ""
        return self.mode.title.format(
            count=f"{self.count:,}",
            many=many,
            sockets=many.replace("connection", "socket"),
            number=self.number,
            size=size,
        )

    @property
    def crowd(self) -> int:
        """How many idle connections there are beside the busy one; 0 where there is no such thing."""
        return self.count if self.mode.base == "" else 0

    @property
    def connections(self) -> int:
        return 1 if self.crowd else self.count

    def base_of(self, name: str) -> str:
        """Whom ``name`` is compared with; ``name@folder``, of another checkout, is compared as ``name``."""
        plain, at, folder = name.partition("@")
        return self.mode.base or plain.removesuffix(ALONE) + ALONE + at + folder


# Times raw trio, but where a mode has another base.  The echo loop of bare epoll has about 2.5.
GOALS: dict[str, dict[str, float]] = {
    "echo:1": {"trioqt-write": 1.4},
    "echo:10": {"trioqt-write": 1.85},
    "echo:100": {"trioqt-write": 2.0, "trioqt-qt": 1.8},
    "echo:1000": {"trioqt-write": 2.1},
    "lines:10x16": {"trioqt-write": 8.0},
    "accept:32": {"trioqt": 2.4},
    "client:1": {"trioqt": 4.2},
    "send:1": {"trioqt-write": 1.6, "trioqt-send_all": 1.5},
    "receive:1": {"trioqt-receive_some": 2.0},
    "idle:2000": {"trioqt": 0.6},
    "busy:5000": {"trioqt-write": 0.9},
    "udp:10x16": {"trioqt": 4.0},
    "tls-echo:10": {"trioqt-write": 2.5},
    "tls-send:1": {"trioqt-write": 1.5},
    "tls-receive:1": {"trioqt-receive_some": 2.0},
}

QUICK = (
    *("echo:1", "echo:10", "echo:100", "lines:10x16", "accept:32", "client:1"),
    *("send:1", "receive:1", "idle:2000"),
)
WHOLE = (
    *("echo:1", "echo:10", "echo:100", "echo:1000"),
    *("lines:1x16", "lines:1x100", "lines:10x16", "lines:10x100"),
    *("accept:1", "accept:32", "client:1", "send:1", "receive:1", "idle:2000", "events:10", "busy:5000"),
    *("udp:1x1", "udp:10x16"),
    *("tls-echo:1", "tls-echo:10", "tls-accept:10", "tls-send:1", "tls-receive:1", "tls-idle:500"),
)


def read_row(text: str) -> Row:
    """The row of ``echo``, ``echo:30``, ``echo:30x700``, ``lines:3x40`` or ``lines:3x40x200``.

    Raises: ValueError if there is no such row.
    """
    found = re.fullmatch(r"([\w-]+)(?::(\d+)(?:x(\d+))?(?:x(\d+))?)?", text)
    if not found or found[1] not in MODES:
        raise ValueError(f"a row is like echo:30x700 or lines:3x40x200, of {', '.join(MODES)}; not {text!r}")
    mode = MODES[found[1]]
    defaults = {name: value for name, value in (("number", mode.number), ("size", mode.size)) if value is not None}
    given = [int(group) for group in found.groups()[1:] if group is not None]
    count, more = (given or [1])[0], given[1:]
    if 0 in given or len(more) > len(defaults):
        raise ValueError(f"{text!r} has a number too many, or one that is 0")
    numbers = defaults | dict(zip(defaults, more, strict=False))
    # One name for a row, however it was spelled.
    name = f"{found[1]}:{count}" + "".join(
        f"x{value}" for what, value in numbers.items() if what == "number" or numbers["size"] != defaults["size"]
    )
    return Row(name, mode, count, numbers.get("number", 1), numbers.get("size", 64), GOALS.get(name, {}))
