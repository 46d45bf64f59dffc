"""Sockets of the standard library within a simulated network: what code gets that asks trio for nothing.

Each test that says what is told says what is not told outside, where nothing is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pickle
import select
import selectors
import socket
import ssl
import stat
import sys
import threading
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from socket import socket as socket_by_name

import anyio
import pytest
import trio
import trio.testing
from anyio.abc import SocketAttribute

from tests.testing.network.on_hosts import connected, listening, name_hosts
from trioqt.testing import RealNetworkUsed, VirtualNetwork, real_network_allowed, simulate
from trioqt.testing.network import stdlib
from trioqt.testing.network.sync_socket import SyncSocket

PORT = 4000


@pytest.fixture
async def net(autojump_clock: trio.testing.MockClock) -> AsyncIterator[VirtualNetwork]:
    """Of one host, on which everything takes no time."""
    async with VirtualNetwork() as net:
        yield net


@contextlib.contextmanager
def non_blocking(made: socket.socket) -> Iterator[socket.socket]:
    """A socket as programs prepare it for an event loop."""
    with made:
        made.setblocking(False)
        yield made


# ---- made here and handed to trio -----------------------------------------------------------------


async def test_a_listener_made_by_plain_calls_accepts_for_trio(autojump_clock: object) -> None:
    """Made, bound and set to listen on a host before trio has heard of it; a client of another host reaches it."""
    async with VirtualNetwork(latency=0.25) as net:
        with net.host("server"):
            made = socket.socket()
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(("", PORT))
            made.listen()
            listener = trio.socket.from_stdlib_socket(made)
        with net.host("client"):
            client = await connected("10.0.0.2")
        accepted, address = await listener.accept()
        with listener, client, accepted:
            assert (made.getsockname(), address[0]) == (("0.0.0.0", PORT), "10.0.0.3")
            assert isinstance(made, socket.socket)
            assert not made.getblocking()

    assert [event.kind for event in net.trace()][:3] == ["listen", "SYN", "SYN-ACK"]


async def test_it_is_the_same_socket(net: VirtualNetwork) -> None:
    """What trio makes of it has the same number, and closing the one closes the other."""
    made = socket.socket()
    sock = trio.socket.from_stdlib_socket(made)
    assert sock.fileno() == made.fileno() > 0
    sock.close()
    assert made.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        made.getsockname()


@pytest.mark.parametrize("make", [socket.socket, socket_by_name], ids=["by module", "by name"])
async def test_all_ways_to_the_class_lead_here(make: Callable[[], socket.socket], net: VirtualNetwork) -> None:
    """``from socket import socket`` was before any network, and gives a simulated one all the same."""
    with make() as sock:
        assert type(sock) is SyncSocket
        assert (sock.family, sock.type, sock.proto) == (socket.AF_INET, socket.SOCK_STREAM, 0)


async def test_create_server_and_create_connection(net: VirtualNetwork) -> None:
    """Where nothing takes time, plain calls that block are done at once, so they work."""
    with (
        socket.create_server(("127.0.0.1", PORT)) as listener,
        socket.create_connection(("127.0.0.1", PORT)) as client,
    ):
        accepted, address = listener.accept()
        with accepted:
            client.sendall(b"hello")
            assert accepted.recv(100) == b"hello"
            assert address == client.getsockname()
            file = accepted.makefile("rwb")
            client.sendall(b"a line\n")
            assert file.readline() == b"a line\n"
            file.write(b"answer")
            file.close()
            assert client.recv(100) == b"answer"
    assert net.in_flight == 0


async def test_a_dual_stack_server(net: VirtualNetwork) -> None:
    """socket.has_dualstack_ipv6() is of the simulated network, and both families reach the server."""
    assert socket.has_dualstack_ipv6()
    with socket.create_server(("", PORT), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, PORT)):
                listener.accept()[0].close()


async def test_a_connection_that_is_refused(net: VirtualNetwork) -> None:
    """By exception, and by number."""
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", PORT))
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", PORT)) == errno.ECONNREFUSED


async def test_what_would_wait_says_so(autojump_clock: object) -> None:
    """A blocking call stops the run's only thread, so nothing could ever arrive; a non-blocking one says EAGAIN."""
    async with VirtualNetwork(latency=0.25) as net:
        name_hosts(net, "server", "client")
        with net.host("client"), socket.socket() as sock:
            with pytest.raises(RuntimeError, match="would wait for ever"):
                sock.connect(("10.0.0.2", PORT))
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(1)
            with pytest.raises(RuntimeError, match="would wait for ever"):
                sock.recv(1)
            sock.settimeout(0)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
            assert sock.connect_ex(("127.0.0.1", PORT)) == 0


