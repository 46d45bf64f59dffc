"""What the documentation says is so: its links, its names, its code, and its tables, which are played row by row."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import operator
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import trioqt
import trioqt.testing
from docs import blocks, qt_names
from tests.networks import Loopback, RawPeer
from trioqt import (
    BindMode,
    BytesWritten,
    DataStream,
    ErrorKind,
    NetworkDatagram,
    NewConnection,
    ReadyRead,
    SocketError,
    SocketOption,
    SocketState,
    SocketType,
    SslServer,
    SslSocket,
    StateChanged,
    TcpServer,
    TcpSocket,
    UdpSocket,
)
from trioqt.core import buffers, data_stream, http_connect, options
from trioqt.links import connect, datagram as links_datagram, many_datagrams, native, through_proxy
from trioqt.links.native import NativeLink
from trioqt.sockets import (
    abstract_socket,
    acceptor,
    answers,
    connection,
    datagram_reader,
    datagram_writer,
    datagrams,
    listening,
    pending_connections,
    scoped_socket,
    serving,
    stream_device,
    stream_reader,
    stream_writer,
    subscription,
    survived_bugs,
    tcp_server,
    tcp_socket,
    time_limits,
    traffic,
    trouble_log,
)

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
PROSE = [ROOT / "README.md", *(page for page in PAGES if page.parent.name != "newsfragments")]
TOPICS = ROOT / "docs" / "topics"

MANY = 20_000_000
"""More bytes than the kernel takes for a peer that does not read."""


def names_of(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def code_blocks(markdown: str) -> list[str]:
    """What is written by hand; the other blocks are files that are run as such."""
    return re.findall(r"^```python\n(.*?)^```$", blocks.without_blocks(markdown), re.MULTILINE | re.DOTALL)


def programs(page: Path) -> list[str]:
    """The files that a page shows or runs."""
    return [block.words[0] for block in blocks.blocks_of(page.read_text()) if block.kind != "table"]


def table(page: Path, first_head: str, *, number: int = 0) -> list[list[str]]:
    """The rows of the table whose first column has that head, below the head; the first such table, or a later one."""
    tables: list[list[list[str]]] = []
    lines = iter(page.read_text().splitlines())
    for line in lines:
        if line.startswith(f"| {first_head} |"):
            assert set(next(lines)) == set("| -")
            rows = []
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append(row)
            tables.append([[cell.strip() for cell in row.strip("|").split("|")] for row in rows])
    return tables[number]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# ---- blocks ------------------------------------------------------------------------------------


def test_a_page_has_every_block_as_its_file_is() -> None:
    """What ``python -m docs.blocks`` writes stands there already, so that nobody who reads the Markdown is misled."""
    behind = [
        str(page.relative_to(ROOT)) for page in blocks.pages() if blocks.fill(page.read_text()) != page.read_text()
    ]

    assert behind == []


def test_no_page_leaves_code_to_the_build() -> None:
    """Directives show nothing in a clone or on a forge: of those with code or tables there is none."""
    directives = {name for page in PROSE for name in re.findall(r"^`{3,}\{([\w-]+)\}", page.read_text(), re.MULTILINE)}

    assert directives <= {"toctree", "eval-rst", "transition-drawing"}


def test_a_program_that_a_page_shows_is_run_by_the_tests() -> None:
    """It lies where the tests that run programs look for them, or is named by one."""
    shown = {program for page in PROSE for program in programs(page) if program.endswith(".py")}
    tests = Path(__file__).read_text()
    named = {program for program in shown if f'"{Path(program).name}"' in tests or f'("{Path(program).stem}")' in tests}
    # The first two folders have tests for whatever is in them: test_examples.py and test_lessons.py, test_howtos.py.
    folders = ("examples/", "docs/howto/")

    assert {program for program in shown - named if not program.startswith(folders)} == set()


PROGRAM = '''\
"""What it is."""

import this

# Why it is ten.
TEN: int = 10


@decorated
def first() -> None:
    pass


async def second() -> None:
    pass
'''


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a program that prints, and one that cannot be run."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "prints.py").write_text("import sys\nprint(*sys.argv[1:])\n")
    (tmp_path / "data.bin").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("comment", "block"),
    [
        ("code: program.py", "```python\n" + PROGRAM.partition("\n\n")[2] + "```"),
        (
            "code: program.py second TEN",
            "```python\nasync def second() -> None:\n    pass\n\n\n# Why it is ten.\nTEN: int = 10\n```",
        ),
        ("code: program.py first", "```python\n@decorated\ndef first() -> None:\n    pass\n```"),
        ("output: prints.py two words", "```text\ntwo words\n```"),
    ],
)
def test_a_block_is_written_over_what_stood_there(repository: Path, comment: str, block: str) -> None:
    """All of it, parts in any order with decorators and comments, or an output; the rest of the page stays."""
    page = f"before\n\n<!-- {comment} -->\nold\n<!-- end -->\n\nafter\n"

    filled = blocks.fill(page, repository)

    assert filled == f"before\n\n<!-- {comment} -->\n\n{block}\n\n<!-- end -->\n\nafter\n"
    assert blocks.fill(filled, repository) == filled
    assert blocks.without_blocks(filled) == "before\n\n\nafter\n"


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("<!-- code: gone.py -->\n<!-- end -->\n", "there is no file gone.py"),
        ("<!-- code: program.py third -->\n<!-- end -->\n", "it does not define third"),
        ("<!-- code: data.bin -->\n<!-- end -->\n", "does not know what data.bin is"),
        ("<!-- output: program.py -->\n<!-- end -->\n", "ended with status 1"),
        ("<!-- table: chairs -->\n<!-- end -->\n", "there is no table chairs"),
        ("<!-- code: program.py -->\n", "no <!-- end -->"),
        ("<!-- end -->\n", "<!-- end --> without a beginning"),
    ],
)
def test_what_cannot_be_shown_is_refused(repository: Path, page: str, complaint: str) -> None:
    """With the reason, instead of an empty block."""
    with pytest.raises(blocks.StaleError, match=complaint):
        blocks.fill(page, repository)


def test_comments_within_a_fence_are_text() -> None:
    """The page that tells how to write a block shows them."""
    page = "```text\n<!-- code: gone.py -->\n<!-- end -->\n```\n"

    assert (blocks.fill(page), blocks.blocks_of(page)) == (page, [])


# ---- links and names ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", PROSE, ids=names_of(PROSE))
def test_every_link_to_a_file_resolves(page: Path) -> None:
    """Links into the repository name a file or a folder that is there."""
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    inside = [link.partition("#")[0] for link in links if not link.startswith(("http:", "https:", "#"))]

    assert [link for link in inside if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PROSE, ids=names_of(PROSE))
def test_every_file_that_is_named_exists(page: Path) -> None:
    """``sockets/traffic.py`` and its like are files of the repository or of the package."""
    text = blocks.without_blocks(page.read_text())
    named = [name for name in quoted(text) if re.fullmatch(r"[\w/.]+\.(py|md|toml)|\w+/", name)]
    places = (ROOT, ROOT / "trioqt", ROOT / "docs")

    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_the_code_that_the_architecture_walks_through_exists() -> None:
    """``Traffic._fill`` and its like are still called so."""
    modules = [
        abstract_socket,
        connection,
        scoped_socket,
        serving,
        stream_device,
        stream_reader,
        stream_writer,
        subscription,
    ]
    modules += [
        acceptor,
        listening,
        traffic,
        tcp_server,
        tcp_socket,
        connect,
        datagrams,
        datagram_reader,
        datagram_writer,
        links_datagram,
    ]
    others = [
        "links.native",
        "links.poller",
        "links.stream",
        "links.tls",
        "sockets.corks",
        "sockets.ssl_server",
        "core.states",
        "core.buffers",
    ]
    others += [f"testing.network.{name}" for name in ("virtual_network", "socket", "tcp", "fabric")]
    others += [f"testing.simulation.{name}" for name in ("worlds", "replacing", "worker_threads")]
    modules += [importlib.import_module(f"trioqt.{name}") for name in others]
    text = (ROOT / "docs" / "architecture.md").read_text()

    missing = []
    for owner, member in re.findall(r"`(_?[A-Z]\w+)\.(\w+)[`(]", text):
        classes = [vars(module)[owner] for module in modules if owner in vars(module)]
        if not classes or not hasattr(classes[0], member):
            missing.append(f"{owner}.{member}")
    methods = {name for cls in (connection.Connection, TcpSocket, UdpSocket) for name in dir(cls)}
    missing += [name for name in re.findall(r"`(_\w+)`", text) if name not in methods]
    assert missing == []


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_screen_says_whether_it_needs_qt(page: str) -> None:
    """Before anything is to be installed."""
    first = "\n".join((ROOT / page).read_text().splitlines()[:20])

    assert "**Does it need Qt?** No" in first


def test_the_reference_has_every_public_name_once() -> None:
    """What ``trioqt`` and ``trioqt.testing`` export is documented, and nothing twice."""
    text = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    documented = [name.rpartition(".")[2] for name in re.findall(r"auto(?:class|exception|function):: (\S+)", text)]
    returned = ["Report", "Failure", "Boundary", "Problem"]  # what cancel_everywhere returns

    strategies = ["fault_plans", "faults", "conditions", "seeds"]  # imported apart, since they need hypothesis

    assert sorted(documented) == sorted([*trioqt.__all__, *trioqt.testing.__all__, *returned, *strategies])


# ---- from Qt to trioqt -------------------------------------------------------------------------

FROM_QT = TOPICS / "from-qt.md"

# The methods, signals and enumerations that PySide6 6.12 has in QAbstractSocket, QTcpSocket and QTcpServer, in
# QHostInfo, in QNetworkInterface and QNetworkAddressEntry, and in QUdpSocket and QNetworkDatagram, and
# in QDataStream those that are not of one type.
QT_NAMES = set(
    re.findall(
        r"\w+",
        """
