"""What the page costs, measured in a real browser with 5,000 jobs: python -m tests.browser.bench [SECONDS]

- the first useful paint: from the navigation to the frame in which GPUs and jobs are drawn;
- an update: from the event's dispatch to the frame that shows it;
- an open page: the processor time of all processes of the browser, more than that of one with an empty page, while the
  server tells what a quiet machine tells: the GPUs, every 5 s. SECONDS (60) is for how long.

A measurement, and no test: it says what it finds.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import psutil
from playwright.sync_api import Browser, sync_playwright

from .browser import launched
from .fake_feed import STATIC, FakeFeed
from .scenes import Json, job, scene

JOBS = 5000
LOADS, UPDATES, GPU_SECONDS = 11, 40, 5.0
USEFUL = """
const painted = new MessageChannel(); // its messages come after the frame in which they were sent
painted.port1.onmessage = () => { window.useful = performance.now(); };
new MutationObserver((_, observer) => {
    if (!document.querySelector(".gpu") || !document.querySelector(".rows .row")) return;
    observer.disconnect();
    painted.port2.postMessage("");
}).observe(document, {childList: true, subtree: true});
"""
SHOWN = """
new MutationObserver(() => {
    const name = document.querySelector(".rows .row a")?.textContent;
    if (!name || name in window) return;
    window[name] = null;
    requestAnimationFrame(() => setTimeout(() => { window[name] = Date.now(); }));
}).observe(document, {childList: true, subtree: true, characterData: true});
"""

WAIT = """(name) => new Promise((done) => {
    const look = () => (window[name] ? done(window[name]) : setTimeout(look, 5));
    look();
})"""


def paints(browser: Browser, feed: FakeFeed) -> list[float]:
    """Milliseconds to the first useful paint, where one has been here before; the server lets nothing be cached."""
    found = []
    for _ in range(LOADS):
        context = browser.new_context(viewport={"width": 1920, "height": 1080})
        page = context.new_page()
        page.add_init_script(USEFUL)
        for _ in range(2):
            page.goto(f"{feed.url}/dashboard")
            useful = float(page.evaluate(WAIT, "useful"))
        found.append(useful)
        context.close()
    return found[1:]  # the first one warms the browser


def updates(browser: Browser, feed: FakeFeed) -> list[float]:
    """Milliseconds from an event to the frame with it."""
    page = browser.new_page(viewport={"width": 1920, "height": 1080})
    page.add_init_script(SHOWN)
    page.goto(f"{feed.url}/dashboard")
    page.locator(".rows .row").first.wait_for()
    found = []
    for number in range(UPDATES):
        sent, name = time.time(), f"update-{number}"
        feed.change(jobs=[job("job_update", "running", name=name, started_at=sent, created_at=sent)])
        shown = page.evaluate(WAIT, name)
        found.append(float(shown) - 1000 * sent)
    page.close()
    return found


def idle(browser: Browser, url: str, seconds: float, feed: FakeFeed | None = None) -> float:
    """The processor time of the browser with this page, in percent of a core."""
    page = browser.new_page(viewport={"width": 1920, "height": 1080})
    page.goto(url)
    page.wait_for_timeout(35000)  # nobody touches it from now on
    begun, before = time.monotonic(), spent()
    while time.monotonic() - begun < seconds:
        time.sleep(GPU_SECONDS)
        if feed is not None:
            feed.change(gpus=[moved(gpu) for gpu in feed.scene["gpus"]])
    used = spent() - before
    page.close()
    return 100 * used / (time.monotonic() - begun)


def moved(gpu: Json) -> Json:
    """A GPU a moment later."""
    busy = (gpu["utilization"] + 3) % 100 if gpu["runs"] else 0
    history = {**gpu["history"], "utilization": [*gpu["history"]["utilization"][1:], busy]}
    return {**gpu, "utilization": busy, "history": history}


def spent() -> float:
    """Seconds of processor time of the browser's processes, and of nothing else that this program started."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        if "chrom" in process.name():
            times = process.cpu_times()
            total += times.user + times.system
    return total


def told(name: str, values: list[float], aim: str) -> str:
    """A line of the report."""
    return (
        f"{name}: median {statistics.median(values):.0f} ms, worst of {len(values)} {max(values):.0f} ms (aim: {aim})"
    )


def main(seconds: float) -> None:
    """Measure, and print."""
    weight = sum(path.stat().st_size for path in STATIC.iterdir())
    print(f"the page: {weight / 1000:.0f} kB in all, not compressed (aim: below 150 kB)")
    with sync_playwright() as playwright, FakeFeed(scene(time.time(), JOBS), keys=()) as feed:
        browser: Any = launched(playwright)
        print(told(f"first useful paint, {JOBS} jobs", paints(browser, feed), "below 300 ms"), flush=True)
        print(told("an update on screen", updates(browser, feed), "within 200 ms"), flush=True)
        empty = idle(browser, "about:blank", seconds)
        url = f"{feed.url}/dashboard"
        quiet, live = idle(browser, url, seconds), idle(browser, url, seconds, feed)
        print(
            f"an open page: {quiet - empty:.3f} % of a core at rest, {live - empty:.3f} % with eight GPUs "
            f"that tell something every {GPU_SECONDS:g} s; an empty page {empty:.3f} % (aim: below 0.1 %)"
        )
        browser.close()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)