async def test_datagrams(net: VirtualNetwork) -> None:
    """Bound, connected, sent and received by plain calls."""
    with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        a.bind(("127.0.0.1", PORT))
        assert b.sendto(b"question", ("localhost", PORT)) == 8
        question, source = a.recvfrom(100)
        assert question == b"question"
        assert a.sendmsg([b"ans", b"wer"], (), 0, source) == 6
        buffer = bytearray(10)
        assert b.recvfrom_into(buffer) == (6, ("127.0.0.1", PORT))
        assert buffer[:6] == b"answer"


async def test_a_name_is_not_looked_up_by_a_call_that_blocks(net: VirtualNetwork) -> None:
    """It is told which call waits for the network's own name service."""
    with socket.socket() as sock, pytest.raises(RuntimeError, match=r"look it up by trio\.socket\.getaddrinfo"):
        sock.connect(("server", PORT))


# ---- waited for -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["object", "descriptor"])
async def test_wait_readable_waits_for_it(what: str, autojump_clock: object) -> None:
    """trio.lowlevel.wait_readable and wait_writable, as anyio's; both know the socket and its number."""
    async with VirtualNetwork(latency=0.25) as net:
        with net.host("server"):
            listener = await listening()
        with net.host("client"), non_blocking(socket.socket()) as client:
            assert client.connect_ex(("10.0.0.2", PORT)) == errno.EINPROGRESS
            waited_for = client if what == "object" else client.fileno()
            await anyio.wait_writable(waited_for)
            assert trio.current_time() == 0.5
            accepted, _ = await listener.accept()
            with listener, accepted:
                await accepted.send(b"hello")
                with pytest.raises(BlockingIOError):
                    client.recv(100)
                await trio.lowlevel.wait_readable(waited_for)
                assert (trio.current_time(), client.recv(100)) == (1.0, b"hello")


async def test_notify_closing_ends_the_wait(net: VirtualNetwork) -> None:
    """trio.lowlevel.notify_closing."""
    with non_blocking(socket.create_server(("127.0.0.1", PORT))) as listener:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(listener)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.notify_closing(listener)


async def test_of_the_kernels_sockets_all_is_as_it_was(net: VirtualNetwork) -> None:
    """A pair within the network is the kernel's, and so is the wait for it, and its end."""
    left, right = socket.socketpair()
    with left, right:
        right.send(b"hello")
        await trio.lowlevel.wait_readable(left)
        await trio.lowlevel.wait_writable(left.fileno())
        trio.lowlevel.notify_closing(left)
        with socket.fromfd(left.fileno(), left.family, left.type) as same:
            assert type(same) is socket.socket
            assert same.recv(100) == b"hello"


# ---- what libraries ask ---------------------------------------------------------------------------


async def test_anyio_asks_a_stream_of_trios_for_its_socket(net: VirtualNetwork) -> None:
    """``extra(SocketAttribute....)`` of both ends, and options set through it."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=PORT) as listener:
        async with await anyio.connect_tcp("127.0.0.1", PORT) as stream:
            assert stream.extra(SocketAttribute.remote_address) == ("127.0.0.1", PORT)
            assert stream.extra(SocketAttribute.local_port) == stream.extra(SocketAttribute.local_address)[1]
            assert stream.extra(SocketAttribute.family) == socket.AF_INET
            raw = stream.extra(SocketAttribute.raw_socket)
            assert raw.gettimeout() == 0
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert stream.extra(SocketAttribute.raw_socket) is raw
        assert listener.extra(SocketAttribute.local_port) == PORT


def test_each_host_has_its_name() -> None:
    """socket.gethostname(), and in a module that has it by name from before."""
    module = types.ModuleType("has_it_by_name")
    vars(module)["gethostname"] = stdlib._plain_host_name
    real = socket.gethostname
    sys.modules[module.__name__] = module
    try:
        seen: list[str] = []

        async def main(net: VirtualNetwork) -> None:
            for name in ("n1", "n2"):
                with net.host(name):
                    seen.extend((socket.gethostname(), vars(module)["gethostname"]()))
                    assert (socket.getfqdn(), socket.getfqdn(name)) == (name, name)
            with real_network_allowed():
                seen.append(socket.gethostname())

        trio.run(main_on_network, main)
        assert seen == ["n1", "n1", "n2", "n2", stdlib._plain_host_name()]
    finally:
        del sys.modules[module.__name__]
    assert socket.gethostname is real
    assert select.select is stdlib._NAMES["select"][0]


async def main_on_network(main: Callable[[VirtualNetwork], Awaitable[None]]) -> None:
    """For a run of its own."""
    async with VirtualNetwork() as net:
        await main(net)


# ---- told by name ---------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["select", "selector"])
async def test_a_system_call_that_waits_for_descriptors_is_refused_by_name(who: str, net: VirtualNetwork) -> None:
    """Of the kernel's sockets it does what it did."""
    real = select.select
    with socket.create_server(("127.0.0.1", PORT)) as made, selectors.DefaultSelector() as selector:
        with pytest.raises(NotImplementedError, match=r"select.* of a simulated socket: no system call knows its"):
            if who == "select":
                select.select([made], [], [], 0)
            else:
                selector.register(made, selectors.EVENT_READ)
        pair = socket.socketpair()
        with pair[0], pair[1]:
            pair[0].send(b"x")
            selector.register(pair[1], selectors.EVENT_READ)
            assert [key.fileobj for key, _ in selector.select(0)] == select.select([pair[1]], [], [], 0)[0] == [pair[1]]
    assert real is not stdlib._NAMES["select"][0]


