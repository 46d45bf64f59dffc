"""The bytes between the link and the user: what has arrived and is unread, what is queued and unsent.

Plain data structures.  They know nothing of sockets, tasks or limits in force; who fills and empties them does.
"""

from __future__ import annotations

import re
from collections import deque
from io import BytesIO

__all__ = ["Delimiters", "OneTransaction", "ReadBuffer", "WriteBuffer"]


class OneTransaction:
    """A transaction that is one task's, and may hold so many bytes."""

    __slots__ = ("max_bytes", "task")

    def __init__(self, task: object, max_bytes: int) -> None:
        self.task: object = task
        self.max_bytes: int = max_bytes


class Delimiters:
    """Several, of which the one that begins first is found, and the longest of those that begin there."""

    __slots__ = ("all", "pattern")

    def __init__(self, delimiters: tuple[bytes, ...]) -> None:
        self.all: tuple[bytes, ...] = tuple(sorted(dict.fromkeys(delimiters), key=len, reverse=True))
        # Of these it takes the first that fits, so the longest.
        self.pattern: re.Pattern[bytes] = re.compile(b"|".join(map(re.escape, self.all)))

    def __len__(self) -> int:
        """Of the longest."""
        return len(self.all[0])

    def __repr__(self) -> str:
        return " or ".join(map(repr, self.all))


# So many bytes are split into lines at once: what a line costs is then 0.04 us in place of 0.4, and the lines of 4 KiB,
# if all of them are empty but for their newline, take 32 KiB, and 110 if they have two bytes.
SPLIT_SIZE = 4096


