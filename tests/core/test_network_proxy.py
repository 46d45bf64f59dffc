"""What a proxy is: its URL, and its password, which nobody sees."""

from __future__ import annotations

import pickle
import ssl
import traceback

import attrs
import pytest

from trioqt import HostAddress, NetworkProxy, ProxyKind
from trioqt.core.network_proxy import LONGEST_CHAIN, Credentials, ProxyUse, can_carry, credentials_of

SECRET = "hunter2-p@ss/word"
QUOTED = "hunter2-p%40ss%2Fword"


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("socks5://user:pw@host:1080", NetworkProxy(ProxyKind.SOCKS5, "host", 1080, "user", "pw")),
        ("SOCKS5H://Host", NetworkProxy(ProxyKind.SOCKS5, "host", 1080)),
        ("http://[::1]:3128/", NetworkProxy(ProxyKind.HTTP, "::1", 3128)),
        (f"http://us%3Aer:{QUOTED}@host", NetworkProxy(ProxyKind.HTTP, "host", 1080, "us:er", SECRET)),
        ("http://user@host:1", NetworkProxy(ProxyKind.HTTP, "host", 1, "user")),
    ],
)
def test_a_url_says_it_all(url: str, proxy: NetworkProxy) -> None:
    assert NetworkProxy.from_url(url) == proxy


def test_https_is_http_inside_of_tls() -> None:
    """Checked by the context; one is made if none is given."""
    mine = ssl.create_default_context()

    made, given = NetworkProxy.from_url("https://host"), NetworkProxy.from_url("https://host:8443", context=mine)

    assert (made.kind, made.port, given.port) == (ProxyKind.HTTP, 443, 8443)
    assert made.context is not None
    assert made.context.verify_mode is ssl.CERT_REQUIRED
    assert made.context.check_hostname
    assert given.context is mine
    assert made == NetworkProxy.from_url("https://host")


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://user:{QUOTED}@host",
        f"user:{QUOTED}@host:1080",
        f"socks5://user:{SECRET}@host:1080",  # not encoded, so it has a path
        f"socks5://user:{QUOTED}@",
        f"socks5://user:{QUOTED}@host:99999",
        f"socks5://user:{QUOTED}@host:port",
        f"socks5://host:{SECRET}",
        f"socks5://[::1:{QUOTED}",
        f"socks5://host/?{QUOTED}",
        f"socks5://host/#{QUOTED}",
        f"socks5://user:{QUOTED}@host%ff",
        f"socks5://user:{QUOTED}@\u2100.test",  # which urlsplit refuses with the whole URL
        f"socks5://user:{QUOTED}\n@host",  # which it would leave out
        f" socks5://user:{QUOTED}@host",
        f"socks5://user:{QUOTED}@host ",
        f"socks5://user:{QUOTED}@ho%0Ast",
        f"socks5://user:{QUOTED}@%00host",
        "socks5://user:hunter2%ff@host",
        "",
    ],
)
def test_a_wrong_url_is_refused_and_its_password_is_not_told(url: str) -> None:
    """Neither by the message nor by anything that is behind it, printed or not, nor by a variable of ours."""
    with pytest.raises(ValueError, match="not the URL of a proxy") as caught:
        NetworkProxy.from_url(url)

    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "hunter2" not in "".join(traceback.format_exception_only(caught.value))
    assert [frame for frame in told.stack if "hunter2" in str(frame.locals) and frame.filename != __file__] == []
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_the_password_is_in_no_text() -> None:
    proxy = NetworkProxy(ProxyKind.SOCKS5, "host", 1080, "user", SECRET)
    behind = NetworkProxy(ProxyKind.HTTP, "inner", 80, via=proxy)

    assert [text for text in (repr(proxy), str(proxy), repr(behind), str(behind)) if SECRET in text] == []
    assert SECRET not in repr(credentials_of(proxy))
    assert str(proxy) == "SOCKS5 proxy host:1080"
    assert str(NetworkProxy(ProxyKind.HTTP, "::1", 80)) == "HTTP proxy [::1]:80"


