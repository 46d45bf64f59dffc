"""Bencode, BEP 3's way of writing values down: integers, strings of bytes, lists, dictionaries.

    | i42e | 4:spam | l...e | d 3:key i1e e |

There is one way to write each value, and only that one is read: so what was read is written again as it was, and a
hash of the second is a hash of the first.
"""

from __future__ import annotations

import re

__all__ = ["BencodeError", "Value", "decode", "encode"]

Value = int | bytes | list["Value"] | dict[bytes, "Value"]

# A torrent needs five: its dictionary, `info` in it, the list of files, a file, the list of a path.
MAX_DEPTH = 16

# Of 10,000 files a torrent says a dozen things each.  A value of two bytes takes 72 in memory, so these take 14 MB.
MAX_VALUES = 200_000

# Digits: enough for 64 bits, and for any length there can be.
INTEGER = re.compile(rb"i(0|-?[1-9][0-9]{0,19})e")
LENGTH = re.compile(rb"(0|[1-9][0-9]{0,18}):")


class BencodeError(ValueError):
    """It is not bencode, and where."""


def decode(data: bytes) -> Value:
    """The one value that ``data`` is.  Raises: BencodeError."""
    value, end = _Decoder(data).value(0, MAX_DEPTH)
    if end != len(data):
        raise BencodeError(f"{len(data) - end:,} bytes too many, from byte {end:,} on")
    return value


class _Decoder:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._count = 0

    def value(self, at: int, depth: int) -> tuple[Value, int]:
        """The value that begins there, and where it ends."""
        data = self._data
        self._count += 1
        if self._count > MAX_VALUES:
            raise BencodeError(f"more than {MAX_VALUES:,} values, at byte {at:,}")
        kind = data[at : at + 1]
        if kind in (b"l", b"d") and depth == 0:
            raise BencodeError(f"nested deeper than {MAX_DEPTH}, at byte {at:,}")
        if kind == b"l":
            values: list[Value] = []
            at += 1
            while data[at : at + 1] != b"e":
                value, at = self.value(at, depth - 1)
                values.append(value)
            return values, at + 1
        if kind == b"d":
            return self._dictionary(at + 1, depth - 1)
        if number := INTEGER.match(data, at):
            return int(number[1]), number.end()
        return _string(data, at)

    def _dictionary(self, at: int, depth: int) -> tuple[Value, int]:
        data = self._data
        values: dict[bytes, Value] = {}
        last: bytes | None = None
        while data[at : at + 1] != b"e":
            begins = at
            key, at = _string(data, at)
            if last is not None and key <= last:
                raise BencodeError(f"a dictionary's keys are not in order, at byte {begins:,}")
            values[key], at = self.value(at, depth)
            last = key
        return values, at + 1


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    length = LENGTH.match(data, at)
    if length is None:
        what = f"there is {data[at : at + 8]!r}" if at < len(data) else "it ends"
        raise BencodeError(f"no value at byte {at:,}, where {what}")
    begins, count = length.end(), int(length[1])
    if count > len(data) - begins:
        raise BencodeError(f"a string of {count:,} bytes at byte {at:,}, where {len(data) - begins:,} are left")
    return data[begins : begins + count], begins + count


def encode(value: Value) -> bytes:
    """``value`` in bencode."""
    match value:
        case int():
            return b"i%de" % value
        case bytes():
            return b"%d:%s" % (len(value), value)
        case list():
            return b"l%se" % b"".join(map(encode, value))
        case dict():
            return b"d%se" % b"".join(encode(key) + encode(value[key]) for key in sorted(value))
