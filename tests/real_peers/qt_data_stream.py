"""A program of real Qt: a QDataStream that writes and reads what it is told, in a process of its own.

It takes pickled questions on stdin, and pickles an answer to each on stdout:

    (WRITE, how, kind, value)  ->  the bytes
    (READ, how, kind, bytes)   ->  (the value, the name of the status, whether all was read)
    (STATUS, how, kind, bytes) ->  the name of the status alone

``how`` is (version, byte order, precision), as ``DataStream`` takes them.  ``kind`` is the name of one of its methods
without ``read_`` or ``write_``.  Values are Python's: bytes for a QByteArray, a datetime for a QDateTime.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import pickle
import sys
import zoneinfo
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QByteArray, QDataStream, QDate, QDateTime, QIODevice, Qt, QTime, QTimeZone, QUrl

How = tuple[int, str, str]
Stream = Any  # what PySide6's stubs know of QDataStream's operators is less than what there is

ORDERS = {"big": QDataStream.ByteOrder.BigEndian, "little": QDataStream.ByteOrder.LittleEndian}
PRECISIONS = {
    "single": QDataStream.FloatingPointPrecision.SinglePrecision,
    "double": QDataStream.FloatingPointPrecision.DoublePrecision,
}


def set_up(stream: Stream, how: How) -> Stream:
    version, order, precision = how
    stream.setVersion(version)
    stream.setByteOrder(ORDERS[order])
    stream.setFloatingPointPrecision(PRECISIONS[precision])
    return stream


# ---- values ------------------------------------------------------------------------------------


def to_date(value: datetime.date | None) -> QDate:
    return QDate() if value is None else QDate(value.year, value.month, value.day)


def to_time(value: datetime.time | None) -> QTime:
    return QTime() if value is None else QTime(value.hour, value.minute, value.second, value.microsecond // 1000)


def to_date_time(value: datetime.datetime | None) -> QDateTime:
    if value is None:
        return QDateTime()
    zone: Any = value.tzinfo
    date, time = to_date(value.date()), to_time(value.time())
    if zone is None:
        return QDateTime(date, time)
    if isinstance(zone, zoneinfo.ZoneInfo):
        assert zone.key is not None
        return QDateTime(date, time, QTimeZone(zone.key.encode()))
    offset = value.utcoffset()
    assert offset is not None
    return QDateTime(date, time, QTimeZone.fromSecondsAheadOfUtc(int(offset.total_seconds())))


def from_date(value: QDate) -> datetime.date | None:
    return datetime.date(value.year(), value.month(), value.day()) if value.isValid() else None


def from_time(value: QTime) -> datetime.time | None:
    if not value.isValid():
        return None
    return datetime.time(value.hour(), value.minute(), value.second(), value.msec() * 1000)


def from_date_time(value: QDateTime) -> datetime.datetime | None:
    date, time = from_date(value.date()), from_time(value.time())
    if not value.isValid() or date is None or time is None:
        return None
    zone: datetime.tzinfo | None
    if value.timeSpec() == Qt.TimeSpec.LocalTime:
        zone = None
    elif value.timeSpec() == Qt.TimeSpec.TimeZone and not bytes(value.timeZone().id().data()).startswith(b"UTC"):
        zone = zoneinfo.ZoneInfo(bytes(value.timeZone().id().data()).decode())
    else:
        zone = datetime.timezone(datetime.timedelta(seconds=value.offsetFromUtc()))
    return datetime.datetime.combine(date, time, zone)


def to_variant(value: Any) -> Any:
    if isinstance(value, bytes):
        return QByteArray(value)
    if isinstance(value, datetime.datetime):
        return to_date_time(value)
    if isinstance(value, datetime.date):
        return to_date(value)
    if isinstance(value, datetime.time):
        return to_time(value)
    if isinstance(value, list):
        return [to_variant(item) for item in value]
    if isinstance(value, dict):
        return {key: to_variant(item) for key, item in value.items()}
    return value if isinstance(value, (bool, int, float, str, tuple, type(None))) else QUrl(value.value)


def from_variant(value: Any) -> Any:
    if isinstance(value, QByteArray):
        return bytes(value.data())
    if isinstance(value, QDateTime):
        return from_date_time(value)
    if isinstance(value, QDate):
        return from_date(value)
    if isinstance(value, QTime):
        return from_time(value)
    if isinstance(value, QUrl):
        return from_url(value)
    if isinstance(value, list):
        return [from_variant(item) for item in value]
    if isinstance(value, dict):
        return {key: from_variant(item) for key, item in value.items()}
    return value


def to_byte_array(value: bytes | None) -> QByteArray:
    return QByteArray() if value is None else QByteArray(value)


def from_byte_array(value: QByteArray) -> bytes | None:
    return None if value.isNull() else bytes(value.data())


def from_url(value: QUrl) -> str:
    return bytes(value.toEncoded().data()).decode()


# ---- kinds -------------------------------------------------------------------------------------


def by_operators(to: Callable[[Any], Any], back: Callable[[Any], Any], kind: type) -> tuple[Any, Any]:
    def write(stream: Stream, value: Any) -> None:
        stream << to(value)

    def read(stream: Stream) -> Any:
        value = kind()
        stream >> value
        return back(value)

    return write, read


def by_methods(name: str) -> tuple[Any, Any]:
    write, read = getattr(QDataStream, f"write{name}"), getattr(QDataStream, f"read{name}")
    return write, read


KINDS: dict[str, tuple[Callable[[Stream, Any], object], Callable[[Stream], Any]]] = {
    "bool": by_methods("Bool"),
    **{f"int{bits}": by_methods(f"Int{bits}") for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": by_methods(f"UInt{bits}") for bits in (8, 16, 32, 64)},
    "float": by_methods("Float"),
    "double": by_methods("Double"),
    "q_string": by_methods("QString"),
    "q_string_list": by_methods("QStringList"),
    "q_byte_array": by_operators(to_byte_array, from_byte_array, QByteArray),
    "q_date": by_operators(to_date, from_date, QDate),
    "q_time": by_operators(to_time, from_time, QTime),
    "q_date_time": by_operators(to_date_time, from_date_time, QDateTime),
    "q_url": by_operators(QUrl, from_url, QUrl),
    "q_variant": (
        lambda stream, value: stream.writeQVariant(to_variant(value)),
        lambda stream: from_variant(stream.readQVariant()),
    ),
}


def answer(question: tuple[str, How, str, Any]) -> object:
    task, how, kind, what = question
    write, read = KINDS[kind]
    if task == "write":
        data = QByteArray()
        write(set_up(QDataStream(data, QIODevice.OpenModeFlag.WriteOnly), how), what)
        return bytes(data.data())
    stream = set_up(QDataStream(QByteArray(what)), how)
    if task == "status":
        with contextlib.suppress(ValueError):  # for what was read may be nothing that Python has
            read(stream)
        return stream.status().name
    value = read(stream)
    return value, stream.status().name, stream.atEnd()


def main() -> None:
    if sys.version_info < (3, 12):
        # PySide6 6.12 gives None back more often than it takes it, and then Python ends.  Since 3.12 that does nothing.
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40
    while question := sys.stdin.buffer.read(4):
        asked = pickle.loads(sys.stdin.buffer.read(int.from_bytes(question, "big")))
        answered = pickle.dumps(answer(asked))
        sys.stdout.buffer.write(len(answered).to_bytes(4, "big") + answered)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