class ReadBuffer:
    """What has arrived and is unread.

    One stretch of memory with a read position.  A block that arrives when all is read is kept as it came, uncopied;
    taking a line out of it is one slice.  Searches go on where the last one ended, so a line that comes in single
    bytes costs linear time.
    """

    # data[:position] is read already and kept only for a transaction, or until tidying is worth its copy.
    __slots__ = ("_searched", "_sought", "_transaction", "ahead", "data", "lines", "owned", "position")

    def __init__(self) -> None:
        self.ahead: int = 0
        """So many bytes at the end were read ahead, and nobody has asked for them; the owner's mark."""
        self.owned: OneTransaction | None = None
        """The transaction that is open, if it is one task's."""
        self.lines: list[bytes] | None = None
        """The lines at ``position``, last one first, if some were split off already; never an empty list.

        Who takes the first of them moves ``position`` past it, and calls ``lines_over`` after the last.
        """
        self.position: int = 0
        """Where what is unread begins."""
        self.data: bytes | bytearray = b""
        """What holds it.  Empty if nothing is unread, unless a transaction is open: a look that costs no call."""
        self._transaction = -1  # where rollback() goes back to; -1: none is open
        self._searched = 0  # up to here _sought is known not to begin
        self._sought: bytes | Delimiters = b""

    def __len__(self) -> int:
        return len(self.data) - self.position

    @property
    def held(self) -> int:
        """All bytes kept: the unread ones, and those a rollback would bring back."""
        return len(self.data) - (self.position if self._transaction < 0 else self._transaction)

    @property
    def taken(self) -> int:
        """How many bytes a rollback would bring back."""
        return 0 if self._transaction < 0 else self.position - self._transaction

    @property
    def in_transaction(self) -> bool:
        """Is a transaction open?"""
        return self._transaction >= 0

    # -- filling

    def append(self, block: bytes) -> None:
        """Add what arrived."""
        kept = self.position if self._transaction < 0 else self._transaction
        data = self.data
        rest = len(data) - kept
        if rest == 0:
            self.data = block
            if not kept:
                return
        elif rest <= len(block):
            # One copy of at most twice the block, and slices of bytes stay cheap.
            self.data = b"".join((memoryview(data)[kept:], block))
        else:
            # A long rest and little news: a bytearray grows in place, and cutting its front off moves no bytes.
            if type(data) is bytearray:
                del data[:kept]
            else:
                data = bytearray(memoryview(data)[kept:])
            data += block
            self.data = data
        self._shift(kept)

    def unget(self, char: bytes) -> None:
        """Put ``char`` in front of what is unread; not in a transaction, which could not bring it back."""
        position = self.position - len(char)
        if position >= 0 and self.data[position : self.position] == char:
            self.position = position  # given back as it was taken
        else:
            self.data = char + self.data[self.position :]
            self.position = 0
        self.lines = None
        self._searched = 0

    def clear(self) -> None:
        """Forget everything, an open transaction too."""
        self.data = b""
        self.lines = None
        self.position = self._searched = self.ahead = 0
        self._transaction = -1
        self.owned = None

    # -- taking

    def take(self, count: int) -> bytes:
        """Take ``count`` bytes, or all if there are fewer."""
        start = self.position
        self.lines = None
        if start == 0 and count >= len(self.data) and self._transaction < 0:
            piece = self.data
            self.data = b""
            self._searched = 0
            return piece if type(piece) is bytes else bytes(piece)
        piece = self.data[start : start + count]
        self.position = start + len(piece)
        if self.position == len(self.data) and self._transaction < 0:
            self.data = b""
            self.position = self._searched = 0
        return piece if type(piece) is bytes else bytes(piece)

    def take_through(self, delimiter: bytes, max_bytes: int) -> bytes | None:
        """Take up to and with the first ``delimiter``; None if it does not end within ``max_bytes``."""
        data, start = self.data, self.position
        if delimiter != self._sought:
            self.lines = None
            self._sought = delimiter
            self._searched = 0
        if delimiter == b"\n":
            lines = self.lines or self.next_lines()
            if lines is not None:
                if len(lines[-1]) > max_bytes:
                    return None
                line = lines.pop()
                self.position += len(line)
                if not lines:
                    self.lines_over()
                return line
        found = data.find(delimiter, self._searched if self._searched > start else start)
        if found < 0:
            self._searched = max(start, len(data) - len(delimiter) + 1)
            return None
        end = found + len(delimiter)
        if end - start > max_bytes:
            self._searched = found
            return None
        if end == len(data) and self._transaction < 0:
            self.data = b""
            self.position = self._searched = 0
        else:
            self.position = self._searched = end
        piece = data[start:end]
        return piece if type(piece) is bytes else bytes(piece)

    def take_through_any(self, delimiters: Delimiters, max_bytes: int, *, final: bool) -> bytes | None:
        """Take up to and with the first of them; None if none ends within ``max_bytes``, or it is not known yet which.

        It is not known while a longer one may have begun that would come first; so it is the same one however the bytes
        are cut.

        Args:
          final: No more bytes will come.
        """
        data, start = self.data, self.position
        limit = min(len(data), start + max_bytes)
        if self._sought is not delimiters:
            self._sought = delimiters
            self._searched = 0
        found = delimiters.pattern.search(data, max(self._searched, start), limit)
        # From here on one of them may have begun of which not all is there.
        tail = max(start, len(data) - len(delimiters) + 1)
        if found is None:
            self._searched = max(start, min(tail, limit - len(delimiters) + 1))
            return None
        place, end = found.span()
        if not final:
            for begun in range(tail, place + 1):
                rest = bytes(data[begun:])
                for other in delimiters.all:
                    comes_first = begun < place or len(other) > end - place
                    if comes_first and begun + len(other) <= start + max_bytes and other.startswith(rest):
                        self._searched = begun
                        return None
        self._searched = end
        return self.take(end - start)

    def next_lines(self) -> list[bytes] | None:
        """``lines``, of those that are whole within the next few kilobytes; a shortcut, for where there may be several.

        None unless the last thing that was taken is a line, for a message of another kind is not to pay for this.
        """
        start = self.position
        if self._searched != start or start == 0 or self._sought != b"\n" or self.lines is not None:
            return self.lines
        # At newlines alone, as bytes.splitlines does not.
        lines = BytesIO(self.data[start : start + SPLIT_SIZE]).readlines()
        if lines and lines[-1][-1:] != b"\n":
            lines.pop()
        if not lines:
            self._searched = min(start + SPLIT_SIZE, len(self.data))
            return None
        lines.reverse()
        self.lines = lines
        return lines

    def lines_over(self) -> None:
        """The last of ``lines`` was taken."""
        self.lines = None
        self._searched = self.position
        if self.position == len(self.data) and self._transaction < 0:
            self.data = b""
            self.position = self._searched = 0

    def peek(self, count: int) -> bytes:
        """Up to ``count`` bytes, which stay."""
        return bytes(self.data[self.position : self.position + count])

    def stretch(self) -> tuple[bytes | bytearray, int]:
        """What holds the unread bytes, up to its end, and where they begin; until the buffer is used again."""
        return self.data, self.position

    def line_size(self) -> int:
        """How many bytes the first line has, with its newline; 0: there is no newline."""
        start = self.position
        if self._sought != b"\n":
            self.lines = None
            self._sought = b"\n"
            self._searched = 0
        lines = self.lines or self.next_lines()
        if lines is not None:
            return len(lines[-1])
        found = self.data.find(b"\n", max(self._searched, start))
        self._searched = len(self.data) if found < 0 else found
        return found + 1 - start if found >= 0 else 0

    # -- transactions

    def start_transaction(self, owned: OneTransaction | None = None) -> None:
        """From here on what is taken is kept for ``rollback``."""
        self._transaction = self.position
        self.owned = owned

    def commit(self) -> None:
        """Forget what was taken."""
        self._transaction = -1
        self.owned = None
        if self.position == len(self.data):  # or an idle connection would carry it on
            self.data = b""
            self.position = self._searched = 0

    def rollback(self) -> None:
        """Bring back what was taken."""
        self.position = self._transaction
        self.lines = None
        self._transaction = -1
        self.owned = None
        self._searched = 0

    def _shift(self, count: int) -> None:
        """``count`` bytes are gone from the front: move all marks."""
        self.position -= count
        if self._transaction >= 0:
            self._transaction -= count
        self._searched = max(0, self._searched - count)


