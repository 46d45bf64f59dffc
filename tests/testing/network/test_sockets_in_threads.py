"""Blocking sockets in worker threads: they wait for the simulated network, in virtual time, while the run goes on."""

from __future__ import annotations

import errno
import http.client
import select
import selectors
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
import trio

from trioqt.testing import BudgetExceeded, Deadlock, RealNetworkUsed, VirtualNetwork, real_network_allowed, simulate

PORT = 4000


async def echo(stream: trio.SocketStream) -> None:
    """A second behind."""
    async for data in stream:
        await trio.sleep(1)
        await stream.send_all(data)


async def on_a_client(net: VirtualNetwork, work: Callable[..., Any], *args: Any) -> Any:
    """What it returns in a worker thread of one host, while another has an `echo`."""
    async with trio.open_nursery() as nursery:
        with net.host("server"):
            await nursery.start(trio.serve_tcp, echo, PORT)
        with net.host("client"):
            result = await trio.to_thread.run_sync(work, *args)
        nursery.cancel_scope.cancel()
    return result


def test_a_blocking_client_talks_with_a_server_of_trios() -> None:
    """It looks the name up, connects, sends and receives; a round trip takes a fifth of a second."""

    def talk() -> list[Any]:
        with socket.create_connection(("server", PORT)) as sock:
            connected = time.monotonic()
            sock.sendall(b"a line\n")
            with sock.makefile("rb") as file:
                return [connected, file.readline(), time.monotonic(), sock.getpeername()[1]]

    async def main(net: VirtualNetwork) -> Any:
        return await on_a_client(net, talk)

    connected, line, answered, port = simulate(main, latency=0.1)
    assert (line, port) == (b"a line\n", PORT)
    assert (connected, answered) == (pytest.approx(0.2), pytest.approx(1.4))


def test_threads_and_tasks_go_on_while_a_thread_waits() -> None:
    """Three clients at once take as long as one, and it is the same each time."""

    async def main(net: VirtualNetwork) -> tuple[list[Any], str]:
        seen: list[Any] = []

        def talk(number: int) -> None:
            with socket.create_connection(("server", PORT)) as sock:
                sock.sendall(b"%d" % number)
                seen.append((sock.recv(10), round(time.monotonic(), 6)))

        async def tick() -> None:
            await trio.sleep(1)
            seen.append("tick")

        async with trio.open_nursery() as nursery:
            with net.host("server"):
                await nursery.start(trio.serve_tcp, echo, PORT)
            with net.host("client"):
                async with trio.open_nursery() as clients:
                    clients.start_soon(tick)
                    for number in range(3):
                        clients.start_soon(trio.to_thread.run_sync, talk, number)
            nursery.cancel_scope.cancel()
        return seen, net.digest()

    seen, digest = simulate(main, latency=0.1, seed=3)
    assert (seen[0], sorted(seen[1:])) == ("tick", [(b"0", 1.4), (b"1", 1.4), (b"2", 1.4)])
    assert simulate(main, latency=0.1, seed=3) == (seen, digest)


def test_a_time_limit_is_of_virtual_time() -> None:
    """Of a receive, an accept, a connect that nobody answers, and a send for which there is no room."""

    def wait() -> list[float]:
        moments = []
        with socket.create_server(("0.0.0.0", PORT)) as listener:
            listener.settimeout(5)
            with pytest.raises(TimeoutError, match=r"^timed out$"):
                listener.accept()
            moments.append(time.monotonic())
            with socket.create_connection(("127.0.0.1", PORT), timeout=10) as sock:
                with pytest.raises(TimeoutError):
                    sock.recv(1)
                moments.append(time.monotonic())
                with pytest.raises(TimeoutError):
                    sock.sendall(bytes(10_000_000))
                moments.append(time.monotonic())
        with pytest.raises(TimeoutError):
            socket.create_connection(("silent", PORT), timeout=20)
        return [*moments, time.monotonic()]

    async def main(net: VirtualNetwork) -> Any:
        with net.host("silent"):
            pass
        net.crash("silent")
        return await on_a_client(net, wait)

    assert simulate(main) == [5, 15, 25, 45]


