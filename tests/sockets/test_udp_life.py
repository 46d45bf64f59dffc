"""The life of a datagram socket: its addresses, its one peer, its states and what they tell, its ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.links.scripted import names
from tests.networks import Loopback, Network
from tests.sockets.datagram_pairs import HOST, bound, bound_pair, connected_pair, drain_now
from tests.sockets.telling import told
from trioqt import (
    BindMode,
    BytesWritten,
    Connected,
    Disconnected,
    ErrorKind,
    ErrorOccurred,
    Event,
    HostAddress,
    HostFound,
    NetworkLayerProtocol,
    ReadChannelFinished,
    ReadyRead,
    SocketError,
    SocketState,
    StateChanged,
    UdpSocket,
)

UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, LISTENING, CLOSING = SocketState

CONNECTS: list[Event] = [StateChanged(HOST_LOOKUP), StateChanged(CONNECTING), HostFound()]
IS_CONNECTED: list[Event] = [StateChanged(CONNECTED), Connected()]
ENDS: list[Event] = [StateChanged(CLOSING), StateChanged(UNCONNECTED), ReadChannelFinished(), Disconnected()]


# ---- an address --------------------------------------------------------------------------------


async def test_a_new_socket_has_nothing(network: Network) -> None:
    """U-001."""
    async with UdpSocket() as sock:
        assert (sock.state(), sock.error(), sock.error_string()) == (UNCONNECTED, None, "")
        assert not sock.is_valid()
        assert (sock.local_address(), sock.local_port()) == (HostAddress.NULL, 0)
        assert (sock.peer_address(), sock.peer_port(), sock.peer_name()) == (HostAddress.NULL, 0, "")
        assert sock.socket_descriptor() == -1


@pytest.mark.parametrize(
    "host", [HOST, "127.1.2.3", "::1", HostAddress.ANY_IPV4, HostAddress.ANY_IPV6, HostAddress.ANY, "host.example"]
)
async def test_it_is_bound_to_an_address_of_this_machine(network: Network, host: HostAddress | str) -> None:
    """U-003, U-004."""
    names({"host.example": ["127.9.9.9"]})
    async with UdpSocket() as sock:
        async with told(sock) as events:
            await sock.bind(host)

        assert events == [StateChanged(BOUND)]
        assert (sock.state(), sock.is_valid(), sock.error()) == (BOUND, True, None)
        assert sock.local_address() == HostAddress("127.9.9.9" if host == "host.example" else host)
        assert sock.local_port() > 0
        assert sock.socket_descriptor() > 0
        assert (sock.peer_address(), sock.peer_port()) == (HostAddress.NULL, 0)


async def test_an_address_that_cannot_be_had(network: Network) -> None:
    """U-005: in use, or not of this machine; told, and the socket is as it was."""
    async with bound() as first, UdpSocket() as second:
        kinds = []
        async with told(second) as events:
            for address, port in ((HOST, first.local_port()), ("203.0.113.7", 0)):
                with pytest.raises(SocketError) as caught:
                    await second.bind(address, port)
                kinds.append((caught.value.kind, caught.value.message))

        assert [kind for kind, _ in kinds] == [ErrorKind.ADDRESS_IN_USE, ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE]
        assert events == [ErrorOccurred(*kind) for kind in kinds]
        assert second.state() is UNCONNECTED
        await second.bind(HOST)


async def test_a_second_bind_is_refused_and_the_first_stays(network: Network) -> None:
    """U-006."""
    async with bound() as sock:
        port = sock.local_port()
        with pytest.raises(SocketError) as caught:
            await sock.bind(HOST)

        assert caught.value.kind is ErrorKind.OPERATION
        assert (sock.state(), sock.local_port()) == (BOUND, port)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        (None, None, False),
        (BindMode.SHARE_ADDRESS, BindMode.SHARE_ADDRESS, True),
        (BindMode.SHARE_ADDRESS, BindMode.REUSE_ADDRESS_HINT, True),
        (BindMode.SHARE_ADDRESS, None, False),
        (BindMode.DONT_SHARE_ADDRESS, BindMode.SHARE_ADDRESS, False),
    ],
)
async def test_a_port_is_shared_if_both_say_so(
    network: Network, first: BindMode | None, second: BindMode | None, shared: bool
) -> None:
    """U-008, U-009: and then the later one gets the datagrams."""
    async with UdpSocket() as one, UdpSocket() as two, UdpSocket() as sender:
        await one.bind(HOST, 0, first)
        port = one.local_port()
        if not shared:
            with pytest.raises(SocketError) as caught:
                await two.bind(HOST, port, second)
            assert caught.value.kind is ErrorKind.ADDRESS_IN_USE
            return
        await two.bind(HOST, port, second)
        sender.write_datagram(b"x", HOST, port)

        assert not one.has_pending_datagrams()
        assert [datagram.data for datagram in drain_now(two)] == [b"x"]


async def test_it_is_bound_again_after_an_end(network: Network) -> None:
    """U-007: as often as one likes, until it is closed."""
    async with UdpSocket() as sock:
        for end in (sock.disconnect_from_host, _abort(sock), sock.disconnect_from_host):
            await sock.bind(HOST)
            await end()
            assert (sock.state(), sock.local_port(), sock.socket_descriptor()) == (UNCONNECTED, 0, -1)


def _abort(sock: UdpSocket) -> Callable[[], Awaitable[None]]:
    async def abort() -> None:
        sock.abort()

    return abort


# ---- one peer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "peer.example"])
async def test_it_gets_a_peer_without_a_packet(network: Network, host: str) -> None:
    """U-030: the states of any connection, though nobody need be there."""
    names({"peer.example": [HOST]})
    async with UdpSocket() as sock:
        async with told(sock) as events:
            await sock.connect_to_host(host, 9)

        assert events == CONNECTS + IS_CONNECTED
        assert (sock.state(), sock.is_valid()) == (CONNECTED, True)
        address = HostAddress(HOST) if host == "peer.example" else HostAddress(host)
        assert (sock.peer_address(), sock.peer_port(), sock.peer_name()) == (address, 9, host)
        assert sock.local_address() == address
        assert sock.local_port() > 0


async def test_a_bound_socket_keeps_its_port(network: Network) -> None:
    """U-037: and its descriptor; one for both families reaches either."""
    for own, host in ((HOST, HOST), (HostAddress.ANY, HOST), (HostAddress.ANY, "::1"), ("::1", "::1")):
        async with bound(own) as sock, bound(host) as peer:
            port, descriptor = sock.local_port(), sock.socket_descriptor()
            await sock.connect_to_host(host, peer.local_port())

            assert (sock.local_port(), sock.socket_descriptor()) == (port, descriptor)
            assert sock.local_address() == HostAddress(host)
            sock.write(b"x")
            datagram = await peer.receive_datagram()
            peer.write_datagram(datagram.make_reply(b"y"))
            assert await sock.wait_for_ready_read()
            assert sock.read_all() == b"y"


@pytest.mark.parametrize("host", ["nobody.example", "::1"])
async def test_a_peer_that_cannot_be_reached(network: Network, host: str) -> None:
    """No address, or none of the family that was bound: UNCONNECTED, told, and nothing is bound any more."""
    names({})
    async with bound() as sock:
        async with told(sock) as events:
            with pytest.raises(SocketError) as caught:
                await sock.connect_to_host(host, 9)

        kind = ErrorKind.HOST_NOT_FOUND if host == "nobody.example" else ErrorKind.CONNECTION_REFUSED
        assert caught.value.kind is kind
        found = [] if host == "nobody.example" else CONNECTS[1:]
        assert events == [
            StateChanged(HOST_LOOKUP),
            *found,
            StateChanged(UNCONNECTED),
            ErrorOccurred(kind, caught.value.message),
        ]
        assert (sock.state(), sock.local_port(), sock.error()) == (UNCONNECTED, 0, kind)


@pytest.mark.parametrize("is_bound", [False, True])
async def test_a_peer_at_port_0_is_one_at_which_nobody_is(network: Network, is_bound: bool) -> None:
    """As with Qt: no packet is sent, so there is no error; what is written then is refused as at any other port."""
    async with UdpSocket() as sock:
        if is_bound:
            await sock.bind(HOST)
        async with told(sock) as events:
            await sock.connect_to_host(HOST, 0)
        assert events == [*CONNECTS, *IS_CONNECTED]
        assert (sock.state(), sock.peer_address(), sock.peer_port()) == (CONNECTED, HostAddress(HOST), 0)

        sock.write(b"x")
        with pytest.raises(SocketError) as caught:
            await sock.receive_datagram()
        assert caught.value.kind is ErrorKind.CONNECTION_REFUSED


async def test_the_second_address_is_used_if_the_first_cannot_be(network: Network) -> None:
    """One after the other; there is nobody to wait for."""
    names({"peer.example": ["::1", HOST]})
    async with bound() as sock:
        await sock.connect_to_host("peer.example", 9)

        assert sock.peer_address() == HostAddress(HOST)


async def test_a_protocol_can_be_asked_for(network: Network) -> None:
    """Only such addresses are used; UNKNOWN is none."""
    names({"peer.example": ["::1", HOST]})
    async with UdpSocket() as sock:
        await sock.connect_to_host("peer.example", 9, protocol=NetworkLayerProtocol.IPV4)
        assert sock.peer_address() == HostAddress(HOST)
    async with UdpSocket() as sock:
        with pytest.raises(ValueError, match="known"):
            await sock.connect_to_host(HOST, 9, protocol=NetworkLayerProtocol.UNKNOWN)
        with pytest.raises(TypeError):
            await sock.connect_to_host(HOST, 9, protocol="IPV4")  # type: ignore[arg-type]


async def test_a_second_attempt_is_refused_aloud(network: Network) -> None:
    """As of any socket."""
    async with UdpSocket() as sock:
        await sock.connect_to_host(HOST, 9)
        async with told(sock) as events:
            with pytest.raises(SocketError) as caught:
                await sock.connect_to_host(HOST, 10)

        assert caught.value.kind is ErrorKind.OPERATION
        assert events == [ErrorOccurred(ErrorKind.OPERATION, caught.value.message)]
        assert sock.peer_port() == 9


async def test_an_attempt_that_has_begun_can_be_waited_for(network: Network, nursery: trio.Nursery) -> None:
    """By ``wait_for_connected`` and ``wait_for_ready_read``; what needs an address is refused meanwhile (U-062)."""
    names({"peer.example": [HOST]})
    async with UdpSocket() as sock, bound() as peer:
        peer_port = peer.local_port()
        got: list[Any] = []

        async def wait() -> None:
            got.append(await sock.wait_for_ready_read())

        await nursery.start(sock.connect_to_host, "peer.example", peer_port)
        assert sock.state() is HOST_LOOKUP
        with pytest.raises(SocketError) as write:
            sock.write(b"x")
        with pytest.raises(SocketError) as write_datagram:
            sock.write_datagram(b"x", HOST, 9)
        assert [caught.value.kind for caught in (write, write_datagram)] == [ErrorKind.OPERATION] * 2
        nursery.start_soon(wait)
        await sock.wait_for_connected()
        peer.write_datagram(b"x", HOST, sock.local_port())
        await trio.testing.wait_all_tasks_blocked()

        assert got == [True]
        assert sock.read_all() == b"x"


@pytest.mark.parametrize("end", ["disconnect_from_host", "abort", "cancel"])
async def test_an_attempt_that_is_dropped(network: Network, nursery: trio.Nursery, end: str) -> None:
    """Whoever does it, and what had been bound is given back."""
    waiting = trio.Event()

    class Slow(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
            waiting.set()
            await trio.sleep_forever()

        async def getnameinfo(self, *args: Any) -> Any:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Slow())
    outcome: list[BaseException | None] = []
    async with bound() as sock:
        scope = trio.CancelScope()

        async def connect() -> None:
            with scope:
                try:
                    await sock.connect_to_host("slow.example", 9)
                except BaseException as exc:
                    outcome.append(exc)
                    raise
                outcome.append(None)

        async def run() -> None:
            try:
                await connect()
            except trio.ClosedResourceError:
                pass

        async with told(sock) as events:
            nursery.start_soon(run)
            await waiting.wait()
            if end == "cancel":
                scope.cancel()
            elif end == "abort":
                sock.abort()
            else:
                await sock.disconnect_from_host()
            await trio.testing.wait_all_tasks_blocked()

        assert sock.state() is UNCONNECTED
        assert sock.socket_descriptor() == -1
        finished = [] if end == "cancel" else [ReadChannelFinished()]
        assert events == [StateChanged(HOST_LOOKUP), StateChanged(UNCONNECTED), *finished]
        assert isinstance(outcome[0], trio.Cancelled if end == "cancel" else (trio.ClosedResourceError, trio.Cancelled))


# ---- ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [False, True], ids=["bound", "connected"])
@pytest.mark.parametrize("end", ["disconnect_from_host", "abort", "aclose", "block"])
async def test_each_end_tells_what_it_tells_of_any_socket(network: Network, peer: bool, end: str) -> None:
    """U-038: all of it in order, and less by ``abort`` of what was only bound."""
    sock = UdpSocket()
    async with sock.events() as subscription:
        async with sock:
            await sock.bind(HOST)
            if peer:
                await sock.connect_to_host(HOST, 9)
            if end == "abort":
                sock.abort()
            elif end != "block":
                await getattr(sock, end)()
            assert end == "block" or sock.state() is UNCONNECTED
        events = [event async for event in subscription]

    expected: list[Event] = [StateChanged(BOUND)]
    if peer:
        expected += CONNECTS + IS_CONNECTED
    if end == "abort":
        expected += [StateChanged(UNCONNECTED), ReadChannelFinished(), *([Disconnected()] if peer else [])]
    else:
        expected += ENDS
    assert events == expected


async def test_what_had_arrived_can_be_read_after_the_end(network: Network) -> None:
    """All that the system held, more than a batch of it; then there is nothing, and a receive says why."""
    async with bound_pair() as (receiver, sender):
        for number in range(150):
            sender.write_datagram(bytes([number]), HOST, receiver.local_port())
        await receiver.disconnect_from_host()

        assert receiver.state() is UNCONNECTED
        first = await receiver.receive_datagram()
        assert [first.data[0], *(datagram.data[0] for datagram in drain_now(receiver))] == list(range(150))
        with pytest.raises(SocketError) as caught:
            await receiver.receive_datagram()
        assert caught.value.kind is ErrorKind.OPERATION


async def test_an_abort_drops_what_had_arrived(network: Network) -> None:
    """Nothing is left, as of a connection."""
    async with bound_pair() as (receiver, sender):
        for _ in range(2):
            sender.write_datagram(b"x", HOST, receiver.local_port())
            receiver.has_pending_datagrams()
        receiver.abort()

        assert not receiver.has_pending_datagrams()


@pytest.mark.parametrize("end", ["abort", "disconnect_from_host", "aclose"])
async def test_who_waits_wakes_when_another_task_ends_it(network: Network, nursery: trio.Nursery, end: str) -> None:
    """With ``ClosedResourceError``, in every call that waits."""
    for call in ("receive_datagram", "__anext__", "wait_for_ready_read"):
        woken: list[str] = []
        async with bound() as sock:

            async def wait(sock: UdpSocket = sock, call: str = call, woken: list[str] = woken) -> None:
                try:
                    await getattr(sock, call)()
                except trio.ClosedResourceError:
                    woken.append(call)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            if end == "abort":
                sock.abort()
            else:
                await getattr(sock, end)()
            await trio.testing.wait_all_tasks_blocked()

        assert woken == [call]


async def test_what_arrives_in_the_step_of_the_end_is_not_lost(network: Network, nursery: trio.Nursery) -> None:
    """The task that waits gets it, though the socket is unconnected by then."""
    async with bound_pair() as (receiver, sender):
        got: list[bytes] = []

        async def receive() -> None:
            got.append((await receiver.receive_datagram()).data)

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        sender.write_datagram(b"x", HOST, receiver.local_port())
        await receiver.disconnect_from_host()
        await trio.testing.wait_all_tasks_blocked()

        assert got == [b"x"]


async def test_nobody_waits_for_the_end_in_vain(network: Network, nursery: trio.Nursery) -> None:
    """``wait_for_disconnected``, of what is bound and of what is connected."""
    async with bound() as sock:
        ended = []

        async def wait() -> None:
            await sock.wait_for_disconnected()
            ended.append(sock.state())

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == []
        sock.abort()
        await trio.testing.wait_all_tasks_blocked()

        assert ended == [UNCONNECTED]


CALLS: dict[str, tuple[Any, ...]] = {
    "bind": (HOST,),
    "connect_to_host": (HOST, 9),
    "receive_datagram": (),
    "__anext__": (),
    "wait_for_ready_read": (),
    "send_datagram": (b"x", HOST, 9),
    "wait_for_bytes_written": (),
    "read_datagram": (),
    "has_pending_datagrams": (),
    "write_datagram": (b"x", HOST, 9),
    "write": (b"x",),
    "read": (1,),
    "join_multicast_group": ("239.1.2.3",),
    "leave_multicast_group": ("239.1.2.3",),
    "set_multicast_interface": ("lo",),
    "multicast_interface": (),
}


@pytest.mark.parametrize("call", CALLS)
async def test_after_its_block_it_is_closed(network: Network, call: str) -> None:
    """Every call that needs it says so."""
    async with bound() as sock:
        pass

    with pytest.raises(trio.ClosedResourceError):
        result = getattr(sock, call)(*CALLS[call])
        if result is not None:
            await result


@pytest.mark.parametrize("call", ["connect_to_host", "receive_datagram", "__anext__", "send_datagram", "aclose"])
async def test_a_task_that_is_cancelled_with_the_block_is_cancelled(network: Network, call: str) -> None:
    """Also if its first turn comes when the socket is closed already: that is no mistake of its."""
    ended: list[str] = []

    async def begin(sock: UdpSocket) -> None:
        try:
            await getattr(sock, call)(*CALLS.get(call, ()))
        except trio.Cancelled:
            ended.append("cancelled")
            raise
        except (trio.ClosedResourceError, SocketError) as exc:
            ended.append(type(exc).__name__)

    async with trio.open_nursery() as nursery:
        async with bound() as sock:
            pass
        nursery.cancel_scope.cancel()
        nursery.start_soon(begin, sock)

    assert ended == ["cancelled"]


async def test_without_a_block_it_does_not_work(network: Network) -> None:
    """A socket needs a scope, or a parent's nursery."""
    sock = UdpSocket()
    for call in (sock.bind(HOST), sock.connect_to_host(HOST, 9), sock.send_datagram(b"", HOST, 9)):
        with pytest.raises(SocketError) as caught:
            await call
        assert caught.value.kind is ErrorKind.OPERATION


