"""A TcpSocket that can speak TLS, from the start or later.

TLS is a link over the connection's link (``links/tls.py``), so all of reading, writing and ending is what a TcpSocket
does.  Here is when that link comes about, who does the handshake, and what becomes of one that fails.
"""

from __future__ import annotations

import contextlib
import math
import ssl
from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import Self, Unpack

import attrs
import trio

from trioqt.core.addresses import NetworkLayerProtocol
from trioqt.core.errors import ErrorKind, SocketError, kind_of, reason_of
from trioqt.core.events import Encrypted, ModeChanged, SslErrors
from trioqt.core.network_proxy import NetworkProxy
from trioqt.core.options import SystemOption
from trioqt.core.states import Input, Told
from trioqt.core.tls import PauseMode, SslError, SslErrorKind, SslMode, ssl_error_of, verification_error
from trioqt.core.tls_failures import REFUSALS, message_of
from trioqt.links.base import ENDS, Link
from trioqt.links.chain import BEHIND, can_judge, find_errors
from trioqt.links.interrupts import protected
from trioqt.links.tls import TlsLink
from trioqt.links.tls_terms import Negotiated, Terms, checks_of
from trioqt.sockets.arguments import Host
from trioqt.sockets.connection import CONNECTED
from trioqt.sockets.generation import Generation
from trioqt.sockets.tcp_socket import SocketArguments, TcpSocket

__all__ = ["SslSession", "SslSocket"]

ENCRYPTED = Encrypted()


@attrs.frozen
class SslSession:
    """What a client may go on with at the same server, which saves a part of the handshake.  Qt: sessionTicket."""

    server_hostname: str | None
    """Whose session it is."""
    context: ssl.SSLContext = attrs.field(repr=False)
    """That of the connection that it came from."""
    session: ssl.SSLSession = attrs.field(repr=False)
    """The standard library's."""
    checks: tuple[ssl.VerifyMode, bool] | None = attrs.field(default=None, repr=False)
    """What that context checked of the server's certificate, which is not sent again: None if that is not known."""


@cache
def default_context() -> ssl.SSLContext:
    """A client's, if it has none of its own.  Made once, because it reads all of the system's authorities."""
    return ssl.create_default_context()


def check_context(context: ssl.SSLContext) -> ssl.SSLContext:
    """Raises: TypeError."""
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"a context is an ssl.SSLContext, not {type(context).__name__}")
    return context


def check_side(context: ssl.SSLContext, *, server_side: bool) -> ssl.SSLContext:
    """Raises: TypeError; ValueError: It is for the other side."""
    check_context(context)
    if server_side and context.protocol is ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError("a server needs a context for servers: ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)")
    if not server_side and context.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise ValueError("a client needs a context for clients: ssl.create_default_context()")
    return context


