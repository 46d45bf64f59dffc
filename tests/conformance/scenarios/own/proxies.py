"""Proxies: what the scenarios of the oracle leave out."""

from PySide6.QtNetwork import QHostAddress, QNetworkProxy

from tests.conformance.proxies_beside import http, serve, socks5
from tests.conformance.scenarios.beginnings import until_available
from tests.conformance.scenarios.proxied import client, echo_server, finish
from tests.conformance.trace import Trace, scenario

LH = QHostAddress("127.0.0.1")


@scenario("SOCKS5 and HTTP: by waits alone, an echo and our end", "proxy")
def proxy_by_waits_alone(t: Trace) -> None:
    p = echo_server(t)
    for kind, make in (("Socks5Proxy", socks5), ("HttpProxy", http)):
        c = client(t, kind, serve(t, make([])), name=kind)
        t.call(c, "connectToHost", LH, p)
        t.call(c, "waitForConnected", 3000)
        t.query(c, "state", "peerPort", "error")
        t.call(c, "write", b"ping")
        t.call(c, "waitForReadyRead", 3000)
        t.call(c, "readAll")
        t.call(c, "disconnectFromHost")
        t.call(c, "waitForDisconnected", 1000)
        t.query(c, "state", "error")


@scenario("HTTP: the remote end sends and closes", "proxy")
def http_remote_close(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = client(t, "HttpProxy", serve(t, http([])))
    t.call(c, "connectToHost", LH, p)
    t.until_state(c, "ConnectedState")
    peer = t.accept(lst)
    peer.sendall(b"last words")
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "error", "bytesAvailable", "state")
    t.call(c, "readAll")


@scenario("HTTP: the target refuses", "proxy")
def http_target_refused(t: Trace) -> None:
    c = client(t, "HttpProxy", serve(t, http([])))
    t.call(c, "connectToHost", LH, t.closed_port())
    finish(t, c)


@scenario("a proxy that is not there, SOCKS5 and HTTP, then without it", "proxy")
def proxy_absent_then_without(t: Trace) -> None:
    p = echo_server(t)
    for kind in ("Socks5Proxy", "HttpProxy"):
        c = client(t, kind, t.closed_port(), name=kind)
        t.call(c, "connectToHost", LH, p)
        t.until(lambda kind=kind: t.seen(kind, "error_occurred"))  # type: ignore[misc]
        t.query(c, "state", "error")
        c.setProxy(QNetworkProxy(QNetworkProxy.ProxyType.NoProxy))
        t.call(c, "connectToHost", LH, p)
        t.until_state(c, "ConnectedState")
        t.query(c, "error", "peerPort")
        t.call(c, "write", b"direct")
        until_available(t, c, 6)
        t.call(c, "readAll")


@scenario("SOCKS5: abort while the proxy is being talked to, and when connected", "proxy")
def socks5_abort_early_and_late(t: Trace) -> None:
    p = echo_server(t)
    px = serve(t, socks5([]))
    c = client(t, "Socks5Proxy", px)
    t.call(c, "connectToHost", LH, p)
    t.query(c, "state")
    t.call(c, "abort")
    t.query(c, "state", "error")
    t.call(c, "connectToHost", LH, p)
    t.until_state(c, "ConnectedState")
    t.call(c, "abort")
    t.query(c, "state", "error", "peerPort")
