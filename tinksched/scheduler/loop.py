"""The loop: wake, observe, decide, persist, act.

Events wake it: the end of a process (pidfd), a command of the user (wake socket), a slot that somebody else on the
host gave back (inotify on the lease folder), a deadline of its own. `check_interval` is the safety net. Every tick
looks at everything, so an event that was missed or came twice changes nothing.

What a tick decides is committed before it is done: a run is on disk as `starting` before its session is created, and
at start-up `_adopt` settles for each such run whether it began. Ending one run and starting the next are one commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import Settings, load
from ..core import placement
from ..core.lifecycle import Began, Dropped, Ended, Finished, GaveBack, Launched
from ..core.model import GpuSlots, Outcome, Reason, ReasonCode, Request, Run, RunState, Task
from ..errors import StoreError, TinkschedError
from ..executors import registry
from ..executors.base import Exited, Handle, Observation, Refused, Running, Unreachable, began_process, handle_of
from ..host import environments, inotify, processes, wake
from ..host.completion import file_hash, marker_identity
from ..host.gpus import Device, lease_name
from ..host.leases import Claim, Desk, Lease, Leases
from ..host.processes import Process, boot_id
from ..host.rundir import RunDir
from ..host.statedir import Home, StateDir
from ..store import Store, Transaction
from .devices import resolve_gpus
from .endings import Circumstances, Ending, ending_of
from .journal import Journal
from .starting import RunMaker

STOPPED = "stopped"  # the fact that a user stopped the scheduler; `start` clears it
BLIND_SECONDS = 0.5  # how often to look at runs that the kernel can't report
TIDY_SECONDS = 1.0  # after an end, until tmux has surely passed on the last output
STUCK_SECONDS = 30.0  # until ending a run is tried again whose processes would not die
_NEVER_BEGAN_LIMIT = 3
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # the machine's state, not the task's


@dataclass(frozen=True, slots=True)
class Result:
    """How the scheduler ended: what is left and what became of the tasks."""

    stopped: bool
    counts: Mapping[str, int]
    impossible: int  # queued tasks that can't ever start on the GPUs that there are


class Scheduler:
    """The scheduler of one workspace. Only who holds the workspace's `SchedulerLock` may make one."""

    def __init__(
        self, settings: Settings, state: StateDir, home: Home, gpus: Sequence[Device], journal: Journal,
        *, launching: bool = True,
    ) -> None:  # fmt: skip
        """With `launching` off nothing is started: what was asked for (cancel, kill-all) is done, and that's all."""
        self._settings = settings
        self._read_as = marker_identity(settings.file)
        self._state = state
        self._home = home
        self._journal = journal
        self._launching = launching
        self._gpus = {gpu.index: lease_name(gpu) for gpu in gpus}
        self._store = Store(state.database)
        self._leases = Leases()
        self._executor = registry.make(
            settings.executor, self._wake_up, tmux_socket=settings.tmux_socket, workspace_id=home.workspace_id
        )
        self._maker = RunMaker(settings, state, home)
        self._workspace = str(settings.workspace)
        self._boot = boot_id()
        self._woken: asyncio.Event
        self._runs: dict[str, Run] = {}
        self._held: dict[str, Lease] = {}
        self._last_start: dict[int, float] = {}
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._stopped_well: set[str] = set()
        self._stuck: dict[str, float] = {}
        self._reaped: dict[str, tuple[str, ...]] = {}
        self._never_began: dict[int, int] = {}
        self._tidy_at: float | None = None
        self._interrupted = False
        self._terminated = False
        self._impossible = 0
        self._wake_at: float | None = None

    # -- the loop

    async def run(self) -> Result:
        """Work until all is done or somebody says stop."""
        self._woken = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(max_workers=64))
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            self._listen(stack, loop)
            self._adopt()
            self._tidy_at = time.time() + TIDY_SECONDS
            wake.announce(self._state.path, b"ready")
            while True:
                # Clear first, look afterwards: what arrives in between wakes the next tick.
                self._woken.clear()
                more = await self._tick()
                if self._is_over():
                    break
                if not more:
                    await self._sleep()
            return Result(self._stopped(), self._store.counts(), self._impossible)

    def _listen(self, stack: contextlib.ExitStack, loop: asyncio.AbstractEventLoop) -> None:
        receiver = wake.Receiver(self._state.path, wake.WAKE)
        stack.callback(receiver.close)

        def heard() -> None:
            receiver.clear()
            self._wake_up()

        loop.add_reader(receiver.fileno(), heard)
        stack.callback(loop.remove_reader, receiver.fileno())
        for number, handler in ((signal.SIGINT, self._interrupt), (signal.SIGTERM, self._terminate),
                                (signal.SIGHUP, self._terminate)):  # fmt: skip
            loop.add_signal_handler(number, handler)
            stack.callback(loop.remove_signal_handler, number)
        with contextlib.suppress(OSError):  # out of inotify instances: check_interval is the net
            self._watch_leases(stack, loop)

    def _watch_leases(self, stack: contextlib.ExitStack, loop: asyncio.AbstractEventLoop) -> None:
        watch = inotify.Watch()
        stack.callback(watch.close)
        watch.add(self._leases.folder, inotify.CLOSE_WRITE | inotify.DELETE)

        def freed() -> None:
            watch.clear()
            self._wake_up()

        loop.add_reader(watch.fileno(), freed)
        stack.callback(loop.remove_reader, watch.fileno())

    def _wake_up(self) -> None:
        self._woken.set()

    def _interrupt(self) -> None:
        self._interrupted = True
        self._wake_up()

    def _terminate(self) -> None:
        self._terminated = True
        self._wake_up()

    async def _sleep(self) -> None:
        now = time.time()
        deadlines = [now + self._settings.check_interval]
        deadlines += [at for at in (self._wake_at, self._tidy_at) if at is not None]
        if self._executor.blind:
            deadlines.append(now + BLIND_SECONDS)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._woken.wait(), max(0.0, min(deadlines) - now))

    def _stopped(self) -> bool:
        if self._interrupted:
            with self._store.transaction("Ctrl-C", time.time()) as tx:
                tx.set_fact(STOPPED, "Ctrl-C in the scheduler's session")
            self._interrupted = False
        return self._terminated or self._store.fact(STOPPED) is not None

    def _is_over(self) -> bool:
        if self._stopping:
            return False
        if not self._launching:
            asked = {task.id for task in self._store.active_tasks() if task.request}
            return all(run.id in self._stuck for run in self._runs.values() if run.task_id in asked)
        if self._stopped():
            return True
        # While something is still to be tidied up, new tasks are welcome.
        return not self._runs and self._tidy_at is None and len(self._store.queue()) <= self._impossible

    # -- one tick

    async def _tick(self) -> bool:
        """Observe, decide, persist, act. True if there is reason for another tick at once."""
        self._follow_settings()
        self._serve_requests()
        endings = await self._endings()
        new: list[tuple[Run, Task]] = []
        failed: list[Ending] = []
        try:
            new = self._commit(endings)
        except TinkschedError as error:
            self._journal.say(f"nothing was changed, and it is tried again later: {error}")
            return False
        launched = await self._executor.launch([run for run, _ in new])
        for run, task in new:
            answer = launched[run.id]
            if isinstance(answer, Refused):
                reason = Reason(ReasonCode.LAUNCH_FAILED, {"why": answer.why})
                failed.append(Ending(run, Outcome.FAILED, reason, None, time.time()))
            else:
                self._record_launch(run, task, answer)
        if failed:
            self._commit_endings_only(failed)
        if endings or new:
            wake.announce(self._state.path)
        if self._tidy_at is not None and time.time() >= self._tidy_at:
            await self._tidy()
        return bool(failed)

    def _follow_settings(self) -> None:
        """Use an edited configuration from the next launch on. Executor, names and log folder stay as they began."""
        identity = marker_identity(self._settings.file)
        if identity == self._read_as or not self._launching:
            return
        self._read_as = identity
        old = self._settings
        try:
            new = load(old.workspace, old.file)
            resolved = resolve_gpus(new)
        except TinkschedError as error:
            self._journal.say(f"the configuration was edited, but the old one stays in use: {error}")
            return
        self._settings = replace(
            new, executor=old.executor, tmux_socket=old.tmux_socket, log_dir=old.log_dir, task_name=old.task_name
        )
        self._gpus = {gpu.index: lease_name(gpu) for gpu in resolved.gpus}
        self._maker = RunMaker(self._settings, self._state, self._home)
        self._journal.say("the configuration was edited, and is used from now on")

    async def _endings(self) -> list[Ending]:
        handles = {self._handle(run): run for run in self._runs.values()}
        seen = await self._executor.observe(list(handles))
        endings = []
        for handle, observation in seen.items():
            run = handles[handle]
            if isinstance(observation, Running | Unreachable) or run.id in self._stopping:
                continue
            if self._outlived(run, observation):
                continue
            ending = ending_of(run, observation, self._circumstances(run), self._settings, time.time())
            if ending is not None:
                endings.append(ending)
        return endings

    def _handle(self, run: Run) -> Handle:
        """The handle of a run. Pids of before a restart of the machine mean nothing now."""
        return handle_of(run) if run.boot_id == self._boot else Handle(run.id, run.directory)

    def _circumstances(self, run: Run) -> Circumstances:
        task = self._store.task(run.task)
        request = task.request if task else None
        by = self._store.requested_by(task) if task and request else ""
        return Circumstances(request, by, self._reaped.get(run.id, ()), rebooted=run.boot_id != self._boot)

    def _outlived(self, run: Run, seen: Observation) -> bool:
        """Whether processes are left of a run whose command has ended. They get the grace, then they are killed."""
        if not isinstance(seen, Exited) or not seen.leftovers:
            return False
        self._journal.say(f"{run.task}: ended, and {_named(seen.leftovers)} are still there; they get "
                          f"{self._settings.stop_grace:g} s")  # fmt: skip
        self._stopping[run.id] = asyncio.create_task(self._reap(run, seen.leftovers))
        return True

    async def _reap(self, run: Run, leftovers: Sequence[Process]) -> None:
        names = [process.name for process in leftovers]
        gone = await asyncio.to_thread(processes.wait_for, leftovers, self._settings.stop_grace)
        if not gone:
            await asyncio.to_thread(processes.end, run.id, grace=1.0)
            self._reaped[run.id] = tuple(names)
        del self._stopping[run.id]
        self._wake_up()

    def _serve_requests(self) -> None:
        asked = {task.id: task.request for task in self._store.active_tasks() if task.request}
        for run in self._runs.values():
            settled = run.id in self._stopping or run.id in self._stopped_well
            if run.task_id in asked and not settled and self._stuck.get(run.id, 0.0) < time.time():
                what = "kill-all" if asked[run.task_id] is Request.KILL_ALL else "cancel"
                self._journal.say(f"{run.task}: {what}: its processes get TERM")
                self._stopping[run.id] = asyncio.create_task(self._stop(run))

    async def _stop(self, run: Run) -> None:
        dead = await self._executor.stop(self._handle(run), grace=self._settings.stop_grace)
        if dead:
            self._stopped_well.add(run.id)
        else:
            self._stuck[run.id] = time.time() + STUCK_SECONDS
            self._journal.say(f"{run.task}: some of its processes could not be killed; it keeps its slot")
        del self._stopping[run.id]
        self._wake_up()

    # -- persist

    def _commit(self, endings: Sequence[Ending]) -> list[tuple[Run, Task]]:
        """Everything that this tick decides, in one transaction: what ended, and what takes its place."""
        for ending in endings:
            self._let_go(ending.run)
        may_launch = self._launching and not self._stopped() and bool(self._store.queue() or endings)
        if not endings and not may_launch:
            self._wake_at = None
            return []
        new: list[tuple[Run, Task]] = []
        with contextlib.ExitStack() as stack:
            desk = stack.enter_context(self._leases.admission(self._gpus.values())) if may_launch else None
            try:
                with self._store.transaction("scheduler", time.time()) as tx:
                    self._record_endings(tx, endings)
                    if desk is not None:
                        self._start_what_fits(tx, desk, {ending.run.id for ending in endings}, new)
            except BaseException:
                for run, _ in new:
                    self._take_away(run)
                raise
        for ending in endings:
            self._forget_ended(ending)
        for run, _ in new:
            self._runs[run.id] = run
            self._last_start.update(dict.fromkeys(run.gpus, run.created_at))
        return new

    def _commit_endings_only(self, endings: Sequence[Ending]) -> None:
        for ending in endings:
            self._let_go(ending.run)
        with self._store.transaction("scheduler", time.time()) as tx:
            self._record_endings(tx, endings)
        for ending in endings:
            self._forget_ended(ending)

    def _record_endings(self, tx: Transaction, endings: Sequence[Ending]) -> None:
        for ending in endings:
            task = self._store.task(ending.run.task)
            assert task is not None, "a task is never deleted while it has a run"
            if ending.outcome is None:
                tx.remove_run(ending.run, ending.reason.text if ending.reason else "")
                self._give_back(tx, task, ending)
            else:
                tx.apply_run(ending.run, Ended(ending.outcome, ending.reason, ending.exit_code, ending.at))
                tx.apply(task, Finished(ending.outcome, ending.reason))

    def _give_back(self, tx: Transaction, task: Task, ending: Ending) -> None:
        """Queue a task again whose run never began; give up on one that never begins, whatever is tried."""
        assert ending.reason is not None
        times = self._never_began.get(task.id, 0) + 1
        self._never_began[task.id] = times
        queued = tx.apply(task, GaveBack(ending.reason))
        if times >= _NEVER_BEGAN_LIMIT:
            why = f"{times} launches in a row never began ({ending.reason.detail.get('why', '')})"
            tx.apply(queued, Dropped(Outcome.FAILED, Reason(ReasonCode.LAUNCH_FAILED, {"why": why})))

    def _start_what_fits(self, tx: Transaction, desk: Desk, ended: set[str], new: list[tuple[Run, Task]]) -> None:
        now = time.time()
        queue = self._store.queue()
        staying = [run for run in self._runs.values() if run.id not in ended]
        slots = self._slots(desk, staying)
        decision = placement.decide(
            queue, slots, now,
            policy=placement.Policy(self._settings.placement), startup_delay=self._settings.startup_delay,
        )  # fmt: skip
        self._wake_at = decision.wake_at
        self._impossible = sum(reason.code is ReasonCode.NO_SUCH_GPU for reason in decision.waiting.values())
        tasks = {task.id: task for task in queue}
        for placed in decision.placements:
            task = tasks[placed.task_id]
            run = self._intend(desk, task, placed.gpus, now)
            if isinstance(run, Reason):
                tx.apply(task, Dropped(Outcome.FAILED, run))
                self._journal.say(f"{task.name}: {run.text}")
                continue
            new.append((run, task))
            tx.apply(task, Began(file_hash(task.config)))
            tx.add_run(run)

    def _slots(self, desk: Desk, staying: Sequence[Run]) -> list[GpuSlots]:
        own_ids = [run.id for run in self._runs.values()]
        return [
            GpuSlots(
                index,
                device,
                self._settings.max_jobs_per_gpu,
                own=tuple(run for run in staying if device in run.devices),
                others=tuple(desk.tenants(device, own_ids)),
                last_start=self._last_start.get(index),
            )
            for index, device in self._gpus.items()
        ]

    def _intend(self, desk: Desk, task: Task, gpus: tuple[int, ...], now: float) -> Run | Reason:
        """Lease the slots and write the run's files. The caller commits, or takes everything away again."""
        run_id = self._maker.new_id()
        devices = {index: self._gpus[index] for index in gpus}
        limit = 1 if task.spec.exclusive else self._settings.max_jobs_per_gpu
        claim = Claim(run_id, task.name, self._workspace, limit, now)
        lease = desk.grant(list(devices.values()), claim)
        run = self._maker.make(task, run_id, devices, lease.path, now)
        self._held[run_id] = lease
        try:
            base = environments.load(self._state.environments, task.spec.environment_ref)
            self._maker.prepare(task, run, base)
        except (OSError, ValueError) as error:
            self._take_away(run)
            if isinstance(error, OSError) and error.errno in _PASSING:
                raise TinkschedError(f"{task.name} can't be started: {error}") from None
            return Reason(ReasonCode.LAUNCH_FAILED, {"why": f"its files can't be written or read: {error}"})
        return run

    def _record_launch(self, run: Run, task: Task, handle: Handle) -> None:
        wrapper = handle.wrapper
        event = Launched(wrapper.pid if wrapper else None, wrapper.started if wrapper else None, handle.session)
        try:
            with self._store.transaction("scheduler", time.time()) as tx:
                self._runs[run.id] = tx.apply_run(run, event)
        except StoreError as error:  # it stays `starting` on record, which `_adopt` can settle as well
            self._journal.say(f"{task.name}: started, but that could not be recorded: {error}")
        where = f"GPU {', '.join(map(str, run.gpus))}"
        again = f", attempt {run.attempt}" if run.attempt > 1 else ""
        session = f", session {handle.session}" if handle.session else ""
        self._journal.say(f"{task.name}: started on {where}{session}{again}")

    # -- what a run holds

    def _let_go(self, run: Run) -> None:
        """Give back the lease of a run that has ended. All its processes are gone, so nobody else holds it."""
        lease = self._held.pop(run.id, None)
        if lease is not None:
            lease.close()
        self._leases.release(Path(run.lease), run.devices, run.id)

    def _take_away(self, run: Run) -> None:
        """Undo an intent that was not committed."""
        self._let_go(run)
        RunDir(run.directory).remove()

    def _forget_ended(self, ending: Ending) -> None:
        run = ending.run
        self._runs.pop(run.id, None)
        self._reaped.pop(run.id, None)
        self._stuck.pop(run.id, None)
        self._stopped_well.discard(run.id)
        if ending.outcome is None:
            RunDir(run.directory).remove()
        else:
            self._never_began.pop(run.task_id, None)
        outcome = ending.outcome.value.replace("_", " ") if ending.outcome else "queued again"
        took = f" after {ending.at - run.created_at:.1f} s" if ending.outcome else ""
        self._journal.say(f"{run.task}: {outcome}{took}" + (f": {ending.reason.text}" if ending.reason else ""))
        self._tidy_at = self._tidy_at or time.time() + TIDY_SECONDS

    # -- start-up and housekeeping

    def _adopt(self) -> None:
        """Take over the runs that are on record. Those that were only intended are settled for good here."""
        now = time.time()
        adopted = 0
        for run in self._store.active_runs():
            self._runs[run.id] = run
            if run.state is RunState.STARTING and not self._settle(run, now):
                continue
            lease = self._leases.hold(Path(run.lease))
            if lease is not None:
                self._held[run.id] = lease
            self._last_start.update(dict.fromkeys(run.gpus, run.created_at))
            adopted += 1
        if adopted:
            self._journal.say(f"{adopted} run{'s' if adopted > 1 else ''} of before found again")

    def _settle(self, run: Run, now: float) -> bool:
        """Whether a run that was being launched when its scheduler died has begun."""
        if RunDir(run.directory).take_back():
            why = "the scheduler ended before it was launched"
            self._commit_endings_only([Ending(run, None, Reason(ReasonCode.NEVER_BEGAN, {"why": why}), None, now)])
            self._never_began.clear()
            return False
        wrapper = began_process(handle_of(run))
        event = Launched(wrapper.pid if wrapper else None, wrapper.started if wrapper else None, run.session)
        with self._store.transaction("scheduler", now) as tx:
            self._runs[run.id] = tx.apply_run(run, event)
        return True

    async def _tidy(self) -> None:
        """Close what is kept of ended runs beyond what the user wants to keep.

        Not before TIDY_SECONDS after an end: closing a session drops what tmux has not yet passed on to the log.
        """
        self._tidy_at = None
        with contextlib.suppress(TinkschedError, OSError):
            kept = self._store.recently_ended(self._settings.keep_sessions)
            if self._settings.cleanup_on_complete:
                kept = [run for run in kept if run.outcome is not Outcome.COMPLETED]
            keep = {run.id for run in kept} | set(self._runs)
            there = {entry.name: entry.path for entry in os.scandir(self._state.runs)}
            await self._executor.forget([Handle(name, path) for name, path in there.items() if name not in keep])

    def _close(self) -> None:
        self._executor.close()
        for lease in self._held.values():
            lease.close()
        self._store.close()


def _named(found: Sequence[Process]) -> str:
    return ", ".join(f"{process.name} ({process.pid})" for process in found[:5])
