"""How often who may call. Counted in memory, in windows that move; a restart begins anew.

What was refused is not counted: who comes again as `Retry-After` says is let in.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from ..config.server import Network, ServerSettings
from .submission import Refused


class Limits:
    """The counters of a server."""

    def __init__(self, settings: ServerSettings) -> None:
        self._on = settings.limits
        self._counter = MovingWindowRateLimiter(MemoryStorage())
        self._items: dict[str, RateLimitItem] = {
            "submit": RateLimitItemPerMinute(settings.ip_submissions),
            "submit_user": RateLimitItemPerMinute(settings.ip_submissions_per_user),
            "status": RateLimitItemPerMinute(settings.ip_status),
            "results": RateLimitItemPerMinute(settings.ip_results),
            "cancel": RateLimitItemPerMinute(settings.ip_cancel),
            "jobs": RateLimitItemPerMinute(settings.ip_jobs),
            "service": RateLimitItemPerMinute(settings.ip_services),
            "page": RateLimitItemPerMinute(settings.ip_page),
            "user": RateLimitItemPerMinute(settings.submissions_per_minute),
        }

    def hit(self, what: str, *who: str) -> None:
        """Count a call. Raises Refused (429): there were too many."""
        if not self._on:
            return
        item = self._items[what]
        if not self._counter.hit(item, what, *who):
            reset = self._counter.get_window_stats(item, what, *who).reset_time
            detail = f"Rate limit exceeded: {item.amount} a minute"
            raise Refused(429, detail, retry_after=max(1.0, reset - time.time()))


def address_of(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The client's address: the last one in X-Forwarded-For that no trusted proxy has, if a trusted one is the peer.

    Each address has one spelling: that of IPv4 if it stands for one.
    """
    hops = [hop.strip() for line in forwarded for hop in line.split(",")]
    found = peer or ""
    while is_in(found, trusted) and hops:
        hop = hops.pop()
        if _parsed(hop) is None:
            break
        found = hop
    return str(_parsed(found) or found)


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address lies in one of the networks."""
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
