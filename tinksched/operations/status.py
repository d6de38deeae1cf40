"""`status` and `explain`: what is, and why what waits does. Reads only."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config import Settings
from ..core import instants
from ..core.estimate import Forecast
from ..core.model import CPU, GpuSlots, Reason, ReasonCode, Run, Task, TaskState, Tenant, spot
from ..core.relations import Fate, Relations
from ..core.sharing import AUTO
from ..core.usage import Usage
from ..errors import NothingToActOn, TinkschedError
from ..host import nvml
from ..host.completion import file_hash
from ..host.gpus import Device, known_again, lease_name
from ..host.leases import Held, Leases, default_folder, tenant_of
from ..host.statedir import read_home
from ..scheduler.devices import BRIEF_SECONDS, cpu_of, cpu_slots, fading_runs, gpus_if_any, is_on, names_of
from ..scheduler.needs import MOST_RUNS, Needs, usable
from ..store import STOPPED, DoneTask, Store
from . import estimates, selection
from .learned import learned
from .markers import is_marked
from .snapshot import GpuStatus, Status, TaskStatus
from .unseen import ended_unseen
from .workspace import Workspace

MOST = 200  # tasks that a person wants to see in a table
_RECENT = 64  # runs among which the last start of each GPU is looked for
_HOW = {
    "completed": "completed", "failed": "failed", "timed_out": "timed out", "lost": "was lost",
    "cancelled": "was cancelled",
}  # fmt: skip
_COMPLETED = 500  # runs that ended last, by which is estimated what others will take


@dataclass(frozen=True, slots=True)
class _Record:
    """What is on record, read at one instant, and the configs that are not."""

    queue: Sequence[Task] = ()  # all that is queued, if the reasons of some are asked for
    active: Sequence[Task] = ()
    shown: Sequence[Task | DoneTask] = ()  # those that were asked for
    runs: Mapping[int, Run] = field(default_factory=dict)  # of the active and the queued ones the newest, by task id
    stopped: str | None = None  # by whom the scheduler was
    usage: Mapping[str, Usage] = field(default_factory=dict)  # of these runs, by their ids
    peaks: Sequence[tuple[str, int]] = ()  # see `Store.peaks`
    paused: Reason | None = None
    recent: Sequence[Run] = ()  # those that were started last
    fates: Mapping[str, Fate] = field(default_factory=dict)  # of all tasks, if one comes after others
    counts: Mapping[str, int] = field(default_factory=dict)
    durations: Sequence[tuple[str, float]] = ()  # of the runs that completed last, where something is to be done
    new: Sequence[TaskStatus] = ()


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the tasks of a workspace run on, why those wait that are queued, and when things will probably happen."""

    scheduler_pid: int | None
    stopped: str | None  # who stopped the scheduler, if a user did
    paused: Reason | None
    gpus: Sequence[GpuStatus]
    gpu_note: str | None
    ended: Mapping[str, Run]  # by id: runs that have ended while no scheduler looked, as the next one will record them
    waiting: Mapping[int, Reason]  # by task id, as what is expected
    expected: Forecast


def status(workspace: Workspace, most: int | None = None, sample: nvml.Sample | None = None) -> Status:
    """The workspace now. Works while nothing runs, and before anything was ever queued.

    Where there are more than `most` tasks not all are listed, but those that are active, and a fifth of `most` each of
    those that come next, that are new, that completed last, and that ended otherwise. Who has a `sample` of the GPUs
    gives it, and the driver is not asked.
    """
    pid = _scheduler(workspace)
    store = workspace.store()
    if store is None:
        return _status(workspace, pid, _Record(new=_without_record(workspace.settings)), most, sample)
    with store, store.snapshot():
        record = _read(workspace.settings, store, most)
    return _status(workspace, pid, record, most, sample)


def outlook(workspace: Workspace, sample: nvml.Sample | None = None) -> Outlook:
    """The same without the tasks themselves, for who follows them by other means.

    Raises:
        TinkschedError: the state can't be read.
    """
    pid = _scheduler(workspace)
    store = workspace.store()
    if store is None:
        return _outlook(workspace, pid, _Record(), sample)
    with store, store.snapshot():
        queue, active = store.queue(), store.active_tasks()
        runs = store.last_runs(active)
        record = _Record(queue, active, runs=runs, **_circumstances(store, queue, runs))
    return _outlook(workspace, pid, record, sample)


