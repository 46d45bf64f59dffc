"""Qt's wire format, all that is public of it: here are URLs, and QVariant, which holds any value."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import attrs

from trioqt.core.date_stream import DateStream
from trioqt.core.raw_stream import DataStreamError, DataStreamVersion, whole
from trioqt.core.urls import encoded_url

__all__ = ["DataStream", "Variant"]

# How deep lists and maps lie in one another in a QVariant that is read or written.  Each takes five of Python's frames,
# of which there are 1000; a peer that sends "[[[[..." must not use them up.
DEPTH = 64

# fmt: off
VariantType: TypeAlias = Literal[
    "bool", "int", "uint", "qlonglong", "qulonglong", "long", "ulong", "short", "ushort", "char", "schar", "uchar",
    "float", "double", "QChar", "QString", "QByteArray", "QStringList", "QByteArrayList", "QDate", "QTime", "QDateTime",
    "QUrl", "QVariantList", "QVariantMap", "QVariantHash", "QVariant", "std::nullptr_t",
]
# fmt: on


@attrs.frozen
class Variant:
    """A value of a type that Qt has more of than Python: ``Variant("ushort", 7)``, ``Variant("QUrl", "http://...")``.

    ``write_q_variant`` takes it, in lists and maps too; ``read_q_variant`` gives the value alone.  Qt: QVariant.
    """

    type: VariantType
    """Its name in Qt, QMetaType::name()."""
    value: Any


class DataStream(DateStream):
    """Qt's wire format: numbers, strings, lists, maps, as any program on Qt reads and writes them.  Qt: QDataStream.

    It knows bytes and no socket: ``TcpSocket.receive_message`` reads one from a connection, ``send_all(stream.data())``
    sends one.  Reading begins at the first byte of ``data``, writing adds behind the last.  A read that fails has taken
    nothing, a write that fails has written nothing.

    Args:
      version: Which Qt reads or has written it, a ``DataStreamVersion``.
      byte_order: Of numbers and of the characters of strings.
      floating_point_precision: How many bytes ``float`` and ``double`` have, both of them.
    """

    __slots__ = ("_depth",)

    def __init__(
        self,
        data: bytes | bytearray | memoryview = b"",
        *,
        version: int = DataStreamVersion.QT_5_15,
        byte_order: Literal["big", "little"] = "big",
        floating_point_precision: Literal["single", "double"] = "double",
    ) -> None:
        super().__init__(
            data, version=version, byte_order=byte_order, floating_point_precision=floating_point_precision
        )
        self._depth = 0  # of the QVariant that is being read or written

    @whole
    def read_q_url(self) -> str:
        """``| u32 size | the encoded URL |``; ``""`` is an empty QUrl.  Qt: operator>>(QUrl &).

        Raises: DataStreamError: There is more in it than printable ASCII, which Qt would have encoded.
        """
        data = self.read_q_byte_array() or b""
        if data.translate(None, PRINTABLE.encode()):
            raise DataStreamError("a QUrl that is not encoded")
        return data.decode("ascii")

    def write_q_url(self, url: str) -> None:
        """As QUrl writes it: what no URL has is percent-encoded, scheme and host are in small letters.

        Raises: ValueError: The host is not ASCII, for IDNA is up to you; or it is no URL, of which Qt writes nothing.
        Qt: operator<<(const QUrl &).  There, QUrl also makes an IP address shorter, or longer: ``1`` is ``0.0.0.1``.
        """
        if not isinstance(url, str):
            raise TypeError(f"a URL is str, not {type(url).__name__}")
        self.write_q_byte_array(encoded_url(url) or None)

    # -- QVariant ---------------------------------------------------------------------------

    @whole
    def read_q_variant(self) -> Any:
        """A plain value, whatever integer or string type Qt had; None is an invalid QVariant.

        ``| u32 type | u8 is it null | value |``; before Qt 4.2 without the second.

        Raises: DataStreamError: It is of a type that is none of those of ``Variant``, or lies too deep in others.
        Qt: operator>>(QVariant &).
        """
        number = self.read_uint32()
        if self._version >= DataStreamVersion.QT_4_2:
            self.read_uint8()
        if number == 0:
            if self._version < DataStreamVersion.QT_5_0:
                self.read_q_string()  # which Qt wrote there
            return None
        name = NAMES.get(self._renumbered(number, -1))
        if number == self._number_of_user_types():
            own = (self.read_q_byte_array() or b"").removesuffix(b"\0")[:100]
            raise DataStreamError(f"a QVariant of the type {own!r}, of which only the program that wrote it knows")
        if name is None:
            raise DataStreamError(f"a QVariant of type {number}, which is not supported")
        self._go_deeper(DataStreamError)
        try:
            return TYPES[name].read(self)
        finally:
            self._depth -= 1

    @whole
    def write_q_variant(self, value: Any) -> None:
        """A plain value, or a ``Variant``; those of a list or of a dict with str keys too.

        An int is the first that it fits into of int, qlonglong and qulonglong; a float a double; a list of str a
        QStringList, as in PySide6.  A dict is written in the order of its keys, as a QVariantMap has them.

        Raises: TypeError, ValueError: It cannot be written, or lies too deep in others.
        Qt: operator<<(const QVariant &).
        """
        if value is None:
            self.write_uint32(0)
            if self._version >= DataStreamVersion.QT_4_2:
                self.write_uint8(1)
            if self._version < DataStreamVersion.QT_5_0:
                self.write_q_string(None)
            return
        variant = value if isinstance(value, Variant) else Variant(type_of(value), value)
        if variant.type not in TYPES:
            raise ValueError(f"no QVariant of type {variant.type!r} is supported")
        kind = TYPES[variant.type]
        self.write_uint32(self._renumbered(kind.number, +1))
        if self._version >= DataStreamVersion.QT_4_2:
            self.write_uint8(0)
        self._go_deeper(ValueError)
        try:
            kind.write(self, variant.value)
        finally:
            self._depth -= 1

    def _renumbered(self, number: int, direction: int) -> int:
        """Before Qt 5 the types from VoidStar, 31, on had numbers from 128 on (qvariant.cpp)."""
        if self._version >= DataStreamVersion.QT_5_0 or number < (31 if direction > 0 else 128):
            return number
        return number + 97 * direction

    def _number_of_user_types(self) -> int:
        """Their name follows, with its 0; PySide6 has one, a pickle, for what is no type of Qt's."""
        if self._version < DataStreamVersion.QT_5_0:
            return 127
        return 1024 if self._version < DataStreamVersion.QT_6_0 else 65536

    def _go_deeper(self, error: type[ValueError]) -> None:
        if self._depth >= DEPTH:
            raise error(f"more than {DEPTH} QVariants lie in one another")
        self._depth += 1

    def _read_variants(self) -> list[Any]:
        return self._read_items(DataStream.read_q_variant, 5, "a QVariantList")

    def _write_variants(self, items: Any) -> None:
        self.write_list(items, DataStream.write_q_variant)

    def _read_variant_map(self) -> dict[str, Any]:
        def read_pair(stream: DataStream) -> tuple[str, Any]:
            return stream.read_q_string() or "", stream.read_q_variant()  # to Qt a null key is an empty one

        return dict(self._read_items(read_pair, 9, "a QVariantMap"))

    def _write_variant_map(self, items: Any) -> None:
        if not isinstance(items, Mapping):
            raise TypeError(f"a map is written, not {type(items).__name__}")
        in_order = sorted(items.items(), key=lambda item: str(item[0]).encode("utf-16-be"))
        self.write_map(dict(in_order), DataStream.write_q_string, DataStream.write_q_variant)

    def _read_q_char(self) -> str:
        number = self.read_uint16()
        if 0xD800 <= number < 0xE000:
            raise DataStreamError("a QChar that is half of a pair of surrogates")
        return chr(number)

    def _write_q_char(self, char: str) -> None:
        if not isinstance(char, str):
            raise TypeError(f"a QChar is str, not {type(char).__name__}")
        if len(char) != 1 or not 0 <= ord(char) < 0x10000:
            raise ValueError(f"a QChar is one character of 16 bits, not {char!r}")
        self.write_uint16(ord(char))


