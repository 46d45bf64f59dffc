"""The two buffers: against models of a few lines, and what they cost, counted."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable
from typing import Any, SupportsIndex

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trioqt.core import buffers
from trioqt.core.buffers import BLOCK_SIZE, SPLIT_SIZE, ReadBuffer, WriteBuffer

NO_LIMIT = 1 << 30

# How often and how long the models are compared; a slow machine may take its time over it.
MUCH_TRIED = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

# Few letters, so that delimiters of one to four of them are found, half found and overlapped all the time.
text = st.text("ab\n", max_size=12).map(str.encode)
lines = text.map(lambda piece: piece.replace(b"\n", b"") + b"\n")
blocks = text | st.builds(operator.mul, text, st.integers(1, 40))
delimiters = st.sampled_from([b"\n", b"ab", b"aab"]) | st.text("ab\n", min_size=1, max_size=4).map(str.encode)
counts = st.integers(0, 8) | st.integers(0, 60) | st.just(NO_LIMIT)


def filled(*pieces: bytes) -> ReadBuffer:
    """A buffer in which these have arrived."""
    buffer = ReadBuffer()
    for piece in pieces:
        buffer.append(piece)
    return buffer


# ---- reading, against a model --------------------------------------------------------------


class ReadBufferComparison(RuleBasedStateMachine):
    """The same calls on a ReadBuffer and on plain bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = ReadBuffer()
        self.unread = b""
        self.taken: bytes | None = None  # what a rollback would bring back, in a transaction
        self.sought = b"\n"  # the last delimiter

    def model_take(self, count: int) -> bytes:
        piece, self.unread = self.unread[:count], self.unread[count:]
        if self.taken is not None:
            self.taken += piece
        return piece

    @rule(block=blocks)
    def append(self, block: bytes) -> None:
        self.buffer.append(block)

        self.unread += block

    @rule(count=counts)
    def take(self, count: int) -> None:
        piece = self.buffer.take(count)

        assert type(piece) is bytes
        assert piece == self.model_take(count)

    @rule(delimiter=delimiters, max_bytes=counts)
    def take_through(self, delimiter: bytes, max_bytes: int) -> None:
        self.sought = delimiter
        piece = self.buffer.take_through(delimiter, max_bytes)

        end = self.unread.find(delimiter) + len(delimiter)
        if end < len(delimiter) or end > max_bytes:
            assert piece is None
        else:
            assert type(piece) is bytes
            assert piece == self.model_take(end)

    @rule(line=lines)
    def append_line(self, line: bytes) -> None:
        self.append(line)

    @rule()
    def take_line(self) -> None:
        self.take_through(b"\n", NO_LIMIT)

    @rule(max_bytes=counts)
    def seek_on(self, max_bytes: int) -> None:
        """The same delimiter again: the search goes on where the last one ended."""
        self.take_through(self.sought, max_bytes)

    @rule(count=counts)
    def peek(self, count: int) -> None:
        piece = self.buffer.peek(count)

        assert type(piece) is bytes
        assert piece == self.unread[:count]

    @rule()
    def line_size(self) -> None:
        assert self.buffer.line_size() == self.unread.find(b"\n") + 1

    @precondition(lambda self: self.taken is None)
    @rule(char=st.sampled_from([b"a", b"b", b"\n"]))
    def unget(self, char: bytes) -> None:
        self.buffer.unget(char)

        self.unread = char + self.unread

    @precondition(lambda self: self.taken is None)
    @rule(count=st.integers(1, 5))
    def take_and_unget(self, count: int) -> None:
        """Byte by byte, as a parser gives back what it took too much."""
        piece = self.buffer.take(count)
        for index in range(len(piece) - 1, -1, -1):
            self.buffer.unget(piece[index : index + 1])

    @precondition(lambda self: self.taken is None)
    @rule()
    def start_transaction(self) -> None:
        self.buffer.start_transaction()

        self.taken = b""

    @precondition(lambda self: self.taken is not None)
    @rule()
    def commit(self) -> None:
        self.buffer.commit()

        self.taken = None

    @precondition(lambda self: self.taken is not None)
    @rule()
    def rollback(self) -> None:
        self.buffer.rollback()

        assert self.taken is not None
        self.unread, self.taken = self.taken + self.unread, None

    @rule()
    def clear(self) -> None:
        self.buffer.clear()

        self.unread, self.taken = b"", None

    @invariant()
    def who_looks_at_what_holds_the_bytes_sees_whether_there_are_any(self) -> None:
        """But in a transaction, which keeps what was taken."""
        if not self.buffer.in_transaction:
            assert bool(self.buffer.data) is bool(self.unread)

    @invariant()
    def what_it_says_of_itself_is_true(self) -> None:
        assert len(self.buffer) == len(self.unread)
        assert bool(self.buffer) == bool(self.unread)
        assert self.buffer.held == len(self.unread) + len(self.taken or b"")
        assert self.buffer.in_transaction == (self.taken is not None)
        assert self.buffer.peek(NO_LIMIT) == self.unread


