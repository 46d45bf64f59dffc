"""``trioqt serve echo --tls`` and ``trioqt connect --tls``: TLS by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from tests.cli.commands import call_trioqt, events_of, read_line, run_trioqt, running_trioqt
from tests.networks import Loopback


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A certificate for localhost, of an authority that nobody knows, and its key."""
    certificate = trustme.CA().issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    return str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")


async def test_the_two_commands_talk_over_tls(network: Loopback, files: tuple[str, str]) -> None:
    """Both tell what was negotiated; what is wrong with the certificate is ignored by name."""
    pytest.importorskip("OpenSSL")
    ignored = ("unable-to-get-local-issuer-certificate", "unable-to-verify-first-certificate")
    async with running_trioqt("serve", "echo", "--tls", *files) as process:
        port = (await read_line(process.stdout)).decode().rpartition(":")[2].strip()
        options = [option for kind in ignored for option in ("--insecure-ignore", kind)]
        ended = await run_trioqt("connect", "--tls", *options, "localhost", port, stdin=b"hello\n")
        told = (await read_line(process.stdout)).decode()

    events = events_of(ended.err)
    assert (ended.status, ended.out) == (0, b"hello\n")
    assert "ModeChanged" in events
    assert "SslErrors UNABLE_TO_GET_LOCAL_ISSUER_CERTIFICATE UNABLE_TO_VERIFY_FIRST_CERTIFICATE" in events
    assert any(event.startswith("Encrypted TLSv1.3 TLS_") for event in events)
    assert " speaks TLSv1.3 TLS_" in told


async def test_a_certificate_that_is_not_trusted_is_one_line(network: Loopback, files: tuple[str, str]) -> None:
    """And a status that is not 0; nothing was sent."""
    async with running_trioqt("serve", "echo", "--tls", *files) as process:
        port = (await read_line(process.stdout)).decode().rpartition(":")[2].strip()
        ended = await run_trioqt("connect", "--tls", "localhost", port, stdin=b"secret\n")

    assert (ended.status, ended.out) == (1, b"")
    assert (
        ended.err.decode()
        .splitlines()[-1]
        .startswith("Error: the TLS handshake failed: the peer's certificate is refused: ")
    )


def test_files_that_do_not_fit_are_one_line(files: tuple[str, str]) -> None:
    """A missing file, and a certificate in place of a key."""
    for tls, said in ((("nowhere", files[1]), "No such file"), ((files[0], files[0]), "cannot use")):
        result = call_trioqt("serve", "echo", "--tls", *tls)
        assert result.exit_code != 0
        assert said in result.output + result.stderr


def test_nothing_is_ignored_without_tls() -> None:
    """A mistake that would look as if it had worked."""
    result = call_trioqt("connect", "--insecure-ignore", "certificate-expired", "localhost", "1")

    assert result.exit_code == 2
    assert "needs --tls" in result.output + result.stderr
