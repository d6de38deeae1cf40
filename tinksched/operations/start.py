"""`start`: check everything, queue what is new, and make sure that one scheduler works on it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import Settings, TaskOptions
from ..config.served import is_served
from ..core import placement
from ..core.explanation import size
from ..core.lifecycle import Requeued
from ..core.model import RETRIED, GpuSlots, Outcome, ReasonCode, Task, TaskSpec, TaskState
from ..core.relations import find_cycle, matches
from ..errors import UsageError
from ..host import environments, gpus
from ..host.completion import file_hash
from ..host.gpus import lease_name
from ..host.rundir import write_private
from ..scheduler.devices import cpu_of, cpu_slots
from ..scheduler.starting import run_session
from ..store import STOPPED, NewTask, Past
from . import preflight, programs, selection, strays
from .markers import is_marked, marker_path, old_marker
from .programs import Commit, Programs
from .selection import TaskConfig
from .workspace import LAST_GOOD, OpenWorkspace, Workspace, actor

DEFAULT_COMMAND = ("{python}", "{script}", "--config_path", "{config}")
_NOTHING: Mapping[str, Task] = {}
_RUN_AGAIN = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.LOST)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked `start` for."""

    configs: str | None = None  # the comma-separated list; None for all
    gpus: str | None = None
    rerun: bool = False  # completed ones too
    failed: bool = False  # those that failed, timed out or were lost, too
    changed: bool = False  # completed ones whose config has changed since, too


@dataclass(slots=True)
class Sorted:
    """The chosen configs by what `start` does with them. Names of tasks, in the order of the queue."""

    new: list[TaskConfig] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)  # queued or running already
    completed: list[str] = field(default_factory=list)
    by_marker: list[str] = field(default_factory=list)  # completed, says a marker that nobody here saw written
    changed: list[str] = field(default_factory=list)  # completed, and the config was edited since
    failed: list[str] = field(default_factory=list)  # failed, timed out, lost
    cancelled: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """What `start` will do, or has done."""

    queued: tuple[str, ...]
    sorted: Sorted
    starts_now: tuple[tuple[str, tuple[int, ...]], ...]  # the first placements, if nobody else is on the GPUs
    gpu_note: str | None
    warnings: tuple[str, ...]


def stopped_by(workspace: Workspace) -> str | None:
    """Who stopped the workspace's scheduler with `stop`, `kill-all` or Ctrl-C; None if nobody did.

    Raises:
        TinkschedError: the store can't be read.
    """
    store = workspace.store()
    if store is None:
        return None
    with store:
        return store.fact(STOPPED)


def has_only_commands(workspace: Workspace) -> bool:
    """Whether there are no configs, but tasks that `run` queued and that are not done; or a server's jobs."""
    if is_served(workspace.settings.file):
        return True
    if selection.is_any(workspace.settings):
        return False
    store = workspace.store()
    if store is None:
        return False
    with store:
        return bool(store.names(done=False))


def go_on(opened: OpenWorkspace) -> None:
    """Take back a `stop`, without anything new."""
    with opened.store.transaction(actor("start"), time.time()) as tx:
        tx.set_fact(STOPPED, None)


def prepare(settings: Settings, wish: Wish) -> Prepared:
    """Check everything that can be checked before anything is touched.

    Raises:
        TinkschedError: something is wrong.
    """
    return Prepared(settings, wish)


def plan(workspace: Workspace, prepared: Prepared) -> Plan:
    """What `start` would do, without doing any of it.

    Raises:
        TinkschedError: it would be refused.
    """
    store = workspace.store()
    if store is None:
        prepared.refuse_collisions(())
        return prepared.plan(prepared.sort({}), ())
    with store, store.snapshot():
        sorting = prepared.sort(store.pasts(prepared.names))
        prepared.refuse_collisions(store.names(done=False))
        return prepared.plan(sorting, store.queue(), store.named(sorting.again))


