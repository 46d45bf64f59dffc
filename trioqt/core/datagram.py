"""What one UDP message is, and where it came from or goes."""

from __future__ import annotations

import operator
from functools import lru_cache
from typing import Any

import attrs

from trioqt.core.addresses import HostAddress, host_address

__all__ = ["NetworkDatagram", "as_bytes", "with_header"]


def as_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """What a datagram is to carry, as it is now.  Raises: TypeError."""
    if isinstance(data, bytes):
        return data
    if not isinstance(data, bytearray | memoryview):
        raise TypeError(f"a datagram's data are bytes, a bytearray or a memoryview, not {type(data).__name__}")
    return bytes(data)


def _number(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    least, most = attribute.metadata["least"], attribute.metadata["most"]
    if not least <= operator.index(value) <= most:
        raise ValueError(f"{attribute.name} is {least} to {most}, not {value}")


def _truth(instance: object, attribute: attrs.Attribute[Any], value: bool) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name} is True or False, not {value!r}")


def _int_field(default: int, least: int, most: int) -> Any:
    return attrs.field(default=default, validator=_number, metadata={"least": least, "most": most})


# One is made for each datagram that comes, and one for each answer; with slots that takes 0.91 us, so 0.64.
@attrs.frozen(slots=False)
class NetworkDatagram:
    """One UDP message, and where it came from or goes.  Qt: QNetworkDatagram.

    To be sent it needs its data and its destination; what else is set holds for this one datagram.

    Attributes:
      data: What it carries; it may be empty.
      sender_address, sender_port: Whom it came from.  To be sent: the address that it goes out from, if that is set
        and one of this host's; the port is always the socket's.
      destination_address, destination_port: Where it goes, or went: an address of this host, a group or a broadcast.
        ``HostAddress.NULL`` if the system did not say.
      hop_limit: How many routers it may still pass, IPv4's time to live; -1 if it is not known, or up to the socket.
      interface_index: The number of the interface that it came in by, or is to go out by; 0 likewise.
      truncated: More had come than was asked for, and the rest is gone.

    Raises:
      TypeError, ValueError: A value is none of its kind, or out of range.
    Qt: there, an unknown port is -1, and what was cut off is not told.
    """

    data: bytes = attrs.field(converter=as_bytes)
    sender_address: HostAddress = attrs.field(default=HostAddress.NULL, converter=host_address)
    sender_port: int = _int_field(0, 0, 65535)
    destination_address: HostAddress = attrs.field(default=HostAddress.NULL, converter=host_address)
    destination_port: int = _int_field(0, 0, 65535)
    hop_limit: int = _int_field(-1, -1, 255)
    interface_index: int = _int_field(0, 0, 2**31 - 1)
    truncated: bool = attrs.field(default=False, validator=_truth)

    def make_reply(self, data: bytes | bytearray | memoryview) -> NetworkDatagram:
        """The answer to it: sender and destination change places.

        It goes out by the interface that this one came in by, and from the address that this one went to, unless that
        is a group's or a broadcast's.

        Qt: makeReply().
        """
        header = _reply_header(
            self.sender_address.text,
            self.sender_port,
            self.destination_address.text,
            self.destination_port,
            self.interface_index,
        )
        return with_header(data if type(data) is bytes else as_bytes(data), header)


def with_header(data: bytes, header: dict[str, Any]) -> NetworkDatagram:
    """A datagram of parts that are known to be right: all of them but its data."""
    made: NetworkDatagram = new(NetworkDatagram)
    values = made.__dict__
    values.update(header)  # in one piece, which is half a microsecond less than attribute by attribute
    values["data"] = data
    return made


new: Any = object.__new__


# As many as there are headers to answer; see NativeDatagramLink.
@lru_cache(1024)
def _reply_header(sender: str, sender_port: int, own: str, own_port: int, interface: int) -> dict[str, Any]:
    """What the answer to a datagram with these has beside its data; not to be changed."""
    return {
        "sender_address": HostAddress(own) if _is_of_one_host(own) else HostAddress.NULL,
        "sender_port": own_port,
        "destination_address": HostAddress(sender),
        "destination_port": sender_port,
        "hop_limit": -1,
        "interface_index": interface,
        "truncated": False,
    }


def _is_of_one_host(text: str) -> bool:
    address = HostAddress(text)
    return address != HostAddress.BROADCAST and not address.is_multicast()