abort bind bytesAvailable bytesToWrite close connectToHost disconnectFromHost error flush isSequential isValid
localAddress localPort pauseMode peerAddress peerName peerPort protocolTag proxy readBufferSize readData readLineData
resume setLocalAddress setLocalPort setPauseMode setPeerAddress setPeerName setPeerPort setProtocolTag setProxy
setReadBufferSize setSocketDescriptor setSocketError setSocketOption setSocketState skipData socketDescriptor
socketOption socketType state waitForBytesWritten waitForConnected waitForDisconnected waitForReadyRead writeData
connected disconnected errorOccurred hostFound proxyAuthenticationRequired stateChanged
BindFlag NetworkLayerProtocol PauseMode SocketError SocketOption SocketState SocketType
addPendingConnection errorString hasPendingConnections incomingConnection isListening listen listenBacklogSize
maxPendingConnections nextPendingConnection pauseAccepting resumeAccepting serverAddress serverError serverPort
setListenBacklogSize setMaxPendingConnections waitForNewConnection
acceptError newConnection pendingConnectionAvailable
abortHostLookup addresses clearCache error errorString fromName hostName localDomainName localHostName lookupHost
lookupId setAddresses setError setErrorString setHostName setLookupId swap HostInfoError
addressEntries allAddresses allInterfaces flags hardwareAddress humanReadableName index interfaceFromIndex
interfaceFromName interfaceIndexFromName interfaceNameFromIndex isValid maximumTransmissionUnit name type InterfaceFlag
InterfaceType
broadcast clearAddressLifetime dnsEligibility ip isLifetimeKnown isPermanent isTemporary netmask preferredLifetime
prefixLength setAddressLifetime setBroadcast setDnsEligibility setIp setNetmask setPrefixLength validityLifetime
DnsEligibilityStatus
abortTransaction atEnd byteOrder commitTransaction device floatingPointPrecision isDeviceTransactionStarted readBytes
readRawData resetStatus rollbackTransaction setByteOrder setDevice setFloatingPointPrecision setStatus setVersion
skipRawData startTransaction status version writeBytes writeRawData ByteOrder FloatingPointPrecision Status Version
""",
    )
)


def test_every_qt_member_has_a_row() -> None:
    """All members of these classes are spoken of, those without a counterpart too."""
    told = {name for row in qt_names.rows() for name in row.qt}

    assert QT_NAMES - told == set()


def test_every_name_of_the_two_documents_has_a_row_in_the_section_of_its_class() -> None:
    """Each method, signal, enumeration and enumerator that Qt's pages on QTcpServer and QAbstractSocket speak of."""
    table = qt_names.rows()
    names = qt_names.names()

    assert len(names) == 222
    assert [name for name in names if qt_names.row_of(name, table) is None] == []


