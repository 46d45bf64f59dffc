"""Options: which number means what on which platform, and who may bind an address twice."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from trioqt.core.options import (
    BindMode,
    OptionSpec,
    SocketOption,
    SocketType,
    bind_options,
    can_be_remembered,
    first_options,
    listen_options,
    name_of,
    option_for,
    protocol_of,
    unsent_options,
)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="what the Linux kernel does")

TCP, SOL, IP, IPV6 = socket.IPPROTO_TCP, socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6

# What Python's socket module has on systems that we may not be on (their own headers' numbers).
LINUX = SimpleNamespace(SO_REUSEADDR=2, SO_REUSEPORT=15)
MACOS = SimpleNamespace(
    TCP_NODELAY=1,
    SO_KEEPALIVE=8,
    SO_REUSEADDR=4,
    SO_REUSEPORT=0x200,
    IP_TOS=3,
    TCP_KEEPALIVE=16,
    TCP_KEEPINTVL=0x101,
    TCP_KEEPCNT=0x102,
)
WINDOWS = SimpleNamespace(TCP_NODELAY=1, SO_KEEPALIVE=8, SO_REUSEADDR=4, SO_EXCLUSIVEADDRUSE=-5, TCP_KEEPIDLE=3)

DEFAULT, SHARE, DONT_SHARE, HINT, PORT = (
    BindMode.DEFAULT_FOR_PLATFORM,
    BindMode.SHARE_ADDRESS,
    BindMode.DONT_SHARE_ADDRESS,
    BindMode.REUSE_ADDRESS_HINT,
    BindMode.REUSE_PORT,
)


def test_the_numbers_are_qts() -> None:
    """A program that stores or logs them can be ported without a table."""
    assert [(option.name, option.value) for option in SocketOption] == [
        ("LOW_DELAY", 0),
        ("KEEP_ALIVE", 1),
        ("MULTICAST_TTL", 2),
        ("MULTICAST_LOOPBACK", 3),
        ("TYPE_OF_SERVICE", 4),
        ("SEND_BUFFER_SIZE", 5),
        ("RECEIVE_BUFFER_SIZE", 6),
        ("PATH_MTU", 7),
        ("KEEP_ALIVE_IDLE", 8),
        ("KEEP_ALIVE_INTERVAL", 9),
        ("KEEP_ALIVE_COUNT", 10),
    ]
    assert [(kind.name, kind.value) for kind in SocketType] == [("TCP", 0), ("UDP", 1), ("SCTP", 2), ("UNKNOWN", -1)]
    assert [(mode.name, mode.value) for mode in BindMode] == [
        ("SHARE_ADDRESS", 1),
        ("DONT_SHARE_ADDRESS", 2),
        ("REUSE_ADDRESS_HINT", 4),
        ("REUSE_PORT", 8),
    ]
    assert BindMode(0) is DEFAULT


# ---- One option --------------------------------------------------------------------------------


@on_linux
@pytest.mark.parametrize("option", list(SocketOption))
def test_linux_has_every_option_for_both_families(option: SocketOption) -> None:
    """The whole table, read off: level and number for IPv4, then for IPv6."""
    table = {
        SocketOption.LOW_DELAY: (OptionSpec(TCP, 1, True), OptionSpec(TCP, 1, True)),
        SocketOption.KEEP_ALIVE: (
            OptionSpec(SOL, socket.SO_KEEPALIVE, True),
            OptionSpec(SOL, socket.SO_KEEPALIVE, True),
        ),
        SocketOption.MULTICAST_TTL: (OptionSpec(IP, 33, default=1), OptionSpec(IPV6, 18, default=1)),
        SocketOption.MULTICAST_LOOPBACK: (OptionSpec(IP, 34, True), OptionSpec(IPV6, 19, True)),
        SocketOption.TYPE_OF_SERVICE: (OptionSpec(IP, 1), OptionSpec(IPV6, 67)),
        SocketOption.SEND_BUFFER_SIZE: (OptionSpec(SOL, socket.SO_SNDBUF), OptionSpec(SOL, socket.SO_SNDBUF)),
        SocketOption.RECEIVE_BUFFER_SIZE: (OptionSpec(SOL, socket.SO_RCVBUF), OptionSpec(SOL, socket.SO_RCVBUF)),
        SocketOption.PATH_MTU: (OptionSpec(IP, 14, read_only=True), OptionSpec(IPV6, 24, read_only=True)),
        SocketOption.KEEP_ALIVE_IDLE: (OptionSpec(TCP, 4), OptionSpec(TCP, 4)),
        SocketOption.KEEP_ALIVE_INTERVAL: (OptionSpec(TCP, 5), OptionSpec(TCP, 5)),
        SocketOption.KEEP_ALIVE_COUNT: (OptionSpec(TCP, 6), OptionSpec(TCP, 6)),
    }

    assert (option_for(option, socket.AF_INET), option_for(option, socket.AF_INET6)) == table[option]


@pytest.mark.parametrize(
    ("option", "macos", "windows"),
    [
        (SocketOption.LOW_DELAY, OptionSpec(TCP, 1, True), OptionSpec(TCP, 1, True)),
        (SocketOption.KEEP_ALIVE_IDLE, OptionSpec(TCP, 16), OptionSpec(TCP, 3)),
        (SocketOption.KEEP_ALIVE_COUNT, OptionSpec(TCP, 0x102), None),
        (SocketOption.TYPE_OF_SERVICE, OptionSpec(IP, 3), None),
        (SocketOption.PATH_MTU, None, None),
    ],
)
def test_a_platform_has_the_options_that_its_socket_module_names(
    option: SocketOption, macos: OptionSpec | None, windows: OptionSpec | None
) -> None:
    """The keep-alive idle time has another name on macOS; what is not there is None, never an AttributeError."""
    assert option_for(option, socket.AF_INET, constants=MACOS) == macos
    assert option_for(option, socket.AF_INET, constants=WINDOWS) == windows


@pytest.mark.parametrize("option", list(SocketOption))
def test_no_option_is_known_for_another_family_or_a_bare_platform(option: SocketOption) -> None:
    """Local sockets and what is still to come: no option, and no crash."""
    assert option_for(option, socket.AF_UNSPEC) is None
    assert option_for(option, socket.AF_INET, constants=SimpleNamespace()) is None


# ---- Each kind of socket -----------------------------------------------------------------------


@on_linux
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_datagram_socket_has_what_is_not_of_connections(family: int) -> None:
    """No Nagle algorithm to switch off, and nobody to be kept alive; the rest is as for TCP."""
    lacking = {option for option in SocketOption if option_for(option, family, SocketType.UDP) is None}
    others = set(SocketOption) - lacking

    assert lacking == {
        SocketOption.LOW_DELAY,
        SocketOption.KEEP_ALIVE_IDLE,
        SocketOption.KEEP_ALIVE_INTERVAL,
        SocketOption.KEEP_ALIVE_COUNT,
    }
    assert all(option_for(option, family, SocketType.UDP) == option_for(option, family) for option in others)


@on_linux
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_sctp_has_a_low_delay_of_its_own_and_no_figures_of_keep_alive(family: int) -> None:
    """Its number is that of linux/sctp.h: TCP's would be another option of SCTP's."""
    found = {option: option_for(option, family, SocketType.SCTP) for option in SocketOption}

    assert found[SocketOption.LOW_DELAY] == OptionSpec(132, 3, is_flag=True)
    assert {option for option, spec in found.items() if spec is None} == {
        SocketOption.KEEP_ALIVE_IDLE,
        SocketOption.KEEP_ALIVE_INTERVAL,
        SocketOption.KEEP_ALIVE_COUNT,
    }


def test_what_a_new_socket_is_told_and_what_can_wait_for_it() -> None:
    """Low delay for streams, as in trio; what would make every later connection fail is not remembered."""
    streams = (SocketType.TCP, SocketType.SCTP)

    assert [first_options(kind) for kind in streams] == [{SocketOption.LOW_DELAY: 1}] * 2
    assert first_options(SocketType.UDP) == {}
    for kind in SocketType:
        refused = {option for option in SocketOption if not can_be_remembered(option, kind)}
        assert refused == {SocketOption.PATH_MTU} | (set() if kind is SocketType.UDP else {SocketOption.MULTICAST_TTL})
    assert [protocol_of(kind) for kind in SocketType] == [0, 0, 132, 0]


@on_linux
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("option", list(SocketOption))
def test_the_kernel_has_what_the_table_says_of_a_datagram_socket(family: int, option: SocketOption) -> None:
    """Each one is asked of a real UDP socket; the path MTU wants a peer."""
    spec = option_for(option, family, SocketType.UDP)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(("::1" if family == socket.AF_INET6 else "127.0.0.1", 9))
        if spec is None:
            tcp = option_for(option, family)
            assert tcp is not None
            with pytest.raises(OSError):
                sock.getsockopt(tcp.level, tcp.number)
        else:
            assert spec.from_system(sock.getsockopt(spec.level, spec.number)) >= 0


def test_the_first_multicast_ttl_is_asked_for_by_minus_1() -> None:
    """As Qt hands it to the system (U-043), and the same where the system does not know it."""
    spec = option_for(SocketOption.MULTICAST_TTL, socket.AF_INET)
    assert spec is not None

    assert [spec.to_system(value) for value in (-1, 0, 255, 1024)] == [1, 0, 255, 1024]
    with pytest.raises(ValueError, match="a socket option is 0 to"):
        spec.to_system(-2)


# ---- Names of options --------------------------------------------------------------------------


@on_linux
@pytest.mark.parametrize(
    ("level", "number", "name"),
    [
        (SOL, socket.SO_BINDTODEVICE, "SO_BINDTODEVICE"),
        (SOL, socket.SO_REUSEADDR, "SO_REUSEADDR"),
        (IP, socket.IP_TOS, "IP_TOS"),
        (IP, 14, "IP_MTU"),
        (IPV6, socket.IPV6_TCLASS, "IPV6_TCLASS"),
        (TCP, socket.TCP_FASTOPEN, "TCP_FASTOPEN"),
        (132, 3, "SCTP_NODELAY"),
        (TCP, 9999, "option 9999 of level 6"),
        (9999, 1, "option 1 of level 9999"),
    ],
)
def test_an_option_has_its_name_in_messages(level: int, number: int, name: str) -> None:
    """What the socket module calls it, not a constant that has the same value; and a number if it has no name."""
    assert name_of(level, number) == name


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_every_pair_of_numbers_has_some_name(level: int, number: int) -> None:
    """A message never fails."""
    assert name_of(level, number)


# ---- Values ------------------------------------------------------------------------------------


@given(st.integers(0, 2**31 - 1))
def test_flag_is_0_or_1_both_ways(value: int) -> None:
    """macOS answers 4 for a TCP_NODELAY that is on; whoever compares with 1 must not be wrong there."""
    flag, number = OptionSpec(TCP, 1, is_flag=True), OptionSpec(SOL, 7)

    assert (flag.to_system(value), flag.from_system(value)) == (int(value != 0), int(value != 0))
    assert (number.to_system(value), number.from_system(value)) == (value, value)
    assert (flag.to_system(True), flag.to_system(False)) == (1, 0)


@pytest.mark.parametrize("value", [-1, 2**31])
def test_value_that_a_c_int_cannot_hold_or_the_kernel_misreads_is_refused(value: int) -> None:
    """Linux takes -1 bytes of buffer for 8 MiB, and Python answers 2**31 with "a bytes-like object is required"."""
    with pytest.raises(ValueError, match="a socket option is 0 to 2147483647"):
        OptionSpec(SOL, 7).to_system(value)


@pytest.mark.parametrize("value", ["nonsense", None, 1.0])
def test_value_that_is_no_int_is_refused(value: Any) -> None:
    """Qt makes 0 of text (B-011)."""
    with pytest.raises(TypeError, match="a socket option is an int"):
        OptionSpec(TCP, 1, is_flag=True).to_system(value)


@on_linux
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize(
    ("option", "value", "read_back"),
    [
        (SocketOption.LOW_DELAY, 1, 1),
        (SocketOption.KEEP_ALIVE, 2, 1),
        (SocketOption.MULTICAST_LOOPBACK, 0, 0),
        (SocketOption.TYPE_OF_SERVICE, 33, 32),
        (SocketOption.SEND_BUFFER_SIZE, 8192, 16384),
        (SocketOption.RECEIVE_BUFFER_SIZE, 8192, 16384),
        (SocketOption.KEEP_ALIVE_IDLE, 60, 60),
        (SocketOption.KEEP_ALIVE_INTERVAL, 5, 5),
        (SocketOption.KEEP_ALIVE_COUNT, 3, 3),
    ],
)
def test_the_kernel_takes_the_numbers(family: int, option: SocketOption, value: int, read_back: int) -> None:
    """Set and asked on a real TCP socket: buffers are doubled and the two ECN bits dropped, as under Qt."""
    spec = option_for(option, family)
    assert spec is not None

    with open_socket(family) as sock:
        sock.setsockopt(spec.level, spec.number, spec.to_system(value))

        assert spec.from_system(sock.getsockopt(spec.level, spec.number)) == read_back


@on_linux
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_knows_its_path_mtu(host: str) -> None:
    """Python has no name for this option; the number in our table gives the loopback's MTU (64 KiB)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    spec = option_for(SocketOption.PATH_MTU, family)
    assert spec is not None

    with open_socket(family) as server:
        server.bind((host, 0))
        server.listen()
        with socket.create_connection(server.getsockname()[:2]) as client:
            mtu = client.getsockopt(spec.level, spec.number)

    assert 1280 <= mtu <= 65536


