"""Bare select.epoll: what Python costs without a framework; it has no limits and no backpressure worth the name.

It alone joins the answers to lines that came together.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from functools import partial

from benchmarks.speed.peers.common import (
    BACKLOG,
    BLOCK,
    CHUNK,
    REQUEST,
    Counted,
    Held,
    Task,
    check_answer,
    ready,
    udp_socket,
)

# A handler is called when its socket is readable (send: writable), and returns False at the end.
Step = Callable[[], bool]


def send_whole(sock: socket.socket, data: bytes) -> None:
    """Send what fits in the kernel; wait for the rest, which nothing but a big message ever needs."""
    try:
        sent = sock.send(data)
    except BlockingIOError:
        sent = 0
    while sent < len(data):
        select.select([], [sock], [])
        sent += sock.send(data[sent:])


def echo(sock: socket.socket) -> Step:
    def step() -> bool:
        if data := sock.recv(CHUNK):
            send_whole(sock, data)
        return bool(data)

    return step


def lines(sock: socket.socket) -> Step:
    rest = b""

    def step() -> bool:
        nonlocal rest
        if not (data := sock.recv(CHUNK)):
            return False
        *lines, rest = (rest + data).split(b"\n")
        answers = [line + b"\n" for line in lines]
        if answers:
            send_whole(sock, b"".join(answers))
        return True

    return step


def send(sock: socket.socket) -> Step:
    rest = memoryview(BLOCK)

    def step() -> bool:
        nonlocal rest
        rest = rest[sock.send(rest) :] or memoryview(BLOCK)
        return True

    return step


def receive(sock: socket.socket) -> Step:
    counted = Counted()

    def step() -> bool:
        data = sock.recv(CHUNK)
        if told := counted.add(len(data)):
            send_whole(sock, told)
        return bool(data)

    return step


def idle(sock: socket.socket) -> Step:
    Held.count += 1

    def step() -> bool:
        sock.recv(CHUNK)  # over TLS there may be nothing in it yet
        Held.count -= 1
        return False

    return step


def encrypted(handler: Callable[[socket.socket], Step], context: ssl.SSLContext) -> Callable[[socket.socket], Step]:
    """The same by TLS: the handshake first, and then all that has been decrypted."""

    def begin(plain: socket.socket) -> Step:
        sock = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        step: Step | None = None

        def encrypted_step() -> bool:
            nonlocal step
            try:
                if step is None:
                    sock.do_handshake()
                    step = handler(sock)
                while step():
                    pass
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return True
            except ssl.SSLEOFError:
                pass
            sock.close()
            return False

        return encrypted_step

    return begin


def serve(handler: Callable[[socket.socket], Step], task: Task, *, tls: bool = False) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    listener.setblocking(False)
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    connections: dict[int, tuple[socket.socket, Step]] = {}
    events = select.EPOLLOUT if handler is send else select.EPOLLIN
    begin = encrypted(handler, task.tls()) if tls else handler
    # Inherited by what is accepted, which saves a call for each.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening = listener.fileno()
    ready(listener.getsockname()[1])
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == listening:
                # All that wait: one at a time starves them beside busy connections.
                try:
                    while True:
                        sock, _ = listener.accept()
                        sock.setblocking(False)
                        descriptor = sock.fileno()
                        connections[descriptor] = sock, begin(sock)
                        poller.register(descriptor, events)
                except BlockingIOError:
                    continue
            sock, step = connections[descriptor]
            try:
                goes_on = step()
            except BlockingIOError:
                goes_on = True
            except ConnectionError:
                goes_on = False
            if not goes_on:
                del connections[descriptor]
                sock.close()


def ask(task: Task) -> None:
    poller = select.epoll()
    asking: dict[int, tuple[socket.socket, bytes]] = {}

    def begin() -> None:
        sock = socket.socket()
        sock.setblocking(False)
        try:
            sock.connect(("127.0.0.1", task.port))
        except BlockingIOError:
            pass
        asking[sock.fileno()] = sock, b""
        poller.register(sock, select.EPOLLOUT)

    ready()
    for _ in range(task.clients):
        begin()
    while True:
        for descriptor, events in poller.poll():
            sock, answer = asking[descriptor]
            if events & select.EPOLLOUT:
                sock.send(REQUEST)
                poller.modify(descriptor, select.EPOLLIN)
                continue
            data = sock.recv(CHUNK)
            if data and len(answer) + len(data) < len(REQUEST):
                asking[descriptor] = sock, answer + data
                continue
            check_answer(answer + data)
            del asking[descriptor]
            sock.close()
            begin()


def datagrams(task: Task) -> None:
    sock = udp_socket()
    poller = select.epoll()
    poller.register(sock, select.EPOLLIN)
    ready(sock.getsockname()[1])
    while True:
        poller.poll()
        try:
            while True:
                sock.sendto(*sock.recvfrom(CHUNK))
        except BlockingIOError:
            pass


MODES: dict[str, dict[str, Callable[[Task], None]]] = {
    "epoll": {
        "echo": partial(serve, echo),
        "lines": partial(serve, lines),
        "accept": partial(serve, echo),
        "client": ask,
        "send": partial(serve, send),
        "receive": partial(serve, receive),
        "idle": partial(serve, idle),
        "datagrams": datagrams,
        "tls-echo": partial(serve, echo, tls=True),
        "tls-accept": partial(serve, echo, tls=True),
        "tls-send": partial(serve, send, tls=True),
        "tls-receive": partial(serve, receive, tls=True),
        "tls-idle": partial(serve, idle, tls=True),
    }
}
