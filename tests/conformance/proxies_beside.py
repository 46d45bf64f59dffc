"""Small proxies on plain sockets, which scenarios talk to; they run in threads, or in a process, beside the program."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import signal
import socket
import struct
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.conformance.trace import Trace

__all__ = ["Handler", "Log", "SharedLog", "http", "serve", "serve_forked", "socks5"]

Handler = Callable[[socket.socket], None]
"""What is done with a connection, which is closed after that."""

# How long a proxy waits for anything, in seconds.
PATIENCE = 6.0

# prctl(2): the signal that a process gets when its parent dies.
PR_SET_PDEATHSIG = 1


class Log(Protocol):
    """Where a proxy writes down what it is asked."""

    def append(self, line: str, /) -> None: ...


class SharedLog:
    """A list of lines that a proxy in another process can append to."""

    def __init__(self) -> None:
        descriptor, path = tempfile.mkstemp()
        os.close(descriptor)
        self._path = Path(path)

    def append(self, line: str) -> None:
        with self._path.open("a") as file:
            file.write(line + "\n")

    def lines(self) -> list[str]:
        """Those since it was asked last."""
        lines = self._path.read_text().splitlines()
        self._path.write_text("")
        return lines

    def take(self) -> list[str]:
        """The same, and the end of it."""
        lines = self.lines()
        self._path.unlink()
        return lines


class Beside:
    """A listening socket and its threads, which end with the scenario."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port: int = self._listener.getsockname()[1]
        self._socks: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return  # it was shut down
            conn.settimeout(PATIENCE)
            self._socks.append(conn)
            self._start(lambda conn=conn: self._handle(conn))  # type: ignore[misc]

    def _handle(self, conn: socket.socket) -> None:
        with conn, contextlib.suppress(OSError):
            self._handler(conn)

    def close(self) -> None:
        """End what goes on, and wait for that."""
        for sock in self._socks:
            with contextlib.suppress(OSError):  # closed already
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()


def serve(t: Trace, handler: Handler, symbol: str = "PROXY") -> int:
    """Serve in threads until the scenario ends; the port."""
    beside = Beside(handler)
    t.cleanups.append(beside.close)
    return t.port(beside.port, symbol)


