"""What TLS finds wrong with a certificate, and how OpenSSL's numbers say it."""

from __future__ import annotations

import enum
import ssl

import attrs

__all__ = ["PauseMode", "SslError", "SslErrorKind", "SslMode", "ssl_error_kind", "ssl_error_of", "verification_error"]


class SslMode(enum.Enum):
    """Which end of TLS a socket is.  Qt: QSslSocket::SslMode."""

    UNENCRYPTED = 0
    """It speaks no TLS, or none yet."""
    CLIENT = 1
    """It has begun the handshake, or is about to."""
    SERVER = 2
    """It waits for the peer to begin the handshake, or has answered."""


class PauseMode(enum.Flag):
    """When a socket stops and asks.  Qt: QAbstractSocket::PauseModes."""

    NEVER = 0
    """It never does."""
    ON_SSL_ERRORS = 1
    """When the peer's certificate is found wrong, until ``resume``."""


class SslErrorKind(enum.Enum):
    """What is wrong with the peer's certificate.

    Qt: QSslError::SslError, the numbers too; those that OpenSSL can find.
    """

    UNABLE_TO_GET_ISSUER_CERTIFICATE = 1
    """One of its chain was issued by somebody whose certificate is nowhere."""
    UNABLE_TO_DECRYPT_CERTIFICATE_SIGNATURE = 2
    """Its signature is damaged."""
    UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY = 3
    """The key of its issuer cannot be read."""
    CERTIFICATE_SIGNATURE_FAILED = 4
    """Its issuer has not signed it."""
    CERTIFICATE_NOT_YET_VALID = 5
    """Its time has not come."""
    CERTIFICATE_EXPIRED = 6
    """Its time is over."""
    INVALID_NOT_BEFORE_FIELD = 7
    """The date from which it holds makes no sense."""
    INVALID_NOT_AFTER_FIELD = 8
    """The date until which it holds makes no sense."""
    SELF_SIGNED_CERTIFICATE = 9
    """It has issued itself, and is not trusted."""
    SELF_SIGNED_CERTIFICATE_IN_CHAIN = 10
    """The authority at the end of its chain is not trusted."""
    UNABLE_TO_GET_LOCAL_ISSUER_CERTIFICATE = 11
    """Nobody trusted has issued it, or the peer has left out who is in between."""
    UNABLE_TO_VERIFY_FIRST_CERTIFICATE = 12
    """There is nothing but itself to verify it with."""
    CERTIFICATE_REVOKED = 13
    """Its issuer has taken it back, says a list (CRL) of the context."""
    INVALID_CA_CERTIFICATE = 14
    """It was issued by somebody who is no authority."""
    PATH_LENGTH_EXCEEDED = 15
    """There are more authorities in between than one of them allows."""
    INVALID_PURPOSE = 16
    """It is not for this end of TLS."""
    CERTIFICATE_UNTRUSTED = 17
    """Its authority is not trusted for this."""
    CERTIFICATE_REJECTED = 18
    """Its authority is refused for this."""
    SUBJECT_ISSUER_MISMATCH = 19
    """The names in the chain do not fit."""
    AUTHORITY_ISSUER_SERIAL_NUMBER_MISMATCH = 20
    """The numbers in the chain do not fit."""
    NO_PEER_CERTIFICATE = 21
    """The peer has shown none."""
    HOST_NAME_MISMATCH = 22
    """It is for another name."""
    UNSPECIFIED_ERROR = -1
    """Something that Qt has no name for; the message says what."""


@attrs.frozen
class SslError:
    """One finding about one certificate of the peer's chain.  Qt: QSslError."""

    kind: SslErrorKind
    """What is wrong with it."""
    message: str
    """In words, OpenSSL's where it has found it."""
    certificate: bytes | None = attrs.field(default=None, repr=False)
    """The certificate, as DER; None if it is not known which, or the peer has shown none."""


# x509_vfy.h: X509_V_ERR_...
KINDS: dict[int, SslErrorKind] = {
    2: SslErrorKind.UNABLE_TO_GET_ISSUER_CERTIFICATE,
    4: SslErrorKind.UNABLE_TO_DECRYPT_CERTIFICATE_SIGNATURE,
    6: SslErrorKind.UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY,
    7: SslErrorKind.CERTIFICATE_SIGNATURE_FAILED,
    9: SslErrorKind.CERTIFICATE_NOT_YET_VALID,
    10: SslErrorKind.CERTIFICATE_EXPIRED,
    13: SslErrorKind.INVALID_NOT_BEFORE_FIELD,
    14: SslErrorKind.INVALID_NOT_AFTER_FIELD,
    18: SslErrorKind.SELF_SIGNED_CERTIFICATE,
    19: SslErrorKind.SELF_SIGNED_CERTIFICATE_IN_CHAIN,
    20: SslErrorKind.UNABLE_TO_GET_LOCAL_ISSUER_CERTIFICATE,
    21: SslErrorKind.UNABLE_TO_VERIFY_FIRST_CERTIFICATE,
    23: SslErrorKind.CERTIFICATE_REVOKED,
    25: SslErrorKind.PATH_LENGTH_EXCEEDED,
    26: SslErrorKind.INVALID_PURPOSE,
    27: SslErrorKind.CERTIFICATE_UNTRUSTED,
    28: SslErrorKind.CERTIFICATE_REJECTED,
    29: SslErrorKind.SUBJECT_ISSUER_MISMATCH,
    31: SslErrorKind.AUTHORITY_ISSUER_SERIAL_NUMBER_MISMATCH,
    62: SslErrorKind.HOST_NAME_MISMATCH,
    64: SslErrorKind.HOST_NAME_MISMATCH,
    79: SslErrorKind.INVALID_CA_CERTIFICATE,
}


def ssl_error_kind(code: int) -> SslErrorKind:
    """The kind of what OpenSSL's verification calls ``code``."""
    return KINDS.get(code, SslErrorKind.UNSPECIFIED_ERROR)


def verification_error(error: SslError) -> ssl.SSLCertVerificationError:
    """The same as OpenSSL would have raised it in a handshake."""
    exc = ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, f"certificate verify failed: {error.message}")
    exc.library, exc.reason = "SSL", "CERTIFICATE_VERIFY_FAILED"
    exc.verify_code = next((code for code, kind in KINDS.items() if kind is error.kind), 1)  # X509_V_ERR_UNSPECIFIED
    exc.verify_message = error.message
    return exc


def ssl_error_of(exc: BaseException, certificate: bytes | None) -> SslError | None:
    """What a failed handshake says of the peer's certificate, if that is why it failed.

    Args:
      certificate: The peer's own, if it is known.
    """
    if isinstance(exc, ssl.SSLCertVerificationError):
        kind = ssl_error_kind(exc.verify_code)
        return SslError(kind, exc.verify_message, certificate if kind is SslErrorKind.HOST_NAME_MISMATCH else None)
    if isinstance(exc, ssl.SSLError) and exc.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return SslError(SslErrorKind.NO_PEER_CERTIFICATE, "the peer has shown no certificate")
    return None
