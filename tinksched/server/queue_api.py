"""The GPU Job Queue HTTP API, under /api. Errors are `{"detail": "…"}`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Depends, Path, Query, Request, Security
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from . import auth, scan, shapes, streaming, views
from .auth import Caller
from .desk import Desk
from .limits import Limits
from .submission import Form, Refused, Wanted, check, read_form
from .tables import Job

_log = logging.getLogger("tinksched.server")
ERRORS: Mapping[int | str, dict[str, Any]] = {
    400: {"model": shapes.Error, "description": "what was sent can't be used; `detail` names the field"},
    401: {"model": shapes.Error, "description": "no token, or one that is not good"},
    403: {"model": shapes.Error, "description": "somebody else's"},
    404: {"model": shapes.Error, "description": "there is no such job"},
    429: {"model": shapes.Error, "description": "too often, or too many; `Retry-After` says when to come again"},
}
_FORM = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": shapes.SUBMISSION}},
    }
}
_TOKEN = HTTPBearer(auto_error=False, description="made with `tinksched token create`")  # read by `auth`
_JOB = Path(description="what `submit` answered", examples=["6f1c0f3e-7d0c-4a52-9a64-0f2d1f3b8f10"])
_USER = Query(None, description="must be the token's own user; an admin may name another one", examples=["alice"])


class QueueApi:
    """The endpoints. `routes` is what an app includes."""

    def __init__(self, desk: Desk, limits: Limits) -> None:
        self._desk = desk
        self._limits = limits
        self._scanner = scan.Scanner(desk.settings)
        self._reading = asyncio.Lock()  # one config at a time: parsers that compete would hold up everybody else
        self.routes = APIRouter(prefix="/api")
        job = (401, 403, 404, 429)
        self._add("POST", "/submit", self.submit, shapes.Submitted, "submit", 400, 401, 403, 429, openapi_extra=_FORM)
        self._add("GET", "/status/{job_id}", self.status, shapes.Status, "status", *job)
        self._add("GET", "/results/{job_id}", self.results, shapes.Results, "results", *job)
        self._add("GET", "/logs/{job_id}", self.logs, None, "results", *job, response_class=StreamingResponse)
        self._add("POST", "/cancel/{job_id}", self.cancel, shapes.Cancelled, "cancel", 400, *job)
        self._add("GET", "/jobs", self.jobs, list[shapes.Listed], "jobs", 400, 401, 403, 429)
        self._add("GET", "/nodes", self.nodes, list[shapes.Node], None)
        self._add("GET", "/dashboard", self.dashboard, shapes.Dashboard, "jobs", 401, 403, 429)

    def _add(
        self,
        method: str,
        path: str,
        endpoint: Callable[..., Any],
        model: Any,
        counter: str | None,
        *codes: int,
        **more: Any,
    ) -> None:
        """An endpoint. One with a counter is for callers with a token, who are looked at before anything they sent."""
        good = shapes.EVENTS if model is None else {"model": model}
        responses: dict[int | str, dict[str, Any]] = {200: good, **{code: ERRORS[code] for code in codes}}
        guards = [] if counter is None else [Depends(self._counted(counter)), Security(_TOKEN)]
        if counter not in (None, "submit"):  # a submission may have its token in its config
            guards.append(Depends(self._known))
        self.routes.add_api_route(path, endpoint, methods=[method], responses=responses, dependencies=guards, **more)

    # -- submitting

    async def submit(
        self,
        request: Request,
        wait: bool = Query(True, description="answer when the job has ended", examples=[False]),
        timeout: float | None = Query(
            None, ge=0, le=7 * 86_400, description="seconds; then the state so far is sent", examples=[600]
        ),
        user_id: str | None = _USER,
    ) -> JSONResponse:
        """Submit a job: a Python script and its config, as multipart form data."""
        async with _form_of(request) as sent:
            config, code = await _file(sent, "config_file"), await _file(sent, "code")
        header = request.headers.getlist("authorization")
        async with self._reading:
            form = await asyncio.to_thread(read_form, config, self._desk.settings, has_header=bool(header))
        caller, token = self._submitter(request, form)
        caller.whom(user_id)
        if not caller.may_see(form.user):
            raise Refused(403, auth.FOREIGN)
        wanted = check(form, code, self._desk.settings, token)
        job = await self._accept(request, wanted, form.redacted(token), caller, token)
        _log.info("Job %s submitted user_id=%s competition_id=%s", job.id, job.user, job.competition)
        note = {} if wanted.warning is None else {"warning": wanted.warning}
        if not wait:
            return JSONResponse(views.accepted(self._desk, job) | note)
        seconds = min(
            self._desk.settings.wait_timeout if timeout is None else timeout, self._desk.settings.wait_timeout
        )
        job = await self._desk.ended(job.id, seconds)
        results = await asyncio.to_thread(views.results, self._desk, job, views.reason_of(self._desk, job))
        return JSONResponse(results | views.place(self._desk, job) | note)

    async def _accept(self, request: Request, wanted: Wanted, config: str, caller: Caller, token: str) -> Job:
        verdict = await self._scanner.look(wanted, token)
        if verdict.reasons:
            await self._desk.remember_rejection(wanted, verdict.reasons)
            raise verdict.refusal()
        is_exempt = caller.is_admin and not self._desk.settings.limit_admins
        if not is_exempt:
            self._limits.hit("submit_user", _address(request), wanted.user)
            self._limits.hit("user", wanted.user)
        return await self._desk.submit(wanted, config, is_exempt=is_exempt, warnings=verdict.warnings)

    # -- looking

    async def status(self, request: Request, job_id: str = _JOB, user_id: str | None = _USER) -> JSONResponse:
        """What has become of a job so far."""
        return JSONResponse(views.status(self._desk, self._job(request, job_id, user_id)))

    async def results(self, request: Request, job_id: str = _JOB, user_id: str | None = _USER) -> JSONResponse:
        """What a job printed, once it has ended."""
        job = self._job(request, job_id, user_id)
        return JSONResponse(await asyncio.to_thread(views.results, self._desk, job, views.reason_of(self._desk, job)))

    async def logs(self, request: Request, job_id: str = _JOB, user_id: str | None = _USER) -> StreamingResponse:
        """What a job prints, as it prints it (server-sent events)."""
        job = self._job(request, job_id, user_id)
        events = streaming.follow(self._desk, job, request.headers.get("last-event-id"), self._may_go_on(request))
        return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def cancel(self, request: Request, job_id: str = _JOB, user_id: str | None = _USER) -> JSONResponse:
        """End a job, whether it waits or runs."""
        job = self._job(request, job_id, user_id)
        by = _caller(request).user
        await self._desk.cancel(job.id, by)
        _log.info("Job %s cancelled by user_id=%s", job.id, by)
        return JSONResponse({"message": "Job cancelled successfully", "status": "cancelled"})

    async def jobs(
        self,
        request: Request,
        user_id: str | None = _USER,
        status: str | None = Query(None, description="only those in this status", examples=["running"]),
        limit: int = Query(50, ge=1, le=1000, description="at most so many", examples=[50]),
    ) -> JSONResponse:
        """Your own jobs, or for an admin everybody's; the newest first."""
        whose = _caller(request).whom(user_id)
        if status is not None and status not in shapes.STATUSES:
            raise Refused(400, f"status: must be one of {', '.join(shapes.STATUSES)}")
        return JSONResponse([views.listed(self._desk, job) for job in self._desk.tables.jobs(whose, status, limit)])

    async def nodes(self) -> JSONResponse:
        """The GPUs, and how much work lies ahead of each. Anyone may ask."""
        return JSONResponse(views.nodes(self._desk))

    async def dashboard(self, request: Request, user_id: str | None = _USER) -> JSONResponse:
        """Everything at once: all of it for an admin, and for a user what is their own."""
        caller = _caller(request)
        whose = caller.whom(user_id)
        return JSONResponse(views.dashboard(self._desk, caller.user, whose, is_admin=caller.is_admin))

    # -- who asks

    def _counted(self, counter: str) -> Callable[[Request], Awaitable[None]]:
        async def count(request: Request) -> None:
            self._limits.hit(counter, _address(request))

        return count

    async def _known(self, request: Request) -> None:
        with _noted(request):
            token = auth.bearer(request.headers.getlist("authorization"))
            request.state.caller = auth.caller_of(self._desk.tables, token)

    def _may_go_on(self, request: Request) -> Callable[[], bool]:
        """What says whether the token of a request is still good, for an answer that takes long."""
        token = auth.bearer(request.headers.getlist("authorization"))

        def good() -> bool:
            try:
                return auth.caller_of(self._desk.tables, token) == _caller(request)
            except Refused:
                return False

        return good

    def _submitter(self, request: Request, form: Form) -> tuple[Caller, str]:
        """Who submits, and by which token: that of the header or of the config."""
        with _noted(request):
            token = form.token(auth.bearer(request.headers.getlist("authorization")))
            return auth.caller_of(self._desk.tables, token), token

    def _job(self, request: Request, job_id: str, user_id: str | None) -> Job:
        """The job that is meant, if it is the caller's business."""
        caller = _caller(request)
        caller.whom(user_id)
        job = self._desk.known(job_id)
        if not caller.may_see(job.user):
            raise Refused(403, "Job belongs to another user")
        return job


def _address(request: Request) -> str:
    return str(request.state.address)


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


@contextlib.contextmanager
def _noted(request: Request) -> Iterator[None]:
    """A login that is refused gets a line in the log."""
    try:
        yield
    except Refused:
        _log.info("refused login from %s", _address(request))
        raise


def _form_of(request: Request) -> Any:
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise Refused(400, "code, config_file: must be sent as multipart/form-data")
    return request.form(max_files=2, max_fields=8)


async def _file(sent: FormData, name: str) -> bytes:
    part = sent.get(name)
    if not isinstance(part, UploadFile):
        raise Refused(400, f"{name}: is missing; send it as a file")
    return await part.read()


def answer_of(error: Refused) -> JSONResponse:
    """The answer that a refusal is."""
    headers = {} if error.retry_after is None else {"Retry-After": str(math.ceil(max(1.0, error.retry_after)))}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"detail": error.detail}, error.status, headers)


def http_error(error: HTTPException) -> JSONResponse:
    """What the framework itself refuses."""
    detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail)
    return JSONResponse({"detail": detail}, error.status_code, dict(error.headers or {}))