ReadBufferComparison.TestCase.settings = MUCH_TRIED
TestReadBufferBehavesAsPlainBytes = ReadBufferComparison.TestCase


# ---- reading, in words ---------------------------------------------------------------------


def test_a_block_that_is_taken_whole_is_the_block_that_came() -> None:
    """Nothing is copied on the way of a block that arrives in an empty buffer and leaves in one piece."""
    block = b"x" * 1000

    assert filled(block).take(NO_LIMIT) is block
    assert filled(block).take(1000) is block


def test_a_search_finds_a_delimiter_that_arrived_in_two_pieces() -> None:
    """The search goes on just before the end of what it has seen, where a delimiter may have begun."""
    buffer = filled(b"GET / HTTP/1.1\r\n\r")

    assert buffer.take_through(b"\r\n\r\n", NO_LIMIT) is None
    buffer.append(b"\nrest")
    assert buffer.take_through(b"\r\n\r\n", NO_LIMIT) == b"GET / HTTP/1.1\r\n\r\n"
    assert buffer.take(NO_LIMIT) == b"rest"


def test_a_search_goes_on_at_its_place_when_what_was_taken_is_dropped() -> None:
    """What arrives pushes out the line before, so all places move; the newline in it is found all the same."""
    buffer = filled(b"one\nhalf")
    assert buffer.take_through(b"\n", NO_LIMIT) == b"one\n"
    assert buffer.take_through(b"\n", NO_LIMIT) is None

    buffer.append(b" a line\n")

    assert buffer.take_through(b"\n", NO_LIMIT) == b"half a line\n"


def test_a_search_for_something_else_begins_anew() -> None:
    """What a search has passed without finding may hold what the next one seeks."""
    buffer = filled(b"key: value")

    assert buffer.take_through(b"\n", NO_LIMIT) is None
    assert buffer.take_through(b": ", NO_LIMIT) == b"key: "
    assert not buffer.line_size()
    assert buffer.take_through(b"u", NO_LIMIT) == b"valu"


def test_a_line_is_there_though_a_search_for_something_else_went_past_it() -> None:
    """A question for a line does not trust what a search for another delimiter has seen."""
    buffer = filled(b"a\nb")
    assert buffer.take_through(b"--", NO_LIMIT) is None

    assert buffer.line_size()
    assert buffer.take_through(b"\n", NO_LIMIT) == b"a\n"


@pytest.mark.parametrize(("max_bytes", "line"), [(5, None), (6, b"hello\n")])
def test_the_limit_counts_the_delimiter(max_bytes: int, line: bytes | None) -> None:
    """A line of six bytes with its newline needs six; a refused one stays, whole, for a larger limit."""
    buffer = filled(b"hello\nworld")

    assert buffer.take_through(b"\n", max_bytes) == line
    assert buffer.take_through(b"\n", NO_LIMIT) == (b"hello\n" if line is None else None)
    assert buffer.take(NO_LIMIT) == b"world"


def test_a_byte_put_back_can_end_a_line() -> None:
    """A newline that is put in front is found, though the search had passed that place."""
    buffer = filled(b"ab")
    assert not buffer.line_size()

    buffer.unget(b"\n")

    assert buffer.line_size()
    assert buffer.take_through(b"\n", NO_LIMIT) == b"\n"