async def test_a_parents_nursery_holds_it(network: Network) -> None:
    """And once that has ended it is closed."""
    async with trio.open_nursery() as parent:
        sock = UdpSocket(parent)
        await sock.bind(HOST)
        sock.write_datagram(b"x", HOST, sock.local_port())
        assert (await sock.receive_datagram()).data == b"x"

    with pytest.raises(trio.ClosedResourceError):
        await sock.receive_datagram()
    assert sock.state() is UNCONNECTED


@pytest.mark.parametrize("watched", [False, True])
async def test_a_parents_nursery_that_is_cancelled_ends(network: Network, watched: bool) -> None:
    """Whoever listens: no task of the socket keeps it."""
    events: list[Event] = []
    with trio.move_on_after(5) as limit:
        async with trio.open_nursery() as nursery, trio.open_nursery() as parent:
            sock = UdpSocket(parent)
            await sock.bind(HOST)

            async def listen() -> None:
                async with sock.events() as subscription:
                    async for event in subscription:
                        events.append(event)

            if watched:
                nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            parent.cancel_scope.cancel()

    assert not limit.cancelled_caught
    assert sock.state() is UNCONNECTED
    if watched:
        assert events == [StateChanged(UNCONNECTED), ReadChannelFinished()]


async def test_the_bodys_exception_goes_out_as_it_is(network: Network) -> None:
    """Not in a group, and the address is given back."""
    sock = UdpSocket()
    with pytest.raises(ZeroDivisionError):
        async with sock, sock.events():
            await sock.bind(HOST)
            raise ZeroDivisionError

    assert sock.state() is UNCONNECTED