def test_equal_proxies_are_equal_and_can_be_kept() -> None:
    """A value: it can be compared, hashed and pickled."""
    proxy = NetworkProxy(ProxyKind.SOCKS5, "host", 1080, "user", SECRET)

    assert proxy == NetworkProxy(ProxyKind.SOCKS5, "host", 1080, "user", SECRET)
    assert proxy != NetworkProxy(ProxyKind.SOCKS5, "host", 1080, "user", "other")
    assert {proxy: 1}[pickle.loads(pickle.dumps(proxy))] == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("socks5",), TypeError),
        (("socks5://user:hunter2@host",), TypeError),
        ((ProxyKind.HTTP, 1), TypeError),
        ((ProxyKind.HTTP, "host", "80"), TypeError),
        ((ProxyKind.HTTP, "host", True), TypeError),
        ((ProxyKind.HTTP, "host", -1), ValueError),
        ((ProxyKind.HTTP, "host", 65536), ValueError),
        ((ProxyKind.HTTP, "host", 1, b"user"), TypeError),
        ((ProxyKind.HTTP, "host", 1, "user", b"hunter2"), TypeError),
        ((ProxyKind.HTTP, "host", 1, "user", "hunter2\udc80"), ValueError),
        ((ProxyKind.HTTP, "host", 1, "user", "", "context"), TypeError),
        ((ProxyKind.HTTP, "host", 1, "user", "", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)), ValueError),
        ((ProxyKind.HTTP, "host", 1, "user", "", "hunter2"), TypeError),
    ],
)
def test_what_is_no_proxy_is_refused(arguments: tuple[object, ...], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        NetworkProxy(*arguments)  # type: ignore[arg-type]

    assert "hunter2" not in f"{caught.value!r} {caught.value.args} {caught.value.__context__!r}"


def test_a_way_must_be_a_proxy() -> None:
    with pytest.raises(TypeError):
        NetworkProxy(ProxyKind.HTTP, "host", 1, via="socks5://host")  # type: ignore[arg-type]
    for kind in set(ProxyKind) - {ProxyKind.SOCKS5, ProxyKind.HTTP}:
        with pytest.raises(ValueError, match=f"via a proxy of the kind {kind.name}"):
            NetworkProxy(ProxyKind.HTTP, "host", 1, via=NetworkProxy(kind))


def test_a_chain_is_bounded() -> None:
    """Each of its proxies is another connection inside the last; a longer one is refused where it is made."""
    chain = NetworkProxy(ProxyKind.SOCKS5, "host", 0)
    for number in range(1, LONGEST_CHAIN):
        chain = NetworkProxy(ProxyKind.SOCKS5, "host", number, via=chain)

    assert chain == attrs.evolve(chain)
    with pytest.raises(ValueError, match=f"a chain has {LONGEST_CHAIN} proxies at most"):
        NetworkProxy(ProxyKind.HTTP, "host", LONGEST_CHAIN, via=chain)
    with pytest.raises(ValueError, match=f"a chain has {LONGEST_CHAIN} proxies at most"):
        NetworkProxy.from_url("socks5://host", via=chain)


def test_who_can_carry_what() -> None:
    """An HTTP proxy has connections only, and a caching one nothing for a socket."""
    uses: tuple[ProxyUse, ...] = ("tcp", "udp", "server")
    can = {kind: [use for use in uses if can_carry(NetworkProxy(kind), use)] for kind in ProxyKind}

    assert can == {
        ProxyKind.SOCKS5: ["tcp", "udp", "server"],
        ProxyKind.HTTP: ["tcp"],
        ProxyKind.DEFAULT: [],
        ProxyKind.NONE: [],
        ProxyKind.HTTP_CACHING: [],
        ProxyKind.FTP_CACHING: [],
    }


def test_a_name_without_a_password_is_shown_too() -> None:
    assert credentials_of(NetworkProxy(ProxyKind.HTTP, "host", 1, "user")) == Credentials("user", "")
    assert credentials_of(NetworkProxy(ProxyKind.HTTP, "host", 1)) is None


def test_the_host_is_a_text() -> None:
    """An address of ours has its text."""
    with pytest.raises(TypeError):
        NetworkProxy(ProxyKind.HTTP, HostAddress("127.0.0.1"), 1)  # type: ignore[arg-type]
