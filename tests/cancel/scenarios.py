"""Which coroutine is walked in which situation.

A public coroutine that is not in this table fails the test, and so does a situation that is neither there nor excused.
"""

from __future__ import annotations

import inspect
import typing

import trioqt
from tests.cancel import (
    connecting,
    datagrams,
    encrypting,
    ending,
    looking_up,
    over_tls,
    receiving,
    sending,
    serving,
    stopping,
    watching,
)
from tests.cancel.kit import Case, Situation

__all__ = ["CASES", "EXCUSED", "SENDS", "SITUATIONS", "find_case", "public_coroutines"]

EVERYTHING: tuple[Case, ...] = (
    *receiving.CASES,
    *sending.CASES,
    *connecting.CASES,
    *encrypting.CASES,
    *ending.CASES,
    *over_tls.CASES,
    *watching.CASES,
    *serving.CASES,
    *stopping.CASES,
    *looking_up.CASES,
    *datagrams.CASES,
)

# What waits for the network is different with a latency: one of each kind, and all that connecting can meet.
WITH_LATENCY = frozenset(
    [
        *("TcpSocket.connect_to_host", "TcpSocket.receive_some", "TcpSocket.receive_exactly", "TcpSocket.send_all"),
        *("TcpSocket.disconnect_from_host", "TcpSocket.events", "TcpServer.accept", "TcpServer.serve"),
        "TcpServer.drain",
        *("UdpSocket.receive_datagram", "UdpSocket.send_datagram"),
    ]
)


def _is_walked(case: Case) -> bool:
    if case.medium != "distant":
        return True
    if case.coroutine not in WITH_LATENCY or case.situation in ("answered at once", "second task"):
        return False
    return case.coroutine == "TcpSocket.connect_to_host" or case.variant in ("", "queued", "unread")


CASES: tuple[Case, ...] = tuple(case for case in EVERYTHING if _is_walked(case))

SITUATIONS: tuple[Situation, ...] = ("answered at once", "has to wait", "peer finishes", "peer resets", "second task")

SENDS = frozenset(f"TcpSocket.{name}" for name in sending.VERBS)
"""These also meet a full queue."""

WAITING: tuple[Situation, ...] = ("has to wait", "peer finishes", "peer resets", "second task")

HANDSHAKES = ["connect_to_host_encrypted", "start_client_encryption", "start_server_encryption", "wait_for_encrypted"]

# fmt: off
EXCUSED: dict[str, dict[Situation, str]] = {
    "TcpSocket.__aenter__":  dict.fromkeys(WAITING, "it opens a nursery, and never waits"),
    "TcpServer.__aenter__":  dict.fromkeys(WAITING, "it opens a nursery, and never waits"),
    "TcpSocket.bind":        dict.fromkeys(("peer finishes", "peer resets"), "there is no peer"),
    "look_up_host":          dict.fromkeys(("peer finishes", "peer resets"), "there is no peer"),
    "TcpServer.listen":      dict.fromkeys(("peer finishes", "peer resets"), "there is no peer"),
    "TcpServer.aclose":      {"has to wait": "it waits for nobody"},
    "TcpServer.wait_for_draining": dict.fromkeys(("peer finishes", "peer resets"), "there is no peer"),
    "TcpServer.__aexit__":   {"has to wait": "it waits for nobody"},
    **datagrams.EXCUSED,
    "TcpServer.serve_descriptors": dict.fromkeys(WAITING[1:], "as TcpServer.serve"),
    "SslServer.serve":       {"second task": "as TcpServer.serve"},
    **{f"SslSocket.{verb}": {"answered at once": "a handshake takes two"} for verb in HANDSHAKES},
}
# fmt: on

OF_THE_KERNEL = {"TcpServer.serve_descriptors": "a simulated connection has no descriptor that can be lent"}
"""What the simulated network refuses, so that it is walked on the kernel alone."""

# The special methods that wait.
SPECIAL = ("__aenter__", "__aexit__", "__aiter__", "__anext__")


def public_coroutines() -> set[str]:
    """Every method of a public class that waits, or gives something whose steps wait."""
    found = set()
    for name in trioqt.__all__:
        thing = getattr(trioqt, name)
        if inspect.iscoroutinefunction(thing):
            found.add(name)
        if inspect.isclass(thing):
            found |= {f"{_owner(thing, method)}.{method}" for method in dir(thing) if _waits(thing, method)}
    return found


def _owner(thing: type, method: str) -> str:
    """The class of which it is walked: AbstractSocket is abstract, and those of TLS inherit most of what they have."""
    for base in (trioqt.TcpSocket, trioqt.TcpServer):
        if issubclass(thing, base) and getattr(thing, method) == getattr(base, method, None):
            return base.__name__
    return "TcpSocket" if thing is trioqt.AbstractSocket else thing.__name__


def _waits(owner: type, name: str) -> bool:
    method = inspect.getattr_static(owner, name)
    method = getattr(method, "__func__", method)
    if not inspect.isfunction(method) or (name.startswith("_") and name not in SPECIAL):
        return False
    signatures = [method, *typing.get_overloads(method)]
    given = [str(signature.__annotations__.get("return")) for signature in signatures]
    return inspect.iscoroutinefunction(method) or any("Async" in text for text in given)


def find_case(text: str) -> Case:
    """The scenario of that name."""
    [case] = [case for case in CASES if str(case) == text]
    return case
