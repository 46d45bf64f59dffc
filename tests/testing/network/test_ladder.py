"""The sequence diagram of a simulated network: who said what to whom, when, and what became of it."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trioqt.testing import Crash, VirtualNetwork
from trioqt.testing.network.ladder import Ladder
from trioqt.testing.network.trace import Record

Clock = trio.testing.MockClock
SVG = "{http://www.w3.org/2000/svg}"


@asynccontextmanager
async def connected(net: VirtualNetwork) -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """A client's stream and its server's, 4000 the port."""
    with net.host("server") as address:
        (listener,) = await trio.open_tcp_listeners(4000, host=str(address))
    with net.host("client"):
        client = await trio.open_tcp_stream(str(address), 4000)
    async with listener:
        server = await listener.accept()
    async with client, server:
        yield client, server


@asynccontextmanager
async def datagram_socket(net: VirtualNetwork, host: str, port: int = 0) -> AsyncIterator[trio.socket.SocketType]:
    """A trio socket, bound on that host."""
    with net.host(host) as address:
        sock = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        with sock:
            await sock.bind((str(address), port))
            yield sock


def drawn(net: VirtualNetwork) -> list[str]:
    """The lines below the heads."""
    return net.ladder().splitlines()[1:]


def texts_of(svg: str) -> list[str]:
    """All texts of an SVG, which must be one that can be read."""
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


# ---- what is drawn -----------------------------------------------------------------------------


async def test_a_conversation_has_a_line_for_each_thing_that_was_sent(autojump_clock: Clock) -> None:
    """One column a host, the first to speak on the left; when it was sent, when it arrived, and what it was."""
    async with VirtualNetwork(latency=0.05) as net, connected(net) as (client, server):
        await client.send_all(b"hello")
        await server.receive_some()
        await server.send_all(b"x" * 2000)
        await client.receive_some()
        await client.aclose()
        await server.receive_some()
        await server.aclose()
        await net.quiesce()

        assert net.ladder() == "\n".join(
            [
                " time  arrives  client                 server",
                "0.000              |                      * listens on port 4000",
                "0.000    0.050     |-------- SYN -------->|",
                "0.050    0.100     |<------ SYN+ACK ------|",
                "0.150              |                      * listens no more on port 4000",
                "0.150    0.200     |--- DATA 5 bytes ---->|",
                "0.200    0.250     |<- DATA 2,000 bytes --|",
                "0.250    0.300     |-------- FIN -------->|",
                "0.300    0.350     |<-------- FIN --------|",
            ]
        )


async def test_what_is_lost_and_what_is_sent_again_is_marked(autojump_clock: Clock) -> None:
    """The line of what is lost ends short of its target; a partition's two ends go over all columns."""
    async with VirtualNetwork(latency=0.05) as net, connected(net) as (client, server):
        with net.partition("client", "server"):
            await client.send_all(b"?")
            await server.send_all(b"!")
            await trio.sleep(0.5)
        await server.receive_some()

        assert drawn(net)[4:] == [
            "0.150           == fault: Partition('client', 'server') ==",
            "0.150     lost     |----- DATA 1 byte -----X   |",
            "0.150     lost     |   X----- DATA 1 byte -----|",
            "0.450     lost     |- DATA 1 byte, again --X   |",
            "0.450     lost     |   X- DATA 1 byte, again --|",
            "0.650           == fault over: Partition('client', 'server') ==",
            "1.050    1.100     |--- DATA 1 byte, again --->|",
            "1.050    1.100     |<--- DATA 1 byte, again ---|",
        ]


async def test_what_is_under_way_when_a_partition_begins_is_drawn_from_when_it_was_sent(autojump_clock: Clock) -> None:
    """It departs before the fault, and is lost all the same."""
    async with VirtualNetwork(latency=0.5) as net, connected(net) as (client, _):
        await client.send_all(b"?")
        await trio.sleep(0.1)
        with net.partition("client", "server"):
            await trio.sleep(1)

        assert drawn(net)[4:] == [
            "1.500     lost     |- DATA 1 byte --X   |",
            "1.600           == fault: Partition('client', 'server') ==",
            "2.600           == fault over: Partition('client', 'server') ==",
        ]


