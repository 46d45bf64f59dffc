"""TLS for the driver: a certificate that its clients trust, and their end of TLS, by the standard library alone."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import attrs
import trio

__all__ = ["ClientTls", "Trust", "tls_hello", "trust"]

NAME = "localhost"
PIECE = 1 << 20

T = TypeVar("T")


@attrs.frozen
class Trust:
    """What a server and its clients need."""

    certificate: Path
    """The server's, with its key."""
    authority: Path
    context: ssl.SSLContext
    """A client's that trusts it."""

    def arguments(self) -> tuple[str, ...]:
        """What makes a server speak TLS."""
        return ("--certificate", str(self.certificate))


@contextmanager
def trust() -> Iterator[Trust]:
    """A certificate of an authority that nobody else knows.  Raises: ModuleNotFoundError."""
    import trustme

    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        found = Trust(Path(folder) / "certificate.pem", Path(folder) / "authority.pem", context)
        authority.issue_cert(NAME).private_key_and_cert_chain_pem.write_to_path(found.certificate)
        authority.cert_pem.write_to_path(found.authority)
        yield found


def tls_hello() -> bytes:
    """What a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


class ClientTls:
    """A client's end of TLS over a bare socket.  Unlike trio's SSLStream it can finish, and receive on."""

    def __init__(self, sock: trio.socket.SocketType, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=NAME)
        self._sending = trio.Lock()
        self._shaking = trio.Lock()
        self._is_open = False

    async def shake_hands(self) -> None:
        """If that is not done yet.  Raises: OSError; ssl.SSLError is one."""
        async with self._shaking:
            if not self._is_open:
                await self._until_done(self._tls.do_handshake)
                self._is_open = True

    async def send(self, data: bytes) -> None:
        """Raises: OSError."""
        await self.shake_hands()
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view[:PIECE]) :]
            await self._flush()

    async def receive(self) -> bytes:
        """Empty at a close_notify.  Raises: OSError, also at an end without one."""
        await self.shake_hands()
        try:
            return await self._until_done(lambda: self._tls.read(PIECE))
        except ssl.SSLZeroReturnError:
            return b""

    async def finish(self) -> None:
        """Say close_notify.  Raises: OSError."""
        await self.shake_hands()
        self._say_close()
        await self._flush()

    def say_goodbye(self) -> None:
        """Say close_notify as far as that goes at once."""
        if self._is_open and self._sock.fileno() != -1:
            self._say_close()
            with contextlib.suppress(OSError):
                os.write(self._sock.fileno(), self._outgoing.read())

    def _say_close(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # the peer has not said it yet, or has ended otherwise
            self._tls.unwrap()

    async def _until_done(self, call: Callable[[], T]) -> T:
        while True:
            try:
                done = call()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._sock.recv(PIECE)
                self._incoming.write(data) if data else self._incoming.write_eof()
            except ssl.SSLError:
                await self._flush()  # an alert
                raise
            else:
                await self._flush()
                return done

    async def _flush(self) -> None:
        async with self._sending:
            view = memoryview(self._outgoing.read())
            while view:
                view = view[await self._sock.send(view) :]
