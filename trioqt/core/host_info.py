"""What a look-up has found."""

from __future__ import annotations

import attrs

from trioqt.core.addresses import HostAddress

__all__ = ["HostInfo"]


@attrs.frozen
class HostInfo:
    """A name and its addresses.  Qt: QHostInfo; there, what went wrong is in it too, here that is raised."""

    host_name: str
    """What was asked for; the name of an address that was asked for, or its text if it has none.  Qt: hostName()."""
    canonical_name: str
    """The name that the others are aliases of, as the resolver tells it; else the same."""
    addresses: tuple[HostAddress, ...]
    """In the resolver's order, which is the order in which to try them (RFC 6724), each once.  Qt: addresses()."""