def queue(opened: OpenWorkspace, prepared: Prepared) -> Plan:
    """Queue what is new. When this returns, it is on disk.

    Raises:
        TinkschedError: something is wrong; nothing was queued.
    """
    prepared.refuse_collisions(opened.store.names(done=False))
    strays.refuse(opened.settings, opened.state, opened.store)
    try:
        reference = environments.save(opened.state.environments, prepared.programs.environment)
    except OSError as error:
        raise UsageError(f"{opened.state.environments}: can't be written: {error.strerror}") from None
    keep_config(opened)
    with opened.store.transaction(actor("start"), time.time()) as tx:
        sorting = prepared.sort(opened.store.pasts(prepared.names))
        again = opened.store.named(sorting.again)
        tx.apply_all([
            (again[name], prepared.requeued(again[name], number, reference))
            for number, name in zip(tx.queue_numbers(len(again)), sorting.again, strict=True)
        ])  # fmt: skip
        tx.add_tasks([prepared.new_task(config, reference) for config in sorting.new])
        tx.set_fact(STOPPED, None)
    return prepared.plan(sorting, None)


def keep_config(opened: OpenWorkspace) -> None:
    """Keep the configuration for those commands that must work even if it is broken later."""
    aside = opened.state.path / f"{LAST_GOOD}.{os.getpid()}"
    with contextlib.suppress(OSError):
        aside.unlink(missing_ok=True)
        write_private(aside, opened.settings.file.read_bytes())
        aside.replace(opened.state.path / LAST_GOOD)


def requeue(opened: OpenWorkspace, tasks: Sequence[Task], command: str) -> None:
    """Queue finished tasks again, as the configuration says now.

    Raises:
        TinkschedError: the workspace can't run them; nothing was queued.
    """
    anew = _anew(opened, [task for task in tasks if task.config])
    with opened.store.transaction(actor(command), time.time()) as tx:
        tx.apply_all([
            (task, Requeued(number, *anew.get(task.id, (task.priority, task.spec))))  # a command stays what it was
            for number, task in zip(tx.queue_numbers(len(tasks)), tasks, strict=True)
        ])  # fmt: skip
        tx.set_fact(STOPPED, None)


def _anew(opened: OpenWorkspace, tasks: Sequence[Task]) -> dict[int, tuple[int, TaskSpec]]:
    """The priorities and specs of tasks as the configuration says now, by id."""
    if not tasks:
        return {}
    settings = opened.settings
    found, resolved = preflight.check(settings, on_gpus=any(settings.options_for(task.name).gpus for task in tasks))
    reference = environments.save(opened.state.environments, found.environment)
    make = SpecMaker(settings, found, programs.commit(settings.work_dir), reference, resolved.names)
    options = settings.options_of(task.name for task in tasks)
    pinned = {task.name: task.spec.pinned_on(resolved.names) for task in tasks}
    for name, wanted, pins in _once((name, options[name], pins) for name, pins in pinned.items()):
        refuse_impossible(name, wanted, pins, resolved.gpus, settings.cpu_slots)
    configs = [(task.id, _config_of(task)) for task in tasks]
    return {
        task_id: (options[it.name].priority, make(it, options[it.name], pinned[it.name], old_marker(it)))
        for task_id, it in configs
    }


def _once(asked: Iterable[tuple[str, TaskOptions, tuple[int, ...]]]) -> list[tuple[str, TaskOptions, tuple[int, ...]]]:
    """The first task of those with the same options (one object) and pins: what is refused to one is to all."""
    first: dict[tuple[int, tuple[int, ...]], tuple[str, TaskOptions, tuple[int, ...]]] = {}
    for one in asked:
        first.setdefault((id(one[1]), one[2]), one)
    return [*first.values()]


def what_is_retried(always: bool, options: TaskOptions) -> dict[str, Any]:
    """The fields of a spec about retries. `always` is what the workspace says; to say what is retried turns them on."""
    return {
        "max_retries": options.max_retries if always or options.retry_on is not None else 0,
        "retry_on": RETRIED if options.retry_on is None else options.retry_on,
    }


