"""Qt's wire format, from the bottom: bytes, numbers, and what happens when bytes are missing.

Sans-IO: it knows bytes, and no socket.  A read that cannot finish raises and has taken nothing; a write that fails has
written nothing.
"""

from __future__ import annotations

import enum
import functools
import math
import operator
import struct
from collections.abc import Callable
from typing import Concatenate, Literal, ParamSpec, TypeVar

__all__ = ["DataStreamError", "DataStreamVersion", "Incomplete", "RawStream", "whole"]


class DataStreamVersion(enum.IntEnum):
    """Which Qt a stream is for.  Qt: QDataStream::Version, with the same numbers, from Qt 4 on."""

    QT_4_0 = 7  #: Of Qt 4.0.
    QT_4_1 = 7  #: Of Qt 4.1.
    QT_4_2 = 8  #: Of Qt 4.2.
    QT_4_3 = 9  #: Of Qt 4.3.
    QT_4_4 = 10  #: Of Qt 4.4.
    QT_4_5 = 11  #: Of Qt 4.5.
    QT_4_6 = 12  #: Of Qt 4.6.
    QT_4_7 = 12  #: Of Qt 4.7.
    QT_4_8 = 12  #: Of Qt 4.8.
    QT_4_9 = 12  #: Of Qt 4.9.
    QT_5_0 = 13  #: Of Qt 5.0.
    QT_5_1 = 14  #: Of Qt 5.1.
    QT_5_2 = 15  #: Of Qt 5.2.
    QT_5_3 = 15  #: Of Qt 5.3.
    QT_5_4 = 16  #: Of Qt 5.4.
    QT_5_5 = 16  #: Of Qt 5.5.
    QT_5_6 = 17  #: Of Qt 5.6.
    QT_5_7 = 17  #: Of Qt 5.7.
    QT_5_8 = 17  #: Of Qt 5.8.
    QT_5_9 = 17  #: Of Qt 5.9.
    QT_5_10 = 17  #: Of Qt 5.10.
    QT_5_11 = 17  #: Of Qt 5.11.
    QT_5_12 = 18  #: Of Qt 5.12.
    QT_5_13 = 19  #: Of Qt 5.13.
    QT_5_14 = 19  #: Of Qt 5.14.
    QT_5_15 = 19  #: Of Qt 5.15.
    QT_6_0 = 20  #: Of Qt 6.0.
    QT_6_1 = 20  #: Of Qt 6.1.
    QT_6_2 = 20  #: Of Qt 6.2.
    QT_6_3 = 20  #: Of Qt 6.3.
    QT_6_4 = 20  #: Of Qt 6.4.
    QT_6_5 = 20  #: Of Qt 6.5.
    QT_6_6 = 21  #: Of Qt 6.6.
    QT_6_7 = 22  #: Of Qt 6.7.
    QT_6_8 = 22  #: Of Qt 6.8.
    QT_6_9 = 22  #: Of Qt 6.9.
    QT_6_10 = 23  #: Of Qt 6.10.
    QT_6_11 = 24  #: Of Qt 6.11.
    QT_6_12 = 24  #: Of Qt 6.12.


class DataStreamError(ValueError):
    """The bytes are not what was to be read.  Qt: QDataStream::ReadCorruptData and SizeLimitExceeded."""


class Incomplete(DataStreamError):
    """The bytes end too early.  Qt: QDataStream::ReadPastEnd."""

    needed: int
    """So many bytes from the beginning on are needed at least; there may have to be more."""

    def __init__(self, there: int, needed: int) -> None:
        super().__init__(there, needed)
        self.needed = needed

    def __str__(self) -> str:
        there, needed = self.args
        return f"the data end after {there} bytes, at least {needed} are needed"


S = TypeVar("S", bound="RawStream")
T = TypeVar("T")
P = ParamSpec("P")