def test_what_is_not_offered_has_a_reason() -> None:
    """A row has a counterpart, or says why there is none."""
    wrong = [row for row in qt_names.rows() if not quoted(row.ours) and row.ours != qt_names.NOT_OFFERED]
    wrong += [row for row in qt_names.rows() if row.ours == qt_names.NOT_OFFERED and not row.difference]

    assert wrong == []


def test_an_enumerator_has_the_number_that_it_has_in_qt() -> None:
    """So what a program stored or logged means the same."""
    table = qt_names.rows()
    wrong = []
    for name in qt_names.names():
        if name.kind == "enumerators" and (row := qt_names.row_of(name, table)) is not None and quoted(row.ours):
            [ours] = quoted(row.ours)
            member = operator.attrgetter(ours)(trioqt)
            if not isinstance(member, trioqt.HostAddress) and member.value != name.number:
                wrong.append((name, member))

    assert wrong == []


def test_the_count_of_qts_names_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """With the page's own table, and each that is not offered with its reason."""
    assert qt_names.main() == 0

    printed = capsys.readouterr()
    table, _, refused = printed.out.partition("\n\n")
    assert table in FROM_QT.read_text()
    total = re.findall(r"\*\*(\d+)\*\*", table.splitlines()[-1])
    assert [int(count) for count in total] == [222, 222 - len(refused.splitlines()), len(refused.splitlines())]
    assert printed.err == ""


def test_a_name_without_a_row_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the status is 1."""
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text(FROM_QT.read_text().replace("| `nextPendingConnection` |", "| `nextOne` |"))
    monkeypatch.setattr(qt_names, "PAGE", page)
    monkeypatch.setattr(qt_names, "ROOT", tmp_path)

    assert qt_names.main() == 1
    assert "QTcpServer.nextPendingConnection has no row in docs/page.md\n" in capsys.readouterr().err


def test_every_counterpart_exists_and_waits_as_the_row_says() -> None:
    """A name in the middle column is an attribute of a class or of trioqt, and ``await`` stands before coroutines."""
    wrong = []
    for cell in {cell for row in qt_names.rows() for cell in quoted(row.ours)}:
        waits, name = cell.startswith("await "), cell.removeprefix("await ").partition("(")[0]
        owners = (SslSocket, SslServer, UdpSocket, NetworkDatagram(b""), DataStream, trioqt)
        found = []
        for owner in owners:
            with contextlib.suppress(AttributeError):
                found.append(operator.attrgetter(name)(owner))
        if not found or (waits and not inspect.iscoroutinefunction(inspect.unwrap(found[0]))):
            wrong.append(cell)
        if not waits and "(" not in cell and any(inspect.iscoroutinefunction(inspect.unwrap(one)) for one in found):
            wrong.append(cell)
    assert wrong == []


# ---- options -----------------------------------------------------------------------------------


def what_it_has(option: SocketOption, kind: SocketType) -> str:
    spec = options.option_for(option, socket.AF_INET, kind)
    if spec is None:
        return "no"
    return "yes" if not spec.read_only and options.can_be_remembered(option, kind) else "read only"


def test_the_table_of_options_is_that_of_the_code() -> None:
    """Which kind of socket has which of Qt's options, to set or to read."""
    told = {quoted(row[0])[0]: tuple(row[1:4]) for row in table(TOPICS / "options.md", "option")}
    kinds = (SocketType.TCP, SocketType.SCTP, SocketType.UDP)

    assert told == {option.name: tuple(what_it_has(option, kind) for kind in kinds) for option in SocketOption}


def test_the_table_of_bind_modes_is_that_of_the_code() -> None:
    """What each mode sets on each system, for streams and for datagrams."""

    class Everything:
        """A system that has all of these, with numbers to tell them apart."""

        SO_REUSEADDR, SO_REUSEPORT, SO_EXCLUSIVEADDRUSE = 1, 2, 3

    names = {1: "SO_REUSEADDR", 2: "SO_REUSEPORT", 3: "SO_EXCLUSIVEADDRUSE"}

    def spelled(mode: BindMode, platform: str) -> str:
        streams, datagrams = (
            " ".join(
                names[number]
                for _, number, _ in options.bind_options(mode, platform, datagrams=each, constants=Everything)
            )
            for each in (False, True)
        )
        return streams or "nothing" if streams == datagrams else f"{streams}; datagrams {datagrams}"

    rows = table(ROOT / "docs" / "howto" / "one_port.md", "mode")
    for cell, linux, macos, windows in rows:
        mode = BindMode[quoted(cell)[0]]
        assert (linux, macos) == (spelled(mode, "linux"), spelled(mode, "darwin"))
        if mode is not BindMode.REUSE_PORT:  # Windows has none, and Everything has
            assert windows.partition(":")[0] == spelled(mode, "win32")
    assert [quoted(row[0])[0] for row in rows] == list(BindMode.__members__)


# ---- limits ------------------------------------------------------------------------------------