class SpecMaker:
    """Makes what tasks run and need, as the configuration says now. Placeholders are filled in when a run starts."""

    def __init__(
        self, settings: Settings, found: Programs, commit: Commit, environment_ref: str, gpus: Mapping[int, str]
    ) -> None:
        """`gpus` are the names of those that the scheduler uses, by index."""
        self._gpus = gpus
        self._output_dir = str(settings.output_dir)
        self._retries = settings.auto_restart_failed
        self._common: dict[str, Any] = {
            "work_dir": str(settings.work_dir),
            "output_dir": self._output_dir,
            "environment_ref": environment_ref,
            "retry_delay": settings.retry_delay,
            "retry_args": settings.retry_args,
            "pre_run": settings.pre_run or (),
            "post_run": settings.post_run or (),
            "interactive": settings.interactive,
            "python": found.python,
            "script": str(settings.script_path),
            "commit": commit.id,
            "dirty": commit.dirty,
        }

    def __call__(self, config: TaskConfig, options: TaskOptions, pinned: tuple[int, ...], old_marker: str) -> TaskSpec:
        """The spec of one task. `old_marker` is what `markers.old_marker` says of its config."""
        return TaskSpec(
            command=(*(options.command or DEFAULT_COMMAND), *options.args),
            marker=marker_path(self._output_dir, config.name),
            gpus=options.gpus,
            pinned=pinned,
            pinned_devices=tuple(self._gpus.get(index, f"index-{index}") for index in pinned),
            exclusive=options.exclusive,
            environment=tuple(options.environment.items()),
            after=options.after,
            time_limit=options.time_limit,
            **what_is_retried(self._retries, options),
            min_free_memory=options.min_free_memory,
            old_marker=old_marker,
            **self._common,
        )


def refuse_impossible(
    task: str, options: TaskOptions, pinned: Sequence[int], there: Sequence[gpus.Device], cpu_slots: int | None
) -> None:
    """Refuse what could never start on these GPUs.

    Raises:
        UsageError: the task wants more GPUs than it may have, or more memory than they have, or to be beside them
            where nothing may.
    """
    wanted = options.gpus
    if not wanted and cpu_slots == 0:
        raise UsageError(f"{task} needs no GPU (gpus: 0), and there are no slots for such tasks (cpu_slots is 0)")
    if not wanted and pinned:
        raise UsageError(f"{task} needs no GPU (gpus: 0), and the GPU list pins it to one")
    if pinned and wanted > len(pinned):
        raise UsageError(f"{task} needs {wanted} GPUs, and the GPU list pins it to one")
    if wanted > len(there):
        indices = ", ".join(str(gpu.index) for gpu in there)
        raise UsageError(f"{task} needs {wanted} GPUs, and the scheduler uses GPU {indices}")
    if wanted > 1 and wanted > len([gpu for gpu in there if gpu.parent is None]):
        raise UsageError(f"{task} needs {wanted} GPUs; a process can use one MIG instance only")
    if wanted and isinstance(options.min_free_memory, int):
        _refuse_memory(task, wanted, options.min_free_memory, [gpu for gpu in there if gpu.index in pinned] or there)


def _refuse_memory(task: str, wanted: int, need: int, there: Sequence[gpus.Device]) -> None:
    """Refuse more memory than the GPUs have. Where it is not known, the future will tell; without a driver it won't."""
    if all(gpu.uuid is None and gpu.memory_total is None for gpu in there):
        raise UsageError(
            f"{task} needs {size(need)} free (min_free_memory), and nobody can tell what is free: {gpus.NO_DRIVER}",
            hint="leave min_free_memory out here; max_jobs_per_gpu says how many runs share a GPU",
        )
    able = [gpu for gpu in there if gpu.memory_total is None or gpu.memory_total >= need]
    if len(able) < wanted:
        exist = ", ".join(f"GPU {gpu.index} {size(gpu.memory_total or 0)}" for gpu in there)
        many = f" on each of {wanted} GPUs" if wanted > 1 else ""
        raise UsageError(f"{task} needs {size(need)} free{many} (min_free_memory), and there is: {exist}")


