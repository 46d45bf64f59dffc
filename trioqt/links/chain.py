"""All that is wrong with a peer's certificates, where OpenSSL's own handshake stops at the first.

It needs pyOpenSSL, and with that cryptography (``pip install trioqt[tls]``): the standard library verifies within the
handshake or not at all.  The verdict is OpenSSL's, asked again with what it has found allowed, so that it goes on to
what is behind.  What it cannot be made to look behind of can be found here, and not ignored.

What a context was told and does not tell, its lists of revoked certificates, authorities that are none and those of a
directory, counts as missing; so this refuses what the handshake refuses, and may refuse more.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from trioqt.core.tls import SslError, SslErrorKind, ssl_error_kind
from trioqt.links.tls_terms import checks_of

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["BEHIND", "can_judge", "find_errors", "matches"]

# x509_vfy.h
NO_CHECK_TIME = 0x200000
PARTIAL_CHAIN = 0x80000
UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
WRONG_TIME = frozenset({9, 10})
UNABLE_TO_GET_LOCAL_ISSUER = 20

# Each error that is allowed leads to one more question at most, so a chain cannot keep us here.
MOST_QUESTIONS = 12

# SSL_CTX_set_security_level(3): the bits of security, by level, and those of the keys that have so many.
LEAST_RSA = (0, 1024, 2048, 3072, 7680, 15360)
LEAST_EC = (0, 160, 224, 256, 384, 512)
# And the bits that OpenSSL gives a signature's hash credit for.
LEVEL_BITS = (0, 80, 112, 128, 192, 256)
HASH_BITS = {"md5": 39, "sha1": 63, "sha224": 112, "sha256": 128, "sha384": 192, "sha512": 256}

BEHIND: frozenset[SslErrorKind] = frozenset(
    {
        SslErrorKind.HOST_NAME_MISMATCH,
        SslErrorKind.CERTIFICATE_EXPIRED,
        SslErrorKind.CERTIFICATE_NOT_YET_VALID,
        SslErrorKind.SELF_SIGNED_CERTIFICATE,
        SslErrorKind.SELF_SIGNED_CERTIFICATE_IN_CHAIN,
        SslErrorKind.UNABLE_TO_GET_ISSUER_CERTIFICATE,
        SslErrorKind.UNABLE_TO_GET_LOCAL_ISSUER_CERTIFICATE,
        SslErrorKind.UNABLE_TO_VERIFY_FIRST_CERTIFICATE,
    }
)
"""What can be looked behind of, and so be ignored by name."""


def can_judge() -> bool:
    """Is pyOpenSSL there?"""
    return find_spec("OpenSSL") is not None


def find_errors(
    chain: Sequence[bytes], context: ssl.SSLContext, hostname: str | None, *, of_client: bool = False
) -> tuple[SslError, ...]:
    """What is wrong with a peer's ``chain``, its own certificate first, by all that ``context`` asks for.

    Args:
      of_client: It is a client's, and else a server's.
    """
    mode, checks_name = checks_of(context)
    if mode is ssl.CERT_NONE:
        return ()
    if not chain:
        return (SslError(SslErrorKind.NO_PEER_CERTIFICATE, "the peer has shown no certificate"),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography finds fault with the numbers of some authorities of a system
        return _find_errors(chain, context, hostname, checks_name=checks_name, of_client=of_client)


def _find_errors(
    chain: Sequence[bytes], context: ssl.SSLContext, hostname: str | None, *, checks_name: bool, of_client: bool
) -> tuple[SslError, ...]:
    from cryptography import x509

    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        found: list[SslError] = []
        if checks_name and not (hostname and matches(_names(certificates[0]), hostname)):
            message = f"the certificate is not for {hostname}"
            found.append(SslError(SslErrorKind.HOST_NAME_MISMATCH, message, chain[0]))
        verified = list(_questions(certificates, context, found))
        for place, certificate in enumerate(verified):
            # As OpenSSL does, the key of the trusted one is looked at, and its signature is not.
            is_anchor = place == len(verified) - 1
            found.extend(_weaknesses(certificate, context.security_level, is_anchor=is_anchor))
            found.extend(_wrong_purpose(certificate, is_ca=place > 0, of_client=of_client))
    except (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension) as exc:
        return (SslError(SslErrorKind.UNSPECIFIED_ERROR, f"the certificate cannot be read: {exc}", chain[0]),)
    return tuple(found)


def _questions(
    certificates: Sequence[x509.Certificate], context: ssl.SSLContext, found: list[SslError]
) -> Iterator[x509.Certificate]:
    """Ask OpenSSL until it finds nothing more; the chain that it has come to in the end, if it came to one."""
    from OpenSSL import crypto

    flags = int(context.verify_flags)
    leaf, *between = [crypto.X509.from_cryptography(certificate) for certificate in certificates]
    trusted, allowed = list(_anchors(context)), set[bytes]()
    # Python's time, not the system's: a simulation has its own.
    now = datetime.datetime.now(datetime.UTC)
    for _ in range(MOST_QUESTIONS):
        store = crypto.X509Store()
        for anchor in trusted:
            store.add_cert(anchor)
        store.set_flags(flags)
        store.set_time(now)
        try:
            verified = crypto.X509StoreContext(store, leaf, between).get_verified_chain()
        except crypto.X509StoreContextError as exc:
            code, depth, message = exc.errors
            der = exc.certificate.to_cryptography().public_bytes(_der())
            found.append(SslError(ssl_error_kind(code), message, der))
            if code in UNKNOWN_ISSUER and der not in allowed:
                if code == UNABLE_TO_GET_LOCAL_ISSUER and depth == 0:
                    # There is nothing but itself, so OpenSSL goes on to say this as well.
                    kind = SslErrorKind.UNABLE_TO_VERIFY_FIRST_CERTIFICATE
                    found.append(SslError(kind, "unable to verify the first certificate", der))
                trusted.append(exc.certificate)
                allowed.add(der)
                flags |= PARTIAL_CHAIN
            elif code in WRONG_TIME and not flags & NO_CHECK_TIME:
                flags |= NO_CHECK_TIME
                found.extend(error for error in _wrong_times(certificates) if error.certificate != der)
            else:
                return
        else:
            yield from (certificate.to_cryptography() for certificate in verified)
            return
    found.append(SslError(SslErrorKind.UNSPECIFIED_ERROR, "too much is wrong with the chain", None))


def _anchors(context: ssl.SSLContext) -> Iterator[Any]:
    """The authorities that the context trusts.  One that cannot be read, among those of a system, trusts nobody."""
    from OpenSSL import crypto

    for der in context.get_ca_certs(binary_form=True):
        with contextlib.suppress(ValueError, crypto.Error):
            yield crypto.load_certificate(crypto.FILETYPE_ASN1, der)


def _der() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


def _wrong_times(certificates: Sequence[x509.Certificate]) -> Iterator[SslError]:
    now = datetime.datetime.now(datetime.UTC)
    for certificate in certificates:
        der = certificate.public_bytes(_der())
        if certificate.not_valid_after_utc < now:
            yield SslError(SslErrorKind.CERTIFICATE_EXPIRED, "certificate has expired", der)
        elif certificate.not_valid_before_utc > now:
            yield SslError(SslErrorKind.CERTIFICATE_NOT_YET_VALID, "certificate is not yet valid", der)


def _weaknesses(certificate: x509.Certificate, level: int, *, is_anchor: bool) -> Iterator[SslError]:
    """What the context's security level does not allow; OpenSSL checks it within a handshake only."""
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

    level = max(0, min(level, len(LEVEL_BITS) - 1))
    der = certificate.public_bytes(_der())
    key = certificate.public_key()
    if isinstance(key, (rsa.RSAPublicKey, dsa.DSAPublicKey)):
        is_small = key.key_size < LEAST_RSA[level]
    else:
        is_small = isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < LEAST_EC[level]
    if is_small:
        yield SslError(SslErrorKind.UNSPECIFIED_ERROR, "key too small", der)
    algorithm = certificate.signature_hash_algorithm
    if not is_anchor and algorithm is not None and HASH_BITS.get(algorithm.name, 256) < LEVEL_BITS[level]:
        yield SslError(SslErrorKind.UNSPECIFIED_ERROR, "signature hash too weak", der)


