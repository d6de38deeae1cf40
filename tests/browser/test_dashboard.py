"""The page of `tinksched dashboard`: of a workspace, and alone, for a server elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from tests.server.test_page_alone import Dashboard
from tests.serving import Serving
from tests.support import Bench, Lab

from .watched import Watched

Opened = Callable[..., Watched]
ROWS = ".rows .row"


@pytest.fixture
def board() -> Iterator[Callable[..., Dashboard]]:
    """Starts the command; it is gone when the test has ended."""
    made: list[Dashboard] = []

    def begin(bench: Bench, *arguments: str) -> Dashboard:
        made.append(Dashboard(bench, *arguments))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def test_a_workspace_is_shown_to_the_browser_with_the_url(
    lab: Lab, opened: Opened, board: Callable[..., Dashboard]
) -> None:
    bench = lab.workspace(tasks={"good.yml": "", "bad.yml": "code: 3\n"})
    shown = board(bench)
    page = opened(f"{shown.url}/dashboard?token={shown.token}", key=None).page
    expect(page.locator("#connection")).to_have_text("Live")
    assert "token" not in page.url
    bench.run("start", "--wait", code=None)
    expect(page.locator(ROWS).filter(has_text="good")).to_contain_text("Completed")
    expect(page.locator(ROWS).filter(has_text="bad")).to_contain_text("Failed")
    expect(page.locator(".quiet")).to_have_count(0)
    page.locator(ROWS).filter(has_text="bad").get_by_role("link").first.click()
    page.get_by_role("tab", name="Config").click()
    expect(page.get_by_label("Config", exact=True).and_(page.locator("pre"))).to_have_text("code: 3\n")
    page.reload()
    expect(page.locator("#job-title")).to_have_text("bad")
    stranger = opened(f"{shown.url}/dashboard", key="otk_of_something_else").page
    expect(stranger.locator("#welcome")).to_contain_text("tinksched dashboard")
    expect(stranger.locator("#welcome input")).to_have_count(0)


def test_the_page_alone_speaks_with_its_server(lab: Lab, opened: Opened, board: Callable[..., Dashboard]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shown = board(lab.workspace(), "--server", f"http://127.0.0.1:{port}")
    server = Serving(lab, port=port, allowed_origins=[shown.url]).start()
    try:
        token = server.token("alice")
        watched = opened(f"{shown.url}/dashboard", key=None)
        watched.others.add(f"127.0.0.1:{port}")
        page = watched.page
        page.locator("#welcome").get_by_label("API Key").fill(token)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#connection")).to_have_text("Live")
        job = server.submit(token).json()["job_id"]
        expect(page.locator(ROWS).filter(has_text=job)).to_contain_text("Completed")
        page.get_by_role("button", name="Settings").click()
        expect(page.get_by_label("Server")).to_have_value(server.url)
        watched.others.add(f"localhost:{port}")
        page.get_by_label("Server").fill(f"http://localhost:{port}")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.locator("#welcome").get_by_label("API Key").fill(token)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator(ROWS).filter(has_text=job)).to_contain_text("Completed")
    finally:
        server.close()
