"""Qt's wire format: the bytes, and what comes of bytes that are wrong or missing.

That they are Qt's bytes, ``tests/real_peers/test_data_stream.py`` asks Qt.
"""

from __future__ import annotations

import pytest

from trioqt import DataStream, DataStreamError, DataStreamVersion, Incomplete


def test_a_string_is_its_size_and_utf_16() -> None:
    """| u32 size in bytes | UTF-16 |, big-endian; null has a size of its own, and is not empty."""
    stream = DataStream()
    stream.write_q_string("aé")
    stream.write_q_string("")
    stream.write_q_string(None)

    assert stream.data() == bytes.fromhex("00000004 0061 00e9  00000000  ffffffff")
    assert [stream.read_q_string() for _ in range(3)] == ["aé", "", None]
    assert stream.at_end()


def test_a_read_that_finds_too_few_bytes_says_how_many_it_needs_and_takes_none() -> None:
    """So that it can be tried again when they have come."""
    stream = DataStream(bytes.fromhex("0007 00000004 0061"))
    number = stream.read_uint16()

    with pytest.raises(Incomplete) as caught:
        stream.read_q_string()
    assert number == 7
    assert caught.value.needed == 10
    assert str(caught.value) == "the data end after 8 bytes, at least 10 are needed"
    assert stream.read_raw_data(6) == bytes.fromhex("00000004 0061")


def test_a_write_that_fails_has_written_nothing() -> None:
    """Not even the count of a list, of which one item cannot be written."""
    stream = DataStream()

    with pytest.raises(ValueError, match="300 does not fit into an unsigned integer of 8 bits"):
        stream.write_list([1, 2, 300], DataStream.write_uint8)
    assert stream.data() == b""


def test_a_version_that_is_not_known_is_refused() -> None:
    """Of before Qt 4.0, or of a Qt that is to come."""
    for version in (6, 25):
        with pytest.raises(ValueError, match="a version is between 7"):
            DataStream(version=version)
    assert DataStream(version=DataStreamVersion.QT_6_5).version() == 20


@pytest.mark.parametrize("version", [DataStreamVersion.QT_5_15, DataStreamVersion.QT_6_7])
def test_a_size_that_is_negative_or_of_4_gib_costs_no_memory(version: int) -> None:
    """It is compared with what is there, before anything is made."""
    for data in ("fffffffe", "fffffffe ffffffffffffffff", "fffffffe 7fffffffffffffff", "fffffff0"):
        stream = DataStream(bytes.fromhex(data), version=version)
        with pytest.raises(DataStreamError):
            stream.read_q_string()
        with pytest.raises(DataStreamError):
            stream.read_list(DataStream.read_uint8)
        assert stream.data() == stream.read_raw_data(len(stream.data()))
