"""What scenarios about proxies begin and end with."""

from __future__ import annotations

import socket
from typing import Any

from PySide6.QtNetwork import QNetworkProxy, QTcpSocket

from tests.conformance.proxies_beside import serve
from tests.conformance.trace import Trace

ProxyType = QNetworkProxy.ProxyType


def echo_server(t: Trace) -> int:
    def handler(c: socket.socket) -> None:
        while True:
            d = c.recv(65536)
            if not d:
                return
            c.sendall(d)

    return serve(t, handler, "SERVER")


def client(
    t: Trace, kind: str, port: int, user: str = "", password: str = "", name: str = "client", host: str = "127.0.0.1"
) -> Any:
    c = t.watch(QTcpSocket(), name)
    c.setProxy(QNetworkProxy(getattr(ProxyType, kind), host, port, user, password))
    return c


def finish(t: Trace, c: Any, seen: list[str] | None = None) -> None:
    t.until(lambda: t.seen(t.name(c), "error_occurred") or t.seen(t.name(c), "connected"), ms=4000)
    t.spin(60)
    t.query(c, "state", "error", "isOpen", "peerName", "peerAddress")
    if seen is not None:
        t.peer("proxy saw", log=seen)
