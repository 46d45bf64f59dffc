"""Qt's wire format: the bytes, and what comes of bytes that are wrong or missing.

That they are Qt's bytes, ``tests/real_peers/test_data_stream.py`` asks Qt.
"""

from __future__ import annotations

import datetime
import tracemalloc
import zoneinfo
from collections.abc import Callable
from typing import Any, Literal

import pytest
from hypothesis import given, settings, strategies as st

from trioqt import DataStream, DataStreamError, DataStreamVersion, Incomplete, Variant


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
    for data in ("fffffffe", "fffffffe fffffffffffffffe", "fffffffe 7fffffffffffffff", "fffffff0"):
        stream = DataStream(bytes.fromhex(data), version=version)
        with pytest.raises(DataStreamError):
            stream.read_q_string()
        with pytest.raises(DataStreamError):
            stream.read_list(DataStream.read_uint8)
        assert stream.data() == stream.read_raw_data(len(stream.data()))


# ---- numbers -----------------------------------------------------------------------------------


PRECISIONS: list[Literal["single", "double"]] = ["single", "double"]


def test_a_float_has_eight_bytes_unless_the_stream_says_otherwise() -> None:
    """QDataStream since Qt 4.6; before it a float had four, whatever the stream says."""
    sizes = {}
    for version in (DataStreamVersion.QT_4_5, DataStreamVersion.QT_4_6):
        for precision in PRECISIONS:
            stream = DataStream(version=version, floating_point_precision=precision)
            stream.write_float(0.1)
            size = len(stream.data())
            stream.write_double(0.1)
            sizes[version.name, precision] = size, len(stream.data()) - size

    assert sizes == {
        ("QT_4_5", "single"): (4, 8),
        ("QT_4_5", "double"): (4, 8),
        ("QT_4_6", "single"): (4, 4),
        ("QT_4_6", "double"): (8, 8),
    }


@pytest.mark.parametrize("payload", ["7ff0000000000001", "7ff8000000000123", "fff8000000000000"])
def test_a_nan_keeps_its_bits(payload: str) -> None:
    """Who uses them for something finds them again, a signalling one too."""
    stream = DataStream(bytes.fromhex(payload))

    back = DataStream()
    back.write_double(stream.read_double())
    assert back.data().hex() == payload


def test_a_number_that_does_not_fit_is_refused() -> None:
    """And what is no number at all."""
    stream = DataStream()
    for write, value in (
        (stream.write_int8, 128),
        (stream.write_uint16, -1),
        (stream.write_int64, 1 << 63),
        (stream.write_double, 10**400),
    ):
        with pytest.raises(ValueError, match=r"does not fit|too large"):
            write(value)
    not_numbers: list[tuple[Callable[[Any], None], object]] = [
        (stream.write_int32, "1"),
        (stream.write_int32, 1.0),
        (stream.write_float, "1.5"),
    ]
    for write_one, wrong in not_numbers:
        with pytest.raises(TypeError):
            write_one(wrong)
    assert stream.data() == b""


def test_a_byte_order_that_is_none_is_refused() -> None:
    """And a precision."""
    for wrong in list[Any]([{"byte_order": "network"}, {"floating_point_precision": 8}]):
        with pytest.raises(ValueError, match=r"is 'big' or|is 'single' or"):
            DataStream(**wrong)


def test_the_byte_order_and_the_precision_can_be_changed_on_the_way() -> None:
    """As a file format that begins with its own byte order needs it."""
    stream = DataStream()
    stream.write_uint16(1)
    stream.set_byte_order("little")
    stream.set_floating_point_precision("single")
    stream.write_uint16(1)
    stream.write_q_string("a")
    stream.write_double(0.5)

    assert stream.data() == bytes.fromhex("0001 0100 02000000 6100 0000003f")
    assert (stream.byte_order(), stream.floating_point_precision()) == ("little", "single")


# ---- lists and maps ----------------------------------------------------------------------------


def test_lists_and_maps_are_read_by_what_reads_an_item() -> None:
    """And lie in one another."""
    stream = DataStream()
    stream.write_list([[1], [], [2, 3]], lambda stream, row: stream.write_list(row, DataStream.write_int8))
    stream.write_map({"a": 1.5}, DataStream.write_q_string, DataStream.write_double)

    rows, pairs = "00000003 00000001 01 00000000 00000002 0203", "00000001 00000002 0061 3ff8000000000000"
    assert stream.data() == bytes.fromhex(rows + pairs)
    assert stream.read_list(lambda stream: stream.read_list(DataStream.read_int8)) == [[1], [], [2, 3]]
    assert stream.read_map(DataStream.read_q_string, DataStream.read_double) == {"a": 1.5}