@pytest.mark.parametrize("take", [lambda b: b.take(NO_LIMIT), lambda b: b.take_through(b"\n", NO_LIMIT)])
def test_a_rollback_brings_back_all_there_was(take: Callable[[ReadBuffer], bytes | None]) -> None:
    """The buffer was read empty in between, and has kept the bytes all the same."""
    buffer = filled(b"a line\n")
    buffer.start_transaction()
    taken = take(buffer)
    assert (taken, len(buffer), buffer.held) == (b"a line\n", 0, 7)

    buffer.rollback()

    assert (buffer.peek(NO_LIMIT), buffer.held) == (b"a line\n", 7)


def test_a_rollback_brings_back_what_came_before_and_after_an_arrival() -> None:
    """Bytes that arrive meanwhile stay behind those that were taken, and the search finds lines in all of it."""
    buffer = filled(b"one\ntw")
    buffer.start_transaction()
    assert buffer.take_through(b"\n", NO_LIMIT) == b"one\n"
    assert buffer.take(NO_LIMIT) == b"tw"
    buffer.append(b"o\n")
    assert (len(buffer), buffer.held) == (2, 8)

    buffer.rollback()

    assert buffer.take_through(b"\n", NO_LIMIT) == b"one\n"
    assert buffer.take_through(b"\n", NO_LIMIT) == b"two\n"
    assert (len(buffer), buffer.held) == (0, 0)


# ---- reading, what it costs ----------------------------------------------------------------


class Work:
    """Bytes that were looked at or moved."""

    def __init__(self) -> None:
        self.sought = 0
        self.copied = 0


def counting_bytearray(work: Work) -> type[bytearray]:
    """A bytearray that counts, into ``work``, what its searches read and its copies move."""

    class CountingBytearray(bytearray):
        def __init__(self, source: bytes | memoryview = b"") -> None:
            super().__init__(source)
            work.copied += len(self)

        def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
            found = super().find(sub, start)
            work.sought += (len(self) if found < 0 else found + len(sub)) - start
            return found

        def __iadd__(self, block: bytes) -> CountingBytearray:  # type: ignore[override,misc]
            work.copied += len(block)
            super().__iadd__(block)
            return self

        def __getitem__(self, index: SupportsIndex | slice) -> Any:
            part = super().__getitem__(index)
            work.copied += len(part) if isinstance(part, builtins.bytearray) else 1
            return part

    return CountingBytearray


def work_of_a_line(monkeypatch: pytest.MonkeyPatch, size: int, delimiter: bytes, *, ask: bool = False) -> Work:
    """What it costs to receive a line of ``size`` bytes in single bytes, with a look for its end after each."""
    work = Work()
    kind = counting_bytearray(work)
    monkeypatch.setattr(buffers, "bytearray", kind, raising=False)
    buffer = ReadBuffer()
    line, piece = b"." * (size - len(delimiter)) + delimiter, None
    for index in range(size):
        assert piece is None
        buffer.append(line[index : index + 1])
        # From the third byte on nothing but this type holds the bytes, so nothing escapes the count.
        assert index < 2 or type(buffer.data) is kind
        if not ask or buffer.line_size():
            piece = buffer.take_through(delimiter, NO_LIMIT)
    assert piece == line
    return work


@pytest.mark.parametrize("ask", [False, True], ids=["take_through", "line_size"])
def test_a_long_line_in_single_bytes_costs_linear_work(monkeypatch: pytest.MonkeyPatch, ask: bool) -> None:
    """Each byte is sought through once, the newline once more by who asks first; and moved twice, in and out."""
    size = 1 << 16

    work = work_of_a_line(monkeypatch, size, b"\n", ask=ask)

    assert work.sought <= size + ask
    assert work.copied <= 2 * size


@pytest.mark.parametrize("delimiter", [b"\n", b"\r\n", b"\r\n\r\n", b"." * 9 + b"!"], ids=repr)
def test_twice_the_bytes_cost_twice_the_work(monkeypatch: pytest.MonkeyPatch, delimiter: bytes) -> None:
    """Whatever the delimiter, a search looks again at no more than the bytes in which one may have begun."""
    once = work_of_a_line(monkeypatch, 1 << 12, delimiter)
    twice = work_of_a_line(monkeypatch, 1 << 13, delimiter)

    assert once.sought <= len(delimiter) << 12
    # The first two bytes are not counted, so once lacks what twice lacks, but only once.
    assert twice.sought <= 2 * (once.sought + 2 * len(delimiter) ** 2)
    assert twice.copied <= 2 * (once.copied + 10)


