"""Libraries of others that keep time and draw by chance, unmodified, over a bad network and five seeds."""

from __future__ import annotations

import datetime
import email.utils
import json
import random
import secrets
import time
import uuid
from typing import Any

import h11
import httpcore
import pytest
import trio

from trioqt.testing import VirtualNetwork, assert_replays, simulate
from trioqt.testing.network.fabric import Conditions

SEEDS = range(5)
EPOCH = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()


def bad(seed: int) -> VirtualNetwork:
    return VirtualNetwork(conditions=Conditions(latency=0.03, jitter=0.02, loss=0.05), seed=seed)


async def web(stream: trio.SocketStream) -> None:
    """Answers with all that a server may take from elsewhere: a time, identifiers, chance, a thread."""
    http = h11.Connection(h11.SERVER)
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some())
        elif isinstance(event, h11.EndOfMessage):
            identifier = await trio.to_thread.run_sync(uuid.uuid4)
            answer = {"at": time.time(), "id": str(identifier), "draw": random.random(), "token": secrets.token_hex(8)}
            body = json.dumps(answer).encode()
            headers = [("Date", email.utils.formatdate()), ("Content-Length", str(len(body)))]
            head = http.send(h11.Response(status_code=200, headers=headers)) or b""
            await stream.send_all(
                head + (http.send(h11.Data(data=body)) or b"") + (http.send(h11.EndOfMessage()) or b"")
            )
            http.start_next_cycle()
        elif isinstance(event, h11.ConnectionClosed):
            return


class Web:
    """A server on a host of its own, and how often it was connected to."""

    def __init__(self) -> None:
        self.connections = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        await web(stream)


async def pool(net: VirtualNetwork) -> tuple[int, list[Any]]:
    """Two requests at once, and one after an hour."""
    server = Web()
    answers: list[Any] = []
    async with trio.open_nursery() as nursery:
        with net.host("web"):
            await nursery.start(trio.serve_tcp, server.serve, 80)
        async with httpcore.AsyncConnectionPool(keepalive_expiry=5) as client:
            for nap in (1, 3600, 0):
                response = await client.request("GET", "http://web/", headers={"X-Id": uuid.uuid4().hex})
                answers.append(json.loads(response.content))
                await trio.sleep(nap)
        nursery.cancel_scope.cancel()
    return server.connections, answers


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pool_drops_a_connection_that_was_idle_for_too_long(seed: int) -> None:
    """httpcore asks `time.monotonic`: after a second the connection is used again, after an hour there is a new one."""
    connections, answers = simulate(pool, seed=seed, network=bad)

    assert connections == 2
    assert [int(answer["at"] - EPOCH) // 3600 for answer in answers] == [0, 0, 1]
    assert simulate(pool, seed=seed, network=bad) == (connections, answers)


def test_what_a_library_draws_and_when_replays_in_another_process() -> None:
    """With all that it sends."""
    assert_replays(pool, seed=3, network=bad)


async def clients(net: VirtualNetwork) -> list[Any]:
    """Several clients of httpx at once, whose connections expire between some of their requests."""
    import httpx

    answers: list[Any] = []

    async def client(name: str) -> None:
        with net.host(name):
            limits = httpx.Limits(keepalive_expiry=5)
            async with httpx.AsyncClient(limits=limits, timeout=60) as session:
                for _ in range(3):
                    response = await session.post("http://web/", files={"a": b"of a random boundary"})
                    answers.append((name, response.json(), response.headers["Date"], response.elapsed))
                    await trio.sleep(random.choice([1, 3600]))

    async with trio.open_nursery() as nursery:
        with net.host("web"):
            await nursery.start(trio.serve_tcp, web, 80)
        async with trio.open_nursery() as inner:
            for number in range(3):
                inner.start_soon(client, f"client-{number}")
        nursery.cancel_scope.cancel()
    return answers


@pytest.mark.parametrize("seed", SEEDS)
def test_clients_of_httpx_go_one_way_for_one_seed(seed: int) -> None:
    """To the microsecond that it measures."""
    pytest.importorskip("httpx", reason="httpx is not installed")

    answers = simulate(clients, seed=seed, network=bad)

    assert len(answers) == 9
    assert all(elapsed > datetime.timedelta(seconds=0.06) for *_, elapsed in answers)
    assert simulate(clients, seed=seed, network=bad) == answers


async def resolver(net: VirtualNetwork) -> list[Any]:
    """Three questions that are answered, and one from behind a partition; how long each took."""
    import dns.asyncresolver
    import dns.exception
    import dns.message
    import dns.rrset

    with net.host("ns") as address:
        pass

    async def serve() -> None:
        with net.host("ns"), trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
            await sock.bind(("0.0.0.0", 53))
            while True:
                data, client = await sock.recvfrom(4096)
                question = dns.message.from_wire(data)
                answer = dns.message.make_response(question)
                answer.answer.append(dns.rrset.from_text(question.question[0].name, 60, "IN", "A", "10.9.9.9"))
                await sock.sendto(answer.to_wire(), client)

    asker = dns.asyncresolver.Resolver(configure=False)
    asker.nameservers = [str(address)]
    found: list[Any] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            answers = await asker.resolve(f"host-{number}.example.", "A", lifetime=30)
            found.append([str(each) for each in answers])
        with net.partition("default", "ns"):
            began = trio.current_time()
            with pytest.raises(dns.exception.Timeout):
                await asker.resolve("host.example.", "A", lifetime=5)
            found.append(trio.current_time() - began)
        nursery.cancel_scope.cancel()
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_resolver_gives_up_when_its_time_is_over(seed: int) -> None:
    """dnspython asks `time.time`: five seconds, and what it sleeps between its questions."""
    pytest.importorskip("dns", reason="dnspython is not installed")

    *answers, waited = simulate(resolver, seed=seed, network=bad)

    assert answers == [["10.9.9.9"]] * 3
    assert 5 <= waited < 7
    assert simulate(resolver, seed=seed, network=bad) == [*answers, waited]
