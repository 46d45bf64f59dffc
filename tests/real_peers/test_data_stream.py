"""Qt's wire format beside real Qt: a QDataStream writes what ours writes, and either reads the other's.

With ``TRIOQT_VALUES=1000`` a thousand values of each kind are tried, and others each time; else fewer, always the same.
"""

from __future__ import annotations

import math
import os
import pickle
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.peers import peer_module
from trioqt import DataStream, DataStreamVersion

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
        return self._ask("read", how, kind, data)[1]


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


TEXTS = st.text(st.characters(codec="utf-16"))
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    **{f"int{bits}": integers(bits, True) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": integers(bits, False) for bits in (8, 16, 32, 64)},
    "float": st.floats(),
    "double": st.floats(),
    "q_string": TEXTS,
    "q_byte_array": st.none() | st.binary(),
    "q_string_list": st.lists(TEXTS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_ours_writes_what_qt_writes_and_either_reads_it(qt: Qt, kind: str) -> None:
    """Byte for byte, whatever the version, the byte order and the precision."""

    @MANY
    @given(HOW, KINDS[kind])
    def try_it(how: How, value: object) -> None:
        check_both_ways(qt, how, kind, value)

    try_it()
