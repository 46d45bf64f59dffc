"""Qt's TCP sockets and servers as nursery-scoped objects on trio streams.

Start with ``TcpServer`` and ``TcpSocket``.  ``trioqt.testing`` holds what tests need.
"""

from trioqt.core.addresses import HostAddress, NetworkLayerProtocol
from trioqt.core.data_stream import DataStream, Variant
from trioqt.core.datagram import NetworkDatagram
from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.events import (
    AcceptError,
    BytesWritten,
    Connected,
    ConnectionFinished,
    Disconnected,
    Draining,
    Encrypted,
    ErrorOccurred,
    Event,
    HostFound,
    ModeChanged,
    NewConnection,
    ProxyAuthenticationRequired,
    ReadChannelFinished,
    ReadyRead,
    SslErrors,
    StateChanged,
)
from trioqt.core.host_info import HostInfo
from trioqt.core.interfaces import InterfaceAddress, InterfaceFlag, NetworkInterface
from trioqt.core.network_proxy import NetworkProxy, ProxyKind, ProxyQuery
from trioqt.core.options import BindMode, SocketOption, SocketType
from trioqt.core.proxy_environment import environment_proxies
from trioqt.core.raw_stream import DataStreamError, DataStreamVersion, Incomplete
from trioqt.core.socket_state import SocketState
from trioqt.core.tls import PauseMode, SslError, SslErrorKind, SslMode
from trioqt.sockets.abstract_socket import AbstractSocket
from trioqt.sockets.names import local_host_name, look_up_host, network_interfaces
from trioqt.sockets.proxy_choice import set_application_proxy, set_application_proxy_factory
from trioqt.sockets.serving import DrainReport
from trioqt.sockets.ssl_server import SslServer
from trioqt.sockets.ssl_socket import SslSession, SslSocket
from trioqt.sockets.stopping import stop_on_signals
from trioqt.sockets.tcp_server import TcpServer
from trioqt.sockets.tcp_socket import TcpSocket
from trioqt.sockets.udp_socket import UdpSocket

__all__ = [
    "AbstractSocket",
    "AcceptError",
    "BindMode",
    "BytesWritten",
    "Connected",
    "ConnectionFinished",
    "DataStream",
    "DataStreamError",
    "DataStreamVersion",
    "Disconnected",
    "DrainReport",
    "Draining",
    "Encrypted",
    "ErrorKind",
    "ErrorOccurred",
    "Event",
    "HostAddress",
    "HostFound",
    "HostInfo",
    "Incomplete",
    "InterfaceAddress",
    "InterfaceFlag",
    "NetworkInterface",
    "NetworkDatagram",
    "ModeChanged",
    "NetworkLayerProtocol",
    "NetworkProxy",
    "NewConnection",
    "PauseMode",
    "ProxyAuthenticationRequired",
    "ProxyKind",
    "ProxyQuery",
    "ReadChannelFinished",
    "ReadyRead",
    "SocketError",
    "SocketOption",
    "SocketState",
    "SocketType",
    "SslError",
    "SslErrorKind",
    "SslErrors",
    "SslMode",
    "SslServer",
    "SslSession",
    "SslSocket",
    "StateChanged",
    "TcpServer",
    "TcpSocket",
    "local_host_name",
    "look_up_host",
    "network_interfaces",
    "UdpSocket",
    "Variant",
    "environment_proxies",
    "set_application_proxy",
    "set_application_proxy_factory",
    "stop_on_signals",
]

__version__ = "0.1.0"
