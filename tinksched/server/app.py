"""The ASGI application: the endpoints, and what every one of them has in common."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from .. import __version__
from ..errors import StoreError, TinkschedError, Unwritable
from . import opentinker_api, shapes
from .desk import Desk
from .engine import Engine
from .guard import Guard
from .limits import Limits
from .opentinker_api import OpenTinkerApi
from .page.api import PageApi
from .page.door import ServerDoor
from .page.feed import Feed
from .page.served import ServerSource
from .page.works import ServerWorks
from .queue_api import QueueApi, answer_of, http_error
from .reference import add_reference
from .services import Services
from .submission import Refused

_log = logging.getLogger("tinksched.server")
_NO_DATABASE = "The server's database can't be used now"
_ENDPOINTS = {
    "submit": "POST /api/submit",
    "status": "GET /api/status/{job_id}",
    "results": "GET /api/results/{job_id}",
    "logs": "GET /api/logs/{job_id}",
    "cancel": "POST /api/cancel/{job_id}",
    "jobs": "GET /api/jobs",
    "nodes": "GET /api/nodes",
    "dashboard": "GET /api/dashboard",
    "health": "GET /health",
    "docs": "GET /docs",
    "page": "GET /dashboard",
}


def make_app(engine: Engine) -> FastAPI:
    """The application of a server whose engine runs."""
    desk = Desk(engine)
    services = Services(desk)
    limits = Limits(engine.settings)
    door = ServerDoor(desk, limits)
    feed = Feed(ServerSource(engine), door.allowed)
    desk.on_stop = feed.stop
    refused = {"model": shapes.Error, "description": "anything else that is wrong with a request"}
    failed = {"model": shapes.Error, "description": "the server can't do it now: stopping, or its disk is full"}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        services.open()
        await desk.open()
        await feed.open()
        yield
        await feed.close()
        services.close()
        await desk.close()

    app = FastAPI(
        title="tinksched", version=__version__, description="GPU jobs over HTTP.", lifespan=lifespan,
        responses={"4XX": refused, "5XX": failed}, redirect_slashes=False, docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.state.desk = desk
    app.add_middleware(Guard, settings=engine.settings)
    if engine.settings.allowed_origins:  # outside of the guard: who is refused there may read why
        app.add_middleware(
            CORSMiddleware, allow_origins=engine.settings.allowed_origins, allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Last-Event-ID"], expose_headers=["Retry-After"],
        )  # fmt: skip
    app.include_router(QueueApi(desk, limits).routes)
    app.include_router(OpenTinkerApi(services, limits).routes)
    app.include_router(PageApi(feed, door, ServerWorks(desk, services, limits), desk.growth).routes)
    _add_common(app, desk)
    add_reference(app)
    _add_errors(app)
    return app


def _add_common(app: FastAPI, desk: Desk) -> None:
    @app.get("/", tags=["server"], responses={200: {"model": shapes.Service}})
    async def service() -> JSONResponse:
        """What this is, and where to go on."""
        authentication = "enabled" if desk.settings.enable_auth else "disabled"
        answer = {"service": "tinksched", "version": __version__, "status": "running", "authentication": authentication}
        return JSONResponse({**answer, "endpoints": {**opentinker_api.ENDPOINTS, **_ENDPOINTS}})

    @app.get("/health", tags=["server"], responses={200: {"model": shapes.Health}, 503: {"model": shapes.Health}})
    async def health() -> JSONResponse:
        """Whether jobs can be run; 503 if not."""
        alive = desk.engine.is_alive()
        trouble = None if alive else str(desk.engine.trouble or "ended")
        database = "ok"
        try:
            desk.tables.version()
            trouble = trouble or desk.trouble
        except Exception as error:  # whatever SQLite says
            database = str(error)
        try:
            free: int | None = shutil.disk_usage(desk.engine.folder).free
        except OSError:
            free = None
        total = len(desk.engine.nodes)
        good = trouble is None and database == "ok"
        answer = {
            "status": "healthy" if good else "unhealthy",
            "database": database,
            "scheduler": trouble or "ok",
            "nodes": {"reachable": total if alive else 0, "total": total},
            "free_disk": free,
        }
        return JSONResponse(answer, 200 if good else 503)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return answer_of(error)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return http_error(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        found = [f"{item['loc'][-1]}: {item['msg']}" for item in error.errors()]  # what was sent is not repeated
        return JSONResponse({"detail": "; ".join(found)}, 400)

    @app.exception_handler(TinkschedError)
    async def known(request: Request, error: TinkschedError) -> JSONResponse:
        _log.error("%s %s: %s", request.method, getattr(request.scope.get("route"), "path", ""), error)
        if isinstance(error, Unwritable):
            return JSONResponse({"detail": "The server's disk is full"}, 507)
        detail = _NO_DATABASE if isinstance(error, StoreError) else "Try again later"
        return JSONResponse({"detail": detail}, 503, {"Retry-After": "10"})

    @app.exception_handler(sqlite3.Error)
    async def unreadable(request: Request, error: sqlite3.Error) -> JSONResponse:
        _log.error("%s %s: %s", request.method, getattr(request.scope.get("route"), "path", ""), error)
        return JSONResponse({"detail": _NO_DATABASE}, 503, {"Retry-After": "10"})

    @app.exception_handler(Exception)
    async def defect(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "A defect of the server; its log says more"}, 500)
