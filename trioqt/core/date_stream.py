"""Qt's wire format: dates, times and the zones they are in.

A QDateTime is ``| QDate | QTime | i8 sort of zone | the zone |``, and what the third says changed with the versions.
"""

from __future__ import annotations

import datetime
import operator
import zoneinfo

from trioqt.core.raw_stream import DataStreamError, DataStreamVersion, whole
from trioqt.core.value_stream import ValueStream

__all__ = ["DateStream"]

# The julian day of day 0 of Python's, which begins with 1 January of the year 1 as day 1.
JULIAN = 1721425
LAST_DAY = datetime.date.max.toordinal()
# A null QDate is the least of 64 bits, before Qt 5 it was 0; a null QTime is -1.
NULL_DATE, NULL_TIME = -(1 << 63), 0xFFFFFFFF
DAY = 86_400_000  # in milliseconds, which QTime counts

# Qt::TimeSpec, which is written since Qt 5.2 and in Qt 5.0; and QDateTimePrivate::Spec, in the other versions.
LOCAL, UTC, OFFSET, ZONE = range(4)
OLD_SPECS = {LOCAL: -1, UTC: 2, OFFSET: 3, ZONE: 4}
# Qt reads the old ones without what was never written: an offset as UTC, a zone as local time.
READ_OLD = {-1: LOCAL, 0: LOCAL, 1: LOCAL, 2: UTC, 3: UTC, 4: LOCAL}

# What stands in place of a zone's name: its offset follows, or it has none.
HAS_OFFSET, NO_ZONE = "OffsetFromUtc", "-No Time Zone Specified!"


