"""What TLS is to begin with, and what the two ends have come to: all of it is over before the first byte.

Here is too what the standard library has no public way for: to make a TLS object that verifies nothing of a context
that does, and to ask for the peer's certificates.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import attrs

__all__ = ["Negotiated", "Terms", "chain_of", "checks_of", "refused_chain_of"]

# While one thread makes a TLS object that verifies nothing, no other makes one of the same context or asks what it
# checks.  It may well be that of all clients who have none of their own.
MAKING = threading.Lock()


def checks_of(context: ssl.SSLContext) -> tuple[ssl.VerifyMode, bool]:
    """How a context verifies, and whether it checks the name."""
    with MAKING:
        return context.verify_mode, context.check_hostname


@attrs.frozen
class Terms:
    """How TLS is to begin.

    ``judge`` is asked about the peer's chain before anything is sent that follows from it; then the context's own
    verification is off.
    """

    context: ssl.SSLContext
    server_side: bool
    server_hostname: str | None = None
    session: ssl.SSLSession | None = None
    checks: tuple[ssl.VerifyMode, bool] | None = None
    """What a client's context checked when this was made, see ``checks_of``."""
    judge: Callable[[tuple[bytes, ...]], Awaitable[None]] | None = None

    def make_object(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """Between these two.  Raises: ValueError: The name cannot be asked for."""
        with MAKING:
            return (
                self._make_object(incoming, outgoing) if self.judge is None else self._make_judged(incoming, outgoing)
            )

    def _make_judged(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        # An SSLObject keeps what its context was when it was made.  It has no way to be told of its own.
        context = self.context
        mode, checks = context.verify_mode, context.check_hostname
        try:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return self._make_object(incoming, outgoing)
        finally:
            context.verify_mode = mode
            context.check_hostname = checks

    def _make_object(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        return self.context.wrap_bio(
            incoming,
            outgoing,
            server_side=self.server_side,
            server_hostname=self.server_hostname,
            session=self.session,
        )


@attrs.frozen
class Negotiated:
    """What the two ends have agreed on."""

    protocol: str | None
    cipher: tuple[str, str, int] | None
    alpn: str | None
    chain: tuple[bytes, ...]
    """The peer's certificates, its own first, each as DER."""


def chain_of(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """The certificates that the peer has sent, its own first."""
    # Public from Python 3.13 on.  But a server whose client has shown none, though asked, finds None among them, for
    # which the public one raises AttributeError.
    return _as_der(cast("Any", tls)._sslobj.get_unverified_chain())


def refused_chain_of(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """What OpenSSL has come to with a client's certificates: of those that it refuses a server keeps nothing else."""
    return _as_der(cast("Any", tls)._sslobj.get_verified_chain())


def _as_der(certificates: Any) -> tuple[bytes, ...]:
    return tuple(one.public_bytes(2) for one in certificates or () if one is not None)  # 2 is _ssl.ENCODING_DER
