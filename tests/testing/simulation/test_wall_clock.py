"""What a simulated program reads of the time: trio's clock, from an epoch, on each host for itself."""

from __future__ import annotations

import datetime
import gc
import logging
import ssl
import threading
import time
import uuid
from typing import Any

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.testing.simulation import clock_keepers
from trioqt.core.tls import SslErrorKind
from trioqt.links.chain import find_errors
from trioqt.testing import BudgetExceeded, FaultPlan, Planned, Skew, VirtualNetwork, simulate
from trioqt.testing.simulation import wall_clock

EPOCH = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()
NOON = datetime.datetime(2030, 6, 1, 12, tzinfo=datetime.UTC)

READINGS = {
    "time": time.time,
    "time_ns": lambda: time.time_ns() / 1e9,
    "CLOCK_REALTIME": lambda: time.clock_gettime(time.CLOCK_REALTIME),
    "CLOCK_REALTIME, ns": lambda: time.clock_gettime_ns(time.CLOCK_REALTIME) / 1e9,
    "now": lambda: datetime.datetime.now().timestamp(),
    "now in a zone": lambda: datetime.datetime.now(datetime.timezone(datetime.timedelta(hours=5))).timestamp(),
    "utcnow": lambda: datetime.datetime.utcnow().replace(tzinfo=datetime.UTC).timestamp(),
    "datetime.today": lambda: datetime.datetime.today().timestamp(),
    "localtime": lambda: time.mktime(time.localtime()),
    "localtime, None": lambda: time.mktime(time.localtime(None)),
    "ctime": lambda: time.mktime(time.strptime(time.ctime())),
    "asctime": lambda: time.mktime(time.strptime(time.asctime())),
    "strftime": lambda: time.mktime(time.strptime(time.strftime("%Y-%m-%d %H:%M:%S"), "%Y-%m-%d %H:%M:%S")),
    "gmtime": lambda: datetime.datetime(*time.gmtime()[:6], tzinfo=datetime.UTC).timestamp(),
    "uuid1": lambda: (uuid.uuid1().time - 0x01B21DD213814000) / 1e7,
    "a record of logging": lambda: logging.makeLogRecord({}).created,
}

COUNTERS = {
    "monotonic": time.monotonic,
    "monotonic_ns": lambda: time.monotonic_ns() / 1e9,
    "perf_counter": time.perf_counter,
    "perf_counter_ns": lambda: time.perf_counter_ns() / 1e9,
    "CLOCK_MONOTONIC": lambda: time.clock_gettime(time.CLOCK_MONOTONIC),
    "CLOCK_MONOTONIC, ns": lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e9,
}


def read(clocks: dict[str, Any]) -> dict[str, float]:
    return {name: clock() for name, clock in clocks.items()}


# ---- it follows trio's -----------------------------------------------------------------------------------------------


def test_every_clock_shows_trios_time_from_the_epoch() -> None:
    """An hour of sleep is an hour on all of them."""

    async def main(net: VirtualNetwork) -> tuple[dict[str, float], dict[str, float], datetime.date]:
        await trio.sleep(3600)
        return read(READINGS), read(COUNTERS), datetime.date.today()

    walls, counters, today = simulate(main)

    assert walls == dict.fromkeys(READINGS, pytest.approx(EPOCH + 3600, abs=1e-5))
    assert counters == dict.fromkeys(COUNTERS, 3600)
    assert today == datetime.date.fromtimestamp(EPOCH + 3600)


