"""What scenarios begin with: servers, raw sockets in a state, and the pauses until something has come.

It imports nothing of Qt: a scenario's classes are those of its ``Trace``.
"""

import socket
import time
from typing import Any

from tests.conformance.trace import Trace


def new_server(t: Trace, name: str = "server", *, cls: type[Any] | None = None) -> Any:
    """A server, watched, that does not listen yet."""
    return t.watch((cls or t.backend.network.QTcpServer)(), name)


def listening(t: Trace, name: str = "server", *, address: Any = None) -> Any:
    """A server, watched, that listens: on 127.0.0.1 unless told otherwise."""
    server = new_server(t, name)
    t.call(server, "listen", t.backend.network.QHostAddress("127.0.0.1") if address is None else address, 0)
    t.port(server.serverPort(), "SERVER")
    return server


def raw_client(t: Trace, server: Any, symbol: str = "CLIENT", host: str = "127.0.0.1") -> socket.socket:
    """A raw socket, connected to the server."""
    client = socket.create_connection((host, server.serverPort()), timeout=2)
    t.port(client.getsockname()[1], symbol)
    t.raw.append(client)
    return client


def raw_clients(t: Trace, server: Any, count: int) -> list[socket.socket]:
    """So many raw sockets, connected to the server."""
    return [raw_client(t, server, f"CLIENT_{number + 1}") for number in range(count)]


def take(t: Trace, server: Any, name: str) -> Any:
    """The next pending connection, watched under ``name``."""
    sock = server.nextPendingConnection()
    if sock is not None:
        t.watch(sock, name)
    t.add(k="call", obj=t.name(server), fn="next_pending_connection", ret=None if sock is None else name)
    return sock


def describe(t: Trace, server: Any) -> None:
    """Record all that a server says of itself."""
    t.query(server, "isListening", "serverAddress", "serverPort", "serverError", "errorString")
    t.query(server, "hasPendingConnections", "maxPendingConnections", "socketDescriptor")


def full_listener(t: Trace) -> int:
    """The port of a listening socket whose queue is full: further connects hang in SYN_SENT."""
    _, port = t.raw_listener(backlog=0, symbol="HANGING")
    for _ in range(3):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", port))
        t.raw.append(filler)
    time.sleep(0.05)
    return int(port)


def raw_pair(t: Trace, symbol: str = "SERVER", client: str | None = None) -> tuple[socket.socket, socket.socket]:
    """Two connected raw sockets: one to give away by its descriptor, one to be the peer."""
    listener, port = t.raw_listener(symbol=symbol)
    ours = socket.create_connection(("127.0.0.1", port))
    t.port(ours.getsockname()[1], client or f"{symbol}_CLIENT")
    peer, _ = listener.accept()
    t.raw += [ours, peer]
    return ours, peer


def until_count(t: Trace, name: str, signal: str, count: int) -> None:
    """Wait until this signal was told so often."""
    t.until(lambda: t.count(name, signal) == count)


def until_available(t: Trace, sock: Any, count: int) -> None:
    """Wait until so many bytes can be read."""
    t.until(lambda: sock.bytesAvailable() == count)