class DateStream(ValueStream):
    """Dates and times.  They are exact to a millisecond, as Qt's."""

    __slots__ = ()

    @whole
    def read_q_date(self) -> datetime.date | None:
        """``| i64 julian day |``, before Qt 5 32 bits; None is a null QDate.

        Raises: DataStreamError: It is not in the years 1 to 9999, the only ones that Python has.
        Qt: operator>>(QDate &).
        """
        if self._version >= DataStreamVersion.QT_5_0:
            day = self.read_int64()
            if day == NULL_DATE:
                return None
        else:
            day = self.read_uint32()
            if day == 0:
                return None
        if not 0 < day - JULIAN <= LAST_DAY:
            raise DataStreamError(f"the julian day {day} is in no year from 1 to 9999")
        return datetime.date.fromordinal(day - JULIAN)

    def write_q_date(self, date: datetime.date | None) -> None:
        """None is a null QDate.  Qt: operator<<(QDate)."""
        is_new = self._version >= DataStreamVersion.QT_5_0
        check_is(date, datetime.date)
        if date is None:
            day = NULL_DATE if is_new else 0
        else:
            day = date.toordinal() + JULIAN
        if is_new:
            self.write_int64(day)
        else:
            self.write_uint32(day)

    @whole
    def read_q_time(self) -> datetime.time | None:
        """``| u32 milliseconds of the day |``; None is a null QTime.  Qt: operator>>(QTime &).

        Raises: DataStreamError: There are more than a day has.  In Qt that is an invalid QTime.
        """
        count = self.read_uint32()
        if count == NULL_TIME:
            return None
        if count >= DAY:
            raise DataStreamError(f"{count} milliseconds are more than a day")
        minutes, milliseconds = divmod(count, 60_000)
        return datetime.time(*divmod(minutes, 60), milliseconds // 1000, milliseconds % 1000 * 1000)

    def write_q_time(self, time: datetime.time | None) -> None:
        """None is a null QTime; what is less than a millisecond is left out.  Qt: operator<<(QTime).

        Raises: ValueError: It has a time zone, which a QTime has not.
        """
        check_is(time, datetime.time)
        if time is None:
            self.write_uint32(NULL_TIME)
            return
        if time.tzinfo is not None:
            raise ValueError("a QTime has no time zone")
        seconds = (time.hour * 60 + time.minute) * 60 + time.second
        self.write_uint32(seconds * 1000 + time.microsecond // 1000)

    @whole
    def read_q_date_time(self) -> datetime.datetime | None:
        """Local time is naive, all else aware: of UTC, of an offset, of a ``ZoneInfo``.  None: null or invalid.

        Before Qt 5.2 nothing tells which zone it was.  Then Qt takes an offset for UTC and a zone for local time, and
        so does this; from Qt 5.0 every one comes as UTC, or as local time if it was that.

        Raises: DataStreamError: It is in no year from 1 to 9999, or of a zone that is not known here.
        Qt: operator>>(QDateTime &).
        """
        date, time = self.read_q_date(), self.read_q_time()
        spec = self.read_int8()
        zone: datetime.tzinfo | None = None
        if self._version >= DataStreamVersion.QT_5_2:
            has_zone, zone = self._read_zone(spec)
            if not has_zone:
                return None
        elif self._version == DataStreamVersion.QT_5_0:
            zone = datetime.UTC
        elif spec not in READ_OLD:
            raise DataStreamError(f"a QDateTime of the unknown sort {spec}")
        elif READ_OLD[spec] == UTC:
            zone = datetime.UTC
        if date is None:
            return None
        value = datetime.datetime.combine(date, time or datetime.time(), zone)  # without a time a day has just begun
        if self._version != DataStreamVersion.QT_5_0 or spec != LOCAL:
            return value
        try:
            return value.astimezone().replace(tzinfo=None)
        except (OverflowError, ValueError, OSError):
            raise DataStreamError("a QDateTime that is in no year from 1 to 9999 here") from None

    @whole
    def write_q_date_time(self, value: datetime.datetime | None) -> None:
        """A naive one is local time; of a ``ZoneInfo`` its name is written, of any other zone the offset.

        Before Qt 5.2 the zone is lost, see ``read_q_date_time``.  None is a null QDateTime.

        Raises: ValueError: Its offset is no whole number of seconds; in UTC, which Qt 5.0 wants, there is no such year.
        Qt: operator<<(const QDateTime &).
        """
        check_is(value, datetime.datetime)
        spec, offset, name = zone_of(value)
        if value is not None and self._version == DataStreamVersion.QT_5_0:
            try:
                value = value.astimezone(datetime.UTC)
            except (OverflowError, OSError):
                raise ValueError(f"{value} is in no year from 1 to 9999 of UTC") from None
        self.write_q_date(value)
        self.write_q_time(value if value is None else value.time())
        if self._version >= DataStreamVersion.QT_5_2:
            self.write_int8(spec)
            if spec == OFFSET:
                self.write_int32(offset)
            elif spec == ZONE:
                self.write_q_string(name)
        else:
            self.write_int8(spec if self._version == DataStreamVersion.QT_5_0 else OLD_SPECS[spec])

    def _read_zone(self, spec: int) -> tuple[bool, datetime.tzinfo | None]:
        """What ``spec`` says, and what follows.

        Returns: Has it a zone, and which?  None: local time.
        """
        if spec == LOCAL:
            return True, None
        if spec == UTC:
            return True, datetime.UTC
        if spec == OFFSET:
            return True, self._read_offset("")
        if spec != ZONE:
            raise DataStreamError(f"a QDateTime of the unknown sort {spec}")
        name = self.read_q_string()
        if name == NO_ZONE:
            return False, None
        if name != HAS_OFFSET:
            return True, zone_named(name or "")
        # | QString id | i32 offset | QString name | QString abbreviation | i32 territory | QString comment |
        zone = self._read_offset(self.read_q_string() or "")
        self.read_q_string(), self.read_q_string(), self.read_int32(), self.read_q_string()
        return True, zone

    def _read_offset(self, name: str) -> datetime.timezone:
        seconds = self.read_int32()
        try:
            offset = datetime.timedelta(seconds=seconds)
            if name.startswith("UTC"):  # as Python calls it by itself
                name = ""
            return (datetime.timezone(offset, name) if name else datetime.timezone(offset)) if seconds else datetime.UTC
        except ValueError:
            raise DataStreamError(f"an offset of {seconds} seconds from UTC is more than a day") from None


def check_is(value: object, kind: type) -> None:
    """Raises: TypeError."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"a {kind.__name__} or None is written, not {type(value).__name__}")


def zone_of(value: datetime.datetime | None) -> tuple[int, int, str]:
    """The sort of its zone, its offset and its name, as far as they are to be written."""
    offset = None if value is None else value.utcoffset()
    if value is None or offset is None:
        return LOCAL, 0, ""
    name = value.tzinfo.key if isinstance(value.tzinfo, zoneinfo.ZoneInfo) else None
    if name is not None and name != "UTC":
        return ZONE, 0, name
    if offset.microseconds:
        raise ValueError(f"an offset from UTC is whole seconds, not {offset}")
    seconds = operator.index(offset // datetime.timedelta(seconds=1))
    return (OFFSET, seconds, "") if seconds else (UTC, 0, "")


def zone_named(name: str) -> zoneinfo.ZoneInfo:
    """A peer chose the name: it may be anything."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise DataStreamError(f"no time zone {name!r} is known here") from None