# ---- who watches -------------------------------------------------------------------------------


async def test_who_listens_is_told_what_comes(network: Network) -> None:
    """Those that wait unread are one nudge; what is sent adds up."""
    async with bound_pair() as (receiver, sender):
        async with told(sender) as sent, told(receiver) as received:
            for data in (b"one", b"", b"three"):
                sender.write_datagram(data, HOST, receiver.local_port())
            await trio.testing.wait_all_tasks_blocked()

        assert sent == [BytesWritten(8)]
        assert received == [ReadyRead()]
        assert [datagram.data for datagram in drain_now(receiver)] == [b"one", b"", b"three"]


async def test_who_listens_late_is_told_what_is_there(network: Network) -> None:
    """What has arrived already is told first."""
    async with bound_pair() as (receiver, sender):
        sender.write_datagram(b"x", HOST, receiver.local_port())
        async with told(receiver) as events:
            pass

        assert events == [ReadyRead()]


async def test_ready_read_is_told_once_until_something_is_taken(network: Network, nursery: trio.Nursery) -> None:
    """U-023, U-024: not for what comes meanwhile, nor for a look at it; after a read it is, if more is there."""
    async with bound_pair() as (receiver, sender):
        told_of: list[Event] = []

        async def listen(*, task_status: trio.TaskStatus[None]) -> None:
            async with receiver.events(ReadyRead) as events:
                task_status.started()
                async for event in events:
                    told_of.append(event)

        await nursery.start(listen)
        counts = []
        for step in ("send", "send", "look", "read", "read", "send"):
            if step == "send":
                sender.write_datagram(b"x", HOST, receiver.local_port())
            elif step == "look":
                assert receiver.pending_datagram_size() == 1
            else:
                assert receiver.read_datagram() is not None
            await trio.testing.wait_all_tasks_blocked()
            counts.append(len(told_of))

        assert counts == [1, 1, 1, 2, 2, 3]


