"""The endpoints of the page, the same for a server and for a workspace. Errors are `{"detail": "…"}`.

They are the page's own, may change with it, and so are not in the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ... import __version__
from ..submission import Refused
from . import files
from .feed import Check, Feed
from .views import Viewer

MOST = 200  # jobs of a scene, unless somebody asks for more
LARGEST = 100_000
_JOBS = Query(MOST, ge=0, le=LARGEST)


class Door(Protocol):
    """Who may come in, and what they may do."""

    asks: bool  # whether a credential is needed

    def viewer(self, request: Request) -> Viewer | None:
        """Who asks; None without a credential. Raises Refused (401): it is not good."""

    def check(self, request: Request, viewer: Viewer) -> Check:
        """What says why this request's credential is not good any more."""

    def count(self, request: Request) -> None:
        """Count a call. Raises Refused (429): there were too many."""

    def may(self) -> dict[str, bool]:
        """What may be done to jobs."""


class PageApi:
    """The endpoints. `routes` is what an app includes."""

    def __init__(self, feed: Feed, door: Door) -> None:
        self._feed = feed
        self._door = door
        self.routes = APIRouter(include_in_schema=False)
        for path in ("/dashboard", "/web_dashboard.html"):
            self._add(path, self.page)
        self._add("/dashboard/static/{name}", self.static)
        self._add("/dashboard/api/session", self.session)
        self._add("/dashboard/api/state", self.state)
        self._add("/dashboard/api/jobs", self.jobs)
        self._add("/dashboard/api/events", self.events)

    def _add(self, path: str, endpoint: Callable[..., object], method: str = "GET") -> None:
        self.routes.add_api_route(path, endpoint, methods=[method], response_model=None)

    # -- files

    async def page(self, request: Request) -> Response:
        """The page."""
        return self._file(request, files.INDEX)

    async def static(self, request: Request, name: str) -> Response:
        """What belongs to it."""
        return self._file(request, name)

    def _file(self, request: Request, name: str) -> Response:
        found = files.answer(request, name)
        if found is None:
            raise Refused(404, "Not Found")
        return found

    # -- looking

    async def session(self, request: Request) -> JSONResponse:
        """Where one is, and who one is. Needs no credential; one that is bad is refused."""
        self._door.count(request)
        viewer, source = self._door.viewer(request), self._feed.source
        answer = {
            "mode": source.mode,
            "title": source.title,
            "version": __version__,
            "auth": self._door.asks,
            "signed_in": viewer is not None,
            "user": viewer.user if viewer else None,
            "is_admin": viewer is not None and viewer.is_admin,
            "may": self._door.may(),
        }
        return JSONResponse(answer)

    async def state(self, request: Request, jobs: int = _JOBS) -> Response:
        """The scene, with so many jobs."""
        return _json(await self._feed.scene(self._viewer(request), jobs))

    async def jobs(
        self, request: Request, offset: int = Query(0, ge=0), limit: int = Query(MOST, ge=1, le=LARGEST)
    ) -> Response:
        """More jobs, in the same order."""
        return _json(await self._feed.jobs(self._viewer(request), offset, limit))

    async def events(self, request: Request, jobs: int = _JOBS) -> StreamingResponse:
        """The scene, and then what changes."""
        viewer = self._viewer(request)
        return stream(self._feed.follow(viewer, jobs, self._door.check(request, viewer)))

    def _viewer(self, request: Request) -> Viewer:
        self._door.count(request)
        viewer = self._door.viewer(request)
        if viewer is None:
            raise Refused(401, "Authorization header required")
        return viewer


def stream(events: AsyncIterator[str]) -> StreamingResponse:
    """Server-sent events."""
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")
