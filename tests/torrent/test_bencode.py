"""Bencode: what is written is read, there is one way to write it, and nothing that a stranger sends does harm."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, strategies

from examples.torrent.bencode import BencodeError, Value, decode, encode

VALUES: strategies.SearchStrategy[Value] = strategies.recursive(
    strategies.integers(-(10**19), 10**19) | strategies.binary(max_size=20),
    lambda values: (
        strategies.lists(values, max_size=4)
        | strategies.dictionaries(strategies.binary(max_size=4), values, max_size=4)
    ),
    max_leaves=20,
).filter(lambda value: depth_of(value) <= 16)


def depth_of(value: Value) -> int:
    if isinstance(value, (list, dict)):
        inner = value if isinstance(value, list) else value.values()
        return 1 + max(map(depth_of, inner), default=0)
    return 0


@given(VALUES)
def test_what_is_written_is_read(value: Value) -> None:
    """Any value, as it was."""
    assert decode(encode(value)) == value


@given(strategies.binary(max_size=40) | strategies.text("ilde0123456789:-a", max_size=20).map(str.encode))
def test_what_is_read_is_written_as_it_was(data: bytes) -> None:
    """So a hash of what is written is a hash of what came; anything else is refused with one kind of error."""
    try:
        value = decode(data)
    except BencodeError:
        return

    assert encode(value) == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no value at byte 0, where it ends"),
        (b"i042e", "no value at byte 0, where there is b'i042e'"),
        (b"i-0e", "no value at byte 0, where there is b'i-0e'"),
        (b"i" + b"9" * 5000 + b"e", "no value at byte 0, where there is b'i9999999'"),
        (b"03:abc", "no value at byte 0, where there is b'03:abc'"),
        (b"5:abc", "a string of 5 bytes at byte 0, where 3 are left"),
        (b"9999999999999999999:", "a string of 9,999,999,999,999,999,999 bytes at byte 0, where 0 are left"),
        (b"-1:", "no value at byte 0, where there is b'-1:'"),
        (b"d1:b0:1:a0:e", "a dictionary's keys are not in order, at byte 6"),
        (b"d1:a0:1:a0:e", "a dictionary's keys are not in order, at byte 6"),
        (b"di1e0:e", "no value at byte 1, where there is b'i1e0:e'"),
        (b"i1ei2e", "3 bytes too many, from byte 3 on"),
        (b"l", "no value at byte 1, where it ends"),
        (b"l" * 100_000 + b"e" * 100_000, "nested deeper than 16, at byte 16"),
        (b"d0:" * 100_000, "nested deeper than 16, at byte 48"),
    ],
)
def test_what_is_no_bencode_is_refused_with_the_place(data: bytes, message: str) -> None:
    """In one line, without taking more memory than a few KiB."""
    tracemalloc.start()
    with pytest.raises(BencodeError) as caught:
        decode(data)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert str(caught.value) == message
    assert taken < 64 * 1024


def test_very_many_small_values_are_refused() -> None:
    """Two bytes each, and 64 or more in memory: what a tracker answers would take 30 times its size."""
    message = "more than 200,000 values, at byte 399,999"
    for value in (b"le", b"de", b"0:"):
        with pytest.raises(BencodeError, match=message):
            decode(b"l" + value * 500_000 + b"e")
    assert decode(b"l" + b"le" * 199_999 + b"e") == [[]] * 199_999
