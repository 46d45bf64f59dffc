"""The commands: what can be asked for on the command line, and nothing of how it is done."""

from __future__ import annotations

import functools
import math
import random
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import click

import trioqt
from trioqt.cli.chat import Chat
from trioqt.cli.connect import connect_to
from trioqt.cli.fortune import tell_fortune
from trioqt.cli.serve import serve_echo, serve_handler, server_context
from trioqt.cli.socks5 import connect_for
from trioqt.cli.states import FORMATS
from trioqt.cli.terminal import failures_told, plural, run_until_signal
from trioqt.core.network_proxy import NetworkProxy
from trioqt.core.tls import SslErrorKind
from trioqt.links.chain import BEHIND

__all__ = ["commands", "run"]


def port_from(least: int) -> Callable[[object], int]:
    """What click calls with a port number.  A wrong one is refused in one line, without click's usage text."""

    # A function and not a click.ParamType: that is generic from click 8.4 on, and must not be before.  Its name is what
    # the usage text shows.
    def port(value: object) -> int:
        text = str(value)
        if text.isascii() and text.isdigit() and least <= int(text) <= 65535:
            return int(text)
        raise click.ClickException(f"a port is a number from {least} to 65535, not {text!r}")

    return port


class Commands(click.Group):
    """The group, with failures told in one line."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with failures_told():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with failures_told():
            if sys.stdout is None:
                raise click.ClickException("stdout is closed")
            return super().invoke(ctx)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(trioqt.__version__)
def commands() -> None:
    """Qt's TCP sockets and servers on trio, to look at and to try."""


@commands.command()
@click.option("--clients", type=click.IntRange(min=1), help="How many clients; 50 unless told, or 6 with --slow.")
@click.option("--seconds", type=click.FloatRange(0, 3600), default=10.0, show_default=True, help="About how long.")
@click.option("--seed", type=int, help="Of who says what and when; each run has its own unless told.")
@click.option("--slow", is_flag=True, help="For a class: one client after the other, each explained before it comes.")
def demo(clients: int | None, seconds: float, seed: int | None, slow: bool) -> int:
    """A server and many clients, on this machine's own network.

    They talk, half-close, get reset and are cancelled, and every byte is compared.  The status is 0 if all bytes
    arrived and nothing was left open.
    """
    # Here, because the check for descriptors comes from trioqt.testing, which takes as long to import as all the rest.
    from trioqt.cli.demo import show_demo
    from trioqt.cli.demo_kinds import KINDS

    if seed is None:
        seed = random.randrange(1_000_000)
    if clients is None:
        clients = len(KINDS) if slow else 50
    return run_until_signal(functools.partial(show_demo, clients, seconds, seed, slow=slow))


def _time(seconds: float) -> float:
    """No range of click's refuses what is no number."""
    if math.isnan(seconds):
        raise click.BadParameter("nan is no time.")
    return seconds


@commands.group()
def serve() -> None:
    """Run a server."""


