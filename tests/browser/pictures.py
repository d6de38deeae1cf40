"""Makes the pictures of the page that the guides show: python -m tests.browser.pictures examples/server [NAME …]"""

from __future__ import annotations

import base64
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, sync_playwright

from .browser import launched
from .fake_feed import FakeFeed
from .scenes import scene

LOG = "".join(
    f"step {step:5d}  loss {2.4 / (1 + step / 400):.4f}  lr 3.0e-04  {61 + step % 7} samples/s\n"
    for step in range(0, 4000, 25)
)


@dataclass(frozen=True)
class Picture:
    """One look at the page."""

    width: int = 1440
    height: int = 1000
    scheme: Literal["light", "dark"] = "dark"
    jobs: int = 40
    route: str = ""
    scale: float = 1


PICTURES = {
    "dark": Picture(),
    "light": Picture(scheme="light"),
    "phone": Picture(360, 780),
    "wall": Picture(3840, 2160, scale=0.5),
    "5000-jobs": Picture(jobs=5000, scheme="light", route="#status=failed&q=memory"),
    "job": Picture(route="#job=FIRST"),
}


def take(browser: Browser, name: str, picture: Picture, into: Path) -> Path:
    """Write one picture."""
    made = scene(time.time(), picture.jobs)
    first = next(job for job in made["jobs"] if job["status"] == "running")
    with FakeFeed(made, keys=()) as feed:
        feed.print(first["id"], LOG)
        size: Any = {"width": picture.width, "height": picture.height}
        context = browser.new_context(viewport=size, color_scheme=picture.scheme, reduced_motion="reduce")
        page = context.new_page()
        page.goto(f"{feed.url}/dashboard{picture.route.replace('FIRST', first['id'])}")
        page.locator(".rows .row").first.wait_for()
        if picture.jobs > 1000:
            page.get_by_text("being fetched").wait_for(state="detached")
            page.locator("#jobs-section").scroll_into_view_if_needed()
            page.evaluate("document.querySelector('#jobs-section').scrollIntoView()")
        if "job=" in picture.route:
            page.get_by_text("step  3975").wait_for()
        path = into / f"page-{name}.webp"
        top = page.evaluate("scrollY")
        clip = {"x": 0, "y": top, "width": picture.width, "height": picture.height, "scale": picture.scale}
        asked = {"format": "webp", "quality": 62, "captureBeyondViewport": False, "clip": clip}
        shot = context.new_cdp_session(page).send("Page.captureScreenshot", asked)
        path.write_bytes(base64.b64decode(shot["data"]))
        context.close()
    return path


if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    with sync_playwright() as playwright:
        browser = launched(playwright)
        for name in names or PICTURES:
            print(take(browser, name, PICTURES[name], Path(folder)))
        browser.close()
