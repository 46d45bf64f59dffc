"""The variables that curl reads."""

from __future__ import annotations

import traceback

import pytest

from trioqt import NetworkProxy, ProxyKind, ProxyQuery, environment_proxies

HTTP, HTTPS, SOCKS, NONE = (
    NetworkProxy(ProxyKind.HTTP, "web", 3128),
    NetworkProxy(ProxyKind.HTTP, "secure", 3129),
    NetworkProxy(ProxyKind.SOCKS5, "socks", 1080, "user", "secret"),
    NetworkProxy(ProxyKind.NONE),
)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment of the tests has."""
    for scheme in ("http", "https", "all", "no", "ftp"):
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)


def asked(host: str = "example.org", port: int = 25, tag: str = "", kind: str = "tcp") -> NetworkProxy:
    (proxy,) = environment_proxies(ProxyQuery(host, port, tag, kind))  # type: ignore[arg-type]
    return proxy


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of them."""
    monkeypatch.setenv("http_proxy", "web:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:3129/")
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@socks")


def test_without_a_variable_there_is_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one is none."""
    monkeypatch.setenv("ALL_PROXY", "")

    assert asked() == NONE


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("port", "tag", "proxy"),
    [(25, "", SOCKS), (80, "", HTTP), (443, "", HTTPS), (8080, "http", HTTP), (80, "https", HTTPS), (80, "ftp", SOCKS)],
)
def test_the_tag_says_which_and_without_one_the_port_does(port: int, tag: str, proxy: NetworkProxy) -> None:
    assert asked(port=port, tag=tag) == proxy


@pytest.mark.usefixtures("three")
def test_lower_case_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "http://web:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://other")

    assert (asked(), asked(port=80)) == (HTTP, HTTP)


def test_a_cgi_program_does_not_take_its_proxy_from_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header "Proxy:" of a request becomes HTTP_PROXY there."""
    monkeypatch.setenv("HTTP_PROXY", "http://web:3128")
    before = asked(port=80)
    monkeypatch.setenv("REQUEST_METHOD", "GET")

    assert (before, asked(port=80)) == (HTTP, NONE)


@pytest.mark.usefixtures("three")
def test_servers_and_datagrams_go_by_socks5_or_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [asked(kind=kind) for kind in ("udp", "server")]
    monkeypatch.setenv("all_proxy", "http://web:3128")

    assert before == [SOCKS, SOCKS]
    assert [asked(kind=kind) for kind in ("udp", "server")] == [NONE, NONE]


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("exceptions", "host", "is_excepted"),
    [
        ("*", "example.org", True),
        ("*", "10.0.0.1", True),
        (" * ", "example.org", True),
        ("a.test, *", "example.org", False),  # in curl it stands for all only by itself
        ("*.example.org", "www.example.org", False),
        ("example.org:25", "example.org", False),
        ("b\u00fccher.test", "xn--bcher-kva.test", True),
        ("xn--bcher-kva.test", "www.b\u00dccher.test", True),
        ("x\u00fccher.test", "xn--bcher-kva.test", False),
        ("example.org", "example.org", True),
        ("example.org", "EXAMPLE.org.", True),
        ("example.org", "www.example.org", True),
        ("Example.org.", "www.example.org", True),
        (".example.org", "example.org", True),
        ("example.org", "badexample.org", False),
        ("example.org", "example.org.evil", False),
        ("www.example.org", "example.org", False),
        ("a.test, example.org  b.test", "example.org", True),
        ("", "example.org", False),
        (" , ,", "example.org", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.10", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "10.example.org", False),
        ("::1", "::1", True),
        ("[::1]", "::1", True),
        ("[2001:db8::]/32", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("10.9.9.9/8", "10.1.2.3", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("fe80::/10", "10.0.0.1", False),
        ("10.0.0.0/99", "10.0.0.1", False),
        ("10.0.0.0/8", "::ffff:10.0.0.1", True),
    ],
)
def test_no_proxy_has_domains_addresses_and_networks(
    monkeypatch: pytest.MonkeyPatch, exceptions: str, host: str, is_excepted: bool
) -> None:
    monkeypatch.setenv("NO_PROXY", exceptions)

    assert asked(host) == (NONE if is_excepted else SOCKS)


@pytest.mark.parametrize("value", ["socks4://host", "http://user:hunter2@host:port", "socks5://user:hunter2@"])
def test_a_wrong_value_is_told_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Not by the value, which may hold a password, nor is that in a variable of ours."""
    monkeypatch.setenv("ALL_PROXY", value)

    with pytest.raises(ValueError, match="the variable ALL_PROXY is not the URL of a proxy") as caught:
        asked()

    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "hunter2" not in str(caught.value)
    assert [frame for frame in told.stack if "hunter2" in str(frame.locals) and frame.filename != __file__] == []
