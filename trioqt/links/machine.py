"""On which machine the calling code runs: this one, or a simulated host.

Trio has hooks for sockets and look-ups, and none for what else a program asks of its machine, so there is one here.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

import trio

from trioqt.core.interfaces import NetworkInterface
from trioqt.links.interrupts import protected
from trioqt.links.netlink import kernel_interfaces

__all__ = ["Machine", "set_machine", "this_machine"]


class Machine(Protocol):
    """What can be asked of it."""

    def host_name(self) -> str:
        """What it calls itself."""

    def interfaces(self) -> Sequence[NetworkInterface]:
        """Its interfaces.  Raises: OSError."""


@protected
class _Kernel:
    """The one that Python runs on."""

    def host_name(self) -> str:
        return socket.gethostname()

    def interfaces(self) -> Sequence[NetworkInterface]:
        return kernel_interfaces()


_simulated: trio.lowlevel.RunVar[Machine | None] = trio.lowlevel.RunVar("trioqt machine", None)


def set_machine(machine: Machine | None) -> Machine | None:
    """From now on code of this ``trio.run`` runs on that one; None is the kernel's.

    Returns: The one before.
    """
    before = _simulated.get()
    _simulated.set(machine)
    return before


def this_machine() -> Machine:
    """The one on which the caller runs; it need not be in a ``trio.run``."""
    machine = _simulated.get() if trio.lowlevel.in_trio_run() else None
    return _Kernel() if machine is None else machine