def test_a_line_that_is_too_long_is_sought_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end that a refused search found is remembered, so asking again costs the delimiter and no more."""
    work = Work()
    monkeypatch.setattr(buffers, "bytearray", counting_bytearray(work), raising=False)
    buffer = filled(b"." * 10_000, b".", b"\n")

    assert buffer.take_through(b"\n", 100) is None
    first = work.sought
    assert [buffer.take_through(b"\n", 100) for _ in range(10)] == [None] * 10

    assert first == 10_002
    assert work.sought - first == 10


def test_taking_many_short_lines_out_of_a_long_rest_moves_each_byte_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lines that are taken one by one, while more arrive, do not move what is behind them."""
    work = Work()
    kind = counting_bytearray(work)
    monkeypatch.setattr(buffers, "bytearray", kind, raising=False)
    buffer = filled(b"." * 100_000 + b"\n", b"\n")
    assert type(buffer.data) is kind

    for _ in range(2_000):
        buffer.append(b"12345678\n")
    assert buffer.take_through(b"\n", NO_LIMIT) == b"." * 100_000 + b"\n"
    assert buffer.take(1) == b"\n"
    for _ in range(2_000):
        assert buffer.take_through(b"\n", NO_LIMIT) == b"12345678\n"

    arrived = 100_002 + 2_000 * 9
    assert len(buffer) == 0
    assert work.sought <= arrived
    assert work.copied <= 2 * arrived + 2_000 * 9 // 400 * 9  # a line that did not fit where lines were split off


def test_lines_are_split_off_a_few_kilobytes_at_a_time() -> None:
    """However many have come: a block of empty lines would be sixty-four thousand objects."""
    buffer = filled(b"\n" * 65_536)

    most = 0
    for _ in range(65_536):
        assert buffer.take_through(b"\n", NO_LIMIT) == b"\n"
        most = max(most, len(buffer.lines or ()))

    assert (len(buffer), buffer.lines) == (0, None)
    assert most == SPLIT_SIZE - 1


def test_bytes_behind_a_line_are_not_split_for_a_protocol_that_reads_them_as_bytes() -> None:
    """A line and a body in turns: only a second line in a row begins to split."""
    buffer = filled(b"4\n\n\n\n\n" * 100)

    for _ in range(100):
        assert (buffer.take_through(b"\n", NO_LIMIT), buffer.lines) == (b"4\n", None)
        assert buffer.take(4) == b"\n\n\n\n"


def test_what_was_taken_is_not_carried_on() -> None:
    """An idle connection holds no bytes that have been read, after a transaction either."""
    buffer = filled(b"x" * 50_000)
    buffer.start_transaction()
    buffer.take(NO_LIMIT)

    buffer.commit()

    assert (len(buffer), buffer.held, len(buffer.data)) == (0, 0, 0)


def test_what_arrives_pushes_out_what_was_taken() -> None:
    """However long a connection that is never read empty lives, it holds what is unread."""
    buffer = filled(b"x")

    for _ in range(1_000):
        buffer.append(b"y" * 100)
        buffer.take(100)
        assert len(buffer.data) <= 101

    assert buffer.take(NO_LIMIT) == b"y"


# ---- writing, against a model --------------------------------------------------------------

# The byte at place n of everything ever queued; 251 is prime, so no two neighbouring blocks look alike.
PATTERN = bytes(range(251)) * 800


def stream_of_bytes(start: int, size: int) -> bytes:
    """What is queued from place ``start`` on."""
    return PATTERN[start % 251 : start % 251 + size]


