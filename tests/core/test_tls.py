"""What TLS finds wrong, by Qt's names and OpenSSL's numbers."""

from __future__ import annotations

import ssl

import pytest

from trioqt import SslError, SslErrorKind
from trioqt.core.tls import KINDS, ssl_error_kind, ssl_error_of, verification_error


@pytest.mark.parametrize(("code", "kind"), KINDS.items())
def test_openssls_numbers_have_qts_names(code: int, kind: SslErrorKind) -> None:
    """Each of them there and back: an error that is raised is read as what it was made of."""
    error = SslError(kind, "what it says")

    assert ssl_error_kind(code) is kind
    assert ssl_error_of(verification_error(error), None) == error


def test_what_has_no_name_is_unspecified() -> None:
    """The message says what it is."""
    assert ssl_error_kind(3) is SslErrorKind.UNSPECIFIED_ERROR
    assert verification_error(SslError(SslErrorKind.UNSPECIFIED_ERROR, "x")).verify_code == 1


def test_a_certificate_that_is_missing_is_an_error_of_its_own() -> None:
    """OpenSSL tells it by another exception."""
    exc = ssl.SSLError(1, "no certificate")
    exc.reason = "PEER_DID_NOT_RETURN_A_CERTIFICATE"

    error = ssl_error_of(exc, None)

    assert error is not None
    assert error.kind is SslErrorKind.NO_PEER_CERTIFICATE
    assert ssl_error_of(OSError("unrelated"), None) is None


def test_qts_numbers_are_those_of_qt() -> None:
    """Read off PySide6, where it is."""
    network = pytest.importorskip("PySide6.QtNetwork")
    theirs = {member.name.lower(): member.value for member in network.QSslError.SslError}

    assert {kind.name.replace("_", "").lower(): kind.value for kind in SslErrorKind}.items() <= theirs.items()
