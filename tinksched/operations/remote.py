"""A client of `tinksched serve`: what it asks a server over HTTP, and what it makes of the answers.

A server, a proxy before it or a stranger in its place may answer anything: each answer is looked at before it is used.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

import httpx

from ..errors import NothingToActOn, TimedOut, TinkschedError, UsageError

TOKEN, SERVER = "TINKSCHED_TOKEN", "TINKSCHED_SERVER"
LOST_SECONDS = 300.0  # so long a server that was there is waited for
_SLOWEST_RETRY = 10.0
_LONGEST_WAIT = 3600.0  # that a server may ask for
_SILENCE, _CONNECT = 60.0, 10.0  # seconds; a log that is silent has a comment every 15
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
Answer = dict[str, Any]


class Event(NamedTuple):
    """A piece of a job's output: `kind` is stdout or stderr; or its end, with what became of it as JSON."""

    kind: str
    text: str
    id: str | None


class Lost(UsageError):
    """The server can't be reached, or was lost in the middle of an answer."""


class Refused(UsageError):
    """The server wants to be asked later."""

    def __init__(self, message: str, seconds: float, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.seconds = seconds


def server_url(given: str | None) -> str:
    """The server that is meant, by an option or by the environment. Raises UsageError: none, or not a URL."""
    url = given or os.environ.get(SERVER, "")
    if not url:
        raise UsageError("which server?", hint=f"--server URL, or {SERVER}=URL in the environment")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username is not None or parts.query or parts.fragment or not url.isprintable():
        raise UsageError(f"the server must be such as https://gpu.example.org, not {url!r}")
    return url.rstrip("/")


def token_file() -> Path:
    """Where a user's token lies (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(base if os.path.isabs(base) else "~/.config").expanduser() / "tinksched" / "token"


def token() -> str:
    """The user's token, from the environment or from a file that nobody else may read.

    Raises:
        UsageError: there is none, or it is not a secret.
    """
    found, where = os.environ.get(TOKEN, "").strip(), TOKEN
    if not found:
        path = token_file()
        found, where = _secret(path), str(path)
    if not found.isascii() or not found.isprintable() or " " in found or not found:
        raise UsageError(f"{where}: must hold a token, which is printable ASCII without blanks")
    return found


def _secret(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            mode = os.fstat(file.fileno())
            if mode.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(mode.st_mode) & 0o077:
                raise UsageError(f"{path}: others may read it; it was not used", hint=f"chmod 600 {path}")
            return file.read(4096).strip()
    except FileNotFoundError:
        hint = f"{TOKEN} in the environment, or the file {path} with mode 0600"
        raise UsageError("there is no token", hint=hint) from None
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}") from None


class Remote:
    """One server, asked with one token. With `retry` it is asked again when it says so (429, 503)."""

    def __init__(
        self,
        url: str,
        token: str,
        say: Callable[[str], object],
        *,
        retry: bool = False,
        seconds: float | None = None,
    ) -> None:
        """`seconds` is how long all of it may take; None: as long as it does."""
        self.url = url
        self.retry = retry
        self._say = say
        self._deadline = None if seconds is None else time.monotonic() + seconds
        try:
            self._client = httpx.Client(headers={"Authorization": f"Bearer {token}"})
        except (OSError, ValueError) as error:  # of a proxy or of certificates that the environment names
            raise UsageError(f"no connections can be made here: {error}") from None

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def submit(self, code: bytes, name: str, config: bytes) -> Answer:
        """Hand a job in. Raises TinkschedError: it was not accepted, or nobody knows."""
        files = {"code": (name, code, "text/x-python"), "config_file": ("config.yaml", config, "application/x-yaml")}
        return self._job(self._ask("POST", "/api/submit", params={"wait": "false"}, files=files))

    def status(self, job_id: str) -> Answer:
        """What has become of a job."""
        return self._job(self._ask("GET", f"/api/status/{checked(job_id)}"))

    def results(self, job_id: str) -> Answer:
        """What a job printed."""
        return self._job(self._ask("GET", f"/api/results/{checked(job_id)}"))

    def cancel(self, job_id: str) -> Answer:
        """End a job. Raises NothingToActOn: it has ended."""
        found = self._ask("POST", f"/api/cancel/{checked(job_id)}")
        return found if isinstance(found, dict) else self._stranger()

    def jobs(self, **query: str | int | None) -> list[Answer]:
        """The newest jobs first."""
        chosen = {name: value for name, value in query.items() if value is not None}
        found = self._ask("GET", "/api/jobs", params=chosen)
        return found if isinstance(found, list) and all(isinstance(job, dict) for job in found) else self._stranger()

    def follow(self, job_id: str) -> Iterator[Event]:
        """The output of a job as it comes, and its end. A connection that breaks is made again, and goes on there.

        Raises:
            TinkschedError: there is no such job; or the server was there, and did not come back in time.
        """
        path = f"/api/logs/{checked(job_id)}"
        last: str | None = None
        seen: float | None = None  # when the server was there
        tries = 0
        while True:
            wait = 0.0
            try:
                for event in self._stream(path, last):
                    seen = time.monotonic()
                    if event is None:
                        continue
                    last, tries = event.id or last, 0
                    yield event
                    if event.kind == "end":
                        return
                trouble = "the server has ended the connection"
            except Refused as error:
                trouble, wait = error.message, error.seconds
            except Lost as error:
                self._left()
                if seen is None or time.monotonic() - seen > LOST_SECONDS:
                    raise
                trouble = error.message
            if not tries:
                self._say(f"{trouble}; it is tried again")
            self._sleep(max(wait, min(_SLOWEST_RETRY, 0.5 * 2**tries)))
            tries = min(tries + 1, 10)

    # -- one request

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        while True:
            try:
                with _translated(self.url):
                    answer = self._client.request(method, self.url + path, timeout=self._timeout(), **more)
                self._check(answer)
            except Refused as error:
                if not self.retry:
                    raise
                self._say(f"{error.message}; it is tried again")
                self._sleep(error.seconds)
                continue
            except Lost as error:
                if method == "POST" and not isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout):
                    error.hint = "it may have been done all the same: `tinksched remote jobs` shows"
                raise
            found = _json(answer.content)
            return self._stranger() if found is None else found

    def _stream(self, path: str, last: str | None) -> Iterator[Event | None]:
        """The events, and None for whatever else shows that the server is there."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        asked = self._client.stream("GET", self.url + path, headers=headers, timeout=self._timeout())
        with _translated(self.url), asked as answer:
            if answer.status_code != 200:
                answer.read()
                self._check(answer)
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                self._stranger()
            yield None
            yield from events(self._in_time(answer.iter_bytes()))

    def _in_time(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._left()
            yield chunk

    def _check(self, answer: httpx.Response) -> None:
        """Raises TinkschedError: it says no, and this is why."""
        status = answer.status_code
        if status == 200:
            return
        body = _json(answer.content)
        detail = body.get("detail") if isinstance(body, dict) else None
        if status in (301, 302, 303, 307, 308):
            raise UsageError(
                f"{self.url} sends on to {_plain(answer.headers.get('location', '?'))}", hint="name that with --server"
            )
        if status == 413:
            raise UsageError("the script and its config are larger than the server takes (413)")
        if status in (502, 504) or (status == 503 and not detail):
            raise Lost(f"{self.url}: a proxy answers {status}: the server behind it does not answer")
        if not isinstance(detail, str) or (status == 404 and detail != "Job not found") or status == 405:
            self._stranger()
        raise _refusal(status, _plain(str(detail)), _patience(answer.headers))

    def _job(self, found: Any) -> Answer:
        if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in ("job_id", "status")):
            self._stranger()
        return dict(found)

    def _stranger(self) -> NoReturn:
        raise UsageError(f"{self.url} answers, but not as a tinksched server", hint="is the URL right, with its path?")

    # -- time

    def _left(self) -> float | None:
        """The seconds that are left. Raises TimedOut: none."""
        left = None if self._deadline is None else self._deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimedOut("the time is over")
        return left

    def _timeout(self) -> httpx.Timeout:
        left = self._left() or _SILENCE
        return httpx.Timeout(min(left, _SILENCE), connect=min(left, _CONNECT))

    def _sleep(self, seconds: float) -> None:
        left = self._left()
        time.sleep(seconds if left is None else min(seconds, left))
        self._left()


def register(url: str, name: str, token: str) -> tuple[str, str]:
    """Make oneself known to a server, with an administrator's token where it asks for one. The key, and the user's id.

    Raises:
        UsageError: it is not granted, or the server is none.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    found = _once("POST", f"{url}/register", headers, params={"username": name})
    key, user_id = found.get("api_key"), found.get("user_id")
    if not isinstance(key, str) or not key.isascii() or not key.isprintable() or not isinstance(user_id, str):
        raise UsageError(f"{url} answers, but gives no key", hint="is the URL right, with its path?")
    return key, _plain(user_id)


def verify(url: str, key: str) -> None:
    """See that a key is good. Raises UsageError: it is not."""
    _once("GET", f"{url}/list_jobs", {"Authorization": f"Bearer {key}"})


def _once(method: str, url: str, headers: Mapping[str, str], **more: Any) -> Answer:
    """A single request, and the map that it is answered with."""
    with (
        _translated(url),
        httpx.Client(headers=dict(headers), timeout=httpx.Timeout(_SILENCE, connect=_CONNECT)) as one,
    ):
        answer = one.request(method, url, **more)
    found = _json(answer.content)
    if answer.status_code == 200 and isinstance(found, dict):
        return found
    detail = found.get("detail") if isinstance(found, dict) else None
    if not isinstance(detail, str):
        raise UsageError(f"{url}: answered {answer.status_code}, and not as a tinksched server does")
    raise UsageError(f"the server says: {_plain(detail)}")


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Makes errors of the connection those that a user can read."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise _trouble(url, error) from error


def _trouble(url: str, error: Exception) -> UsageError:
    reason = _plain(str(error)) or type(error).__name__
    tls = _cause(error, ssl.SSLError)
    if tls is not None and "WRONG_VERSION" in str(tls):
        return UsageError(f"{url}: no TLS is spoken there", hint="is it http://?")
    if tls is not None:
        hint = "is it the right host? SSL_CERT_FILE names the certificate of an authority of your own"
        return UsageError(f"{url}: no TLS connection that can be trusted: {reason}", hint=hint)
    if isinstance(error, httpx.RemoteProtocolError) and not re.search("disconnected|peer closed", reason):
        return UsageError(f"{url}: no HTTP is spoken there: {reason}")
    if isinstance(error, httpx.TimeoutException):
        return Lost(f"{url}: no answer in time")
    if isinstance(error, httpx.ConnectError):
        return Lost(f"{url}: can't be reached: {reason}")
    if isinstance(error, httpx.TransportError):
        return Lost(f"{url}: the connection broke")
    return UsageError(f"{url}: {reason}")


def _cause(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _refusal(status: int, detail: str, seconds: float | None) -> TinkschedError:
    if status == 401:
        return UsageError(
            f"the server does not take the token: {detail}",
            hint=f"a new one from the administrator goes into {TOKEN} or {token_file()}",
        )
    if status == 404 or detail == "Job already completed":
        return NothingToActOn(detail)
    if status == 429 or (status == 503 and seconds is not None):
        seconds = 10.0 if seconds is None else seconds
        return Refused(f"the server says: {detail} (again in {seconds:.0f} s)", seconds, hint="--retry waits for it")
    return UsageError(f"{'not allowed' if status == 403 else 'the server says'}: {detail}")


def _patience(headers: Mapping[str, str]) -> float | None:
    """The seconds of a Retry-After header (RFC 9110, 10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return min(_LONGEST_WAIT, max(1.0, float(text)))
    try:
        at = parsedate_to_datetime(text)
        at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
        return min(_LONGEST_WAIT, max(1.0, (at - datetime.now(timezone.utc)).total_seconds()))
    except (ValueError, TypeError, OverflowError):
        return None


def events(chunks: Iterator[bytes]) -> Iterator[Event | None]:
    """Server-sent events out of what was received, and None after each piece of it.

    As the HTML standard has them, without `retry`. Lines end where the standard says, and nowhere else: other marks
    that Python takes for an end of line belong to what a job printed.
    """
    rest = b""
    fields: dict[str, list[str]] = {}
    for chunk in chunks:
        *lines, rest = re.split(rb"\r\n|\n|\r(?!$)", rest + chunk)
        for line in lines:
            name, _, value = line.decode(errors="replace").partition(":")
            if line:
                fields.setdefault(name, []).append(value.removeprefix(" "))
            elif "data" in fields:
                kind, place = fields.get("event", ["message"])[-1], fields.get("id", [None])[-1]
                yield Event(kind, "\n".join(fields["data"]), place)
            fields = fields if line else {}
        yield None


def checked(job_id: str) -> str:
    """An id that can stand in a URL. Raises UsageError: it is none."""
    if not _JOB_ID.fullmatch(job_id):
        raise UsageError(f"not the id of a job: {job_id!r}", hint="`tinksched remote jobs` lists them")
    return job_id


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _plain(text: str) -> str:
    """What a server says, on one line that can be printed."""
    return "".join(char if char.isprintable() else "?" for char in text)[:2000]
