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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from . import housekeeping, tables
from .engine import Engine
from .folders import CODE, CONFIG, Folders
from .growth import Growth
from .projection import Projection, Work, project
from .submission import Refused, Wanted
from .tables import Job, NewJob, Tables

_log = logging.getLogger("tinksched.server")
T = TypeVar("T")
_LOOK_SECONDS = 30.0  # a net: ends are announced
_LONGEST_NAME = 200  # of what is the user's in a file's name, which may have 255 characters
_HOUSE_SECONDS = 3600.0  # how often what is too old is looked for
_COPIES = 2  # results that are written at once
_KILL_SECONDS = 5.0  # that it takes to end a job beyond the time that it is given


class Desk:
    """One for each server."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.settings = engine.settings
        self.tables = Tables(engine.database)
        self.folders = Folders(engine.folder)
        self.closing = False
        self.on_stop: Callable[[], object] = _nothing  # called in the loop when the server begins to stop
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}  # by job
        self._projection: tuple[tuple[int, int], Projection] = ((-1, 0), Projection())
        self.growth = Growth()  # of outputs
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started: set[str] = set()  # those of which it was said, and that have not ended
        self._finishing: dict[str, asyncio.Task[None]] = {}  # by job
        self._stuck: set[str] = set()  # those whose results can't be written at present
        self._copies = asyncio.Semaphore(_COPIES)
        self._news = asyncio.Event()
        self._changed = asyncio.Event()
        self.followers: list[Callable[[], object]] = []  # who else looks at the jobs when there is news
        self._accepting: set[asyncio.Task[None]] = set()
        self._revoked = asyncio.Event()
        self._trouble: str | None = None  # of the last look at the jobs
        self._tasks: list[asyncio.Task[None]] = []
        self._listener = wake.listen(engine.state.path)

    async def open(self) -> None:
        """Begin to follow what happens to the jobs."""
        loop = self._loop = asyncio.get_running_loop()
        loop.add_reader(self._listener.fileno(), self._heard)
        self.engine.on_renewed = lambda: loop.call_soon_threadsafe(self._renew)
        self.engine.on_ended = lambda: loop.call_soon_threadsafe(self._answer_all)
        self.growth.open()
        self.folders.prepare()
        self.folders.sweep(self.tables.job_ids())
        self._started = {job.id for job in (*self.tables.running(), *self.tables.uncollected())}
        self._news.set()
        self._tasks = [asyncio.create_task(self._follow())]
        if self.settings.keep_results is not None:
            self._tasks.append(asyncio.create_task(self._keep_house(self.settings.keep_results)))

    def stop_soon(self) -> None:
        """As `stop`, from a signal handler."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Accept no more jobs, and answer those who wait with what is known now."""
        self.closing = True
        self._answer_all()
        self.on_stop()

    def _answer_all(self) -> None:
        for futures in list(self._waiting.values()):
            for future in futures:
                _settle(future)

    async def close(self) -> None:
        """Let go of everything."""
        self.stop()
        self.engine.on_renewed = self.engine.on_ended = _nothing
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()
        self.growth.close()
        for task in (*self._tasks, *self._finishing.values()):
            task.cancel()
        self.tables.close()

    def _renew(self) -> None:
        """The state was deleted and put back: what is open here is the old one."""
        loop = asyncio.get_running_loop()
        tables = Tables(self.engine.database)
        tables.seen = self.tables.seen
        listener = wake.listen(self.engine.state.path)
        loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self.tables.close()
        self._listener, self.tables = listener, tables
        self._projection = ((-1, 0), Projection())
        loop.add_reader(self._listener.fileno(), self._heard)
        self._news.set()

    # -- handing in

    async def submit(self, wanted: Wanted, config: str, *, is_exempt: bool, warnings: Sequence[str] = ()) -> Job:
        """Accept a job. When this returns it is on the disk.

        Raises:
            Refused: the user has enough jobs, or the server takes none now.
            Unwritable: there is no room.
        """
        job_id, at = str(uuid.uuid4()), time.time()

        def record(tx: Transaction) -> None:
            if not is_exempt and tables.active_jobs(tx.connection, wanted.user) >= self.settings.active_jobs:
                most = self.settings.active_jobs
                raise Refused(429, f"User already has {most} active job{'s' * (most > 1)}", retry_after=30.0)
            (task,) = tx.add_tasks([NewTask(job_id, "", self._spec(job_id, wanted), 0)])
            job = NewJob(job_id, task.id, wanted.user, wanted.competition, wanted.project, wanted.expected_time,
                         config, warnings)  # fmt: skip
            tables.add_job(tx, job, at)

        await self.accept(job_id, record, {CODE: wanted.code, CONFIG: config})
        return self.known(job_id)

    async def accept(
        self,
        job_id: str,
        record: Callable[[Transaction], None],
        files: Mapping[str, str],
        private: Mapping[str, str] | None = None,
    ) -> None:
        """Put a job on the disk: its files first (see `Folders.make`), then the record that its task is queued by.

        Raises:
            Refused: the server takes none now, or what `record` raises.
            Unwritable: there is no room.
        """
        if self.closing:
            raise Refused(503, "The server is stopping", retry_after=10.0)
        self.folders.check_room(self.settings.min_free_disk)
        accepting = asyncio.create_task(self._accept(job_id, record, files, private))
        self._accepting.add(accepting)
        accepting.add_done_callback(self._accepting.discard)
        await asyncio.shield(accepting)  # who hangs up now has submitted: nothing is left half done

    async def _accept(
        self,
        job_id: str,
        record: Callable[[Transaction], None],
        files: Mapping[str, str],
        private: Mapping[str, str] | None,
    ) -> None:
        await asyncio.to_thread(self.folders.make, job_id, files, private)
        try:
            await self.write(record)
        except Exception:  # if the server ends here, the job may be on record: the next start sees to its folders
            self.folders.remove(job_id)
            raise
        self.folders.accepted(job_id)

    async def remember_rejection(self, wanted: Wanted, findings: Sequence[str]) -> None:
        """Keep what the scan found in code that is refused; where there is no room for it, the answer still is."""
        digest = hashlib.sha256(wanted.code.encode()).hexdigest()
        made = tables.Rejection(wanted.user, time.time(), tuple(findings), digest)
        with contextlib.suppress(TinkschedError):
            await self.write(functools.partial(tables.add_rejection, rejection=made))
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
        """Which node each waiting job will get. Made again when anything has changed, or a second has passed."""
        version = (self.tables.version(), int(time.monotonic()))
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
        await self.wait_for(job_id, seconds)
        return self.known(job_id)

    async def wait_for(self, job_id: str, seconds: float) -> None:
        """Wait until a job of either API has ended and its end was dealt with, at most so many seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, []).append(future)
        try:
            if not self._is_settled(job_id):
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(future, seconds)
        finally:
            rest = self._waiting.get(job_id, [])
            rest.remove(future)
            if not rest:
                self._waiting.pop(job_id, None)

    def _is_settled(self, job_id: str) -> bool:
        """Whether there is nothing to wait for."""
        is_over, is_collected = self.tables.end_of(job_id)
        over = is_over and (is_collected or job_id in self._stuck)
        return over or self.closing or not self.engine.is_alive()

    def settled(self, job_id: str) -> None:
        """Answer those who wait for a job."""
        for future in self._waiting.get(job_id, ()):
            _settle(future)

    @property
    def changed(self) -> asyncio.Event:
        """Is set when something has happened to any job. Ask for it before you look."""
        return self._changed

    # -- taking back

    async def cancel(self, job_id: str, by: str) -> Job:
        """End a job, whatever it does at this instant, and wait until it has ended.

        Raises:
            Refused: it has ended by itself (400), or is not on record (404).
        """
        self.known(job_id)
        if not await self.take_back(job_id, by):
            raise Refused(400, "Job already completed")
        job = self.known(job_id)
        if job.is_over and job.status != "cancelled":  # it was faster
            raise Refused(400, "Job already completed")
        return job if job.is_over else replace(job, status="cancelled")

    async def take_back(self, job_id: str, by: str, also: Callable[[Transaction], None] | None = None) -> bool:
        """End a job of either API, and wait until it has ended. False if it had ended before.

        `also` is written with it.

        Raises:
            Refused: it is not on record (404).
        """

        def take_back(tx: Transaction) -> bool:
            task = tx.task(job_id)
            if task is None:
                raise Refused(404, "Job not found")
            if task.state is TaskState.DONE:
                return False
            if also is not None:
                also(tx)
            if task.state is TaskState.ACTIVE:
                tx.request(task, Request.CANCEL, by)
            else:
                tx.apply(task, Dropped(Outcome.CANCELLED, Reason(ReasonCode.CANCELLED_BY_USER, {"user": by})))
            return True

        try:
            if not await self.write(take_back):
                return False
        except Conflict:
            return False
        await self.wait_for(job_id, self.settings.stop_grace + _KILL_SECONDS)
        return True

    # -- following

    def _heard(self) -> None:
        messages = self._listener.clear()
        self._news.set()
        if wake.TOKENS in messages:
            self._revoked.set()
            self._revoked = asyncio.Event()

    @property
    def revoked(self) -> asyncio.Event:
        """Is set when tokens have ended before their time. Ask for it before you look at yours."""
        return self._revoked

    async def _follow(self) -> None:
        """Deal with the ends of jobs as they are announced; now and then without."""
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), _LOOK_SECONDS)
            self._news.clear()
            self._changed.set()  # who waits for news has looked before, and looks again
            self._changed = asyncio.Event()
            try:
                self._collect()
                for look in self.followers:
                    look()
                self._trouble = None
            except Exception as error:  # whatever it is, who waits shall not wait for ever: it is tried again
                if self._trouble != str(error):
                    _log.error("The jobs can't be looked at: %s", error)
                self._trouble = str(error)

    @property
    def trouble(self) -> str | None:
        """Why the ends of jobs are not dealt with at present; None if they are."""
        if self._tasks and self._tasks[0].done():
            return "the jobs are not followed any more"
        return (self._trouble and f"the jobs can't be looked at: {self._trouble}") or self.pause

    @property
    def pause(self) -> str | None:
        """Why no job is started though the engine works, and what to do about it; None if they are."""
        by = self.tables.stopped()
        return by and f"stopped {by}; tinksched --workspace {self.engine.folder} start goes on"

    async def _keep_house(self, keep: float) -> None:
        """Delete what is older than it may become."""
        while True:
            before = time.time() - keep
            try:
                count = await asyncio.to_thread(housekeeping.expire, self.folders, self.engine.database, before)
                if count:
                    _log.info("Results of %s jobs deleted: they were older than keep_results", count)
            except TinkschedError as error:
                _log.error("Old results can't be deleted: %s", error)
            await asyncio.sleep(_HOUSE_SECONDS)

    def _say_started(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if job.id not in self._started and job.started_at is not None:
                self._started.add(job.id)
                node = next(iter(self.nodes_of(job)), None)
                _log.info("Job %s started user_id=%s node_id=%s", job.id, job.user, node)

    def _collect(self) -> None:
        """Say what has started, and deal with what has ended: side by side, for some results are large."""
        self._say_started(self.tables.running())
        ended = self.tables.uncollected()
        self._say_started(ended)  # some are fast
        for job in ended:
            if job.id not in self._finishing:
                self._finishing[job.id] = asyncio.create_task(self._finish(job))

    async def _finish(self, job: Job) -> None:
        """Write its results, then answer those who wait for it. Where they can't be written it is tried again, and
        nobody waits for that."""
        try:
            async with self._copies:
                await self._write_results(job)
            await self.write(functools.partial(tables.set_collected, job_ids=[job.id]))
            self._stuck.discard(job.id)
            self._started.discard(job.id)
            _log.info("Job %s ended user_id=%s status=%s exit_code=%s", job.id, job.user, job.status, job.exit_code)
        except Exception as error:  # of this job alone: the others are followed as before
            if job.id not in self._stuck:
                _log.error("Job %s ended; its results can't be written yet: %s", job.id, error)
            self._stuck.add(job.id)
        finally:
            del self._finishing[job.id]
        self.settled(job.id)

    def write(self, work: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """Through the engine: see `Engine.do`."""
        return asyncio.wrap_future(self.engine.do(work))

    async def _write_results(self, job: Job) -> None:
        """Leave the results where the administrator expects them. The name is on record before the file is."""
        source, most = self.folders.result(job.id), self.settings.max_results_size
        size = _size(source)
        if job.started_at is None or not size:
            return
        if size > most:
            _log.error("Job %s: its results stay in %s: %s bytes, and max_results_size is %s",
                       job.id, source, size, most)  # fmt: skip
            return
        path = job.results_file
        if path is None:
            for candidate in _names(self.settings.results_dir, job):
                name = str(candidate)
                if await self.write(functools.partial(tables.choose_results_file, job_id=job.id, path=name)):
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


def _nothing() -> None:
    """Nobody is there to be told."""


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