async def test_tls_of_the_kernels_is_refused_by_name(net: VirtualNetwork) -> None:
    """ssl.SSLSocket reads and writes a descriptor."""
    with socket.socket() as sock, pytest.raises(NotImplementedError, match=r"ssl\.SSLSocket .* trio\.SSLStream"):
        ssl.create_default_context().wrap_socket(sock, server_hostname="server")


async def test_a_socket_of_its_number_is_refused_by_name(net: VirtualNetwork) -> None:
    """``socket.socket(fileno=...)``; a duplicate, and a number handed over, as well."""
    with socket.socket() as sock:
        with pytest.raises(NotImplementedError, match="no system call knows its descriptor"):
            socket.socket(fileno=sock.fileno())
        with pytest.raises(NotImplementedError, match="duplicated"):
            sock.dup()
        with pytest.raises(NotImplementedError, match="no descriptor to hand over"):
            sock.detach()
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(sock)


class Derived(socket.socket):
    """A class of somebody's, which stays the kernel's."""


async def test_a_kernel_socket_is_told_in_a_bare_network_too(net: VirtualNetwork) -> None:
    """Whoever gets one in spite of all: a class of its own, an event loop or a trio.run in a thread."""

    async def by_asyncio() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    async def by_trio() -> None:
        await trio.open_tcp_stream("127.0.0.1", 9)

    with Derived() as sock, pytest.raises(RealNetworkUsed, match="would use a real socket"):
        sock.connect(("127.0.0.1", 9))
    with pytest.raises(RealNetworkUsed, match="would use a real socket"):
        await trio.to_thread.run_sync(lambda: asyncio.run(by_asyncio()))
    with pytest.RaisesGroup(pytest.RaisesExc(RealNetworkUsed, match="would use a real socket")):
        await trio.to_thread.run_sync(trio.run, by_trio)
    assert net.trace() == []


async def test_what_may_use_the_kernels_gets_the_kernels(autojump_clock: object) -> None:
    """A block that is allowed the real network has plain sockets, on any host."""
    async with VirtualNetwork():
        with real_network_allowed(), socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            assert type(sock) is socket.socket


def test_asyncio_is_told_that_it_needs_trio() -> None:
    """Another event loop has no hooks."""

    async def main() -> None:
        async with VirtualNetwork():
            pass

    with pytest.raises(RuntimeError, match=r"needs trio\.run"):
        asyncio.run(main())


# ---- and put back ---------------------------------------------------------------------------------


def replaced() -> dict[str, object]:
    """All that a network replaces, as it is now."""
    manager = type(stdlib._trio_run.runner.io_manager) if trio.lowlevel.in_trio_run() else MANAGER
    found: dict[str, object] = {name: getattr(manager, name) for name in WAITS}
    return found | {
        "socket.__new__": "__new__" in vars(socket.socket),
        "gethostname": socket.gethostname,
        "_SocketType": stdlib._trio_namespace["_SocketType"],
    }


WAITS = ("wait_readable", "wait_writable", "notify_closing")


def manager_class() -> type:
    """What trio waits for the system with."""

    async def main() -> type:
        return type(stdlib._trio_run.runner.io_manager)

    return trio.run(main)


MANAGER = manager_class()


def test_outside_nothing_is_replaced() -> None:
    """Before, and after the last network is over, however it ended."""
    before = replaced()

    async def main(net: VirtualNetwork) -> None:
        now = replaced()
        assert [name for name in before if now[name] == before[name]] == []
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        simulate(main)
    assert replaced() == before
    with socket.socket() as sock:
        assert type(sock) is socket.socket