# A block for the link: as much as one send is likely to take.  Shorter queued pieces are joined up to here, so a
# queue of many small messages costs few system calls.
BLOCK_SIZE = 65536


class WriteBuffer:
    """What is queued and unsent, as the pieces it came in."""

    __slots__ = ("pieces", "size")

    def __init__(self) -> None:
        # An empty deque is 600 bytes, which every idle connection would carry; so there is none until there must be.
        self.pieces: deque[bytes | memoryview] | None = None
        """Who appends to it itself, where that is worth a call, adds to ``size`` too."""
        self.size: int = 0

    def __len__(self) -> int:
        return self.size

    def append(self, piece: bytes | memoryview) -> None:
        """Queue ``piece``, which is not empty and must not change any more; a view is flat, of bytes."""
        if self.pieces is None:
            self.pieces = deque()
        self.pieces.append(piece)
        self.size += len(piece)

    def block(self) -> memoryview | bytes:
        """The bytes to send next; the queue is not empty, and they stay in it."""
        pieces = self.pieces
        assert pieces
        first = pieces[0]
        if len(pieces) == 1 or len(first) + len(pieces[1]) > BLOCK_SIZE:
            return first
        if self.size <= BLOCK_SIZE:
            return b"".join(pieces)
        room, together = BLOCK_SIZE, list[bytes | memoryview]()
        for piece in pieces:
            room -= len(piece)
            if room < 0:
                break
            together.append(piece)
        return b"".join(together)

    def advance(self, count: int) -> None:
        """``count`` bytes at the front are sent."""
        if count == self.size:
            self.clear()
            return
        self.size -= count
        pieces = self.pieces
        while count:
            assert pieces
            first = pieces[0]
            if count < len(first):
                pieces[0] = memoryview(first)[count:]
                return
            count -= len(first)
            pieces.popleft()

    def clear(self) -> None:
        """Forget everything."""
        self.pieces = None
        self.size = 0
