"""A port of a simulated host that accepts TCP connections: who asks, who waits, and who is too many."""

from __future__ import annotations

from trioqt.links.interrupts import protected
from trioqt.testing.network.fabric import Packet
from trioqt.testing.network.host import Binding, Host
from trioqt.testing.network.stream_ends import StreamListener
from trioqt.testing.network.tcp import Settings, TcpEnd

__all__ = ["TcpListener"]


@protected
class TcpListener(StreamListener[TcpEnd]):
    """A port that accepts connections."""

    def __init__(self, host: Host, binding: Binding, settings: Settings, backlog: int) -> None:
        super().__init__(backlog)
        self.host = host
        self.binding = binding
        self.settings = settings
        self._asking: dict[TcpEnd, None] = {}
        self.is_deaf: bool = False
        """Nobody is answered any more, but who has been."""

    def receive(self, syn: Packet) -> None:
        """A peer asks for a connection."""
        if self.is_deaf:
            syn.lost = True
            syn.sender.repeat_later(syn.departed)
            return
        # Linux keeps backlog + 1, and then ignores who asks; a real one may ask again.
        if len(self.ready) + len(self._asking) > self.backlog:
            self.host.note("backlog full", port=self.binding.port)
            syn.lost = True
            syn.sender.repeat_later(syn.departed)
            return
        binding = Binding(
            None, self.binding.family, syn.target[0], syn.target[1], reuse_address=self.binding.reuse_address,
            reuse_port=self.binding.reuse_port,
        )  # fmt: skip
        end = TcpEnd(self.host, binding, syn.target, syn.source, self.settings)
        binding.owner = end
        self.host.tcp.hold(binding)
        self._asking[end] = None
        end.accept_syn(syn, self)

    def speaks_with(self, end: TcpEnd) -> bool:
        """Is it of the same protocol, TCP or SCTP?"""
        return self.settings.sort.startswith("sctp") == end.settings.sort.startswith("sctp")

    def asking(self) -> frozenset[TcpEnd]:
        """Who has been answered, and has not been heard of again."""
        return frozenset(self._asking)

    def established(self, end: TcpEnd) -> None:
        """A connection can be accepted."""
        self._asking.pop(end, None)
        self.offer(end)

    def lost(self, end: TcpEnd) -> None:
        """A connection came to nothing before it was established; one that was, the program still gets."""
        self._asking.pop(end, None)

    def close(self) -> None:
        for end in [*self.ready, *self._asking]:
            end.close(reset=True)
        self.ready.clear()
        self._asking.clear()
