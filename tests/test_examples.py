"""Every example runs, and does what its docstring says one will see.

An example is run as a user runs it, from its text and without arguments, except that its server listens on a free port
instead of the one it names, and that its client is sent there.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import logging
import re
import signal
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.networks import Loopback, Network
from tests.peers import peer_command
from trioqt import (
    DataStream,
    ErrorKind,
    HostAddress,
    InterfaceFlag,
    NetworkProxy,
    ProxyKind,
    SocketError,
    SslServer,
    SslSocket,
    TcpServer,
    TcpSocket,
    UdpSocket,
    cli,
    local_host_name,
    network_interfaces,
)
from trioqt.testing import VirtualNetwork

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PACKAGES = sorted((ROOT / "examples").glob("*/__main__.py"))
LIST = ROOT / "examples" / "README.md"

Main = Callable[[], Awaitable[None]]


def name_of(path: Path) -> str:
    return path.parent.name if path.stem == "__main__" else path.stem


class Program:
    """A program's text, executed up to where it calls ``trio.run(main)``."""

    def __init__(self, text: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        runs: list[tuple[Main, tuple[Any, ...]]] = []
        self.names: dict[str, Any] = {"__name__": "__main__"}
        with monkeypatch.context() as patch:
            patch.setattr(trio, "run", lambda main, *args: runs.append((main, args)))
            exec(compile(text, name, "exec"), self.names)
        ((self.main, args),) = runs
        assert args == ()


class Stage:
    """Runs servers in the background, and clients that find them."""

    def __init__(self, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nursery = nursery
        self.monkeypatch = monkeypatch
        self.port = 0
        self.server: TcpServer[TcpSocket]

    def load(self, name: str) -> Program:
        path = ROOT / "examples" / f"{name}.py"
        return Program(path.read_text(), str(path), self.monkeypatch)

    async def serve(self, program: Program) -> int:
        """Start a server; its port, once it listens."""
        stage, listening = self, trio.Event()

        class Anywhere(TcpServer[TcpSocket]):
            async def listen(self, host: Any = "", port: int = 0, **options: Any) -> None:
                assert host == "127.0.0.1"
                await super().listen(host, 0, **options)
                stage.server, stage.port = self, self.server_port()
                listening.set()

        program.names["TcpServer"] = Anywhere
        self.nursery.start_soon(program.main)
        await listening.wait()
        return self.port

    async def run(self, program: Program) -> None:
        """Run a client to its end."""
        stage = self

        class There(TcpSocket):
            async def connect_to_host(self, host: Any, port: int, **options: Any) -> None:
                assert (host, port) == ("127.0.0.1", 4000)
                await super().connect_to_host(host, stage.port, **options)

        program.names["TcpSocket"] = There
        await program.main()


@pytest.fixture
async def stage(network: Network, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Where examples are run, on both networks; what still runs at the end of the test is cancelled."""
    return Stage(nursery, monkeypatch)


@pytest.fixture
async def client() -> AsyncIterator[TcpSocket]:
    """A socket of ours for the test itself."""
    async with TcpSocket() as sock:
        yield sock


async def until(condition: Callable[[], object]) -> None:
    """Let the other tasks run until it holds."""
    while not condition():
        await trio.lowlevel.checkpoint()


def code_blocks(markdown: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)


# ---- what all examples have in common ----------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_has_main_last(path: Path) -> None:
    """``main`` as the last function, and under 60 lines.

    Who is server and client at once has 90, a whole protocol 150.
    """
    text = path.read_text()
    module = ast.parse(text)
    functions = [node.name for node in module.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]

    assert text.count("\n") < {"socks5_server": 150, "network_chat": 90}.get(path.stem, 60)
    assert functions[-1] == "main"


@pytest.mark.parametrize("path", [*EXAMPLES, *PACKAGES], ids=name_of)
def test_the_first_lines_say_what_to_type_in_the_second_terminal_and_what_one_will_see(path: Path) -> None:
    """Or that none is needed; and what is to be typed there exists."""
    first_lines = ast.get_docstring(ast.parse(path.read_text())) or ""
    commands = re.findall(r"``(?:[^`]+\| )?((?:python|trioqt|openssl|curl) [^`]+)``", first_lines)
    commands += re.findall(r"^ {4}(python .+?)(?: {2}|$)", first_lines, re.MULTILINE)

    assert re.search(r"will\s+see|comes\s+back", first_lines)
    assert re.search(r"no second terminal is needed", first_lines, re.IGNORECASE) or (
        re.search(r"second(\s+and\s+a\s+third)?\s+terminal", first_lines) and commands
    )
    for program, first, *rest in map(str.split, commands):
        if program == "python" and first == "-m":
            importlib.import_module(f"{rest[0]}.__main__").parser().parse_args(rest[1:])  # which exits if it is wrong
        elif program == "python":
            assert (ROOT / first).exists()
        elif program == "trioqt":
            assert first in cli.commands.commands


@pytest.mark.parametrize("path", [*EXAMPLES, *PACKAGES], ids=name_of)
def test_each_example_is_run_here_and_listed(path: Path) -> None:
    """Its name is given to what loads it, in a test; and the list of examples has a sentence on it."""
    name = name_of(path)
    tests = [Path(__file__), *(ROOT / "tests" / name).glob("test_*.py")]
    trees = [ast.parse(test.read_text()) for test in tests]
    strings = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    imported = {
        f"{node.module}.{alias.name}"
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    listed = re.findall(r"^\| \[(\S+)\]\((\S+)\) \| .+\. \|$", LIST.read_text(), re.MULTILINE)

    if path in PACKAGES:
        assert f"examples.{name}.__main__" in imported
    else:
        assert not {name, f"{name}.py"}.isdisjoint(strings)
    assert listed.count((name, name if path in PACKAGES else path.name)) == 1


def test_the_echo_server_has_ten_lines() -> None:
    """Blank ones and its docstring aside; that the README shows the same is for test_docs.py."""
    text = (ROOT / "examples" / "echo_server.py").read_text()
    module = ast.parse(text)
    code = "\n".join(text.split("\n")[module.body[0].end_lineno or 0 :])

    assert len([line for line in code.split("\n") if line]) == 10


# ---- servers and clients -----------------------------------------------------------------------


async def test_the_echo_server_of_the_readme_echoes(
    stage: Stage, client: TcpSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's own text is run, not a copy of it."""
    (text, *_) = code_blocks((ROOT / "README.md").read_text())

    await client.connect_to_host("127.0.0.1", await stage.serve(Program(text, "README.md", monkeypatch)))
    await client.send_all(b"hello\n")

    assert await client.receive_line() == b"hello\n"


async def test_the_echo_client_prints_what_comes_back(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Three lines, and the end, from the server of the example beside it."""
    await stage.serve(stage.load("echo_server"))

    await stage.run(stage.load("echo_client"))

    assert capsys.readouterr().out == "line 1\nline 2\nline 3\n"


async def test_the_line_client_prints_hello(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """It asks, waits for one line, and leaves."""
    await stage.serve(stage.load("echo_server"))

    await stage.run(stage.load("line_client"))

    assert capsys.readouterr().out == "hello\n"


async def test_the_line_client_without_a_server_ends_with_a_refusal(stage: Stage, network: Network) -> None:
    """The error is the one its docstring promises."""
    stage.port = await network.unused_port()

    with pytest.raises(SocketError) as caught:
        await stage.run(stage.load("line_client"))

    assert caught.value.kind is ErrorKind.CONNECTION_REFUSED


async def test_the_line_client_gives_a_silent_server_five_seconds(
    stage: Stage, network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """Then its time limit ends it: an exception in the block, so the server sees a reset."""
    with await network.raw_listener() as listener:
        stage.port = listener.port

        async def run() -> None:
            with pytest.raises(trio.TooSlowError):
                await stage.run(stage.load("line_client"))
            assert trio.current_time() - started == 5

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            with await listener.accept() as peer:
                assert await peer.receive(6) == b"hello\n"
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(5)
                assert await peer.how_it_ends() == "reset"


async def test_the_line_client_with_signals_shows_the_five_states(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """The states of one connection in Qt's order, and the answer in between."""
    await stage.serve(stage.load("echo_server"))

    await stage.run(stage.load("line_client_with_signals"))

    states = ["HOST_LOOKUP", "CONNECTING", "CONNECTED", "hello", "CLOSING", "UNCONNECTED"]
    assert capsys.readouterr().out.replace("now ", "").split() == states


async def test_the_line_client_with_signals_tells_a_refusal(
    stage: Stage, network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends, with the error's kind as its last line and no traceback."""
    stage.port = await network.unused_port()

    await stage.run(stage.load("line_client_with_signals"))

    *states, last = capsys.readouterr().out.splitlines()
    assert states == ["now HOST_LOOKUP", "now CONNECTING", "now UNCONNECTED"]
    assert last.startswith("CONNECTION_REFUSED - ")


async def test_pending_style_greets_each_client_by_number(stage: Stage, network: Network) -> None:
    """Connections are taken in the order in which they came, and each ends after its greeting."""
    port = await stage.serve(stage.load("pending_style"))

    greetings = []
    for _ in range(3):
        with await network.raw_connect(port) as peer:
            greetings.append(await peer.receive_to_end())

    assert greetings == [b"You are number 1.\n", b"You are number 2.\n", b"You are number 3.\n"]


async def test_isolate_and_limit_survives_its_bug(
    stage: Stage,
    network: Network,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    handler_failures: Callable[[], list[Exception]],
) -> None:
    """A division by zero ends one connection, is logged with its traceback and reported; the next client is served."""
    port = await stage.serve(stage.load("isolate_and_limit"))

    with await network.raw_connect(port) as peer:
        await peer.send(b"7\n")
        assert await peer.receive(3) == b"14\n"
        await peer.send(b"0\n")
        assert await peer.how_it_ends() == "reset"
        unlucky = peer.sock.getsockname()[1]
    with await network.raw_connect(port) as peer:
        await peer.send(b"50\n")
        assert await peer.receive(2) == b"2\n"
        peer.finish()
        assert await peer.receive_to_end() == b""
        lucky = peer.sock.getsockname()[1]
    await trio.testing.wait_all_tasks_blocked()

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trioqt.server", logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert handler_failures() == [record.exc_info[1]]
    assert capsys.readouterr().out.splitlines() == [
        f"port {unlucky} ended: ZeroDivisionError('integer division or modulo by zero')",
        f"port {lucky} ended: well",
    ]


async def test_isolate_and_limit_answers_a_third_client_once_one_has_left(stage: Stage, network: Network) -> None:
    """Two are served, and the third waits in the kernel's queue."""
    port = await stage.serve(stage.load("isolate_and_limit"))

    with (
        await network.raw_connect(port) as first,
        await network.raw_connect(port) as second,
        await network.raw_connect(port) as third,
    ):
        for peer in (first, second, third):
            await peer.send(b"5\n")
        assert await first.receive(3) == b"20\n"
        assert await second.receive(3) == b"20\n"
        await trio.testing.wait_all_tasks_blocked()
        assert stage.server.connection_count() == 2
        first.finish()

        assert await third.receive(3) == b"20\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_graceful_stop_answers_who_has_asked_and_refuses_who_comes_later(
    stage: Stage,
    network: Network,
    mock_clock: trio.testing.MockClock,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    """One client is being answered, one has asked twice, one says nothing: all end in order, with all their answers."""
    port = await stage.serve(stage.load("graceful_stop"))

    with (
        await network.raw_connect(port) as one,
        await network.raw_connect(port) as two,
        await network.raw_connect(port) as silent,
    ):
        await one.send(b"one\n")
        await two.send(b"two\nthree\n")
        await until(lambda: stage.server.connection_count() == 3)
        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(number)
        await until(stage.server.is_draining)
        with pytest.raises(ConnectionRefusedError):
            await network.raw_connect(port)
        ends = [await silent.receive_to_end()]
        mock_clock.jump(1)
        ends.append(await one.receive_to_end())
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1)
        ends.append(await two.receive_to_end())
    await until(lambda: not stage.nursery.child_tasks)

    assert ends == [b"", b"ONE\n", b"TWO\nTHREE\n"]
    assert capsys.readouterr().out == "3 finished, 0 were cut off\n"


async def test_graceful_stop_cuts_off_who_is_left_at_the_second_signal(
    stage: Stage, network: Network, mock_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """The clock stands: its answer would have been ready in a second, and its peer sees a reset."""
    port = await stage.serve(stage.load("graceful_stop"))

    with await network.raw_connect(port) as peer:
        await peer.send(b"one\n")
        await until(lambda: stage.server.connection_count() == 1)
        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)
        await until(stage.server.is_draining)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(ConnectionResetError):
            await peer.receive_to_end()
    await until(lambda: not stage.nursery.child_tasks)

    assert capsys.readouterr().out == "0 finished, 1 were cut off\n"


async def test_half_close_sorts_what_it_got_before_the_end(stage: Stage, network: Network) -> None:
    """The answer comes after the client has finished sending, on the same connection."""
    port = await stage.serve(stage.load("half_close"))

    with await network.raw_connect(port) as peer:
        await peer.send(b"pear\napple\nfig\n")
        peer.finish()

        assert await peer.receive_to_end() == b"apple\nfig\npear\n"


async def test_are_you_there_asks_and_loses_nothing(
    stage: Stage, network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """A receive is cancelled with half a line there; the line is whole afterwards."""
    port = await stage.serve(stage.load("are_you_there"))

    with await network.raw_connect(port) as peer:
        await peer.send(b"one\nhel")
        assert await peer.receive(4) == b"ONE\n"
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(5)
        assert await peer.receive(15) == b"are you there?\n"
        await peer.send(b"lo\n")
        assert await peer.receive(6) == b"HELLO\n"
        peer.finish()

        assert await peer.receive_to_end() == b""


async def test_the_chat_server_tells_the_others(stage: Stage, network: Network) -> None:
    """What one member says is heard by the other two and not by itself."""
    program = stage.load("chat_server")
    port = await stage.serve(program)

    with (
        await network.raw_connect(port) as ann,
        await network.raw_connect(port) as bob,
        await network.raw_connect(port) as eve,
    ):
        await until(lambda: len(program.names["members"]) == 3)
        await ann.send(b"hi\n")
        assert await bob.receive(3) == b"hi\n"
        assert await eve.receive(3) == b"hi\n"
        await bob.send(b"ho\n")

        assert await ann.receive(3) == b"ho\n"


async def test_the_chat_server_cuts_off_who_does_not_read(stage: Stage, network: Network) -> None:
    """The others are served on, and the queue for the silent one never grows beyond its bound."""
    program = stage.load("chat_server")
    port = await stage.serve(program)

    with await network.raw_connect(port) as speaker, await network.raw_connect(port):
        members = program.names["members"]
        await until(lambda: len(members) == 2)
        line = b"x" * 999 + b"\n"
        while len(members) == 2:
            await speaker.send(line)
        with await network.raw_connect(port) as third:
            await until(lambda: len(members) == 2)
            await speaker.send(b"still here\n")

            heard = b""
            while piece := await third.receive(1):
                heard += piece
                if heard.endswith(b"still here\n"):
                    break
            assert heard.replace(line, b"") == b"still here\n"


async def test_tls_from_stream_answers_over_tls(stage: Stage, client: TcpSocket) -> None:
    """A TLS client of trio's talks to it; both ends say goodbye."""
    port = await stage.serve(stage.load("tls_from_stream"))
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    await client.connect_to_host("127.0.0.1", port)
    tls = trio.SSLStream(client, context)
    await tls.send_all(b"hello\n")

    assert await tls.receive_some() == b"HELLO\n"
    await tls.aclose()


async def test_tls_echo_prints_what_was_negotiated(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no second terminal."""
    await stage.load("tls_echo").main()

    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("TLSv1.3 TLS_")
    assert second == "hello"


@pytest.mark.parametrize("answer", ["yes", "no"])
async def test_secure_socket_client_asks_about_a_certificate_that_nobody_knows(
    virtual_network: VirtualNetwork,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
) -> None:
    """It goes on after "yes" and nothing else; then it speaks and hears."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)

    async def reverse(sock: SslSocket) -> None:
        async for line in sock.lines():
            await sock.send_all(line.strip()[::-1] + b"\n")

    program = Stage(nursery, monkeypatch).load("secure_socket_client")
    typed = iter([answer, "hello", ""])
    asked = []

    async def ask(question: str) -> str:
        asked.append(question)
        await trio.sleep(1)
        return next(typed)

    program.names["ask"] = ask
    async with SslServer(context) as server:
        await server.listen("127.0.0.1", 4433)
        await nursery.start(server.serve, reverse)
        await program.main()
        nursery.cancel_scope.cancel()

    wrong, *others = capsys.readouterr().out.splitlines()
    assert wrong == "unable to get local issuer certificate"
    if answer == "yes":
        assert asked == ["Go on all the same? ", "", ""]
        assert others[-2:] == ["TLSv1.3 TLS_AES_256_GCM_SHA384", "olleh"]
    else:
        assert asked == ["Go on all the same? "]
        assert others[-1] == (
            "the TLS handshake failed: the peer's certificate is refused: unable to get local issuer certificate"
        )


async def curl(port: int, *arguments: str) -> str:
    command = [peer_command("curl"), "--silent", "--show-error", "--max-time", "30", *arguments]
    done = await trio.run_process([*command, f"http://127.0.0.1:{port}/any/path"], capture_stdout=True)
    output: bytes = done.stdout
    return output.decode()


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        pytest.param([], "GET /any/path 0 bytes: \n", id="get"),
        pytest.param(["-d", "hello"], "POST /any/path 5 bytes: hello\n", id="post"),
        pytest.param(["--head", "-o", "/dev/null", "-w", "%{http_code}"], "200", id="head"),
        pytest.param(["-H", "Transfer-Encoding: chunked", "-d", "a=b"], "POST /any/path 3 bytes: a=b\n", id="chunked"),
        pytest.param(
            ["-H", "Expect: 100-continue", "-d", "a=b"], "POST /any/path 3 bytes: a=b\n", id="expect-100-continue"
        ),
        pytest.param(["-H", "Content-Length: x", "-o", "/dev/null", "-w", "%{http_code}"], "400", id="bad-request"),
    ],
)
async def test_curl_is_answered_by_http_with_h11(
    stage: Stage, network: Loopback, arguments: list[str], answer: str
) -> None:
    """The methods and the transfers that a client like curl uses, each on a connection of its own."""
    port = await stage.serve(stage.load("http_with_h11"))

    assert await curl(port, *arguments) == answer


async def test_this_machine_says_where_it_can_be_reached(
    stage: Stage, network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its name, a line for each address of an interface that is up, and the addresses of localhost."""
    await stage.run(stage.load("this_machine"))

    first, *middle, last = capsys.readouterr().out.splitlines()
    up = [interface for interface in network_interfaces() if InterfaceFlag.IS_UP in interface.flags]
    assert first == f"this is {local_host_name()}"
    assert [line.partition(",")[0] for line in middle] == [
        f"{interface.name} has {each.address}" for interface in up for each in interface.addresses
    ]
    assert "lo has 127.0.0.1, of a network with 8 bits in common" in middle
    assert re.fullmatch(r"localhost is .*\b127\.0\.0\.1", last)


async def test_http_with_h11_answers_many_requests_on_one_connection(stage: Stage, network: Network) -> None:
    """Two requests in one packet give two answers, in order, and the end after "close"."""
    port = await stage.serve(stage.load("http_with_h11"))

    with await network.raw_connect(port) as peer:
        await peer.send(
            b"GET /one HTTP/1.1\r\nHost: x\r\n\r\nGET /two HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        answers = await peer.receive_to_end()

    assert re.findall(rb"GET /(\w+) 0 bytes", answers) == [b"one", b"two"]


# ---- Qt's fortunes, and its loopback -----------------------------------------------------------


async def hear_fortunes(client: TcpSocket, port: int) -> str | None:
    """One, and the end."""
    await client.connect_to_host("127.0.0.1", port)
    fortune = await client.receive_message(DataStream.read_q_string)
    assert await client.receive_some() == b""
    return fortune


@pytest.mark.parametrize("name", ["fortune_server", "fortune_server_with_workers"])
async def test_a_fortune_server_tells_one_of_its_fortunes(stage: Stage, client: TcpSocket, name: str) -> None:
    """And the end; to several one after the other."""
    program = stage.load(name)
    port = await stage.serve(program)

    assert await hear_fortunes(client, port) in program.names["FORTUNES"]


async def test_fortune_server_with_workers_has_four_at_work_at_a_time(stage: Stage, network: Network) -> None:
    """Ten ask, four are at work, and the server takes connections meanwhile; in the end all have been told."""
    program = stage.load("fortune_server_with_workers")
    go_on, at_work, most = threading.Event(), [0], [0]
    lock = threading.Lock()

    def work_out(who: str) -> str:
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        go_on.wait()
        with lock:
            at_work[0] -= 1
        return who

    program.names["work_out"] = work_out
    port = await stage.serve(program)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(await network.raw_connect(port)) for _ in range(10)]
        try:
            await until(lambda: stage.server.connection_count() == 10 and at_work[0] == 4)
        finally:
            go_on.set()
        heard = [DataStream(await peer.receive_to_end()).read_q_string() for peer in peers]
        names = [peer.sock.getsockname()[:2] for peer in peers]

    assert most == [4]
    assert heard == ["{} {}".format(*name) for name in names]


async def test_threaded_fortune_server_tells_each_in_a_thread_of_its_own(
    stage: Stage, client: TcpSocket, network: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which says its name, and is not the one that accepts."""
    program = stage.load("threaded_fortune_server")
    port = await stage.serve(program)

    fortune = await hear_fortunes(client, port)

    assert fortune in program.names["FORTUNES"]
    said = capsys.readouterr().out
    assert said.endswith(" tells a fortune\n")
    assert not said.startswith(threading.main_thread().name)


@pytest.mark.parametrize("cut", range(1, 30, 4))
async def test_the_fortune_client_prints_what_comes_however_it_is_cut(
    stage: Stage, network: Network, capsys: pytest.CaptureFixture[str], cut: int
) -> None:
    """A QString in two pieces."""
    block = DataStream()
    block.write_q_string("Be prepared.")
    with await network.raw_listener() as listener:
        stage.port = listener.port
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.run, stage.load("fortune_client"))
            with await listener.accept() as peer:
                await peer.send(block.data()[:cut])
                await trio.testing.wait_all_tasks_blocked(0.01)
                await peer.send(block.data()[cut:])
                assert await peer.receive_to_end() == b""

    assert capsys.readouterr().out == "Be prepared.\n"


async def test_the_fortune_client_says_what_went_wrong(
    stage: Stage, network: Network, mock_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody there; a server that says nothing; one that ends in the middle; one that says too much."""
    stage.port = await network.unused_port()
    await stage.run(stage.load("fortune_client"))
    with await network.raw_listener() as listener:
        stage.port = listener.port
        for says in (None, b"\0\0\0\x08\0", b"\x7f\xff\xff\xfe"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stage.run, stage.load("fortune_client"))
                with await listener.accept() as peer:
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    if says is None:
                        mock_clock.jump(5)
                        await trio.testing.wait_all_tasks_blocked(0.01)
                    else:
                        await peer.send(says)

    refused, silent, ended, too_much = capsys.readouterr().out.splitlines()
    assert refused == "The connection was refused. Is the fortune server running?"
    assert silent == "The server says nothing."
    assert ended.startswith("The following error occurred: ")
    assert too_much == "The following error occurred: a message needs 2147483650 bytes, and may have 10000"


async def test_the_blocking_fortune_client_prints_three_fortunes(
    stage: Stage, network: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each call has a run of its own, in whatever thread; without a server it says why there is none."""
    port = await stage.serve(stage.load("fortune_server"))
    path = ROOT / "examples" / "blocking_fortune_client.py"
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    get_fortune, asked = names["get_fortune"], []

    def ask(host: str, port: int) -> str | None:
        asked.append((host, port))
        fortune: str | None = get_fortune(host, stage.port)
        return fortune

    names["get_fortune"] = ask
    await trio.to_thread.run_sync(names["main"])
    told = capsys.readouterr().out.splitlines()
    stage.port = await network.unused_port()
    await trio.to_thread.run_sync(names["main"])
    refused = capsys.readouterr().out.splitlines()

    assert port
    assert asked == [("127.0.0.1", 4000)] * 4
    assert len(told) == 3
    assert all(told)
    assert len(refused) == 1
    assert refused[0].startswith("There is no fortune: cannot connect to 127.0.0.1")


async def test_loopback_sends_all_to_itself_and_shows_two_bars(
    stage: Stage, network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    """They grow one after the other, from nothing to full."""
    program = stage.load("loopback")
    program.names["TOTAL"] = 3_000_001
    await program.main()

    *bars, last = capsys.readouterr().out.replace("\r", "\n").strip().splitlines()
    grown = [tuple(part.count("#") for part in bar.split("]  ")) for bar in bars]
    assert last == "3,000,001 of 3,000,001 bytes have arrived"
    assert grown == sorted(grown)
    assert grown[-1] == (25, 25)
    assert len(grown) > 20
    assert all(sent >= arrived - 1 for sent, arrived in grown)


# ---- datagrams ---------------------------------------------------------------------------------


async def run_datagrams(stage: Stage, network: Network, clock: trio.testing.MockClock, *names: str) -> None:
    """Run these programs side by side for six seconds, on the loopback interface, where every machine has one."""
    port = await network.unused_port()
    async with trio.open_nursery() as nursery:
        for name in names:
            program = stage.load(name)
            program.names["PORT"] = port
            if "INTERFACE" in program.names:
                program.names["INTERFACE"] = "lo"
            if "EVERYBODY" in program.names:
                program.names["EVERYBODY"] = HostAddress("127.255.255.255")
            nursery.start_soon(program.main)
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(6):
            clock.jump(1)
            await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()


async def test_the_broadcast_pair_is_heard_by_every_receiver(
    stage: Stage, network: Network, mock_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A message a second, and two receivers that share the port hear each."""
    names = "broadcast_receiver", "broadcast_receiver", "broadcast_sender"
    await run_datagrams(stage, network, mock_clock, *names)

    lines = capsys.readouterr().out.splitlines()
    for number in range(1, 7):
        assert lines.count(f"sending Broadcast message {number}") == 1
        assert sum(line.endswith(f" says: Broadcast message {number}") for line in lines) == 2


async def test_the_multicast_pair_is_heard_until_the_receiver_leaves(
    stage: Stage, network: Network, mock_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """It leaves the group after five seconds, and the sender goes on."""
    await run_datagrams(stage, network, mock_clock, "multicast_receiver", "multicast_sender")

    lines = capsys.readouterr().out.splitlines()
    heard = [line.partition(" says: ")[2] for line in lines if " says: " in line]
    assert heard == [f"Multicast message {number}" for number in range(1, 6)]
    assert "sending Multicast message 7" in lines


async def test_find_servers_finds_them(
    stage: Stage, network: Network, mock_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two servers answer, and each echoes."""
    await run_datagrams(stage, network, mock_clock, "be_found", "be_found", "find_servers")

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert len({line.split()[1] for line in lines}) == 2
    assert all(line.endswith(" hello") for line in lines)


async def test_servers_are_found_on_other_machines(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """As their text is, on three hosts of a network."""
    async with VirtualNetwork(latency=0.01) as net, trio.open_nursery() as nursery:
        stage = Stage(nursery, monkeypatch)
        for name in ("one", "two"):
            with net.host(name):
                nursery.start_soon(stage.load("be_found").main)
        await trio.testing.wait_all_tasks_blocked()
        with net.host("client"):
            await stage.load("find_servers").main()
        nursery.cancel_scope.cancel()

    assert sorted(line.split()[0] for line in capsys.readouterr().out.splitlines()) == ["10.0.0.2", "10.0.0.3"]


async def test_network_chat_finds_all_and_tells_each(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """On three hosts; the third starts later, and the second leaves."""
    keyboards: dict[str, trio.MemorySendChannel[bytes]] = {}
    async with VirtualNetwork(latency=0.01) as net, trio.open_nursery() as nursery:
        for name in ("one", "two", "three"):
            with net.host(name):
                program = Stage(nursery, monkeypatch).load("network_chat")
                keyboards[name], typed = trio.open_memory_channel[bytes](1)
                program.names["typed"] = typed.receive
                nursery.start_soon(program.main)
            await trio.sleep(5)
        for name, line in (
            ("one", b"hello\n"),
            ("two", b""),
            ("three", b"who is left?\n"),
            ("one", b""),
            ("three", b""),
        ):
            await keyboards[name].send(line)
            await trio.sleep(1)

    said = re.sub(r"/[0-9a-f]{8}'", "'", capsys.readouterr().out).splitlines()
    pairs = [f"{name!r} {what}" for name in ("one", "two", "three") for what in ("comes", "leaves")]
    assert sorted(said) == sorted([*pairs, *pairs, "'one': 'hello'", "'one': 'hello'", "'three': 'who is left?'"])


async def test_network_chat_joins_again_what_a_partition_has_parted(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its connections are reset meanwhile, and nothing is left but the announcements; strangers' are passed over."""
    keyboards: list[trio.MemorySendChannel[bytes]] = []
    async with VirtualNetwork(latency=0.01) as net, trio.open_nursery() as nursery:
        for name in ("one", "two"):
            with net.host(name):
                program = Stage(nursery, monkeypatch).load("network_chat")
                send, typed = trio.open_memory_channel[bytes](1)
                program.names["typed"] = typed.receive
                keyboards.append(send)
                nursery.start_soon(program.main)
        async with UdpSocket() as stranger:
            for datagram in (b"", b"chat", b"chat zz 99999999", b"chat zzz x", b"chat zzzz 1", b"what?"):
                await stranger.send_datagram(datagram, HostAddress.BROADCAST, 45454)
        await trio.sleep(5)
        with net.partition("one", "two"):
            net.reset_connections("one", "two")
            await trio.sleep(10)
        await trio.sleep(5)
        for keyboard in keyboards:
            await keyboard.send(b"")

    said = re.sub(r"/[0-9a-f]{8}'", "'", capsys.readouterr().out).splitlines()
    assert sorted(said) == sorted(2 * [f"{name!r} {what}" for name in ("one", "two") for what in ("comes", "leaves")])


def test_find_lost_bytes_finds_them_in_the_naive_reader_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report names the line of the example at which a cancellation loses bytes."""
    path = ROOT / "examples" / "find_lost_bytes.py"
    monkeypatch.chdir(ROOT)

    exec(compile(path.read_text(), str(path), "exec"), {"__name__": "__main__"})

    naive, failed, first, problem, ours = capsys.readouterr().out.splitlines()
    lines = path.read_text().splitlines()
    (wait,) = [number for number, line in enumerate(lines, 1) if "await sock.receive_some(1)" in line]
    assert naive.startswith("naive: ")
    assert "FAILED" in failed
    assert f"examples/find_lost_bytes.py:{wait} in take_line" in first
    assert problem.strip().startswith("expect: a whole line, not b'")
    assert ours.startswith("ours: ")
    assert ours.endswith(": ok")


# ---- a proxy -----------------------------------------------------------------------------------


async def through_the_example(stage: Stage, sock: TcpSocket) -> None:
    """Tell ``sock`` to go by the proxy of the example."""
    port = await stage.serve(stage.load("socks5_server"))
    sock.set_proxy(NetworkProxy(ProxyKind.SOCKS5, "127.0.0.1", port))


async def test_the_socks5_server_carries_both_directions_and_each_end(
    stage: Stage, client: TcpSocket, network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the address of the host; each side may finish first, and the other goes on."""
    with await network.raw_listener() as listener:
        await through_the_example(stage, client)
        await client.connect_to_host("127.0.0.1", listener.port)
        with await listener.accept() as peer:
            await client.send_all(b"question")
            await client.send_eof()
            assert await peer.receive_to_end() == b"question"
            await peer.send(b"answer")
            peer.finish()
            assert await client.receive_exactly(6) == b"answer"
            assert await client.receive_some() == b""

        assert capsys.readouterr().out == f"127.0.0.1 wants 127.0.0.1 port {listener.port}\n"


async def test_the_socks5_server_says_why_it_could_not_connect(
    stage: Stage, client: TcpSocket, network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client is told the host's trouble, by its kind."""
    await through_the_example(stage, client)

    with pytest.raises(SocketError) as caught:
        await client.connect_to_host("127.0.0.1", await network.unused_port())

    assert caught.value.kind is ErrorKind.CONNECTION_REFUSED
    assert capsys.readouterr().out.startswith("127.0.0.1 wants 127.0.0.1")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x05\x01\x00\x05\x02\x00\x01" + bytes(6), b"\x05\x00\x05\x07\x00\x01" + bytes(6)),
        (b"\x05\x01\x00\x05\x01\x00\x09", b"\x05\x00\x05\x08\x00\x01" + bytes(6)),
        (b"\x05\x01\x00\x05\x01\x00\x03\x04\x1b[2J\x00\x50", b"\x05\x00\x05\x04\x00\x01" + bytes(6)),
    ],
)
async def test_the_socks5_server_refuses_what_it_does_not_do(
    stage: Stage, network: Network, said: bytes, answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """HTTP, passwords, BIND, an unknown kind of address, a name that says something to a terminal: the client hears
    what there is to say, and the end; nothing is printed."""
    port = await stage.serve(stage.load("socks5_server"))
    with await network.raw_connect(port) as peer:
        await peer.send(said)
        heard = await peer.receive(len(answer))

        assert heard == answer
        assert await peer.how_it_ends() in ("end", "reset")
    assert capsys.readouterr().out == ""


async def test_the_socks5_server_drops_who_does_not_ask(
    stage: Stage, network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """After ten seconds."""
    port = await stage.serve(stage.load("socks5_server"))
    with await network.raw_connect(port) as peer:
        await peer.send(b"\x05")
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(10)

        assert await peer.how_it_ends() == "reset"