def explain(workspace: Workspace, name: str, *, relative: bool = True) -> tuple[TaskStatus, list[str]]:
    """One task, and in sentences why it is where it is; reasons tell how long ago things were if `relative`.

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
    waiting = next((task for task in record.queue if task.name == name), None)
    taught = learned(Needs(workspace.settings, record.peaks), waiting) if waiting is not None else []
    return found, [*_sentences(found, now, now.at if relative else None), *taught]


def _read(settings: Settings, store: Store, most: int | None) -> _Record:
    counts = store.counts()
    new = _without_record(settings, store.known)
    share = _share(most, sum(counts.values()) + len(new))
    queue, active = store.queue(), store.active_tasks()
    listed: list[Task | DoneTask] = [*queue[:share], *active, *store.done(share)]
    listed.sort(key=lambda task: task.id)
    runs = store.last_runs([*active, *(task for task in queue[:share] if task.attempts)])
    return _Record(queue, active, listed, runs, counts=counts, new=new, **_circumstances(store, queue, runs))


def _read_one(store: Store, task: Task) -> _Record:
    queue = store.queue() if task.state is TaskState.QUEUED else []
    active = store.active_tasks()
    shown = [task] if task.state is not TaskState.DONE else store.done(name=task.name)
    runs = store.last_runs([*active, task])
    return _Record(queue, active, shown, runs, **_circumstances(store, queue, runs))


def _circumstances(store: Store, queue: Sequence[Task], runs: Mapping[int, Run]) -> dict[str, Any]:
    return {
        "stopped": store.fact(STOPPED),
        "paused": store.paused(),
        "recent": store.last_started(_RECENT),
        "fates": store.fates() if any(task.spec.after for task in queue) else {},
        "durations": store.durations(_COMPLETED) if queue or runs else [],
        "usage": store.usage_of([run.id for run in runs.values()]),
        "peaks": store.peaks(MOST_RUNS) if any(task.spec.min_free_memory == AUTO for task in queue) else [],
    }


def _share(most: int | None, total: int) -> int | None:
    """How many tasks of a kind are listed where there are more than `most`; None if all are."""
    return None if most is None or total <= most else most // 5


def _outlook(workspace: Workspace, pid: int | None, record: _Record, sample: nvml.Sample | None) -> Outlook:
    settings = workspace.settings
    active = [record.runs[task.id] for task in record.active]
    ended = ended_unseen(settings, active) if pid is None else {}
    living = [run for run in active if run.id not in ended]
    sample = sample or nvml.look(BRIEF_SECONDS)
    inventory = known_again(sample.inventory, names_of((*living, *record.recent)))
    resolved = gpus_if_any(settings, inventory)  # `status` never fails for what `start` will refuse
    held = _held([*map(lease_name, resolved.gpus), CPU])
    slots, gpus = _gpus(settings, resolved.gpus, living, record.recent, held, sample)
    waiting = _reasons(workspace, record, slots, held, living, pid, resolved.note)
    queue = record.queue if pid is not None and not (record.paused and record.queue) else None
    expected = estimates.of(settings, record.durations, queue, living, slots, time.time())
    return Outlook(pid, record.stopped, record.paused, gpus, resolved.note, ended, waiting, expected)


def _status(
    workspace: Workspace, pid: int | None, record: _Record, most: int | None, sample: nvml.Sample | None = None
) -> Status:
    settings, now = workspace.settings, _outlook(workspace, pid, record, sample)
    tasks = {
        task.id: _done(task)
        if isinstance(task, DoneTask)
        else _task(settings, task, record.runs.get(task.id), now, record.usage)
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
        gpus=tuple(now.gpus),
        gpu_note=now.gpu_note,
        tasks=(*tasks.values(), *record.new[: _share(most, counts.total())]),
        counts=counts,
        max_jobs_per_gpu=settings.max_jobs_per_gpu,
        log_dir=str(settings.log_dir),
        output_dir=str(settings.output_dir),
        batch_ends=now.expected.batch_ends,
        paused=record.paused,
    )


def _scheduler(workspace: Workspace) -> int | None:
    if not workspace.lock.is_held():
        return None
    holder = workspace.lock.holder()
    return holder.pid if holder else 0


def _gpus(
    settings: Settings, there: Sequence[Device], active: Sequence[Run], recent: Collection[Run], held: Sequence[Held],
    sample: nvml.Sample,
) -> tuple[list[GpuSlots], list[GpuStatus]]:  # fmt: skip
    slots, shown = [], []
    fading = fading_runs(recent, time.time())
    for gpu in there:
        device = lease_name(gpu)
        mine = tuple(run for run in active if is_on(run, gpu.index, device))
        others = _others(device, active, held)
        begun = [run.created_at for run in recent if gpu.index in run.gpus]
        last, state = max(begun, default=None), sample.state_of(device, gpu.index)
        slots.append(
            GpuSlots(gpu.index, device, settings.max_jobs_per_gpu, mine, others, last, state=state, fading=fading)
        )
        names = tuple(run.task for run in mine)
        shown.append(GpuStatus(gpu.index, device, gpu.name, settings.max_jobs_per_gpu, names, others, state))
    return slots, shown


def _others(device: str, active: Sequence[Run], held: Sequence[Held]) -> tuple[Tenant, ...]:
    there = (lease for lease in held if lease.device == device and all(lease.claim.run_id != run.id for run in active))
    return tuple(map(tenant_of, there))


def _held(devices: Sequence[str]) -> list[Held]:
    """The leases on these devices; none if nobody can say."""
    with contextlib.suppress(TinkschedError):
        return Leases().look(devices)
    return []


def _reasons(
    workspace: Workspace, record: _Record, slots: Sequence[GpuSlots], held: Sequence[Held], active: Sequence[Run],
    scheduler: int | None, note: str | None,
) -> Mapping[int, Reason]:  # fmt: skip
    # Without GPUs to look at, nobody knows why tasks wait that need some.
    queue = [task.on({gpu.index: gpu.device for gpu in slots}) for task in record.queue]
    queue = queue if slots else [task for task in queue if not task.spec.gpus]
    waiting: Mapping[int, Reason] = {}
    if queue:
        from ..scheduler.deciding import decide
        from ..scheduler.scene import Scene
        from ..scheduler.turns import Turns

        settings, home = workspace.settings, read_home(workspace.state)
        turns = Turns(default_folder(), home.workspace_id if home else "", settings.workspace)
        last_start = max((run.created_at for run in record.recent), default=0.0)
        running, relations = [run.task for run in active], Relations(record.fates)
        most = cpu_slots(settings)
        mine = tuple(run for run in active if not run.gpus)
        cpu = cpu_of(most, mine, _others(CPU, active, held)) if most else None
        needs = Needs(settings, record.peaks)
        needs.usable = usable(slots)
        scene = Scene(
            settings, queue, queue, slots, running, relations, held, last_start, time.time(), cpu, needs.of,
            paused=record.paused,
        )  # fmt: skip
        verdict = decide(scene, turns)
        waiting = {**verdict.decision.waiting, **verdict.hopeless}
    missing = Reason(ReasonCode.STARTS_NEXT if scheduler is not None else ReasonCode.NO_SCHEDULER)
    unseen = Reason(ReasonCode.NO_GPU_SEEN, {"why": note}) if scheduler is not None and note and not slots else missing
    return {task.id: waiting.get(task.id, unseen if task.spec.gpus else missing) for task in record.queue}


def _task(settings: Settings, task: Task, run: Run | None, now: Outlook, usage: Mapping[str, Usage]) -> TaskStatus:
    """A task that is queued or active, as it is now."""
    run = now.ended.get(run.id, run) if run is not None else None
    ran = run if task.state is TaskState.ACTIVE else None
    state, reason = task.state.value, now.waiting.get(task.id) or task.reason
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
        expected_start=now.expected.starts.get(task.id),
        expected_end=now.expected.ends.get(task.id),
        usage=usage.get(ran.id) if ran else None,
        number=task.id,
    )


def _done(task: DoneTask) -> TaskStatus:
    return TaskStatus(
        task.name, task.outcome.value, task.reason, task.config, _has_changed(task), task.gpus, task.wanted_gpus,
        task.priority, task.attempts, task.exit_code, task.queued_at, task.started_at, task.ended_at, task.session,
        task.log, task.pid, usage=task.usage, number=task.id,
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
            TaskStatus(config.name, state, reason, config.file, False, (), options.gpus, options.priority, 0,
                       None, None, None, None, None, None, None)
        )  # fmt: skip
    return shown


def _sentences(task: TaskStatus, now: Status, at: float | None) -> list[str]:
    lines = []
    if task.state == "new":
        lines.append("It was never queued: `tinksched start` queues it.")
    elif task.state == "queued":
        lines.append(f"It waits: {task.reason.said(at) if task.reason else 'nobody knows why'}.")
        if now.paused and task.reason != now.paused:
            lines.append(f"All is {now.paused.said(at)}.")
        if now.scheduler_pid is None:
            stopped = f" (stopped: {now.stopped})" if now.stopped else ""
            lines.append(f"No scheduler runs{stopped}: `tinksched start` starts one.")
        lines += [_on_gpu(gpu) for gpu in now.gpus if task.wanted_gpus]
        if task.expected_start is not None and task.expected_end is not None:
            start, end = (instants.both(it, now.at) for it in (task.expected_start, task.expected_end))
            lines.append(f"By what others took it will start at about {start} and end at about {end}.")
    elif task.active:
        lines.append(f"It is {task.state} on {'the ' * (not task.gpus)}{spot(task.gpus)}, attempt {task.attempt}.")
        if task.expected_end is not None:
            lines.append(f"By what others took it will end at about {instants.both(task.expected_end, now.at)}.")
    else:
        why = f": {task.reason.said(at)}" if task.reason else ""
        lines.append(f"It {_HOW[task.state]}{why}.")
        lines += [f"It ended {instants.ago(task.ended_at, at)}."] if at and task.ended_at else []
    if task.config_changed:
        lines.append("Its config was edited since its last run began.")
    return lines


def _on_gpu(gpu: GpuStatus) -> str:
    own = [f"{name} (this workspace)" for name in gpu.tasks]
    others = [f"{tenant.task} of {tenant.workspace} ({tenant.user})" for tenant in gpu.others]
    return f"GPU {gpu.index}: {', '.join(own + others) or 'free'}; {gpu.slots} slot{'s' * (gpu.slots > 1)}."
