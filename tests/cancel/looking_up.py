"""A look-up that was cancelled has told nothing and keeps nothing: the next one is asked anew, and answered."""

from __future__ import annotations

import socket
from typing import Any

import attrs
import trio

from tests.cancel.kit import NETWORKS, Case, Play, Situation, Trial, turn
from trioqt import HostAddress, HostInfo, SocketError, look_up_host

__all__ = ["CASES"]

NAME, ADDRESS = "some.host", HostAddress("192.0.2.1")

FOUND = {
    NAME: HostInfo(NAME, "real.host", (ADDRESS,)),
    "192.0.2.1": HostInfo(NAME, NAME, (ADDRESS,)),
    "192.0.2.9": HostInfo("192.0.2.9", "192.0.2.9", (HostAddress("192.0.2.9"),)),
    "*": HostInfo("*", "*", (HostAddress.ANY,)),
}


@attrs.define(eq=False)
class Resolver(trio.abc.HostnameResolver):
    """Answers after a turn, and knows one name and one address."""

    waiting: int = 0

    async def getaddrinfo(
        self, host: bytes | None, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        await self._answer()
        if host != NAME.encode():
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "real.host", (str(ADDRESS), port or 0))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        await self._answer()
        if sockaddr[0] != str(ADDRESS):
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        return NAME, "0"

    async def _answer(self) -> None:
        self.waiting += 1
        try:
            await turn()
        finally:
            self.waiting -= 1


def look_up(host: str, *, beside: str = "") -> Play:
    async def play(trial: Trial) -> None:
        resolver = Resolver()
        trio.socket.set_custom_hostname_resolver(resolver)
        others: list[HostInfo] = []

        async def look_up_too() -> None:
            others.append(await look_up_host(beside))

        async with trio.open_nursery() as nursery:
            if beside:
                nursery.start_soon(look_up_too)
            info = await trial.call(look_up_host, host)
            trial.equal("found", info, None if trial.cancelled else FOUND[host])
        trial.equal("beside", others, [FOUND[beside]] if beside else [])
        trial.equal("questions that nobody waits for", resolver.waiting, 0)
        trial.equal("found again", await look_up_host(host), FOUND[host])

    return play


def look_up_in_vain(host: str) -> Play:
    async def play(trial: Trial) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver())
        try:
            await trial.call(look_up_host, host)
        except SocketError as error:
            trial.equal("kind", error.kind.name, "HOST_NOT_FOUND")
        else:
            trial.expect(trial.cancelled, "there is no such name")
        trial.equal("found", await look_up_host(NAME), FOUND[NAME])

    return play


# fmt: off
LOOK_UPS: tuple[tuple[Situation, str, Play], ...] = (
    ("answered at once", "every address",        look_up("*")),
    ("answered at once", "impossible name",      look_up_in_vain("a..b")),
    ("has to wait",      "name",                 look_up(NAME)),
    ("has to wait",      "address",              look_up("192.0.2.1")),
    ("has to wait",      "address without name", look_up("192.0.2.9")),
    ("has to wait",      "no such name",         look_up_in_vain("no.such.host")),
    ("second task",      "same name",            look_up(NAME, beside=NAME)),
    ("second task",      "its address",          look_up(NAME, beside="192.0.2.1")),
)
# fmt: on

CASES = [
    Case("look_up_host", situation, play, medium, variant)
    for situation, variant, play in LOOK_UPS
    for medium in NETWORKS
]