def test_a_long_list_asks_for_what_all_its_items_need() -> None:
    """Else who reads from a socket would try again for each item that comes, and a list of n would cost n * n."""
    whole = DataStream()
    whole.write_q_string_list(["some text"] * 10_000)
    data = whole.data()
    there = [4]
    while there[-1] < len(data):
        with pytest.raises(Incomplete) as caught:
            DataStream(data[: there[-1]]).read_q_string_list()
        there.append(caught.value.needed)

    assert len(there) < 60
    assert there == sorted(set(there))
    assert there[-1] == len(data)


@pytest.mark.parametrize("count", ["ffffffff", "fffffffe", "7fffffff", "00100000"])
def test_a_count_of_much_with_little_behind_it_makes_nothing(count: str) -> None:
    """Whatever the items are; tracemalloc is the witness."""
    data = bytes.fromhex(count) + bytes(100)
    reads: list[Callable[[DataStream], object]] = [
        lambda stream: stream.read_q_string(),
        lambda stream: stream.read_q_byte_array(),
        lambda stream: stream.read_q_string_list(),
        lambda stream: stream.read_list(DataStream.read_uint8),
        lambda stream: stream.read_map(DataStream.read_uint8, DataStream.read_uint8),
    ]
    tracemalloc.start()
    try:
        for read in reads:
            stream = DataStream(data)
            if count == "ffffffff" and read in reads[:2]:
                assert read(stream) is None  # a null one
                continue
            with pytest.raises(DataStreamError):
                read(stream)
        for kind in (8, 9, 10, 11, 12, 28):
            with pytest.raises(DataStreamError):
                DataStream(bytes.fromhex(f"000000{kind:02x} 00 fffffff0") + data).read_q_variant()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 1 << 20


# ---- text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("00000002 d800", "unexpected end of data"),
        ("00000002 dc00", "illegal encoding"),
        ("00000004 d8000061", "illegal UTF-16 surrogate"),
        ("00000003 006100", "3 bytes"),
    ],
)
def test_a_string_that_is_no_utf_16_is_told_and_can_be_passed_over(data: str, why: str) -> None:
    """Qt takes half of a pair; a Python str with one could not be sent on."""
    stream = DataStream(bytes.fromhex(data + "00000007"))

    with pytest.raises(DataStreamError, match=why):
        stream.read_q_string()
    assert len(stream.read_q_byte_array() or b"") in (2, 3, 4)
    assert stream.read_uint32() == 7


def test_a_text_with_half_of_a_pair_of_surrogates_is_not_written() -> None:
    """It is no text: UnicodeEncodeError, which is a ValueError."""
    stream = DataStream()

    with pytest.raises(UnicodeEncodeError):
        stream.write_q_string("\ud800")
    with pytest.raises(TypeError):
        stream.write_q_string(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        stream.write_q_string_list("one text")
    assert stream.data() == b""


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("HTTP://[::1]/a b/ü?%20#", "http://[::1]/a%20b/%C3%BC?%20#"),
        ("http://Host.Example:080/A?b=[1]#C", "http://host.example:80/A?b=[1]#C"),
        ('http://h/"<>\\^`{|}\t', "http://h/%22%3C%3E%5C%5E%60%7B%7C%7D%09"),
        ("http://h/?<a>#b#c", "http://h/?%3Ca%3E#b%23c"),
        ("http://h/%41%7e%2f%c3?%2", "http://h/A~%2F%C3?%252"),
        ("http://h/100%/%41?%41", "http://h/100%25/%2541?A"),
        ("http://[a]:p|w%@h:/", "http://%5Ba%5D:p%7Cw%25@h/"),
        ("mailto:A@B.example", "mailto:A@B.example"),
        ("file:///tmp/a", "file:///tmp/a"),
        ("../a b?", "../a%20b?"),
        ("/a:b", "/a:b"),
        ("//H/p", "//h/p"),
        ("", ""),
    ],
)
def test_a_url_is_written_with_what_a_url_may_have(url: str, written: str) -> None:
    """All else is percent-encoded, and what need not be so is not; as QUrl does it."""
    stream = DataStream()
    stream.write_q_url(url)

    assert stream.read_q_url() == written
    stream.write_q_url(written)
    assert stream.read_q_url() == written


