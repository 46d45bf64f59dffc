"""What a failure of TLS means, by OpenSSL's name for it."""

from __future__ import annotations

import re
import ssl

__all__ = ["REFUSALS", "ended_early", "message_of"]

MESSAGES = {
    "HTTP_REQUEST": "the peer speaks plain HTTP, not TLS",
    "HTTPS_PROXY_REQUEST": "the peer takes this for an HTTP proxy, and does not speak TLS",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS",
    "PACKET_LENGTH_TOO_LONG": "the peer does not speak TLS",
    "RECORD_LAYER_FAILURE": "the peer does not speak TLS",
    "BAD_RECORD_TYPE": "the peer does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "there is no version of TLS in common",
    "NO_PROTOCOLS_AVAILABLE": "the context allows no version of TLS",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the peer says that there is no version of TLS in common",
    "NO_SHARED_CIPHER": "there is no cipher in common, or the context has no certificate that fits one",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the peer refuses the handshake: no cipher in common, or no certificate",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": "the peer refuses the ciphers as too weak",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not trust who issued our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the peer refuses our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the peer says that our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the peer says that our certificate is revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the peer refuses our certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the peer refuses our certificate as of the wrong kind",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the peer wants a certificate, and the context has none",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer has shown no certificate",
    "TLSV1_UNRECOGNIZED_NAME": "the peer does not know the name that was asked for",
    "CALLBACK_FAILED": "the context's own callback refuses it, for the name that was asked for",
    "EXCESSIVE_MESSAGE_SIZE": "what the peer says is longer than TLS allows; its certificates, most likely",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the peer speaks none of the protocols that were offered (ALPN)",
}
"""By OpenSSL's name for it, what a failure means; others say what OpenSSL says."""

# What OpenSSL calls an alert of the peer's that has no words above, and what Python writes around OpenSSL's.
ALERT = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?(.+)")
AROUND = re.compile(r"^\[[^]]*\] *| *\(_ssl\.c:\d+\)$")

REFUSALS = frozenset(
    [
        *("TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
        *("SSLV3_ALERT_CERTIFICATE_REVOKED", "SSLV3_ALERT_CERTIFICATE_UNKNOWN", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"),
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    ]
)
"""Of these, what a peer says that does not want our certificate."""


def message_of(exc: ssl.SSLError) -> str:
    """What a failure means, in words."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the peer's certificate is refused: {exc.verify_message}"
    name = _name_of(exc)
    known = MESSAGES.get(name)
    if known is not None:
        return known
    alert = ALERT.fullmatch(name)
    said, what = ("TLS failed", name) if alert is None else ("the peer says", alert[1])
    return f"{said}: {what.replace('_', ' ').lower()}"


def _name_of(exc: ssl.SSLError) -> str:
    """OpenSSL's name for it.  Of some alerts Python knows no name, and gives OpenSSL's words."""
    if exc.reason:
        return exc.reason
    return "_".join(AROUND.sub("", exc.strerror or str(exc)).upper().split())


def ended_early(message: str) -> ssl.SSLEOFError:
    """As OpenSSL says it, in plainer words."""
    exc = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, message)
    exc.library, exc.reason = "SSL", "UNEXPECTED_EOF_WHILE_READING"
    return exc
