"""Which proxy the environment asks for: the variables that curl reads, as curl reads them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence

from trioqt.core.addresses import HostAddress, parse_address
from trioqt.core.network_proxy import NetworkProxy, ProxyKind, ProxyQuery, can_carry

__all__ = ["environment_proxies"]

NO_PROXY = NetworkProxy(ProxyKind.NONE)

# A connection that has no tag is taken for what its port is known for.
TAGS = {80: "http", 443: "https"}


def environment_proxies(query: ProxyQuery) -> Sequence[NetworkProxy]:
    """What the environment asks for: ``set_application_proxy_factory(environment_proxies)``.

    ``http_proxy``, ``https_proxy`` and others of the kind, for connections with that ``protocol_tag``; without a tag,
    for ports 80 and 443.  Then ``all_proxy``.  A value is a URL as for ``NetworkProxy.from_url``, or ``host:port`` of
    an HTTP proxy.  Lower case comes first, and ``HTTP_PROXY`` does not count under CGI, where a client can set it.
    ``no_proxy`` has hosts that are reached directly, with commas between them: a domain, which stands for all below it
    too, an address, or a network such as ``10.0.0.0/8``; or it is ``*``, which stands for all.
    Datagrams and servers go by SOCKS5 or directly.

    Raises: ValueError if the variable holds no such value; its name is in the message, and not its value.
    Qt: QNetworkProxyFactory::systemProxyForQuery().
    """
    found = _proxies(query, os.environ)
    if isinstance(found, ValueError):
        raise found  # from here, where no frame knows a password
    return found


def _proxies(query: ProxyQuery, environment: Mapping[str, str]) -> Sequence[NetworkProxy] | ValueError:
    if query.host and _is_excepted(query.host, _value("no_proxy", environment)[1]):
        return [NO_PROXY]
    tag = query.protocol_tag.lower() or TAGS.get(query.port, "")
    for variable in [*([f"{tag}_proxy"] if tag else []), "all_proxy"]:
        name, value = _value(variable, environment)
        if value:
            proxy = _proxy(name, value)
            if isinstance(proxy, ValueError):
                return proxy
            return [proxy if can_carry(proxy, query.kind) else NO_PROXY]
    return [NO_PROXY]


def _value(variable: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Its name as it is found, and its value; empty if there is none."""
    # A client's header "Proxy:" becomes HTTP_PROXY in a CGI program (CVE-2016-5385).
    if variable == "http_proxy" and "REQUEST_METHOD" in environment:
        names = [variable]
    else:
        names = [variable, variable.upper()]
    return next(((name, environment[name].strip()) for name in names if environment.get(name)), (variable, ""))


def _proxy(name: str, value: str) -> NetworkProxy | ValueError:
    try:
        return NetworkProxy.from_url(value if "://" in value else f"http://{value}")
    except ValueError as exc:
        return ValueError(f"the variable {name} is {exc}")


def _is_excepted(host: str, exceptions: str) -> bool:
    """Is ``host`` in the list?"""
    if exceptions == "*":  # among others it is a name that nobody has
        return True
    name = _spelled(host.strip())
    address = parse_address(name)
    if address is None:
        return any(name == entry or name.endswith(f".{entry}") for entry in _entries(exceptions))
    return any(_holds(entry, address) for entry in _entries(exceptions))


def _entries(exceptions: str) -> Iterator[str]:
    for entry in exceptions.replace(",", " ").split():
        bare = re.sub(r"[\[\]]", "", _spelled(entry.removeprefix(".")))
        if bare:
            yield bare


def _spelled(name: str) -> str:
    """In lower case, without the dot at the end, and as a resolver is asked for it (IDNA)."""
    name = name.lower().removesuffix(".")
    if not name.isascii():
        with contextlib.suppress(UnicodeError):
            return name.encode("idna").decode("ascii")
    return name


def _holds(entry: str, address: HostAddress) -> bool:
    """Is ``address`` the one that ``entry`` is, or in that network?"""
    try:
        return address.is_in_subnet(entry)
    except ValueError:
        return False  # a domain
