"""Whether code may use the real network: within a simulated one, and within `guards`, it is told that it would.

Python announces what it is about to do (``sys.addaudithook``), so this meets whoever does it, in C too.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import ipaddress
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import attrs
import trio

__all__ = ["RealNetworkUsed", "is_real_network_allowed", "real_network_allowed", "real_network_refused"]


class RealNetworkUsed(RuntimeError):
    """Code in a simulation was about to use the real network."""


@attrs.define(eq=False)
class _Policy:
    """What a context inherits.  It may outlive the block that it is for, in a thread for one."""

    refuses: bool
    over: bool = False


_policy: contextvars.ContextVar[_Policy | None] = contextvars.ContextVar("trioqt real network", default=None)
_here = threading.local()

_LOOK_UPS = {"socket.getaddrinfo", "socket.getnameinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
_REFUSED = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"} | _LOOK_UPS


@contextlib.contextmanager
def real_network_allowed() -> Iterator[None]:
    """Within the block, and in the tasks and threads started in it, real sockets and look-ups are not refused."""
    policy = _Policy(refuses=False)
    token = _policy.set(policy)
    try:
        yield
    finally:
        policy.over = True
        _policy.reset(token)


def is_real_network_allowed() -> bool:
    """Has the calling code been allowed to?"""
    policy = _policy.get()
    return policy is not None and not policy.over and not policy.refuses


@contextlib.contextmanager
def real_network_refused() -> Iterator[None]:
    """Within the block, in any task of the run and in threads that its tasks start, real sockets and look-ups fail.

    Raises: RealNetworkUsed: from the call.
    """
    _install_audit_hook()
    # By thread, so that system tasks are met; by context, so that worker threads are.
    outer = _policy.get()
    policy = _Policy(refuses=True)
    _here.refusing = getattr(_here, "refusing", 0) + 1
    _policy.set(policy)
    try:
        yield
    finally:
        policy.over = True
        _here.refusing -= 1
        _policy.set(outer)  # not by the token: a run is torn down from outside of the block's context


@functools.cache
def _install_audit_hook() -> None:
    # It cannot be taken out again.  When nothing is guarded it looks a string up in a set, and is gone.
    sys.addaudithook(_audit)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event not in _REFUSED:
        return
    policy = _policy.get()
    if not (getattr(_here, "refusing", 0) if policy is None or policy.over else policy.refuses):
        return
    if event in _LOOK_UPS:
        if event == "socket.getaddrinfo" and _is_numeric(args[0], sys._getframe(1)):
            return
        raise RealNetworkUsed(
            f"{event}({args[0]!r}) would ask the real name service from within a simulation.  Ask by"
            f" trio.socket.getaddrinfo or getnameinfo, {_way_out()}"
        )
    if args[1] is None:
        return  # sendmsg on a socket that is connected; it was asked when it was
    raise RealNetworkUsed(
        f"{event}({args[1]!r}) would use a real socket within a simulation.  Make it with trio.socket.socket, or what"
        f" is built on it, after the virtual network was entered, {_way_out()}"
    )


def _way_out() -> str:
    in_thread = "" if trio.lowlevel.in_trio_run() else "call it with simulate(threads='inline'), "
    return f"{in_thread}or put the call into `with trioqt.testing.real_network_allowed():`"


_getaddrinfo = socket.getaddrinfo.__code__  # before anybody stands in for it


def _is_numeric(host: object, caller: FrameType) -> bool:
    """Whether a call of getaddrinfo asks no name service; trio makes one before each look-up."""
    if host is None:
        return True
    if caller.f_code is _getaddrinfo and caller.f_locals.get("flags", 0) & socket.AI_NUMERICHOST:
        return True
    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        return False
    return True