def test_what_is_no_url_is_neither_written_nor_read() -> None:
    """An international host is refused too: there are two ways to write one, and the library has the older."""
    stream = DataStream()
    wrong = [
        "http://h:65536/",
        "http://h:x/",
        "http://a b/",
        "http://-h/",
        "http://h..h/",
        "http://a@b@c/",
        "http://[a/",
    ]
    for url in (*wrong, "1a:b", "a b:c", " http://h/", "http://h%41/", "\ud800:"):
        with pytest.raises(ValueError, match="is no URL"):
            stream.write_q_url(url)
    with pytest.raises(ValueError, match="the host of a URL must be ASCII"):
        stream.write_q_url("http://bücher.example/")
    with pytest.raises(UnicodeEncodeError):
        stream.write_q_url("http://h/\ud800")
    assert stream.data() == b""
    for sent in ("c3bc", "610a", "6120"):
        with pytest.raises(DataStreamError, match="not encoded"):
            DataStream(bytes.fromhex("00000002" + sent)).read_q_url()


# ---- dates -------------------------------------------------------------------------------------

MOMENT = datetime.datetime(2024, 2, 29, 1, 2, 3, 4000)
DAY_AND_TIME = "0000000000258ad2 0038cefc"


@pytest.mark.parametrize(
    ("zone", "written"),
    [
        (None, "00"),
        (datetime.UTC, "01"),
        (zoneinfo.ZoneInfo("UTC"), "01"),
        (datetime.timezone(datetime.timedelta(hours=1)), "02 00000e10"),
        (datetime.timezone(datetime.timedelta(hours=-1), "named"), "02 fffff1f0"),
        (zoneinfo.ZoneInfo("Asia/Tokyo"), "03 00000014 00410073 00690061 002f0054 006f006b 0079006f"),
    ],
)
def test_a_date_with_its_zone_is_written_and_comes_back(zone: datetime.tzinfo | None, written: str) -> None:
    """A naive one is local time."""
    stream = DataStream()
    stream.write_q_date_time(MOMENT.replace(tzinfo=zone))

    back = stream.read_q_date_time()
    assert stream.data() == bytes.fromhex(DAY_AND_TIME + written)
    assert back == MOMENT.replace(tzinfo=zone)
    assert (back.tzinfo is None) == (zone is None)


def test_what_is_less_than_a_millisecond_is_left_out() -> None:
    """A QTime has no more."""
    stream = DataStream()
    stream.write_q_time(datetime.time(23, 59, 59, 999_999))

    assert stream.read_q_time() == datetime.time(23, 59, 59, 999_000)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("8000000000000000 ffffffff 00", None),
        ("8000000000000000 00000000 01", None),
        ("0000000000258ad2 ffffffff 00", datetime.datetime(2024, 2, 29)),
        (DAY_AND_TIME + "03" + "00000030" + "-No Time Zone Specified!".encode("utf-16-be").hex(), None),
    ],
)
def test_a_date_that_is_null_or_not_valid_is_none(data: str, value: datetime.datetime | None) -> None:
    """A date without a time has just begun, as in Qt."""
    stream = DataStream(bytes.fromhex(data))

    assert stream.read_q_date_time() == value
    assert stream.at_end()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("00000000001a4451 00000000 00", "the julian day 1721425 is in no year"),
        ("7fffffffffffffff 00000000 00", "is in no year"),
        ("0000000000258ad2 05265c00 00", "86400000 milliseconds are more than a day"),
        (DAY_AND_TIME + "04", "unknown sort 4"),
        (DAY_AND_TIME + "02 00015180", "more than a day"),
        (DAY_AND_TIME + "02 80000000", "more than a day"),
        *((DAY_AND_TIME + "03" + name, "no time zone") for name in ("ffffffff", "00000000")),
        *(
            (DAY_AND_TIME + "03" + f"{2 * len(name):08x}" + name.encode("utf-16-be").hex(), "no time zone")
            for name in ("No/Such", "../../../etc/passwd", "/etc/localtime", "Europe", "a\0b", "x" * 5000)
        ),
    ],
)
def test_a_date_that_python_has_not_is_told(data: str, why: str) -> None:
    """Clearly, and nothing was taken; a zone's name is no path to a file of the peer's choice."""
    stream = DataStream(bytes.fromhex(data))

    with pytest.raises(DataStreamError, match=why):
        stream.read_q_date_time()
    assert stream.read_raw_data(8).hex() == data[:16]


def test_a_date_that_cannot_be_written_is_refused() -> None:
    """Nothing of it is."""
    odd = datetime.timezone(datetime.timedelta(microseconds=1))
    stream = DataStream(version=DataStreamVersion.QT_5_0)
    early = datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    for wrong in (MOMENT.replace(tzinfo=odd), early):
        with pytest.raises(ValueError, match=r"whole seconds|in no year"):
            stream.write_q_date_time(wrong)
    with pytest.raises(ValueError, match="no time zone"):
        stream.write_q_time(datetime.time(tzinfo=datetime.UTC))
    with pytest.raises(TypeError):
        stream.write_q_date("2024-02-29")  # type: ignore[arg-type]
    assert stream.data() == b""