def test_modules_that_have_kept_a_function_see_the_same() -> None:
    """By its name, as a default, in a closure, in a class, an object, a dataclass; and all is back afterwards."""
    before = time.time()

    async def main(net: VirtualNetwork) -> dict[str, float]:
        await trio.sleep(3600)
        return clock_keepers.asked()

    within = simulate(main)
    after = clock_keepers.asked()

    expected: dict[str, Any] = dict.fromkeys(within, EPOCH + 3600)
    expected |= dict.fromkeys(clock_keepers.COUNTING, 3600)
    expected["today"] = datetime.date.fromtimestamp(EPOCH + 3600).toordinal()
    assert within == expected
    today = after.pop("today")
    assert today == datetime.date.today().toordinal()
    assert all(seconds >= before for name, seconds in after.items() if name not in clock_keepers.COUNTING)
    assert type(clock_keepers.Keeper.__dict__["static"]) is staticmethod
    assert clock_keepers.Keeper.__dict__["clock"] is time.monotonic


@pytest.mark.parametrize("epoch", [NOON, NOON.timestamp(), int(NOON.timestamp())])
def test_the_epoch_is_yours(epoch: Any) -> None:
    """A datetime with a zone, or seconds since 1970."""

    async def main(net: VirtualNetwork) -> str:
        await trio.sleep(0.25)
        return datetime.datetime.now(datetime.UTC).isoformat()

    assert simulate(main, epoch=epoch) == "2030-06-01T12:00:00.250000+00:00"


def test_without_an_epoch_the_clocks_are_real() -> None:
    """Switched off, nothing of `time` is replaced."""
    real = time.time, time.monotonic, datetime.datetime.__dict__["now"]

    async def main(net: VirtualNetwork) -> bool:
        return (time.time, time.monotonic, datetime.datetime.__dict__["now"]) == real

    assert simulate(main, epoch=None)


@pytest.mark.parametrize(
    ("epoch", "kind", "message"),
    [
        (datetime.datetime(2026, 1, 1), ValueError, "an epoch needs a time zone"),
        (float("inf"), ValueError, "an epoch is a time, not inf"),
        ("2026-01-01", TypeError, "an epoch is a datetime, seconds since 1970, or None, not '2026-01-01'"),
        (True, TypeError, "not True"),
    ],
)
def test_what_is_no_epoch_is_refused(epoch: Any, kind: type[Exception], message: str) -> None:
    """Before anything runs."""

    async def main(net: VirtualNetwork) -> None: ...

    with pytest.raises(kind, match=message):
        simulate(main, epoch=epoch)


def test_a_type_of_ones_own_is_made() -> None:
    """`now` and `today` of a class that inherits give that class."""

    class Mine(datetime.datetime):
        pass

    class Day(datetime.date):
        pass

    async def main(net: VirtualNetwork) -> list[Any]:
        return [Mine.now(), Mine.utcnow(), Mine.today(), Day.today()]

    found = simulate(main, epoch=NOON)

    assert [type(each) for each in found] == [Mine, Mine, Mine, Day]
    assert found[3] == datetime.datetime.fromtimestamp(NOON.timestamp()).date()


def test_who_gives_a_time_is_answered_for_that_time() -> None:
    """Only the time that nobody gives is the simulation's."""

    async def main(net: VirtualNetwork) -> list[Any]:
        past = time.gmtime(0)
        return [past.tm_year, time.ctime(0), time.strftime("%Y", past), time.asctime(past)]

    assert simulate(main) == [1970, time.ctime(0), "1970", "Thu Jan  1 00:00:00 1970"]


def test_a_function_given_to_a_thread_by_trio_reads_the_same_clock() -> None:
    """Trio's own clock is the one thing in it that must stay real."""

    async def main(net: VirtualNetwork) -> list[float]:
        await trio.sleep(10)
        return [await trio.to_thread.run_sync(time.monotonic), await trio.to_thread.run_sync(time.time)]

    assert simulate(main) == [10, EPOCH + 10]


# ---- who is left alone -----------------------------------------------------------------------------------------------


def test_another_thread_has_the_real_time() -> None:
    """Nothing that runs beside the simulation is part of it, though the functions are replaced meanwhile."""
    seen: list[float] = []

    async def main(net: VirtualNetwork) -> None:
        thread = threading.Thread(target=lambda: seen.extend([time.time(), datetime.datetime.now().timestamp()]))
        thread.start()
        thread.join()

    before = time.time()
    simulate(main, epoch=0)
    after = time.time()

    assert all(before <= each <= after for each in seen)
    assert len(seen) == 2


