"""The settings of a workspace, typed and frozen, and where each came from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ..errors import Problem
from .units import size_text

CONFIG_NAME = "scheduler_config.yml"
NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
# What the file says where we say None.
WORDS_FOR_NONE: Mapping[str, str] = MappingProxyType({"gpu_count": "auto", "cpu_slots": "auto"})
SECRETS = ("notify",)  # URLs of which only the scheme is shown
SIZES = (  # bytes here, with a unit in the file
    "log_max_size", "min_free_disk", "min_free_memory", "max_code_size", "max_config_size", "max_answer_size",
    "max_results_size", "job_memory", "job_file_size",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from. Line and column are those of its key, counted from 1."""

    kind: Literal["file", "default"]
    line: int = 0
    column: int = 0
    file: str = CONFIG_NAME
    note: str = ""

    def __str__(self) -> str:
        place = "default" if self.kind == "default" else f"{self.file}:{self.line}"
        return f"{place} ({self.note})" if self.note else place


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What one task asks for. `args` follow the config path; `environment` is added to that of the command.

    `after` are globs of tasks that must be completed first. `time_limit` is in seconds, None for no limit. `command` is
    what runs in place of python and script. `retry_on` None is what `auto_restart_failed` says. `min_free_memory` is in
    bytes, None for none. `args`, `command` and the values of `environment` may hold placeholders.
    """

    gpus: int = 1
    exclusive: bool = False
    priority: int = 0
    args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: NO_VARIABLES)
    after: tuple[str, ...] = ()
    time_limit: float | None = None
    command: tuple[str, ...] | None = None
    max_retries: int = 3
    retry_on: tuple[str | int, ...] | None = None
    min_free_memory: int | Literal["auto"] | None = None


@dataclass(frozen=True, slots=True)
class RunningLimit:
    """No more than `limit` of the tasks whose name matches the glob run at once."""

    pattern: str
    limit: int

    def matches(self, task: str) -> bool:
        """Whether the task's name matches the glob; case counts."""
        return fnmatchcase(task, self.pattern)


