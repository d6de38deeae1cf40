"""A real browser for the tests here, and pages that tell what went wrong in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from .browser import chromium, launched
from .fake_feed import KEY, FakeFeed
from .scenes import scene
from .watched import Watched


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Debian's chromium, without a window. Not for longer: Playwright's event loop runs in the main thread meanwhile,
    and tests elsewhere have loops of their own."""
    if chromium() is None:
        pytest.skip("chromium isn't there: apt-get install chromium")
    with sync_playwright() as playwright:
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