def test_several_threads_may_wait_for_one_socket() -> None:
    """As threads do that serve one listener; each connection is one's."""

    async def main(net: VirtualNetwork) -> list[str]:
        served: list[str] = []
        listener = socket.create_server(("0.0.0.0", PORT))

        def serve(name: str) -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError as exc:
                    assert exc.errno == errno.EBADF  # noqa: PT017  # it is closed at the end
                    return
                with sock:
                    while data := sock.recv(100):
                        served.append(f"{name} {data.decode()}")
                        sock.sendall(data)

        async def ask(number: int) -> None:
            async with await trio.open_tcp_stream("127.0.0.1", PORT) as stream:
                await stream.send_all(b"%d" % number)
                assert await stream.receive_some() == b"%d" % number
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(trio.to_thread.run_sync, serve, name)
            async with trio.open_nursery() as clients:
                for number in range(3):
                    clients.start_soon(ask, number)
            listener.close()
        return served

    served = simulate(main)
    assert {word.split()[0] for word in served} == {"a", "b", "c"}
    assert {word.split()[1] for word in served} == {"0", "1", "2"}
    assert simulate(main) == served


def test_libraries_that_block_run_in_threads() -> None:
    """http.client and urllib, against a server that trio runs."""

    async def answer(stream: trio.SocketStream) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
        await stream.aclose()

    def fetch() -> list[bytes]:
        connection = http.client.HTTPConnection("server", 80, timeout=10)
        connection.request("GET", "/")
        with urllib.request.urlopen("http://server/", timeout=10) as response:
            return [connection.getresponse().read(), response.read()]

    async def main(net: VirtualNetwork) -> Any:
        async with trio.open_nursery() as nursery:
            with net.host("server"):
                await nursery.start(trio.serve_tcp, answer, 80)
            found = await trio.to_thread.run_sync(fetch)
            nursery.cancel_scope.cancel()
        return found

    assert simulate(main, latency=0.05) == [b"hello", b"hello"]


def test_datagrams_and_options_from_a_thread() -> None:
    """Between a thread and a task."""

    def ask() -> tuple[bytes, int]:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.sendto(b"question", ("server", PORT))
            data, _ = sock.recvfrom(100)
            return data, sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)

    async def main(net: VirtualNetwork) -> Any:
        with net.host("server"), trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
            await sock.bind(("0.0.0.0", PORT))

            async def answer() -> None:
                data, source = await sock.recvfrom(100)
                await sock.sendto(data.upper(), source)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer)
                with net.host("client"):
                    return await trio.to_thread.run_sync(ask)

    assert simulate(main, latency=0.05) == (b"QUESTION", 1)


def test_names_are_looked_up_from_a_thread() -> None:
    """By all of the five calls, on the network, and it takes its time."""

    def look_up() -> list[Any]:
        found = [
            socket.getaddrinfo("server", 80, type=socket.SOCK_STREAM)[0][4],
            socket.gethostbyname("server"),
            socket.gethostbyname_ex("server"),
            socket.gethostbyaddr("10.0.0.2"),
            socket.getnameinfo(("10.0.0.2", 80), socket.NI_NUMERICSERV),
        ]
        for call, arg in ((socket.gethostbyname, "nobody"), (socket.gethostbyaddr, "10.9.9.9")):
            with pytest.raises((socket.gaierror, socket.herror)):
                call(arg)
        return [*found, time.monotonic()]

    async def main(net: VirtualNetwork) -> Any:
        return await on_a_client(net, look_up)

    address = "10.0.0.2"
    assert simulate(main, network=lambda seed: VirtualNetwork(name_latency=1)) == [
        *((address, 80), address, ("server", [], [address]), ("server", [], [address]), ("server", "80")),
        7,
    ]


def test_a_cancelled_task_waits_for_its_thread_or_leaves_it() -> None:
    """As with any function in a thread; one that is left is told that the network is down when that ends."""
    seen: list[Any] = []

    async def main(net: VirtualNetwork) -> None:
        listener = socket.create_server(("127.0.0.1", PORT))

        def accept(seconds: float | None) -> None:
            listener.settimeout(seconds)
            try:
                listener.accept()
            except OSError as exc:
                seen.append(exc.errno)
                if seconds is None:
                    listener.close()

        for seconds, leave, end in ((5, False, 5), (None, True, 8)):
            with trio.move_on_after(3):
                await trio.to_thread.run_sync(accept, seconds, abandon_on_cancel=leave)
            assert trio.current_time() == end

    simulate(main)
    assert seen == [None, errno.ENETDOWN]  # a TimeoutError has no number


