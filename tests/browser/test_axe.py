"""axe-core finds nothing that is wrong with the page for people who can't see it, or not well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python as axe
import pytest
from playwright.sync_api import expect

from .fake_feed import FakeFeed
from .scenes import scene
from .watched import Watched

SCRIPT = Path(axe.__file__).with_name("axe.min.js")
RUN = """async (where) => (await axe.run(where, {resultTypes: ["violations"]})).violations
    .map(({impact, id, nodes}) => [impact, id, nodes.map((node) => [node.target.join(" "), node.failureSummary])])"""


def findings(page: Any, where: str = "html") -> list[Any]:
    """What axe finds there, whatever its weight."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(SCRIPT.read_text())
    found: list[Any] = page.evaluate(RUN, where)
    return found


@pytest.fixture
def feed() -> Iterator[FakeFeed]:
    """Few jobs: axe looks at every cell."""
    with FakeFeed(scene(time.time(), 32)) as serving:
        yield serving


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme: str, feed: FakeFeed, opened: Callable[..., Watched]) -> None:
    one = next(each for each in feed.scene["jobs"] if each["status"] == "failed" and each["kind"] == "job")
    feed.print(one["id"], "a line\n")
    feed.print(one["id"], "and an error\n", "stderr")
    page = opened(f"{feed.url}/dashboard", color_scheme=scheme, bypass_csp=True).page
    expect(page.locator(".rows .row").first).to_be_visible()
    assert findings(page) == []
    page.goto(f"{feed.url}/dashboard#job={one['id']}")
    expect(page.get_by_role("log")).to_contain_text("and an error")
    assert findings(page, "#job") == []
    if scheme == "dark":
        return  # what is left differs in nothing but colours that were seen
    for tab in ("Runs", "Config", "Metrics"):
        page.get_by_role("tab", name=tab).click()
        expect(page.get_by_role("tabpanel")).not_to_be_empty()
        assert findings(page, "#job") == []
    page.locator("#job").get_by_role("button", name="Retry").click()
    expect(page.locator("#confirm")).to_be_visible()
    assert findings(page, "#confirm") == []
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    for name in ("Settings", "Keyboard help"):
        page.get_by_role("button", name=name).click()
        expect(page.locator("dialog.small[open]")).to_be_visible()
        assert findings(page, "dialog.small[open]") == []
        page.keyboard.press("Escape")
    page.get_by_role("link", name="Users").click()
    expect(page.locator("#people h2")).to_be_visible()
    assert findings(page, "#people") == []


def test_axe_finds_nothing_where_one_signs_in_or_the_server_is_away(
    feed: FakeFeed, opened: Callable[..., Watched]
) -> None:
    page = opened(f"{feed.url}/dashboard", key="otk_bad", bypass_csp=True).page
    expect(page.locator("#welcome").get_by_role("alert")).to_be_visible()
    assert findings(page) == []
    page = opened(f"{feed.url}/dashboard", bypass_csp=True, viewport={"width": 360, "height": 780}).page
    expect(page.locator(".gpu").first).to_be_visible()
    feed.stop()
    expect(page.locator("#banner")).to_contain_text("Away since")
    assert findings(page) == []
