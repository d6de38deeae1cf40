"""`tinksched dashboard`: the page without a server of jobs. Of a workspace, on loopback, and read-only; or the page
alone, for a server elsewhere.

Who may look at a workspace has the one-time token of the URL that was printed. It is exchanged for a cookie; another
URL is printed then, for another browser. Requests that name another host than this one are refused, so that no name
that is made to point here (DNS rebinding) reaches anything.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from ... import __version__
from ...errors import TinkschedError, UsageError
from ...operations.workspace import Workspace, user_name
from ..growth import Growth
from ..queue_api import answer_of, http_error
from ..submission import Refused
from . import files
from .api import PageApi
from .feed import Check, Feed
from .sources import WorkspaceSource
from .views import User, Viewer
from .works import ReadOnly

_NO_COOKIE = "Open the URL that tinksched dashboard printed last: it lets a browser in"
_SPENT = "This URL was used before: tinksched dashboard has printed another one"
_GRACE_SECONDS = 2
_ANYWHERE = "http: https:"  # of the page alone: its server's address can be edited in it
Say = Callable[[str], object]


class OneTime:
    """Tokens that let a browser in, each once; what is exchanged for them is one secret."""

    def __init__(self, name: str, made: Callable[[str], object]) -> None:
        """`made` is called with each new token."""
        self.name = name  # of the cookie: cookies know no ports, so each dashboard has its own
        self._made = made
        self._secret = secrets.token_urlsafe(32)
        self._token = ""
        self.renew()

    def renew(self) -> None:
        """Make another one; the one before is good no more."""
        self._token = secrets.token_urlsafe(32)
        self._made(self._token)

    def spend(self, token: str) -> str | None:
        """The secret for the cookie; None if this is not the token."""
        if not _same(token, self._token):
            return None
        self.renew()
        return self._secret

    def knows(self, request: Request) -> bool:
        """Whether a request comes from a browser that was let in."""
        return _same(request.cookies.get(self.name, ""), self._secret)


class LocalDoor:
    """See `Door`."""

    asks = has_users = False

    def __init__(self, known: OneTime) -> None:
        self._known = known
        self._viewer = Viewer(user_name(), is_admin=True)

    def viewer(self, request: Request) -> Viewer | None:
        if not self._known.knows(request):
            raise Refused(401, _NO_COOKIE)
        return self._viewer

    def check(self, request: Request, viewer: Viewer) -> Check:
        return lambda: None

    def count(self, request: Request) -> None:
        """Nobody else is there."""

    def may(self) -> dict[str, bool]:
        return {"cancel": False, "retry": False}

    def known_users(self) -> list[User]:
        return []


class _Host:
    """An ASGI middleware: only requests that name this host get in, and no answer is kept or framed."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "http":
            hosts = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or hosts[0] not in self._names:
                answer = JSONResponse({"detail": "This server has another name"}, 421, _PLAIN)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


_PLAIN = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def serve_workspace(workspace: Workspace, host: str, port: int, say: Say) -> None:
    """Show a workspace until a signal says stop.

    Raises:
        TinkschedError: it can't begin: see the message.
    """
    listener, url = _listen(host, port)
    at = listener.getsockname()[1]
    feed = Feed(WorkspaceSource(workspace), lambda viewer: {})
    say(f"{workspace.settings.task_name} in {workspace.settings.workspace}; this URL lets one browser in:")
    known = OneTime(f"tinksched_{at}", lambda token: say(f"{url}/dashboard?token={token}"))
    growth = Growth()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        growth.open()
        await feed.open()
        yield
        await feed.close()
        growth.close()

    app = _app(lifespan)

    @app.get("/dashboard")
    async def page(request: Request, token: str | None = None) -> Response:
        if token is None:
            return files.answer(request, files.INDEX) or Response(status_code=404)
        secret = known.spend(token)
        if secret is None and not known.knows(request):
            raise Refused(401, _SPENT)
        answer = RedirectResponse("/dashboard", 303, _PLAIN)
        if secret is not None:
            answer.set_cookie(known.name, secret, path="/dashboard", httponly=True, samesite="strict")
        return answer

    app.include_router(PageApi(feed, LocalDoor(known), ReadOnly(), growth).routes)
    _run(app, host, listener, feed.stop)


def serve_page(server: str, host: str, port: int, say: Say) -> None:
    """Give out the page alone, for a server elsewhere.

    Raises:
        TinkschedError: it can't begin: see the message.
    """
    origin = origin_of(server)
    listener, url = _listen(host, port)
    say(f"{url}/dashboard    for {origin}")
    say(f"which answers it if its server.yml has: allowed_origins: [{url}]")
    app = _app(None)

    @app.get("/dashboard/static/{name}")
    async def static(request: Request, name: str) -> Response:
        return files.answer(request, name, _ANYWHERE) or Response(status_code=404)

    @app.get("/web_dashboard.html")
    @app.get("/dashboard")
    async def page(request: Request) -> Response:
        return await static(request, files.INDEX)

    @app.get("/dashboard/api/session")
    async def session() -> JSONResponse:
        """Where the data is."""
        return JSONResponse({"mode": "page", "server": origin, "version": __version__}, headers=_PLAIN)

    _run(app, host, listener, lambda: None)


def origin_of(server: str) -> str:
    """Scheme, host and port of a server's URL.

    Raises:
        UsageError: it is none.
    """
    try:
        parts = urlsplit(server)
        name, port = parts.hostname, parts.port
    except ValueError:
        name = port = None
    if not name or parts.scheme not in ("http", "https") or not name.isascii() or set(name) & set(" ;,'\"*"):
        raise UsageError(f"--server {server}: is no URL of a server", hint="such as http://gpu.example.org:8001")
    host = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")


def _app(lifespan: Callable[[FastAPI], object] | None) -> FastAPI:
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)  # type: ignore[arg-type]

    @app.get("/")
    async def root() -> RedirectResponse:
        return RedirectResponse("/dashboard", 303, _PLAIN)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        answer = answer_of(error)
        answer.headers.update(_PLAIN)
        return answer

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return http_error(error)

    @app.exception_handler(TinkschedError)
    async def trouble(_: Request, error: TinkschedError) -> JSONResponse:
        return JSONResponse({"detail": error.message}, 503, {**_PLAIN, "Retry-After": "5"})

    return app


def _listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A socket on loopback, and its URL."""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise UsageError(
            f"--host {host}: the dashboard is for this machine only",
            hint="from elsewhere, use a tunnel: ssh -L 8081:127.0.0.1:8081 HOST",
        )
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server((address[0], address[1]), family=family)
    except OSError as error:
        raise UsageError(
            f"{host}:{port}: can't listen there: {error.strerror or error}", hint="name another --port; 0: any"
        ) from None
    return listener, f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _run(app: FastAPI, host: str, listener: socket.socket, stop: Callable[[], object]) -> None:
    port = listener.getsockname()[1]
    names = frozenset(f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]", host))
    app.add_middleware(_Host, names=names | {name.removesuffix(":80") for name in names})
    config = uvicorn.Config(
        app, log_config=None, access_log=False, proxy_headers=False, server_header=False, lifespan="on", ws="none",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )  # fmt: skip
    # uvicorn ends at a signal, then raises it once more for whoever handled it before: that must not kill us.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    try:
        _Server(config, stop).run([listener])
    finally:
        listener.close()


class _Server(uvicorn.Server):
    """Ends the streams with itself."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], object]) -> None:
        super().__init__(config)
        self._stop = stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stop()
        super().handle_exit(sig, frame)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="surrogatepass"), other.encode())