def test_waiting_for_a_thread_takes_real_time() -> None:
    """`threading` and `queue` count in a clock that moves while they wait."""

    async def main(net: VirtualNetwork) -> bool:
        return threading.Event().wait(0.01)

    assert simulate(main) is False


def test_the_same_clock_is_real_again_afterwards_whatever_happened() -> None:
    """After a failure too; and what was kept within the run works outside of it."""
    kept: list[Any] = []

    async def main(net: VirtualNetwork) -> None:
        kept.extend([time.time, datetime.datetime.now])
        raise KeyError

    with pytest.raises(KeyError):
        simulate(main)

    assert "built-in" in repr(time.time)
    assert "built-in" in repr(datetime.datetime.now)
    assert [abs(kept[0]() - time.time()) < 60, abs(kept[1]().timestamp() - time.time()) < 60] == [True, True]


# ---- it stands still within a step -----------------------------------------------------------------------------------


def test_time_sleep_moves_everybodys_clock_and_takes_no_time() -> None:
    """As really: nobody else runs, and all deadlines are nearer afterwards."""

    async def main(net: VirtualNetwork) -> tuple[float, float, bool]:
        with trio.move_on_after(5) as scope:
            time.sleep(3600)  # noqa: ASYNC251  # the test is about what it does
            await trio.lowlevel.checkpoint()
        return trio.current_time(), time.time() - EPOCH, scope.cancelled_caught

    assert simulate(main) == (3600, 3600, True)


def test_time_sleep_refuses_what_it_always_refuses() -> None:
    """A time before now."""

    async def main(net: VirtualNetwork) -> None:
        time.sleep(-1)  # noqa: ASYNC251  # the same

    with pytest.raises(ValueError, match="non-negative"):
        simulate(main)


def test_a_loop_that_waits_for_the_clock_is_told() -> None:
    """It would never end: the clock moves when every task waits."""

    async def main(net: VirtualNetwork) -> None:
        while time.monotonic() < 5:
            pass

    with pytest.raises(BudgetExceeded, match="the clock was read 1,000,000 times in one step; it stands still until"):
        simulate(main)


def test_a_loop_that_sleeps_until_something_happens_is_told() -> None:
    """It would never end: nothing else happens in that step, however late it is."""

    async def main(net: VirtualNetwork) -> None:
        while True:
            time.sleep(0.01)  # noqa: ASYNC251  # that is what it does wrong

    with pytest.raises(BudgetExceeded, match=r"time\.sleep was called 1,000,000 times in one step"):
        simulate(main)


# ---- each host has its own -------------------------------------------------------------------------------------------


def clocks(net: VirtualNetwork, *hosts: str) -> list[tuple[float, float]]:
    found = []
    for host in hosts:
        with net.host(host):
            found.append((round(time.time() - EPOCH, 9), round(time.monotonic(), 9)))
    return found


def test_a_skew_shifts_the_wall_clock_of_one_host_and_only_while_it_lasts() -> None:
    """What counts seconds does not jump."""

    async def main(net: VirtualNetwork) -> list[Any]:
        found = [clocks(net, "db", "web")]
        with net.begin(Skew("db", seconds=90)):
            await trio.sleep(10)
            found.append(clocks(net, "db", "web"))
        found.append(clocks(net, "db", "web"))
        return found

    assert simulate(main) == [[(0, 0), (0, 0)], [(100, 10), (10, 10)], [(10, 10), (10, 10)]]


