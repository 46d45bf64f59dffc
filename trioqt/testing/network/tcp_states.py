"""The states of a simulated TCP connection, as one table: RFC 9293, figure 5, without what is not simulated."""

from __future__ import annotations

from typing import Final

__all__ = ["SENDING_STATES", "TRANSITIONS"]

# From anywhere `TcpEnd.forget` leads to CLOSED; `TcpEnd._feed` applies the table, and nothing else assigns a state.
TRANSITIONS: Final = {
    ("CLOSED",      "syn sent"):     "SYN_SENT",
    ("CLOSED",      "syn received"): "SYN_RECV",
    ("SYN_SENT",    "agreed"):       "ESTABLISHED",
    ("SYN_RECV",    "agreed"):       "ESTABLISHED",
    ("ESTABLISHED", "fin sent"):     "FIN_WAIT1",
    ("CLOSE_WAIT",  "fin sent"):     "LAST_ACK",
    ("FIN_WAIT1",   "fin acked"):    "FIN_WAIT2",
    ("CLOSING",     "fin acked"):    "TIME_WAIT",
    ("LAST_ACK",    "fin acked"):    "CLOSED",
    ("ESTABLISHED", "fin received"): "CLOSE_WAIT",
    ("FIN_WAIT1",   "fin received"): "CLOSING",
    ("FIN_WAIT2",   "fin received"): "TIME_WAIT",
}  # fmt: skip

SENDING_STATES: Final = ("ESTABLISHED", "CLOSE_WAIT", "SYN_SENT")
