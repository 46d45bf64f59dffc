"""QNetworkProxy and what belongs to it: values, an answer to a proxy's question, and the application's proxy."""

from __future__ import annotations

import enum
from typing import Any, ClassVar

import trioqt
from tests.conformance.stand_in.on_stage import stage
from trioqt.core.network_proxy import NetworkProxy, ProxyKind, ProxyQuery

__all__ = ["QAuthenticator", "QNetworkProxy", "QNetworkProxyFactory", "QNetworkProxyQuery", "proxy_of"]


class ProxyType(enum.Enum):
    DefaultProxy, Socks5Proxy, NoProxy, HttpProxy, HttpCachingProxy, FtpCachingProxy = range(6)


class QNetworkProxy:
    """NetworkProxy, with Qt's spelling."""

    ProxyType: ClassVar[Any] = ProxyType

    def __init__(
        self,
        kind: Any = ProxyType.DefaultProxy,
        host: str = "",
        port: int = 0,
        user: str = "",
        password: str = "",
    ) -> None:
        self.proxy = NetworkProxy(ProxyKind(kind.value), host, port, user, password)

    def type(self) -> Any:
        return ProxyType(self.proxy.kind.value)

    def hostName(self) -> str:
        return self.proxy.host

    def port(self) -> int:
        return self.proxy.port

    def user(self) -> str:
        return self.proxy.user

    def password(self) -> str:
        return self.proxy.password

    @staticmethod
    def setApplicationProxy(proxy: QNetworkProxy) -> None:
        stage().do(lambda: trioqt.set_application_proxy(proxy.proxy))


for _kind in ProxyType:
    setattr(QNetworkProxy, _kind.name, _kind)


def proxy_of(proxy: NetworkProxy) -> QNetworkProxy:
    """The other way round."""
    found = QNetworkProxy()
    found.proxy = proxy
    return found


class QueryType(enum.Enum):
    TcpSocket, UdpSocket, SctpSocket, TcpServer, UrlRequest, SctpServer = 0, 1, 2, 100, 101, 102


QUERIES = {"tcp": QueryType.TcpSocket, "udp": QueryType.UdpSocket, "server": QueryType.TcpServer}


class QNetworkProxyQuery:
    """ProxyQuery, with Qt's spelling."""

    QueryType: ClassVar[Any] = QueryType

    def __init__(self, query: ProxyQuery) -> None:
        self._query = query

    def queryType(self) -> Any:
        return QUERIES[self._query.kind]

    def peerHostName(self) -> str:
        return self._query.host

    def peerPort(self) -> int:
        return self._query.port if self._query.host else -1

    def localPort(self) -> int:
        return -1 if self._query.host else self._query.port or -1

    def protocolTag(self) -> str:
        return self._query.protocol_tag


class QNetworkProxyFactory:
    """A factory is a callable with us, and a class that overrides one method there."""

    current: ClassVar[QNetworkProxyFactory | None] = None

    def queryProxy(self, query: QNetworkProxyQuery) -> list[QNetworkProxy]:
        return []

    @staticmethod
    def setApplicationProxyFactory(factory: QNetworkProxyFactory | None) -> None:
        def ask(query: ProxyQuery) -> list[NetworkProxy]:
            assert factory is not None
            return [found.proxy for found in factory.queryProxy(QNetworkProxyQuery(query))]

        stage().do(lambda: trioqt.set_application_proxy_factory(None if factory is None else ask))


class QAuthenticator:
    """What a slot fills in; with us the pair that is returned."""

    def __init__(self, realm: str = "") -> None:
        self._realm = realm
        self._filled: dict[str, Any] = {}

    def realm(self) -> str:
        return self._realm

    def setUser(self, user: str) -> None:
        self._filled["user"] = user

    def setPassword(self, password: str) -> None:
        self._filled["password"] = password

    def user(self) -> str:
        return str(self._filled.get("user", ""))

    def password(self) -> str:
        return str(self._filled.get("password", ""))

    def answer(self) -> tuple[str, str] | None:
        """What the slot has said, if it has said anything."""
        return (self.user(), self.password()) if self._filled else None