# ---- Binding -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "unix", "windows"),
    [
        (DEFAULT, [], []),
        (SHARE, ["SO_REUSEADDR"], []),
        (DONT_SHARE, [], ["SO_EXCLUSIVEADDRUSE"]),
        (HINT, ["SO_REUSEADDR"], ["SO_REUSEADDR"]),
        (SHARE | HINT, ["SO_REUSEADDR"], ["SO_REUSEADDR"]),
        (DONT_SHARE | HINT, ["SO_REUSEADDR"], ["SO_EXCLUSIVEADDRUSE"]),
        (PORT, ["SO_REUSEPORT"], None),
        (HINT | PORT, ["SO_REUSEADDR", "SO_REUSEPORT"], None),
        (SHARE | PORT, ["SO_REUSEADDR", "SO_REUSEPORT"], None),
        (SHARE | HINT | PORT, ["SO_REUSEADDR", "SO_REUSEPORT"], None),
    ],
)
def test_each_bind_mode_sets_these_options(mode: BindMode, unix: list[str], windows: list[str] | None) -> None:
    """All ten modes that make sense, on each kind of platform; None: there is no such thing, and it is said."""
    assert bind_options(mode, "linux", constants=LINUX) == tuple((SOL, getattr(LINUX, name), 1) for name in unix)
    assert bind_options(mode, "darwin", constants=MACOS) == tuple((SOL, getattr(MACOS, name), 1) for name in unix)
    if windows is None:
        with pytest.raises(OSError, match="this platform has no SO_REUSEPORT"):
            bind_options(mode, "win32", constants=WINDOWS)
    else:
        expected = tuple((SOL, getattr(WINDOWS, name), 1) for name in windows)
        assert bind_options(mode, "win32", constants=WINDOWS) == expected


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("mode", [DONT_SHARE | SHARE, DONT_SHARE | PORT, DONT_SHARE | SHARE | PORT | HINT])
def test_an_address_is_not_both_shared_and_not_shared(mode: BindMode, platform: str) -> None:
    """Whichever the system did, the program would believe the other."""
    with pytest.raises(ValueError, match="an address is shared or it is not"):
        bind_options(mode, platform)