def test_a_clock_that_goes_wrong_drifts_and_is_set_right_at_the_end() -> None:
    """The wall clock at once; the other never goes back, and keeps what it has counted too much."""

    async def main(net: VirtualNetwork) -> list[Any]:
        clocks(net, "db")
        with net.begin(Skew("db", rate=1.5)):
            await trio.sleep(10)
            found = [clocks(net, "db")]
        found.append(clocks(net, "db"))
        await trio.sleep(10)
        found.append(clocks(net, "db"))
        return [each for (each,) in found]

    assert simulate(main) == [(15, 15), (10, 15), (20, 25)]


def test_skews_of_one_host_add_up() -> None:
    """Seconds are added, rates are multiplied; each ends for itself."""

    async def main(net: VirtualNetwork) -> list[Any]:
        clocks(net, "db")
        first = net.begin(Skew("db", seconds=5, rate=2))
        second = net.begin(Skew("db", seconds=-1, rate=2))
        await trio.sleep(1)
        found = clocks(net, "db")
        first.end()
        found += clocks(net, "db")
        await trio.sleep(1)
        found += clocks(net, "db")
        second.end()
        return found + clocks(net, "db")

    assert simulate(main) == [(8, 4), (3, 4), (5, 6), (2, 6)]


def test_a_skew_is_planned_printed_and_stored_like_any_fault() -> None:
    """And a plan with one says when it began."""
    plan = FaultPlan([Planned(Skew("db", seconds=2, rate=0.5), 1, 3)])

    async def main(net: VirtualNetwork) -> list[Any]:
        with net.host("db"):
            found = []
            for _ in range(5):
                found.append(round(time.time() - EPOCH, 9))
                await trio.sleep(1)
        return found

    assert repr(plan.faults[0].fault) == "Skew('db', seconds=2.0, rate=0.5)"
    assert FaultPlan.from_json(plan.to_json()) == plan
    assert simulate(main, faults=plan) == [0, 3, 3.5, 3, 4]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"rate": 0}, ValueError),
        ({"rate": -1}, ValueError),
        ({"rate": float("inf")}, ValueError),
        ({"seconds": float("nan")}, ValueError),
        ({"seconds": "1"}, TypeError),
    ],
)
def test_a_clock_cannot_go_like_that(options: dict[str, Any], kind: type[Exception]) -> None:
    """It goes on, and shows a time."""
    with pytest.raises(kind):
        Skew("db", **options)


# ---- certificates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("year", "found"),
    [
        (2026, set()),
        (2041, {SslErrorKind.CERTIFICATE_EXPIRED}),
        (1999, {SslErrorKind.CERTIFICATE_NOT_YET_VALID}),
    ],
)
def test_certificates_are_judged_at_that_time(year: int, found: set[SslErrorKind]) -> None:
    """By what trioqt finds in a chain; the handshake of the standard library has OpenSSL ask the system."""
    authority = trustme.CA()
    expires = datetime.datetime(2040, 1, 1, tzinfo=datetime.UTC)
    certificate = authority.issue_cert("server", not_after=expires)
    leaf = x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def main(net: VirtualNetwork) -> set[SslErrorKind]:
        errors = find_errors([leaf.public_bytes(Encoding.DER)], context, "server")
        return {error.kind for error in errors}

    assert simulate(main, epoch=datetime.datetime(year, 1, 1, tzinfo=datetime.UTC)) == found


# ---- another Python --------------------------------------------------------------------------------------------------


def test_where_a_type_cannot_be_changed_its_methods_stay_real_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the dict behind a type is not to be had; the rest follows."""
    monkeypatch.setattr(gc, "get_referents", lambda proxy: [dict(proxy)])
    wall_clock.types.cache_clear()

    async def main(net: VirtualNetwork) -> tuple[float, float]:
        return time.time(), datetime.datetime.now().timestamp()

    try:
        with pytest.warns(RuntimeWarning, match="this Python's datetime cannot be made to follow trio's clock"):
            seconds, now = simulate(main)
        assert (seconds, now > EPOCH + 3600) == (EPOCH, True)
        assert simulate(main)[0] == EPOCH
    finally:
        wall_clock.types.cache_clear()