def test_a_thread_is_told_of_the_crash_of_its_host() -> None:
    """Nothing hangs, as no task does."""

    async def main(net: VirtualNetwork) -> Any:
        found: list[Any] = []

        def receive() -> None:
            with socket.create_connection(("server", PORT)) as sock:
                try:
                    sock.recv(1)
                except OSError as exc:
                    found.append((exc.errno, time.monotonic()))

        async with trio.open_nursery() as nursery:
            with net.host("server"):
                await nursery.start(trio.serve_tcp, echo, PORT)
            async with trio.open_nursery() as clients:
                with net.host("client"):
                    clients.start_soon(trio.to_thread.run_sync, receive)
                await trio.sleep(2)
                net.crash("client")
            nursery.cancel_scope.cancel()
        return found

    assert simulate(main) == [(errno.ENETDOWN, 2)]


def test_a_thread_to_which_nothing_will_come_is_a_deadlock() -> None:
    """At once: what can end its wait is known."""

    async def main(net: VirtualNetwork) -> None:
        with socket.create_server(("127.0.0.1", PORT)) as listener:
            await trio.to_thread.run_sync(listener.accept)

    with pytest.raises(Deadlock):
        simulate(main)


def test_what_a_thread_cannot_do_with_it_is_told() -> None:
    """No system call knows it; and without a time limit a non-blocking one says EAGAIN, as ever."""

    async def main(net: VirtualNetwork) -> None:
        def ask_the_system() -> None:
            with socket.create_server(("127.0.0.1", PORT)) as listener:
                for call in (lambda: select.select([listener], [], [], 0), lambda: selector.register(listener, 1)):
                    with pytest.raises(NotImplementedError, match="no system call knows its descriptor"):
                        call()
                listener.setblocking(False)
                with pytest.raises(BlockingIOError):
                    listener.accept()
            with real_network_allowed():
                real = socket.socket()
                assert type(real) is socket.socket
                real.close()

        with selectors.DefaultSelector() as selector:
            await trio.to_thread.run_sync(ask_the_system)

    simulate(main)


def test_threads_that_are_real_are_refused() -> None:
    """Beside trio nothing waits for them, so they cannot be served."""

    async def main(net: VirtualNetwork) -> None:
        with socket.socket() as sock:  # a simulated one
            with pytest.raises(RuntimeError, match="threads='inline'"):
                await trio.to_thread.run_sync(sock.recv, 1)

        def connect() -> None:
            with socket.socket() as real:
                real.connect(("127.0.0.1", PORT))

        await trio.to_thread.run_sync(connect)

    with pytest.raises(RealNetworkUsed, match="threads='inline'"):
        simulate(main, threads="real")


def test_threads_sleep_beside_each_other() -> None:
    """And beside the tasks; trio's own thread, which sleeps in a task, stops everybody."""

    async def main(net: VirtualNetwork) -> list[Any]:
        seen: list[Any] = []

        def sleep(seconds: float) -> None:
            time.sleep(seconds)
            seen.append(time.monotonic())

        async with trio.open_nursery() as nursery:
            for seconds in (10, 5, 10):
                nursery.start_soon(trio.to_thread.run_sync, sleep, seconds)
            await trio.sleep(3)
            seen.append(trio.current_time())
        time.sleep(10)  # noqa: ASYNC251  # that is what it is about
        return [*seen, trio.current_time()]

    assert simulate(main) == [3, 5, 10, 10, 20]


def test_a_thread_that_is_woken_runs_while_trios_own_sleeps_or_waits() -> None:
    """By time.sleep in a task, and by a queue; as beside a real one, on which nobody else runs."""

    async def main(net: VirtualNetwork) -> list[str]:
        seen: list[str] = []
        events = [threading.Event(), threading.Event()]
        done = threading.Event()

        def wait(number: int) -> None:
            events[number].wait()
            seen.append(f"woken {number}")
            if number:
                done.set()

        async with trio.open_nursery() as nursery:
            for number in (0, 1):
                nursery.start_soon(trio.to_thread.run_sync, wait, number)
            await trio.sleep(1)
            events[0].set()
            while not seen:
                time.sleep(0.01)  # noqa: ASYNC251
            events[1].set()
            assert done.wait(1)
            seen.append(f"{trio.current_time():.2f}")
        return seen

    assert simulate(main) == ["woken 0", "woken 1", "1.01"]


def test_turns_of_threads_count_as_steps() -> None:
    """A loop over threads that take no time never ends, and is told so as soon as one over checkpoints."""

    async def main(net: VirtualNetwork) -> None:
        with trio.move_on_after(1):
            while True:
                await trio.to_thread.run_sync(trio.from_thread.run, trio.sleep, 0)

    with pytest.raises(BudgetExceeded, match=r"not over after 5\d\d steps"):
        simulate(main, steps=500)