class WriteBufferComparison(RuleBasedStateMachine):
    """A WriteBuffer against the places in the stream that it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = WriteBuffer()
        self.sent = 0
        self.pieces: list[int] = []  # the sizes of what is queued; the first may be partly sent

    @rule(
        size=st.integers(1, 200) | st.integers(BLOCK_SIZE - 200, BLOCK_SIZE + 200) | st.integers(1, 2 * BLOCK_SIZE),
        view=st.booleans(),
    )
    def append(self, size: int, view: bool) -> None:
        piece = stream_of_bytes(self.sent + sum(self.pieces), size)

        self.buffer.append(memoryview(piece) if view else piece)

        self.pieces.append(size)

    @precondition(lambda self: self.pieces)
    @rule()
    def block(self) -> None:
        block = self.buffer.block()

        assert bytes(block) == stream_of_bytes(self.sent, len(block))
        assert self.pieces[0] <= len(block) <= max(self.pieces[0], BLOCK_SIZE)
        # It could not have taken one more piece in.
        assert len(block) == sum(self.pieces) or len(block) + self.pieces[self.whole_pieces(block)] > BLOCK_SIZE

    def whole_pieces(self, block: memoryview | bytes) -> int:
        ends = [sum(self.pieces[: count + 1]) for count in range(len(self.pieces))]
        assert len(block) in ends
        return ends.index(len(block)) + 1

    @precondition(lambda self: self.pieces)
    @rule(data=st.data())
    def advance_within_a_block(self, data: st.DataObject) -> None:
        self.advance(data.draw(st.integers(0, len(self.buffer.block()))))

    @rule(data=st.data())
    def advance_anywhere(self, data: st.DataObject) -> None:
        self.advance(data.draw(st.integers(0, sum(self.pieces))))

    def advance(self, count: int) -> None:
        self.buffer.advance(count)

        self.sent += count
        while count and count >= self.pieces[0]:
            count -= self.pieces.pop(0)
        if count:
            self.pieces[0] -= count

    @rule()
    def clear(self) -> None:
        self.buffer.clear()

        self.sent += sum(self.pieces)
        self.pieces = []

    @invariant()
    def its_length_is_what_is_queued(self) -> None:
        assert len(self.buffer) == sum(self.pieces)
        assert bool(self.buffer) == bool(self.pieces)


WriteBufferComparison.TestCase.settings = MUCH_TRIED
TestWriteBufferKeepsEveryByteInOrder = WriteBufferComparison.TestCase


# ---- writing, in words ---------------------------------------------------------------------


def queued(*pieces: bytes) -> WriteBuffer:
    """A queue of these."""
    buffer = WriteBuffer()
    for piece in pieces:
        buffer.append(piece)
    return buffer


def test_short_pieces_are_sent_together() -> None:
    """A hundred small messages cost one system call."""
    buffer = queued(*[b"hello\n"] * 100)

    assert bytes(buffer.block()) == b"hello\n" * 100
    assert len(buffer) == 600  # they stay until they are sent


def test_a_long_piece_is_handed_on_uncopied() -> None:
    """Also when part of it is sent already: what the kernel is given is a view of the message itself."""
    message = bytes(10 * BLOCK_SIZE)
    buffer = queued(message, b"next")

    whole = buffer.block()
    buffer.advance(3)
    rest = buffer.block()
    buffer.advance(3)
    less = buffer.block()

    assert whole is message
    assert isinstance(rest, memoryview)
    assert isinstance(less, memoryview)
    assert rest.obj is less.obj is message
    assert (len(rest), len(less)) == (len(message) - 3, len(message) - 6)


@pytest.mark.parametrize(
    ("sizes", "block"),
    [
        ([BLOCK_SIZE - 1, 1], BLOCK_SIZE),
        ([BLOCK_SIZE - 1, 2], BLOCK_SIZE - 1),
        ([1, 1, BLOCK_SIZE], 2),
        ([BLOCK_SIZE - 2, 1, 2], BLOCK_SIZE - 1),
        ([BLOCK_SIZE - 2, 1, 1], BLOCK_SIZE),
        ([BLOCK_SIZE + 1, 1], BLOCK_SIZE + 1),
        ([1, BLOCK_SIZE], 1),
    ],
)
def test_a_block_is_bounded(sizes: list[int], block: int) -> None:
    """64 KiB, or the first piece where that alone is longer; no piece is cut."""
    assert len(queued(*map(bytes, sizes)).block()) == block


def test_an_empty_queue_costs_nothing() -> None:
    """Every idle connection has one: when all is sent, or dropped, no container is left behind."""
    sent, dropped = queued(b"a", b"b"), queued(b"a", b"b")

    sent.advance(2)
    dropped.clear()

    assert (len(sent), sent.pieces) == (len(dropped), dropped.pieces) == (0, None)


def test_a_queue_that_was_sent_can_be_filled_again() -> None:
    """The next message starts a queue of its own."""
    buffer = queued(b"one")
    buffer.advance(3)

    buffer.append(memoryview(b"two"))  # a view, as the rest of a message that is partly sent

    assert bytes(buffer.block()) == b"two"
