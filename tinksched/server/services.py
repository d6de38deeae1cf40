"""Service jobs: what the OpenTinker API and the dashboard ask of the engine. In the event loop, beside the desk.

A service job is a task in the same queue as all other jobs, and its run is a runner (`services_runner`) that takes a
port, starts the program and finds out when it answers. What the runner says lies in a file and is announced as every
other change is, so nothing is asked of the program here, and nothing is missed while no server works.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.model import Reason, ReasonCode
from ..errors import TinkschedError
from ..store.transaction import NewTask, Transaction
from . import services_setup, services_tables
from .desk import Desk
from .discretion import discreet
from .folders import CONFIG, PROGRESS, REQUEST, SECRETS
from .large import Text
from .services_request import Asked
from .services_tables import NewService, Service, ServiceTables
from .submission import REDACTED, Refused

_log = logging.getLogger("tinksched.server")
_BEGIN_SECONDS = 1.0  # that a submission waits to hear whether its job starts, or why not
_TAIL_LINES, _TAIL_BYTES = 10, 4096  # of stderr, in an error message


@dataclass(frozen=True, slots=True)
class Progress:
    """What the runner of a job has said last."""

    port: int | None = None
    ready_at: float | None = None
    failure: str | None = None  # why it gave up


class Services:
    """One for each server."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.settings = desk.settings
        self._finishing: dict[str, asyncio.Task[None]] = {}  # by job
        self._writing: set[asyncio.Task[None]] = set()
        self._said: dict[str, Progress] = {}  # by run: what is on record, or about to be
        self._reasons: tuple[tuple[int, int], dict[str, Reason]] = ((-1, 0), {})
        desk.followers.append(self._look)

    @property
    def tables(self) -> ServiceTables:
        """What is on record."""
        return ServiceTables(self.desk.tables)

    def open(self) -> None:
        """Remove the secrets of jobs that ended when no server could see to it."""
        for path in self.desk.folders.outputs.glob(f"*/{SECRETS}"):
            if self.desk.tables.end_of(path.parent.name) == (True, True):
                _unlink(path)

    def close(self) -> None:
        """Let go of everything."""
        for task in (*self._finishing.values(), *self._writing):
            task.cancel()

    # -- handing in

    async def submit(self, asked: Asked, *, is_exempt: bool) -> Service:
        """Accept a service job. When this returns it is on the disk, and either starts or waits for a reason.

        Raises:
            Refused: the user has enough of them, or the server takes none now.
            Unwritable: there is no room.
        """
        job_id, at = str(uuid.uuid4()), time.time()
        folders, most = self.desk.folders, self.settings.active_services

        def record(tx: Transaction) -> None:
            if not is_exempt and services_tables.active_services(tx.connection, asked.user) >= most:
                raise Refused(429, f"User already has {most} active service job{'s' * (most > 1)}", retry_after=30.0)
            spec = services_setup.spec(
                self.settings, job_id, folders.work(job_id), folders.output(job_id), asked.gpus,
                self.desk.engine.environment,
            )  # fmt: skip
            (task,) = tx.add_tasks([NewTask(job_id, "", spec, 0)])
            new = NewService(job_id, task.id, asked.user, asked.kind, asked.gpus, asked.request)
            services_tables.add_service(tx, new, at)

        told = {"kind": asked.kind, "values": dict(asked.values), "arguments": asked.arguments}
        private = {REQUEST: json.dumps(told), **({SECRETS: json.dumps(dict(asked.secrets))} if asked.secrets else {})}
        await self.desk.accept(job_id, record, {CONFIG: f"{json.dumps(asked.config, indent=2)}\n"}, private)
        _log.info("Job %s submitted user_id=%s kind=%s gpus=%s", job_id, asked.user, asked.kind, asked.gpus)
        return await self._begun(job_id)

    async def _begun(self, job_id: str) -> Service:
        """The job, once it starts or the scheduler knows why it waits."""
        deadline = time.monotonic() + _BEGIN_SECONDS
        while True:
            changed = self.desk.changed
            service = self.known(job_id)
            left = deadline - time.monotonic()
            if service.status != "QUEUED" or left <= 0 or self.desk.tables.stopped() is not None:
                return service
            reason = (await self.reasons()).get(job_id)
            if reason is not None and reason.code is not ReasonCode.STARTS_NEXT:
                return service
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(changed.wait(), left)

    # -- looking

    def known(self, job_id: str) -> Service:
        """A service job that is on record. Raises Refused (404)."""
        found = self.tables.service(job_id)
        if found is None:
            raise Refused(404, "Job not found")
        return found

    async def reasons(self) -> Mapping[str, Reason]:
        """Why each job of the queue waits, of both APIs. Asked again when anything has changed, or a second has passed.

        Nothing if nobody can say.
        """
        version = (self.desk.tables.version(), int(time.monotonic()))
        if version != self._reasons[0]:
            with contextlib.suppress(TinkschedError):
                self._reasons = (version, await asyncio.wrap_future(self.desk.engine.reasons()))
        return self._reasons[1] if version == self._reasons[0] else {}

    async def reasons_of(self, services: Sequence[Service]) -> dict[str, str]:
        """Why those of these jobs wait that do, as their owners may read it."""
        waiting = [service for service in services if service.status == "QUEUED"]
        if not waiting:
            return {}
        if self.desk.tables.stopped() is not None:
            return {service.id: "the administrator has stopped the start of jobs" for service in waiting}
        reasons = await self.reasons()
        return {one.id: discreet(reasons[one.id], self._own_of(one.user)) for one in waiting if one.id in reasons}

    def _own_of(self, user: str) -> Callable[[str], bool]:
        return lambda job_id: self.desk.tables.user_of(job_id) == user

    def url_of(self, service: Service) -> str | None:
        """Where a job answers; None unless it does."""
        if service.status != "RUNNING" or service.port is None:
            return None
        return services_setup.url_of(self.settings, service.port)

    def error_of(self, service: Service) -> str | None:
        """Why a job failed; None if it didn't."""
        if service.status != "FAILED":
            return None
        return service.error if service.error is not None else self._error(service)

    # -- taking back

    async def cancel(self, service: Service, by: str) -> bool:
        """End a job that nobody wants any more. False if it had ended before."""
        return await self._end(service, by, "cancelled", completed=False)

    async def complete(self, service: Service, by: str) -> bool:
        """End a job that has done its work. False if it had ended before."""
        return await self._end(service, by, "completed", completed=True)

    async def _end(self, service: Service, by: str, word: str, *, completed: bool) -> bool:
        closing = functools.partial(services_tables.set_closing, job_id=service.id) if completed else None
        if service.is_over or not await self.desk.take_back(service.id, by, closing):
            return False
        _log.info("Job %s %s by user_id=%s", service.id, word, by)
        return True

    # -- following

    def _look(self) -> None:
        """Put on record what the runners have said, and deal with what has ended."""
        for service in self.tables.starting():
            progress = self._progress(service)
            if self._is_news(service, progress) and progress != self._said.get(str(service.run)):
                self._said[str(service.run)] = progress
                task = asyncio.create_task(self._record(service, progress))
                self._writing.add(task)
                task.add_done_callback(self._writing.discard)
        for service in self.tables.uncollected():
            if service.id not in self._finishing:
                self._finishing[service.id] = asyncio.create_task(self._finish(service))

    async def _record(self, service: Service, progress: Progress) -> None:
        work = functools.partial(
            services_tables.set_progress, job_id=service.id, run=str(service.run), port=progress.port,
            ready_at=progress.ready_at,
        )  # fmt: skip
        try:
            await self.desk.write(work)
        except Exception as error:  # on a full disk, say: the next look tries it again
            _log.error("Job %s: its port can't be written down yet: %s", service.id, error)
            self._said.pop(str(service.run), None)
            return
        if progress.ready_at is not None:
            _log.info("Job %s ready user_id=%s port=%s", service.id, service.user, progress.port)

    async def _finish(self, service: Service) -> None:
        """Write down why it failed, forget its secrets, and answer those who wait for its end."""
        try:
            progress = self._progress(service)
            if self._is_news(service, progress):  # it was over before anybody had looked
                await self._record(service, progress)
            error = await asyncio.to_thread(self._error, service) if service.status == "FAILED" else None
            await self.desk.write(functools.partial(services_tables.set_ended, job_id=service.id, error=error))
            _unlink(self.desk.folders.output(service.id) / SECRETS)
            self._said.pop(str(service.run), None)
            _log.info("Job %s ended user_id=%s status=%s exit_code=%s",
                      service.id, service.user, service.status, service.exit_code)  # fmt: skip
        except Exception as error:  # of this job alone; the next look tries it again
            _log.error("Job %s ended; that can't be written down yet: %s", service.id, error)
        finally:
            del self._finishing[service.id]
        self.desk.settled(service.id)

    @staticmethod
    def _is_news(service: Service, progress: Progress) -> bool:
        return progress.port is not None and (progress.port, progress.ready_at) != (service.port, service.ready_at)

    def _progress(self, service: Service) -> Progress:
        """What the runner of its last run has said. Of an earlier run it means nothing."""
        found = _read(self.desk.folders.output(service.id) / PROGRESS)
        if service.run is None or found.get("run") != service.run:
            return Progress()
        return Progress(found.get("port"), found.get("ready_at"), found.get("failure"))

    def _error(self, service: Service) -> str:
        """Why a job failed, for a person, with the last lines that it printed as errors."""
        output = self.desk.folders.output(service.id)
        failure = self._progress(service).failure
        why = failure or (service.reason.text if service.reason else f"exit code {service.exit_code}")
        lines = "".join(Text(output / "stderr", _TAIL_BYTES).parts()).splitlines()
        said = [line for line in lines if not line.startswith("tinksched: ")][-_TAIL_LINES:]
        text = "\n".join([why, *said]).strip()
        for secret in _read(output / SECRETS).values():
            text = text.replace(str(secret), REDACTED)
        return text


def _read(path: Path) -> dict[str, Any]:
    """A map in a file; empty if it isn't there."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
