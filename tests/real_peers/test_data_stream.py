"""Qt's wire format beside real Qt: a QDataStream writes what ours writes, and either reads the other's.

With ``TRIOQT_VALUES=1000`` a thousand values of each kind are tried, and others each time; else fewer, always the same.
"""

from __future__ import annotations

import datetime
import math
import os
import pickle
import struct
import subprocess
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.peers import peer_module
from trioqt import DataStream, DataStreamError, DataStreamVersion, Incomplete, Variant

VALUES = int(os.environ.get("TRIOQT_VALUES", "0"))
MANY = settings(
    max_examples=VALUES or 60,
    derandomize=not VALUES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

How = tuple[int, str, str]
HOW: st.SearchStrategy[How] = st.tuples(
    st.sampled_from(sorted({int(version) for version in DataStreamVersion})),
    st.sampled_from(["big", "little"]),
    st.sampled_from(["single", "double"]),
)


@attrs.frozen
class Qt:
    """The program ``qt_data_stream.py``, which says there what it understands."""

    program: subprocess.Popen[bytes]

    def _ask(self, *question: object) -> Any:
        stdin, stdout = self.program.stdin, self.program.stdout
        assert stdin is not None
        assert stdout is not None
        asked = pickle.dumps(question)
        stdin.write(len(asked).to_bytes(4, "big") + asked)
        stdin.flush()
        size = stdout.read(4)
        assert size, "Qt's program has ended"
        return pickle.loads(stdout.read(int.from_bytes(size, "big")))

    def writes(self, how: How, kind: str, value: object) -> bytes:
        written = self._ask("write", how, kind, value)
        assert isinstance(written, bytes)
        return written

    def reads(self, how: How, kind: str, data: bytes) -> Any:
        value, status, all_read = self._ask("read", how, kind, data)
        assert (status, all_read) == ("Ok", True), data.hex()
        return value

    def status(self, how: How, kind: str, data: bytes) -> Any:
        """Of reading what is not right."""
        return self._ask("status", how, kind, data)


@pytest.fixture(scope="module")
def qt() -> Iterator[Qt]:
    """A Qt of its own for this module."""
    command = [peer_module("PySide6.QtCore"), str(Path(__file__).with_name("qt_data_stream.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        yield Qt(program)
        assert program.stdin is not None
        program.stdin.close()


def stream_for(how: How, data: bytes = b"") -> DataStream:
    version, order, precision = how
    assert order in ("big", "little")
    assert precision in ("single", "double")
    return DataStream(data, version=version, byte_order=order, floating_point_precision=precision)  # type: ignore[arg-type]


def ours_writes(how: How, kind: str, value: object) -> bytes:
    stream = stream_for(how)
    getattr(stream, f"write_{kind}")(value)
    return stream.data()


def ours_reads(how: How, kind: str, data: bytes) -> Any:
    stream = stream_for(how, data)
    value = getattr(stream, f"read_{kind}")()
    assert stream.at_end()
    return value


def same(a: object, b: object) -> bool:
    """Equal, and a NaN equals a NaN, and 0.0 is not -0.0."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        return struct.pack(">d", a) == struct.pack(">d", b) or (math.isnan(a) and math.isnan(b))
    return type(a) is type(b) and a == b


def check_both_ways(qt: Qt, how: How, kind: str, value: object) -> None:
    written = ours_writes(how, kind, value)
    assert written == qt.writes(how, kind, value)
    assert same(qt.reads(how, kind, written), ours_reads(how, kind, written))


def integers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    least = -(1 << bits - 1) if signed else 0
    return st.integers(least, least + (1 << bits) - 1)


def is_there(value: datetime.datetime) -> bool:
    """Is it a time that clocks show?  Where they are set forward Qt moves it on, and Python leaves it."""
    there = value.astimezone(datetime.UTC).astimezone(value.tzinfo)
    return there.replace(tzinfo=None) == value.replace(tzinfo=None, fold=0)


# PySide6 takes a byte order mark in front of a text for none of it.
TEXTS = st.text(st.characters(codec="utf-16")).filter(lambda text: not text.startswith("\ufeff"))
DATES = st.dates()
TIMES = st.times().map(lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000))
ZONES: st.SearchStrategy[Any] = st.sampled_from(
    [None, datetime.UTC, *map(zoneinfo.ZoneInfo, ("Europe/Berlin", "Asia/Kathmandu"))]
) | st.integers(-14 * 3600, 14 * 3600).map(lambda offset: datetime.timezone(datetime.timedelta(seconds=offset)))
# Away from the ends, where a year of another zone would be none of Python's, and in years of which all databases of
# time zones say the same.
DATE_TIMES = (
    st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(2036, 12, 31), timezones=ZONES, allow_imaginary=False)
    .map(lambda value: value.replace(microsecond=value.microsecond // 1000 * 1000, fold=0))
    .filter(is_there)
)
# No hosts that are numbers or not ASCII, and no empty URL by chance.
ANYTHING = st.text(st.sampled_from("abXY09-._~ ü漢\t\"<>\\^`{|}[]:@!$&'()*+,;=%"), max_size=10)
URLS = st.builds(
    lambda scheme, user, host, path, query, fragment: f"{scheme}//{user}{host}/{path}{query}{fragment}",
    st.sampled_from(["http:", "FTP:", "x-My.1+:", ""]),
    st.just("") | ANYTHING.filter(lambda user: "@" not in user).map(lambda user: f"{user}@"),
    st.sampled_from(["example.org", "Example.ORG.", "127.0.0.1", "[::1]:80", "a_b:080", "a-1:"]),
    ANYTHING,
    st.just("") | st.builds("?{}".format, ANYTHING),
    st.just("") | st.builds("#{}".format, ANYTHING),
) | st.sampled_from(["", "mailto:A@B", "a/b:c", "?", "#", "/", "//", "file:///a", "%", "urn:a:%zz?%41#%41"])
PLAIN = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(), TEXTS, st.binary()),
    *(DATES, TIMES, DATE_TIMES, URLS.map(lambda url: Variant("QUrl", url))),
)
VARIANTS = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    **{f"int{bits}": integers(bits, True) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": integers(bits, False) for bits in (8, 16, 32, 64)},
    "float": st.floats(),
    "double": st.floats(),
    "q_string": TEXTS,
    "q_byte_array": st.none() | st.binary(),
    "q_string_list": st.lists(TEXTS),
    "q_date": st.none() | DATES,
    "q_time": st.none() | TIMES,
    "q_date_time": st.none() | DATE_TIMES,
    "q_url": URLS,
    "q_variant": VARIANTS,
}


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
LEAP_DAY = datetime.datetime(2024, 2, 29, 23, 59, 59, 999_000)
EXAMPLES: dict[str, list[Any]] = {
    "bool": [True, False],
    "int8": [-128, 127],
    "uint8": [0, 255],
    "int16": [-32768, 32767],
    "uint16": [65535],
    "int32": [-(1 << 31), (1 << 31) - 1],
    "uint32": [(1 << 32) - 1],
    "int64": [-(1 << 63), (1 << 63) - 1],
    "uint64": [(1 << 64) - 1],
    "float": [0.0, -0.0, 0.1, 1e39, -1e39, 1e-46, math.inf, -math.inf, math.nan],
    "double": [0.0, -0.0, 0.1, 1e39, 1e-320, math.inf, -math.inf, math.nan],
    "q_string": ["", "aé", "\N{GRINNING FACE}", "a\ufeff\0b", "x" * 70_000],
    "q_byte_array": [None, b"", b"\0\xff", b"x" * 70_000],
    "q_string_list": [[], [""], ["a", "", "ü"]],
    "q_date": [None, LEAP_DAY.date(), datetime.date.min, datetime.date.max],
    "q_time": [None, datetime.time.min, LEAP_DAY.time()],
    "q_date_time": [
        *(None, LEAP_DAY, LEAP_DAY.replace(tzinfo=datetime.UTC), LEAP_DAY.replace(tzinfo=BERLIN)),
        LEAP_DAY.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-9, minutes=-30))),
        LEAP_DAY.replace(tzinfo=datetime.timezone(datetime.timedelta(0))),
    ],
    "q_url": ["", "http://example.org/a b?c=%20#ü", 'HTTP://u%:{@H:080/"<>\\^`{|}%41?%zz%41#a#b'],
    "q_variant": [
        *(None, True, -1, 1 << 31, (1 << 63) - 1, 0.5, "", "a", b"", b"a"),
        *([], ["a"], ["a", 1], {}, {"b": 1, "a": [{}]}),
        *(LEAP_DAY, LEAP_DAY.date(), LEAP_DAY.time(), LEAP_DAY.replace(tzinfo=BERLIN), Variant("QUrl", "ftp://a/")),
        {"\uffff": 1, "\N{GRINNING FACE}": 2},
    ],
}


@pytest.mark.parametrize("version", sorted({int(version) for version in DataStreamVersion}))
def test_every_version_writes_the_same_bytes(qt: Qt, version: int) -> None:
    """The values at the edges, in both byte orders and both precisions."""
    assert EXAMPLES.keys() == KINDS.keys()
    for order in ("big", "little"):
        for precision in ("single", "double"):
            for kind, values in EXAMPLES.items():
                for value in values:
                    check_both_ways(qt, (version, order, precision), kind, value)


TYPED: list[tuple[Variant, Any]] = [
    *((Variant(name, -2), -2) for name in ("int", "qlonglong", "long", "short", "schar")),
    *((Variant(name, 200), 200) for name in ("uint", "qulonglong", "ulong", "ushort", "uchar")),
    (Variant("qulonglong", (1 << 64) - 1), (1 << 64) - 1),
    (Variant("float", 0.5), 0.5),
    (Variant("QChar", "ü"), "ü"),
    (Variant("QStringList", []), []),
    (Variant("QByteArrayList", [b"a", b""]), [b"a", b""]),
    (Variant("QVariantHash", {"a": 1}), {"a": 1}),
    (Variant("QVariant", 5), 5),
    (Variant("QDateTime", None), None),
    (Variant("std::nullptr_t", None), None),
]


@pytest.mark.parametrize(("variant", "value"), TYPED, ids=str)
def test_qt_reads_a_variant_of_a_type_that_python_has_not(qt: Qt, variant: Variant, value: object) -> None:
    """In every version; the types are numbered differently before Qt 5."""
    for version in sorted({int(version) for version in DataStreamVersion}):
        how = (version, "big", "double")
        written = ours_writes(how, "q_variant", variant)
        assert same(qt.reads(how, "q_variant", written), value)
        assert same(ours_reads(how, "q_variant", written), value)


@pytest.mark.parametrize("version", sorted({int(version) for version in DataStreamVersion}))
def test_what_pyside_writes_of_a_type_of_pythons_is_told(qt: Qt, version: int) -> None:
    """A tuple in a QVariant is a pickle, which is not read."""
    how: How = (version, "big", "double")

    with pytest.raises(DataStreamError, match="a QVariant of the type b'PySide::PyObjectWrapper'"):
        ours_reads(how, "q_variant", qt.writes(how, "q_variant", (1, 2)))


# What a size can be, and what follows it; the long form is there since Qt 6.7.
SIZES = [
    *("00000002 0061", "00000000", "ffffffff", "fffffffe 0000000000000002 0061", "fffffffe 0000000000000000"),
    *("fffffffe ffffffffffffffff", "fffffffe fffffffffffffffe", "fffffffe 8000000000000000"),
    *("fffffffe", "fffffffe 000000", "fffffffe 0000000000000004 0061", "00000004 0061", "fffffffd"),
]


@pytest.mark.parametrize("kind", ["q_string", "q_byte_array", "q_string_list"])
@pytest.mark.parametrize("size", SIZES)
def test_a_size_of_any_form_is_read_as_qt_reads_it(qt: Qt, kind: str, size: str) -> None:
    """As a value, too few bytes or an error, before there was the long form and since.

    A null QString is empty to PySide6; and ours looks first whether there are bytes enough for so many items.
    """
    data = bytes.fromhex(size)
    if kind == "q_string_list" and data[-2:] == b"\0a":
        data = data[:-2].replace(b"\2", b"\1") + bytes.fromhex("00000002 0061")
    for version in (DataStreamVersion.QT_6_6, DataStreamVersion.QT_6_7):
        how: How = (version, "big", "double")
        status = qt.status(how, kind, data)
        if status == "Ok":
            value = ours_reads(how, kind, data)
            assert same("" if value is None and kind == "q_string" else value, qt.reads(how, kind, data))
            continue
        with pytest.raises(DataStreamError) as caught:
            getattr(stream_for(how, data), f"read_{kind}")()
        assert kind == "q_string_list" or isinstance(caught.value, Incomplete) == (status == "ReadPastEnd")


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_bytes_end_too_early_both_say_so(qt: Qt, kind: str) -> None:
    """Cut anywhere; ours says how many it needs, which are never more than there were."""

    @MANY
    @given(HOW, KINDS[kind], st.data())
    def try_it(how: How, value: object, data: st.DataObject) -> None:
        written = ours_writes(how, kind, value)
        cut = data.draw(st.integers(0, len(written) - 1))
        stream = stream_for(how, written[:cut])

        with pytest.raises(Incomplete) as caught:
            getattr(stream, f"read_{kind}")()
        assert cut < caught.value.needed <= len(written)
        assert stream.read_raw_data(cut) == written[:cut]
        assert qt.status(how, kind, written[:cut]) == "ReadPastEnd"

    try_it()


@pytest.mark.parametrize("kind", KINDS)
def test_ours_writes_what_qt_writes_and_either_reads_it(qt: Qt, kind: str) -> None:
    """Byte for byte, whatever the version, the byte order and the precision."""

    @MANY
    @given(HOW, KINDS[kind])
    def try_it(how: How, value: object) -> None:
        check_both_ways(qt, how, kind, value)

    try_it()
