"""Asking a tracker for peers, over HTTP: one GET, and a dictionary in bencode for an answer (BEP 3 and BEP 23)."""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import Final
from urllib.parse import quote, urlsplit

import attrs

from examples.torrent.bencode import BencodeError, Value, decode
from examples.torrent.metainfo import TorrentError
from trioqt import HostAddress, TcpSocket

__all__ = ["COMPACT", "Address", "Question", "Reply", "announce", "parse_reply"]

Address = tuple[str, int]

COMPACT: Final = struct.Struct("!4sH")  # an address, as BEP 23 has it

MAX_HEAD: Final = 16384
MAX_BODY: Final = 1 << 20

# Of one answer.  BEP 3's trackers give 50.
MAX_ADDRESSES: Final = 200

# In seconds, whatever the tracker says.
MIN_INTERVAL: Final = 5
MAX_INTERVAL: Final = 3600


@attrs.frozen
class Question:
    """What the tracker is told."""

    info_hash: bytes
    peer_id: bytes
    port: int
    uploaded: int
    downloaded: int
    left: int
    event: str = ""

    def query(self) -> str:
        """As a URL has it."""
        pairs = attrs.asdict(self) | {"compact": 1}
        return "&".join(
            f"{key}={quote(value if isinstance(value, bytes) else str(value))}" for key, value in pairs.items()
        )


@attrs.frozen
class Reply:
    """What it answers: when to ask again, and who else is there."""

    interval: int
    addresses: tuple[Address, ...]


async def announce(url: str, question: Question) -> Reply:
    """Ask the tracker at ``url``.

    Raises:
      TorrentError: It is no such URL, or what comes is no answer.
      SocketError: The tracker cannot be reached, or ends too soon.
    Cancelled: the connection is gone; the tracker may have heard.
    """
    odd = TorrentError(f"the tracker {url!r:.200} is none that is asked by http")
    if not re.fullmatch(r"http://[!-~]+", url):  # else urlsplit leaves line ends out
        raise odd
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as exc:
        raise odd from exc
    if not host:
        raise odd
    query = "&".join(filter(None, (parts.query, question.query())))
    async with TcpSocket() as sock:
        await sock.connect_to_host(host, port)
        request = f"GET {parts.path or '/'}?{query} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n"
        await sock.send_all(request.encode())
        head = await sock.receive_until(b"\r\n\r\n", MAX_HEAD)
        if not re.match(rb"HTTP/1\.[01] 200\b", head):
            raise TorrentError(f"the tracker says {head.splitlines()[:1]!r:.200}")
        body = bytearray()
        length = re.search(rb"(?i)\r\ncontent-length: *(\d{1,9})\r\n", head)
        most = MAX_BODY + 1 if length is None else int(length[1])
        while len(body) < most and (chunk := await sock.receive_some()):
            body += chunk
            if len(body) > MAX_BODY:
                raise TorrentError(f"the tracker's answer has more than {MAX_BODY:,} bytes")
    return parse_reply(bytes(body))


def parse_reply(body: bytes) -> Reply:
    """Raises: TorrentError."""
    try:
        reply = decode(body)
    except BencodeError as exc:
        raise TorrentError(f"the tracker's answer is not bencode: {exc}") from exc
    if not isinstance(reply, dict):
        raise TorrentError("the tracker's answer is no dictionary")
    if b"failure reason" in reply:
        raise TorrentError(f"the tracker refuses: {reply[b'failure reason']!r:.200}")
    interval, peers = reply.get(b"interval"), reply.get(b"peers", b"")
    if not isinstance(interval, int):
        raise TorrentError("the tracker does not say when to ask again")
    if isinstance(peers, bytes) and len(peers) % COMPACT.size == 0:
        pairs = COMPACT.iter_unpack(peers[: MAX_ADDRESSES * COMPACT.size])
        addresses = [(str(ipaddress.IPv4Address(packed)), port) for packed, port in pairs]
    elif isinstance(peers, list):
        addresses = [_address(peer) for peer in peers[:MAX_ADDRESSES]]
    else:
        raise TorrentError("the tracker's peers are no addresses")
    usable = tuple(address for address in addresses if address[1])
    return Reply(min(max(interval, MIN_INTERVAL), MAX_INTERVAL), usable)


def _address(peer: Value) -> Address:
    """One that is not compact."""
    ip, port = (peer.get(b"ip"), peer.get(b"port")) if isinstance(peer, dict) else (None, None)
    if not isinstance(ip, bytes) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise TorrentError("a peer of the tracker's has no address")
    try:
        return str(HostAddress(ip.decode("ascii"))), port
    except ValueError as exc:
        raise TorrentError(f"{ip!r:.100} is no address") from exc
