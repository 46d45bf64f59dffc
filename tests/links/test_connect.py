"""Connecting: from a name to addresses, and the race between them, on a scripted network and a jumping clock."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv6Address
from typing import Any

import pytest
import trio
import trio.testing

from tests.links.scripted import Answer, ScriptedNetwork, names
from tests.networks import Network
from tests.sockets.ports import refusing_port
from trioqt import HostAddress, NetworkLayerProtocol
from trioqt.links import connect
from trioqt.links.base import NativeSocket, Sockaddr
from trioqt.links.connect import AttemptsFailed, Target, look_up, race
from trioqt.links.native import KernelSocket, NativeLink

ANY_IP, IPV4, IPV6 = NetworkLayerProtocol.ANY_IP, NetworkLayerProtocol.IPV4, NetworkLayerProtocol.IPV6

NEVER = Answer(1_000_000.0)
REFUSED = Answer(error=errno.ECONNREFUSED)


def v4(host: str, port: int = 80) -> Target:
    return Target(socket.AF_INET, (host, port))


def v6(host: str, port: int = 80) -> Target:
    return Target(socket.AF_INET6, (host, port, 0, 0))


def no_options(sock: NativeSocket | trio.socket.SocketType, address: Sockaddr) -> None:
    """Leave the socket as it is."""


def hosts(targets: list[Target]) -> list[str]:
    return [target.address[0] for target in targets]


# ---- Looking up --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("127.0.0.1",                          [v4("127.0.0.1")]),
        ("::1",                                [v6("::1")]),
        ("0:0::1",                             [v6("::1")]),
        (HostAddress("10.1.2.3"),              [v4("10.1.2.3")]),
        (HostAddress("fe80::1%7"),             [Target(socket.AF_INET6, ("fe80::1", 80, 0, 7))]),
        (HostAddress(IPv6Address("ff::1")),    [v6("ff::1")]),
        (HostAddress("::ffff:127.0.0.1"),      [v6("::ffff:127.0.0.1")]),
        (HostAddress.ANY,                      [v6("::"), v4("0.0.0.0")]),
        (HostAddress.ANY_IPV4,                 [v4("0.0.0.0")]),
    ],
)  # fmt: skip
async def test_an_address_needs_no_look_up(host: HostAddress | str, found: list[Target]) -> None:
    """An address given as such is used as it is; no resolver is asked, so none can change it."""
    asked = names({})

    targets = await look_up(host, 80, ANY_IP)

    assert targets == found
    assert asked == []


@pytest.mark.parametrize(
    ("host", "protocol", "found"),
    [
        ("127.0.0.1",     IPV4, ["127.0.0.1"]),
        ("::1",           IPV6, ["::1"]),
        (HostAddress.ANY, IPV4, ["0.0.0.0"]),
        (HostAddress.ANY, IPV6, ["::"]),
    ],
)  # fmt: skip
async def test_an_address_of_the_chosen_protocol_is_found(
    host: HostAddress | str, protocol: NetworkLayerProtocol, found: list[str]
) -> None:
    """A protocol narrows an address that belongs to both, and lets its own pass."""
    assert hosts(await look_up(host, 80, protocol)) == found


@pytest.mark.parametrize(("host", "protocol"), [("127.0.0.1", IPV6), ("::1", IPV4), ("::ffff:127.0.0.1", IPV4)])
async def test_an_address_of_the_other_protocol_is_not_found(host: str, protocol: NetworkLayerProtocol) -> None:
    """Asked for IPv4 only, an IPv6 address is as good as none, and the other way round."""
    with pytest.raises(socket.gaierror, match=f"not an {protocol.name} address") as caught:
        await look_up(host, 80, protocol)

    assert caught.value.errno == socket.EAI_NONAME


@pytest.mark.parametrize(
    ("found", "tried"),
    [
        (["::1", "::2", "::3", "1.1.1.1", "2.2.2.2"],    ["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"]),
        (["1.1.1.1", "2.2.2.2", "3.3.3.3", "::1"],       ["1.1.1.1", "::1", "2.2.2.2", "3.3.3.3"]),
        (["1.1.1.1", "::1", "::2", "::3"],               ["1.1.1.1", "::1", "::2", "::3"]),
        (["1.1.1.1", "2.2.2.2"],                         ["1.1.1.1", "2.2.2.2"]),
        (["1.1.1.1", "::1", "1.1.1.1", "::1"],           ["1.1.1.1", "::1"]),
    ],
)  # fmt: skip
async def test_a_names_addresses_take_turns_by_family(found: list[str], tried: list[str]) -> None:
    """A family that is broken costs one attempt, not all of its addresses; each address is tried once."""
    asked = names({"peer.example": found})

    targets = await look_up("peer.example", 80, ANY_IP)

    assert hosts(targets) == tried
    assert asked == ["peer.example"]


@pytest.mark.parametrize(("protocol", "found"), [(IPV4, ["1.1.1.1", "2.2.2.2"]), (IPV6, ["::1"])])
async def test_a_protocol_narrows_what_a_name_means(protocol: NetworkLayerProtocol, found: list[str]) -> None:
    """The resolver is asked for that family only."""
    names({"peer.example": ["1.1.1.1", "::1", "2.2.2.2"]})

    assert hosts(await look_up("peer.example", 80, protocol)) == found


@pytest.mark.parametrize("host", ["", HostAddress.NULL])
async def test_no_name_is_not_found(host: HostAddress | str) -> None:
    """An empty name must not become this machine, as it does for the C library."""
    asked = names({})

    with pytest.raises(socket.gaierror, match="an empty name"):
        await look_up(host, 80, ANY_IP)

    assert asked == []


async def test_a_name_is_not_cut_at_a_null_character() -> None:
    """The C library would connect to what stands before it, which is not what was asked for."""
    asked = names({})

    with pytest.raises(socket.gaierror, match="null character"):
        await look_up("127.0.0.1\0.example", 80, ANY_IP)

    assert asked == []


async def test_an_unknown_interface_in_a_scope_is_not_found() -> None:
    """``fe80::1%nosuch`` names no place: the same kind of failure as a name that nobody knows."""
    with pytest.raises(socket.gaierror, match="no interface") as caught:
        await look_up("fe80::1%nosuch0", 80, ANY_IP)

    assert caught.value.errno == socket.EAI_NONAME


async def test_a_name_without_addresses_is_not_found() -> None:
    """A resolver that answers with an empty list has found nothing."""
    names({"peer.example": []})

    with pytest.raises(socket.gaierror, match="no address"):
        await look_up("peer.example", 80, ANY_IP)


# ---- The race ----------------------------------------------------------------------------------


async def test_one_target_that_answers_wins(autojump_clock: Any) -> None:
    """With one address there is no race: the link is the connection, and it knows its peer."""
    network = ScriptedNetwork({"1.1.1.1": Answer(3.0)})

    link = await race([v4("1.1.1.1")], no_options)

    assert link.peer_address() == ("1.1.1.1", 80)
    assert network.log == [(0.0, "try", "1.1.1.1"), (3.0, "connect", "1.1.1.1")]
    assert network.open_sockets() == ["1.1.1.1"]


async def test_attempts_start_a_quarter_second_apart(autojump_clock: Any) -> None:
    """RFC 8305: a silent address is given 0.25 s, then the next one is tried beside it."""
    network = ScriptedNetwork({"::1": NEVER, "1.1.1.1": NEVER, "::2": Answer(1.0)})

    link = await race([v6("::1"), v4("1.1.1.1"), v6("::2")], no_options)

    assert link.peer_address() == ("::2", 80)
    assert network.log == [(0.0, "try", "::1"), (0.25, "try", "1.1.1.1"), (0.5, "try", "::2"), (1.5, "connect", "::2")]
    assert network.open_sockets() == ["::2"]


async def test_a_failure_starts_the_next_attempt_at_once(autojump_clock: Any) -> None:
    """A refused address has said what it has to say: nobody waits for it any longer."""
    network = ScriptedNetwork({"::1": REFUSED, "1.1.1.1": Answer(0.125, errno.ENETUNREACH), "::2": Answer(0.125)})

    link = await race([v6("::1"), v4("1.1.1.1"), v6("::2")], no_options)

    assert link.peer_address() == ("::2", 80)
    assert network.log == [
        (0.0, "try", "::1"),
        (0.0, "fail", "::1"),
        (0.0, "try", "1.1.1.1"),
        (0.125, "fail", "1.1.1.1"),
        (0.125, "try", "::2"),
        (0.25, "connect", "::2"),
    ]
    assert network.open_sockets() == ["::2"]


async def test_an_early_attempt_may_still_win(autojump_clock: Any) -> None:
    """Starting the next one gives up nothing: the first to answer wins, whichever was first to be tried."""
    network = ScriptedNetwork({"::1": Answer(0.375), "1.1.1.1": Answer(1.0), "2.2.2.2": Answer(0.0)})

    link = await race([v6("::1"), v4("1.1.1.1"), v4("2.2.2.2")], no_options)

    assert link.peer_address() == ("::1", 80)
    assert network.log == [(0.0, "try", "::1"), (0.25, "try", "1.1.1.1"), (0.375, "connect", "::1")]
    assert network.open_sockets() == ["::1"]


async def test_of_two_that_answer_in_one_moment_the_loser_is_closed() -> None:
    """Both connections are there before either can be told of the other; one is kept, one is closed."""
    gate = trio.Event()
    network = ScriptedNetwork({"::1": Answer(gate=gate), "1.1.1.1": Answer(gate=gate)})
    links: list[NativeLink] = []

    async def connect() -> None:
        links.append(await race([v6("::1"), v4("1.1.1.1")], no_options, delay=0.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()

    answered = {host for _, happened, host in network.log if happened == "connect"}
    (peer, _, *_) = links[0].peer_address() or ("nobody", 0)
    assert answered == {"::1", "1.1.1.1"}
    assert network.open_sockets() == [peer]


async def test_when_all_fail_every_reason_is_told_in_the_order_they_ended(autojump_clock: Any) -> None:
    """The group has one exception per attempt, each with a note that says which address it was."""
    network = ScriptedNetwork(
        {"::1": Answer(5.0, errno.ETIMEDOUT), "1.1.1.1": REFUSED, "::2": Answer(1.0, errno.ENETUNREACH)}
    )

    with pytest.raises(AttemptsFailed) as caught:
        await race([v6("::1"), v4("1.1.1.1"), v6("::2", 81)], no_options)

    failures = caught.value.exceptions
    assert [failure.errno for failure in failures if isinstance(failure, OSError)] == [
        errno.ECONNREFUSED,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
    ]
    assert [failure.__notes__ for failure in failures] == [
        ["while connecting to 1.1.1.1:80"],
        ["while connecting to [::2]:81"],
        ["while connecting to [::1]:80"],
    ]
    assert network.open_sockets() == []


async def test_a_socket_that_cannot_be_made_is_a_failed_attempt(autojump_clock: Any) -> None:
    """A machine without IPv6 still connects by IPv4."""
    network = ScriptedNetwork({"1.1.1.1": Answer()}, missing={socket.AF_INET6: errno.EAFNOSUPPORT})

    link = await race([v6("::1"), v4("1.1.1.1")], no_options)

    assert link.peer_address() == ("1.1.1.1", 80)
    assert network.log == [(0.0, "try", "1.1.1.1"), (0.0, "connect", "1.1.1.1")]


async def test_cancelling_the_race_closes_every_socket(autojump_clock: Any) -> None:
    """Cancelled means it did not happen: no attempt goes on behind our back."""
    network = ScriptedNetwork({"::1": NEVER, "1.1.1.1": NEVER, "::2": NEVER})

    with trio.move_on_after(0.4) as scope:
        await race([v6("::1"), v4("1.1.1.1"), v6("::2")], no_options)

    assert scope.cancelled_caught
    assert network.log == [(0.0, "try", "::1"), (0.25, "try", "1.1.1.1")]
    assert len(network.sockets) == 2
    assert network.open_sockets() == []


async def test_options_are_set_before_an_attempt_begins() -> None:
    """A receive buffer set later would not count: its size is agreed on with the first packets."""
    network = ScriptedNetwork({"::1": REFUSED, "1.1.1.1": Answer()})
    prepared: list[tuple[Sockaddr, bool]] = []

    def prepare(sock: NativeSocket | trio.socket.SocketType, address: Sockaddr) -> None:
        prepared.append((address, network.sockets[-1].connecting_to is None))

    await race([v6("::1"), v4("1.1.1.1")], prepare)

    assert prepared == [(("::1", 80, 0, 0), True), (("1.1.1.1", 80), True)]


async def test_an_option_that_is_refused_fails_the_attempt_and_closes_its_socket() -> None:
    """What could not be set up is not connected half-way."""
    network = ScriptedNetwork({"1.1.1.1": Answer()})

    def prepare(sock: NativeSocket | trio.socket.SocketType, address: Sockaddr) -> None:
        raise OSError(errno.EINVAL, "no such option")

    with pytest.raises(AttemptsFailed) as caught:
        await race([v4("1.1.1.1")], prepare)

    assert [str(failure) for failure in caught.value.exceptions] == [f"[Errno {errno.EINVAL}] no such option"]
    assert network.log == []
    assert network.open_sockets() == []


async def test_a_bug_is_not_taken_for_a_failed_attempt() -> None:
    """Only the network's errors count as failures; anything else goes out, in the nursery's group."""
    network = ScriptedNetwork({"::1": NEVER, "1.1.1.1": Answer()})

    def prepare(sock: NativeSocket | trio.socket.SocketType, address: Sockaddr) -> None:
        if address[0] == "1.1.1.1":
            raise ZeroDivisionError

    with trio.fail_after(5), pytest.raises(ExceptionGroup) as caught:
        await race([v6("::1"), v4("1.1.1.1")], prepare, delay=0.0)

    assert not isinstance(caught.value, AttemptsFailed)
    assert [type(bug) for bug in caught.value.exceptions] == [ZeroDivisionError]
    assert len(network.sockets) == 2
    assert network.open_sockets() == []


@pytest.mark.parametrize("exc", [KeyboardInterrupt(), SystemExit(3)], ids=["Ctrl-C", "exit"])
async def test_an_interrupt_comes_out_of_the_race_as_itself(exc: BaseException) -> None:
    """``except KeyboardInterrupt`` catches it, though it met an attempt's own task."""
    network = ScriptedNetwork({"::1": NEVER, "1.1.1.1": Answer()})

    def prepare(sock: NativeSocket | trio.socket.SocketType, address: Sockaddr) -> None:
        if address[0] == "1.1.1.1":
            raise exc

    with trio.fail_after(5), pytest.raises(type(exc)) as caught:
        await race([v6("::1"), v4("1.1.1.1")], prepare, delay=0.0)

    assert caught.value is exc
    assert len(network.sockets) == 2
    assert network.open_sockets() == []


