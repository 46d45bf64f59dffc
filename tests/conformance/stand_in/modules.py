"""The modules of PySide6, as a scenario imports them: their classes drive trioqt, and it cannot tell the difference.

Each method of these classes is one verb or getter of trioqt, and says so in its one line.  Where Qt starts something
and signals its end, the verb of trioqt runs in a task (law 2); where Qt returns a failure, trioqt raises, and what was
raised is recorded like a warning of Qt (law 4).  What trioqt does not have answers ``NOT_THERE``.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.conformance.stand_in.datagrams import QNetworkDatagram, QNetworkInterface, QUdpSocket
from tests.conformance.stand_in.loop import ConnectionType, QCoreApplication, QEventLoop, QTimer
from tests.conformance.stand_in.names import QHostInfo
from tests.conformance.stand_in.objects import QIODevice, QIODeviceBase, QObject
from tests.conformance.stand_in.on_stage import NOT_THERE, stage
from tests.conformance.stand_in.proxies import (
    QAuthenticator,
    QNetworkProxy,
    QNetworkProxyFactory,
    QNetworkProxyQuery,
)
from tests.conformance.stand_in.servers import QTcpServer
from tests.conformance.stand_in.sockets import QAbstractSocket, QTcpSocket
from tests.conformance.stand_in.tls import (
    QSsl,
    QSslCertificate,
    QSslConfiguration,
    QSslError,
    QSslKey,
    QSslServer,
    QSslSocket,
)
from tests.conformance.stand_in.values import QByteArray, QHostAddress

__all__ = ["CORE", "NETWORK", "SHIBOKEN", "absent"]


def delete(obj: QObject) -> None:
    """``del obj`` of C++: the end of a scope, with us (law 3)."""
    if isinstance(obj, QTcpServer):
        stage().wait(obj._destroy)
    elif isinstance(obj, QAbstractSocket):
        stage().do(lambda: obj._sock._close())


def is_valid(obj: QObject) -> bool:
    return not (isinstance(obj, QAbstractSocket) and obj._sock._closed)


class AbsentType(type):
    """What an absent class has is absent too, such as its enums."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return absent(name)


class Absent(metaclass=AbsentType):
    """A class of Qt that trioqt has no counterpart of."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise NotImplementedError(NOT_THERE)


def absent(name: str) -> AbsentType:
    """Such a class, of which every use but naming it fails."""
    return AbsentType(name, (Absent,), {})


NETWORK = SimpleNamespace(
    QAbstractSocket=QAbstractSocket,
    QTcpSocket=QTcpSocket,
    QTcpServer=QTcpServer,
    QUdpSocket=QUdpSocket,
    QNetworkDatagram=QNetworkDatagram,
    QNetworkInterface=QNetworkInterface,
    QHostAddress=QHostAddress,
    QSsl=QSsl,
    QSslCertificate=QSslCertificate,
    QSslConfiguration=QSslConfiguration,
    QSslError=QSslError,
    QSslKey=QSslKey,
    QSslServer=QSslServer,
    QSslSocket=QSslSocket,
    QHostInfo=QHostInfo,
    QNetworkProxy=QNetworkProxy,
    QNetworkProxyFactory=QNetworkProxyFactory,
    QNetworkProxyQuery=QNetworkProxyQuery,
    QAuthenticator=QAuthenticator,
)
CORE = SimpleNamespace(
    QByteArray=QByteArray,
    QObject=QObject,
    QCoreApplication=QCoreApplication,
    QEventLoop=QEventLoop,
    QTimer=QTimer,
    QIODevice=QIODevice,
    Qt=SimpleNamespace(ConnectionType=ConnectionType, **ConnectionType.__members__),
    QIODeviceBase=QIODeviceBase,
)
SHIBOKEN = SimpleNamespace(delete=delete, isValid=is_valid)