def default_of(function: Callable[..., Any], parameter: str) -> object:
    return inspect.signature(function).parameters[parameter].default


DEFAULTS: dict[str, object] = {
    "`TcpSocket(read_buffer_size)`": default_of(TcpSocket, "read_buffer_size"),
    "`TcpSocket(write_buffer_size)`": default_of(TcpSocket, "write_buffer_size"),
    "`receive_line(max_bytes)`": default_of(TcpSocket.receive_line, "max_bytes"),
    "`receive_until(max_bytes)`": default_of(TcpSocket.receive_until, "max_bytes"),
    "`receive_message(max_bytes)`": default_of(TcpSocket.receive_message, "max_bytes"),
    "`transaction(max_bytes)`": default_of(TcpSocket.transaction, "max_bytes"),
    "`receive_exactly(count)`": "",
    "lists and maps in one another in a QVariant": data_stream.DEPTH,
    "`lines(max_bytes)`": default_of(TcpSocket.lines, "max_bytes"),
    "`read_line(max_bytes)`": default_of(TcpSocket.read_line, "max_bytes"),
    "`TcpSocket(unsent_limit)`": default_of(TcpSocket, "unsent_limit"),
    "`TcpSocket(flush_timeout)`": default_of(TcpSocket, "flush_timeout"),
    "the wait for a peer whose bytes we did not read": traffic.LINGER,
    "facts in a subscription": subscription.FACT_LIMIT,
    "nudges in a subscription": "1 of each kind",
    "`TcpServer(max_connections)`": default_of(TcpServer, "max_connections"),
    "`TcpServer(max_connections_per_peer)`": default_of(TcpServer, "max_connections_per_peer"),
    "`TcpServer(idle_limit)`": default_of(TcpServer, "idle_limit"),
    "`TcpServer(stall_limit)`": default_of(TcpServer, "stall_limit"),
    "until a vanished peer of a server is noticed": options.USER_TIMEOUT // 1000,
    "`max_pending_connections()`": pending_connections.MAX_PENDING_CONNECTIONS,
    "`listen_backlog_size()`": acceptor.BACKLOG,
    "`listen(backlog)`": default_of(TcpServer.listen, "backlog"),
    "`receive_some()` that is not told how much": stream_reader.RECEIVE_SIZE,
    "short answers that `write` collects": stream_writer.CORK_SIZE,
    "a sync verb on an unlimited buffer": connection.BLOCK_SIZE * traffic.BLOCKS_AT_ONCE,
    "bytes that are split into lines at once": buffers.SPLIT_SIZE,
    "datagrams that a socket takes from the system in one go": datagrams.BATCH,
    "datagrams that one call of Linux takes, where they come in crowds": many_datagrams.AT_ONCE,
    "senders, and destinations, that a `UdpSocket` remembers": links_datagram.MOST_KNOWN,
    "answers from the buffer before other tasks get their turn": answers.ANSWERS,
    "connections accepted before other tasks get their turn": acceptor.ACCEPTS_AT_ONCE,
    "connections looked at for a limit in seconds before other tasks get their turn": time_limits.LOOKS_AT_ONCE,
    "addresses of peers whose text is kept once": native.TEXTS,
    "the start that one address has over the next": connect.ATTEMPT_DELAY,
    "a proxy's time for each of its answers": through_proxy.ANSWER_TIME,
    "a proxy's answer of HTTP": http_connect.HEAD_SIZE,
    "what comes with a proxy's 407 and is passed over": http_connect.BODY_SIZE,
    "the pause after a failed `accept`": acceptor.ACCEPT_PAUSE,
    "failures of `accept` in a row that tell of connections which have ended already": acceptor.ACCEPTS_AT_ONCE,
    "records that a server logs of one kind of trouble": trouble_log.RECORDS,
    "kinds of trouble that are told apart in the log": trouble_log.KINDS,
    "handlers' bugs that a test keeps to tell": survived_bugs.KEPT,
    "the wait of `drain` for handshakes that are half done, and for descriptors": acceptor.HANDSHAKES,
    "the wait of `drain`, after its grace, for handlers that shield themselves": serving.HARD_LIMIT,
}


def test_the_table_of_limits_has_the_defaults_of_the_code() -> None:
    """Each bound with its default, all of them and no others."""
    told = {row[0]: row[1] for row in table(TOPICS / "limits.md", "bound")}

    assert told == {name: str(value) for name, value in DEFAULTS.items()}


# ---- a socket in any state ---------------------------------------------------------------------


class SilentResolver(trio.abc.HostnameResolver):
    """Never answers."""

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        await trio.sleep_forever()

    async def getnameinfo(self, *args: Any, **options: Any) -> Any:
        await trio.sleep_forever()


class SilentSocket:
    """A socket of trio's whose attempts to connect are never answered."""

    def __init__(self, *args: int) -> None:
        self._sock = trio.socket.from_stdlib_socket(socket.socket(*args))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    async def connect(self, address: object) -> None:
        await trio.sleep_forever()


class SilentNetwork(trio.abc.SocketFactory):
    def socket(self, *args: Any, **options: Any) -> Any:
        return SilentSocket(*args)


@asynccontextmanager
async def nobody_answers() -> AsyncIterator[None]:
    """Neither the resolver nor any host."""
    resolver = trio.socket.set_custom_hostname_resolver(SilentResolver())
    factory = trio.socket.set_custom_socket_factory(SilentNetwork())
    try:
        yield
    finally:
        trio.socket.set_custom_hostname_resolver(resolver)
        trio.socket.set_custom_socket_factory(factory)


async def quietly(call: Callable[[], Awaitable[object]]) -> None:
    """A call that the test ends."""
    try:
        await call()
    except (SocketError, trio.ClosedResourceError):
        pass


