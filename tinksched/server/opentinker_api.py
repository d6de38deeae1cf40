"""The API that clients of OpenTinker's scheduler speak, at the root path. Errors are `{"detail": "…"}`."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request, Security
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ValidationError

from . import auth, opentinker_shapes, services_request
from .auth import Caller
from .limits import Limits, is_loopback
from .opentinker_shapes import InferenceRequest, TrainingRequest
from .queue_api import ERRORS
from .services import Services
from .services_request import Asked
from .services_tables import Service
from .submission import Refused
from .views import iso

_log = logging.getLogger("tinksched.server")
ENDPOINTS = {
    "register": "POST /register?username=NAME",
    "submit_job": "POST /submit_job",
    "submit_inference_job": "POST /submit_inference_job",
    "job_status": "GET /job_status/{job_id}",
    "list_jobs": "GET /list_jobs",
    "cancel_job": "DELETE /cancel_job/{job_id}",
    "complete_job": "POST /complete_job/{job_id}",
    "admin_users": "GET /admin/users",
}
_KEY = HTTPBearer(auto_error=False, description="made by POST /register, or with `tinksched token create`")
_JOB = Path(description="what a submission answered", examples=["6f1c0f3e-7d0c-4a52-9a64-0f2d1f3b8f10"])
_FORWARDED = ("x-forwarded-for", "forwarded", "x-real-ip", "via")  # a proxy stands between, whoever its client is
_Model = TypeVar("_Model", bound=BaseModel)
_INVALID = {**ERRORS[400], "description": "what was sent can't be used; `detail` names the field"}


class OpenTinkerApi:
    """The endpoints. `routes` is what an app includes."""

    def __init__(self, services: Services, limits: Limits) -> None:
        self._services = services
        self._desk = services.desk
        self._settings = services.settings
        self._limits = limits
        self.routes = APIRouter(tags=["service jobs"])
        shapes, job = opentinker_shapes, (401, 403, 404, 429)
        submit = (400, 401, 403, 422, 429)
        self._add("POST", "/register", self.register, shapes.Registered, "submit", 400, 401, 403, 429, known=False)
        self._add("POST", "/submit_job", self.submit_job, shapes.TrainingAccepted, "submit", *submit,
                  openapi_extra=_body(TrainingRequest))  # fmt: skip
        self._add("POST", "/submit_inference_job", self.submit_inference_job, shapes.InferenceAccepted, "submit",
                  *submit, openapi_extra=_body(InferenceRequest))  # fmt: skip
        self._add("GET", "/job_status/{job_id}", self.job_status, shapes.ServiceStatus, "service", *job)
        self._add("GET", "/list_jobs", self.list_jobs, shapes.ServiceList, "service", 401, 403, 429)
        self._add("DELETE", "/cancel_job/{job_id}", self.cancel_job, shapes.Ended, "service", *job)
        self._add("POST", "/complete_job/{job_id}", self.complete_job, shapes.Ended, "service", *job)
        self._add("GET", "/admin/users", self.users, shapes.Users, "service", 401, 403, 429)

    def _add(
        self,
        method: str,
        path: str,
        endpoint: Callable[..., Any],
        model: Any,
        counter: str,
        *codes: int,
        known: bool = True,
        **more: Any,
    ) -> None:
        """An endpoint. The caller is looked at before anything they sent."""
        responses: dict[int | str, dict[str, Any]] = {200: {"model": model}}
        responses |= {code: _INVALID if code == 422 else ERRORS[code] for code in codes}
        guards = [Depends(self._counted(counter)), Security(_KEY)]
        if known:
            guards.append(Depends(self._known))
        self.routes.add_api_route(path, endpoint, methods=[method], responses=responses, dependencies=guards, **more)

    # -- users

    async def register(
        self,
        request: Request,
        username: str = Query(description="1 to 64 letters, digits, '.', '_' or '-'", examples=["alice"]),
    ) -> JSONResponse:
        """Get a key. Open to programs on the server's own machine; elsewhere to admins, unless it is open to all."""
        if not (self._settings.open_registration or is_local(request)) and not self._caller(request).is_admin:
            raise Refused(403, "Only an administrator may register users from elsewhere than the server's own machine")
        try:
            key = await self._desk.write(lambda tx: auth.register(tx, username))
        except ValueError as error:
            raise Refused(400, f"Invalid username: {error}") from None
        if key is None:
            raise Refused(400, "Username is taken")
        _log.info("User registered user_id=%s from %s", username, _address(request))
        message = "User registered successfully. Save the API key now: it is not shown again."
        return JSONResponse({"user_id": public_id(username), "username": username, "api_key": key, "message": message})

    async def users(self, request: Request) -> JSONResponse:
        """All users; for admins."""
        if not _caller(request).is_admin:
            raise Refused(403, "Only an administrator may see the users")
        found = [
            {"user_id": public_id(name), "username": name, "created_at": iso(at), "is_admin": is_admin}
            for name, at, is_admin in self._desk.tables.users()
        ]
        return JSONResponse({"users": found})

    # -- submitting

    async def submit_job(self, request: Request) -> JSONResponse:
        """Start a training server: a job that answers on a port of its own until it is completed."""
        service = await self._submit(request, TrainingRequest, services_request.training)
        return JSONResponse({**self._accepted(service), "server_url": self._services.url_of(service)})

    async def submit_inference_job(self, request: Request) -> JSONResponse:
        """Start an inference server (vLLM)."""
        service = await self._submit(request, InferenceRequest, services_request.inference)
        return JSONResponse({**self._accepted(service), "vllm_server_url": self._services.url_of(service)})

    async def _submit(self, request: Request, model: type[_Model], check: Callable[..., Asked]) -> Service:
        caller, token = _caller(request), auth.bearer(request.headers.getlist("authorization"))
        body = await request.body()
        wanted = await asyncio.to_thread(_read, body, model)
        asked = check(caller.user, wanted, self._settings, len(self._desk.engine.gpus), token)
        return await self._services.submit(asked, is_exempt=caller.is_admin and not self._settings.limit_admins)

    def _accepted(self, service: Service) -> dict[str, Any]:
        place = self._services.tables.place(service.id)
        if service.status == "QUEUED" and place is not None:
            message = f"Job queued (position {place})"
        else:
            message = "Job started" if not service.is_over else f"Job has ended: {service.status}"
        return {"job_id": service.id, "status": service.status, "message": message}

    # -- looking

    async def job_status(self, request: Request, job_id: str = _JOB) -> JSONResponse:
        """What has become of a service job so far."""
        service = self._job(request, job_id)
        return JSONResponse(self._view(service, await self._services.reasons_of([service])))

    async def list_jobs(self, request: Request) -> JSONResponse:
        """Your own service jobs, or for an admin everybody's, in the order of their submission."""
        caller = _caller(request)
        found = self._services.tables.services(None if caller.is_admin else caller.user)
        reasons = await self._services.reasons_of(found)
        return JSONResponse({"jobs": [self._view(service, reasons) for service in found]})

    def _view(self, service: Service, reasons: Mapping[str, str]) -> dict[str, Any]:
        return {
            "job_id": service.id,
            "status": service.status,
            "gpu_ids": list(service.gpus),
            "port": service.port,
            "server_url": self._services.url_of(service),
            "created_at": iso(service.created_at),
            "started_at": iso(service.started_at),
            "completed_at": iso(service.ended_at),
            "error_message": self._services.error_of(service),
            "reason": reasons.get(service.id),
        }

    # -- ending

    async def cancel_job(self, request: Request, job_id: str = _JOB) -> JSONResponse:
        """End a service job that is not wanted any more, whether it waits or runs."""
        service = self._job(request, job_id)
        return self._ended(job_id, "CANCELLED", await self._services.cancel(service, _caller(request).user))

    async def complete_job(self, request: Request, job_id: str = _JOB) -> JSONResponse:
        """End a service job that has done its work. Its GPUs and its port are free afterwards."""
        service = self._job(request, job_id)
        return self._ended(job_id, "COMPLETED", await self._services.complete(service, _caller(request).user))

    def _ended(self, job_id: str, status: str, was_ended: bool) -> JSONResponse:
        """`status` is what it will be if its processes still resist."""
        now = self._services.known(job_id)
        if was_ended and now.status in (status, "STARTING", "RUNNING"):
            return JSONResponse({"job_id": job_id, "status": status, "message": f"Job {status.lower()} successfully"})
        message = f"Job already in terminal state: {now.status}"
        return JSONResponse({"job_id": job_id, "status": now.status, "message": message})

    # -- who asks

    def _counted(self, counter: str) -> Callable[[Request], Awaitable[None]]:
        async def count(request: Request) -> None:
            self._limits.hit(counter, _address(request))

        return count

    async def _known(self, request: Request) -> None:
        request.state.caller = self._caller(request)

    def _caller(self, request: Request) -> Caller:
        """Who calls, by their key or token. Without `enable_auth` somebody without one is nobody, who may do all.

        Raises:
            Refused: 401.
        """
        headers = request.headers.getlist("authorization")
        if not self._settings.enable_auth and not headers and is_local(request):
            return Caller(auth.NOBODY, is_admin=True)
        try:
            return auth.caller_of(self._desk.tables, auth.bearer(headers))
        except Refused as error:
            _log.info("refused login from %s", _address(request))
            if error.detail == auth.INVALID:
                raise Refused(401, "Invalid API key") from None
            raise Refused(401, error.detail.partition(":")[0]) from None

    def _job(self, request: Request, job_id: str) -> Service:
        """The job that is meant, if it is the caller's business."""
        service = self._services.known(job_id)
        if not _caller(request).may_see(service.user):
            raise Refused(403, "Job belongs to another user")
        return service


