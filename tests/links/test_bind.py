"""Taking a local address: one socket, or several on one port."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
import trio
import trio.testing

from tests.links.scripted import ScriptedNetwork, ScriptedSocket
from tests.networks import Network
from trioqt.links.base import NativeSocket, Sockaddr
from trioqt.links.bind import any_target, bind_socket, listen_on
from trioqt.links.connect import Target
from trioqt.links.native import NativeListener

LOCAL_V4 = Target(socket.AF_INET, ("127.0.0.1", 0))
LOCAL_V6 = Target(socket.AF_INET6, ("::1", 0, 0, 0))


def close_all(listeners: list[NativeListener]) -> None:
    for listener in listeners:
        listener.close()


# ---- One socket --------------------------------------------------------------------------------


async def test_options_are_set_before_the_address_is_taken() -> None:
    """Sharing an address has to be said before it is bound; afterwards the kernel does not listen."""
    network = BindingNetwork()
    options = ((socket.SOL_SOCKET, socket.SO_REUSEADDR, 1), (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1))

    await bind_socket(LOCAL_V4, options)

    (sock,) = network.bound
    assert sock.options_when_bound == list(options)
    assert sock.bound_to == ("127.0.0.1", 0)


@pytest.mark.parametrize(("dual_stack", "v6_only"), [(False, 1), (True, 0)])
async def test_an_ipv6_socket_carries_ipv4_only_if_asked(network: Network, dual_stack: bool, v6_only: int) -> None:
    """What the system would choose is a setting of the machine, so it is always said."""
    target = Target(socket.AF_INET6, ("::", 0, 0, 0))

    sock = await bind_socket(target, (), dual_stack=dual_stack)

    with sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == v6_only


async def test_a_socket_whose_address_is_refused_is_closed() -> None:
    """The system's error comes out as it is, and nothing stays open."""
    network = BindingNetwork(errors=[errno.EADDRINUSE])

    with pytest.raises(OSError) as caught:
        await bind_socket(LOCAL_V4, ())

    assert caught.value.errno == errno.EADDRINUSE
    assert len(network.sockets) == 1
    assert network.open_sockets() == []


async def test_cancelled_bind_closes_its_socket() -> None:
    """Cancelled: nothing was taken."""
    network = BindingNetwork()

    with trio.CancelScope() as scope:
        scope.cancel()
        await bind_socket(LOCAL_V4, ())

    assert scope.cancelled_caught
    assert len(network.sockets) == 1
    assert network.open_sockets() == []


async def test_binding_is_a_checkpoint(network: Network) -> None:
    """It asks a kernel that answers at once, and still lets others run."""
    with trio.testing.assert_checkpoints():
        sock = await bind_socket(LOCAL_V4, ())

    sock.close()


# ---- Every address -----------------------------------------------------------------------------


async def test_every_address_is_one_ipv6_socket(network: Network) -> None:
    """``::`` with IPv4 carried along: one socket, one port, both families."""
    assert any_target(4000) == Target(socket.AF_INET6, ("::", 4000, 0, 0))


async def test_every_address_is_ipv4_on_a_machine_without_ipv6() -> None:
    """A kernel may lack what Python was built with; then there is only one family to listen on."""
    ScriptedNetwork({}, missing={socket.AF_INET6: errno.EAFNOSUPPORT})

    assert any_target(4000) == Target(socket.AF_INET, ("0.0.0.0", 4000))


async def test_a_machine_out_of_descriptors_does_not_lack_ipv6() -> None:
    """Only one error means "no such family"; any other is for the bind that follows to tell."""
    ScriptedNetwork({}, missing={socket.AF_INET6: errno.EMFILE})

    assert any_target(4000) == Target(socket.AF_INET6, ("::", 4000, 0, 0))


# ---- Listening ---------------------------------------------------------------------------------


async def test_all_targets_listen_on_the_port_that_was_chosen_for_the_first(network: Network) -> None:
    """Port 0 on a name with two addresses: one port, or clients could not be told where to go."""
    listeners = await listen_on([LOCAL_V4, LOCAL_V6], 10)

    addresses = [listener.local_address() for listener in listeners]
    close_all(listeners)
    assert [address[0] for address in addresses] == ["127.0.0.1", "::1"]
    assert addresses[0][1] == addresses[1][1] > 0


async def test_listening_sockets_are_shared_with_nobody(network: Network) -> None:
    """But a server may come back while its old connections linger."""
    (listener,) = await listen_on([LOCAL_V4], 10)

    native = listener.native()
    reuse_address = native.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    reuse_port = native.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    listening = native.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    listener.close()
    assert (reuse_address != 0, reuse_port, listening) == (True, 0, 1)


async def test_each_listening_socket_is_prepared_before_its_address_is_taken(network: Network) -> None:
    """What must be so before bind, as SO_BINDTODEVICE, can be set there; the port is not known yet."""
    prepared: list[Any] = []

    def prepare(sock: NativeSocket | trio.socket.SocketType, address: Sockaddr) -> None:
        prepared.append((sock.getsockname()[1], address[0]))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    (listener,) = await listen_on([LOCAL_V4], 10, prepare=prepare)

    low_delay = listener.native().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    listener.close()
    assert (prepared, low_delay) == ([(0, "127.0.0.1")], 1)