async def test_a_listener_that_takes_one_at_a_time_gets_them_all(network: Network) -> None:
    """U-025: after a read that leaves some it is told again, so nothing stalls, however many come at once."""
    async with bound_pair() as (receiver, sender):
        got: list[int] = []
        async with receiver.events(ReadyRead) as events:
            for number in range(200):
                sender.write_datagram(bytes([number]), HOST, receiver.local_port())
            async for _ in events:
                datagram = receiver.read_datagram()
                if datagram is not None:
                    got.append(datagram.data[0])
                if len(got) == 200:
                    break

        assert got == list(range(200))


async def test_a_receiver_and_a_listener_do_not_disturb_each_other(network: Network, nursery: trio.Nursery) -> None:
    """The receiver gets every datagram, in order, whoever was there first."""
    async with bound_pair() as (receiver, sender):
        got: list[int] = []

        async def receive() -> None:
            async for datagram in receiver:
                got.append(datagram.data[0])

        nursery.start_soon(receive)
        number = 0
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()
            async with receiver.events():
                for _ in range(3):
                    sender.write_datagram(bytes([number]), HOST, receiver.local_port())
                    number += 1
                    await trio.testing.wait_all_tasks_blocked()
            sender.write_datagram(bytes([number]), HOST, receiver.local_port())
            number += 1
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert got == list(range(number))


