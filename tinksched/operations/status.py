"""`status` and `explain`: what is, and why what waits does. Reads only."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..config import Settings
from ..core.model import GpuSlots, Outcome, Reason, ReasonCode, Run, RunState, Task, TaskState, Tenant
from ..core.relations import Fate, Relations
from ..errors import NothingToActOn, TinkschedError
from ..host import processes
from ..host.completion import conclude, file_hash, is_fresh, with_diagnosis
from ..host.gpus import lease_name
from ..host.leases import Held, Leases, default_folder, tenant_of
from ..host.processes import Process, boot_id, identify
from ..host.rundir import RunDir
from ..host.statedir import read_home
from ..scheduler.devices import resolve_gpus
from ..store import STOPPED, DoneTask, Store
from . import selection
from .markers import is_marked
from .workspace import Workspace

JSON_VERSION = 1
MOST = 200  # tasks that a person wants to see in a table
_RECENT = 64  # runs among which the last start of each GPU is looked for


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """A task as a user sees it. Times are seconds since the epoch."""

    name: str
    state: str  # new, queued, starting, running, or the outcome of a finished one
    reason: Reason | None
    config: str
    config_changed: bool
    gpus: tuple[int, ...]
    wanted_gpus: int
    priority: int
    attempt: int
    exit_code: int | None
    queued_at: float | None
    started_at: float | None
    ended_at: float | None
    session: str | None
    log: str | None
    pid: int | None
    attach: str = ""  # the command that shows its session
    number: int | None = None  # by which selectors name it; None if it is not on record

    @property
    def active(self) -> bool:
        """Whether it occupies a slot."""
        return self.state in ("starting", "running")


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """A GPU: its slots, and who is on them."""

    index: int
    device: str
    name: str | None
    slots: int
    tasks: tuple[str, ...]
    others: tuple[Tenant, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """A workspace at one instant."""

    workspace: str
    task_name: str
    at: float
    scheduler_pid: int | None
    stopped: str | None  # who stopped the scheduler, if a user did
    gpus: tuple[GpuStatus, ...]
    gpu_note: str | None
    tasks: tuple[TaskStatus, ...]  # all of them, or those that matter most
    counts: Mapping[str, int]  # of all tasks, by state
    max_jobs_per_gpu: int
    log_dir: str
    output_dir: str
    paused: Reason | None = None  # why nothing new starts, if a user wants it so

    @property
    def total(self) -> int:
        """How many tasks there are, listed or not."""
        return sum(self.counts.values())

    def json(self) -> dict[str, object]:
        """The versioned form for programs. Fields may be added; nothing is renamed or removed within a version."""
        return {
            "version": JSON_VERSION,
            "workspace": self.workspace,
            "task_name": self.task_name,
            "at": self.at,
            "scheduler": {
                "running": self.scheduler_pid is not None,
                "pid": self.scheduler_pid,
                "stopped": self.stopped,
                "paused": dict(self.paused.detail) if self.paused else None,
            },
            "gpus": [_gpu_json(gpu) for gpu in self.gpus],
            "gpu_note": self.gpu_note,
            "counts": dict(self.counts),
            "tasks": [_task_json(task) for task in self.tasks],
        }


@dataclass(frozen=True, slots=True)
class _Record:
    """What is on record, read at one instant, and the configs that are not."""

    queue: Sequence[Task] = ()  # all that is queued, if the reasons of some are asked for
    active: Sequence[Task] = ()
    shown: Sequence[Task | DoneTask] = ()  # those that were asked for
    runs: Mapping[int, Run] = field(default_factory=dict)  # of the active and the queued ones the newest, by task id
    stopped: str | None = None  # by whom the scheduler was
    paused: Reason | None = None
    recent: Sequence[Run] = ()  # those that were started last
    fates: Mapping[str, Fate] = field(default_factory=dict)  # of all tasks, if one comes after others
    counts: Mapping[str, int] = field(default_factory=dict)
    new: Sequence[TaskStatus] = ()


def status(workspace: Workspace, most: int | None = None) -> Status:
    """The workspace now. Works while nothing runs, and before anything was ever queued.

    Where there are more than `most` tasks not all are listed, but those that are active, and a fifth of `most` each of
    those that come next, that are new, that completed last, and that ended otherwise.
    """
    pid = _scheduler(workspace)
    store = workspace.store()
    if store is None:
        return _status(workspace, pid, _Record(new=_without_record(workspace.settings)), most)
    with store, store.snapshot():
        record = _read(workspace.settings, store, most)
    return _status(workspace, pid, record, most)


def explain(workspace: Workspace, name: str) -> tuple[TaskStatus, list[str]]:
    """One task, and in sentences why it is where it is.

    Raises:
        NothingToActOn: there is no such task.
    """
    pid = _scheduler(workspace)
    store = workspace.store()
    record, names = _Record(), []
    if store is not None:
        with store, store.snapshot():
            task = store.task(name)
            if task is not None:
                record = _read_one(store, task)
            else:
                record, names = _Record(new=_without_record(workspace.settings, store.known)), store.names()
    else:
        record = _Record(new=_without_record(workspace.settings))
    names += [task.name for task in record.new]
    now = _status(workspace, pid, record, None)
    found = next((task for task in now.tasks if task.name == name), None)
    if found is None:
        raise NothingToActOn(f"there is no task {name!r}", hint=selection.near(name, names))
    return found, _sentences(found, now)


def _read(settings: Settings, store: Store, most: int | None) -> _Record:
    counts = store.counts()
    new = _without_record(settings, store.known)
    share = _share(most, sum(counts.values()) + len(new))
    queue, active = store.queue(), store.active_tasks()
    listed: list[Task | DoneTask] = [*queue[:share], *active, *store.done(share)]
    listed.sort(key=lambda task: task.id)
    runs = store.last_runs([*active, *(task for task in queue[:share] if task.attempts)])
    return _Record(queue, active, listed, runs, counts=counts, new=new, **_circumstances(store, queue))


def _read_one(store: Store, task: Task) -> _Record:
    queue = store.queue() if task.state is TaskState.QUEUED else []
    active = store.active_tasks()
    shown = [task] if task.state is not TaskState.DONE else store.done(name=task.name)
    return _Record(queue, active, shown, store.last_runs([*active, task]), **_circumstances(store, queue))


def _circumstances(store: Store, queue: Sequence[Task]) -> dict[str, Any]:
    fates = store.fates() if any(task.spec.after for task in queue) else {}
    facts = {"stopped": store.fact(STOPPED), "paused": store.paused()}
    return {**facts, "recent": store.last_started(_RECENT), "fates": fates}


def _share(most: int | None, total: int) -> int | None:
    """How many tasks of a kind are listed where there are more than `most`; None if all are."""
    return None if most is None or total <= most else most // 5


def _status(workspace: Workspace, pid: int | None, record: _Record, most: int | None) -> Status:
    settings = workspace.settings
    active = [record.runs[task.id] for task in record.active]
    ended = _ended_unseen(settings, active) if pid is None else {}
    living = [run for run in active if run.id not in ended]
    slots, held, gpu_status, note = _gpus(settings, living, record.recent)
    waiting = _reasons(workspace, record, slots, held, [run.task for run in living], pid)
    tasks = {
        task.id: _done(task)
        if isinstance(task, DoneTask)
        else _task(settings, task, record.runs.get(task.id), waiting.get(task.id), ended)
        for task in record.shown
    }
    counts = Counter({state: count for state, count in record.counts.items() if state != TaskState.ACTIVE.value})
    counts.update(tasks[task.id].state for task in record.active if task.id in tasks)
    counts.update(task.state for task in record.new)
    return Status(
        workspace=str(settings.workspace),
        task_name=settings.task_name,
        at=time.time(),
        scheduler_pid=pid,
        stopped=record.stopped,
        gpus=tuple(gpu_status),
        gpu_note=note,
        tasks=(*tasks.values(), *record.new[: _share(most, counts.total())]),
        counts=counts,
        max_jobs_per_gpu=settings.max_jobs_per_gpu,
        log_dir=str(settings.log_dir),
        output_dir=str(settings.output_dir),
        paused=record.paused,
    )


def _scheduler(workspace: Workspace) -> int | None:
    if not workspace.lock.is_held():
        return None
    holder = workspace.lock.holder()
    return holder.pid if holder else 0


def _ended_unseen(settings: Settings, active: Sequence[Run]) -> dict[str, Run]:
    """While no scheduler looks: the runs that have ended by now, as the scheduler will record them."""
    ended: dict[str, Run] = {}
    living = processes.of_runs(run.id for run in active)
    for run in active:
        status = RunDir(run.directory).exit_status()
        if status is not None:
            outcome, reason = conclude(
                status.code,
                fresh_marker=is_fresh(run.marker, run.marker_before),
                require_marker=settings.require_marker,
                strict_exit=settings.strict_exit,
            )
            reason = with_diagnosis(run, outcome, reason, status.code)
            ended[run.id] = replace(
                run, outcome=outcome, reason=reason, exit_code=status.code, ended_at=max(status.at, run.created_at)
            )
        elif not living[run.id] and not _wrapper_lives(run) and run.state is not RunState.STARTING:
            rebooted = run.boot_id != boot_id()
            why = Reason(ReasonCode.MACHINE_RESTARTED if rebooted else ReasonCode.NO_EXIT_STATUS)
            ended[run.id] = replace(run, outcome=Outcome.LOST, reason=why)
    return ended


def _wrapper_lives(run: Run) -> bool:
    if run.boot_id != boot_id():
        return False
    known = Process(run.pid, run.pid_started).alive() if run.pid and run.pid_started is not None else False
    return known or identify(RunDir(run.directory).began() or -1) is not None


def _gpus(
    settings: Settings, active: Sequence[Run], recent: Collection[Run]
) -> tuple[list[GpuSlots], list[Held], list[GpuStatus], str | None]:
    try:
        resolved = resolve_gpus(settings)
    except TinkschedError as error:  # `status` never fails for what `start` will refuse
        return [], [], [], error.message
    held = _held([lease_name(gpu) for gpu in resolved.gpus])
    own = {run.id for run in active}
    slots, shown = [], []
    for gpu in resolved.gpus:
        device = lease_name(gpu)
        mine = tuple(run for run in active if device in run.devices)
        others = tuple(tenant_of(lease) for lease in held if lease.device == device and lease.claim.run_id not in own)
        begun = [run.created_at for run in recent if gpu.index in run.gpus]
        slots.append(GpuSlots(gpu.index, device, settings.max_jobs_per_gpu, mine, others, max(begun, default=None)))
        names = tuple(run.task for run in mine)
        shown.append(GpuStatus(gpu.index, device, gpu.name, settings.max_jobs_per_gpu, names, others))
    return slots, held, shown, resolved.note


def _held(devices: Sequence[str]) -> list[Held]:
    """The leases on these GPUs; none if nobody can say."""
    with contextlib.suppress(TinkschedError):
        return Leases().look(devices)
    return []


def _reasons(
    workspace: Workspace, record: _Record, slots: Sequence[GpuSlots], held: Sequence[Held], running: Sequence[str],
    scheduler: int | None,
) -> Mapping[int, Reason]:  # fmt: skip
    queue = record.queue
    waiting: Mapping[int, Reason] = {}
    if slots and queue:
        from ..scheduler.deciding import Scene, decide
        from ..scheduler.turns import Turns

        settings, home = workspace.settings, read_home(workspace.state)
        turns = Turns(default_folder(), home.workspace_id if home else "", settings.workspace)
        last_start = max((run.created_at for run in record.recent), default=0.0)
        verdict = decide(
            Scene(
                settings,
                queue,
                queue,
                slots,
                running,
                Relations(record.fates),
                held,
                last_start,
                time.time(),
                paused=record.paused,
            ),
            turns,
        )
        waiting = {**verdict.decision.waiting, **verdict.hopeless}
    missing = Reason(ReasonCode.STARTS_NEXT if scheduler is not None else ReasonCode.NO_SCHEDULER)
    return {task.id: waiting.get(task.id, missing) for task in queue}


def _task(
    settings: Settings, task: Task, run: Run | None, waits: Reason | None, ended: Mapping[str, Run]
) -> TaskStatus:
    """A task that is queued or active, as it is now."""
    run = ended.get(run.id, run) if run is not None else None
    ran = run if task.state is TaskState.ACTIVE else None
    state, reason = task.state.value, waits or task.reason
    if ran is not None:
        state, reason = ran.outcome.value if ran.outcome else ran.state.value, ran.reason
    return TaskStatus(
        name=task.name,
        state=state,
        reason=reason,
        config=task.config,
        config_changed=_has_changed(task),
        gpus=ran.gpus if ran else (),
        wanted_gpus=task.spec.gpus,
        priority=task.priority,
        attempt=task.attempts,
        exit_code=ran.exit_code if ran else None,
        queued_at=task.queued_at,
        started_at=ran.created_at if ran else None,
        ended_at=ran.ended_at if ran else None,
        session=ran.session or None if ran else None,
        log=run.log if run else None,
        pid=ran.pid if ran else None,
        attach=_attach(settings, ran) if ran and ran.session else "",
        number=task.id,
    )


def _done(task: DoneTask) -> TaskStatus:
    return TaskStatus(
        task.name, task.outcome.value, task.reason, task.config, _has_changed(task), task.gpus, task.wanted_gpus,
        task.priority, task.attempts, task.exit_code, task.queued_at, task.started_at, task.ended_at, task.session,
        task.log, task.pid, number=task.id,
    )  # fmt: skip


def _has_changed(task: Task | DoneTask) -> bool:
    """Whether the config was edited since its last run began."""
    return task.config_hash is not None and file_hash(task.config) not in (None, task.config_hash)


def _attach(settings: Settings, run: Run) -> str:
    from ..host.tmux import Tmux

    return shlex.join([*Tmux(settings.tmux_socket).arguments(), "attach", "-t", run.session])


def _without_record(settings: Settings, known: Callable[[list[str]], Container[str]] | None = None) -> list[TaskStatus]:
    """Configs that were never queued. One with a marker was finished by another program before."""
    try:
        configs = selection.available(settings, known)
    except TinkschedError:
        return []
    shown = []
    for config in configs:
        marker = is_marked(settings, config)
        options = settings.options_for(config.name)
        state = "completed" if marker else "new"
        reason = Reason(ReasonCode.MARKER_FROM_BEFORE) if marker else None
        shown.append(
            TaskStatus(config.name, state, reason, str(config.path), False, (), options.gpus, options.priority, 0,
                       None, None, None, None, None, None, None)
        )  # fmt: skip
    return shown


def _sentences(task: TaskStatus, now: Status) -> list[str]:
    lines = []
    if task.state == "new":
        lines.append("It was never queued: `tinksched start` queues it.")
    elif task.state == "queued":
        lines.append(f"It waits: {task.reason.text if task.reason else 'nobody knows why'}.")
        if now.paused and task.reason != now.paused:
            lines.append(f"All is {now.paused.text}.")
        if now.scheduler_pid is None:
            stopped = f" (stopped: {now.stopped})" if now.stopped else ""
            lines.append(f"No scheduler runs{stopped}: `tinksched start` starts one.")
        lines += [_on_gpu(gpu) for gpu in now.gpus]
    elif task.active:
        lines.append(f"It is {task.state} on GPU {', '.join(map(str, task.gpus))}, attempt {task.attempt}.")
    else:
        why = f": {task.reason.text}" if task.reason else ""
        lines.append(f"It is {task.state.replace('_', ' ')}{why}.")
    if task.config_changed:
        lines.append("Its config was edited since its last run began.")
    return lines


def _on_gpu(gpu: GpuStatus) -> str:
    own = [f"{name} (this workspace)" for name in gpu.tasks]
    others = [f"{tenant.task} of {tenant.workspace} ({tenant.user})" for tenant in gpu.others]
    return f"GPU {gpu.index}: {', '.join(own + others) or 'free'}; {gpu.slots} slot{'s' * (gpu.slots > 1)}."


def _gpu_json(gpu: GpuStatus) -> dict[str, object]:
    return {
        "index": gpu.index,
        "device": gpu.device,
        "name": gpu.name,
        "slots": gpu.slots,
        "tasks": list(gpu.tasks),
        "others": [
            {"user": tenant.user, "workspace": tenant.workspace, "task": tenant.task, "since": tenant.since}
            for tenant in gpu.others
        ],
    }


def diagnosis_json(reason: Reason | None) -> dict[str, str] | None:
    """What it was, for programs; None where that is not clear."""
    found = reason.diagnosis if reason else None
    return {"kind": found.kind.value, "text": found.text} if found else None


def _task_json(task: TaskStatus) -> dict[str, object]:
    reason = task.reason
    return {
        "name": task.name,
        "number": task.number,
        "state": task.state,
        "reason": {"code": reason.code.value, "text": reason.text, "detail": dict(reason.detail)} if reason else None,
        "diagnosis": diagnosis_json(reason),
        "config": task.config or None,
        "config_changed": task.config_changed,
        "gpus": list(task.gpus),
        "wanted_gpus": task.wanted_gpus,
        "priority": task.priority,
        "attempt": task.attempt,
        "exit_code": task.exit_code,
        "queued_at": task.queued_at,
        "started_at": task.started_at,
        "ended_at": task.ended_at,
        "session": task.session,
        "log": task.log,
        "pid": task.pid,
    }
