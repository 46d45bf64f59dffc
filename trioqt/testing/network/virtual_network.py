"""A network made of memory, on trio's clock: hosts, names, links and what goes wrong between them.

It plugs in below trio, through trio's two public hooks, so every program on trio runs on it unchanged.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import math
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence, Set
from types import TracebackType
from typing import Any, Literal, Self

import attrs
import trio
import trio.testing

from trioqt.core.addresses import AddressLike, HostAddress, host_address
from trioqt.core.errors import keeping, raise_bare
from trioqt.core.hints import AsyncBlock
from trioqt.links.interrupts import protected
from trioqt.links.machine import set_machine
from trioqt.sockets.survived_bugs import take_bugs
from trioqt.testing.network.fabric import Conditions, Fabric, Path
from trioqt.testing.network.fault_plan import Course, FaultPlan
from trioqt.testing.network.faults import (
    Crash,
    Fault,
    Hold,
    HostState,
    LinkState,
    Partition,
    Pause,
    ResetConnections,
    Trouble,
)
from trioqt.testing.network.host import Host
from trioqt.testing.network.interfaces import SimulatedMachine
from trioqt.testing.network.ladder import Ladder
from trioqt.testing.network.names import Names, is_address
from trioqt.testing.network.real_network import is_real_network_allowed, real_network_refused
from trioqt.testing.network.socket import VirtualSocket
from trioqt.testing.network.socket_addresses import shown
from trioqt.testing.network.stdlib import stdlib_sockets
from trioqt.testing.network.supervisor import Program, crash_programs, restart_programs
from trioqt.testing.network.trace import TRACE_LIMIT, Trace, TraceEvent

__all__ = ["VirtualNetwork"]

DEFAULT_HOST = "default"

_current: trio.lowlevel.RunVar[VirtualNetwork | None] = trio.lowlevel.RunVar("trioqt network", None)
_here: contextvars.ContextVar[Host | None] = contextvars.ContextVar("trioqt host", default=None)


@protected
class VirtualNetwork(AsyncBlock):
    """Hosts, links and faults.  Every trio socket made inside the block lives on it, without being told:
    trioqt's, trio's own, and any library's that is built on trio.

    Code outside of any `host` block runs on a host named ``default``.  What is not simulated: :doc:`/topics/simulated`.

    Args:
      latency: One-way delay of every link, in seconds of the (mock) clock.  A host reaches itself at once.
      seed: Of everything random in it; a failing test prints it.
      conditions: Of every link, for those that want more than a latency.
      name_latency: What a look-up takes, in seconds.
      trace_limit: So many events are kept, at least; older ones are only in the digest.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        seed: int = 0,
        conditions: Conditions | None = None,
        name_latency: float = 0.0,
        trace_limit: int = TRACE_LIMIT,
    ) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"a seed is an int, not {seed!r}")
        if conditions is not None and latency:
            raise ValueError("the latency of your own conditions is theirs")
        if not 0 <= name_latency < math.inf:
            raise ValueError(f"name_latency is in seconds, 0 or more, not {name_latency}")
        if trace_limit < 1:
            raise ValueError(f"trace_limit is 1 or more, not {trace_limit}")
        self.seed: int = seed
        self.hosts: dict[str, Host] = {}
        self.faults: dict[int, Fault] = {}
        self._conditions = Conditions(latency=latency) if conditions is None else conditions
        self._links: dict[tuple[str, str], Conditions] = {}
        self._by_address: dict[str, Host] = {}
        self._paths: list[Path] = []
        self._planned: Set[str] = frozenset()  # hosts of plans that last
        self._fault_count = 0
        self._trace = Trace(trace_limit)
        self._fabric = Fabric(seed, self._trace)
        self._fabric.default_latency = self._conditions.latency
        self._names = Names(self, name_latency)
        self._open = contextlib.AsyncExitStack()
        self._replaced = contextlib.ExitStack()  # what concerns other code than this run's
        self._was_entered = False
        self._add_host(DEFAULT_HOST, ())

    # ---- the block -----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Cancelled: nothing is installed."""
        if not trio.lowlevel.in_trio_run():
            raise RuntimeError("a simulated network needs trio.run: no other event loop has its hooks")
        await trio.lowlevel.checkpoint()
        if _current.get() is not None:
            raise RuntimeError("there is a simulated network already in this trio.run")
        if self._was_entered:
            raise RuntimeError("a network is used once; make another")
        self._was_entered = True
        async with contextlib.AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(_quiet_nursery())
            stack.callback(self._fabric.stop)
            nursery.start_soon(self._fabric.run)
            factory = _Factory(self)
            stack.callback(trio.socket.set_custom_socket_factory, trio.socket.set_custom_socket_factory(factory))
            stack.callback(
                trio.socket.set_custom_hostname_resolver, trio.socket.set_custom_hostname_resolver(self._names)
            )
            machine = SimulatedMachine(self.current_host, self.mtu)
            stack.callback(set_machine, set_machine(machine))
            with contextlib.ExitStack() as replaced:
                replaced.enter_context(stdlib_sockets(factory))
                if not is_real_network_allowed():
                    replaced.enter_context(real_network_refused())
                self._replaced = replaced.pop_all()
            stack.callback(self._put_back)
            stack.callback(_current.set, None)
            stack.callback(self._vanish)
            _current.set(self)
            self._open = stack.pop_all()
        await trio.lowlevel.cancel_shielded_checkpoint()  # the fabric's task has begun to wait
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with keeping(exc):
            await self._open.aclose()
            if exc is None:
                self._check_planned(self._planned)

    def _check_planned(self, names: Set[str]) -> None:
        """Is a name misspelt, for which a fault has waited in vain?"""
        self._planned -= names
        self._check_hosts(sorted(names))

    def _put_back(self) -> None:
        """What it has replaced in the process is as before, also if its block never ends."""
        self._replaced.close()

    def _vanish(self) -> None:
        for host in self.hosts.values():
            for sock in list(host.sockets.values()):
                sock.leave_open()
            host.sockets.clear()
            host.crash()
        self._fabric.socket_files.remove()

    @staticmethod
    def current() -> VirtualNetwork | None:
        """The network that this ``trio.run`` is on, if any."""
        return _current.get() if trio.lowlevel.in_trio_run() else None

    # ---- hosts and links -----------------------------------------------------------------------

    @contextlib.contextmanager
    def host(self, name: str, *, addresses: Sequence[AddressLike] = ()) -> Iterator[HostAddress]:
        """Code in the block, and the tasks it starts, run on this host.

        It is made when it is first named, and gives the first of its addresses.

        Args:
          addresses: All that a new host has, IPv4 and IPv6.  Left out: one, 10.0.0.1 for the first host and so on.

        Raises:
          ValueError: The host has other addresses, one of these is another host's or none that a host can have, or it
            cannot have that name.
        """
        if isinstance(addresses, str):
            raise TypeError("addresses is a sequence of them")
        wanted = tuple(_checked_address(address) for address in addresses)
        host = self.hosts.get(name)
        if host is None:
            host = self._add_host(name, wanted)
        elif wanted and wanted != host.addresses:
            raise ValueError(f"{name} has the addresses {', '.join(host.addresses)}")
        token = _here.set(host)
        try:
            yield HostAddress(host.addresses[0])
        finally:
            _here.reset(token)

    def _add_host(self, name: str, addresses: tuple[str, ...]) -> Host:
        _check_name(name)
        addresses = addresses or (self._free_address(),)
        if len(set(addresses)) < len(addresses):
            raise ValueError(f"{name} has an address twice")
        for address in addresses:
            if address in self._by_address:
                raise ValueError(f"{address} is an address of {self._by_address[address].name}")
        host = Host(self._fabric, self, name, addresses)
        self.hosts[name] = host
        for address in addresses:
            self._by_address[address] = host
        self._change_host(host)
        return host

    def _free_address(self) -> str:
        for number in itertools.count(len(self.hosts) + 1):
            address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            if number & 255 not in (0, 255) and address not in self._by_address:
                return address
        raise AssertionError("unreachable")

    def current_host(self) -> Host:
        """The host on which the calling code runs."""
        host = _here.get()
        return host if host is not None and self.hosts.get(host.name) is host else self.hosts[DEFAULT_HOST]

    def set_link(self, a: str, b: str, *, one_way: bool = False, **conditions: Any) -> None:
        """How the link between two hosts carries packets from now on: any of the attributes of `Conditions`.

        What is left out stays as it is.

        Raises:
          ValueError: There is no such host, or a condition cannot be.
          TypeError: There is no such condition, or none is given.
        """
        if not conditions:
            raise TypeError("set_link() wants a condition, such as latency=0.5")
        self._check_hosts((a, b))
        for pair in ((a, b),) if one_way else ((a, b), (b, a)):
            self._links[pair] = attrs.evolve(self._base(*pair), **conditions)
        self._refresh()

    def set_name(self, name: str, *addresses: AddressLike) -> None:
        """What a name stands for; without addresses there is no such name.

        Raises:
          ValueError: It is no name.
        """
        name = name.rstrip(".").lower()
        _check_name(name)
        self._names.added[name] = tuple(host_address(address).text for address in addresses)

    # ---- what a host asks ----------------------------------------------------------------------

    def find(self, address: str) -> Host | None:
        """Who has this address."""
        return self._by_address.get(address)

    def everybody(self) -> Iterable[Host]:
        """All hosts."""
        return self.hosts.values()

    def mtu(self) -> int:
        """Bytes of the largest IP packet that a link takes of which nothing else was said."""
        return self._conditions.mtu

    def new_path(self, source: Host, target: Host) -> Path:
        """The way from one to the other."""
        path = Path(self._fabric, source, target, self._base(source.name, target.name))
        self._paths.append(path)
        self._apply_faults(path)
        return path

    def _base(self, source: str, target: str) -> Conditions:
        own = self._links.get((source, target))
        if own is not None:
            return own
        return Conditions(mtu=65536) if source == target else self._conditions

    def _refresh(self) -> None:
        for path in self._paths:
            self._apply_faults(path)

    def _apply_faults(self, path: Path) -> None:
        source, target = path.source.name, path.target.name
        state = LinkState(self._base(source, target))
        for fault in self.faults.values():
            state = fault.change(source, target, state)
        path.set(state.conditions, blocked=state.blocked, held=state.held)

    # ---- faults --------------------------------------------------------------------------------

    def begin(self, fault: Fault | FaultPlan) -> Trouble:
        """It begins now, and lasts until the `Trouble` that this gives is ended: ``with net.begin(...):`` does that.

        The times of a plan count from now.  Until its last fault is over the network is not at rest.

        Raises:
          ValueError: There is no host of a name in ``fault``.  Those of a plan may come later; if there has never been
            one when the plan is ended, or else the network, it is raised from there.
        """
        if isinstance(fault, FaultPlan):
            courses = [Course(planned, self._fabric, self._begin) for planned in fault.faults]

            def stop() -> None:
                for course in courses:
                    course.stop()

            names = {name for planned in fault.faults for name in planned.fault.hosts()}
            self._planned |= names
            return Trouble(stop, lambda: self._check_planned(names))
        if not isinstance(fault, Fault):
            raise TypeError(f"a fault, or a plan of faults, begins, not {fault!r}")
        self._check_hosts(fault.hosts())
        return self._begin(fault)

    def partition(self, a: str | None, b: str | None, *, one_way: bool = False) -> Trouble:
        """Nothing comes through between two hosts; see `Partition`."""
        return self.begin(Partition(a, b, one_way=one_way))

    def hold(self, a: str | None, b: str | None, *, one_way: bool = False) -> Trouble:
        """What is sent between two hosts waits until the end; see `Hold`."""
        return self.begin(Hold(a, b, one_way=one_way))

    def crash(self, host: str) -> Trouble:
        """A host loses its power, and starts again at the end; see `Crash`."""
        return self.begin(Crash(host))

    def pause(self, host: str) -> Trouble:
        """A host stands still until the end; see `Pause`."""
        return self.begin(Pause(host))

    def reset_connections(self, a: str | None, b: str | None) -> None:
        """Reset every TCP connection between two hosts; see `ResetConnections`."""
        self.begin(ResetConnections(a, b))

    async def run_on(
        self,
        host: str,
        main: Callable[..., Awaitable[object]],
        *args: object,
        task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run ``main(*args)`` as a program of that host: a `Crash` cancels it, and the start after it runs it again.

        It is over when ``main`` ends and there was no crash.  What ``main`` raises after a crash, nobody sees.  With
        ``await nursery.start(net.run_on, host, main)`` every life of ``main`` is given a ``task_status``, and the first
        that has started counts.

        Cancelled: ``main`` is.
        """
        with self.host(host):
            await Program(self.current_host(), main, args).run(task_status)

    def _check_hosts(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.hosts:
                raise ValueError(f"there is no host {name!r}; there are {', '.join(self.hosts)}")

    def has_names(self, host: str) -> bool:
        """Does a name server answer this host?"""
        return self._host_state(host).has_names

    def _begin(self, fault: Fault) -> Trouble:
        self._fabric.begin_trouble()
        self._note("fault", repr(fault))
        if not fault.lasts:
            fault.begin(self)
            self._settle()
            return Trouble(lambda: None)
        self._fault_count += 1
        number = self._fault_count
        self.faults[number] = fault
        fault.begin(self)
        self._change_everything()
        return Trouble(lambda: self._end(number))

    def _end(self, number: int) -> None:
        fault = self.faults.pop(number)
        self._note("heal", repr(fault))
        self._change_everything()
        fault.end(self)
        self._settle()

    def _settle(self) -> None:
        if not self.faults:
            self._fabric.end_trouble()

    def _change_everything(self) -> None:
        self._refresh()
        for host in self.hosts.values():
            self._change_host(host)

    def _change_host(self, host: Host) -> None:
        """What the faults that last do to it."""
        state = self._host_state(host.name)
        host.descriptor_limit = state.descriptor_limit
        host.clock.change(self._fabric.now(), state.seconds_ahead, state.clock_rate)
        if state.is_down and host.is_up:
            host.note("crash")
            crash_programs(host)
            host.crash()
        elif not state.is_down and not host.is_up:
            host.note("restart")
            host.restart()
            restart_programs(host)

    def _host_state(self, host: str) -> HostState:
        state = HostState()
        for fault in self.faults.values():
            state = fault.change_host(host, state)
        return state

    def handler_failures(self) -> list[Exception]:
        """Take the bugs that servers have survived since the last call, oldest first.

        A handler's bug, or a socket factory's, ends one connection; under `simulate` and the pytest plug-in it fails
        the test at its end unless it is taken.

        Raises:
          RuntimeError: nobody collects them: this is neither in `simulate` nor in a test with the pytest plug-in.
        """
        return take_bugs()

    # ---- watching ------------------------------------------------------------------------------

    def trace(self) -> list[TraceEvent]:
        """What has happened, oldest first."""
        return list(self._trace)

    def ladder(self, format: Literal["text", "svg"] = "text", *, limit: int = 200) -> str:
        """What has happened as a sequence diagram: one column a host, and time down the side.

        A line says when something was sent and when it arrived; lines are in the order of sending.  Who speaks first
        stands on the left.  Ports are shown between hosts that have more than one connection.  Acknowledgements are not
        drawn: they are no events here, unless one is lost that must not be.

        Args:
          format: For a terminal, plain ASCII; or an SVG, in light or dark as the reader has it.
          limit: So many lines, the latest; a first one says how many are left out.

        Raises:
          ValueError: there is no such format, or a limit below 1.
        """
        if limit < 1:
            raise ValueError(f"limit is 1 or more, not {limit}")
        return Ladder(self._trace.records(), self._trace.total, limit).draw(format)

    def digest(self) -> str:
        """A hash of everything that has happened: two runs with one digest went the same way."""
        return self._trace.digest()

    @property
    def deliveries(self) -> int:
        """Segments and datagrams that have reached a host; acknowledgements are not among them."""
        return self._trace.deliveries

    @property
    def in_flight(self) -> int:
        """Packets under way, and timers that will do something; 0: the network is at rest.

        What a fault holds does not count: it goes nowhere by itself.
        """
        return self._fabric.in_flight()

    async def quiesce(self) -> None:
        """Wait until no task can run and nothing is under way on the network.  Tasks may sleep.

        Cancelled: nothing has changed.
        """
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if not self.in_flight:
                return
            await trio.sleep_until(self._fabric.next_time())

    def netstat(self) -> str:
        """A table of the sockets there are, for failure messages."""
        rows = [("host", "socket", "state", "local", "remote", "unread", "unsent")]
        for host in self.hosts.values():
            known = set()
            for sock in host.sockets.values():
                known.add(id(sock.end))
                state, local, remote, unread, unsent = sock.row()
                rows.append((host.name, sock.sort, state, local, remote, str(unread), str(unsent)))
            for end in list(host.connections.values()):
                if id(end) not in known and not end.is_gone():
                    unread, unsent = end.queued()
                    rows.append(
                        (host.name, "-", end.state, shown(end.local), shown(end.remote), str(unread), str(unsent))
                    )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def _note(self, kind: str, note: str) -> None:
        now = self._fabric.now()
        self._trace.add((now, kind, "", 0, "", 0, 0, note, 0, now, False))


def _checked_address(address: AddressLike) -> str:
    """The text of an address that a host can have."""
    known = host_address(address)
    text = known.text
    ip = None if text in ("", "*") else known.ip
    if ip is None or ip.is_unspecified or ip.is_loopback or ip.is_multicast or ip == BROADCAST or "::ffff:" in text:
        raise ValueError(f"{text!r} cannot be the address of a host")
    return text


def _check_name(name: object) -> None:
    """Raises: ValueError if nobody could ask for it; other letters than ASCII's are asked for as ``xn--...``."""
    if (
        not isinstance(name, str)
        or not re.fullmatch(r"[\w.-]*[\w-]", name, re.ASCII)
        or is_address(name)
        or name == "localhost"
    ):
        raise ValueError(f"a host cannot have the name {name!r}")


BROADCAST = HostAddress.BROADCAST.ip


@protected
class _Factory(trio.abc.SocketFactory):
    def __init__(self, net: VirtualNetwork) -> None:
        self._net = net

    def socket(self, family: int = 2, type: int = 1, proto: int = 0) -> trio.socket.SocketType:
        return self.make_socket(family, type, proto)

    def make_socket(self, family: int, type_: int, proto: int) -> VirtualSocket:
        """A socket of the host on which the calling code runs.  Raises: OSError."""
        return VirtualSocket(self._net.current_host(), family, type_, proto)

    def find_socket(self, descriptor: int) -> VirtualSocket | None:
        """The open socket of any host that has this number."""
        found = (host.sockets.get(descriptor) for host in self._net.hosts.values())
        return next((sock for sock in found if isinstance(sock, VirtualSocket)), None)

    def host_name(self) -> str:
        """Of the host on which the calling code runs."""
        return self._net.current_host().name


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def _quiet_nursery() -> Any:
    """A nursery that is cancelled at its end, and adds no wrapper to the body's exception."""
    manager = trio.open_nursery()
    nursery = await manager.__aenter__()
    try:
        yield nursery
    finally:
        nursery.cancel_scope.shield = True
        nursery.cancel_scope.cancel()
        with keeping(sys.exception()):
            try:
                await manager.__aexit__(None, None, None)
            except BaseExceptionGroup as group:
                raise_bare(group)