async def test_a_socket_that_nobody_watches_has_no_task(network: Network) -> None:
    """Nobody watching costs nothing."""
    async with bound() as sock:
        assert sock._home is not None
        assert len(sock._home.child_tasks) == 0
        async with sock.events():
            assert len(sock._home.child_tasks) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert len(sock._home.child_tasks) == 0


# ---- descriptors -------------------------------------------------------------------------------


async def test_a_bound_descriptor_is_adopted(network: Loopback) -> None:
    """U-056: and everything is known of what arrives there, its destination too."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw.bind((HOST, 0))
    port = raw.getsockname()[1]
    async with UdpSocket() as sock, UdpSocket() as sender:
        async with told(sock) as events:
            sock.set_socket_descriptor(raw.detach(), BOUND)
        sender.write_datagram(b"x", HOST, port)
        datagram = await sock.receive_datagram()

        assert events == [StateChanged(BOUND)]
        assert (sock.local_address(), sock.local_port()) == (HostAddress(HOST), port)
        assert (datagram.destination_address, datagram.destination_port) == (HostAddress(HOST), port)


async def test_a_connected_descriptor_is_adopted(network: Loopback) -> None:
    """With its peer."""
    async with bound() as peer, UdpSocket() as sock:
        raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        raw.connect((HOST, peer.local_port()))
        async with told(sock) as events:
            sock.set_socket_descriptor(raw.detach())
        sock.write(b"x")

        assert events == [StateChanged(CONNECTED)]
        assert (sock.peer_address(), sock.peer_port()) == (HostAddress(HOST), peer.local_port())
        assert (await peer.receive_datagram()).data == b"x"


async def test_what_is_no_such_descriptor_is_refused(network: Loopback) -> None:
    """It stays the caller's; a stream, an unbound one, one in the other state, and none at all."""
    stream, unbound = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind((HOST, 0))
    with stream, unbound, taken:
        async with UdpSocket() as sock:
            for descriptor, state in (
                (stream.fileno(), BOUND),
                (unbound.fileno(), BOUND),
                (taken.fileno(), CONNECTED),
                (10**6, BOUND),
                (2**40, BOUND),
            ):
                with pytest.raises(SocketError) as caught:
                    sock.set_socket_descriptor(descriptor, state)
                assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
                assert (sock.error(), sock.state()) == (ErrorKind.UNSUPPORTED_SOCKET_OPERATION, UNCONNECTED)
            with pytest.raises(ValueError, match="adopted"):
                sock.set_socket_descriptor(taken.fileno(), UNCONNECTED)
            sock.set_socket_descriptor(taken.detach(), BOUND)
            with pytest.raises(SocketError) as caught:
                sock.set_socket_descriptor(unbound.fileno(), BOUND)
            assert caught.value.kind is ErrorKind.OPERATION