# ---- QVariant ----------------------------------------------------------------------------------


def test_a_variant_has_the_first_type_that_its_value_fits_into() -> None:
    """And Variant gives it another one."""
    values = [True, -1, 1 << 31, 1 << 63, 0.5, "a", b"a", ["a"], [1], {}, Variant("ushort", 7), Variant("QUrl", "a:")]
    numbers = []
    for value in values:
        stream = DataStream()
        stream.write_q_variant(value)
        numbers.append(stream.data()[3])
        assert stream.read_q_variant() == (value.value if isinstance(value, Variant) else value)

    assert numbers == [1, 2, 4, 5, 6, 10, 12, 11, 9, 8, 36, 17]


def test_what_no_variant_can_be_made_of_is_refused() -> None:
    """Deep inside too; nothing of it is written."""
    stream = DataStream()
    endless: list[object] = []
    endless.append(endless)
    for wrong, error in (
        (object(), TypeError),
        ({1: 2}, TypeError),
        ([{"a": {0: 1}}], TypeError),
        (1 << 64, ValueError),
        (Variant("uchar", 256), ValueError),
        (Variant("QRect", None), ValueError),  # type: ignore[arg-type]
        (endless, ValueError),
    ):
        with pytest.raises(error):
            stream.write_q_variant(wrong)
    assert stream.data() == b""


def test_variants_that_lie_in_one_another_without_end_are_no_bomb() -> None:
    """Ten bytes a level: a list of one, which is a list of one.  The error is ours, not Python's."""
    level = bytes.fromhex("00000009 00 00000001")
    stream = DataStream(level * 100_000)

    with pytest.raises(DataStreamError, match="more than 64 QVariants lie in one another"):
        stream.read_q_variant()
    assert stream.read_raw_data(len(level)) == level

    deep: object = 1
    for _ in range(63):
        deep = [deep]
    stream = DataStream()
    stream.write_q_variant(deep)
    assert stream.read_q_variant() == deep


@pytest.mark.parametrize("number", ["00000013", "000000ff", "00000401", "00010000", "ffffffff"])
def test_a_variant_of_another_type_is_told(number: str) -> None:
    """A QRect, or one that there is not."""
    stream = DataStream(bytes.fromhex(number + "00" + "00" * 16))

    with pytest.raises(DataStreamError, match=f"a QVariant of type {int(number, 16)}, which is not supported"):
        stream.read_q_variant()
    assert stream.read_uint32() == int(number, 16)


@pytest.mark.parametrize(("version", "number"), [(12, "0000007f"), (19, "00000400"), (20, "00010000")])
def test_a_variant_of_a_type_of_the_programs_own_is_told_with_its_name(version: int, number: str) -> None:
    """Only that program knows how it is read."""
    data = bytes.fromhex(number + "00 00000018") + b"PySide::PyObjectWrapper\0" + b"whatever"
    stream = DataStream(data, version=version)

    with pytest.raises(DataStreamError, match="a QVariant of the type b'PySide::PyObjectWrapper', of which"):
        stream.read_q_variant()
    assert stream.read_raw_data(len(data)) == data
    with pytest.raises(Incomplete):
        DataStream(data[:12], version=version).read_q_variant()


# ---- whatever comes ----------------------------------------------------------------------------

READS: list[Callable[[DataStream], object]] = [
    DataStream.read_q_string,
    DataStream.read_q_byte_array,
    DataStream.read_q_string_list,
    DataStream.read_q_date_time,
    DataStream.read_q_url,
    DataStream.read_q_variant,
    lambda stream: stream.read_list(DataStream.read_q_variant),
    lambda stream: stream.read_map(DataStream.read_q_string, DataStream.read_double),
]
SMALL = st.sampled_from([bytes(3) + bytes([number]) for number in range(60)])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from(READS),
    st.lists(SMALL | st.binary(max_size=4)).map(b"".join),
    st.sampled_from([7, 8, 12, 13, 14, 19, 24]),
    st.sampled_from(["big", "little"]),
)
def test_any_bytes_give_a_value_or_a_clear_error(
    read: Callable[[DataStream], object], data: bytes, version: int, order: Literal["big", "little"]
) -> None:
    """And no other exception; after an error all bytes are there."""
    stream, error = DataStream(data, version=version, byte_order=order), None
    try:
        read(stream)
    except DataStreamError as exc:
        error = exc

    if error is not None:
        assert str(error)
        assert not isinstance(error, Incomplete) or error.needed > len(data)
        assert stream.read_raw_data(len(data)) == data