def _wrong_purpose(certificate: x509.Certificate, *, is_ca: bool, of_client: bool) -> Iterator[SslError]:
    """Is it for such peers?  As OpenSSL's check_purpose_ssl_server and check_purpose_ssl_client."""
    from cryptography import x509

    wanted = x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH if of_client else x509.oid.ExtendedKeyUsageOID.SERVER_AUTH
    is_for_them = True
    try:
        is_for_them = wanted in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        pass
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        can_speak = usage.digital_signature or usage.key_agreement or (usage.key_encipherment and not of_client)
        is_for_them = is_for_them and (is_ca or can_speak)
    except x509.ExtensionNotFound:
        pass
    if not is_for_them:
        der = certificate.public_bytes(_der())
        yield SslError(SslErrorKind.INVALID_PURPOSE, "unsuitable certificate purpose", der)


def _names(certificate: x509.Certificate) -> list[str]:
    """What it is for: names, and addresses in their canonical form.  A common name does not count."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def matches(names: Sequence[str], hostname: str) -> bool:
    """Is a certificate for ``names`` one for ``hostname``?  RFC 6125, section 6.4.

    A star stands for the whole left-most label of a name that has two others at least, and never for an address.
    """
    try:
        hostname = str(ipaddress.ip_address(hostname))
        return hostname in names
    except ValueError:
        pass
    try:
        wanted = hostname.encode("idna").decode("ascii").lower().rstrip(".")
    except UnicodeError:
        return False
    first, _, rest = wanted.partition(".")
    for name in names:
        pattern = name.lower().rstrip(".")
        if pattern == wanted:
            return True
        if pattern.startswith("*.") and pattern[2:] == rest and "." in rest and first:
            return True
    return False