def serve_forked(t: Trace, handler: Handler, symbol: str = "PROXY") -> int:
    """The same in a process, where Qt blocks inside of a call, and holds the lock of the interpreter."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)
    number: int = listener.getsockname()[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child starts its threads by itself
        child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        while True:
            conn, _ = listener.accept()
            conn.settimeout(PATIENCE)
            threading.Thread(target=_handle, args=(handler, conn), daemon=True).start()
    listener.close()

    def end() -> None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    t.cleanups.append(end)
    return t.port(number, symbol)


def _handle(handler: Handler, conn: socket.socket) -> None:
    with conn, contextlib.suppress(OSError):
        handler(conn)


def pump(one: socket.socket, other: socket.socket) -> None:
    """Bytes both ways, until one of them ends."""

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=carry, args=(one, other), daemon=True)
    back.start()
    carry(other, one)
    back.join(PATIENCE)


def exactly(conn: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        data = conn.recv(count - len(got))
        if not data:
            raise OSError("the end")
        got += data
    return got


def reply(address: str, port: int) -> bytes:
    return b"\x05\x00\x00\x01" + socket.inet_aton(address) + struct.pack("!H", port)


def socks5(
    seen: Log | None = None,
    method: int = 0,
    user: bytes = b"u",
    password: bytes = b"p",
    reply: int = 0,
    garbage: bytes | None = None,
) -> Handler:
    """A SOCKS5 server.

    Args:
      method: 0 no authentication, 2 name and password, 255 none will do.
      reply: What it answers a request with, if it is none of what went well.
      garbage: What it says in place of all that.
    """

    def note(line: str) -> None:
        if seen is not None:
            seen.append(line)

    def handle(conn: socket.socket) -> None:
        if garbage is not None:
            conn.recv(100)
            conn.sendall(garbage)
            time.sleep(0.3)
            return
        _, count = exactly(conn, 2)
        methods = exactly(conn, count)
        note("methods " + " ".join(str(each) for each in sorted(methods)))
        if method not in methods:
            conn.sendall(b"\x05\xff")
            time.sleep(0.1)
            return
        conn.sendall(bytes([5, method]))
        if method == 2:
            _, length = exactly(conn, 2)
            shown_user = exactly(conn, length)
            shown_password = exactly(conn, exactly(conn, 1)[0])
            good = (shown_user, shown_password) == (user, password)
            note("credentials " + ("good" if good else "bad"))
            conn.sendall(bytes([1, 0 if good else 1]))
            if not good:
                time.sleep(0.1)
                return
        _, command, _, kind = exactly(conn, 4)
        if kind == 1:
            host = socket.inet_ntoa(exactly(conn, 4))
        elif kind == 3:
            host = exactly(conn, exactly(conn, 1)[0]).decode()
        else:
            host = socket.inet_ntop(socket.AF_INET6, exactly(conn, 16))
        (port,) = struct.unpack("!H", exactly(conn, 2))
        note(f"cmd {command} atyp {kind} host {host}")
        if reply:
            conn.sendall(bytes([5, reply, 0, 1]) + bytes(6))
            time.sleep(0.1)
        else:
            COMMANDS[command](conn, host, port)

    return handle


def socks_connect(conn: socket.socket, host: str, port: int) -> None:
    try:
        far = connect(host, port)
    except OSError:
        conn.sendall(b"\x05\x05\x00\x01" + bytes(6))
        time.sleep(0.1)
        return
    with far:
        conn.sendall(reply(*far.getsockname()))
        pump(conn, far)


def socks_bind(conn: socket.socket, host: str, port: int) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        listener.settimeout(PATIENCE)
        conn.sendall(reply("127.0.0.1", listener.getsockname()[1]))
        far, address = listener.accept()
    with far:
        conn.sendall(reply(*address))
        pump(conn, far)


def socks_associate(conn: socket.socket, host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
        relay.bind(("127.0.0.1", 0))
        relay.settimeout(PATIENCE)
        conn.sendall(reply("127.0.0.1", relay.getsockname()[1]))
        client = None
        while True:
            data, sender = relay.recvfrom(65536)
            client = client or sender
            if sender != client:
                relay.sendto(b"\0\0\0\x01" + socket.inet_aton(sender[0]) + struct.pack("!H", sender[1]) + data, client)
            elif data[3] == 1:
                (there,) = struct.unpack("!H", data[8:10])
                relay.sendto(data[10:], (socket.inet_ntoa(data[4:8]), there))


COMMANDS = {1: socks_connect, 2: socks_bind, 3: socks_associate}


def connect(host: str, port: int) -> socket.socket:
    """Names that end in .test are this machine, for whoever has no name server that says so."""
    return socket.create_connection(("127.0.0.1" if host.endswith(".test") else host, port), timeout=3)


def http(
    seen: Log | None = None,
    status: str | None = None,
    need_auth: bool = False,
    raw: bytes | None = None,
    keep: bool = True,
    user: str = "u",
    password: str = "p",
) -> Handler:
    """An HTTP proxy.

    Args:
      status: What it answers, if it does not do as asked.
      need_auth: It wants a name and a password, by Basic.
      raw: What it says in place of all that.
      keep: The connection outlives a 407.
    """
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def handle(conn: socket.socket) -> None:
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                data = conn.recv(4096)
                if not data:
                    return
                head += data
            request, *lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines) if value
            }
            shown = headers.pop("proxy-authorization", "")
            verb, target, version = request.split(" ")
            host, _, port = target.rpartition(":")
            if seen is not None:
                scheme = shown.split(" ")[0] or None
                seen.append(f"{verb} {host}:PORT {version} auth={scheme} headers={sorted(headers)}")
            if raw is not None or status is not None:
                conn.sendall(raw if raw is not None else f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
                time.sleep(0.15)
                return
            if not need_auth or shown == wanted:
                break
            conn.sendall(
                b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="oracle"\r\n'
                + (b"" if keep else b"Proxy-Connection: close\r\n")
                + b"Content-Length: 0\r\n\r\n"
            )
            if not keep:
                return
        try:
            far = connect(host, int(port))
        except OSError:
            conn.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            time.sleep(0.15)
            return
        with far:
            conn.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            pump(conn, far)

    return handle