# What a URL is written with.
PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@attrs.frozen
class Type:
    """How a QVariant has a value."""

    number: int
    """QMetaType::Type, since Qt 5."""
    read: Callable[[DataStream], Any]
    write: Callable[[DataStream, Any], None]


# fmt: off
TYPES: dict[str, Type] = {
    "bool":           Type(1,  DataStream.read_bool,              DataStream.write_bool),
    "int":            Type(2,  DataStream.read_int32,             DataStream.write_int32),
    "uint":           Type(3,  DataStream.read_uint32,            DataStream.write_uint32),
    "qlonglong":      Type(4,  DataStream.read_int64,             DataStream.write_int64),
    "qulonglong":     Type(5,  DataStream.read_uint64,            DataStream.write_uint64),
    "double":         Type(6,  DataStream.read_double,            DataStream.write_double),
    "QChar":          Type(7,  DataStream._read_q_char,           DataStream._write_q_char),
    "QVariantMap":    Type(8,  DataStream._read_variant_map,      DataStream._write_variant_map),
    "QVariantList":   Type(9,  DataStream._read_variants,         DataStream._write_variants),
    "QString":        Type(10, DataStream.read_q_string,          DataStream.write_q_string),
    "QStringList":    Type(11, DataStream.read_q_string_list,     DataStream.write_q_string_list),
    "QByteArray":     Type(12, DataStream.read_q_byte_array,      DataStream.write_q_byte_array),
    "QDate":          Type(14, DataStream.read_q_date,            DataStream.write_q_date),
    "QTime":          Type(15, DataStream.read_q_time,            DataStream.write_q_time),
    "QDateTime":      Type(16, DataStream.read_q_date_time,       DataStream.write_q_date_time),
    "QUrl":           Type(17, DataStream.read_q_url,             DataStream.write_q_url),
    "QVariantHash":   Type(28, DataStream._read_variant_map,      DataStream._write_variant_map),
    "long":           Type(32, DataStream.read_int64,             DataStream.write_int64),
    "short":          Type(33, DataStream.read_int16,             DataStream.write_int16),
    "char":           Type(34, DataStream.read_int8,              DataStream.write_int8),
    "ulong":          Type(35, DataStream.read_uint64,            DataStream.write_uint64),
    "ushort":         Type(36, DataStream.read_uint16,            DataStream.write_uint16),
    "uchar":          Type(37, DataStream.read_uint8,             DataStream.write_uint8),
    "float":          Type(38, DataStream.read_float,             DataStream.write_float),
    "schar":          Type(40, DataStream.read_int8,              DataStream.write_int8),
    "QVariant":       Type(41, DataStream.read_q_variant,         DataStream.write_q_variant),
    "QByteArrayList": Type(49, lambda stream: stream.read_list(DataStream.read_q_byte_array),
                               lambda stream, items: stream.write_list(items, DataStream.write_q_byte_array)),
    "std::nullptr_t": Type(51, lambda stream: None,               lambda stream, value: None),
}
# fmt: on
NAMES = {kind.number: name for name, kind in TYPES.items()}


def type_of(value: object) -> VariantType:
    """The type of a QVariant that a plain value makes."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(1 << 31) <= value < 1 << 31 else "qlonglong" if value < 1 << 63 else "qulonglong"
    if isinstance(value, float):
        return "double"
    if isinstance(value, str):
        return "QString"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "QByteArray"
    if isinstance(value, datetime.datetime):
        return "QDateTime"
    if isinstance(value, datetime.date):
        return "QDate"
    if isinstance(value, datetime.time):
        return "QTime"
    if isinstance(value, (list, tuple)):
        return "QStringList" if value and all(isinstance(item, str) for item in value) else "QVariantList"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the keys of a QVariantMap are str, not {type(key).__name__}")
        return "QVariantMap"
    raise TypeError(f"a QVariant holds no {type(value).__name__}")
