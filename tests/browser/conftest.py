"""A real browser, once for all tests here, and pages that tell what went wrong in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")

from .browser import chromium, launched  # noqa: E402
from .fake_feed import KEY, FakeFeed  # noqa: E402
from .scenes import scene  # noqa: E402
from .watched import Watched  # noqa: E402


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's chromium, without a window."""
    if chromium() is None:
        pytest.skip("chromium isn't there: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        running = launched(playwright)
        yield running
        running.close()


@pytest.fixture
def feed() -> Iterator[FakeFeed]:
    """A server with 40 jobs of made-up data, that takes one key."""
    with FakeFeed(scene(time.time())) as serving:
        yield serving


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Watched]]:
    """Opens pages; none of them may have had an error, a dialog, or a request to somewhere else when the test ends."""
    pages: list[Watched] = []

    def opening(url: str, key: str | None = KEY, **context: Any) -> Watched:
        pages.append(Watched(browser, url, key, **context))
        return pages[-1]

    yield opening
    for one in pages:
        one.close()
        one.check()