async def test_a_socket_that_cannot_be_prepared_is_closed() -> None:
    """The failure goes out, and of several sockets none stays open."""
    network = BindingNetwork(errors=[0, 0])

    def prepare(sock: NativeSocket | trio.socket.SocketType, address: Sockaddr) -> None:
        if address[0] == "::1":
            raise OSError(errno.EPERM, "not you")

    with pytest.raises(OSError, match="not you"):
        await listen_on([LOCAL_V4, LOCAL_V6], 10, prepare=prepare)

    assert network.open_sockets() == []


async def test_a_port_that_is_in_use_for_the_second_target_is_drawn_again() -> None:
    """A random port that is free for IPv4 may be taken for IPv6; another draw settles it."""
    network = BindingNetwork(errors=[0, errno.EADDRINUSE, 0, errno.EADDRINUSE, 0, 0])

    listeners = await listen_on([LOCAL_V4, LOCAL_V6], 10)

    assert [sock.bound_to for sock in network.bound] == [
        ("127.0.0.1", 0),
        ("::1", 50_001, 0, 0),
        ("127.0.0.1", 0),
        ("::1", 50_003, 0, 0),
        ("127.0.0.1", 0),
        ("::1", 50_005, 0, 0),
    ]
    assert [listener.local_address()[1] for listener in listeners] == [50_005, 50_005]
    assert len(network.open_sockets()) == 2


async def test_draws_end() -> None:
    """After sixteen draws in vain something else is wrong, and is told; no socket stays open."""
    network = BindingNetwork(errors=[0, errno.EADDRINUSE] * 16)

    with pytest.raises(OSError) as caught:
        await listen_on([LOCAL_V4, LOCAL_V6], 10)

    assert caught.value.errno == errno.EADDRINUSE
    assert len(network.bound) == 32
    assert network.open_sockets() == []


@pytest.mark.parametrize(
    ("targets", "error"),
    [
        ([LOCAL_V4], errno.EADDRINUSE),
        ([LOCAL_V4, LOCAL_V6], errno.EACCES),
        ([Target(socket.AF_INET, ("127.0.0.1", 4000)), LOCAL_V6], errno.EADDRINUSE),
    ],
)
async def test_other_failures_are_told_at_once(targets: list[Target], error: int) -> None:
    """Drawing again helps only where the port was random and the second address was in its way."""
    network = BindingNetwork(errors=[error])

    with pytest.raises(OSError) as caught:
        await listen_on(targets, 10)

    assert caught.value.errno == error
    assert len(network.bound) == 1
    assert network.open_sockets() == []


@pytest.mark.parametrize("error", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
async def test_of_several_addresses_those_of_a_family_that_the_host_lacks_are_left_out(error: int) -> None:
    """The name localhost stands for ::1 too, on machines whose IPv6 is switched off."""
    network = BindingNetwork(errors=[error, 0])

    listeners = await listen_on([LOCAL_V6, LOCAL_V4], 10)

    assert [listener.local_address()[0] for listener in listeners] == ["127.0.0.1"]
    assert len(network.bound) == 2
    assert len(network.open_sockets()) == 1


async def test_a_name_whose_addresses_the_host_lacks_all_cannot_be_listened_on() -> None:
    """Then the last reason is told, and no socket stays open."""
    network = BindingNetwork(errors=[errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])

    with pytest.raises(OSError) as caught:
        await listen_on([LOCAL_V6, LOCAL_V4], 10)

    assert caught.value.errno == errno.EAFNOSUPPORT
    assert network.open_sockets() == []


async def test_cancelled_listening_closes_every_socket() -> None:
    """Cancelled between the first address and the second: neither stays taken."""
    network = BindingNetwork()

    with trio.CancelScope() as scope:
        network.on_bind = lambda sock: scope.cancel() if len(network.bound) == 1 else None
        await listen_on([LOCAL_V4, LOCAL_V6], 10)

    assert scope.cancelled_caught
    assert len(network.sockets) == 2
    assert network.open_sockets() == []


class BindingSocket(ScriptedSocket):
    """Takes any address, unless the script says otherwise."""

    network: BindingNetwork
    bound_to: Any = None
    options_when_bound: list[tuple[int, int, int]]

    async def bind(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.bound_to = address
        self.options_when_bound = list(self.options)
        self.network.bound.append(self)
        self.network.on_bind(self)
        error = self.network.errors.pop(0) if self.network.errors else 0
        if error:
            raise OSError(error, "as the script says")

    def listen(self, backlog: int = 0) -> None:
        """Nobody will come."""

    def getsockname(self) -> Any:
        # A port that was left to the system: another one for each socket.
        host, port, *scope = self.bound_to
        return (host, port or 50_000 + self.network.bound.index(self) + 1, *scope)


class BindingNetwork(ScriptedNetwork):
    """Sockets that bind, each with the next of the errors; 0 is none."""

    def __init__(self, *, errors: list[int] | None = None) -> None:
        super().__init__({})
        self.errors = errors or []
        self.bound: list[BindingSocket] = []
        self.on_bind: Any = lambda sock: None

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> BindingSocket:
        sock = BindingSocket(self, family)
        self.sockets.append(sock)
        return sock
