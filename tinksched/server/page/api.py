"""The endpoints of the page, the same for a server and for a workspace. Errors are `{"detail": "…"}`.

They are the page's own, may change with it, and so are not in the OpenAPI document.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ... import __version__
from ..growth import Growth
from ..submission import Refused
from . import detail, files
from .cards import Card
from .feed import Check, Feed
from .logs import Logs
from .views import User, Viewer, users_of
from .works import Works

MOST = 200  # jobs of a scene, unless somebody asks for more
LARGEST = 100_000
_JOBS = Query(MOST, ge=0, le=LARGEST)


class Door(Protocol):
    """Who may come in, and what they may do."""

    asks: bool  # whether it asks for a key
    has_users: bool  # whether there are several

    def viewer(self, request: Request) -> Viewer | None:
        """Who asks; None without a credential. Raises Refused (401): it is not good."""

    def check(self, request: Request, viewer: Viewer) -> Check:
        """What says why this request's credential is not good any more."""

    def count(self, request: Request) -> None:
        """Count a call. Raises Refused (429): there were too many."""

    def may(self) -> dict[str, bool]:
        """What may be done to jobs."""

    def known_users(self) -> Sequence[User]:
        """Who may come in, or might."""


class PageApi:
    """The endpoints. `routes` is what an app includes."""

    def __init__(self, feed: Feed, door: Door, works: Works, growth: Growth) -> None:
        self._feed = feed
        self._door = door
        self._works = works
        self._logs = Logs(feed, growth)
        self.routes = APIRouter(include_in_schema=False)
        for path in ("/dashboard", "/web_dashboard.html"):
            self._add(path, self.page)
        self._add("/dashboard/static/{name}", self.static)
        self._add("/dashboard/api/session", self.session)
        self._add("/dashboard/api/state", self.state)
        self._add("/dashboard/api/jobs", self.jobs)
        self._add("/dashboard/api/events", self.events)
        self._add("/dashboard/api/users", self.users)
        self._add("/dashboard/api/jobs/{job_id}", self.job)
        self._add("/dashboard/api/jobs/{job_id}/log", self.log)
        self._add("/dashboard/api/jobs/{job_id}/cancel", self.cancel, "POST")
        self._add("/dashboard/api/jobs/{job_id}/retry", self.retry, "POST")

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
            "is_admin": viewer is not None and viewer.is_admin and self._door.has_users,
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

    async def users(self, request: Request) -> JSONResponse:
        """Who there is, for an admin."""
        viewer = self._viewer(request)
        if not viewer.is_admin or not self._door.has_users:
            raise Refused(403, "Only an admin may see the users")
        picture = await self._feed.picture()
        return JSONResponse({"users": users_of(picture, self._door.known_users())})

    # -- one job

    async def job(self, request: Request, job_id: str) -> Response:
        """All about one."""
        viewer = self._viewer(request)
        facts = await self._feed.facts(await self._card(viewer, job_id))
        with_command = viewer.is_admin  # on a server it is the isolation's, and says nothing to a user
        return _json(await asyncio.to_thread(detail.answer, facts, with_command=with_command))

    async def log(self, request: Request, job_id: str) -> StreamingResponse:
        """What it prints."""
        viewer = self._viewer(request)
        card = await self._card(viewer, job_id)
        paths = (await self._feed.facts(card)).logs
        last_id = request.headers.get("last-event-id")
        return stream(self._logs.follow(card, paths, last_id, self._door.check(request, viewer)))

    async def cancel(self, request: Request, job_id: str) -> JSONResponse:
        """End it."""
        viewer = self._viewer(request)
        card = await self._card(viewer, job_id)
        return JSONResponse({"message": await self._works.cancel(viewer, card, address_of(request))})

    async def retry(self, request: Request, job_id: str) -> JSONResponse:
        """Queue it again."""
        viewer = self._viewer(request)
        card = await self._card(viewer, job_id)
        return JSONResponse({"message": await self._works.retry(viewer, card, address_of(request))})

    async def _card(self, viewer: Viewer, job_id: str) -> Card:
        card = await self._feed.card(job_id)
        if card is None:
            raise Refused(404, "Job not found")
        if not viewer.may_see(card):
            raise Refused(403, "Job belongs to another user")
        return card

    def _viewer(self, request: Request) -> Viewer:
        self._door.count(request)
        viewer = self._door.viewer(request)
        if viewer is None:
            raise Refused(401, "Authorization header required")
        return viewer


def address_of(request: Request) -> str:
    """Where a request comes from."""
    return str(getattr(request.state, "address", ""))


def stream(events: AsyncIterator[str]) -> StreamingResponse:
    """Server-sent events."""
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")
