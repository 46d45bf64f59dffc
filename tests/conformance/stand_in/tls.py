"""QSslSocket and QSslServer, whose verbs are those of SslSocket and SslServer, and what they are configured by."""

from __future__ import annotations

import enum
import ssl
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
import trustme  # noqa: F401  (before scenarios are loaded: what they import is forgotten after that)

import trioqt
from tests.conformance.stand_in.objects import Signal
from tests.conformance.stand_in.on_stage import REFUSED, instead, or_else, refused, stage
from tests.conformance.stand_in.servers import QTcpServer
from tests.conformance.stand_in.sockets import NO_LIMIT, QTcpSocket
from tests.conformance.stand_in.values import error_of, host_of
from trioqt.core.events import Event
from trioqt.links.chain import BEHIND

__all__ = ["QSsl", "QSslCertificate", "QSslConfiguration", "QSslError", "QSslKey", "QSslServer", "QSslSocket"]


class SslMode(enum.Enum):
    UnencryptedMode, SslClientMode, SslServerMode = range(3)


class VerifyMode(enum.Enum):
    VerifyNone, QueryPeer, VerifyPeer, AutoVerifyPeer = range(4)


class Version(enum.Enum):
    SecureProtocols, TlsV1_2, TlsV1_3, TlsV1_3OrLater = range(4)


class Protocol(enum.Enum):
    TlsV1_2, TlsV1_3, UnknownProtocol = "TLSv1.2", "TLSv1.3", None


class QSsl:
    Pem, Der, Rsa, Ec = range(4)


for _version in Version:
    setattr(QSsl, _version.name, _version)


class QSslCertificate:
    def __init__(self, pem: bytes = b"", form: object = None) -> None:
        self.pem = pem

    def isNull(self) -> bool:
        return not self.pem


class QSslKey(QSslCertificate):
    def __init__(self, pem: bytes, algorithm: object, form: object) -> None:
        super().__init__(pem)


class QSslError:
    def __init__(self, error: trioqt.SslError) -> None:
        self.ours = error

    def error(self) -> Any:
        name = self.ours.kind.name.title().replace("_", "")
        return SimpleNamespace(name=name, value=self.ours.kind.value)