@asynccontextmanager
async def socket_in(state: str, network: Loopback) -> AsyncIterator[TcpSocket]:
    """A socket in a state of the tables, with a peer that never reads."""
    async with trio.open_nursery() as nursery:
        sock = TcpSocket(nursery, write_buffer_size=2 * MANY)  # room for more, while CLOSING too
        if state in ("HOST_LOOKUP", "CONNECTING"):
            async with nobody_answers():
                host = "a.test" if state == "HOST_LOOKUP" else "192.0.2.1"
                nursery.start_soon(quietly, partial(sock.connect_to_host, host, 1))
                await trio.testing.wait_all_tasks_blocked()
        elif state == "BOUND":
            await sock.bind("127.0.0.1")
        elif state != "UNCONNECTED":
            with await network.raw_listener() as listener:
                await sock.connect_to_host(network.host, listener.port)
                peer = await listener.accept()
            if state == "CLOSING":
                sock.write(bytes(MANY))
                nursery.start_soon(quietly, sock.disconnect_from_host)
                await trio.testing.wait_all_tasks_blocked()
            elif state == "lost":
                peer.reset()
                with pytest.raises(SocketError):
                    await sock.receive_some()
            elif state == "aborted here":
                sock.abort()
            elif state == "disconnected by this task":
                await sock.disconnect_from_host()
            elif state == "disconnected by another task":
                async with trio.open_nursery() as others:
                    others.start_soon(sock.disconnect_from_host)
            elif state == "closed":
                await sock.aclose()
            nursery.start_soon(hold, peer)
            await trio.testing.wait_all_tasks_blocked()
        expected = SocketState.__members__.get(state, SocketState.UNCONNECTED)
        assert sock.state() is expected
        yield sock
        sock.abort()
        nursery.cancel_scope.cancel()


async def hold(peer: RawPeer) -> None:
    with peer:
        await trio.sleep_forever()


