"""Real proxies, as tests start them: what Debian has, each on a port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import trio

from tests.networks import Loopback
from tests.peers import peer_command
from tests.real_peers.programs import Program, running
from trioqt import NetworkProxy, ProxyKind

__all__ = ["REALM", "RealProxy", "Starts", "danted", "haproxy", "microsocks", "squid", "squid_digest", "tinyproxy"]

REALM = "lab"

# Where Debian has squid's helpers.
HELPERS = "/usr/lib/squid"


@attrs.frozen
class RealProxy:
    """One that runs."""

    proxy: NetworkProxy
    program: Program


Starts = Callable[[str, str], AbstractAsyncContextManager[RealProxy]]
"""Starts one, which wants this name and password, or none."""


@contextlib.contextmanager
def files(**contents: str) -> Iterator[Path]:
    """A folder that a proxy can read once it has given up being root."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        for name, text in contents.items():
            (path / name).write_text(text)
            (path / name).chmod(0o644)
        yield path


@asynccontextmanager
async def started(kind: ProxyKind, port: int, user: str, password: str, *command: str) -> AsyncIterator[RealProxy]:
    """It listens."""
    async with running(*command) as program:
        with trio.fail_after(20):
            while True:
                if program.process.poll() is not None:
                    raise AssertionError(f"{command[0]}: {await program.err.everything()!r}")
                with contextlib.suppress(OSError):
                    stream = await trio.open_tcp_stream("127.0.0.1", port)
                    await stream.aclose()
                    break
                await trio.sleep(0.02)
        yield RealProxy(NetworkProxy(kind, "127.0.0.1", port, user, password), program)


@asynccontextmanager
async def microsocks(user: str = "", password: str = "") -> AsyncIterator[RealProxy]:
    """SOCKS5, with a password or without."""
    port = await Loopback().unused_port()
    command = [peer_command("microsocks"), "-i", "127.0.0.1", "-p", str(port)]
    if user:
        command += ["-u", user, "-P", password]
    async with started(ProxyKind.SOCKS5, port, user, password, *command) as proxy:
        yield proxy


@asynccontextmanager
async def danted(user: str = "", password: str = "") -> AsyncIterator[RealProxy]:
    """SOCKS5, which listens for others too.  It knows the users of the system, so none here."""
    assert not user
    path = peer_command("danted")
    port = await Loopback().unused_port()
    lines = (
        "logoutput: stderr",
        f"internal: 127.0.0.1 port = {port}",
        "external: lo",
        "clientmethod: none",
        "socksmethod: none",
        "user.privileged: root",
        "user.unprivileged: nobody",
        "client pass { from: 0/0 to: 0/0 }",
        "socks pass { from: 0/0 to: 0/0 command: bind connect udpassociate bindreply udpreply }",
    )
    with files(conf="\n".join(lines) + "\n") as folder:
        async with started(ProxyKind.SOCKS5, port, "", "", path, "-f", str(folder / "conf")) as proxy:
            yield proxy


@asynccontextmanager
async def tinyproxy(user: str = "", password: str = "") -> AsyncIterator[RealProxy]:
    """HTTP; with Basic, after which it closes the connection."""
    path = peer_command("tinyproxy")
    port = await Loopback().unused_port()
    lines = [f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "Allow 127.0.0.1", "MaxClients 50"]
    if user:
        lines.append(f"BasicAuth {user} {password}")
    with files(conf="\n".join(lines) + "\n") as folder:
        async with started(ProxyKind.HTTP, port, user, password, path, "-d", "-c", str(folder / "conf")) as proxy:
            yield proxy


@asynccontextmanager
async def squid(user: str = "", password: str = "", *, digest: bool = False) -> AsyncIterator[RealProxy]:
    """HTTP; with Basic or Digest, and it keeps the connection."""
    path = peer_command("squid")
    port = await Loopback().unused_port()
    lines = [
        f"http_port 127.0.0.1:{port}",
        *("pid_filename none", "cache deny all", "cache_mem 0", "access_log none", "cache_log /dev/null"),
        *("cache_store_log none", "netdb_filename none", "pinger_enable off", "shutdown_lifetime 0 seconds"),
        "visible_hostname peer.example",
        "coredump_dir /",
    ]
    with files(basic=f"{user}:{_crypted(password)}\n", digest=f"{user}:{password}\n") as folder:
        if digest:
            lines += [
                f"auth_param digest program {HELPERS}/digest_file_auth {folder / 'digest'}",
                f"auth_param digest realm {REALM}",
            ]
        elif user:
            lines += [
                f"auth_param basic program {HELPERS}/basic_ncsa_auth {folder / 'basic'}",
                f"auth_param basic realm {REALM}",
            ]
        lines += ["acl known proxy_auth REQUIRED", "http_access allow known"] if user else ["http_access allow all"]
        lines += ["http_access deny all"]
        (folder / "conf").write_text("\n".join(lines) + "\n")
        command = (path, "-N", "-f", str(folder / "conf"))
        async with started(ProxyKind.HTTP, port, user, password, *command) as proxy:
            yield proxy


@asynccontextmanager
async def squid_digest(user: str = "", password: str = "") -> AsyncIterator[RealProxy]:
    async with squid(user, password, digest=True) as proxy:
        yield proxy


def _crypted(password: str) -> str:
    """As basic_ncsa_auth wants it."""
    openssl = peer_command("openssl")
    done = subprocess.run(
        [openssl, "passwd", "-1", "-stdin"], input=password + "\n", capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@asynccontextmanager
async def haproxy(pem: str, client: ssl.SSLContext, behind: NetworkProxy) -> AsyncIterator[RealProxy]:
    """TLS in front of another proxy.

    Args:
      pem: Its key and certificate, which is for localhost.
    """
    path = peer_command("haproxy")
    port = await Loopback().unused_port()
    lines = (
        "defaults",
        *("  mode tcp", "  timeout connect 10s", "  timeout client 60s", "  timeout server 60s"),
        "frontend encrypted",
        "  bind 127.0.0.1:{port} ssl crt {folder}/pem",
        "  default_backend plain",
        "backend plain",
        f"  server other {behind.host}:{behind.port}",
    )
    with files(pem=pem) as folder:
        (folder / "conf").write_text("\n".join(lines).format(port=port, folder=folder) + "\n")
        command = (path, "-db", "-f", str(folder / "conf"))
        async with started(behind.kind, port, behind.user, behind.password, *command) as proxy:
            yield attrs.evolve(proxy, proxy=attrs.evolve(proxy.proxy, host="localhost", context=client))