async def test_what_is_held_is_sent_in_the_end_and_only_its_copies_are_again(autojump_clock: Clock) -> None:
    """The first is no repetition, though it arrives together with those that its sender sent meanwhile."""
    async with VirtualNetwork(latency=0.05) as net, connected(net) as (client, server):
        with net.hold("client", "server"):
            await client.send_all(b"?")
            await trio.sleep(0.5)
        await server.receive_some()
        await trio.sleep(1)

        assert drawn(net)[4:] == [
            "0.150           == fault: Hold('client', 'server') ==",
            "0.150     held     |----- DATA 1 byte -----:   |",
            "0.450     held     |- DATA 1 byte, again --:   |",
            "0.650           == fault over: Hold('client', 'server') ==",
            "0.650    0.700     |------ DATA 1 byte ------->|",
            "0.650    0.700     |--- DATA 1 byte, again --->|",
        ]


async def test_a_reset_and_a_refusal_are_drawn(autojump_clock: Clock) -> None:
    """RST, from whoever sends it."""
    async with VirtualNetwork(latency=0.05) as net, connected(net) as (client, server):
        await server.send_all(b"unread")
        await trio.sleep(1)
        await client.aclose()
        with net.host("client"), pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("10.0.0.2", 4001)

        found = [re.findall(r"[\w>+]+ (?:RST|SYN)\b", line) for line in drawn(net)]
        assert [name for names in found for name in names][2:] == [
            "32768>4000 RST",
            "32769>4001 SYN",
            "4001>32769 RST",
        ]


async def test_datagrams_are_drawn_and_ports_tell_conversations_apart(autojump_clock: Clock) -> None:
    """As soon as two hosts have two; with one conversation there are no ports."""
    async with VirtualNetwork(latency=0.05) as net, datagram_socket(net, "server", 5300) as server:
        pictures = []
        for _ in range(2):
            async with datagram_socket(net, "client") as client:
                await client.sendto(b"x" * 7, server.getsockname())
                await server.recv(100)
            pictures.append(drawn(net))

        assert pictures == [
            ["0.000    0.050     |- UDP 7 bytes -->|"],
            [
                "0.000    0.050     |- 32768>5300 UDP 7 bytes -->|",
                "0.050    0.100     |- 32769>5300 UDP 7 bytes -->|",
            ],
        ]


async def test_a_line_goes_over_the_hosts_between_its_ends_and_what_goes_nowhere_is_a_mark(
    autojump_clock: Clock,
) -> None:
    """Three hosts; one talks to itself, one crashes."""
    async with (
        VirtualNetwork(latency=0.05) as net,
        datagram_socket(net, "a", 9) as a,
        datagram_socket(net, "c", 9) as c,
    ):
        async with datagram_socket(net, "b", 9) as b:
            await a.sendto(b"", a.getsockname())
            await a.sendto(b"", b.getsockname())
            await c.sendto(b"", a.getsockname())
            await trio.sleep(1)
        with net.begin(Crash("b")):
            await trio.sleep(1)

        assert net.ladder().splitlines() == [
            " time  arrives   a                         b               c",
            "0.000    0.000   * UDP 0 bytes, to itself  |               |",
            "0.000    0.050   |----- UDP 0 bytes ------>|               |",
            "0.000    0.050   |<------------- UDP 0 bytes --------------|",
            "1.000           ============ fault: Crash('b') =============",
            "1.000            |                         * crashes       |",
            "2.000           ========== fault over: Crash('b') ==========",
            "2.000            |                         * starts again  |",
        ]


def test_nothing_is_drawn_of_a_network_on_which_nothing_happened() -> None:
    """It says so."""
    net = VirtualNetwork()

    assert net.ladder() == "(nothing has happened)"
    assert texts_of(net.ladder("svg")) == ["time", "arrives"]


def test_what_cannot_stand_in_a_line_is_spelled_out() -> None:
    """A program may look up anything; it is still one line of ASCII, and an SVG that can be read."""
    ladder = Ladder([(0.0, "lookup", "client", 0, "", 0, 0, "b\u00fccher\n\x00<&>", 0, 0.0, False)], 1, 1)

    assert ladder.draw("text").splitlines() == [
        " time  arrives  client",
        r"0.000              * looks up b\xfccher\n\x00<&>",
    ]
    assert texts_of(ladder.draw("svg"))[-1] == r"looks up b\xfccher\n\x00<&>"


# ---- bounds ------------------------------------------------------------------------------------


