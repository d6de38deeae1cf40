"""What is on record and what is held: the runs of the workspace, their leases, and the one transaction of a tick.

Persist, act, record: `commit` writes down in one transaction what ended and what takes its place, before anything is
launched; `record_launch` writes down what came of it; `adopt` settles what a scheduler that died in between left open.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..config import Settings
from ..core.lifecycle import Began, Dropped, Ended, Finished, GaveBack, Launched, TaskEvent, after_run, apply_run
from ..core.model import (
    ALONE,
    CPU,
    Outcome,
    Placement,
    Reason,
    ReasonCode,
    Run,
    RunState,
    Task,
    TaskState,
    spot,
)
from ..core.sharing import Demand
from ..errors import Damaged, StoreError, TinkschedError
from ..executors.base import (
    Exited,
    Gone,
    Handle,
    NeverBegan,
    Observation,
    began_process,
    handle_of,
    wrapper_processes,
)
from ..host import environments
from ..host.leases import Desk, Held
from ..host.memory import oom_kills
from ..host.processes import boot_id
from ..host.rundir import RunDir
from ..host.statedir import Home, StateDir
from ..store import REPAIR, Store, Transaction, about
from . import clock
from .backlog import Backlog
from .deciding import decide
from .endings import Circumstances, Ending, ending_of, has_fresh_marker
from .journal import Journal
from .needs import MOST_RUNS, Needs, usable
from .news import Newsroom
from .sampling import Sampler
from .scene import Scene
from .slots import Slots
from .starting import RunMaker
from .turns import Turns

WHO = "scheduler"
DESK_SECONDS = 1.0  # until the leases are looked at again that could not be looked at
NEVER_BEGAN_LIMIT = 3  # launches in a row that never begin, until a task has failed
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # the machine's state, not the task's


class Ledger:
    """The runs that have not ended, as they are on record."""

    def __init__(self, settings: Settings, state: StateDir, home: Home, store: Store, journal: Journal) -> None:
        self._state = state
        self._home = home
        self._store = store
        self._journal = journal
        self.slots = Slots()
        self._needs = Needs(settings, store.peaks(MOST_RUNS))
        self._turns = Turns(self.slots.folder, home.workspace_id, settings.workspace)
        self._never_began: dict[int, int] = {}
        self._boot = boot_id()
        self._ended: collections.deque[str] = collections.deque(maxlen=256)  # the last ones, by run id
        self._undescribed: list[tuple[Task, Run]] = []
        self._moves: list[tuple[Task, TaskEvent, Ending | None]] = []  # of the transaction that is under way
        self.news = Newsroom(settings, os.uname().nodename, journal)
        self.sampler = Sampler(store, journal, self.news.stalled)
        self.backlog = Backlog(store, self._needs)
        self.runs: dict[str, Run] = {}
        self.wake_at: float | None = None  # when time alone may change what was decided
        self.dropped = False  # whether the last commit gave up tasks, on which others may depend
        self.use(settings, {})

    def use(self, settings: Settings, gpus: Mapping[int, str]) -> None:
        """Work with these settings and GPUs (index to device name, in order of preference) from now on."""
        self._settings = settings
        self.slots.use(settings, gpus)
        self._needs.use(settings)
        self.sampler.use()
        self.backlog.use(gpus, cpu=self.slots.cpu > 0)
        self._maker = RunMaker(settings, self._state, self._home)
        self.news.use(settings)

    def is_news(self, name: str) -> bool:
        """Whether something that happened to a file of the lease folder was done by others."""
        return name != self._turns.notice and name.rpartition(".")[2] not in self._ended

    def close(self) -> None:
        """Let go of the leases. Runs that go on hold theirs themselves."""
        self.news.close()
        self._turns.withdraw()
        self.slots.close()

    # -- observing

    def handle(self, run: Run) -> Handle:
        """The handle of a run. Pids of before a restart of the machine mean nothing now."""
        return handle_of(run) if run.boot_id == self._boot else Handle(run.id, run.directory)

    def now_of(self, run: Run) -> float:
        """Now, by the clock of a run: see `clock`."""
        return clock.now_of(run, self._boot)

    def circumstances(
        self, run: Run, seen: Observation, leftovers: tuple[str, ...] = (), *, ended_first: bool = False,
        stalled: bool = False,
    ) -> Circumstances:  # fmt: skip
        """What is on record about a run that is over, besides what was seen of it."""
        task = self.backlog.task(run.task_id)
        rebooted = run.boot_id != self._boot
        return Circumstances(
            request=task.request,
            requested_by=self._store.requested_by(task) if task.request else "",
            leftovers=leftovers,
            rebooted=rebooted,
            pre_run_failed=RunDir(run.directory).failed_before(),
            oom_kills=0 if rebooted or not _was_killed(seen) else self._oom_kills(run),
            ended_first=ended_first,
            stalled=stalled,
        )

    def _oom_kills(self, run: Run) -> int:
        before, now = run.record.oom_kills, oom_kills()
        return 0 if before is None or now is None else now - before

    # -- the transaction of a tick

    def commit(self, endings: Sequence[Ending], *, launching: bool, on_gpus: bool = True) -> list[Run]:
        """Write down what ended and what starts, in one transaction. Returns the runs to launch.

        Without `on_gpus` nothing is decided yet about tasks that need GPUs.

        Raises:
            TinkschedError: nothing was written, and nothing is held for what was to start.
        """
        for ending in endings:
            self.slots.let_go(ending.run)
            self._leave_marker(ending)
        self.dropped = False
        launching = launching and (bool(endings) or bool(self.backlog.queue) or bool(self._bare()))
        if not launching:
            self.wake_at = None
            self._turns.withdraw()
        if not on_gpus:
            self.wake_at = None
            launching = launching and self._on_cpu
        if not endings and not launching:
            return []
        new: list[Run] = []
        self._moves = []
        with contextlib.ExitStack() as stack:
            desk, held = self._desk(stack, endings) if launching else (None, [])
            try:
                with self._store.transaction(WHO, time.time()) as tx:
                    self.backlog.refresh()
                    self._record(tx, endings)
                    if desk is not None:
                        ended = {ending.run.id for ending in endings}
                        self._start_what_fits(tx, desk, held, ended, new, on_gpus=on_gpus)
            except BaseException:
                self.backlog.forget()  # and so it has news
                for run in new:
                    self._take_away(run)
                raise
        self.news.moved(self._moves)
        for ending in endings:
            self._forget(ending)
        for run in new:
            self.runs[run.id] = run
            self.slots.started(run)
        return new

    def _desk(self, stack: contextlib.ExitStack, endings: Sequence[Ending]) -> tuple[Desk | None, list[Held]]:
        """The admission locks of the GPUs, and who is there.

        Without them nothing starts now, but what has ended is recorded.
        """
        try:
            desk = stack.enter_context(self.slots.admission(cpu=self._on_cpu))
            self._restore_leases(desk, {ending.run.id for ending in endings})
            return desk, desk.occupants(self.runs)
        except TinkschedError as error:
            self.wake_at = time.time() + DESK_SECONDS
            self._journal.say(f"nothing can be started at present: {error}")
            return None, []

    def record_launches(self, launched: Sequence[tuple[Run, Handle]]) -> None:
        """Write down that runs were launched. Where that is lost they stay `starting`, which `adopt` settles as well:
        so nobody has to wait for the disk.
        """
        events = [(run, _launched(handle)) for run, handle in launched]
        try:
            with self._store.transaction(WHO, time.time(), synced=False) as tx:
                moved = [tx.apply_run(run, event) for run, event in events]
        except StoreError as error:
            moved = [apply_run(run, event, time.time()) for run, event in events]
            self._journal.say(f"{_names(moved)}: started, but that could not be recorded: {error}")
        self.runs.update({run.id: run for run in moved})
        self.news.started(moved)
        for run in moved:
            again = f", attempt {run.attempt}" if run.attempt > 1 else ""
            session = f", session {run.session}" if run.session else ""
            self._journal.say(f"{run.task}: started on {spot(run.gpus)}{session}{again}")

    def describe(self) -> None:
        """Keep beside each run that has begun since the last time what is on record about it."""
        for task, run in self._undescribed:
            with contextlib.suppress(OSError):
                RunDir(run.directory).describe(about(task, run))
        self._undescribed.clear()

    def _record(self, tx: Transaction, endings: Sequence[Ending]) -> None:
        for ending in endings:
            task = self.backlog.task(ending.run.task_id)
            if ending.outcome is None and task.request is not None:  # it came after the run was looked at
                reason = Reason(ReasonCode.CANCELLED_BY_USER, {"user": self._store.requested_by(task)})
                tx.remove_run(ending.run, reason.text)
                self._move(tx, task, Finished(Outcome.CANCELLED, reason))
            elif ending.outcome is None:
                tx.remove_run(ending.run, ending.reason.text if ending.reason else "")
                self._give_back(tx, task, ending)
            else:
                tx.apply_run(ending.run, Ended(ending.outcome, ending.reason, ending.exit_code, ending.at))
                tx.record_usage(self.sampler.usages([ending.run.id]))
                self._move(tx, task, self._after(task, ending.outcome, ending), ending)

    def _after(self, task: Task, outcome: Outcome, ending: Ending) -> TaskEvent:
        """What becomes of the task."""
        usage = self.sampler.usage_of(ending.run.id)
        peak = usage.gpu_memory_peak if usage else None
        had = ALONE if ending.run.exclusive else ending.run.record.memory or None
        return after_run(task, outcome, ending.reason, time.time(), exit_code=ending.exit_code, peak=peak, had=had)

    def _move(self, tx: Transaction, task: Task, event: TaskEvent, ending: Ending | None = None) -> Task:
        """Each change of a task goes to the database and to the backlog, which forgets it if it is not committed."""
        moved = tx.apply(task, event)
        self._moves.append((moved, event, ending))
        self.backlog.put(moved)
        return moved

    def _give_back(self, tx: Transaction, task: Task, ending: Ending) -> None:
        """Queue a task again whose run never began; give up on one that never begins, whatever is tried."""
        assert ending.reason is not None
        times = self._never_began.get(task.id, 0) + (not ending.passing)
        queued = self._move(tx, task, GaveBack(ending.reason))
        if times >= NEVER_BEGAN_LIMIT:
            why = f"{times} launches in a row never began ({ending.reason.detail.get('why', '')})"
            self._move(tx, queued, Dropped(Outcome.FAILED, Reason(ReasonCode.LAUNCH_FAILED, {"why": why})))

    # -- starting

    def _start_what_fits(
        self, tx: Transaction, desk: Desk, held: Sequence[Held], ended: set[str], new: list[Run], *, on_gpus: bool
    ) -> None:
        now = time.time()
        self._drop_cancelled(tx)
        backlog = self.backlog
        backlog.has_news = False
        queue, sorts = backlog.queue, backlog.sorts
        if not on_gpus:
            queue = [task for task in queue if not task.spec.gpus]
            sorts = {sort: count for sort, count in sorts.items() if not sort.kind.gpus}
        own = [run for run in self.runs.values() if run.id not in ended]
        scene = self._scene(queue, own, held, self._needs.demands(sorts), cpu=CPU in desk.devices)
        verdict = decide(scene, self._turns)
        decision = verdict.decision
        if on_gpus:
            self._turns.say(decision, scene, now if decision.placements else scene.last_start)
        self._give_up(tx, verdict.hopeless)
        missed = CPU not in desk.devices and self._on_cpu  # somebody has just queued the first task without GPUs
        self.wake_at = now if missed and self.slots.cpu else verdict.wake_at
        for placed in decision.placements:
            task = backlog.task(placed.task_id)
            run = self._intend(desk, task, placed, now)
            if isinstance(run, Reason):
                self._move(tx, task, Dropped(Outcome.FAILED, run))
                self._journal.say(f"{task.name}: {run.text}")
                continue
            new.append(run)
            self._undescribed.append((task, run))
            self._move(tx, task, Began(run.record.config_hash))
            tx.add_run(run)

    def _scene(
        self, queue: Sequence[Task], own: Sequence[Run], held: Sequence[Held], demands: Mapping[Demand, int] | None, *,
        cpu: bool,
    ) -> Scene:  # fmt: skip
        """What a decision about this queue is about. Without `demands` every task of it gets a reason."""
        backlog = self.backlog
        others = [lease for lease in held if lease.claim.run_id not in self.runs]
        slots = self.slots.of_gpus(own, others)
        self._needs.usable = usable(slots)
        return Scene(
            self._settings, queue, backlog.bound, slots, [run.task for run in own], backlog.relations, held,
            self.slots.last_start, time.time(), self.slots.of_cpu(own, others) if cpu else None,
            self._needs.of, demands, backlog.paused,
        )  # fmt: skip

    def reasons(self) -> dict[str, Reason]:
        """Why each task of the queue waits, by name. It is found out as when one is to start, and changes nothing.

        Raises:
            TinkschedError: nobody can say at present.
        """
        self.backlog.refresh()
        queue = self.backlog.queue
        if not queue:
            return {}
        scene = self._scene(queue, list(self.runs.values()), self.slots.look(cpu=self._on_cpu), None, cpu=self._on_cpu)
        verdict = decide(scene, Turns(self.slots.folder, self._home.workspace_id, self._settings.workspace))
        waiting = {**verdict.decision.waiting, **verdict.hopeless}
        return {task.name: waiting.get(task.id, Reason(ReasonCode.STARTS_NEXT)) for task in queue}

    def _drop_cancelled(self, tx: Transaction) -> None:
        """A task whose run never began may have been cancelled just then."""
        for task in [self.backlog.task(task_id) for task_id in self.backlog.requests]:
            if task.state is TaskState.QUEUED:
                user = self._store.requested_by(task)
                self._move(tx, task, Dropped(Outcome.CANCELLED, Reason(ReasonCode.CANCELLED_BY_USER, {"user": user})))

    def _give_up(self, tx: Transaction, hopeless: Mapping[int, Reason]) -> None:
        """Tasks that come after one that did not complete have failed without a run."""
        for task_id, reason in hopeless.items():
            task = self._move(tx, self.backlog.task(task_id), Dropped(Outcome.FAILED, reason))
            self._journal.say(f"{task.name}: failed: {reason.text}")
        self.dropped = bool(hopeless)

    @property
    def _on_cpu(self) -> bool:
        """Whether there are tasks that need no GPU."""
        return any(not run.gpus for run in self.runs.values()) or any(not sort.kind.gpus for sort in self.backlog.sorts)

    def _bare(self) -> list[Run]:
        return self.slots.bare(self.runs.values())

    def _restore_leases(self, desk: Desk, ended: set[str]) -> None:
        for run in self._bare():
            if run.id not in ended and self.slots.restore(desk, run, wrapper_processes(self.handle(run))):
                self._journal.say(f"{run.task}: somebody had deleted its lease in {self.slots.folder}; it was restored")

    def _intend(self, desk: Desk, task: Task, placed: Placement, now: float) -> Run | Reason:
        """Lease the slots and write the run's files. The caller commits, or takes everything away again."""
        run_id = self._maker.new_id()
        devices, lease = self.slots.take(desk, task, placed, run_id, now)
        run = self._maker.make(task, run_id, placed, devices, lease, now)
        try:
            base = environments.load(self._state.environments, task.spec.environment_ref)
            used = {other.record.port for other in self.runs.values()}
            run = self._maker.prepare(task, run, base, used)
        except (OSError, ValueError) as error:
            self._take_away(run)
            if isinstance(error, OSError) and error.errno in _PASSING:
                raise TinkschedError(f"{task.name} can't be started: {error}") from None
            return Reason(ReasonCode.LAUNCH_FAILED, {"why": f"its files can't be written or read: {error}"})
        return run

    def _leave_marker(self, ending: Ending) -> None:
        """A script that writes no marker gets one, so that tools that look for markers keep working."""
        run = ending.run
        if ending.outcome is not Outcome.COMPLETED or ending.exit_code != 0 or has_fresh_marker(run):
            return
        lines = {"task": run.task, "run": run.id, "exit_code": 0, "start": run.created_at, "end": ending.at}
        text = "".join(f"{name}: {value}\n" for name, value in lines.items())
        with contextlib.suppress(OSError), Path(run.marker).open("w") as marker:
            marker.write(text + "written by tinksched: the script wrote no marker\n")

    # -- letting go

    def _take_away(self, run: Run) -> None:
        """Undo an intent that was not committed."""
        self.slots.let_go(run)
        self._undescribed = [(task, other) for task, other in self._undescribed if other.id != run.id]
        RunDir(run.directory).remove()

    def _forget(self, ending: Ending) -> None:
        run = ending.run
        self._ended.append(run.id)
        self.runs.pop(run.id, None)
        usage = self.sampler.usage_of(run.id)
        if usage is not None and usage.gpu_memory_peak is not None and ending.outcome is Outcome.COMPLETED:
            self._needs.completed(run.task, usage.gpu_memory_peak)
        self.sampler.forget(run.id)
        if ending.outcome is None:
            self._never_began[run.task_id] = self._never_began.get(run.task_id, 0) + (not ending.passing)
        else:
            self._never_began.pop(run.task_id, None)

    def tell(self, endings: Sequence[Ending]) -> None:
        """Say in the journal what ended, and to others what happened."""
        for ending in endings:
            outcome = ending.outcome.value.replace("_", " ") if ending.outcome else "queued again"
            took = f" after {ending.at - ending.run.created_at:.1f} s" if ending.outcome else ""
            why = f": {ending.reason.text}" if ending.reason else ""
            self._journal.say(f"{ending.run.task}: {outcome}{took}{why}")
        # Who only does what was asked for has no GPUs, and knows nothing of what could still run.
        hopeless = self.backlog.impossible if self.slots.gpus else 0
        nothing_left = not self.runs and len(self.backlog.queue) <= hopeless
        self.news.tell(nothing_left=nothing_left)

    # -- start-up

    def adopt(self) -> None:
        """Take over the runs that are on record. Those that were only intended are settled for good here.

        Raises:
            TinkschedError: the store can't be written.
        """
        self._refuse_strangers()
        self._turns.begin()
        self.backlog.refresh()
        never: list[Ending] = []
        for run in self._store.active_runs():
            self.runs[run.id] = run
            if run.state is RunState.STARTING:
                ending = self._settle(run)
                if ending is not None:
                    never.append(ending)
                    continue
            self.slots.hold(run)
        self.sampler.adopt(self.runs)
        self.commit(never, launching=False)
        self.tell(never)
        self._never_began.clear()  # that was no fault of theirs
        if self.runs:
            self._journal.say(f"{len(self.runs)} run{'s' if len(self.runs) > 1 else ''} of before found again")

    def _refuse_strangers(self) -> None:
        """Runs that began, and that the database knows nothing of: it is older than they are, a copy, or has lost some.

        Raises:
            Damaged: there are some. Their tasks would be started a second time.
        """
        with contextlib.suppress(FileNotFoundError):
            strangers = self._store.unknown_runs(os.listdir(self._state.runs))
            folders = [RunDir(self._state.runs / name) for name in strangers]
            begun = [folder.path.name for folder in folders if folder.is_prepared and folder.began() is not None]
            if begun:
                raise Damaged(
                    f"{self._state.database}: the state database has lost runs ({', '.join(begun[:3])})", hint=REPAIR
                )

    def _settle(self, run: Run) -> Ending | None:
        """Whether a run that was being launched when its scheduler died has begun: None, or that it never will."""
        if RunDir(run.directory).take_back():
            never = NeverBegan("the scheduler ended before it was launched")
            return ending_of(run, never, self.circumstances(run, never), self._settings, time.time())
        event = _launched(Handle(run.id, run.directory, began_process(handle_of(run)), run.session))
        with self._store.transaction(WHO, time.time()) as tx:
            self.runs[run.id] = tx.apply_run(run, event)
        return None


def _launched(handle: Handle) -> Launched:
    wrapper = handle.wrapper
    return Launched(wrapper.pid if wrapper else None, wrapper.started if wrapper else None, handle.session)


def _was_killed(seen: Observation) -> bool:
    """Whether it may have been the kernel, for want of memory."""
    return isinstance(seen, Gone) or (isinstance(seen, Exited) and seen.code == 128 + signal.SIGKILL)


def _names(runs: Sequence[Run]) -> str:
    return ", ".join(run.task for run in runs)