class QSslConfiguration:
    def __init__(self) -> None:
        self.certificate: QSslCertificate | None = None
        self.key: QSslKey | None = None
        self.authorities: list[QSslCertificate] = []
        self.verify_mode = VerifyMode.AutoVerifyPeer
        self.version = Version.SecureProtocols

    @staticmethod
    def defaultConfiguration() -> QSslConfiguration:
        return QSslConfiguration()

    def setLocalCertificate(self, certificate: QSslCertificate) -> None:
        self.certificate = certificate

    def setPrivateKey(self, key: QSslKey) -> None:
        self.key = key

    def setCaCertificates(self, certificates: Iterable[QSslCertificate]) -> None:
        self.authorities = list(certificates)

    def setPeerVerifyMode(self, mode: VerifyMode) -> None:
        self.verify_mode = mode

    def setProtocol(self, version: Version) -> None:
        self.version = version

    def context(self, *, server_side: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
        if self.authorities:
            context.load_verify_locations(cadata="".join(one.pem.decode() for one in self.authorities))
        if self.certificate is not None and self.key is not None:
            with tempfile.NamedTemporaryFile(suffix=".pem") as file:
                Path(file.name).write_bytes(self.key.pem + self.certificate.pem)
                context.load_cert_chain(file.name)
        if self.version is Version.TlsV1_2:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        elif self.version is not Version.SecureProtocols:
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.verify_mode is VerifyMode.VerifyNone:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif server_side and self.verify_mode is VerifyMode.VerifyPeer:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Cipher:
    def __init__(self, cipher: tuple[str, str, int] | None) -> None:
        self._cipher = cipher

    def isNull(self) -> bool:
        return self._cipher is None


class QSslSocket(QTcpSocket):
    ABSENT = QTcpSocket.ABSENT | {
        *("peerVerifyMode", "setPeerVerifyMode", "peerVerifyDepth", "peerVerifyName"),
        *("protocol", "setProtocol", "encryptedBytesAvailable", "encryptedBytesToWrite"),
    }
    SslMode = SslMode
    PeerVerifyMode = VerifyMode
    _sock: trioqt.SslSocket

    def __init__(self, parent: object = None, sock: trioqt.SslSocket | None = None) -> None:
        self._configuration = QSslConfiguration()
        self._verified: str | None = None
        self.encrypted, self.modeChanged, self.sslErrors = Signal(self), Signal(self), Signal(self)
        super().__init__(parent, sock)

    def _make(self) -> trioqt.TcpSocket:
        self._take(new_ssl_socket(stage().nursery, self._read_buffer_size))
        return self._sock

    def _tell(self, event: Event) -> None:
        match event:
            case trioqt.ModeChanged(mode):
                self._told.append(event)
                self.modeChanged.emit(SslMode(mode.value))
            case trioqt.SslErrors(errors):
                self._told.append(event)
                self.sslErrors.emit([QSslError(error) for error in errors])
            case trioqt.ErrorOccurred(trioqt.ErrorKind.SSL_HANDSHAKE_FAILED, _):
                super()._tell(event)
                failure = self._sock._generation.failure
                say_why(self, None if failure is None else failure.cause)
            case _:
                super()._tell(event)

    def setSslConfiguration(self, configuration: QSslConfiguration) -> None:
        self._configuration = configuration

    def setPeerVerifyMode(self, mode: VerifyMode) -> None:
        self._configuration.verify_mode = mode

    def setProtocol(self, version: Version) -> None:
        self._configuration.version = version

    def setPeerVerifyName(self, name: str) -> None:
        """A parameter with us, so there is no verb for it."""
        self._verified = name

    # -- getters

    def mode(self) -> Any:
        return stage().see(lambda: SslMode(self._sock.mode().value))

    def isEncrypted(self) -> bool:
        return stage().see(lambda: self._sock.is_encrypted())

    def sslHandshakeErrors(self) -> list[QSslError]:
        return [QSslError(error) for error in stage().see(lambda: self._sock.ssl_handshake_errors())]

    def sessionCipher(self) -> Cipher:
        return Cipher(stage().see(lambda: self._sock.session_cipher()))

    def sessionProtocol(self) -> Any:
        return Protocol(stage().see(lambda: self._sock.session_protocol()))

    def peerCertificate(self) -> QSslCertificate:
        return QSslCertificate(stage().see(lambda: self._sock.peer_certificate()) or b"")

    def peerCertificateChain(self) -> list[QSslCertificate]:
        return [QSslCertificate(one) for one in stage().see(lambda: self._sock.peer_certificate_chain())]

    # -- verbs

    def ignoreSslErrors(self, errors: Iterable[QSslError] | None = None) -> object:
        """There is no way to ignore all unseen, so without a list it names every kind that can be ignored."""
        ours = list(BEHIND) if errors is None else [error.ours for error in errors]
        return stage().do(lambda: or_else(None, lambda: self._sock.ignore_ssl_errors(ours)))

    def connectToHostEncrypted(self, host: object, port: int, verified: str | None = None) -> None:
        """Starts connect_to_host_encrypted in a task, and goes on when that waits (law 2)."""

        async def connect() -> None:
            self._reopen()
            self._attempt, self._ended = trio.CancelScope(), trio.Event()
            this, sock, since = self._ended, self._sock, len(self._told)
            sock._context = self._configuration.context(server_side=False)
            if self._configuration.verify_mode is VerifyMode.QueryPeer:  # it tells, and goes on by itself
                sock.ignore_ssl_errors(BEHIND)
            try:
                with self._attempt:
                    name = self._verified if verified is None else verified
                    await sock.connect_to_host_encrypted(host_of(host), port, server_hostname=name)
                    self._came_to(trioqt.SocketState.CONNECTED, since, "connect_to_host_encrypted")
            except trioqt.SocketError as exc:
                self._was_told(exc, "connect_to_host_encrypted")
            except trio.ClosedResourceError:
                self._came_to(trioqt.SocketState.UNCONNECTED, since, "what ended connect_to_host_encrypted")
            finally:
                this.set()

        stage().wait(lambda: stage().first_step(connect))

    def startClientEncryption(self) -> None:
        self._start(lambda: self._sock.start_client_encryption(), server_side=False)

    def startServerEncryption(self) -> None:
        self._start(lambda: self._sock.start_server_encryption(), server_side=True)

    def _start(self, begin: Callable[[], Any], *, server_side: bool) -> None:
        async def start() -> None:
            self._sock._context = self._configuration.context(server_side=server_side)
            try:
                await begin()
            except REFUSED as exc:
                refused(exc)

        stage().wait(lambda: stage().first_step(start))

    def waitForEncrypted(self, milliseconds: int = 30000) -> bool:
        return self._wait(milliseconds, lambda: self._sock.wait_for_encrypted())


for _names in (SslMode, VerifyMode):
    for _member in _names:
        setattr(QSslSocket, str(_member.name), _member)


class QSslServer(QTcpServer):
    def __init__(self, parent: object = None) -> None:
        self._configuration = QSslConfiguration()
        self.errorOccurred = Signal(self)
        super().__init__(parent)

    async def _live(self, task_status: trio.TaskStatus[Any]) -> None:
        await self._live_as(
            trioqt.SslServer(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._socket, keep_alive=False), task_status
        )

    def _socket(self) -> Any:
        sock = new_ssl_socket(None)
        self._accepted[sock] = QSslSocket(self, sock)
        self._made = True
        return sock

    def _tell(self, event: Event) -> None:
        match event:
            case trioqt.ConnectionFinished(_, _, trioqt.SocketError() as error):
                self.errorOccurred.emit(QSslSocket.__name__, error_of(error.kind))
                say_why(self, error.__cause__)
            case _:
                super()._tell(event)

    def setSslConfiguration(self, configuration: QSslConfiguration) -> None:
        context = configuration.context(server_side=True)
        stage().do(lambda: self._server.set_context(context))  # type: ignore[attr-defined]

    def handshakeTimeout(self) -> int:
        return int(stage().see(lambda: self._server._handshake_timeout * 1000))  # type: ignore[attr-defined]

    def setHandshakeTimeout(self, milliseconds: int) -> None:
        """A parameter with us, so there is no verb for it."""

        def change() -> None:
            self._server._handshake_timeout = milliseconds / 1000  # type: ignore[attr-defined]

        stage().do(change)


def say_why(obj: object, cause: BaseException | None) -> None:
    """Record that an alert of the peer's has told what a handshake failed by."""
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__
    if cause is not None and "_ALERT_" in (cause.reason or ""):
        instead(obj, "the peer has said why")


def new_ssl_socket(parent: trio.Nursery | None, read_buffer_size: int = 0) -> trioqt.SslSocket:
    """As Qt's: no limits, and the peer's end is the end."""
    return trioqt.SslSocket(
        parent,
        read_buffer_size=read_buffer_size,
        write_buffer_size=NO_LIMIT,
        half_open=False,
        unsent_limit=None,
    )
