"""Proxies: SOCKS5 and HTTP, the application's, and a factory of them; the proxies run beside, in threads."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from PySide6.QtNetwork import (
    QAbstractSocket,
    QAuthenticator,
    QHostAddress,
    QNetworkProxy,
    QNetworkProxyFactory,
    QTcpServer,
    QTcpSocket,
    QUdpSocket,
)

from tests.conformance.proxies_beside import Handler, SharedLog, http, serve, serve_forked, socks5
from tests.conformance.scenarios.proxied import client, echo_server, finish
from tests.conformance.trace import Trace, scenario

LH = QHostAddress("127.0.0.1")
ProxyType = QNetworkProxy.ProxyType


def full_echo(t: Trace, kind: str, handler_maker: Callable[[list[str]], Handler], target: Any) -> None:
    p = echo_server(t)
    seen: list[str] = []
    px = serve(t, handler_maker(seen))
    c = client(t, kind, px)
    t.call(c, "connectToHost", target, p)
    t.query(c, "state")
    t.until_state(c, "ConnectedState")
    t.query(c, "peerName", "peerAddress", "peerPort", "localAddress")
    t.call(c, "write", b"ping")
    t.until(lambda: c.bytesAvailable() == 4)
    t.call(c, "readAll")
    t.call(c, "disconnectFromHost")
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.query(c, "state", "error")
    t.peer("proxy saw", log=seen)


@scenario("SOCKS5: connect to an IP, echo, disconnect", "proxy")
def socks5_ok_ip(t: Trace) -> None:
    full_echo(t, "Socks5Proxy", socks5, LH)


@scenario("SOCKS5: connect to a name; the name is resolved by the proxy", "proxy")
def socks5_ok_name(t: Trace) -> None:
    full_echo(t, "Socks5Proxy", socks5, "v4.test")


@scenario("SOCKS5: remote end closes", "proxy")
def socks5_remote_close(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = client(t, "Socks5Proxy", serve(t, socks5()))
    t.call(c, "connectToHost", LH, p)
    t.until_state(c, "ConnectedState")
    peer = t.accept(lst)
    peer.sendall(b"bye")
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "error", "bytesAvailable")


@scenario("SOCKS5: every reply code of the proxy", "proxy")
def socks5_reply_codes(t: Trace) -> None:
    for code in (1, 2, 3, 4, 5, 6, 7, 8, 99):
        c = client(t, "Socks5Proxy", serve(t, socks5(reply=code)), name=f"reply_{code}")
        t.call(c, "connectToHost", LH, 80)
        finish(t, c)
        t.query(c, "errorString")


@scenario("SOCKS5: target refuses", "proxy")
def socks5_target_refused(t: Trace) -> None:
    c = client(t, "Socks5Proxy", serve(t, socks5()))
    t.call(c, "connectToHost", LH, t.closed_port())
    finish(t, c)


@scenario("SOCKS5: user and password given in the proxy", "proxy")
def socks5_auth_given(t: Trace) -> None:
    p = echo_server(t)
    seen: list[str] = []
    c = client(t, "Socks5Proxy", serve(t, socks5(seen, method=2)), "u", "p")
    t.call(c, "connectToHost", LH, p)
    finish(t, c, seen)


@scenario("SOCKS5: password needed, none given, slot fills it in", "proxy")
def socks5_auth_slot(t: Trace) -> None:
    p = echo_server(t)
    seen: list[str] = []
    c = client(t, "Socks5Proxy", serve(t, socks5(seen, method=2)))

    def fill(proxy: QNetworkProxy, auth: QAuthenticator) -> None:
        auth.setUser("u")
        auth.setPassword("p")

    t.on(c, "proxyAuthenticationRequired", fill)
    t.call(c, "connectToHost", LH, p)
    finish(t, c, seen)


@scenario("SOCKS5: password needed, none given, no slot", "proxy")
def socks5_auth_missing(t: Trace) -> None:
    seen: list[str] = []
    c = client(t, "Socks5Proxy", serve(t, socks5(seen, method=2)))
    t.call(c, "connectToHost", LH, 80)
    finish(t, c, seen)


@scenario("SOCKS5: wrong password", "proxy")
def socks5_auth_wrong(t: Trace) -> None:
    seen: list[str] = []
    c = client(t, "Socks5Proxy", serve(t, socks5(seen, method=2)), "u", "wrong")
    t.call(c, "connectToHost", LH, 80)
    finish(t, c, seen)


@scenario("SOCKS5: no acceptable method; garbage; proxy closes at once; silence", "proxy")
def socks5_bad_proxy(t: Trace) -> None:
    for name, h in (
        ("none_acceptable", socks5(method=255)),
        ("garbage", socks5(garbage=b"\4\4\4\4")),
        ("unknown_method", socks5(garbage=b"\5\x7f")),
        ("closes", lambda c: None),
    ):
        c = client(t, "Socks5Proxy", serve(t, h), name=name)
        t.call(c, "connectToHost", LH, 80)
        finish(t, c)
    _, px = t.raw_listener(symbol="SILENT")
    c = client(t, "Socks5Proxy", px, name="silent")
    t.call(c, "connectToHost", LH, 80)
    t.call(c, "waitForConnected", 200)
    t.query(c, "state", "error")


@scenario("SOCKS5: a QTcpServer listening through the proxy (BIND)", "proxy")
def socks5_server(t: Trace) -> None:
    seen = SharedLog()
    px = serve_forked(t, socks5(seen))
    s = t.watch(QTcpServer(), "server")
    s.setProxy(QNetworkProxy(ProxyType.Socks5Proxy, "127.0.0.1", px))
    t.call(s, "listen", QHostAddress(QHostAddress.SpecialAddress.AnyIPv4), 0)
    t.query(s, "isListening", "serverAddress", "serverError", "errorString")
    t.note("port", nonzero=s.serverPort() > 0)
    if s.isListening():
        r = socket.create_connection(("127.0.0.1", s.serverPort()), timeout=2)
        t.raw.append(r)
        t.until(lambda: s.hasPendingConnections(), ms=1500)
        a = s.nextPendingConnection()
        if a:
            t.watch(a, "accepted")
            r.sendall(b"hi")
            t.until(lambda: a.bytesAvailable() >= 2, ms=1000)
            d = bytes(a.readAll())
            t.note(
                "accepted socket read",
                data_is_just_what_was_sent=d == b"hi",
                length=len(d),
                begins_with_a_socks_reply=d.startswith(b"\x05\x00\x00\x01"),
                ends_with_the_data=d.endswith(b"hi"),
            )
    t.peer("proxy saw", log=seen.take())


@scenario("SOCKS5: a UDP socket through the proxy", "proxy")
def socks5_udp(t: Trace) -> None:
    seen = SharedLog()
    px = serve_forked(t, socks5(seen))
    far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    far.bind(("127.0.0.1", 0))
    far.settimeout(1)
    t.raw.append(far)
    t.port(far.getsockname()[1], "FAR")
    u = t.watch(QUdpSocket(), "udp")
    u.setProxy(QNetworkProxy(ProxyType.Socks5Proxy, "127.0.0.1", px))
    t.call(u, "bind", QHostAddress(QHostAddress.SpecialAddress.AnyIPv4), 0)
    t.query(u, "state", "localAddress", "error")
    t.call(u, "writeDatagram", b"hello", LH, far.getsockname()[1])
    t.spin(60)
    try:
        d, who = far.recvfrom(100)
        t.peer("far end got", data=d)
        far.sendto(b"back", who)
    except OSError as e:
        t.peer("far end got nothing", why=type(e).__name__)
    t.spin(100)
    if u.state() != QAbstractSocket.SocketState.UnconnectedState and u.hasPendingDatagrams():
        t.call(u, "receiveDatagram")
    t.peer("proxy saw", log=seen.take())


@scenario("HTTP CONNECT: connect to an IP, echo, disconnect", "proxy")
def http_ok_ip(t: Trace) -> None:
    full_echo(t, "HttpProxy", http, LH)


@scenario("HTTP CONNECT: connect to a name", "proxy")
def http_ok_name(t: Trace) -> None:
    full_echo(t, "HttpProxy", http, "v4.test")


@scenario("HTTP CONNECT: 407, credentials given in the proxy", "proxy")
def http_auth_given(t: Trace) -> None:
    p = echo_server(t)
    seen: list[str] = []
    c = client(t, "HttpProxy", serve(t, http(seen, need_auth=True)), "u", "p")
    t.call(c, "connectToHost", LH, p)
    finish(t, c, seen)


@scenario("HTTP CONNECT: 407, no credentials", "proxy")
def http_auth_missing(t: Trace) -> None:
    seen: list[str] = []
    c = client(t, "HttpProxy", serve(t, http(seen, need_auth=True)))
    t.call(c, "connectToHost", LH, 80)
    finish(t, c, seen)


@scenario("HTTP CONNECT: 407, wrong credentials; the slot is asked again", "proxy")
def http_auth_wrong(t: Trace) -> None:
    seen: list[str] = []
    c = client(t, "HttpProxy", serve(t, http(seen, need_auth=True)), "u", "wrong")
    n = [0]

    def fill(proxy: QNetworkProxy, auth: QAuthenticator) -> None:
        n[0] += 1
        if n[0] < 3:
            auth.setUser("u")
            auth.setPassword(f"wrong{n[0]}")

    t.on(c, "proxyAuthenticationRequired", fill)
    t.call(c, "connectToHost", LH, 80)
    finish(t, c, seen)


@scenario("HTTP CONNECT: garbage, empty answer, unknown auth scheme, refused, unknown name, silence", "proxy")
def http_bad_proxy(t: Trace) -> None:
    for name, h in (
        ("garbage", http(raw=b"This is not HTTP\r\n\r\n")),
        ("garbage_no_end", http(raw=b"This is not HTTP")),
        ("closes", lambda c: c.recv(1000) and None),
        ("unknown_scheme", http(raw=b"HTTP/1.0 407 Auth\r\nProxy-Authenticate: Frobnicator\r\n\r\n")),
        ("no_scheme", http(raw=b"HTTP/1.0 407 Auth\r\n\r\n")),
    ):
        c = client(t, "HttpProxy", serve(t, h), name=name)
        t.call(c, "connectToHost", LH, 80)
        finish(t, c)
    c = client(t, "HttpProxy", t.closed_port(), name="refused")
    t.call(c, "connectToHost", LH, 80)
    finish(t, c)
    c = client(t, "HttpProxy", 3128, name="unknown", host="nosuch.test")
    t.call(c, "connectToHost", LH, 80)
    finish(t, c)
    _, px = t.raw_listener(symbol="SILENT")
    c = client(t, "HttpProxy", px, name="silent")
    t.call(c, "connectToHost", LH, 80)
    t.call(c, "waitForConnected", 200)
    t.query(c, "state", "error")


@scenario("proxy kinds that cannot carry TCP, and UDP through an HTTP proxy", "proxy")
def proxy_unsupported(t: Trace) -> None:
    for k in ("HttpCachingProxy", "FtpCachingProxy"):
        c = client(t, k, 9, name=k)
        t.call(c, "connectToHost", LH, 80)
        t.spin(40)
        t.query(c, "state", "error", "errorString", "isOpen")
    u = t.watch(QUdpSocket(), "udp")
    u.setProxy(QNetworkProxy(ProxyType.HttpProxy, "127.0.0.1", 9))
    t.call(u, "bind", LH, 0)
    t.query(u, "state", "error", "errorString")


@scenario("application proxy: DefaultProxy sockets use it, NoProxy ones and loopback targets do not", "proxy")
def proxy_application(t: Trace) -> None:
    p = echo_server(t)
    seen: list[str] = []
    px = serve(t, socks5(seen))
    QNetworkProxy.setApplicationProxy(QNetworkProxy(ProxyType.Socks5Proxy, "127.0.0.1", px))
    for name, target, own in (
        ("by_name", "v4.test", None),
        ("no_proxy", "v4.test", ProxyType.NoProxy),
        ("loopback_address", "127.0.0.1", None),
        ("localhost", "localhost", None),
    ):
        del seen[:]
        c = t.watch(QTcpSocket(), name)
        if own is not None:
            c.setProxy(QNetworkProxy(own))
        t.query(c, "proxy")
        t.call(c, "connectToHost", target, p)
        t.until_state(c, "ConnectedState")
        t.peer("proxy saw", log=list(seen))
    s = t.watch(QTcpServer(), "server")
    t.call(s, "listen", LH, 0)
    t.query(s, "isListening")
    QNetworkProxy.setApplicationProxy(QNetworkProxy(ProxyType.NoProxy))


@scenario("a proxy factory is asked once per connect, not for loopback; the first usable proxy wins", "proxy")
def proxy_factory(t: Trace) -> None:
    p = echo_server(t)
    seen = SharedLog()
    px = serve_forked(t, socks5(seen))  # not beside in a thread: Qt's bind() waits for it, and holds the interpreter

    class F(QNetworkProxyFactory):
        def queryProxy(self, q: Any = ...) -> list[QNetworkProxy]:
            t.note(
                "factory asked",
                kind=q.queryType().name,
                host=q.peerHostName(),
                has_port=q.peerPort() > 0,
                local_port_set=q.localPort() > 0,
            )
            return [
                QNetworkProxy(ProxyType.HttpCachingProxy, "127.0.0.1", 9),
                QNetworkProxy(ProxyType.Socks5Proxy, "127.0.0.1", px),
            ]

    factory = F()
    t.keep.append(factory)
    QNetworkProxyFactory.setApplicationProxyFactory(factory)
    for name, target in (("by_name", "v4.test"), ("loopback", "127.0.0.1")):
        c = t.watch(QTcpSocket(), name)
        t.call(c, "connectToHost", target, p)
        t.until_state(c, "ConnectedState")
        t.peer("proxy saw", log=seen.lines())
    u = t.watch(QUdpSocket(), "udp")
    t.call(u, "bind", LH, 0)
    QNetworkProxyFactory.setApplicationProxyFactory(None)  # type: ignore[arg-type]
    seen.take()


@scenario("disconnect_from_host with pending data through a proxy", "proxy")
def socks5_disconnect_pending(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = client(t, "Socks5Proxy", serve(t, socks5()))
    c.connectToHost(LH, p)
    t.until_state(c, "ConnectedState")
    peer = t.accept(lst)
    t.call(c, "write", b"last")
    t.call(c, "disconnectFromHost")
    t.query(c, "state", "bytesToWrite")
    t.until(lambda: t.seen("client", "disconnected"))
    t.peer("recv", data=t.recv_all(peer))


@scenario("through a proxy, read buffer of 1: data, then EOF after it is read", "proxy")
def http_eof_after_limited_read(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = client(t, "HttpProxy", serve(t, http()))
    c.connectToHost(LH, p)
    t.until_state(c, "ConnectedState")
    peer = t.accept(lst)
    t.call(c, "setReadBufferSize", 1)
    peer.sendall(b"0")
    peer.close()
    t.spin(120)
    t.query(c, "state", "bytesAvailable")
    t.call(c, "readAll")
    t.query(c, "state")
    t.until(lambda: t.seen("client", "disconnected"), ms=1500)
    t.query(c, "state", "error")
