"""curl on the other side: HTTP over our sockets, with all that browsers do to a server."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.peers import peer_command
from tests.real_peers.http_handler import BIG, Site, Visit
from tests.real_peers.programs import random_bytes, run_to_its_end, running
from trioqt import ConnectionFinished, ErrorKind, HostAddress, SocketError, TcpServer

# What curl says with its status: "maximum file size exceeded".
FILE_TOO_LARGE = 63


@pytest.fixture
def curl() -> tuple[str, ...]:
    """curl, quiet but for errors, whatever the settings of this user are."""
    return (peer_command("curl"), "-q", "--silent", "--show-error", "--noproxy", "*")


@asynccontextmanager
async def site(
    host: HostAddress | str = "127.0.0.1", *, max_connections: int | None = None, party: int = 0
) -> AsyncIterator[tuple[Site, str]]:
    """A site that is served, and its address."""
    async with TcpServer(max_connections=max_connections) as server, trio.open_nursery() as nursery:
        await server.listen(host)
        served = Site(server, party)
        await nursery.start(server.serve, served.serve)
        yield served, f"http://127.0.0.1:{server.server_port()}"
        server.close()


async def test_curl_fetches_a_page(curl: tuple[str, ...]) -> None:
    """The smallest thing: one request, one answer, one connection."""
    with trio.fail_after(20):
        async with site() as (served, address):
            fetched = await run_to_its_end(*curl, "--include", f"{address}/small")

    assert (fetched.returncode, fetched.stderr) == (0, b"")
    assert fetched.stdout == b"HTTP/1.1 200 \r\nContent-Length: 6\r\n\r\nhello\n"
    assert [(visit.method, visit.target) for visit in served.visits] == [("GET", "/small")]


async def test_curl_fetches_three_megabytes_as_they_were(curl: tuple[str, ...]) -> None:
    """send_all with backpressure: nothing is lost, doubled or swapped on the way."""
    with trio.fail_after(20):
        async with site() as (_, address):
            fetched = await run_to_its_end(*curl, f"{address}/big")

    assert (fetched.returncode, fetched.stderr) == (0, b"")
    assert hashlib.sha256(fetched.stdout).digest() == hashlib.sha256(BIG).digest()


async def test_a_body_without_a_length_ends_with_the_handlers_block(curl: tuple[str, ...]) -> None:
    """HTTP/1.0: the connection's end is the body's end, so leaving the block must send all, and must not reset."""
    with trio.fail_after(20):
        async with site() as (_, address):
            fetched = await run_to_its_end(*curl, "--http1.0", "--dump-header", "/dev/stderr", f"{address}/big")

    assert b"content-length" not in fetched.stderr.lower()
    assert fetched.returncode == 0
    assert hashlib.sha256(fetched.stdout).digest() == hashlib.sha256(BIG).digest()


async def test_one_curl_fetches_two_pages_over_one_connection(curl: tuple[str, ...]) -> None:
    """Keep-alive: the second request comes on the socket of the first, after 3 MB have gone through it."""
    with trio.fail_after(20):
        async with site() as (served, address):
            counting = ("--write-out", "%{stderr}%{num_connects}\n")
            fetched = await run_to_its_end(*curl, *counting, f"{address}/big", f"{address}/small")

    first, second = served.visits
    assert (first.target, second.target) == ("/big", "/small")
    assert first.port == second.port
    assert (fetched.returncode, fetched.stderr) == (0, b"1\n0\n")
    assert fetched.stdout == BIG + b"hello\n"


async def test_head_tells_a_length_and_the_connection_goes_on(curl: tuple[str, ...]) -> None:
    """No body follows a HEAD; if one byte did, the GET behind it on the same connection would fail."""
    with trio.fail_after(20):
        async with site() as (served, address):
            fetched = await run_to_its_end(*curl, "--head", f"{address}/big", "--next", *curl[1:], f"{address}/small")

    head, get = served.visits
    assert (head, get) == (Visit("HEAD", "/big", get.port), Visit("GET", "/small", get.port))
    assert (fetched.returncode, fetched.stderr) == (0, b"")
    assert fetched.stdout == b"HTTP/1.1 200 \r\nContent-Length: 3000000\r\n\r\nhello\n"


async def test_a_posted_megabyte_waits_for_100_continue_and_arrives_whole(curl: tuple[str, ...]) -> None:
    """curl sends the head, waits to be told to go on, then sends the body: a short answer, then much to receive."""
    body = random_bytes(1_000_000)

    with trio.fail_after(20):
        async with site() as (served, address):
            # curl goes on by itself after a second; here only when it is told.
            expecting = ("--header", "Expect: 100-continue", "--expect100-timeout", "60")
            posting = ("--data-binary", "@-", f"{address}/digest")
            posted = await run_to_its_end(*curl, *expecting, *posting, stdin=body)

    assert (posted.returncode, posted.stderr) == (0, b"")
    assert posted.stdout.decode() == hashlib.sha256(body).hexdigest()
    assert served.continued == 1


@pytest.mark.parametrize(
    ("listen_on", "addresses"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("::1", ["[::1]"]),
        (HostAddress.ANY, ["127.0.0.1", "[::1]", "127.0.0.1"]),
    ],
    ids=["IPv4", "IPv6", "ANY"],
)
async def test_curl_finds_the_server_on_both_families(
    curl: tuple[str, ...], listen_on: HostAddress | str, addresses: list[str]
) -> None:
    """ANY, which is the default, is one port for IPv4 and IPv6."""
    with trio.fail_after(20):
        async with site(listen_on) as (served, _):
            port = served.server.server_port()
            fetched = [await run_to_its_end(*curl, "--globoff", f"http://{at}:{port}/small") for at in addresses]

    assert [(done.returncode, done.stdout, done.stderr) for done in fetched] == [(0, b"hello\n", b"")] * len(addresses)


async def test_a_curl_that_refuses_the_body_costs_the_server_nothing(curl: tuple[str, ...]) -> None:
    """curl reads the length, finds it too large and goes; that handler ends, and the next client is served."""
    with trio.fail_after(20):
        async with site() as (served, address), served.server.events(ConnectionFinished) as ends:
            refused = await run_to_its_end(*curl, "--max-filesize", "1000", f"{address}/big")
            first = await anext(ends)
            second = await run_to_its_end(*curl, f"{address}/small")

    assert refused.returncode == FILE_TOO_LARGE
    assert isinstance(first.error, SocketError)
    assert first.error.kind is ErrorKind.REMOTE_HOST_CLOSED
    assert (second.returncode, second.stdout) == (0, b"hello\n")


async def test_a_curl_that_is_killed_in_the_middle_ends_its_handler_only(curl: tuple[str, ...]) -> None:
    """The handler is in the middle of a body without end; SocketError ends it, and the next client is served."""
    with trio.fail_after(20):
        async with site() as (served, address), served.server.events(ConnectionFinished) as ends:
            async with running(*curl, "--no-buffer", f"{address}/endless") as program:
                beginning = await program.out.some()
                program.kill()
                first = await anext(ends)
            second = await run_to_its_end(*curl, f"{address}/small")

    assert beginning == bytes(len(beginning)) != b""
    assert isinstance(first.error, SocketError)
    assert first.error.kind is ErrorKind.REMOTE_HOST_CLOSED
    assert (second.returncode, second.stdout) == (0, b"hello\n")


async def test_twenty_curls_at_once_are_served_four_at_a_time(curl: tuple[str, ...]) -> None:
    """max_connections is exact: the first four meet each other, never a fifth, and all twenty get their answer."""
    fetched = []

    with trio.fail_after(20):
        async with site(max_connections=4, party=4) as (served, address):

            async def fetch() -> None:
                fetched.append(await run_to_its_end(*curl, f"{address}/together"))

            async with trio.open_nursery() as clients:
                for _ in range(20):
                    clients.start_soon(fetch)

    assert [(done.returncode, done.stdout, done.stderr) for done in fetched] == [(0, b"all here\n", b"")] * 20
    assert served.most_at_once == 4
    assert len({visit.port for visit in served.visits}) == 20