@pytest.mark.parametrize(
    ("mode", "linux", "macos"),
    [
        (DEFAULT, [], []),
        (DONT_SHARE, [], []),
        (SHARE, ["SO_REUSEADDR"], ["SO_REUSEPORT"]),
        (HINT, ["SO_REUSEADDR"], ["SO_REUSEPORT"]),
        (SHARE | HINT, ["SO_REUSEADDR"], ["SO_REUSEPORT"]),
        (PORT, ["SO_REUSEPORT"], ["SO_REUSEPORT"]),
        (SHARE | PORT, ["SO_REUSEADDR", "SO_REUSEPORT"], ["SO_REUSEPORT"]),
    ],
)
def test_datagram_sockets_share_an_address_by_another_option_off_linux(
    mode: BindMode, linux: list[str], macos: list[str]
) -> None:
    """There REUSEADDR alone shares a group and nothing else, so Qt sets REUSEPORT; for TCP it never does."""
    assert bind_options(mode, "linux", datagrams=True, constants=LINUX) == tuple(
        (SOL, getattr(LINUX, name), 1) for name in linux
    )
    for platform in ("darwin", "freebsd14"):
        assert bind_options(mode, platform, datagrams=True, constants=MACOS) == tuple(
            (SOL, getattr(MACOS, name), 1) for name in macos
        )
    if mode is HINT:
        assert bind_options(mode, "win32", datagrams=True, constants=WINDOWS) == ((SOL, 4, 1),)


