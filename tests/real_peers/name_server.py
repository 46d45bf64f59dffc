"""A toy name server on a datagram socket: enough of RFC 1035 for ``dig`` to be content with its answers."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

from trioqt import UdpSocket

__all__ = ["answer", "serve_names"]

HEADER = struct.Struct("!6H")
A, AAAA, ANY_CLASS = 1, 28, 1
ANSWER_FLAGS, NO_SUCH_NAME = 0x8580, 3
"""An answer, with authority, to a recursive question; and RCODE."""


async def serve_names(sock: UdpSocket, table: Mapping[str, str]) -> None:
    """Answer for ever, from the address that was asked."""
    async for question in sock:
        if len(question.data) > HEADER.size:
            await sock.send_datagram(question.make_reply(answer(question.data, table)))


def answer(question: bytes, table: Mapping[str, str]) -> bytes:
    """| header | the question | the answers |: an address of the name, of the type that was asked for."""
    number, *_ = HEADER.unpack_from(question)
    labels, at = [], HEADER.size
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode())
        at += 1 + length
    wanted, _ = struct.unpack_from("!2H", question, at + 1)
    asked = question[HEADER.size : at + 5]
    address = table.get(".".join(labels), "")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    records = b""
    if address and wanted == (AAAA if family == socket.AF_INET6 else A):
        packed = socket.inet_pton(family, address)
        records = struct.pack("!3HIH", 0xC000 | HEADER.size, wanted, ANY_CLASS, 60, len(packed)) + packed
    flags = ANSWER_FLAGS | (0 if address else NO_SUCH_NAME)
    return HEADER.pack(number, flags, 1, bool(records), 0, 0) + asked + records
