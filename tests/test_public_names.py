"""The public surface, pinned: a name that comes or goes is a deliberate line in a diff of this file."""

from __future__ import annotations

import ast
import enum
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import trioqt
import trioqt.testing
from trioqt import HostAddress

NAMES = [
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

TESTING_NAMES = [
    "BudgetExceeded",
    "Conditions",
    "Crash",
    "Deadlock",
    "Degraded",
    "DescriptorsExhausted",
    "Fault",
    "FaultPlan",
    "Hold",
    "Isolated",
    "Latency",
    "Loss",
    "NameServerDown",
    "Partition",
    "Pause",
    "Planned",
    "Probe",
    "RealNetworkUsed",
    "ResetConnections",
    "ScriptedProxy",
    "SignalSpy",
    "Skew",
    "TraceEvent",
    "VirtualNetwork",
    "assert_replays",
    "both_networks",
    "cancel_everywhere",
    "expect",
    "guards",
    "interrupt_everywhere",
    "like",
    "real_network_allowed",
    "real_time",
    "simulate",
]

# What each public class has; an enum's members and numbers stand below.
PROXY = "protocol_tag proxy set_protocol_tag set_proxy set_proxy_authenticator"
ABSTRACT_SOCKET = f"""
    {PROXY}
    abort bind error error_string events is_valid local_address local_port peer_address peer_name peer_port
    pause_mode resume set_pause_mode
    set_socket_descriptor set_socket_option socket_descriptor socket_option socket_type state wait_for_connected
    wait_for_disconnected
"""
FAULT = "begin change change_host end hosts lasts"
ON_LINK = f"{FAULT} a b change_direction one_way"
ON_HOST = f"{FAULT} change_this_host host"
TCP_SOCKET = f"""
        {ABSTRACT_SOCKET}
        aclose connect_to_host disconnect_from_host from_stream
        at_end bytes_available can_read_line commit_transaction get_char is_transaction_started peek peer_has_finished
        read read_all
        read_buffer_size read_line
        rollback_transaction set_read_buffer_size skip start_transaction unget_char
        lines receive_exactly receive_line receive_message receive_some receive_until transaction wait_for_ready_read
        bytes_to_write flush put_char send_all send_eof wait_for_bytes_written wait_send_all_might_not_block write
"""
TCP_SERVER = f"""
    {PROXY}
        accept aclose add_pending_connection close connection_count drain error_string events has_pending_connections
        is_draining is_listening listen listen_backlog_size max_pending_connections next_pending_connection
        pause_accepting resume_accepting serve serve_descriptors server_address server_error server_port
        set_listen_backlog_size set_max_pending_connections set_socket_descriptor socket_descriptor wait_for_draining
        wait_for_new_connection
"""
ATTRIBUTES: dict[str, str] = {
    "AbstractSocket": ABSTRACT_SOCKET,
    "TcpSocket": TCP_SOCKET,
    "TcpServer": TCP_SERVER,
    "SslSocket": f"""
        {TCP_SOCKET}
        connect_to_host_encrypted start_client_encryption start_server_encryption wait_for_encrypted
        ignore_ssl_errors ssl_handshake_errors
        channel_binding is_encrypted is_session_reused mode peer_certificate peer_certificate_chain
        selected_alpn_protocol session session_cipher session_protocol set_session
    """,
    "SslServer": f"{TCP_SERVER} set_context",
    "UdpSocket": f"""
        {ABSTRACT_SOCKET}
        aclose connect_to_host disconnect_from_host
        bytes_available dropped_datagrams has_pending_datagrams pending_datagram_size read read_all read_buffer_size
        read_datagram receive_datagram set_read_buffer_size wait_for_ready_read
        bytes_to_write flush send_datagram wait_for_bytes_written write write_datagram
        join_multicast_group leave_multicast_group multicast_interface set_multicast_interface
    """,
    "NetworkDatagram": """
        data destination_address destination_port hop_limit interface_index make_reply sender_address sender_port
        truncated
    """,
    "DataStream": """
        at_end byte_order data floating_point_precision read_bool read_double read_float read_int16
        read_int32 read_int64 read_int8 read_list read_map read_q_byte_array read_q_date read_q_date_time
        read_q_string read_q_string_list read_q_time read_q_url read_q_variant read_raw_data read_uint16
        read_uint32 read_uint64 read_uint8 set_byte_order set_floating_point_precision set_version
        skip_raw_data version write_bool write_double write_float write_int16 write_int32 write_int64
        write_int8 write_list write_map write_q_byte_array write_q_date write_q_date_time write_q_string
        write_q_string_list write_q_time write_q_url write_q_variant write_raw_data write_uint16
        write_uint32 write_uint64 write_uint8
    """,
    "DataStreamError": "",
    "Incomplete": "needed",
    "Variant": "type value",
    "SslSession": "checks context server_hostname session",
    "SslError": "certificate kind message",
    "DrainReport": "cancelled finished",
    "HostAddress": """
        ANY ANY_IPV4 ANY_IPV6 BROADCAST LOCAL_HOST LOCAL_HOST_IPV6 NULL
        ip is_in_subnet is_loopback is_multicast protocol text
    """,
    "HostInfo": "addresses canonical_name host_name",
    "InterfaceAddress": "address broadcast prefix_length",
    "NetworkInterface": "addresses flags hardware_address index is_complete mtu name",
    "NetworkProxy": "context from_url host kind looks_up_names password port user via",
    "ProxyQuery": "host kind port protocol_tag",
    "SocketError": "kind message",
    "Event": "",
    "StateChanged": "state",
    "HostFound": "",
    "Connected": "",
    "Encrypted": "",
    "ModeChanged": "mode",
    "SslErrors": "errors",
    "ReadChannelFinished": "",
    "Disconnected": "",
    "ErrorOccurred": "kind message",
    "ProxyAuthenticationRequired": "proxy realm",
    "ReadyRead": "merge",
    "BytesWritten": "count merge",
    "NewConnection": "merge",
    "AcceptError": "kind merge message",
    "ConnectionFinished": "error peer peer_port",
    "Draining": "",
    "Probe": "cancelled expect injected seed subject track",
    "VirtualNetwork": """
        begin crash current current_host deliveries digest everybody find handler_failures has_names hold host in_flight
        ladder mtu netstat new_path
        partition pause quiesce reset_connections run_on set_link set_name trace
    """,
    "Conditions": "bandwidth duplication jitter latency loss mtu queue reordering",
    "TraceEvent": "checksum kind note size source target time",
    "Fault": FAULT,
    "Partition": ON_LINK,
    "Hold": ON_LINK,
    "Loss": f"{ON_LINK} rate",
    "Latency": f"{ON_LINK} jitter latency",
    "Degraded": f"{ON_LINK} bandwidth duplication jitter latency loss queue reordering",
    "ResetConnections": f"{FAULT} a b",
    "Isolated": ON_HOST,
    "Crash": ON_HOST,
    "Pause": ON_HOST,
    "DescriptorsExhausted": f"{ON_HOST} limit",
    "NameServerDown": f"{FAULT} host",
    "Skew": f"{ON_HOST} rate seconds",
    "FaultPlan": "duration faults from_json to_json",
    "Planned": "at fault until",
    "ScriptedProxy": "end_connections network_proxy serve",
    "SignalSpy": "clear count index wait_for",
    "Deadlock": "",
    "BudgetExceeded": "",
    "RealNetworkUsed": "",
}

# Qt's numbers, all of them; those of ours that Qt lacks are LIMIT_EXCEEDED, CORRUPT_DATA and REUSE_PORT.
MEMBERS: dict[str, dict[str, int]] = {
    "InterfaceFlag": {
        "IS_UP": 1,
        "IS_RUNNING": 2,
        "CAN_BROADCAST": 4,
        "IS_LOOPBACK": 8,
        "IS_POINT_TO_POINT": 16,
        "CAN_MULTICAST": 32,
    },
    "SocketState": {
        "UNCONNECTED": 0,
        "HOST_LOOKUP": 1,
        "CONNECTING": 2,
        "CONNECTED": 3,
        "BOUND": 4,
        "LISTENING": 5,
        "CLOSING": 6,
    },
    "ErrorKind": {
        "CONNECTION_REFUSED": 0,
        "REMOTE_HOST_CLOSED": 1,
        "HOST_NOT_FOUND": 2,
        "SOCKET_ACCESS": 3,
        "SOCKET_RESOURCE": 4,
        "SOCKET_TIMEOUT": 5,
        "DATAGRAM_TOO_LARGE": 6,
        "NETWORK": 7,
        "ADDRESS_IN_USE": 8,
        "SOCKET_ADDRESS_NOT_AVAILABLE": 9,
        "UNSUPPORTED_SOCKET_OPERATION": 10,
        "UNFINISHED_SOCKET_OPERATION": 11,
        "PROXY_AUTHENTICATION_REQUIRED": 12,
        "SSL_HANDSHAKE_FAILED": 13,
        "PROXY_CONNECTION_REFUSED": 14,
        "PROXY_CONNECTION_CLOSED": 15,
        "PROXY_CONNECTION_TIMEOUT": 16,
        "PROXY_NOT_FOUND": 17,
        "PROXY_PROTOCOL": 18,
        "OPERATION": 19,
        "SSL_INTERNAL": 20,
        "SSL_INVALID_USER_DATA": 21,
        "TEMPORARY": 22,
        "UNKNOWN": -1,
        "LIMIT_EXCEEDED": 100,
        "CORRUPT_DATA": 101,
    },
    "DataStreamVersion": {
        "QT_4_0": 7,
        "QT_4_1": 7,
        "QT_4_2": 8,
        "QT_4_3": 9,
        "QT_4_4": 10,
        "QT_4_5": 11,
        "QT_4_6": 12,
        "QT_4_7": 12,
        "QT_4_8": 12,
        "QT_4_9": 12,
        "QT_5_0": 13,
        "QT_5_1": 14,
        "QT_5_2": 15,
        "QT_5_3": 15,
        "QT_5_4": 16,
        "QT_5_5": 16,
        "QT_5_6": 17,
        "QT_5_7": 17,
        "QT_5_8": 17,
        "QT_5_9": 17,
        "QT_5_10": 17,
        "QT_5_11": 17,
        "QT_5_12": 18,
        "QT_5_13": 19,
        "QT_5_14": 19,
        "QT_5_15": 19,
        "QT_6_0": 20,
        "QT_6_1": 20,
        "QT_6_2": 20,
        "QT_6_3": 20,
        "QT_6_4": 20,
        "QT_6_5": 20,
        "QT_6_6": 21,
        "QT_6_7": 22,
        "QT_6_8": 22,
        "QT_6_9": 22,
        "QT_6_10": 23,
        "QT_6_11": 24,
        "QT_6_12": 24,
    },
    "SslMode": {"UNENCRYPTED": 0, "CLIENT": 1, "SERVER": 2},
    "PauseMode": {"NEVER": 0, "ON_SSL_ERRORS": 1},
    "SslErrorKind": {
        "UNABLE_TO_GET_ISSUER_CERTIFICATE": 1,
        "UNABLE_TO_DECRYPT_CERTIFICATE_SIGNATURE": 2,
        "UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY": 3,
        "CERTIFICATE_SIGNATURE_FAILED": 4,
        "CERTIFICATE_NOT_YET_VALID": 5,
        "CERTIFICATE_EXPIRED": 6,
        "INVALID_NOT_BEFORE_FIELD": 7,
        "INVALID_NOT_AFTER_FIELD": 8,
        "SELF_SIGNED_CERTIFICATE": 9,
        "SELF_SIGNED_CERTIFICATE_IN_CHAIN": 10,
        "UNABLE_TO_GET_LOCAL_ISSUER_CERTIFICATE": 11,
        "UNABLE_TO_VERIFY_FIRST_CERTIFICATE": 12,
        "CERTIFICATE_REVOKED": 13,
        "INVALID_CA_CERTIFICATE": 14,
        "PATH_LENGTH_EXCEEDED": 15,
        "INVALID_PURPOSE": 16,
        "CERTIFICATE_UNTRUSTED": 17,
        "CERTIFICATE_REJECTED": 18,
        "SUBJECT_ISSUER_MISMATCH": 19,
        "AUTHORITY_ISSUER_SERIAL_NUMBER_MISMATCH": 20,
        "NO_PEER_CERTIFICATE": 21,
        "HOST_NAME_MISMATCH": 22,
        "UNSPECIFIED_ERROR": -1,
    },
    "SocketType": {"TCP": 0, "UDP": 1, "SCTP": 2, "UNKNOWN": -1},
    "SocketOption": {
        "LOW_DELAY": 0,
        "KEEP_ALIVE": 1,
        "MULTICAST_TTL": 2,
        "MULTICAST_LOOPBACK": 3,
        "TYPE_OF_SERVICE": 4,
        "SEND_BUFFER_SIZE": 5,
        "RECEIVE_BUFFER_SIZE": 6,
        "PATH_MTU": 7,
        "KEEP_ALIVE_IDLE": 8,
        "KEEP_ALIVE_INTERVAL": 9,
        "KEEP_ALIVE_COUNT": 10,
    },
    "BindMode": {
        "DEFAULT_FOR_PLATFORM": 0,
        "SHARE_ADDRESS": 1,
        "DONT_SHARE_ADDRESS": 2,
        "REUSE_ADDRESS_HINT": 4,
        "REUSE_PORT": 8,
    },
    "ProxyKind": {"DEFAULT": 0, "SOCKS5": 1, "NONE": 2, "HTTP": 3, "HTTP_CACHING": 4, "FTP_CACHING": 5},
    "NetworkLayerProtocol": {"IPV4": 0, "IPV6": 1, "ANY_IP": 2, "UNKNOWN": -1},
}

# What the first milestone promises, as the contract spells it: names, which of them wait, parameters and defaults.
# Annotations are the type checker's business.
CONTRACT = """
class HostAddress:
    def __init__(self, text): ...
    @property
    def ip(self): ...
    def protocol(self): ...
    def is_loopback(self): ...
    def is_multicast(self): ...
    def is_in_subnet(self, subnet): ...

class HostInfo:
    def __init__(self, host_name, canonical_name, addresses): ...
class InterfaceAddress:
    def __init__(self, address, prefix_length, broadcast=HostAddress.NULL): ...
class NetworkInterface:
    def __init__(
        self, name, index, hardware_address='', flags=InterfaceFlag(0), mtu=0, addresses=(), is_complete=True
    ): ...

class StateChanged:
    def __init__(self, state): ...
class HostFound:
    def __init__(self): ...
class Connected:
    def __init__(self): ...
class Encrypted:
    def __init__(self): ...
class ModeChanged:
    def __init__(self, mode): ...
class SslErrors:
    def __init__(self, errors): ...
class SslError:
    def __init__(self, kind, message, certificate=None): ...
class SslSession:
    def __init__(self, server_hostname, context, session, checks=None): ...
class ReadChannelFinished:
    def __init__(self): ...
class Disconnected:
    def __init__(self): ...
class ErrorOccurred:
    def __init__(self, kind, message): ...
class ReadyRead:
    def __init__(self): ...
class BytesWritten:
    def __init__(self, count): ...
class ProxyAuthenticationRequired:
    def __init__(self, proxy, realm): ...
class NetworkProxy:
    def __init__(
        self, kind, host="", port=0, user="", password="", context=None, *, looks_up_names=True, via=None
    ): ...
    @classmethod
    def from_url(cls, url, *, context=None, via=None): ...
class ProxyQuery:
    def __init__(self, host, port, protocol_tag, kind): ...
class NewConnection:
    def __init__(self): ...
class AcceptError:
    def __init__(self, kind, message): ...
class ConnectionFinished:
    def __init__(self, peer, peer_port, error): ...
class Draining:
    def __init__(self): ...
class DrainReport:
    def __init__(self, finished, cancelled): ...

class AbstractSocket:
    def __init__(self, parent=None): ...
    async def __aenter__(self): ...
    async def __aexit__(self, exc_type, exc, traceback): ...
    def events(self, *kinds, facts=None): ...
    def state(self): ...
    def error(self): ...
    def error_string(self): ...
    def is_valid(self): ...
    def local_address(self): ...
    def local_port(self): ...
    def peer_address(self): ...
    def peer_name(self): ...
    def peer_port(self): ...
    def socket_type(self): ...
    def socket_descriptor(self): ...
    def set_socket_descriptor(self, descriptor, state=SocketState.CONNECTED): ...
    def set_socket_option(self, option, value): ...
    def socket_option(self, option): ...
    async def bind(self, host=HostAddress.ANY, port=0, mode=None, *, options=()): ...
    def pause_mode(self): ...
    def set_pause_mode(self, mode): ...
    def resume(self): ...
    def abort(self, *, reset=False): ...
    async def wait_for_connected(self): ...
    async def wait_for_disconnected(self): ...
    def proxy(self): ...
    def set_proxy(self, proxy): ...
    def protocol_tag(self): ...
    def set_protocol_tag(self, tag): ...
    def set_proxy_authenticator(self, authenticator): ...

class TcpSocket(AbstractSocket):
    def __init__(
        self, parent=None, *, read_buffer_size=65536, write_buffer_size=65536, half_open=True, flush_timeout=10.0,
        unsent_limit=131072, socket_type=SocketType.TCP
    ): ...
    @classmethod
    def from_stream(cls, stream, parent=None, **arguments): ...
    async def connect_to_host(
        self, host, port, *, protocol=NetworkLayerProtocol.ANY_IP, options=(), task_status=trio.TASK_STATUS_IGNORED
    ): ...
    async def disconnect_from_host(self): ...
    async def aclose(self): ...
    def bytes_available(self): ...
    def can_read_line(self): ...
    def at_end(self): ...
    def peer_has_finished(self): ...
    def peek(self, max_bytes): ...
    def skip(self, max_bytes): ...
    def read(self, max_bytes): ...
    def read_all(self): ...
    def read_line(self, max_bytes=None): ...
    def get_char(self): ...
    def unget_char(self, char): ...
    def is_transaction_started(self): ...
    def start_transaction(self): ...
    def commit_transaction(self): ...
    def rollback_transaction(self): ...
    def read_buffer_size(self): ...
    def set_read_buffer_size(self, size): ...
    def __aiter__(self): ...
    async def __anext__(self): ...
    async def receive_some(self, max_bytes=None): ...
    async def receive_line(self, max_bytes=65536): ...
    async def receive_message(self, read, max_bytes=1 << 24, *, version=DataStreamVersion.QT_5_15): ...
    def transaction(self, max_bytes=1 << 24): ...
    async def receive_until(self, delimiter, max_bytes=65536): ...
    async def receive_exactly(self, count): ...
    def lines(self, max_bytes=65536): ...
    async def wait_for_ready_read(self): ...
    def write(self, data): ...
    def put_char(self, char): ...
    def flush(self): ...
    def bytes_to_write(self): ...
    async def send_all(self, data): ...
    async def wait_send_all_might_not_block(self): ...
    async def wait_for_bytes_written(self): ...
    async def send_eof(self): ...

class NetworkDatagram:
    def __init__(
        self, data, sender_address=HostAddress.NULL, sender_port=0, destination_address=HostAddress.NULL,
        destination_port=0, hop_limit=-1, interface_index=0, truncated=False
    ): ...
    def make_reply(self, data): ...

class UdpSocket(AbstractSocket):
    def __init__(self, parent=None): ...
    async def connect_to_host(
        self, host, port, *, protocol=NetworkLayerProtocol.ANY_IP, options=(), task_status=trio.TASK_STATUS_IGNORED
    ): ...
    async def disconnect_from_host(self): ...
    async def aclose(self): ...
    def has_pending_datagrams(self): ...
    def pending_datagram_size(self): ...
    def read_datagram(self, max_bytes=None): ...
    def bytes_available(self): ...
    def read(self, max_bytes): ...
    def read_all(self): ...
    def read_buffer_size(self): ...
    def set_read_buffer_size(self, size): ...
    def dropped_datagrams(self): ...
    def __aiter__(self): ...
    async def __anext__(self): ...
    async def receive_datagram(self, max_bytes=None): ...
    async def wait_for_ready_read(self): ...
    def write_datagram(self, data, host=HostAddress.NULL, port=0): ...
    async def send_datagram(self, data, host=HostAddress.NULL, port=0): ...
    def write(self, data): ...
    def bytes_to_write(self): ...
    def flush(self): ...
    async def wait_for_bytes_written(self): ...
    def join_multicast_group(self, group, interface=None, *, source=None): ...
    def leave_multicast_group(self, group, interface=None, *, source=None): ...
    def multicast_interface(self): ...
    def set_multicast_interface(self, interface): ...

class SslSocket(TcpSocket):
    def __init__(self, parent=None, *, context=None, **tcp): ...
    @classmethod
    def from_stream(cls, stream, parent=None, *, context=None, **arguments): ...
    async def connect_to_host_encrypted(
        self, host, port, *, server_hostname=None, protocol=NetworkLayerProtocol.ANY_IP, options=(),
        task_status=trio.TASK_STATUS_IGNORED
    ): ...
    async def start_client_encryption(self, *, server_hostname=None): ...
    async def start_server_encryption(self): ...
    async def wait_for_encrypted(self): ...
    def is_encrypted(self): ...
    def mode(self): ...
    def ignore_ssl_errors(self, errors): ...
    def ssl_handshake_errors(self): ...
    def set_pause_mode(self, mode): ...
    def resume(self): ...
    def peer_certificate(self): ...
    def peer_certificate_chain(self): ...
    def session_protocol(self): ...
    def session_cipher(self): ...
    def selected_alpn_protocol(self): ...
    def session(self): ...
    def set_session(self, session): ...
    def is_session_reused(self): ...
    def channel_binding(self, kind='tls-unique'): ...

class TcpServer:
    def __init__(
        self, socket_factory=None, *, max_connections=None, max_connections_per_peer=None, idle_limit=None,
        stall_limit=None, keep_alive=True, socket_type=SocketType.TCP
    ): ...
    async def __aenter__(self): ...
    async def __aexit__(self, exc_type, exc, traceback): ...
    def __aiter__(self): ...
    def events(self, *kinds, facts=None): ...
    async def listen(self, host=HostAddress.ANY, port=0, *, backlog=None, reuse_port=False, options=()): ...
    async def serve(self, handler, *, isolate=True, task_status=trio.TASK_STATUS_IGNORED): ...
    async def serve_descriptors(self, handler, *, isolate=True, task_status=trio.TASK_STATUS_IGNORED): ...
    async def drain(self, grace): ...
    def is_draining(self): ...
    async def wait_for_draining(self): ...
    def close(self): ...
    def add_pending_connection(self, sock): ...
    def is_listening(self): ...
    def server_address(self): ...
    def server_port(self): ...
    def server_error(self): ...
    def error_string(self): ...
    def connection_count(self): ...
    def pause_accepting(self): ...
    def resume_accepting(self): ...
    def has_pending_connections(self): ...
    def next_pending_connection(self): ...
    def listen_backlog_size(self): ...
    def set_listen_backlog_size(self, size): ...
    def max_pending_connections(self): ...
    def set_max_pending_connections(self, count): ...
    def socket_descriptor(self): ...
    def set_socket_descriptor(self, descriptor): ...
    def proxy(self): ...
    def set_proxy(self, proxy): ...
    def protocol_tag(self): ...
    def set_protocol_tag(self, tag): ...
    def set_proxy_authenticator(self, authenticator): ...
    async def wait_for_new_connection(self): ...
    async def accept(self): ...
    async def aclose(self): ...

class SslServer(TcpServer):
    def __init__(
        self, context, socket_factory=None, *, handshake_timeout=5.0, max_handshakes=1000, **server
    ): ...
    async def serve(self, handler, *, isolate=True, task_status=trio.TASK_STATUS_IGNORED): ...
    def set_context(self, context): ...
"""


def public_objects() -> dict[str, Any]:
    """Everything that ``__all__`` of trioqt and of trioqt.testing names."""
    return {name: getattr(module, name) for module in (trioqt, trioqt.testing) for name in module.__all__}


CLASSES: dict[str, Any] = {name: thing for name, thing in public_objects().items() if inspect.isclass(thing)}
ENUMS = {name: kind for name, kind in CLASSES.items() if issubclass(kind, enum.Enum)}


def public_attributes(kind: type) -> set[str]:
    """What ``kind`` has under a name without underscore, beyond what Python's own exceptions have."""
    annotated = {name for base in kind.__mro__ if base.__module__.startswith("trioqt") for name in base.__annotations__}
    inherited = set(dir(OSError)) if issubclass(kind, BaseException) else set()
    return {name for name in annotated | set(dir(kind)) if not name.startswith("_")} - inherited


def public_methods(kind: type) -> Iterator[tuple[str, Any]]:
    """The methods and properties of ``kind`` that have a public name, each as it is when asked for."""
    for name in sorted(public_attributes(kind)):
        raw = inspect.getattr_static(kind, name, None)
        if isinstance(raw, property | classmethod | staticmethod) or inspect.isfunction(raw):
            yield name, getattr(kind, name)


def waits(function: Any) -> bool:
    """Is it async, under whatever decorators?"""
    return inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.iscoroutinefunction(function)


# ---- the names -----------------------------------------------------------------------------


def test_the_public_names_are_these() -> None:
    """``from trioqt import *`` gives just them, in this order."""
    assert trioqt.__all__ == NAMES
    assert sorted(trioqt.testing.__all__) == TESTING_NAMES


def test_every_public_name_is_there() -> None:
    """A name in ``__all__`` can be imported, and says where it is at home."""
    for name, thing in public_objects().items():
        assert thing.__name__ == name
        assert thing.__module__.startswith("trioqt.")


@pytest.mark.parametrize("name", sorted(set(CLASSES) - set(ENUMS)))
def test_a_class_has_these_attributes_and_no_others(name: str) -> None:
    """What is not listed here has an underscore, so that it can change."""
    assert public_attributes(CLASSES[name]) == set(ATTRIBUTES[name].split())


@pytest.mark.parametrize("name", sorted(ENUMS))
def test_an_enum_has_these_members_with_qts_numbers(name: str) -> None:
    """And no methods: they are values."""
    members = {member_name: member.value for member_name, member in ENUMS[name].__members__.items()}

    assert members == MEMBERS[name]
    assert public_attributes(ENUMS[name]) - {"name", "value", *dir(int)} <= set(members)


def test_every_class_is_pinned_once() -> None:
    """A new public class must be entered above, in one of the two lists."""
    assert set(CLASSES) == set(ATTRIBUTES) | set(MEMBERS)
    assert not set(ATTRIBUTES) & set(MEMBERS)


def test_the_well_known_addresses_are_there() -> None:
    """They are values of the class, so a program writes ``HostAddress.LOCAL_HOST``."""
    known = {name: getattr(HostAddress, name) for name in sorted(public_attributes(HostAddress)) if name.isupper()}

    assert {name: address.text for name, address in known.items()} == {
        "ANY": "*",
        "ANY_IPV4": "0.0.0.0",
        "ANY_IPV6": "::",
        "BROADCAST": "255.255.255.255",
        "LOCAL_HOST": "127.0.0.1",
        "LOCAL_HOST_IPV6": "::1",
        "NULL": "",
    }
    assert all(isinstance(address, HostAddress) for address in known.values())


# ---- the contract --------------------------------------------------------------------------


def promised_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[tuple[str, str, str]]:
    """Name, kind and default of each parameter, as the contract has them; without ``self`` or ``cls``."""
    arguments = function.args
    plain = [*arguments.posonlyargs, *arguments.args]
    required = len(plain) - len(arguments.defaults)
    defaults = [""] * required + [ast.unparse(default) for default in arguments.defaults]
    found = [(a.arg, "POSITIONAL_OR_KEYWORD", default) for a, default in zip(plain, defaults, strict=True)][1:]
    if arguments.vararg is not None:
        found.append((arguments.vararg.arg, "VAR_POSITIONAL", ""))
    for argument, keyword_default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append((argument.arg, "KEYWORD_ONLY", "" if keyword_default is None else ast.unparse(keyword_default)))
    if arguments.kwarg is not None:
        found.append((arguments.kwarg.arg, "VAR_KEYWORD", ""))
    return found


def parameters_of(function: Callable[..., Any], promised: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The same of what there is; a default that equals the promised one is spelled as there."""
    known = {**vars(trioqt), "trio": __import__("trio")}
    spelled = {name: text for name, _, text in promised if text}
    found: list[tuple[str, str, str]] = []
    for name, parameter in inspect.signature(function).parameters.items():
        text = "" if parameter.default is inspect.Parameter.empty else repr(parameter.default)
        if text and name in spelled and eval(spelled[name], known) == parameter.default:
            text = spelled[name]
        if not (name in ("self", "cls") and not found):
            found.append((name, parameter.kind.name, text))
    return found


def contract_complaints(contract: str) -> list[str]:
    """Every promise of ``contract`` that trioqt does not keep."""
    complaints: list[str] = []
    for promised_class in ast.parse(contract).body:
        assert isinstance(promised_class, ast.ClassDef)
        kind = CLASSES[promised_class.name]
        bases = {ast.unparse(base) for base in promised_class.bases}
        if not bases <= {base.__name__ for base in kind.__mro__}:
            complaints.append(f"{promised_class.name} is no {bases}")
        for promised in promised_class.body:
            if not isinstance(promised, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            place = f"{promised_class.name}.{promised.name}"
            raw = inspect.getattr_static(kind, promised.name, None)
            decorators = [ast.unparse(decorator) for decorator in promised.decorator_list]
            if raw is None:
                complaints.append(f"{place} is missing")
            elif isinstance(raw, property) != ("property" in decorators):
                complaints.append(f"{place} is a method or a property, and should be the other")
            elif isinstance(raw, classmethod) != ("classmethod" in decorators):
                complaints.append(f"{place} is a class method, or should be")
            elif not isinstance(raw, property):
                function = getattr(kind, promised.name)
                expected = promised_parameters(promised)
                if waits(function) != isinstance(promised, ast.AsyncFunctionDef):
                    complaints.append(f"{place} is async, or should be")
                if (there := parameters_of(function, expected)) != expected:
                    complaints.append(f"{place} has {there}, promised is {expected}")
    return complaints


def test_the_contract_is_kept() -> None:
    """Every promised name is there, with the promised parameters and defaults, and waits or does not, as promised."""
    assert contract_complaints(CONTRACT) == []


def test_the_contract_promises_each_public_method() -> None:
    """And nothing public is there that nobody promised: of a base class, what its base promises; merging is ours."""
    classes = {node.name: node for node in ast.parse(CONTRACT).body if isinstance(node, ast.ClassDef)}

    def with_bases(promised: ast.ClassDef) -> Iterator[ast.stmt]:
        yield from promised.body
        for base in promised.bases:
            yield from with_bases(classes[ast.unparse(base)])

    for name, promised in classes.items():
        functions = [n for n in with_bases(promised) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]

        methods = {method for method, _ in public_methods(CLASSES[name])} - {"merge"}

        assert methods <= {function.name for function in functions}, name


@pytest.mark.parametrize(
    ("contract", "complaint"),
    [
        ("class TcpSocket:\n    def fly(self): ...", "TcpSocket.fly is missing"),
        ("class TcpSocket(TcpServer): ...", "TcpSocket is no {'TcpServer'}"),
        ("class TcpSocket:\n    async def write(self, data): ...", "TcpSocket.write is async, or should be"),
        ("class TcpSocket:\n    def from_stream(self, stream, parent=None): ...", "class method"),
        ("class HostAddress:\n    def ip(self): ...", "HostAddress.ip is a method or a property"),
        ("class TcpSocket:\n    def write(self, data, more): ...", "TcpSocket.write has"),
        ("class TcpSocket:\n    def write(self, data=b''): ...", "TcpSocket.write has"),
        ("class TcpSocket:\n    def lines(self, max_bytes=65537): ...", "TcpSocket.lines has"),
        ("class TcpSocket:\n    def lines(self, *, max_bytes=65536): ...", "TcpSocket.lines has"),
        ("class TcpSocket:\n    def lines(self, max_bytes): ...", "TcpSocket.lines has"),
    ],
)
def test_a_broken_promise_is_found(contract: str, complaint: str) -> None:
    """The test of the contract can fail, in each way there is."""
    complaints = contract_complaints(contract)

    assert len(complaints) == 1
    assert complaint in complaints[0]


# ---- what the names say of themselves ------------------------------------------------------


def test_every_public_name_has_a_docstring() -> None:
    """Each class, function, method and property says what one gets; what a base class says counts."""
    silent = [name for name, thing in public_objects().items() if not inspect.getdoc(thing)]
    for class_name, kind in CLASSES.items():
        silent += [f"{class_name}.{name}" for name, method in public_methods(kind) if not inspect.getdoc(method)]

    assert silent == []


def test_every_public_method_that_waits_says_what_a_cancellation_leaves() -> None:
    """Exact cancellation is what we promise, so each docstring has a "Cancelled" head."""
    waiting = [
        (f"{class_name}.{name}", inspect.getdoc(method) or "")
        for class_name, kind in CLASSES.items()
        for name, method in public_methods(kind)
        if waits(method)
    ]

    assert [name for name, doc in waiting if "Cancelled:" not in doc] == []
    assert len(waiting) >= 20
