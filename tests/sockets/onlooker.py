"""Somebody who listens and does nothing with what it hears."""

from __future__ import annotations

from trioqt import Event, TcpSocket
from trioqt.sockets.subscription import Subscription

__all__ = ["Onlooker", "look_on"]


class Onlooker(Subscription[Event]):
    """Hears everything, keeps nothing, and is never behind."""

    def post(self, event: Event) -> bool:
        """Forget it."""
        return True


def look_on(sock: TcpSocket) -> None:
    """Let somebody listen to ``sock``, as long as there is one."""
    sock._subscribe(Onlooker(sock, ()))
