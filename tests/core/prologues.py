"""Plays a prologue against what a proxy says, without any network."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from trioqt.core.network_proxy import Credentials
from trioqt.core.proxies import Again, Ask, Prologue, Receive, Reported, Send

__all__ = ["Played", "play"]


@attrs.frozen
class Played:
    """How it went."""

    reported: Reported | None
    sent: list[bytes]
    """By connection to the proxy."""
    rest: bytes
    """What it left unread on the last one."""
    realms: list[str]
    """That it asked a name and a password for."""


def play(prologue: Prologue, *said: bytes, answers: Sequence[Credentials | None] = ()) -> Played:
    """Play it to its end.

    Args:
      said: What the proxy says, and then it closes: one item for each connection to it.
      answers: What the program says when it is asked.

    Raises: whatever the prologue raises.
    """
    connections, remaining = list(said), list(answers)
    sent, realms = [b""], list[str]()
    unread = connections.pop(0)
    reply: object = None
    while True:
        try:
            step = prologue.send(reply)
        except StopIteration as end:
            return Played(end.value, sent, unread, realms)
        reply = None
        match step:
            case Send(data):
                sent[-1] += data
            case Receive(count):
                assert count > 0
                reply, unread = unread[:count], unread[count:]
            case Ask(realm):
                realms.append(realm)
                reply = remaining.pop(0)
            case Again():
                sent.append(b"")
                unread = connections.pop(0)