async def test_it_is_bounded_and_says_how_much_is_left_out(autojump_clock: Clock) -> None:
    """The latest are drawn, and hosts stand where they would in the whole picture."""
    async with VirtualNetwork(latency=0.05) as net, connected(net) as (client, server):
        for _ in range(300):
            await server.send_all(b"x")
            await client.receive_some()

        whole = net.ladder(limit=1000).splitlines()
        assert len(whole) == 1 + 4 + 300
        for limit in (1, 5, 200):
            picture = net.ladder() if limit == 200 else net.ladder(limit=limit)
            first, heads, *lines = picture.splitlines()
            assert first == f"({304 - limit} earlier events are left out)"
            assert heads.split() == ["time", "arrives", "client", "server"]
            assert [line.split() for line in lines] == [line.split() for line in whole[-limit:]]
            assert texts_of(net.ladder("svg", limit=limit))[4] == first


async def test_what_the_trace_has_forgotten_is_counted_too(autojump_clock: Clock) -> None:
    """A long run keeps its last events only."""
    async with VirtualNetwork(latency=0.05, trace_limit=10) as net, connected(net) as (client, server):
        for _ in range(31):
            await server.send_all(b"x")
            await client.receive_some()

        first, _, *lines = net.ladder().splitlines()
        assert first == f"({35 - len(lines)} earlier events are left out)"
        assert 10 <= len(lines) < 20


def test_wrong_arguments_are_refused() -> None:
    """Before anything is drawn."""
    net = VirtualNetwork()

    with pytest.raises(ValueError, match="format is 'text' or 'svg', not 'png'"):
        net.ladder("png")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit is 1 or more, not 0"):
        net.ladder(limit=0)


# ---- SVG ---------------------------------------------------------------------------------------


async def test_the_svg_says_what_the_text_says_in_light_and_dark(autojump_clock: Clock) -> None:
    """Times, fates and labels are the same, in the same order; nothing in it is fetched from elsewhere."""
    async with VirtualNetwork(latency=0.05) as net, connected(net) as (client, _):
        with net.partition("client", "server"):
            await client.send_all(b"<&>")
            await trio.sleep(1)
        svg = net.ladder("svg")

        words = " ".join(re.sub(r"[|X*=<>]|-{1,}>?(?= |$|X|\|)|(?<=[|<X])-+", " ", net.ladder()).split())
        shown = texts_of(svg)
        assert sorted(" ".join(shown).split()) == sorted(words.split())
        assert "prefers-color-scheme:dark" in svg
        assert "http" not in svg.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert svg.count('class="way lost"') == 3


# ---- any trace ---------------------------------------------------------------------------------


def random_records(rng: random.Random) -> list[Record]:
    """What a trace might hold, and more."""
    names = rng.sample(["a", "client", "a-host-of-a-long-name", "b.example", "<&>"], rng.randint(1, 4))
    found: list[Record] = []
    time = 0.0
    for _ in range(rng.randint(0, 30)):
        time += rng.choice([0.0, 0.05, 1e-6, 1000.0])
        kind = rng.choice(["SYN", "SYN-ACK", "DATA", "FIN", "RST", "UDP", "ICMP", "lost", "held", "listen", "fault"])
        source = "" if kind == "fault" else rng.choice(names)
        target = "" if kind in ("listen", "fault") else rng.choice(names)
        note = rng.choice(["DATA", "SYN"]) if kind in ("lost", "held") else "x" * rng.choice([0, 3, 90])
        port = rng.choice([0, 1, 65535]) if source else 0
        again = bool(target) and rng.random() < 0.3
        found.append(
            (
                time,
                kind,
                source,
                port,
                target,
                port,
                rng.choice([0, 1, 10**6]),
                note,
                0,
                time * 0.9 if target else time,
                again,
            )
        )
    return found


@pytest.mark.parametrize("seed", range(50))
def test_any_trace_can_be_drawn(seed: int) -> None:
    """A line for each event, every line begins with a time, no label is cut, and the SVG can be read."""
    records = random_records(random.Random(seed))
    ladder = Ladder(records, len(records), 1000)
    lines = ladder.draw("text").splitlines()
    svg = ladder.draw("svg")

    if not records:
        assert lines == ["(nothing has happened)"]
        return
    assert len(lines) == 1 + len(records)
    times = [float(line.split()[0]) for line in lines[1:]]
    assert times == sorted(times)
    text = "\n".join(lines)
    assert text.isascii()
    for shown in texts_of(svg):
        assert shown in text
