"""A small tracker: who is there for which torrent, told over HTTP (BEP 3, with BEP 23's short addresses).

GET /announce?info_hash=...&peer_id=...&port=6881&uploaded=0&downloaded=0&left=0&compact=1 HTTP/1.1
"""

from __future__ import annotations

import ipaddress
import math
import re
from typing import Final
from urllib.parse import parse_qsl

import trio

from examples.torrent.announce import COMPACT, Address
from examples.torrent.bencode import Value, encode
from trioqt import TcpSocket

__all__ = ["Tracker"]

MAX_TORRENTS: Final = 1000
MAX_PEERS: Final = 200  # of one torrent
PATIENCE: Final = 10.0  # to ask, in seconds


class Tracker:
    """What it knows; ``answer`` is the handler of a ``TcpServer``.

    Args:
      interval: How often peers are to ask again, in seconds; who has not for two of these is forgotten.
    """

    def __init__(self, interval: int = 60) -> None:
        self._interval = interval
        # When each peer has asked last; who has asked last is the last.
        self._torrents: dict[bytes, dict[Address, float]] = {}

    async def answer(self, sock: TcpSocket) -> None:
        """Answer one question.  Raises: SocketError, trio.TooSlowError.  Cancelled: it is not answered."""
        with trio.fail_after(PATIENCE):
            head = await sock.receive_until(b"\r\n\r\n", 8192)
            asked = re.match(rb"GET /announce\?(\S+) HTTP/1\.[01]\r\n", head)
            if asked is None:
                await sock.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            reply = encode(self.reply(asked[1].decode("latin-1"), str(sock.peer_address())))
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            await sock.send_all(head % len(reply) + reply)

    def reply(self, query: str, host: str) -> Value:
        """What a peer there hears."""
        asked = dict(parse_qsl(query, keep_blank_values=True, encoding="latin-1", max_num_fields=50))
        info_hash, port = asked.get("info_hash", "").encode("latin-1"), asked.get("port", "")
        if len(info_hash) != 20 or not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or not 0 < int(port) <= 65535:
            return {b"failure reason": b"no torrent, or no port"}
        now = trio.current_time()
        peers = self._peers_of(info_hash, now)
        if peers is None:
            return {b"failure reason": b"there are too many torrents here"}
        us: Address = (host, int(port))
        peers.pop(us, None)
        others = [address for address in peers if ":" not in address[0]]  # BEP 7 has IPv6
        if asked.get("event") != "stopped":
            if len(peers) == MAX_PEERS:
                del peers[next(iter(peers))]  # who has asked longest ago
            peers[us] = now
        if asked.get("compact") == "1":
            packed = b"".join(COMPACT.pack(ipaddress.IPv4Address(host).packed, port) for host, port in others)
            return {b"interval": self._interval, b"peers": packed}
        listed: list[Value] = [{b"ip": host.encode(), b"port": port} for host, port in others]
        return {b"interval": self._interval, b"peers": listed}

    def _peers_of(self, info_hash: bytes, now: float) -> dict[Address, float] | None:
        """Those that have asked of late, in this order; None if there is no room for one more torrent."""
        if info_hash not in self._torrents and len(self._torrents) >= MAX_TORRENTS:
            for each, peers in list(self._torrents.items()):
                if next(reversed(peers.values()), -math.inf) < now - 2 * self._interval:
                    del self._torrents[each]
        if info_hash not in self._torrents and len(self._torrents) >= MAX_TORRENTS:
            return None
        peers = self._torrents.setdefault(info_hash, {})
        for address in [address for address, when in peers.items() if when < now - 2 * self._interval]:
            del peers[address]
        return peers
