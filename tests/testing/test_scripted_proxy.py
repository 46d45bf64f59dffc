"""The proxy for tests: what it does when it is left alone, and what it can be told to do wrong."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Network
from trioqt import ErrorKind, NetworkProxy, ProxyKind, SocketError, TcpSocket
from trioqt.testing import Probe, ScriptedProxy, VirtualNetwork, cancel_everywhere

KINDS = pytest.mark.parametrize("kind", [ProxyKind.SOCKS5, ProxyKind.HTTP], ids=lambda kind: kind.name)


async def start(nursery: trio.Nursery, kind: ProxyKind, **script: Any) -> ScriptedProxy:
    proxy: ScriptedProxy = await nursery.start(ScriptedProxy(kind, **script).serve)
    return proxy


@KINDS
async def test_it_says_where_it_is_and_what_it_was_asked(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    """With its own name and password, or with others; the password is not written down."""
    proxy = await start(nursery, kind, user="user", password="secret")
    there = proxy.network_proxy()
    with await network.raw_listener() as listener:
        async with TcpSocket() as sock:
            sock.set_proxy(there)
            await sock.connect_to_host("127.0.0.1", listener.port)
            (await listener.accept()).close()

    assert (there.kind, there.host, there.user, there.password) == (kind, "127.0.0.1", "user", "secret")
    assert proxy.network_proxy("", "") == NetworkProxy(kind, "127.0.0.1", there.port)
    asked = f"CONNECT 127.0.0.1:{listener_port(proxy)}"
    expected = {
        ProxyKind.SOCKS5: ["methods 2", "name and password", asked],
        ProxyKind.HTTP: [asked, asked, "name and password"],
    }
    assert proxy.seen == expected[kind]
    nursery.cancel_scope.cancel()


def listener_port(proxy: ScriptedProxy) -> str:
    return next(line for line in proxy.seen if line.startswith("CONNECT")).rpartition(":")[2]


@KINDS
async def test_it_recites_once_for_each_item_and_then_does_its_work(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    proxy = await start(nursery, kind, says=[b"nonsense", b""])
    with await network.raw_listener() as listener:
        found: list[ErrorKind | None] = []
        for _ in range(3):
            async with TcpSocket() as sock:
                sock.set_proxy(proxy.network_proxy())
                try:
                    await sock.connect_to_host("127.0.0.1", listener.port)
                except SocketError as error:
                    found.append(error.kind)
                else:
                    found.append(None)
                    (await listener.accept()).close()

    assert found == [ErrorKind.PROXY_PROTOCOL, ErrorKind.PROXY_CONNECTION_CLOSED, None]
    nursery.cancel_scope.cancel()


@KINDS
async def test_it_can_be_killed_and_goes_on(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    """The host sees an end, as of a process that is gone, and the client a reset."""
    proxy = await start(nursery, kind)
    with await network.raw_listener() as listener:
        for _ in range(2):
            async with TcpSocket() as sock:
                sock.set_proxy(proxy.network_proxy())
                await sock.connect_to_host("127.0.0.1", listener.port)
                with await listener.accept() as peer:
                    await peer.send(b"x")
                    assert await sock.receive_exactly(1) == b"x"
                    proxy.end_connections()
                    assert await peer.how_it_ends() == "end"
                    with pytest.raises(SocketError):
                        await sock.receive_exactly(1)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", [ProxyKind.NONE, ProxyKind.DEFAULT, ProxyKind.FTP_CACHING])
def test_there_is_no_script_for_other_kinds(kind: ProxyKind) -> None:
    with pytest.raises(ValueError, match="no script"):
        ScriptedProxy(kind)


async def serving(probe: Probe) -> None:
    """Cancelled: it serves nobody any more, and no socket is left."""
    async with VirtualNetwork() as net, trio.open_nursery() as nursery:
        proxy, began = ScriptedProxy(ProxyKind.SOCKS5), trio.Event()

        class Began:
            def started(self, value: object = None) -> None:
                began.set()

        async def use() -> None:
            await began.wait()
            async with TcpSocket() as sock:
                sock.set_proxy(proxy.network_proxy())
                with trio.move_on_after(10):
                    try:
                        await sock.connect_to_host("127.0.0.1", 9)
                    except SocketError:
                        pass  # nobody is there, or the proxy is gone
            nursery.cancel_scope.cancel()

        nursery.start_soon(use)
        await probe.subject(lambda: proxy.serve(task_status=Began()))
        nursery.cancel_scope.cancel()
    probe.expect(all(not host.sockets for host in net.hosts.values()), "no socket is left")


def test_it_can_be_cancelled_everywhere() -> None:
    report = cancel_everywhere(serving, points="any")
    report.raise_if_failed()
    assert report.places > 0