def public_id(username: str) -> str:
    """What stands for a user in answers."""
    return f"user_{hashlib.sha256(username.encode()).hexdigest()[:12]}"


def _read(body: bytes, model: type[_Model]) -> _Model:
    """Raises Refused: it is no JSON (400), or not of this shape (422)."""
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "The request must be JSON") from None
    try:
        return model.model_validate(sent)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, one['loc'])) or 'request'}: {one['msg']}" for one in error.errors()]
        raise Refused(422, "; ".join(found)) from None


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """The request in the interactive reference."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


def is_local(request: Request) -> bool:
    """Whether a program of this machine calls, and no page of another host has made a browser do it.

    A proxy on this machine has the same address, but says that it is one; and a name in `Host` that is none of this
    machine's is that of a page whose name somebody has led here (DNS rebinding).
    """
    peer = request.client.host if request.client else ""
    host, origin = _host_of(request.headers.get("host", "")), request.headers.get("origin")
    if any(name in request.headers for name in _FORWARDED) or not is_loopback(peer):
        return False
    return (is_loopback(host) or _is_address(host)) and (origin is None or _host_of(origin.partition("//")[2]) == host)


def _host_of(text: str) -> str:
    """The host without a port."""
    return text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _address(request: Request) -> str:
    return str(request.state.address)


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller
