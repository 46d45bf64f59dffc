"""``trioqt serve socks5``, and ``trioqt connect --proxy`` through it and through others."""

from __future__ import annotations

import signal

import pytest
import trio

from tests.cli.commands import call_trioqt, events_of, read_rest, run_trioqt, running_trioqt
from tests.cli.test_serve import port_of
from tests.networks import Loopback
from trioqt import NetworkProxy, ProxyKind, TcpSocket
from trioqt.testing import ScriptedProxy


async def test_one_command_goes_through_the_other(network: Loopback) -> None:
    """The host hears stdin, its answer comes to stdout, and each end is carried on."""
    with await network.raw_listener() as listener:
        async with running_trioqt("serve", "socks5") as server, trio.open_nursery() as nursery:
            proxy = f"socks5://127.0.0.1:{await port_of(server)}"
            heard: list[bytes] = []

            async def answer() -> None:
                with await listener.accept() as peer:
                    heard.append(await peer.receive_to_end())
                    await peer.send(b"answer")

            nursery.start_soon(answer)
            port = str(listener.port)
            done = await run_trioqt("connect", "--proxy", proxy, "--half-open", "127.0.0.1", port, stdin=b"question")
            server.send_signal(signal.SIGTERM)
            rest = [await read_rest(server.stdout), await read_rest(server.stderr)]
            status = await server.wait()

    assert (done.status, done.out, heard) == (0, b"answer", [b"question"])
    assert "Connected" in [event.split()[0] for event in events_of(done.err)]
    assert (status, rest) == (0, [b"served 1 connection\n", b""])


async def test_what_is_carried_may_end_after_the_signal(network: Loopback) -> None:
    """SIGTERM: it listens no more, and the connection goes on to its end."""
    with await network.raw_listener() as listener:
        async with running_trioqt("serve", "socks5") as server, TcpSocket() as sock:
            sock.set_proxy(NetworkProxy(ProxyKind.SOCKS5, "127.0.0.1", await port_of(server)))
            await sock.connect_to_host("127.0.0.1", listener.port)
            with await listener.accept() as peer:
                server.send_signal(signal.SIGTERM)
                await peer.send(b"late")
                peer.finish()
                assert await sock.receive_exactly(4) == b"late"
                await sock.send_all(b"later")
                await sock.send_eof()
                assert await peer.receive_to_end() == b"later"
            assert await server.wait() == 0


async def test_it_refuses_in_socks_and_not_in_silence(network: Loopback) -> None:
    async with running_trioqt("serve", "socks5") as server:
        port = await port_of(server)
        heard = []
        for said, count in (
            (b"\x05\x01\x02", 2),
            (b"\x05\x01\x00\x05\x02\x00\x01" + bytes(6), 12),
            (b"\x05\x01\x00\x05\x01\x00\x09", 12),
            (b"GET /", 0),
        ):
            with await network.raw_connect(port) as peer:
                await peer.send(said)
                heard.append(await peer.receive(count))

    assert heard == [b"\x05\xff", b"\x05\x00\x05\x07\x00\x01" + bytes(6), b"\x05\x00\x05\x08\x00\x01" + bytes(6), b""]


async def test_a_password_in_the_url_is_shown_to_the_proxy_and_to_nobody_else(network: Loopback) -> None:
    """Neither when it is right nor when it is wrong."""
    async with trio.open_nursery() as nursery:
        proxy: ScriptedProxy = await nursery.start(ScriptedProxy(ProxyKind.HTTP, user="user", password="hunter2").serve)
        port = proxy.network_proxy().port
        with await network.raw_listener() as listener:

            async def answer() -> None:
                with await listener.accept() as peer:
                    await peer.receive_to_end()
                    await peer.send(b"answer")

            nursery.start_soon(answer)
            there = ("127.0.0.1", str(listener.port))
            right = await run_trioqt("connect", "--proxy", f"http://user:hunter2@127.0.0.1:{port}", *there)
            wrong = await run_trioqt("connect", "--proxy", f"http://user:hunter3@127.0.0.1:{port}", *there)
        nursery.cancel_scope.cancel()

    assert (right.status, right.out) == (0, b"answer")
    assert (wrong.status, wrong.out) == (1, b"")
    assert b"PROXY_AUTHENTICATION_REQUIRED" in wrong.err
    assert b"hunter" not in right.err + wrong.err


@pytest.mark.parametrize("url", ["127.0.0.1:1080", "ftp://user:hunter2@host", "socks5://user:hunter2@:1"])
def test_a_wrong_url_is_refused_without_showing_it(url: str) -> None:
    done = call_trioqt("connect", "--proxy", url, "127.0.0.1", "80")

    assert done.exit_code == 1
    assert done.stderr.startswith("Error: not the URL of a proxy: ")
    assert "hunter2" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_proxy_is_for_this_machine_unless_told_otherwise() -> None:
    """The help says so, and why."""
    shown = call_trioqt("serve", "socks5", "--help").stdout

    assert "[default: 127.0.0.1]" in shown
    assert "Whoever can reach it can use it" in shown
