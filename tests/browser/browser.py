"""Debian's chromium, driven by Playwright."""

from __future__ import annotations

import shutil

from playwright.sync_api import Browser, Playwright

NOWHERE = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
ARGUMENTS = ["--no-sandbox", f"--host-resolver-rules={NOWHERE}", "--disable-dev-shm-usage"]


def chromium() -> str | None:
    """The path of the program, or None."""
    return shutil.which("chromium")


def launched(playwright: Playwright) -> Browser:
    """A browser without a window. It reaches nothing but this machine."""
    return playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