def adopt(sock: TcpSocket) -> socket.socket:
    """Give it a connected descriptor; the other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    try:
        sock.set_socket_descriptor(ours.fileno())
    except BaseException:
        theirs.close()
        ours.close()
        raise
    ours.detach()
    return theirs


CALLS: dict[str, Callable[[TcpSocket], object]] = {
    "connect_to_host": lambda sock: sock.connect_to_host("127.0.0.1", 1),
    "bind": lambda sock: sock.bind("127.0.0.1"),
    "set_socket_descriptor": lambda sock: adopt(sock).close(),
    "receive_until": lambda sock: sock.receive_until(b"x"),
    "receive_exactly": lambda sock: sock.receive_exactly(1),
    "receive_message": lambda sock: sock.receive_message(DataStream.read_q_string),
    "write": lambda sock: sock.write(b"x"),
    "put_char": lambda sock: sock.put_char(b"x"),
    "send_all": lambda sock: sock.send_all(b"x"),
    "read": lambda sock: sock.read(1),
    "peek": lambda sock: sock.peek(1),
    "skip": lambda sock: sock.skip(1),
    "unget_char": lambda sock: sock.unget_char(b"x"),
    "set_socket_option": lambda sock: sock.set_socket_option(SocketOption.KEEP_ALIVE, 1),
    "socket_option": lambda sock: sock.socket_option(SocketOption.KEEP_ALIVE),
}


async def outcome_of(name: str, sock: TcpSocket) -> str:
    """What a call gets, in the words of the tables."""
    call: Callable[[TcpSocket], object] = CALLS.get(name, operator.methodcaller(name))
    connects = name == "connect_to_host"
    outcome = "yes"  # it waits, until it can
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_all_wait, scope)
            try:
                result = call(sock)
                if inspect.isawaitable(result):
                    await result
            except SocketError as error:
                if not connects or error.kind is not ErrorKind.CONNECTION_REFUSED:
                    outcome = "the failure" if error.kind is ErrorKind.REMOTE_HOST_CLOSED else error.kind.name
            except trio.ClosedResourceError:
                outcome = "closed"
            scope.cancel()
    return outcome


async def cancel_when_all_wait(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


def call_rows(number: int) -> list[Any]:
    heads, *_ = re.findall(r"^\| call \|(.*)\|$", (TOPICS / "states.md").read_text(), re.MULTILINE)[number:]
    states = [head.strip() for head in heads.split("|")]
    return [
        pytest.param(
            name, dict(zip(states, row[1:], strict=True)), id=f"{name}-{'after-the-end' if number else 'states'}"
        )
        for row in table(TOPICS / "states.md", "call", number=number)
        for name in quoted(row[0])
    ]


@pytest.mark.parametrize(("name", "told"), [*call_rows(0), *call_rows(1)])
async def test_a_call_gets_in_each_state_what_the_page_on_states_says(
    name: str, told: dict[str, str], network: Loopback
) -> None:
    """One row of the two tables: the call is made on a new socket in each of the states."""
    outcomes = {}
    for state in told:
        async with socket_in(state, network) as sock:
            outcomes[state] = await outcome_of(name, sock)

    assert outcomes == told


# ---- what is told in what order ----------------------------------------------------------------


class Story:
    """One row of the table of orders: a socket, whoever it talks to, and what is told."""

    def __init__(self, network: Loopback) -> None:
        self.network = network
        self.peers: list[RawPeer | socket.socket] = []  # closed when all is told

    async def connected(self, sock: TcpSocket) -> RawPeer:
        with await self.network.raw_listener() as listener:
            await sock.connect_to_host(self.network.host, listener.port)
            peer = await listener.accept()
        self.peers.append(peer)
        return peer

    async def connect_to_host_succeeds(self, sock: TcpSocket) -> None:
        await self.connected(sock)

    async def it_is_refused(self, sock: TcpSocket) -> None:
        with pytest.raises(SocketError):
            await sock.connect_to_host(self.network.host, await self.network.unused_port())

    async def the_name_is_not_found(self, sock: TcpSocket) -> None:
        with pytest.raises(SocketError) as caught:
            await sock.connect_to_host("", 1)
        assert caught.value.kind is ErrorKind.HOST_NOT_FOUND

    async def it_is_cancelled(self, sock: TcpSocket) -> None:
        async with nobody_answers():
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_when_all_wait, scope)
                    await sock.connect_to_host("192.0.2.1", 1)

    async def abort_while_connecting(self, sock: TcpSocket) -> None:
        async with nobody_answers(), trio.open_nursery() as nursery:
            nursery.start_soon(quietly, partial(sock.connect_to_host, "192.0.2.1", 1))
            await trio.testing.wait_all_tasks_blocked()
            sock.abort()

    async def bytes_are_written_while_connecting_then_abort(self, sock: TcpSocket) -> None:
        async with nobody_answers(), trio.open_nursery() as nursery:
            nursery.start_soon(quietly, partial(sock.connect_to_host, "192.0.2.1", 1))
            await trio.testing.wait_all_tasks_blocked()
            sock.write(b"early")
            sock.abort()

    async def connect_to_host_while_connected(self, sock: TcpSocket) -> None:
        with pytest.raises(SocketError):
            await sock.connect_to_host(self.network.host, 1)

    async def disconnect_from_host(self, sock: TcpSocket) -> None:
        await sock.disconnect_from_host()

    async def abort(self, sock: TcpSocket) -> None:
        sock.abort()

    async def the_peer_finishes(self, sock: TcpSocket, peer: RawPeer) -> None:
        peer.finish()
        assert await sock.receive_some() == b""

    async def the_peer_finishes_then_disconnect_from_host(self, sock: TcpSocket, peer: RawPeer) -> None:
        await self.the_peer_finishes(sock, peer)
        await sock.disconnect_from_host()

    async def the_peer_finishes_half_openFalse(self, sock: TcpSocket, peer: RawPeer) -> None:
        peer.finish()
        await sock.wait_for_disconnected()

    async def the_peer_resets_found_by_reading(self, sock: TcpSocket, peer: RawPeer) -> None:
        peer.reset()
        with pytest.raises(SocketError):
            await sock.receive_some()

    async def the_peer_resets_found_by_write(self, sock: TcpSocket, peer: RawPeer) -> None:
        peer.reset()
        assert sock.state() is SocketState.CONNECTED  # the watcher has not run yet
        with pytest.raises(SocketError):
            while True:
                sock.write(b"x")

    async def bind(self, sock: TcpSocket) -> None:
        await sock.bind("127.0.0.1")

    async def bind_to_a_port_in_use(self, sock: TcpSocket) -> None:
        with await self.network.raw_listener() as listener:
            with pytest.raises(SocketError) as caught:
                await sock.bind("127.0.0.1", listener.port)
        assert caught.value.kind is ErrorKind.ADDRESS_IN_USE

    async def bind_then_disconnect_from_host(self, sock: TcpSocket) -> None:
        await sock.bind("127.0.0.1")
        await sock.disconnect_from_host()

    async def bind_then_abort(self, sock: TcpSocket) -> None:
        await sock.bind("127.0.0.1")
        sock.abort()

    async def nothing_is_taken_out_of_a_full_read_buffer(self, sock: TcpSocket, peer: RawPeer) -> None:
        await peer.send(bytes(sock.read_buffer_size() + 1))

    async def a_connected_descriptor_is_adopted(self, sock: TcpSocket) -> None:
        self.peers.append(adopt(sock))


ORDERS = [
    pytest.param(re.sub(r"\W+", "_", re.sub(r"[`=,]", "", what)), told.split(", "), id=what)
    for what, told in table(TOPICS / "events.md", "what happens")
]
BEGIN_CONNECTED = {
    "connect_to_host_while_connected",
    "disconnect_from_host",
    "abort",
}


@pytest.mark.parametrize(("name", "told"), ORDERS)
async def test_a_story_is_told_in_the_order_that_the_page_on_events_says(
    name: str, told: list[str], network: Loopback
) -> None:
    """One row of the table: it happens to a new socket, and a subscriber of everything writes down what it hears."""
    story = Story(network)
    play = getattr(story, name)
    wants_peer = "peer" in inspect.signature(play).parameters
    begins_connected = wants_peer or name in BEGIN_CONNECTED
    heard: list[str] = []

    async with trio.open_nursery() as nursery:
        sock = TcpSocket(nursery, half_open="half_openFalse" not in name)
        peer = await story.connected(sock) if begins_connected else None
        async with sock.events() as events:
            await (play(sock, peer) if wants_peer else play(sock))
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_when_all_wait, scope)
                async for event in events:
                    if not isinstance(event, (ReadyRead, BytesWritten, NewConnection)):
                        heard.append(event.state.name if isinstance(event, StateChanged) else type(event).__name__)
        sock.abort()
        for one in story.peers:
            one.close()

    assert heard == told


# ---- what the peer sees ------------------------------------------------------------------------


class BugError(Exception):
    """Raised in a block to see how that ends it."""


class Ending:
    """What is done to a socket at the end of its block; ``scope`` is around the block."""

    def __init__(self, sock: TcpSocket, scope: trio.CancelScope) -> None:
        self.sock = sock
        self.scope = scope

    async def disconnect_from_host(self) -> None:
        await self.sock.disconnect_from_host()

    async def aclose(self) -> None:
        await self.sock.aclose()

    async def leave(self) -> None:
        pass

    async def send_eof(self) -> None:
        await self.sock.send_eof()
        assert await self.sock.receive_some() == b"still"

    async def abort(self) -> None:
        self.sock.abort()

    async def abort_by_reset(self) -> None:
        self.sock.abort(reset=True)

    async def fail(self) -> None:
        raise BugError

    async def be_cancelled(self) -> None:
        self.scope.cancel()
        await trio.lowlevel.checkpoint()

    async def disconnect_cancelled(self) -> None:
        self.scope.cancel()
        await self.sock.disconnect_from_host()

    async def aclose_cancelled(self) -> None:
        self.scope.cancel()
        await self.sock.aclose()

    async def leave_cancelled(self) -> None:
        self.scope.cancel()


ENDINGS: dict[str, list[Callable[[Ending], Awaitable[object]]]] = {
    "`disconnect_from_host`, `aclose`, the block after a normal body": [
        Ending.disconnect_from_host,
        Ending.aclose,
        Ending.leave,
    ],
    "`send_eof`": [Ending.send_eof],
    "`abort`": [Ending.abort],
    "`abort(reset=True)`": [Ending.abort_by_reset],
    "an exception out of the block": [Ending.fail],
    "a cancellation out of the block": [Ending.be_cancelled],
    "`disconnect_from_host`, `aclose` or the block's exit cancelled": [
        Ending.disconnect_cancelled,
        Ending.aclose_cancelled,
        Ending.leave_cancelled,
    ],
    "`flush_timeout` has passed": [Ending.leave],
}
SEEN = {row[0]: row[1:] for row in table(TOPICS / "cancellation.md", "how it ends here")}
CELLS = [
    pytest.param(end, queued, SEEN[row][queued > 0])
    for row, ends in ENDINGS.items()
    for end in ends
    for queued in (0, MANY)
    if SEEN[row][queued > 0]
]


def test_every_row_of_the_table_of_endings_is_played() -> None:
    """The table and the tests below have the same rows."""
    assert list(SEEN) == list(ENDINGS)


@pytest.mark.parametrize(("end", "queued", "told"), CELLS)
async def test_the_peer_sees_what_the_page_on_cancellation_says(
    end: Callable[[Ending], Awaitable[object]],
    queued: int,
    told: str,
    network: Loopback,
    mock_clock: trio.testing.MockClock,
) -> None:
    """One cell of the table: a connection ends so, with an empty or a long queue, and a plain peer reads."""
    ended = trio.Event()

    async def use_socket(port: int) -> None:
        with trio.CancelScope() as scope:
            async with TcpSocket() as sock:
                await sock.connect_to_host(network.host, port)
                sock.write(bytes(queued))
                assert (sock.bytes_to_write() > 0) == (queued > 0)
                await end(Ending(sock, scope))

    async def use_socket_whatever_comes_out(port: int) -> None:
        with contextlib.suppress(BugError, SocketError):
            await use_socket(port)
        ended.set()

    async with trio.open_nursery() as nursery:
        with await network.raw_listener() as listener:
            nursery.start_soon(use_socket_whatever_comes_out, listener.port)
            peer = await listener.accept()
        with peer:
            if told == "reset":  # the peer reads when all is over, so that nothing leaves the queue before
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(10)
                await ended.wait()
            seen = await what_is_seen(peer, queued)
            if "still" in told:
                await peer.send(b"still")
                seen += ", and it can still send"

    assert seen == told


async def what_is_seen(peer: RawPeer, count: int) -> str:
    try:
        received = await peer.receive_to_end()
    except ConnectionResetError:
        return "reset"
    assert len(received) == count
    return "all bytes, then the end" if count else "end"


# ---- code --------------------------------------------------------------------------------------


async def echo(sock: TcpSocket) -> None:
    async for chunk in sock:
        await sock.send_all(chunk)


async def run_blocks(page: str, network: Loopback) -> int:
    """Run the code of a page, block after block, with the names that it may use; how many blocks there were.

    ``sock`` and ``peer`` are connected, an echo server listens where a block says 4000, and nobody on ``unused_port``.
    """
    blocks = code_blocks((TOPICS / page).read_text())
    async with TcpServer() as server, TcpSocket() as sock, trio.open_nursery() as nursery:
        await server.listen(network.host)
        await nursery.start(server.serve, echo)
        with await network.raw_listener() as listener:
            await sock.connect_to_host(network.host, listener.port)
            peer = await listener.accept()

        class Redirected(TcpSocket):
            async def connect_to_host(self, host: Any, port: int, **options: Any) -> None:
                await super().connect_to_host(host, server.server_port() if port == 4000 else port, **options)

        names = {name: getattr(trioqt, name) for name in trioqt.__all__}
        names |= {"trio": trio, "TcpSocket": Redirected}
        names["unused_port"] = await network.unused_port()
        with peer:
            for block in blocks:
                names |= {"sock": sock, "peer": peer}  # a block may have a sock of its own
                code = compile(block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                result = eval(code, names)
                if inspect.iscoroutine(result):
                    await result
        nursery.cancel_scope.cancel()
    return len(blocks)


CODE_ON_PAGES = {
    "scopes.md": 6,
    "events.md": 3,
    "errors.md": 2,
    "states.md": 1,
    "options.md": 2,
    "datagrams.md": 2,
    "speed.md": 1,
    "proxies.md": 2,
}


@pytest.mark.parametrize(("page", "count"), CODE_ON_PAGES.items())
async def test_the_code_on_a_page_runs(page: str, count: int, network: Loopback) -> None:
    """Every block of Python runs to its end, its assertions included."""
    assert await run_blocks(page, network) == count


async def test_the_code_with_a_time_limit_runs(network: Loopback, mock_clock: trio.testing.MockClock) -> None:
    """The time passes whenever nobody can go on."""
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            assert await run_blocks("cancellation.md", network) == 3
            nursery.cancel_scope.cancel()

        nursery.start_soon(run)
        while True:
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(0.02)


def test_all_pages_with_code_are_run() -> None:
    """A page that gets its first block of Python has to be added above."""
    with_code = {page.name for page in PAGES if code_blocks(page.read_text())}

    assert with_code == {"cancellation.md", *CODE_ON_PAGES, *TESTS_ON_PAGES}


# Pages whose blocks together are a file of tests, and how many tests there are.
TESTS_ON_PAGES = {
    "determinism.md": 2,
    "encrypt.md": 6,
    "partition.md": 3,
    "proxy.md": 5,
    "replaced.md": 2,
    "simulated.md": 2,
    "stopping.md": 2,
}


@pytest.mark.parametrize(("page", "count"), TESTS_ON_PAGES.items())
def test_the_tests_on_a_page_pass(page: str, count: int, tmp_path: Path) -> None:
    """With pytest as a reader has it, the plug-in included, and with the programs that the page shows beside it."""
    [path] = [path for path in PAGES if path.name == page]
    for program in programs(path):
        shutil.copy(ROOT / program, tmp_path)
    (tmp_path / "test_page.py").write_text("\n".join(code_blocks(path.read_text())))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert re.search(rf"^{count} passed in", done.stdout, re.MULTILINE), done.stdout + done.stderr


# ---- the tutorial ------------------------------------------------------------------------------

TUTORIAL = ROOT / "docs" / "tutorial"


@pytest.fixture
def tutorial(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports a program of the tutorial, whose programs import each other."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(TUTORIAL))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (TUTORIAL / f"{name}.py").exists():
            del sys.modules[name]


@asynccontextmanager
async def conversation(handler: Callable[[TcpSocket], Awaitable[object]], network: Loopback) -> AsyncIterator[RawPeer]:
    """A peer that talks to a handler."""
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        with await network.raw_connect(server.server_port()) as peer:
            yield peer
        nursery.cancel_scope.cancel()


def test_the_tutorial_shows_all_of_its_programs() -> None:
    """Each program beside the tutorial is in it."""
    shown = {ROOT / program for program in programs(ROOT / "docs" / "tutorial.md")}

    assert {*TUTORIAL.glob("*.py")} <= shown


async def test_the_tutorials_line_server_counts(tutorial: Callable[[str], Any], network: Loopback) -> None:
    """Step 2: an answer to each line, the unended last one too."""
    async with conversation(tutorial("lines").count, network) as peer:
        await peer.send(b"hello\nyou")
        peer.finish()

        assert await peer.receive_to_end() == b"5 bytes\n3 bytes\n"


async def test_the_tutorials_store_remembers(tutorial: Callable[[str], Any], network: Loopback) -> None:
    """Step 3: what was set can be asked for, and nonsense is answered."""
    async with conversation(tutorial("store").talk, network) as peer:
        await peer.send(b"SET colour dark green\nGET colour\nGET shape\nhm\n\n")
        peer.finish()

        answers = [b"OK", b"VALUE dark green", b"NONE", b"ERROR what is that?", b"ERROR what is that?", b""]
        assert await peer.receive_to_end() == b"\n".join(answers)


async def test_the_tutorials_careful_store_refuses_a_long_line(
    tutorial: Callable[[str], Any], network: Loopback
) -> None:
    """Step 4: it says why, and hangs up."""
    async with conversation(tutorial("careful_store").talk, network) as peer:
        await peer.send(b"GET x\n" + b"x" * 1000)
        peer.finish()

        assert await peer.receive_to_end() == b"NONE\nERROR that line is too long\n"


async def test_the_tutorials_careful_store_says_bye_to_the_silent(
    tutorial: Callable[[str], Any], network: Loopback, mock_clock: trio.testing.MockClock
) -> None:
    """Step 4: after a minute in which no line came."""
    async with conversation(tutorial("careful_store").talk, network) as peer:
        await peer.send(b"GET x\n")
        assert await peer.receive(5) == b"NONE\n"
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(60)

        assert await peer.receive_to_end() == b"BYE\n"


async def test_the_tutorials_quick_store_answers_a_block_with_one_send(
    tutorial: Callable[[str], Any],
    network: Loopback,
    monkeypatch: pytest.MonkeyPatch,
    mock_clock: trio.testing.MockClock,
) -> None:
    """Step 4, for clients that do not wait; and one that does not read is waited for."""
    sends, try_send = [], NativeLink.try_send

    def counted(link: NativeLink, data: Any) -> int:
        sends.append(len(data))
        return try_send(link, data)

    monkeypatch.setattr(NativeLink, "try_send", counted)
    async with conversation(tutorial("quick_store").talk, network) as peer:
        await peer.send(b"GET x\n" * 60)
        assert await peer.receive(300) == b"NONE\n" * 60
        assert sends == [300]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, b"GET x\n" * 120_000)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(await peer.receive(600_000)) == 600_000


async def test_the_tutorials_client_asks_the_store(
    tutorial: Callable[[str], Any], network: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    """Step 5, with step 3 at the other end."""
    client = tutorial("store_client")
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        await nursery.start(server.serve, tutorial("store").talk)

        class Redirected(TcpSocket):
            async def connect_to_host(self, host: Any, port: int, **options: Any) -> None:
                await super().connect_to_host(host, server.server_port(), **options)

        client.TcpSocket = Redirected
        await client.main()
        nursery.cancel_scope.cancel()

    assert capsys.readouterr().out == "b'OK\\n'\nb'VALUE green\\n'\n"


def test_the_tutorials_test_passes(tutorial: Callable[[str], Any]) -> None:
    """Step 6: no place of the conversation loses anything."""
    tutorial("test_store").test_no_cancellation_breaks_the_conversation()


def test_the_tutorials_tests_under_a_partition_pass(tmp_path: Path) -> None:
    """Step 7: in a folder like the reader's; and the first fails if the server is less patient, as the text says."""
    for path in TUTORIAL.glob("*.py"):
        shutil.copy(path, tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_partition.py"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    careful = tmp_path / "careful_store.py"
    careful.write_text(careful.read_text().replace("IDLE = 60", "IDLE = 20"))
    impatient = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    assert re.search(r"^2 passed in", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert re.search(r"^1 failed, 1 passed in", impatient.stdout, re.MULTILINE), impatient.stdout
    assert "again: pytest test_partition.py::test_a_client_is_answered_when_the_network_is_back" in impatient.stdout
