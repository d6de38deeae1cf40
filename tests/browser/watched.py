"""A page in a browser, and all that must never happen in it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", ({violatedDirective, blockedURI}) => {
    window.violations.push(`${violatedDirective} ${blockedURI}`);
});
"""
SIGN_IN = """
if (!sessionStorage.begun) localStorage.setItem("opentinker_api_key", "KEY");
sessionStorage.begun = 1;
"""
EXPECTED = (  # what a browser says of a server that is away, or refuses
    "ERR_CONNECTION_REFUSED",
    "ERR_CONNECTION_RESET",
    "ERR_INCOMPLETE_CHUNKED_ENCODING",
    "ERR_EMPTY_RESPONSE",
    "401 (Unauthorized)",
    "403 (Forbidden)",
    "404 (Not Found)",
)


class Watched:
    """A page whose errors, dialogs, requests and responses are kept. `key` is in its storage before it begins.

    With `clock` a test moves its time.
    """

    def __init__(
        self, browser: Any, url: str, key: str | None, script: str = "", clock: bool = False, **context: Any
    ) -> None:
        usual = {"viewport": {"width": 1400, "height": 1000}, "reduced_motion": "reduce"}
        self.context = browser.new_context(**{**usual, **context})
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.requests: list[Any] = []
        self.others: set[str] = set()  # what it may ask besides its home
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", self._said)
        self.page.on("dialog", self._asked)
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.add_init_script(WATCH + script)
        if key:
            self.page.add_init_script(SIGN_IN.replace("KEY", key))
        if clock:
            self.page.clock.install()
        self.url = url
        self.page.goto(url)

    def close(self) -> None:
        self.wrong += self.page.evaluate("window.violations")
        self.context.close()

    def check(self) -> None:
        """Nothing went wrong, and nothing was asked of another server."""
        assert self.wrong == []
        known = {urlsplit(self.url).netloc, *self.others}
        assert {urlsplit(request.url).netloc for request in self.requests} <= known

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in EXPECTED):
            self.wrong.append(message.text)

    def _asked(self, dialog: Any) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()
