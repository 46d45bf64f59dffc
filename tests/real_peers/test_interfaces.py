"""What real Qt says of this machine, beside what we say."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.peers import peer_module
from trioqt import InterfaceFlag, NetworkInterface, local_host_name, look_up_host, network_interfaces

PROGRAM = """
import json
from PySide6.QtNetwork import QHostInfo, QNetworkInterface

interfaces = [
    {
        "name": each.name(),
        "index": each.index(),
        "hardware": each.hardwareAddress().lower(),
        "flags": each.flags().value,
        "mtu": each.maximumTransmissionUnit(),
        "addresses": [
            [entry.ip().toString(), entry.prefixLength(), entry.broadcast().toString()]
            for entry in each.addressEntries()
        ],
    }
    for each in QNetworkInterface.allInterfaces()
]
found = {}
for host in ("localhost", "127.0.0.1", "nosuch..name", ""):
    info = QHostInfo.fromName(host)
    found[host] = [info.hostName(), [address.toString() for address in info.addresses()]]
print(json.dumps([interfaces, QHostInfo.localHostName(), found]))
"""


@pytest.fixture(scope="module")
def qt() -> Any:
    """What the program printed."""
    done = subprocess.run([peer_module("PySide6.QtNetwork"), "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def as_qt_has_it(interface: NetworkInterface) -> dict[str, object]:
    return {
        "name": interface.name,
        "index": interface.index,
        "hardware": interface.hardware_address,
        "flags": interface.flags.value,
        "mtu": interface.mtu,
        "addresses": sorted(
            [str(each.address), each.prefix_length, str(each.broadcast)] for each in interface.addresses
        ),
    }


def test_qt_knows_the_same_interfaces(qt: Any) -> None:
    """Name, index, hardware address, flags with the same numbers, MTU, and each address with its network.

    To Qt an address that is alone in its network is its own broadcast; here there is none.
    """
    theirs = sorted(qt[0], key=lambda each: int(each["index"]))
    for each in theirs:
        each["addresses"] = sorted(
            [address, length, broadcast if length < 31 else ""] for address, length, broadcast in each["addresses"]
        )

    assert [as_qt_has_it(interface) for interface in network_interfaces()] == theirs
    assert any(InterfaceFlag.IS_LOOPBACK in interface.flags for interface in network_interfaces())


def test_qt_calls_this_machine_the_same(qt: Any) -> None:
    """The name of the host, without a domain."""
    assert local_host_name() == qt[1]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_qt_finds_the_same(qt: Any, host: str) -> None:
    """A name's addresses, and an address's name."""
    info = await look_up_host(host)

    assert [info.host_name, [str(address) for address in info.addresses]] == qt[2][host]