def check_hostname(name: str) -> str:
    """Raises: TypeError, ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"a server_hostname is a str, not {type(name).__name__}")
    if not name or name.startswith(".") or "\0" in name:
        raise ValueError(f"not a name that a server can have: {name!r}")
    name.encode("idna")  # UnicodeError is a ValueError
    return name.removesuffix(".")  # which says that it is whole, and stands in no certificate


def name_of(host: Host) -> str | None:
    """What a certificate must be for if ``host`` is connected to."""
    return str(host).strip().partition("%")[0].rstrip(".") or None


@protected
class SslSocket(TcpSocket):
    """A TcpSocket that can speak TLS, from the start or later.  Qt: QSslSocket.

    What is written before the handshake is done is queued, and goes out encrypted.  Until then nothing can be read.

    The end of TLS is told apart from the end of TCP: a peer that ends without ``close_notify`` has truncated the
    stream.  Then, behind what arrived, SocketError(REMOTE_HOST_CLOSED) is raised, where a close_notify is ``b""``.
    An orderly end says ``close_notify``.  So does ``send_eof``, and goes on receiving, in TLS 1.3; before that there is
    no half-close, and it raises SocketError(UNSUPPORTED_SOCKET_OPERATION).

    Args:
      parent, tcp: As for ``TcpSocket``.
      context: Of the standard library, yours: certificates, authorities, versions, ALPN.  None: for a client
        ``ssl.create_default_context()``, made once in a process; a server needs one.  The socket does not change it;
        but where errors are ignored by name or paused on, its verification is off for the moment in which the TLS
        object is made.  Sockets in other threads wait for that; another thread must not use it otherwise then.

    Qt: QSslSocket.
    """

    __slots__ = (
        "_context",
        "_handshake_errors",
        "_ignored",
        "_is_judging",
        "_is_paused",
        "_mode",
        "_negotiated",
        "_planned",
        "_session",
        "_terms",
    )

    def __init__(
        self,
        parent: trio.Nursery | None = None,
        *,
        context: ssl.SSLContext | None = None,
        **tcp: Unpack[SocketArguments],
    ) -> None:
        super().__init__(parent, **tcp)
        self._context = None if context is None else check_context(context)
        self._mode = SslMode.UNENCRYPTED
        self._planned: Terms | None = None  # of the attempt that the call in this step begins
        self._terms: Terms | None = None  # of the connection to come, which is TLS from the start
        self._negotiated: Negotiated | None = None  # once encrypted, until the next connection
        self._ignored: tuple[SslErrorKind | SslError, ...] = ()  # in the next handshake, or in this one
        self._handshake_errors: tuple[SslError, ...] = ()
        self._is_judging = False  # the handshake that runs looks at what is ignored
        self._is_paused = False
        self._session: SslSession | None = None  # to go on with in the next handshake

    @classmethod
    def from_stream(
        cls,
        stream: trio.abc.Stream,
        parent: trio.Nursery | None = None,
        *,
        context: ssl.SSLContext | None = None,
        **arguments: Unpack[SocketArguments],
    ) -> Self:
        """As ``TcpSocket.from_stream``; TLS begins with ``start_client_encryption`` or ``start_server_encryption``.

        Qt: no counterpart.
        """
        checked = None if context is None else check_context(context)
        sock = super().from_stream(stream, parent, **arguments)
        sock._context = checked
        return sock

    # -- becoming encrypted -----------------------------------------------------------------

    async def connect_to_host_encrypted(
        self,
        host: Host,
        port: int,
        *,
        server_hostname: str | None = None,
        protocol: NetworkLayerProtocol = NetworkLayerProtocol.ANY_IP,
        options: Sequence[SystemOption] = (),
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """``connect_to_host``, then the handshake; returns when encrypted.  It is CONNECTED before that.

        Args:
          server_hostname: What the certificate must be for, and what is asked for (SNI); ``host`` if None.
          protocol, options, task_status: As for ``connect_to_host``.

        Raises:
          SocketError: As ``connect_to_host``; SSL_HANDSHAKE_FAILED, with ``ssl_handshake_errors()`` if the certificate
            is why; the ``ssl.SSLError`` is the cause.
          trio.ClosedResourceError: Another task ended the attempt or the connection meanwhile.
          TypeError, ValueError: There is no name, and the context checks it; it is none; or the context is a server's.
        Cancelled: the attempt is dropped; UNCONNECTED.
        Qt: connectToHostEncrypted + waitForEncrypted.
        """
        self._check_call()
        name = name_of(host) if server_hostname is None else check_hostname(server_hostname)
        self._planned = terms = self._client_terms(name)
        try:
            await self.connect_to_host(host, port, protocol=protocol, options=options, task_status=task_status)
            await self._shake_hands()
        finally:
            if self._planned is terms:
                self._planned = None
            if self._terms is terms:
                self._terms = None

    async def start_client_encryption(self, *, server_hostname: str | None = None) -> None:
        """From now on TLS (STARTTLS), as its client.  Returns when encrypted.

        Plain bytes that are still unread would be taken for part of the handshake, or were slipped in by somebody who
        wants you to believe that they came under TLS: with any unread this is refused, and they stay readable.
        Plain bytes that are queued are sent first.

        Args:
          server_hostname: As for ``connect_to_host_encrypted``; None: the name that it was connected to.

        Raises:
          SocketError: OPERATION if it is not CONNECTED, speaks TLS already, is in a transaction, or plain bytes are
            unread; what the connection was lost by; SSL_HANDSHAKE_FAILED as ``connect_to_host_encrypted``.
          trio.BusyResourceError: Another task is in a ``receive_...``, or sends.
          trio.ClosedResourceError: Another task ended the connection, or sending is finished.
          TypeError, ValueError: As ``connect_to_host_encrypted``.
        Cancelled: the connection is aborted.
        Qt: startClientEncryption + waitForEncrypted.  There, unread bytes are fed to TLS.
        """
        self._check_call()
        name = name_of(self._peer_name) if server_hostname is None else check_hostname(server_hostname)
        await self._start_encryption(self._client_terms(name))

    async def start_server_encryption(self) -> None:
        """From now on TLS (STARTTLS), as its server.  Returns when encrypted.

        In everything else as ``start_client_encryption``.  Nothing is ignored on this side: a client whose certificate
        the context refuses is refused in the handshake.

        Raises:
          SocketError: As ``start_client_encryption``; SSL_INVALID_USER_DATA if the socket has no context.
          trio.BusyResourceError, trio.ClosedResourceError: As ``start_client_encryption``.
          ValueError: The context is a client's.
        Cancelled: as ``start_client_encryption``.
        Qt: startServerEncryption + waitForEncrypted.  There, it crashes on an unconnected socket (6.12).
        """
        self._check_call()
        if self._context is None:
            await trio.lowlevel.checkpoint()
            raise SocketError(ErrorKind.SSL_INVALID_USER_DATA, "cannot begin TLS: a server needs a context")
        check_side(self._context, server_side=True)
        await self._start_encryption(Terms(self._context, True))

    async def wait_for_encrypted(self) -> None:
        """Wait until the handshake that another task does is done; returns at once if it is.

        Raises:
          SocketError: What the attempt or the handshake failed with; OPERATION if neither runs.
          trio.ClosedResourceError: Another task ended it, before or meanwhile.
        Cancelled: nothing has happened; the handshake goes on.
        Qt: waitForEncrypted().
        """
        self._check_call()
        if not self._is_to_be_encrypted():
            await self._refuse_at_once("wait for encryption")
        generation = self._generation
        await trio.lowlevel.checkpoint()
        while True:
            self._check_same(generation, "wait for encryption")
            if self.is_encrypted():
                return
            if not self._is_to_be_encrypted():
                self._refuse("wait for encryption")
            await self._wait_changed()

    def _is_to_be_encrypted(self) -> bool:
        """Is it, or will it be if all goes well?"""
        if self._link is None:
            return self._attempt is not None and self._terms is not None
        return isinstance(self._link, TlsLink)

    def _client_terms(self, hostname: str | None) -> Terms:
        """How the next handshake as a client is to be.  Raises: ValueError."""
        context = default_context() if self._context is None else check_side(self._context, server_side=False)
        checks = checks_of(context)
        if not hostname and checks[1]:
            raise ValueError("the context checks the name in the certificate, so it needs a server_hostname")
        given, session = self._session, None
        # One of a context that checked less then would pass for what it checks by now.
        if given is not None and (given.context, given.server_hostname, given.checks) == (context, hostname, checks):
            session = given.session
        return Terms(context, False, hostname, session, checks)

    def _judged(self, terms: Terms) -> Terms:
        """``terms``, with somebody who looks at the peer's certificate, if there is something to ask."""
        asks = self._ignored or self._pause_mode & PauseMode.ON_SSL_ERRORS
        if terms.server_side or not asks:
            return terms
        # Who goes on with a session shows no certificate, so there would be nothing to judge.
        judge = partial(self._judge, terms.context, terms.server_hostname)
        return Terms(terms.context, False, terms.server_hostname, checks=terms.checks, judge=judge)

    # -- the link becomes TLS ---------------------------------------------------------------

    def _begin_attempt(self, name: str, port: int) -> NetworkProxy | None:
        terms, self._planned = self._planned, None
        proxy = super()._begin_attempt(name, port)
        self._terms = terms
        return proxy

    def _forget(self) -> None:
        super()._forget()
        self._mode = SslMode.UNENCRYPTED
        self._negotiated = None
        self._handshake_errors = ()

    def _cover(self, link: Link) -> Link:
        terms, self._terms = self._terms, None
        return link if terms is None else TlsLink(link, self._judged(terms))

    def _tell(self, thing: Told) -> None:
        super()._tell(thing)
        if thing is CONNECTED and isinstance(self._link, TlsLink):
            self._set_mode(self._link)

    def _set_mode(self, channel: TlsLink) -> None:
        self._mode = SslMode.SERVER if channel.is_server() else SslMode.CLIENT
        self._post(ModeChanged(self._mode))

    async def _start_encryption(self, terms: Terms) -> None:
        self._check_can_encrypt(terms)
        check_side(terms.context, server_side=terms.server_side)
        generation = self._generation
        try:
            # It begins in this very step if it can: a watcher would take the peer's first message for bytes.
            await trio.lowlevel.checkpoint_if_cancelled()
            self._uncork()
            while True:
                self._check_same(generation, "begin TLS")
                self._check_can_encrypt(terms, began=generation)
                if not self._queue:
                    break
                await self._wait_changed()
            channel = await self._lay_tls_over(terms)
        except Exception:
            raise  # it is refused, and nothing has happened
        except BaseException:
            # Whether the peer has begun is not known, so there is no way back to plain bytes.
            if self._generation is generation:
                self.abort()
            raise
        if self._link is not channel:
            self._refuse("encrypt", began=generation)
        await self._shake_hands()

    async def _lay_tls_over(self, terms: Terms) -> TlsLink:
        """TLS takes the place of the link; whoever waits on that lets go of it."""
        below, watcher, buffer = self._link, self._watch_scope, self._read_buffer
        assert below is not None
        self._handshake_errors, self._negotiated = (), None
        channel = TlsLink(below, self._judged(terms), buffer.take(len(buffer)))
        buffer.ahead, self._unseen = 0, False
        self._lay_over(channel)
        self._set_mode(channel)
        while watcher is not None and self._watch_scope is watcher and self._link is channel:
            await self._wait_changed()
        return channel

    def _check_can_encrypt(self, terms: Terms, *, began: Generation | None = None) -> None:
        """Raise if TLS cannot begin in this step."""
        attempted = "begin TLS"
        if not terms.server_side:  # to a client nothing comes before its own first message: whatever is there is plain
            self._pull(1, ahead=True)
        if self._link is None or self._machine.state is not CONNECTED:
            self._refuse(attempted, began=began)
        if isinstance(self._link, TlsLink):
            raise SocketError(ErrorKind.OPERATION, f"cannot {attempted}: the connection speaks it already")
        if self._receiving or self._sending:
            raise trio.BusyResourceError("another task is receiving or sending on this socket")
        if self._send_finished:
            raise trio.ClosedResourceError(f"cannot {attempted}: sending is finished")
        if self._read_buffer.in_transaction:  # which might bring plain bytes back, to look as what came under TLS
            raise SocketError(ErrorKind.OPERATION, f"cannot {attempted} in a transaction")
        # Nobody has asked for what was read ahead, so it is as if the system still held it.  To a server that may be
        # the client's first message: it was told to go ahead, and has, before this call.  If not, TLS finds that out.
        buffer = self._read_buffer
        if buffer.held > buffer.ahead or (buffer.ahead and not terms.server_side):
            message = f"cannot {attempted}: {len(buffer)} plain bytes are unread"
            raise SocketError(ErrorKind.OPERATION, message)

    # -- the handshake ----------------------------------------------------------------------

    async def _shake_hands(self, limit: float = math.inf) -> None:
        """Do the handshake on the link, which is TLS and has had none.

        Raises: SocketError, trio.ClosedResourceError: There was none, and so ends the connection.
        Cancelled: the connection is aborted.
        """
        channel, generation = self._link, self._generation
        if not isinstance(channel, TlsLink):
            self._refuse("encrypt", began=generation)  # another task has ended it in this very step
        failure: Exception | None = None
        negotiated: Negotiated | None = None
        try:
            with trio.move_on_after(limit) as scope:
                negotiated = await channel.shake_hands()
            if scope.cancelled_caught:
                failure = TimeoutError(f"none within {limit:g} s")
        except (*ENDS, ValueError) as exc:
            failure = exc
        except BaseException:
            if self._link is channel:
                self.abort()
            raise
        finally:
            self._ignored = ()
            self._is_judging = self._is_paused = False
        if self._link is channel and failure is not None:
            if isinstance(failure, trio.ClosedResourceError):
                self.abort()  # somebody closed what is below us
            else:
                self._handshake_failed(channel, failure)
        if self._link is not channel or negotiated is None:
            self._refuse("encrypt", began=generation)
        self._negotiated = negotiated
        self._post(ENCRYPTED)
        self._missed = ()  # as an accepted connection that is CONNECTED has not missed that either
        self._changed()

    def _handshake_failed(self, channel: TlsLink, exc: Exception) -> None:
        """Tell why, and end the connection."""
        kind, reason = kind_of(exc), reason_of(exc)
        if isinstance(exc, TimeoutError):
            kind = ErrorKind.SOCKET_TIMEOUT
        elif isinstance(exc, ssl.SSLError):  # one about a certificate is a ValueError too
            if kind is ErrorKind.SSL_HANDSHAKE_FAILED:
                reason = message_of(exc)
        elif isinstance(exc, ValueError):
            kind, reason = ErrorKind.SSL_INVALID_USER_DATA, str(exc)
        if not self._handshake_errors:
            self._handshake_errors = self._errors_behind(channel, exc)
            if self._handshake_errors:
                self._post(SslErrors(self._handshake_errors))
        # The orders are Qt's: if it is a certificate's fault, the peer's or ours, or the connection is lost, as a loss
        # that a read finds; if the two ends do not understand each other, as one that a write finds.
        refused = bool(self._handshake_errors) or getattr(exc, "reason", None) in REFUSALS
        is_misfit = kind is ErrorKind.SSL_HANDSHAKE_FAILED and not refused
        found = Input.WRITE_FAILED if is_misfit or self._machine.state is not CONNECTED else Input.READ_FAILED
        self._set_failure(kind, f"the TLS handshake failed: {reason}", exc)
        with contextlib.suppress(OSError):  # of closing what is lost
            channel.drop_unread()
            self._end_link(found)

    def _errors_behind(self, channel: TlsLink, exc: Exception) -> tuple[SslError, ...]:
        """What OpenSSL has found wrong with the peer's certificate, and what it would have found after that."""
        chain, terms = channel.chain(), channel.terms()
        first = ssl_error_of(exc, next(iter(chain), None))
        if first is None:
            return ()
        if chain and can_judge():
            errors = find_errors(chain, terms.context, terms.server_hostname, of_client=terms.server_side)
            if any(error.kind is first.kind for error in errors):  # else it is of what only the handshake knows
                return errors
        return (first,)

    async def _judge(self, context: ssl.SSLContext, hostname: str | None, chain: tuple[bytes, ...]) -> None:
        """Look at the peer's certificates, and ask if something is wrong.  Raises: ssl.SSLCertVerificationError."""
        errors = find_errors(chain, context, hostname)
        self._handshake_errors = errors
        if not errors:
            return
        generation = self._generation
        self._is_judging = True
        self._post(SslErrors(errors))
        self._changed()
        if self._pause_mode & PauseMode.ON_SSL_ERRORS:
            self._is_paused = True
            while self._is_paused and self._generation is generation and self._link is not None:
                await self._wait_changed()
        first = next((error for error in errors if not self._ignores(error)), None)
        if first is not None:
            raise verification_error(first)

    def _ignores(self, error: SslError) -> bool:
        return any(
            ignored is error.kind
            if isinstance(ignored, SslErrorKind)
            else (ignored.kind, ignored.certificate) == (error.kind, error.certificate)
            for ignored in self._ignored
        )

    # -- errors by name ---------------------------------------------------------------------

    def ignore_ssl_errors(self, errors: Iterable[SslErrorKind | SslError]) -> None:
        """Go on in spite of exactly these, in the next handshake as a client only, or in the one that is paused.

        Each that is found must be among them: its kind, or the very error with its certificate.  There is no way to
        ignore all unseen.  Nothing of yours is sent before the peer's certificate has been judged, no certificate
        either; and no session is gone on with.  An earlier call for the same handshake holds no more.

        OpenSSL looks no further behind an error that is not about time, name or issuer, so there might be others, and
        such a kind cannot be ignored.

        Raises:
          SocketError: UNSUPPORTED_SOCKET_OPERATION if pyOpenSSL is not there (``pip install trioqt[tls]``); OPERATION
            if a handshake runs that does not ask.
          TypeError, ValueError: Neither kinds nor errors; or some that cannot be ignored.
        Qt: ignoreSslErrors(errors).  There, every kind can be ignored, and without a list all are.
        """
        if isinstance(errors, SslErrorKind | SslError):
            raise TypeError(f"what is ignored is a list of errors, not {type(errors).__name__}: each is named in it")
        chosen = tuple(errors)
        for error in chosen:
            kind = error.kind if isinstance(error, SslError) else error
            if not isinstance(kind, SslErrorKind):
                raise TypeError(f"what is ignored is an SslErrorKind or an SslError, not {type(kind).__name__}")
            if kind not in BEHIND:
                raise ValueError(f"{kind.name} cannot be ignored: there may be more behind it")
        self._check_call()
        if chosen:
            check_can_judge()
        if isinstance(self._link, TlsLink) and not self._link.is_open() and not self._is_judging:
            raise SocketError(ErrorKind.OPERATION, "cannot ignore errors: the handshake has begun without that")
        self._ignored = chosen

    def ssl_handshake_errors(self) -> tuple[SslError, ...]:
        """What the last handshake found wrong with the peer's certificate, ignored or not.

        All of it, the host's name first; without pyOpenSSL (``trioqt[tls]``) what came first.

        Qt: sslHandshakeErrors().
        """
        self._check_call()
        return self._handshake_errors

    def set_pause_mode(self, mode: PauseMode) -> None:
        if mode is PauseMode.ON_SSL_ERRORS:
            self._check_call()
            check_can_judge()
        super().set_pause_mode(mode)

    def resume(self) -> None:
        super().resume()
        if self._is_paused:
            self._is_paused = False
            self._changed()

    def _why_unsent(self, flush_timeout: float) -> str:
        channel = self._link
        if self._is_paused:
            return f"nobody has resumed the handshake, paused on the peer's certificate, for {flush_timeout:g} s"
        if isinstance(channel, TlsLink) and not channel.is_open():
            return f"the TLS handshake was not done within {flush_timeout:g} s"
        return super()._why_unsent(flush_timeout)

    # -- what was negotiated ----------------------------------------------------------------

    def mode(self) -> SslMode:
        """Which end of TLS it is, or has been until the next connection.  Qt: mode()."""
        self._check_call()
        return self._mode

    def is_encrypted(self) -> bool:
        """Is the handshake done, and the connection there?  Qt: isEncrypted()."""
        self._check_call()
        return isinstance(self._link, TlsLink) and self._link.is_open() and self._negotiated is not None

    def peer_certificate(self) -> bytes | None:
        """The peer's own, as DER; None if it has shown none.  Until the next connection.  Qt: peerCertificate()."""
        return next(iter(self.peer_certificate_chain()), None)

    def peer_certificate_chain(self) -> tuple[bytes, ...]:
        """All that the peer has shown, its own first, as DER.  Until the next connection.

        Empty where an earlier session is gone on with before TLS 1.3.

        Qt: peerCertificateChain().
        """
        self._check_call()
        return () if self._negotiated is None else self._negotiated.chain

    def session_protocol(self) -> str | None:
        """The version of TLS, ``"TLSv1.3"`` for one; None before the handshake.  Qt: sessionProtocol()."""
        self._check_call()
        return None if self._negotiated is None else self._negotiated.protocol

    def session_cipher(self) -> tuple[str, str, int] | None:
        """The cipher: its name, the version of TLS that defines it, and its bits.  Qt: sessionCipher()."""
        self._check_call()
        return None if self._negotiated is None else self._negotiated.cipher

    def selected_alpn_protocol(self) -> str | None:
        """What the two ends speak, by ALPN; None if they have not agreed on any.

        Qt: sslConfiguration().nextNegotiatedProtocol().
        """
        self._check_call()
        return None if self._negotiated is None else self._negotiated.alpn

    def session(self) -> SslSession | None:
        """What another connection to the same server may go on with; None if there is nothing, or not yet.

        With TLS 1.3 it comes with the first bytes that are received.  There is none if errors were ignored: who goes on
        with a session does not look at the certificate again.

        Qt: sslConfiguration().sessionTicket().
        """
        self._check_call()
        channel = self._link
        if not isinstance(channel, TlsLink) or not self.is_encrypted() or self._handshake_errors:
            return None
        session = channel.session()
        if session is None or channel.is_server():
            return None
        terms = channel.terms()
        return SslSession(terms.server_hostname, terms.context, session, terms.checks)

    def set_session(self, session: SslSession | None) -> None:
        """Go on with ``session`` in the handshakes to come, if they are for the same name with the same context.

        And if that checks what it checked: nobody looks at the certificate again.

        Qt: sslConfiguration().setSessionTicket().
        """
        if session is not None and not isinstance(session, SslSession):
            raise TypeError(f"a session is an SslSession, not {type(session).__name__}")
        self._check_call()
        self._session = session

    def is_session_reused(self) -> bool:
        """Has this connection gone on with an earlier session?  Qt: no counterpart."""
        self._check_call()
        return isinstance(self._link, TlsLink) and self._link.session_was_reused()

    def channel_binding(self, kind: str = "tls-unique") -> bytes | None:
        """What both ends know of this very connection (RFC 5929), of the kinds that Python has.

        Raises:
          SocketError: OPERATION if it is not encrypted; UNSUPPORTED_SOCKET_OPERATION for ``tls-unique`` of TLS 1.3,
            which has none (RFC 8446, appendix C.5).
          ValueError: Python has no such kind.
        Qt: no counterpart.
        """
        self._check_call()
        if kind not in ssl.CHANNEL_BINDING_TYPES:
            raise ValueError(f"a kind of binding is one of {', '.join(ssl.CHANNEL_BINDING_TYPES)}, not {kind!r}")
        channel = self._link
        if not isinstance(channel, TlsLink) or not self.is_encrypted():
            raise SocketError(ErrorKind.OPERATION, "cannot bind to the channel: it is not encrypted")
        if kind == "tls-unique" and self.session_protocol() == "TLSv1.3":
            raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, "TLS 1.3 has no tls-unique")
        return channel.channel_binding(kind)


def check_can_judge() -> None:
    """Raises: SocketError."""
    if not can_judge():
        message = "looking at all errors needs pyOpenSSL: pip install pyOpenSSL, or trioqt[tls]"
        raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, message)
