"""Basic and Digest, against the examples of their RFCs."""

from __future__ import annotations

import re

import pytest

from trioqt.core.http_authentication import Digest, basic, strongest
from trioqt.core.network_proxy import Credentials

# RFC 7616, section 3.9.1.
MUFASA = Credentials("Mufasa", "Circle of Life")
NONCE, OPAQUE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
CHALLENGES = tuple(
    f'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, nonce="{NONCE}",'
    f' opaque="{OPAQUE}"'
    for algorithm in ("SHA-256", "MD5")
)


def fields(header: str) -> dict[str, str]:
    """Of an answer, without the quotes."""
    return {name: text.strip('"') for name, text in re.findall(r'([\w*]+)=("[^"]*"|[^,]*)', header)}


@pytest.mark.parametrize(
    ("challenge", "response"),
    [
        (CHALLENGES[0], "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        (CHALLENGES[1], "8ca523f5e9506fed4657c9700eebdbec"),
    ],
)
def test_digest_answers_as_in_the_rfc(challenge: str, response: str) -> None:
    chosen = strongest([challenge])
    assert chosen is not None

    answer = fields(Digest(chosen).answer(MUFASA, "/dir/index.html", method="GET", cnonce=CNONCE))

    assert answer == {
        "username": "Mufasa",
        "realm": "http-auth@example.org",
        "uri": "/dir/index.html",
        "algorithm": "MD5" if len(response) == 32 else "SHA-256",
        "nonce": NONCE,
        "nc": "00000001",
        "cnonce": CNONCE,
        "qop": "auth",
        "response": response,
        "opaque": OPAQUE,
    }


def test_the_strongest_is_taken_wherever_it_stands() -> None:
    """In one header or in several, with names in any case."""
    sha, md5 = CHALLENGES
    headers = ['Negotiate abc==, Basic realm="a, b"', f"NTLM, {md5}", f'BASIC realm="x", dIGEST {sha[7:]}']

    chosen, weaker, weakest = strongest(headers), strongest(headers[:2]), strongest(headers[:1])

    assert chosen is not None
    assert weaker is not None
    assert weakest is not None
    assert (chosen.scheme, chosen.algorithm, chosen.realm) == ("digest", "SHA-256", "http-auth@example.org")
    assert (weaker.scheme, weaker.algorithm) == ("digest", "MD5")
    assert (weakest.scheme, weakest.realm) == ("basic", "a, b")


@pytest.mark.parametrize(
    "header",
    [
        "",
        ",,, ,",
        "Frobnicator",
        'Digest realm="no nonce"',
        'Digest realm="a", nonce="b", algorithm=SHA-512-256',
        'Digest realm="a", nonce="b", qop="auth-int"',
        'realm="a"',
        '"',
        "=",
        "\x00",
    ],
)
def test_what_cannot_be_answered_is_passed_over(header: str) -> None:
    assert strongest([header]) is None


def test_a_realm_with_quotes_and_backslashes_goes_back_as_it_came() -> None:
    """And what cannot be shown to people is not."""
    chosen = strongest(['Digest realm="a \\"b\\" \\\\ \x1b[2J", nonce="n"'])
    assert chosen is not None

    answer = Digest(chosen).answer(MUFASA, "example.org:443")

    assert chosen.realm == 'a "b" \\ ?[2J'
    assert 'realm="a \\"b\\" \\\\ \x1b[2J"' in answer


def test_without_qop_it_answers_as_rfc_2069() -> None:
    """Then there is no nonce of ours, and no count."""
    chosen = strongest(['Digest realm="a", nonce="b"'])
    assert chosen is not None

    assert set(fields(Digest(chosen).answer(MUFASA, "example.org:443"))) == {
        *("username", "realm", "nonce", "uri", "response")
    }


def test_a_session_variant_without_qop_says_its_nonce() -> None:
    """RFC 2617 forgot it, and nobody could make the secret without."""
    chosen = strongest(['Digest realm="a", nonce="b", algorithm=MD5-sess'])
    assert chosen is not None

    answered = fields(Digest(chosen).answer(MUFASA, "example.org:443", cnonce=CNONCE))

    assert set(answered) == {*("username", "realm", "nonce", "uri", "response", "algorithm", "cnonce")}
    assert answered["cnonce"] == CNONCE


def test_each_request_counts_and_has_a_nonce_of_its_own() -> None:
    """RFC 7616 section 3.4: the count is of the requests with that nonce of the proxy's."""
    chosen = strongest([CHALLENGES[0]])
    assert chosen is not None
    digest = Digest(chosen)

    first, second = (fields(digest.answer(MUFASA, "example.org:443")) for _ in range(2))

    assert (first["nc"], second["nc"]) == ("00000001", "00000002")
    assert first["cnonce"] != second["cnonce"]
    assert first["response"] != second["response"]


def test_a_session_variant_puts_the_nonces_into_the_secret() -> None:
    plain, session = strongest([CHALLENGES[0]]), strongest([CHALLENGES[0].replace("SHA-256", "SHA-256-sess")])
    assert plain is not None
    assert session is not None

    answers = [fields(Digest(each).answer(MUFASA, "a:1", cnonce=CNONCE)) for each in (plain, session)]

    assert answers[1]["algorithm"] == "SHA-256-sess"
    assert answers[0]["response"] != answers[1]["response"]


def test_a_name_that_is_no_ascii_is_encoded_and_one_that_is_not_to_be_seen_is_hashed() -> None:
    """RFC 7616 sections 3.4 and 3.4.4; the example's name is Jäsøn Doe."""
    credentials = Credentials("Jäsøn Doe", "Secret, or not?")
    plain, hashed = (
        strongest([f'Digest realm="api@example.org", nonce="n", charset=UTF-8{more}'])
        for more in ("", ", userhash=true")
    )
    assert plain is not None
    assert hashed is not None

    first, second = (Digest(each).answer(credentials, "a:1") for each in (plain, hashed))

    assert "username*=UTF-8''J%C3%A4s%C3%B8n%20Doe" in first
    assert "userhash=true" in second
    assert "J" not in fields(second)["username"]


def test_basic_is_utf_8() -> None:
    """RFC 7617 section 2.1."""
    assert basic(Credentials("test", "123\u00a3")) == "Basic dGVzdDoxMjPCow=="