async def test_a_socket_whose_descriptor_somebody_has_closed_is_lost(network: Loopback) -> None:
    """By whatever call finds it; from then on each says so."""
    async with bound() as waiting, bound() as reading:
        for sock in (waiting, reading):
            os.close(sock.socket_descriptor())
        assert reading.read_datagram() is None
        for sock in (waiting, reading):
            with pytest.raises(SocketError) as caught:
                await sock.receive_datagram()

            assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
            assert (sock.state(), sock.error()) == (UNCONNECTED, ErrorKind.UNSUPPORTED_SOCKET_OPERATION)


@pytest.mark.parametrize("end", ["disconnect_from_host", "abort", "aclose", "block"])
async def test_so_it_ends_without_another_word(network: Loopback, end: str) -> None:
    """Whoever closed the descriptor has done what was to be done; also for who listens."""
    async with bound() as sock, sock.events():
        os.close(sock.socket_descriptor())
        if end == "abort":
            sock.abort()
        elif end != "block":
            await getattr(sock, end)()

    assert sock.state() is UNCONNECTED


async def test_a_lost_socket_that_is_iterated_ends(network: Loopback) -> None:
    """The iteration is deaf to news of others, and not to this."""
    async with connected_pair() as (first, _):
        os.close(first.socket_descriptor())
        with pytest.raises(SocketError):
            async for _ in first:
                pass
