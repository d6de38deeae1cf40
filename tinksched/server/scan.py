"""A look at submitted code before it is accepted. Off unless it is configured."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..config.server import ServerSettings
from ..errors import UsageError
from .submission import REDACTED, Refused, Wanted

if TYPE_CHECKING:
    from .review import Reviewer

KEY = "OPENROUTER_API_KEY"
SECONDS = 60.0  # so long the checks of one script may take
_AT_ONCE = 2  # scripts that are checked
_TOLD = 20  # findings in an answer
_LONGEST = 500  # characters of a finding
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH")  # of the environment, for the program that checks


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found: reasons to reject the code, and what is worth knowing."""

    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def refusal(self) -> Refused:
        """The answer to code that is rejected."""
        more = len(self.reasons) - _TOLD
        told = [*self.reasons[:_TOLD], *([f"and {more} more"] if more > 0 else [])]
        return Refused(400, f"code: rejected by the code scan: {'; '.join(told)}")


def require(settings: ServerSettings) -> None:
    """See that the scan can work, before the server does.

    Raises:
        UsageError: something is missing, or the key would be sent where others can read it.
    """
    if settings.code_scan == "off":
        return
    if importlib.util.find_spec("bandit") is None:
        raise UsageError("the code scan needs bandit", hint="pip install 'tinksched[server]'")
    if settings.code_scan != "llm":
        return
    if not settings.llm_model:
        raise UsageError("code_scan: llm needs a model", hint="llm_model: NAME in server.yml")
    url = urlsplit(settings.llm_url)
    if url.scheme not in ("http", "https") or not url.hostname or url.username is not None:
        raise UsageError("llm_url must be such as https://HOST/v1, without a user or a password")
    if url.scheme == "http" and os.environ.get(KEY) and url.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise UsageError(f"llm_url is http, and would show {KEY} to the network", hint="use https")
    if url.hostname.endswith("openrouter.ai") and not os.environ.get(KEY):
        raise UsageError(f"code_scan: llm needs {KEY} in the environment of the server")


class Scanner:
    """Looks at code as the settings say."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._reviewer = _reviewer(settings) if settings.code_scan == "llm" else None
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def look(self, wanted: Wanted, secret: str) -> Verdict:
        """What is found in a submission. What is told of it never has the `secret`, which is the client's token."""
        if self._settings.code_scan == "off" or wanted.user in self._settings.scan_exempt:
            return Verdict()
        async with self._places:
            found = await self._check(wanted.code)
        if self._reviewer is not None and not found.reasons:
            read = await self._reviewer.look(wanted.code.replace(secret, REDACTED))
            found = Verdict(read.reasons, (*found.warnings, *read.warnings))
        return Verdict(tuple(_told(found.reasons, secret)), tuple(_told(found.warnings, secret)))

    async def _check(self, code: str) -> Verdict:
        """Have the code checked by a program of its own. What can't be checked is rejected."""
        try:
            found = await asyncio.wait_for(self._run(code), SECONDS)
        except asyncio.TimeoutError:
            return Verdict((f"it could not be checked within {SECONDS:.0f} s",))
        except (ValueError, OSError):
            return Verdict(("it could not be checked",))
        texts = [(severity, f"line {line}: {text}" if line else text) for line, severity, text in found]
        return Verdict(
            tuple(text for severity, text in texts if severity == "high"),
            tuple(text for severity, text in texts if severity != "high"),
        )

    async def _run(self, code: str) -> list[tuple[int, str, str]]:
        """Raises ValueError or OSError: the program can't be run, or has failed."""
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        with _file_of(code) as descriptor:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tinksched.server.checking", stdin=descriptor, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL, env=environment, cwd=self._settings.state_dir,
            )  # fmt: skip
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise ValueError(f"exit code {process.returncode}")
        found: list[tuple[int, str, str]] = json.loads(output)
        return found


@contextlib.contextmanager
def _file_of(code: str) -> Iterator[int]:
    """A file without a name that has the code."""
    descriptor = os.memfd_create("code")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(code.encode())
        yield descriptor
    finally:
        os.close(descriptor)


def _reviewer(settings: ServerSettings) -> Reviewer:
    from .review import Reviewer

    return Reviewer(settings, os.environ.get(KEY))


def _told(texts: Iterable[str], secret: str) -> Iterator[str]:
    """What a model or a parser says of somebody's code, fit to be kept and to be printed."""
    for text in texts:
        clean = "".join(char if char.isprintable() else "?" for char in text.replace(secret, REDACTED))
        yield clean if len(clean) <= _LONGEST else f"{clean[:_LONGEST]}…"
