"""Which addresses a picture may be fetched from: those of the public internet, and none of this machine."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

# From the registries of addresses for special use. Listed here: what `is_global` says depends on the release of Python.
_REFUSED_4 = tuple(
    IPv4Network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.168.0.0/16"),
        # Protocols, documents, relays to IPv6, measuring, multicast, reserved.
        *("192.0.0.0/24", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "192.31.196.0/24", "192.52.193.0/24"),
        *("192.88.99.0/24", "192.175.48.0/24", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # looks public, but is the host of a virtual machine in Azure
    )
)
# Of IPv6 only what is handed out for the public internet, less what lies in there: Teredo, ORCHID and other protocols,
# documents, 6to4, the anycast of AS112. Addresses of IPv4 written as IPv6 (mapped, compatible) lie outside of it.
_PUBLIC_6 = IPv6Network("2000::/3")
_REFUSED_6 = tuple(
    IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
_NAT64 = IPv6Network("64:ff9b::/96")  # ends in the address of IPv4 that is meant


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is of the public internet: not loopback, private, link-local, shared, multicast, reserved, or
    one of these in the clothes of IPv6."""
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _REFUSED_4)
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _PUBLIC_6 and not any(address in block for block in _REFUSED_6)


def is_own(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is one of this machine's: it would be reached from itself. Nothing is sent to find out."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return probe.getsockname()[0] == str(address)
    except OSError:  # no way there: then nothing is fetched from it either
        return False


def may_be_fetched_from(address: IPv4Address | IPv6Address) -> bool:
    """Whether a picture may come from there: a public address of another machine, as others can reach it too."""
    return is_public(address) and not is_own(address)