def _server(command: Callable[..., int]) -> click.Command:
    """A command that serves, with the options that all of them have."""
    options = (
        click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen: an address or a name."),
        click.option("--port", type=port_from(0), default=0, help="0, unless told otherwise: the system chooses."),
        click.option(
            "--max-connections", type=click.IntRange(min=1), default=1000, show_default=True, help="How many at a time."
        ),
        click.option(
            "--idle-limit",
            type=click.FloatRange(min=0, min_open=True),
            default=300,
            show_default=True,
            callback=lambda context, option, value: _time(value),
            help="Seconds without a byte that end a connection; inf: no limit.",
        ),
        click.option(
            "--grace",
            type=click.FloatRange(min=0),
            default=10.0,
            show_default=True,
            help="How many seconds connections have to end once it is told to stop.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return serve.command()(command)


def _run_server(serves: Callable[..., Awaitable[int]], arguments: Mapping[str, Any]) -> int:
    """Until a signal; then say how many connections it was."""
    served: list[None] = []
    run_until_signal(functools.partial(serves, count=lambda: served.append(None), **arguments))
    click.echo(f"served {plural(len(served), 'connection')}")
    return 0


@_server
@click.option(
    "--tls", nargs=2, type=click.Path(), metavar="CERT KEY", help="Over TLS, with this certificate chain and its key."
)
def echo(tls: tuple[str, str] | None, **arguments: Any) -> int:
    """Say back whatever comes.

    Prints where it listens, and with --tls what each client has negotiated.  SIGINT (Ctrl-C) or SIGTERM stops it: it
    listens no more, says back what has come, and ends each connection in order; a second one cuts what is left.
    """
    return _run_server(serve_echo, {**arguments, "context": None if tls is None else server_context(*tls)})


@_server
def socks5(**arguments: Any) -> int:
    """Connect for others: a SOCKS5 proxy, without passwords.

    Whoever can reach it can use it, so it listens on this machine only, unless told otherwise.

    Prints where it listens.  SIGINT (Ctrl-C) or SIGTERM stops it: it listens no more, and waits for what it carries to
    end; a second one cuts what is left.
    """
    return _run_server(serve_handler, {**arguments, "handler": connect_for})


@_server
def fortune(**arguments: Any) -> int:
    """Tell each client a fortune, as Qt's example does.

    Qt's fortune client shows it, and so does examples/fortune_client.py: it is a QString in a QDataStream.

    Prints where it listens.  SIGINT (Ctrl-C) or SIGTERM stops it; a second one cuts what is left.
    """
    return _run_server(serve_handler, {**arguments, "handler": tell_fortune})


@_server
def chat(**arguments: Any) -> int:
    """Tell each client what the others say, line by line.

    With "trioqt connect" in two terminals one sees in each what was typed in the other.  Who does not read is cut off,
    and whose line has more than 1,000 bytes.

    Prints where it listens.  SIGINT (Ctrl-C) or SIGTERM stops it: what has been said is told, and each connection ends
    in order; a second one cuts what is left.
    """
    return _run_server(serve_handler, {**arguments, "handler": Chat().talk})


def _proxy(url: str) -> NetworkProxy:
    """A wrong one is refused in one line, that does not show it."""
    try:
        return NetworkProxy.from_url(url)
    except ValueError as exc:
        raise click.ClickException(str(exc)) from None


@commands.command()
@click.argument("host")
@click.argument("port", type=port_from(1))
@click.option(
    "--half-open/--no-half-open",
    default=False,
    show_default=True,
    help="After the peer has finished, go on sending until stdin ends; or end, too.",
)
@click.option(
    "--proxy",
    metavar="URL",
    type=_proxy,
    help="Connect by way of socks5://HOST:PORT, http://... or https://...; others on this machine can see a password in"
    " it (ps).",
)
@click.option("--tls", is_flag=True, help="Over TLS; HOST is what the certificate must be for.")
@click.option(
    "--insecure-ignore",
    "ignored",
    multiple=True,
    type=click.Choice(sorted(kind.name.lower().replace("_", "-") for kind in BEHIND)),
    help="Go on though this is wrong with the certificate; may be given several times.",
)
def connect(
    host: str, port: int, half_open: bool, proxy: NetworkProxy | None, tls: bool, ignored: tuple[str, ...]
) -> int:
    """Send stdin to HOST PORT, print what comes back.

    Every event is told on stderr, with its time.  The end of stdin finishes the sending; the end of the peer ends the
    command.
    """
    if ignored and not tls:
        raise click.UsageError("--insecure-ignore needs --tls")
    kinds = [SslErrorKind[name.upper().replace("-", "_")] for name in ignored] if tls else None
    return run_until_signal(functools.partial(connect_to, host, port, half_open, proxy, kinds))


@commands.command()
@click.option("--format", "chosen", type=click.Choice(list(FORMATS)), default="table", show_default=True)
@click.option(
    "--loops/--no-loops", default=True, show_default=True, help="Also what leaves the state as it is; or only changes."
)
def states(chosen: str, loops: bool) -> None:
    """The states of a socket, and what leads from one to the next.

    Drawn from the table that the code runs.
    """
    FORMATS[chosen](loops)


def run() -> int:
    """Run the command line; its exit status."""
    try:
        status = commands.main(prog_name="trioqt", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        return 130
    return status if isinstance(status, int) else 0
