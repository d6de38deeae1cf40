"""The desk where jobs are handed in, looked at, waited for and taken back: what both HTTP APIs ask of the engine.

It lives in the event loop of the server. Reads are its own; everything that is written goes through the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from ..config import placeholders
from ..core.lifecycle import Dropped
from ..core.model import Outcome, Reason, ReasonCode, Request, TaskSpec, TaskState
from ..errors import Conflict, TinkschedError
from ..host import wake
from ..store.transaction import NewTask, Transaction
from . import tables
from .engine import Engine
from .folders import Folders
from .projection import Projection, Work, project
from .submission import Refused, Wanted
from .tables import Job, NewJob, Tables

_log = logging.getLogger("tinksched.server")
T = TypeVar("T")
_LOOK_SECONDS = 30.0  # a net: ends are announced
_LONGEST_NAME = 200  # of what is the user's in a file's name, which may have 255 characters


class Desk:
    """One for each server."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.settings = engine.settings
        self.tables = Tables(engine.database)
        self.folders = Folders(engine.folder)
        self.closing = False
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}  # by job
        self._projection: tuple[int, Projection] = (-1, Projection())
        self._news = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None
        self._listener = wake.listen(engine.state.path)

    async def open(self) -> None:
        """Begin to follow what happens to the jobs."""
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._heard)
        self.folders.prepare()
        self.settings.results_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folders.sweep(self.tables.job_ids())
        self._news.set()
        self._follower = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Answer those who wait with what is known now, and let go of everything."""
        self.closing = True
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()
        for futures in list(self._waiting.values()):
            for future in futures:
                _settle(future)
        if self._follower is not None:
            self._follower.cancel()
        self.tables.close()

    # -- handing in

    async def submit(self, wanted: Wanted, config: str, *, is_exempt: bool, warnings: Sequence[str] = ()) -> Job:
        """Accept a job. When this returns it is on the disk.

        Raises:
            Refused: the user has enough jobs, or the server takes none now.
            Unwritable: there is no room.
        """
        if self.closing:
            raise Refused(503, "The server is stopping", retry_after=10.0)
        job_id = str(uuid.uuid4())
        await asyncio.to_thread(self.folders.make, job_id, wanted.code, config)
        at = time.time()

        def accept(tx: Transaction) -> None:
            if not is_exempt and tables.active_jobs(tx.connection, wanted.user) >= self.settings.active_jobs:
                most = self.settings.active_jobs
                raise Refused(429, f"User already has {most} active job{'s' * (most > 1)}", retry_after=30.0)
            (task,) = tx.add_tasks([NewTask(job_id, "", self._spec(job_id, wanted), 0)])
            job = NewJob(job_id, task.id, wanted.user, wanted.competition, wanted.project, wanted.expected_time,
                         config, warnings)  # fmt: skip
            tables.add_job(tx, job, at)

        try:
            await self._write(accept)
        except BaseException:
            # A client that hangs up here may have a job on record: then its folders stay.
            if self.tables.job(job_id) is None:
                self.folders.remove(job_id)
            raise
        return self.known(job_id)

    async def remember_rejection(self, wanted: Wanted, findings: Sequence[str]) -> None:
        """Keep what the scan found in code that is refused; where there is no room for it, the answer still is."""
        digest = hashlib.sha256(wanted.code.encode()).hexdigest()
        made = tables.Rejection(wanted.user, time.time(), tuple(findings), digest)
        with contextlib.suppress(TinkschedError):
            await self._write(functools.partial(tables.add_rejection, rejection=made))
        _log.info("Submission rejected by the code scan user_id=%s sha256=%s", wanted.user, digest)

    def _spec(self, job_id: str, wanted: Wanted) -> TaskSpec:
        folder, output = self.folders.work(job_id), self.folders.output(job_id)
        command = self.engine.isolation.command(folder)
        limit = float(wanted.expected_time * self.settings.timeout_multiplier)
        return TaskSpec(
            command=tuple(map(placeholders.literal, command)),
            work_dir=str(folder),
            marker=str(output / "completed"),
            output_dir=str(folder),
            gpus=self.engine.gpus_per_job,
            exclusive=self.engine.gpus_per_job > 0,
            environment=(("HOME", str(folder)), ("JOB_ID", job_id)),
            environment_ref=self.engine.environment,
            time_limit=limit,
            retry_on=(),
            streams=str(output),
        )

    # -- looking

    def known(self, job_id: str) -> Job:
        """A job that is on record. Raises Refused (404)."""
        job = self.tables.job(job_id)
        if job is None:
            raise Refused(404, "Job not found")
        return job

    def projection(self) -> Projection:
        """Which node each waiting job will get. Made again when anything has changed, at most."""
        version = self.tables.version()
        if version != self._projection[0]:
            now = time.time()
            running = [
                Work(job.id, job.expected_time - (now - (job.started_at or now)), self.nodes_of(job))
                for job in self.tables.running()
            ]
            waiting = (Work(job_id, float(expected)) for job_id, expected in self.tables.queue())
            self._projection = (version, project(self.engine.nodes, running, waiting))
        return self._projection[1]

    def nodes_of(self, job: Job) -> tuple[int, ...]:
        """The nodes on which a job is or was. Without GPUs a node is a CPU slot, and they are all alike."""
        return job.gpus or ((0,) if job.started_at is not None else ())

    async def ended(self, job_id: str, seconds: float) -> Job:
        """The job when it has ended and its results are there, or as it is after so many seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, []).append(future)
        try:
            if self.tables.is_collected(job_id):
                return self.known(job_id)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(future, seconds)
            return self.known(job_id)
        finally:
            rest = self._waiting.get(job_id, [])
            rest.remove(future)
            if not rest:
                self._waiting.pop(job_id, None)

    # -- taking back

    async def cancel(self, job_id: str, by: str) -> Job:
        """End a job, whatever it does at this instant.

        Raises:
            Refused: it has ended already (400), or is not on record (404).
        """
        self.known(job_id)

        def take_back(tx: Transaction) -> None:
            task = tx.task(job_id)
            if task is None:
                raise Refused(404, "Job not found")
            if task.state is TaskState.DONE:
                raise Refused(400, "Job already completed")
            if task.state is TaskState.ACTIVE:
                tx.request(task, Request.CANCEL, by)
            else:
                tx.apply(task, Dropped(Outcome.CANCELLED, Reason(ReasonCode.CANCELLED_BY_USER, {"user": by})))

        try:
            await self._write(take_back)
        except Conflict:
            raise Refused(400, "Job already completed") from None
        job = self.known(job_id)
        return job if job.is_over else replace(job, status="cancelled")

    # -- following

    def _heard(self) -> None:
        self._listener.clear()
        self._news.set()

    async def _follow(self) -> None:
        """Deal with the ends of jobs as they are announced; now and then without."""
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), _LOOK_SECONDS)
            self._news.clear()
            try:
                await self._collect()
            except Exception as error:  # a full disk, say, or a defect: who waits shall not wait for ever
                self.engine.say(f"the ends of jobs can't be dealt with: {error!r}")

    async def _collect(self) -> None:
        """Write the results of the jobs that have ended, then answer those who wait for them."""
        for job in self.tables.uncollected():
            with contextlib.suppress(OSError):  # a disk that is full, say: the output itself is kept
                await self._write_results(job)
            await self._write(functools.partial(tables.set_collected, job_ids=[job.id]))
            for future in self._waiting.get(job.id, ()):
                _settle(future)

    def _write(self, work: Callable[[Transaction], T]) -> asyncio.Future[T]:
        return asyncio.wrap_future(self.engine.do(work))

    async def _write_results(self, job: Job) -> None:
        """Leave the results where the administrator expects them. The name is on record before the file is."""
        source = self.folders.result(job.id)
        if job.started_at is None or not _size(source):
            return
        path = job.results_file
        if path is None:
            for candidate in _names(self.settings.results_dir, job):
                name = str(candidate)
                if await self._write(functools.partial(tables.choose_results_file, job_id=job.id, path=name)):
                    path = str(candidate)
                    break
        await asyncio.to_thread(self.folders.keep, source, Path(str(path)))


def _names(folder: Path, job: Job) -> Iterator[Path]:
    """The documented name, with a suffix where it is taken."""
    at = datetime.fromtimestamp(job.ended_at or job.created_at, timezone.utc)
    base = f"{f'{job.user}_{job.competition}'[:_LONGEST_NAME]}_{at:%Y%m%d_%H%M%S}"
    number = 1
    while True:
        path = folder / (f"{base}.jsonl" if number == 1 else f"{base}_{number}.jsonl")
        if not path.exists():
            yield path
        number += 1


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