@dataclass(frozen=True, slots=True)
class TaskRule:
    """One entry of `tasks`: options for the tasks whose name matches the glob.

    `given` has the options that the rule names, each with its type (`schema.TASK_OPTIONS`). One that it does not name
    is not there: `time_limit` None is "no limit", which is something else.
    """

    pattern: str
    line: int
    column: int
    given: Mapping[str, Any]

    @property
    def command(self) -> tuple[str, ...] | None:
        """The `command` of the rule, if it has one."""
        found: tuple[str, ...] | None = self.given.get("command")
        return found

    def matches(self, task: str) -> bool:
        """Whether the task's name matches the glob; case counts."""
        return fnmatchcase(task, self.pattern)

    def over(self, options: TaskOptions) -> TaskOptions:
        """The options with this rule's laid over them. Variables are merged one by one, everything else is replaced."""
        of_a_task = {option.name: self.given[option.name] for option in fields(options) if option.name in self.given}
        variables = MappingProxyType({**options.environment, **self.given.get("environment", {})})
        return replace(options, **{**of_a_task, "environment": variables})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The resolved settings: paths are absolute, durations are seconds, sizes are bytes. `schema.KEYS` has what each
    key means. `command`, `args`, `retry_args`, `pre_run`, `post_run` and the values of `environment` may hold
    placeholders (`placeholders.expand_command`).

    `origins` has every key in documented order, keys for old files (`old_values`) only if the file has them.
    """

    task_name: str
    work_dir: Path
    config_dir: Path
    script_path: Path
    output_dir: Path
    python_env: str | None
    conda_env: str
    command: tuple[str, ...] | None
    args: tuple[str, ...]
    config_pattern: tuple[str, ...]
    max_jobs_per_gpu: int
    gpu_count: int | None
    use_gpus: tuple[int | str, ...] | None
    placement: Literal["spread", "pack"]
    min_free_memory: int | Literal["auto"] | None
    warmup: float
    max_utilization: int | None
    respect_other_processes: bool
    ignore_processes: tuple[str, ...]
    cpu_slots: int | None
    cuda_visible_devices_var: str
    gpu_ids: Literal["index", "uuid"]
    environment: Mapping[str, str]
    pre_run: tuple[str, ...] | None
    post_run: tuple[str, ...] | None
    interactive: bool
    tasks: tuple[TaskRule, ...]
    require_marker: bool
    strict_exit: bool
    keep_children: bool
    stop_grace: float
    time_limit: float | None
    stall_after: float | None
    kill_stalled: bool
    auto_restart_failed: bool
    retry_on: tuple[str | int, ...] | None
    max_retries: int
    retry_delay: float
    retry_args: tuple[str, ...]
    notify: tuple[str, ...] = field(repr=False)  # they hold secrets
    notify_on: tuple[str, ...]
    on_event: tuple[str, ...] | None
    check_interval: float
    startup_delay: float
    scheduler_session_suffix: str
    worker_prefix: str
    cleanup_on_complete: bool
    keep_sessions: int
    log_dir: Path
    enable_logging: bool
    log_max_size: int
    min_free_disk: int
    state_dir: Path
    executor: Literal["tmux", "local"]
    tmux_socket: str

    workspace: Path
    file: Path
    origins: Mapping[str, Origin]
    old_values: Mapping[str, object]
    warnings: tuple[Problem, ...]

    def rows(self) -> list[tuple[str, object, Origin]]:
        """Each key with its value and where that came from, in documented order. `plain` makes a value JSON-able."""
        return [(key, self._value(key), origin) for key, origin in self.origins.items()]

    def options_for(self, task: str) -> TaskOptions:
        """The options of a task: those that the workspace has for all, then every matching rule of `tasks`."""
        options = TaskOptions(
            args=self.args,
            environment=self.environment,
            time_limit=self.time_limit,
            command=self.command,
            max_retries=self.max_retries,
            retry_on=self.retry_on,
            min_free_memory=self.min_free_memory,
        )
        for rule in self.tasks:
            if rule.matches(task):
                options = rule.over(options)
        return options

    def options_of(self, tasks: Iterable[str]) -> dict[str, TaskOptions]:
        """The options of each task. Those that the same rules match have one object in common."""
        known: dict[tuple[bool, ...], TaskOptions] = {}
        found = {}
        for task in tasks:
            which = tuple([rule.matches(task) for rule in self.tasks])
            if which not in known:
                known[which] = self.options_for(task)
            found[task] = known[which]
        return found

    def rule_for(self, task: str, option: str) -> TaskRule | None:
        """The rule of `tasks` that gives a task this option: the last that does. None: it is that of the workspace."""
        return next((rule for rule in reversed(self.tasks) if option in rule.given and rule.matches(task)), None)

    @property
    def running_limits(self) -> tuple[RunningLimit, ...]:
        """The `max_running` of each rule of `tasks` that has one. A task must keep to all that match its name."""
        limits = ((rule.pattern, rule.given.get("max_running")) for rule in self.tasks)
        return tuple(RunningLimit(pattern, limit) for pattern, limit in limits if limit is not None)

    def unmatched_rules(self, task_names: Iterable[str]) -> list[Problem]:
        """A warning for each rule of `tasks` whose glob matches none of the names."""
        names = tuple(task_names)
        unmatched = [rule for rule in self.tasks if not any(map(rule.matches, names))]
        return [
            Problem(shown(self.file), rule.line, rule.column, f"no task matches {rule.pattern!r}{_glob_hint(rule)}")
            for rule in unmatched
        ]

    def _value(self, key: str) -> object:
        if key in self.old_values:
            return self.old_values[key]
        return in_file(key, getattr(self, key))


def in_file(key: str, value: object) -> object:
    """The value as the file would say it: `auto` for None, sizes with a unit."""
    if key in SIZES and isinstance(value, int):
        return size_text(value)
    if key in SECRETS and isinstance(value, tuple):
        return [f"{url.partition('://')[0]}://…" for url in value]
    return WORDS_FOR_NONE.get(key) if value is None else value


def plain(value: object) -> object:
    """The value as JSON knows it: paths as text, tuples as lists, a rule of `tasks` as the options that it gives."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, TaskRule):
        return {"pattern": value.pattern, **{name: plain(in_file(name, given)) for name, given in value.given.items()}}
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def shown(path: Path) -> str:
    """The path as a message shows it: relative to the current folder if it lies below, so that editors can open it."""
    try:
        return str(path.relative_to(os.getcwd()))
    except (ValueError, OSError):  # elsewhere, or the current folder is gone
        return str(path)


def _glob_hint(rule: TaskRule) -> str:
    by_file_name = rule.pattern.endswith((".yml", ".yaml"))
    return "; a task is named by its config file without .yml" if by_file_name else ""
