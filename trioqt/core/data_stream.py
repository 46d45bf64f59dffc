"""Qt's wire format, all that is public of it."""

from __future__ import annotations

from trioqt.core.value_stream import ValueStream

__all__ = ["DataStream"]


class DataStream(ValueStream):
    """Qt's wire format: numbers, strings, lists, maps, as any program on Qt reads and writes them.  Qt: QDataStream.

    It knows bytes and no socket: ``TcpSocket.receive_message`` reads one from a connection, ``send_all(stream.data())``
    sends one.  Reading begins at the first byte of ``data``, writing adds behind the last.  A read that fails has taken
    nothing, a write that fails has written nothing.

    Args:
      version: Which Qt reads or has written it, a ``DataStreamVersion``.
      byte_order: Of numbers and of the characters of strings.
      floating_point_precision: How many bytes ``float`` and ``double`` have, both of them.
    """

    __slots__ = ()
