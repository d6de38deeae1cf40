"""A page in a browser, and all that must never happen in it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""
QUIET = (
    "ERR_CONNECTION_REFUSED",
    "ERR_INCOMPLETE_CHUNKED_ENCODING",
    "ERR_EMPTY_RESPONSE",
    "401 (Unauthorized)",
    "404 (Not Found)",
)


class Watched:
    """A page whose errors, dialogs, requests and responses are kept. `key` is in its storage before it begins."""

    def __init__(self, browser: Any, url: str, key: str | None, **context: Any) -> None:
        self.context = browser.new_context(
            **{"viewport": {"width": 1400, "height": 1000}, "reduced_motion": "reduce", **context}
        )
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        self.requests: list[Any] = []
        self.responses: list[Any] = []
        self.violations: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._said)
        self.page.on("dialog", self._asked)
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("response", lambda response: self.responses.append(response))
        self.page.add_init_script(WATCH)
        self.url = url
        if key:
            self.page.add_init_script(
                f"sessionStorage.begun || localStorage.setItem('opentinker_api_key', '{key}'); sessionStorage.begun = 1;"
            )
        self.page.goto(url)

    def close(self) -> None:
        self.violations = self.page.evaluate("window.violations")
        self.context.close()

    def check(self) -> None:
        """Nothing went wrong."""
        assert not self.errors and not self.dialogs and not self.violations, (
            self.errors,
            self.dialogs,
            self.violations,
        )
        home = urlsplit(self.url).netloc
        assert {urlsplit(request.url).netloc for request in self.requests} == {home}

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning") and not any(quiet in message.text for quiet in QUIET):
            self.errors.append(message.text)

    def _asked(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()