async def test_a_peer_that_has_gone_already_is_known_by_the_address_we_asked_for() -> None:
    """The kernel forgets a peer that resets; the link does not."""
    network = ScriptedNetwork({"1.1.1.1": Answer()})
    network.peers_forget = True

    link = await race([v4("1.1.1.1")], no_options)

    assert link.peer_address() == ("1.1.1.1", 80)


async def test_trios_error_does_not_repeat_the_address(network: Network) -> None:
    """trio says "Error connecting to ('127.0.0.1', 9): Connection refused"; who asked knows the first half."""
    async with refusing_port() as port:
        with pytest.raises(AttemptsFailed) as caught:
            await race([v4("127.0.0.1", port)], no_options)

    (failure,) = caught.value.exceptions
    assert isinstance(failure, ConnectionRefusedError)
    assert failure.strerror == "Connection refused"
    assert failure.__notes__ == [f"while connecting to 127.0.0.1:{port}"]


@pytest.mark.parametrize("trio_keeps_it", ["as it does", "elsewhere"])
async def test_who_makes_sockets_is_found_wherever_trio_keeps_it(
    monkeypatch: pytest.MonkeyPatch, trio_keeps_it: str
) -> None:
    """A simulated network's are used, and it is still the one that makes them after that."""
    if trio_keeps_it == "elsewhere":
        monkeypatch.setattr(connect, "MAKER", None)
    targets = [v4("1.1.1.1")]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        real = await race([v4(*listener.getsockname())], no_options)
        network = ScriptedNetwork({"1.1.1.1": Answer()})
        links = [await race(targets, no_options), await race(targets, no_options)]
        real.close()

    assert isinstance(real.native(), KernelSocket)
    assert [link.native() for link in links] == network.sockets
    assert trio.socket.set_custom_socket_factory(None) is network
