"""Certificates with which something is wrong, each with what the client's context must know to see it."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable
from functools import cache
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from trioqt import SslErrorKind

__all__ = ["BAD", "DAY", "GOOD", "NAME", "NOW", "Case", "Entity", "authority", "issue"]

NAME = "good.example"
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@attrs.frozen
class Entity:
    """A certificate, and the key that belongs to it."""

    certificate: x509.Certificate
    key: Key

    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()


def issue(
    name: str,
    issuer: Entity | None = None,
    *,
    begins: datetime.datetime = NOW - DAY,
    ends: datetime.datetime = NOW + DAY,
    is_ca: bool = False,
    usage: x509.ObjectIdentifier | None = None,
    key: Key | None = None,
    signer: Key | None = None,
) -> Entity:
    """A certificate for ``name``, self-signed without an issuer."""
    key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_key = key if issuer is None else issuer.key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if is_ca:
        usages = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usages, critical=True)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return Entity(builder.sign(issuer_key if signer is None else signer, hashes.SHA256()), key)


@cache
def authority() -> Entity:
    """The one that the client trusts."""
    return issue("Trusted CA", is_ca=True)


@attrs.frozen
class Case:
    """A server's context and a client's."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def case(tmp: Any, leaf: Entity, *between: Entity, crl: x509.CertificateRevocationList | None = None) -> Case:
    """The server shows ``leaf`` and who is ``between``; the client trusts the authority."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_ciphers("DEFAULT:@SECLEVEL=0")
    file = tmp / f"{leaf.certificate.serial_number}.pem"
    key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    file.write_text(key + leaf.pem() + "".join(entity.pem() for entity in between))
    server.load_cert_chain(file)
    client = ssl.create_default_context(cadata=authority().pem())
    if crl is not None:
        listed = tmp / f"{leaf.certificate.serial_number}.crl"
        listed.write_bytes(crl.public_bytes(Encoding.PEM))
        client.load_verify_locations(listed)
        client.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return Case(server, client)


def revoked(tmp: Any) -> Case:
    leaf = issue(NAME, authority())
    entry = x509.RevokedCertificateBuilder().serial_number(leaf.certificate.serial_number).revocation_date(NOW - DAY)
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority().certificate.subject)
        .last_update(NOW - DAY)
        .next_update(NOW + DAY)
        .add_revoked_certificate(entry.build())
        .sign(authority().key, hashes.SHA256())
    )
    return case(tmp, leaf, crl=crl)


def unknown_authority() -> Entity:
    return issue("Unknown CA", is_ca=True)


def in_between(tmp: Any, *, is_shown: bool) -> Case:
    between = issue("Between", authority(), is_ca=True)
    leaf = issue(NAME, between)
    return case(tmp, leaf, between) if is_shown else case(tmp, leaf)


def issued_by_no_authority(tmp: Any) -> Case:
    between = issue("no authority", authority())
    return case(tmp, issue(NAME, between), between)


def untrusted_root_shown(tmp: Any) -> Case:
    root = unknown_authority()
    return case(tmp, issue(NAME, root), root)


K = SslErrorKind
LOCAL = (K.UNABLE_TO_GET_LOCAL_ISSUER_CERTIFICATE, K.UNABLE_TO_VERIFY_FIRST_CERTIFICATE)

# fmt: off
GOOD: dict[str, Callable[[Any], Case]] = {
    "good":               lambda tmp: case(tmp, issue(NAME, authority())),
    "good, in between":   lambda tmp: in_between(tmp, is_shown=True),
    "good, for servers":  lambda tmp: case(tmp, issue(NAME, authority(), usage=ExtendedKeyUsageOID.SERVER_AUTH)),
}
# How it comes about, what the handshake stops at, and all that is found where errors are ignored or paused on.
BAD: dict[str, tuple[Callable[[Any], Case], SslErrorKind, tuple[SslErrorKind, ...]]] = {
    "expired": (
        lambda tmp: case(tmp, issue(NAME, authority(), begins=NOW - 2 * DAY, ends=NOW - DAY)),
        K.CERTIFICATE_EXPIRED, (K.CERTIFICATE_EXPIRED,)),
    "not yet valid": (
        lambda tmp: case(tmp, issue(NAME, authority(), begins=NOW + DAY, ends=NOW + 2 * DAY)),
        K.CERTIFICATE_NOT_YET_VALID, (K.CERTIFICATE_NOT_YET_VALID,)),
    "for another name": (
        lambda tmp: case(tmp, issue("other.example", authority())),
        K.HOST_NAME_MISMATCH, (K.HOST_NAME_MISMATCH,)),
    "self-signed": (
        lambda tmp: case(tmp, issue(NAME)),
        K.SELF_SIGNED_CERTIFICATE, (K.SELF_SIGNED_CERTIFICATE,)),
    "of an unknown authority": (
        lambda tmp: case(tmp, issue(NAME, unknown_authority())),
        K.UNABLE_TO_GET_LOCAL_ISSUER_CERTIFICATE, LOCAL),
    "of an unknown authority that is shown": (
        untrusted_root_shown,
        K.SELF_SIGNED_CERTIFICATE_IN_CHAIN, (K.SELF_SIGNED_CERTIFICATE_IN_CHAIN,)),
    "the one in between is not shown": (
        lambda tmp: in_between(tmp, is_shown=False),
        K.UNABLE_TO_GET_LOCAL_ISSUER_CERTIFICATE, LOCAL),
    "issued by no authority": (
        issued_by_no_authority,
        K.INVALID_CA_CERTIFICATE, (K.INVALID_CA_CERTIFICATE,)),
    "signed by somebody else": (
        lambda tmp: case(tmp, issue(NAME, authority(), signer=ec.generate_private_key(ec.SECP256R1()))),
        K.CERTIFICATE_SIGNATURE_FAILED, (K.CERTIFICATE_SIGNATURE_FAILED,)),
    "for clients only": (
        lambda tmp: case(tmp, issue(NAME, authority(), usage=ExtendedKeyUsageOID.CLIENT_AUTH)),
        K.INVALID_PURPOSE, (K.INVALID_PURPOSE,)),
    "a weak key": (
        lambda tmp: case(tmp, issue(NAME, authority(), key=rsa.generate_private_key(65537, 1024))),
        K.UNSPECIFIED_ERROR, (K.UNSPECIFIED_ERROR,)),
    "revoked": (revoked, K.CERTIFICATE_REVOKED, (K.UNSPECIFIED_ERROR,)),  # without the list, it may be
    "expired, self-signed and for another name": (
        lambda tmp: case(tmp, issue("other.example", begins=NOW - 2 * DAY, ends=NOW - DAY)),
        K.SELF_SIGNED_CERTIFICATE, (K.HOST_NAME_MISMATCH, K.SELF_SIGNED_CERTIFICATE, K.CERTIFICATE_EXPIRED)),
}
# fmt: on
