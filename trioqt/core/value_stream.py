"""Qt's wire format: strings, byte arrays, lists and maps, by what numbers and bytes there are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Self, TypeVar

from trioqt.core.raw_stream import EXTENDED, NULL, DataStreamError, DataStreamVersion, RawStream, whole

__all__ = ["ValueStream"]

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class ValueStream(RawStream):
    """Values that have a length, or others in them.

    ``| u32 size | content |``, where the size counts bytes, or the items of a list; see ``_read_size``.
    Source: QDataStream, versions 7 to 24.
    """

    __slots__ = ()

    # -- strings ----------------------------------------------------------------------------

    @whole
    def read_q_string(self) -> str | None:
        """``| u32 size in bytes | UTF-16 |``; None is a null QString.

        Raises:
          DataStreamError: The size is odd, or the content no UTF-16: half of a pair of surrogates, which Qt takes.
          Incomplete: Bytes are missing.
        Qt: operator>>(QString &).
        """
        size = self._read_size("a QString")
        if size is None:
            return None
        if size % 2:
            raise DataStreamError(f"a QString of {size} bytes, which is no UTF-16")
        try:
            return self.read_raw_data(size).decode("utf-16-be" if self._order == "big" else "utf-16-le")
        except UnicodeDecodeError as exc:
            raise DataStreamError(f"a QString that is no UTF-16: {exc.reason} at byte {exc.start}") from None

    def write_q_string(self, text: str | None) -> None:
        """None is a null QString.  Qt: operator<<(const QString &).

        Raises: UnicodeEncodeError: A ValueError: half of a pair of surrogates.
        """
        if text is not None and not isinstance(text, str):
            raise TypeError(f"a QString is str or None, not {type(text).__name__}")
        data = None if text is None else text.encode("utf-16-be" if self._order == "big" else "utf-16-le")
        self._write_sized(data)

    @whole
    def read_q_byte_array(self) -> bytes | None:
        """``| u32 size | bytes |``; None is a null QByteArray.  Raises: Incomplete.  Qt: operator>>(QByteArray &)."""
        size = self._read_size("a QByteArray")
        return None if size is None else self.read_raw_data(size)

    def write_q_byte_array(self, data: bytes | bytearray | memoryview | None) -> None:
        """None is a null QByteArray.  Qt: operator<<(const QByteArray &)."""
        if data is not None and not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"a QByteArray is bytes or None, not {type(data).__name__}")
        self._write_sized(data if data is None else bytes(data))

    # -- lists and maps ---------------------------------------------------------------------

    def read_list(self, read_item: Callable[[Self], T]) -> list[T]:
        """``| u32 count | items |``: ``stream.read_list(DataStream.read_int32)``.

        Raises: DataStreamError, Incomplete: As ``read_item``; at once if there are fewer bytes than items.
        Qt: operator>>(QList<T> &).
        """
        self._check_step(read_item)
        return self._read_items(read_item, 1, "a list")

    @whole
    def write_list(self, items: Collection[T], write_item: Callable[[Self, T], object]) -> None:
        """``stream.write_list([1, 2], DataStream.write_int32)``.  Qt: operator<<(const QList<T> &)."""
        self._check_step(write_item)
        if not hasattr(items, "__len__"):
            raise TypeError(f"a list is written, not {type(items).__name__}")
        self._write_size(len(items))
        for item in items:
            write_item(self, item)

    def read_map(self, read_key: Callable[[Self], K], read_value: Callable[[Self], V]) -> dict[K, V]:
        """``| u32 count | key, value, ... |``; of equal keys the last holds.  Qt: operator>>(QMap<K, V> &), QHash.

        Raises: DataStreamError, Incomplete: As ``read_list``.
        """
        self._check_step(read_key)
        self._check_step(read_value)
        return dict(self._read_items(lambda stream: (read_key(stream), read_value(stream)), 1, "a map"))

    @whole
    def write_map(
        self,
        items: Mapping[K, V],
        write_key: Callable[[Self, K], object],
        write_value: Callable[[Self, V], object],
    ) -> None:
        """In the order of ``items``; a QMap is written in the order of its keys, and read in any.

        Qt: operator<<(const QMap<K, V> &).
        """
        self._check_step(write_key)
        self._check_step(write_value)
        if not isinstance(items, Mapping):
            raise TypeError(f"a map is written, not {type(items).__name__}")
        self._write_size(len(items))
        for key, value in items.items():
            write_key(self, key)
            write_value(self, value)

    def read_q_string_list(self) -> list[str | None]:
        """Qt: operator>>(QStringList &), as any QList."""
        return self._read_items(ValueStream.read_q_string, 4, "a QStringList")

    def write_q_string_list(self, texts: Collection[str | None]) -> None:
        """Qt: operator<<(const QStringList &), as any QList."""
        if isinstance(texts, str):
            raise TypeError("a QStringList is several str, not one")
        self.write_list(texts, ValueStream.write_q_string)

    def _check_step(self, step: Callable[..., object]) -> None:
        """Raises: TypeError: It is a method of this stream, ``stream.read_int32``, which could not be given one."""
        if getattr(step, "__self__", None) is self:
            name = getattr(step, "__name__", "")
            raise TypeError(f"give DataStream.{name}, which is called with the stream, and not the stream's own {name}")

    # -- sizes ------------------------------------------------------------------------------

    def _read_size(self, what: str) -> int | None:
        """``| u32 |``, or since Qt 6.7 ``| 0xFFFFFFFE | i64 |`` for what is larger; None: null."""
        size = self._read_integer("I", 4)  # in one read, so there is nothing to go back to
        return size if size < EXTENDED else self._read_large_size(size, what)

    @whole
    def _read_large_size(self, size: int, what: str) -> int | None:
        if size == NULL:
            return None
        if self._version >= DataStreamVersion.QT_6_7:
            size = self.read_int64()
            if size == -1:
                return None
            if size < 0:
                raise DataStreamError(f"the size of {what} is negative: {size}")
        return size

    def _write_size(self, size: int) -> None:
        if size < EXTENDED:
            self.write_uint32(size)
        elif self._version >= DataStreamVersion.QT_6_7:
            self.write_uint32(EXTENDED)
            self.write_int64(size)
        else:
            raise ValueError(f"a size of {size} is too large before Qt 6.7")

    def _write_sized(self, data: bytes | None) -> None:
        if data is None:
            self.write_uint32(NULL)
        else:
            self._write_size(len(data))
            self.write_raw_data(data)

    @whole
    def _read_items(self, read_item: Callable[[Self], T], least: int, what: str) -> list[T]:
        """A count, and so many items, each of which has ``least`` bytes or more."""
        count = self._read_size(what)
        if count is None:
            raise DataStreamError(f"the size of {what} is negative: -1")
        # What all items need at least is looked at before the first is read, and what is left of it while they are: so
        # a list without end costs nothing, and who waits for bytes hears of many at once, not of the next item's.
        owed, rest = self._owed, count * least
        if self._position + rest > self._end:
            raise self._incomplete(self._position + rest)
        items = list[T]()
        for _ in range(count):
            rest -= least
            self._owed = owed + rest
            items.append(read_item(self))
        self._owed = owed
        return items
