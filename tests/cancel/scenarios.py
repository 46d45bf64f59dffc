"""Which coroutine is walked in which situation.

A public coroutine that is not in this table fails the test, and so does a situation that is neither there nor excused.
"""

from __future__ import annotations

import inspect
import typing

import trioqt
from tests.cancel import connecting, datagrams, ending, receiving, sending, serving, stopping, watching
from tests.cancel.kit import Case, Situation

__all__ = ["CASES", "EXCUSED", "SENDS", "SITUATIONS", "find_case", "public_coroutines"]

EVERYTHING: tuple[Case, ...] = (
    *receiving.CASES,
    *sending.CASES,
    *connecting.CASES,
    *ending.CASES,
    *watching.CASES,
    *serving.CASES,
    *stopping.CASES,
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

# fmt: off
EXCUSED: dict[str, dict[Situation, str]] = {
    "TcpSocket.__aenter__":  dict.fromkeys(WAITING, "it opens a nursery, and never waits"),
    "TcpServer.__aenter__":  dict.fromkeys(WAITING, "it opens a nursery, and never waits"),
    "TcpSocket.bind":        dict.fromkeys(("peer finishes", "peer resets"), "there is no peer"),
    "TcpServer.listen":      dict.fromkeys(("peer finishes", "peer resets"), "there is no peer"),
    "TcpServer.aclose":      {"has to wait": "it waits for nobody"},
    "TcpServer.wait_for_draining": dict.fromkeys(("peer finishes", "peer resets"), "there is no peer"),
    "TcpServer.__aexit__":   {"has to wait": "it waits for nobody"},
    **datagrams.EXCUSED,
}
# fmt: on

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
            owner = "TcpSocket" if thing is trioqt.AbstractSocket else name  # which is abstract
            found |= {f"{owner}.{method}" for method in dir(thing) if _waits(thing, method)}
    return found


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
