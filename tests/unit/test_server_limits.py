"""Whose address a call comes from, and how often it may."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinksched.config.server import load_server
from tinksched.server.limits import Limits, address_of, is_in
from tinksched.server.submission import Refused

PROXIES = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "::1/128")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),  # whoever it is: it is no proxy of ours
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::1", ["2001:DB8::1"], "2001:db8::1"),
        ("10.0.0.1", ["198.51.100.1, 198.51.100.2"], "198.51.100.2"),  # the first was said by the client
        ("10.0.0.1", ["198.51.100.1", "198.51.100.2 , 10.9.9.9"], "198.51.100.2"),
        ("10.0.0.1", ["10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, "], "10.0.0.1"),
        (None, ["198.51.100.1"], ""),
    ],
)
def test_the_address_of_a_client(peer: str | None, forwarded: list[str], found: str) -> None:
    assert address_of(peer, forwarded, PROXIES) == found


@given(st.lists(st.text(max_size=30), max_size=4))
def test_whatever_is_sent_the_address_is_the_peers_unless_it_is_a_proxy(lines: list[str]) -> None:
    assert address_of("192.0.2.1", lines, PROXIES) == "192.0.2.1"
    found = address_of("10.0.0.1", lines, PROXIES)
    assert found == str(ipaddress.ip_address(found))


def test_networks_hold_both_families() -> None:
    networks = [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32")]
    assert is_in("192.0.2.200", networks) and is_in("::ffff:192.0.2.1", networks) and is_in("2001:db8::5", networks)
    assert not is_in("192.0.3.1", networks) and not is_in("", networks) and not is_in("nobody", networks)


def test_what_is_refused_is_not_counted_and_says_when_to_come_again() -> None:
    limits = Limits(load_server(None))
    for _ in range(5):
        limits.hit("user", "alice")
    for _ in range(100):
        with pytest.raises(Refused) as refused:
            limits.hit("user", "alice")
    assert refused.value.status == 429 and 1 <= (refused.value.retry_after or 0) <= 60
    limits.hit("user", "bob")
    limits.hit("submit", "alice")


def test_what_one_limit_refuses_is_counted_by_no_other() -> None:
    limits = Limits(load_server(None))
    for _ in range(5):
        limits.hit_all(("submit_user", "192.0.2.1", "alice"), ("user", "alice"))
    for _ in range(5):
        with pytest.raises(Refused):
            limits.hit_all(("submit_user", "192.0.2.2", "alice"), ("user", "alice"))
    for _ in range(5):
        limits.hit("submit_user", "192.0.2.2", "alice")


def test_the_defaults_are_the_documented_ones() -> None:
    known = load_server(None)
    assert (known.submissions_per_minute, known.active_jobs, known.ip_submissions_per_user) == (5, 1, 5)
    assert (known.ip_submissions, known.ip_status, known.ip_results) == (100, 60, 60)
    assert (known.ip_cancel, known.ip_jobs, known.limits, known.limit_admins) == (10, 30, True, False)
    assert (known.trusted_proxies, known.allowed_ips, known.host, known.port) == ((), (), "127.0.0.1", 8001)