class Prepared:
    """A `start` that was checked: everything about it that does not depend on what is in the store."""

    def __init__(self, settings: Settings, wish: Wish) -> None:
        self._settings = settings
        self._wish = wish
        all_there = selection.available(settings)
        self._named = bool(wish.configs)
        self._configs = selection.choose(settings, wish.configs) if wish.configs else all_there
        if not self._configs:
            patterns = ", ".join(settings.config_pattern)
            raise UsageError(
                f"{settings.config_dir} holds no task config ({patterns}; names that begin with _ or . don't count)",
                hint="a task is one config file there",
            )
        names = list(dict.fromkeys(config.name for config in (*all_there, *self._configs)))
        self._options = settings.options_of(names)
        on_gpus = any(self.options(config.name).gpus for config in self._configs)
        self.programs, resolved = preflight.check(settings, on_gpus=on_gpus)
        self._commit = programs.commit(settings.work_dir)
        self._gpus = resolved.gpus
        self._note = resolved.note
        self._names = resolved.names
        self._pins = _pins(wish.gpus, self._configs, resolved)
        for name, options, pinned in _once((it.name, self.options(it.name), self._pinned(it)) for it in self._configs):
            refuse_impossible(name, options, pinned, self._gpus, settings.cpu_slots)
        self._refuse_cycles(names)
        warnings = [str(problem) for problem in (*settings.warnings, *settings.unmatched_rules(names))]
        self._warnings = (*warnings, *self._empty_afters(names))
        self._hashes: dict[str, str | None] = {}
        self._old_markers: dict[str, str] = {}  # by task
        self._maker: tuple[str, SpecMaker] | None = None  # and the environment that it refers to

    @property
    def names(self) -> list[str]:
        """The names of the chosen configs."""
        return [config.name for config in self._configs]

    def options(self, name: str) -> TaskOptions:
        """The options of one of the tasks that there are configs of."""
        return self._options[name]

    def spec(self, config: TaskConfig, reference: str) -> TaskSpec:
        """The spec of one of the chosen configs."""
        if self._maker is None or self._maker[0] != reference:
            self._maker = (reference, SpecMaker(self._settings, self.programs, self._commit, reference, self._names))
        return self._maker[1](config, self.options(config.name), self._pinned(config), self._old_marker(config))

    def requeued(self, task: Task, number: int, reference: str) -> Requeued:
        """What queues a task again."""
        return Requeued(number, self.options(task.name).priority, self.spec(_config_of(task), reference))

    def new_task(self, config: TaskConfig, reference: str) -> NewTask:
        """A task for a config that has none yet."""
        priority = self.options(config.name).priority
        return NewTask(config.name, config.file, self.spec(config, reference), priority)

    def _pinned(self, config: TaskConfig) -> tuple[int, ...]:
        return self._pins.get(config.name, ())

    def _old_marker(self, config: TaskConfig) -> str:
        """Each config is read once for it."""
        if config.name not in self._old_markers:
            self._old_markers[config.name] = old_marker(config)
        return self._old_markers[config.name]

    def sort(self, known: Mapping[str, Past]) -> Sorted:
        """Which of the chosen configs are queued now, and why the others aren't. `known` are their tasks by name."""
        sorting = Sorted()
        for config in self._configs:
            task = known.get(config.name)
            if task is not None:
                self._sort_known(task, config, sorting)
            elif not self._wish.rerun and is_marked(self._settings, config, self._old_marker(config)):
                sorting.by_marker.append(config.name)
            else:
                sorting.new.append(config)
        return sorting

    def _sort_known(self, task: Past, config: TaskConfig, sorting: Sorted) -> None:
        if not task.config:
            raise UsageError(
                f"{config.path}: {task.name!r} is the name of a command that `tinksched run` queued",
                hint=f"rename the config, or forget that command: tinksched clean {task.name}",
            )
        if config.file != task.config and not _same_file(config.path, task.config):
            raise UsageError(
                f"{config.path}: the task {task.name!r} is known by another config, {task.config}",
                hint="a task is named by its config file without .yml: rename one of the two",
            )
        if task.state is not TaskState.DONE:
            sorting.busy.append(task.name)
        elif task.outcome is Outcome.COMPLETED:
            changed = self._has_changed(task)
            if self._wish.rerun or (changed and self._wish.changed):
                sorting.again.append(task.name)
            else:
                (sorting.changed if changed else sorting.completed).append(task.name)
        elif self._named or _left_behind(task) or (self._wish.failed and task.outcome in _RUN_AGAIN):
            sorting.again.append(task.name)
        elif task.outcome is Outcome.CANCELLED:
            sorting.cancelled.append(task.name)
        else:
            sorting.failed.append(task.name)

    def _has_changed(self, task: Past) -> bool:
        if task.config not in self._hashes:
            self._hashes[task.config] = file_hash(task.config)
        return task.config_hash is not None and self._hashes[task.config] not in (None, task.config_hash)

    def _refuse_cycles(self, names: Sequence[str]) -> None:
        after = {name: options.after for name, options in self._options.items() if options.after}
        cycle = find_cycle(after, names) if after else None
        if cycle:
            raise UsageError(
                f"{self._settings.file}: these tasks wait for each other: {' after '.join(cycle)}",
                hint="`after` in tasks: names what must have completed before",
            )

    def _empty_afters(self, names: Sequence[str]) -> list[str]:
        globs = {glob: name for name in names for glob in self.options(name).after}
        return [
            f"{name} comes after {glob!r}, which no task matches"
            for glob, name in globs.items()
            if not any(matches(other, [glob]) for other in names)
        ]

    def refuse_collisions(self, pending: Iterable[str]) -> None:
        """tmux rewrites some characters of names, so two tasks may come to want one session.

        `pending` are the names of the tasks that are not done.

        Raises:
            UsageError: two do.
        """
        names = dict.fromkeys(config.name for config in self._configs)
        names |= dict.fromkeys(pending)
        seen: dict[str, str] = {}
        for name in names:
            session = run_session(self._settings, name, ())
            other = seen.setdefault(session, name)
            if other != name:
                raise UsageError(
                    f"the tasks {other!r} and {name!r} would have the same tmux session name ({session})",
                    hint="rename one of the configs: tmux does not tell . : $ \\ and _ apart",
                )

    def plan(self, sorting: Sorted, queue: Sequence[Task] | None, known: Mapping[str, Task] = _NOTHING) -> Plan:
        """The plan in words; where the queue of before is given, and the tasks that are queued again, with the first
        placements."""
        queued = (*sorting.again, *(config.name for config in sorting.new))
        first = self._first_placements(sorting, queue, known) if queue is not None else ()
        return Plan(queued, sorting, first, self._note, self._warnings)

    def _first_placements(
        self, sorting: Sorted, waiting: Sequence[Task], known: Mapping[str, Task]
    ) -> tuple[tuple[str, tuple[int, ...]], ...]:
        tasks = [known[name] for name in sorting.again]
        again = [_as_queued(task.name, task.id, self.options(task.name).priority, task.spec) for task in tasks]
        fresh = [
            _as_queued(config.name, -number, self.options(config.name).priority, self.spec(config, ""))
            for number, config in enumerate(sorting.new, start=1)
        ]
        queue = sorted([*waiting, *again, *fresh], key=lambda task: -task.priority)
        slots = [GpuSlots(gpu.index, lease_name(gpu), self._settings.max_jobs_per_gpu) for gpu in self._gpus]
        slots_of_cpu = cpu_slots(self._settings)
        cpu = cpu_of(slots_of_cpu, (), ()) if slots_of_cpu else None
        policy = placement.Policy(self._settings.placement)
        placed = placement.decide(queue, slots, time.time(), policy=policy, cpu=cpu).placements
        names = {task.id: task.name for task in queue}
        return tuple((names[item.task_id], item.gpus) for item in placed)


def _same_file(config: Path, known: str) -> bool:
    return config.exists() and config.resolve() == Path(known).resolve()


def _as_queued(name: str, task_id: int, priority: int, spec: TaskSpec) -> Task:
    return Task(task_id, name, "", spec, TaskState.QUEUED, priority, 0, 0.0, 0.0)


def _config_of(task: Task) -> TaskConfig:
    return TaskConfig(task.name, task.config)


def _left_behind(task: Past) -> bool:
    return task.reason is not None and task.reason.code is ReasonCode.KILL_ALL


def _pins(wanted: str | None, configs: Sequence[TaskConfig], resolved: gpus.Resolved) -> dict[str, tuple[int, ...]]:
    """GPU entry i pins config i; a shorter list leaves the rest to automatic placement."""
    entries = [entry.strip() for entry in (wanted or "").split(",")] if wanted else []
    if len(entries) > len(configs):
        raise UsageError(
            f"{len(entries)} GPUs are named for {len(configs)} config{'s' * (len(configs) != 1)}",
            hint="GPU entry i pins config i; a shorter list leaves the rest to automatic placement",
        )
    pairs = zip(entries, configs, strict=False)
    return {config.name: (gpus.pinned(entry, resolved).index,) for entry, config in pairs}