def whole(step: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """A read or write of several parts, which if one of them fails has taken and written nothing."""

    @functools.wraps(step)
    def all_or_nothing(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        mark = self._mark()
        try:
            return step(self, *args, **kwargs)
        except BaseException:
            self._go_back(mark)
            raise

    return all_or_nothing


# Sizes of 32 bits that are none: null, and, since Qt 6.7, that the size follows in 64 bits (qdatastream.h, NullCode and
# ExtendedSize).
NULL, EXTENDED = 0xFFFFFFFF, 0xFFFFFFFE

# Who looks at all bytes to find out where a message ends takes as long for so many as a read takes, 1 us: msgpack and
# json take 60 to 170 ns a byte.
BYTES_A_READ = 16

INTEGERS = {
    order: {code: struct.Struct(sign + code) for code in "bBhHiIqQfd"}
    for order, sign in {"big": ">", "little": "<"}.items()
}
SINGLE = struct.Struct("f")


def to_double(value: float) -> float:
    """Raises: TypeError, ValueError."""
    try:
        if not isinstance(value, (str, bytes, bytearray)):
            return float(value)
    except TypeError:
        pass
    except OverflowError:
        raise ValueError("an int that is too large for a float") from None
    raise TypeError(f"a float is written, not {type(value).__name__}")


def to_single(value: float) -> float:
    """The ``float`` of C that is nearest to ``value``, infinite where that is too large, as C converts it."""
    value = to_double(value)
    try:
        (narrowed,) = SINGLE.unpack(SINGLE.pack(value))
    except OverflowError:
        return math.copysign(math.inf, value)
    assert isinstance(narrowed, float)
    return narrowed


class RawStream:
    """Bytes to read numbers from, or to write them to.

    Args: as for ``DataStream``.
    """

    __slots__ = (
        "_begin",
        "_data",
        "_end",
        "_needed",
        "_numbers",
        "_order",
        "_owed",
        "_position",
        "_read_only",
        "_reads",
        "_single",
        "_version",
    )

    def __init__(
        self,
        data: bytes | bytearray | memoryview = b"",
        *,
        version: int = DataStreamVersion.QT_5_15,
        byte_order: Literal["big", "little"] = "big",
        floating_point_precision: Literal["single", "double"] = "double",
    ) -> None:
        self._data: bytes | bytearray = data if type(data) is bytes else bytes(_view(data, "read"))
        # What is read lies from _begin to _end, and is read up to _position; all else of _data is not ours.
        self._begin = self._position = 0
        self._end = len(self._data)
        self._needed = 0  # what the last Incomplete said
        self._owed = 0  # so many bytes at least must follow for what is being read to be whole
        self._reads = 0  # how much work it was so far, whatever came of it
        self._read_only = False
        self.set_version(version)
        self.set_byte_order(byte_order)
        self.set_floating_point_precision(floating_point_precision)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._end - self._begin} bytes, {self._position - self._begin} read>"

    # -- what it is set to ------------------------------------------------------------------

    def version(self) -> int:
        """Qt: version()."""
        return self._version

    def set_version(self, version: int) -> None:
        """Read and write from now on as that Qt does.

        Raises: ValueError: A version of before Qt 4.0, or one that is not known yet.
        Qt: setVersion().
        """
        if not hasattr(version, "__index__"):
            raise TypeError(f"a version is a DataStreamVersion or an int, not {type(version).__name__}")
        number = operator.index(version)
        oldest, newest = min(DataStreamVersion), max(DataStreamVersion)
        if not oldest <= number <= newest:
            raise ValueError(f"a version is between {oldest:d} (Qt 4.0) and {newest:d} (Qt 6.12), not {number}")
        self._version = number

    def byte_order(self) -> Literal["big", "little"]:
        """Qt: byteOrder()."""
        return self._order

    def set_byte_order(self, byte_order: Literal["big", "little"]) -> None:
        """Qt: setByteOrder()."""
        if byte_order not in INTEGERS:
            raise ValueError(f"a byte order is 'big' or 'little', not {byte_order!r}")
        self._order: Literal["big", "little"] = byte_order
        self._numbers = INTEGERS[byte_order]

    def floating_point_precision(self) -> Literal["single", "double"]:
        """Qt: floatingPointPrecision()."""
        return "single" if self._single else "double"

    def set_floating_point_precision(self, precision: Literal["single", "double"]) -> None:
        """How many bytes a ``float`` and a ``double`` have, 4 or 8, both of them; before Qt 4.6 each has its own.

        Qt: setFloatingPointPrecision().
        """
        if precision not in ("single", "double"):
            raise ValueError(f"a precision is 'single' or 'double', not {precision!r}")
        self._single = precision == "single"

    # -- bytes ------------------------------------------------------------------------------

    def data(self) -> bytes:
        """All of it: what was given and what was written, read or not."""
        self._reads += (self._end - self._begin) // BYTES_A_READ
        return bytes(self._data[self._begin : self._end])

    def at_end(self) -> bool:
        """Is everything read?  Qt: atEnd()."""
        return self._position == self._end

    def read_raw_data(self, count: int) -> bytes:
        """Take ``count`` bytes as they are.  Qt: readRawData().

        Raises: Incomplete: There are fewer.  In Qt, what there is comes.
        """
        start = self._advance(check_count(count))
        piece = self._data[start : start + count]
        return piece if type(piece) is bytes else bytes(piece)

    def skip_raw_data(self, count: int) -> None:
        """Drop ``count`` bytes.  Raises: Incomplete.  Qt: skipRawData()."""
        self._advance(check_count(count))

    def write_raw_data(self, data: bytes | bytearray | memoryview) -> None:
        """Write bytes as they are.  Qt: writeRawData()."""
        if self._read_only:
            raise TypeError("this stream is there to be read only")
        if type(self._data) is not bytearray:
            self._data = bytearray(self._data)
        self._data += _view(data, "written")
        self._end = len(self._data)

    # -- numbers ----------------------------------------------------------------------------

    def read_bool(self) -> bool:
        """Qt: operator>>(bool &)."""
        return self._read_integer("b", 1) != 0

    def write_bool(self, value: bool) -> None:
        """Qt: operator<<(bool)."""
        self._write_integer("b", int(bool(value)))

    def read_int8(self) -> int:
        """Qt: operator>>(qint8 &)."""
        return self._read_integer("b", 1)

    def write_int8(self, value: int) -> None:
        """Qt: operator<<(qint8)."""
        self._write_integer("b", value)

    def read_uint8(self) -> int:
        """Qt: operator>>(quint8 &)."""
        return self._read_integer("B", 1)

    def write_uint8(self, value: int) -> None:
        """Qt: operator<<(quint8)."""
        self._write_integer("B", value)

    def read_int16(self) -> int:
        """Qt: operator>>(qint16 &)."""
        return self._read_integer("h", 2)

    def write_int16(self, value: int) -> None:
        """Qt: operator<<(qint16)."""
        self._write_integer("h", value)

    def read_uint16(self) -> int:
        """Qt: operator>>(quint16 &)."""
        return self._read_integer("H", 2)

    def write_uint16(self, value: int) -> None:
        """Qt: operator<<(quint16)."""
        self._write_integer("H", value)

    def read_int32(self) -> int:
        """Qt: operator>>(qint32 &)."""
        return self._read_integer("i", 4)

    def write_int32(self, value: int) -> None:
        """Qt: operator<<(qint32)."""
        self._write_integer("i", value)

    def read_uint32(self) -> int:
        """Qt: operator>>(quint32 &)."""
        return self._read_integer("I", 4)

    def write_uint32(self, value: int) -> None:
        """Qt: operator<<(quint32)."""
        self._write_integer("I", value)

    def read_int64(self) -> int:
        """Qt: operator>>(qint64 &)."""
        return self._read_integer("q", 8)

    def write_int64(self, value: int) -> None:
        """Qt: operator<<(qint64)."""
        self._write_integer("q", value)

    def read_uint64(self) -> int:
        """Qt: operator>>(quint64 &)."""
        return self._read_integer("Q", 8)

    def write_uint64(self, value: int) -> None:
        """Qt: operator<<(quint64)."""
        self._write_integer("Q", value)

    def read_float(self) -> float:
        """A ``float`` of C, which in a stream of double precision has 8 bytes.  Qt: operator>>(float &)."""
        if self._version >= DataStreamVersion.QT_4_6 and not self._single:
            return to_single(self._read_real("d", 8))
        return self._read_real("f", 4)

    def write_float(self, value: float) -> None:
        """A ``float`` of C: what is too large is infinite.  In a stream of double precision it has 8 bytes.

        Qt: operator<<(float).
        """
        is_double = self._version >= DataStreamVersion.QT_4_6 and not self._single
        self.write_raw_data(self._numbers["d" if is_double else "f"].pack(to_single(value)))

    def read_double(self) -> float:
        """In a stream of single precision it has 4 bytes.  Qt: operator>>(double &)."""
        if self._version >= DataStreamVersion.QT_4_6 and self._single:
            return self._read_real("f", 4)
        return self._read_real("d", 8)

    def write_double(self, value: float) -> None:
        """In a stream of single precision it has 4 bytes.  Qt: operator<<(double)."""
        if self._version >= DataStreamVersion.QT_4_6 and self._single:
            self.write_raw_data(self._numbers["f"].pack(to_single(value)))
        else:
            self.write_raw_data(self._numbers["d"].pack(to_double(value)))

    # -- for what is built on it ------------------------------------------------------------

    def _advance(self, count: int) -> int:
        """Take ``count`` bytes; where they lie.  Nothing that large is made before it is known to be there."""
        start = self._position
        end = start + count
        if end > self._end:
            raise self._incomplete(end)
        self._position = end
        self._reads += 1
        return start

    def _incomplete(self, end: int) -> Incomplete:
        """There would have to be bytes up to ``end``, and what is owed after it."""
        self._needed = end + self._owed - self._begin
        return Incomplete(self._end - self._begin, self._needed)

    def _read_integer(self, code: str, size: int) -> int:
        (value,) = self._numbers[code].unpack_from(self._data, self._advance(size))
        assert isinstance(value, int)
        return value

    def _write_integer(self, code: str, value: int) -> None:
        try:
            piece = self._numbers[code].pack(value)
        except struct.error:
            if not hasattr(value, "__index__"):
                raise TypeError(f"an int is written, not {type(value).__name__}") from None
            value = operator.index(value)
            bits = 8 * self._numbers[code].size
            sort = "a signed" if code.islower() else "an unsigned"
            raise ValueError(f"{value} does not fit into {sort} integer of {bits} bits") from None
        self.write_raw_data(piece)

    def _read_real(self, code: str, size: int) -> float:
        (value,) = self._numbers[code].unpack_from(self._data, self._advance(size))
        assert isinstance(value, float)
        return value

    def _mark(self) -> tuple[int, int, int]:
        return self._position, self._owed, self._end

    def _go_back(self, mark: tuple[int, int, int]) -> None:
        self._position, self._owed, end = mark
        if end < self._end and not self._read_only:
            assert type(self._data) is bytearray
            del self._data[end:]
            self._end = end

    def _look_at(self, data: bytes | bytearray, begin: int, end: int) -> None:
        """Read a stretch of ``data``, uncopied, which is somebody else's."""
        self._data, self._begin, self._position, self._end = data, begin, begin, end
        self._read_only = True

    def _look_away(self) -> None:
        """Leave it: who kept the stream finds nothing more in it."""
        self._data, self._begin, self._position, self._end = b"", 0, 0, 0


def _view(data: bytes | bytearray | memoryview, done: str) -> memoryview:
    try:
        return memoryview(data)
    except TypeError:
        raise TypeError(f"bytes are {done}, not {type(data).__name__}") from None


def check_count(count: int) -> int:
    """``count``, if it can be one."""
    if not hasattr(count, "__index__"):
        raise TypeError(f"a count is an int, not {type(count).__name__}")
    number = operator.index(count)
    if number < 0:
        raise ValueError(f"a count must not be negative, and {number} is")
    return number
