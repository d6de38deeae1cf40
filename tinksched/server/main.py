"""`tinksched serve`: the engine and the HTTP server in one process."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from ..config.server import ServerSettings
from ..errors import UsageError
from . import scan
from .app import make_app
from .connection import patient_for
from .engine import Engine
from .isolation import HELP
from .limits import is_loopback

GRACE_SECONDS = 10  # for requests that are being answered when the server stops
_LIFE = 75  # seconds that an idle connection is kept; longer than that of the usual proxies


def serve(settings: ServerSettings, say: Callable[[str], object]) -> None:
    """Serve until a signal says stop. Jobs that run go on, and are found by the next server.

    Raises:
        TinkschedError: it can't begin: see the message.
    """
    scan.require(settings)
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(_listen(settings, port)) for port in _ports(settings)]
        engine = Engine(settings)
        stack.callback(engine.stop)
        isolation = engine.isolation
        if isolation.kind == "none" and settings.isolation != "none" and _is_public(settings):
            host = f"{settings.host}{', behind trusted_proxies' if settings.trusted_proxies else ''}"
            raise UsageError(
                f"host is {host}, and submitted code would run as this user, not isolated: {isolation.note}",
                hint=f"{HELP}; or write `isolation: none` to have it so",
            )
        engine.start()
        _log_to_stderr()
        for line in _greeting(engine, listeners):
            say(line)
        config = uvicorn.Config(
            make_app(engine), log_config=None, access_log=False, timeout_keep_alive=_LIFE, proxy_headers=False,
            timeout_graceful_shutdown=GRACE_SECONDS, server_header=False, lifespan="on", ws="none",
            http=patient_for(settings.request_timeout),
        )  # fmt: skip
        # uvicorn ends at a signal, then raises it once more for whoever handled it before: that must not kill us.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _ignored)
        _Server(config).run(listeners)


class _Server(uvicorn.Server):
    """Ends as a server of jobs must: those who wait for theirs are answered, and no new ones are taken."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.desk.stop_soon()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


class _Line(logging.Formatter):
    """One line, whatever a client put into it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _ignored(*_: object) -> None:
    """A handler, unlike SIG_IGN, is not inherited by what the server starts."""


def _is_public(settings: ServerSettings) -> bool:
    """Whether others than this machine can reach it, perhaps through a proxy on it."""
    return bool(settings.trusted_proxies) or not is_loopback(settings.host)


def _ports(settings: ServerSettings) -> list[str]:
    """The settings that name ports; one where both are the same port."""
    same = settings.port == settings.scheduler_port and settings.port
    return ["port"] if same else ["port", "scheduler_port"]


def _listen(settings: ServerSettings, name: str) -> socket.socket:
    """Take the port of this setting before anything else, so that a second server disturbs nothing."""
    port = getattr(settings, name)
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        raise UsageError(
            f"{settings.host}:{port}: can't listen there: {error.strerror or error}",
            hint=f"set another {name} or host in server.yml",
        ) from None
    listener.setblocking(False)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _greeting(engine: Engine, listeners: Sequence[socket.socket]) -> list[str]:
    url, *more = map(_url, listeners)
    slots = f"{len(engine.nodes)} CPU slot{'s' * (len(engine.nodes) > 1)}"
    gpus = f"GPU {', '.join(map(str, engine.gpus))}"
    note = f" ({engine.note})" if engine.note else ""
    isolation = engine.isolation
    why = f" ({isolation.note})" if isolation.note else ""
    return [
        f"tinksched serves on {url}    docs: {url}/docs",
        *(f"and on {one}, where clients of OpenTinker look" for one in more),
        f"jobs run on {gpus if engine.gpus_per_job else slots}{note}; isolation: {isolation.kind}{why}",
        f"state: {engine.folder}",
        "make the first token with: tinksched token create NAME --generate --admin",
    ]


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    for name in ("tinksched.server", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO if name.startswith("tinksched") else logging.WARNING)
        logger.handlers = [handler]
        logger.propagate = False