def test_server_may_come_back_on_unix_and_is_alone_on_windows() -> None:
    """REUSEADDR means opposite things: on Unix old connections do not matter, on Windows a port can be stolen."""
    assert listen_options("linux") == ((SOL, socket.SO_REUSEADDR, 1),)
    assert listen_options("darwin", constants=MACOS) == ((SOL, 4, 1),)
    assert listen_options("win32", constants=WINDOWS) == ((SOL, -5, 1),)


@on_linux
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("second", [DEFAULT, SHARE, DONT_SHARE, HINT, SHARE | HINT])
@pytest.mark.parametrize("first", [DEFAULT, SHARE, DONT_SHARE, HINT, SHARE | HINT])
def test_a_second_bind_works_exactly_when_both_share(first: BindMode, second: BindMode, kind: int) -> None:
    """B-024 and the 25 cells of udp_bind_modes, asked of this kernel: Default or DontShare on either refuses."""
    sharing = {SHARE, HINT, SHARE | HINT}

    assert can_bind_twice(first, second, kind) is (first in sharing and second in sharing)


@on_linux
def test_only_reuse_port_lets_two_sockets_listen() -> None:
    """Sharing an address is not sharing a port: SHARE_ADDRESS is refused once one listens."""
    kind = socket.SOCK_STREAM

    assert can_bind_twice(PORT, PORT, kind, listen=True) is True
    assert can_bind_twice(SHARE | PORT, SHARE | PORT, kind, listen=True) is True
    assert can_bind_twice(SHARE, SHARE, kind, listen=True) is False
    assert can_bind_twice(PORT, SHARE, kind, listen=True) is False


