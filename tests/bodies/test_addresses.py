"""Which addresses are of the public internet."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.bodies.addresses import is_own, is_public, may_be_fetched_from

INSIDE = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    *("192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4"),
    *("240.0.0.0/4", "168.63.129.16/32"),
    *("::/128", "::1/128", "::/96", "::ffff:0:0/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:db8::/32"),
    *("2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fd00:ec2::254/128", "fe80::/10", "fec0::/10", "ff00::/8"),
]


@pytest.mark.parametrize("block", INSIDE)
def test_nothing_of_a_block_for_special_use_is_public(block):
    network = ip_network(block)

    @given(st.ip_addresses(network=network))
    def check(address):
        assert not is_public(address)

    check()
    assert not is_public(network[0]) and not is_public(network[-1])


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"]
    + ["169.253.255.255", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0", "223.255.255.255"]
    + ["168.63.129.15", "2606:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888", "64:ff9b::8.8.8.8"],
)
def test_what_others_have_is(address):
    assert is_public(ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_address_of_4_inside_one_of_6_is_never_better_than_by_itself(inner):
    number = int(inner)
    assert not is_public(IPv6Address(0xFFFF << 32 | number))  # mapped
    assert not is_public(IPv6Address(number))  # compatible
    assert not is_public(IPv6Address(0x2002 << 112 | number << 80))  # 6to4
    assert not is_public(IPv6Address(0x20010000 << 96 | number ^ 0xFFFFFFFF))  # Teredo
    assert is_public(IPv6Address(int(IPv6Address("64:ff9b::")) | number)) == is_public(inner)  # NAT64


@given(st.ip_addresses())
def test_what_is_public_is_global_in_the_words_of_python_too(address):
    embedded = isinstance(address, IPv6Address) and address in IPv6Network("64:ff9b::/96")
    assert embedded or not is_public(address) or address.is_global


@given(st.ip_addresses(v=6), st.sampled_from(["eth0", "1"]))
def test_an_address_with_a_zone_is_not(address, zone):
    assert not is_public(IPv6Address(f"{address}%{zone}"))


def test_what_this_machine_has_is_its_own():
    assert is_own(IPv4Address("127.0.0.1"))
    assert not is_own(IPv4Address("192.0.2.1"))
    assert not may_be_fetched_from(IPv4Address("127.0.0.1"))


def test_a_public_address_is_refused_where_it_is_this_machine(monkeypatch):
    address = IPv4Address("8.8.8.8")
    monkeypatch.setattr("jaxphoton.bodies.addresses.is_own", lambda asked: False)
    assert may_be_fetched_from(address)
    monkeypatch.setattr("jaxphoton.bodies.addresses.is_own", lambda asked: asked == address)
    assert not may_be_fetched_from(address)