def test_two_runs_in_two_threads_have_each_its_own() -> None:
    """What the one makes is on its own network; the other's end takes nothing from it, nor from plain threads."""
    before = replaced()
    first_is_in, second_is_out = threading.Event(), threading.Event()
    seen: list[object] = []

    async def first() -> None:
        async with VirtualNetwork() as net:
            first_is_in.set()
            await trio.to_thread.run_sync(second_is_out.wait)
            with net.host("first"), socket.socket() as sock:
                seen.append((type(sock), socket.gethostname()))

    async def second() -> None:
        async with VirtualNetwork() as net:
            with net.host("second"), socket.socket() as sock:
                seen.append((type(sock), socket.gethostname()))

    thread = threading.Thread(target=trio.run, args=(first,))
    thread.start()
    first_is_in.wait()
    trio.run(second)
    with socket.socket() as sock:
        seen.append(type(sock))
        sock.bind(("127.0.0.1", 0))
    second_is_out.set()
    thread.join()

    assert seen == [(SyncSocket, "second"), socket.socket, (SyncSocket, "first")]
    assert replaced() == before


# ---- small things that were refused, or taken in silence ------------------------------------------


async def test_a_socket_of_a_crashed_host_is_readable(net: VirtualNetwork) -> None:
    """So that a pool of connections drops it; a receive says why."""
    listener = await listening(host="127.0.0.1")
    with listener, await connected("127.0.0.1") as client:
        with net.crash("default"):
            pass
        assert client.is_readable()
        with pytest.raises(OSError, match="Network is down") as caught:
            await client.recv(1)
        assert caught.value.errno == errno.ENETDOWN


async def test_an_abstract_name_may_have_any_bytes(net: VirtualNetwork) -> None:
    """One that is no UTF-8 comes as surrogates, as Python decodes it."""
    with trio.socket.socket(socket.AF_UNIX) as listener, trio.socket.socket(socket.AF_UNIX) as client:
        await listener.bind("\0abc\udcf0")
        listener.listen()
        await client.connect(b"\0abc\xf0")
        assert client.getpeername() == b"\0abc\xf0"


async def test_set_inheritable_is_noted(net: VirtualNetwork) -> None:
    """No child process inherits it all the same; hypercorn sets it on each of its sockets."""
    with trio.socket.socket() as sock:
        assert not sock.get_inheritable()
        sock.set_inheritable(True)
        assert sock.get_inheritable()


async def test_datagrams_of_af_unix_are_refused_by_name(net: VirtualNetwork) -> None:
    """By trio's call and by the standard library's."""
    for make in (trio.socket.socket, socket.socket):
        with pytest.raises(NotImplementedError, match="AF_UNIX"):
            make(socket.AF_UNIX, socket.SOCK_DGRAM)


async def test_a_datagram_of_several_calls_is_refused_by_name(net: VirtualNetwork) -> None:
    """MSG_MORE; to a stream it is a hint, and every byte comes."""
    with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
        with pytest.raises(NotImplementedError, match="MSG_MORE"):
            await sock.sendto(b"part", socket.MSG_MORE, ("127.0.0.1", PORT))
    listener = await listening(host="127.0.0.1")
    client = await connected("127.0.0.1")
    accepted, _ = await listener.accept()
    with listener, client, accepted:
        await client.send(b"part", socket.MSG_MORE)
        assert await accepted.recv(100) == b"part"


# ---- files of AF_UNIX -----------------------------------------------------------------------------


def test_a_unix_listener_of_anyio_has_a_mode(tmp_path: Path) -> None:
    """Its file is there for who looks at it, and can be connected to; afterwards nothing is left."""
    path = tmp_path / "socket"

    async def main(net: VirtualNetwork) -> int:
        async with await anyio.create_unix_listener(path, mode=0o600) as listener, trio.open_nursery() as nursery:
            nursery.start_soon(listener.serve, shout)
            async with await anyio.connect_unix(path) as client:
                await client.send(b"hello")
                assert await client.receive() == b"HELLO"
            nursery.cancel_scope.cancel()
        return path.stat().st_mode

    assert simulate(main) == stat.S_IFSOCK | 0o600
    assert list(tmp_path.iterdir()) == []


async def shout(stream: anyio.abc.ByteStream) -> None:
    """What anyio's server does."""
    async with stream:
        async for data in stream:
            await stream.send(data.upper())


async def test_a_unix_name_is_free_when_its_file_is_unlinked(net: VirtualNetwork, tmp_path: Path) -> None:
    """As by a server that takes over from one which still runs; before, the name is taken."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as old, socket.socket(socket.AF_UNIX) as new:
        old.bind(path)
        old.listen()
        with pytest.raises(OSError, match="Address already in use"):
            new.bind(path)
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(FileNotFoundError):
            client.connect(path)
        new.bind(path)
        new.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            new.accept()[0].close()


async def test_a_unix_name_without_a_folder_needs_none(net: VirtualNetwork) -> None:
    """Nobody can look at its file then."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("/no/such/folder/socket")
        listener.listen()
        client.connect("/no/such/folder/socket")
        listener.accept()[0].close()