@on_linux
@pytest.mark.parametrize(("options", "comes_back"), [((), False), (listen_options("linux"), True)])
def test_server_comes_back_while_its_old_connection_is_in_time_wait(
    options: tuple[tuple[int, int, int], ...], comes_back: bool
) -> None:
    """S-013: the side that closes first keeps the pair for a minute, and only REUSEADDR lets a server bind over it."""
    with open_socket(options=options) as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        name = server.getsockname()
        with socket.create_connection(name) as client:
            server.accept()[0].close()
            assert client.recv(1) == b""

    with open_socket(options=options) as server:
        assert binds(server, name) is comes_back


def open_socket(
    family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, options: tuple[tuple[int, int, int], ...] = ()
) -> socket.socket:
    sock = socket.socket(family, kind)
    for level, number, value in options:
        sock.setsockopt(level, number, value)
    return sock


def binds(sock: socket.socket, name: tuple[str, int]) -> bool:
    try:
        sock.bind(name)
    except OSError:
        return False
    return True


def can_bind_twice(first: BindMode, second: BindMode, kind: int, listen: bool = False) -> bool:
    with open_socket(kind=kind, options=bind_options(first)) as one:
        one.bind(("127.0.0.1", 0))
        if listen:
            one.listen()
        with open_socket(kind=kind, options=bind_options(second)) as two:
            return binds(two, one.getsockname())


# ---- what is unsent ----------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "value"), [(131072, 131072), (1, 1), (None, 0), (2**40, 2**31 - 1)])
def test_a_limit_on_what_is_unsent_is_one_option(limit: int | None, value: int) -> None:
    """0 is the system's own, and what no C int holds is as good as the largest."""
    assert unsent_options(limit, constants=SimpleNamespace(TCP_NOTSENT_LOWAT=25)) == ((TCP, 25, value),)


def test_a_system_without_such_a_limit_is_told_nothing() -> None:
    """Windows has none."""
    assert unsent_options(131072, constants=WINDOWS) == ()
