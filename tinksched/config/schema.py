"""The table of keys: what scheduler_config.yml may hold. Loading, `config`, template and README derive from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..core.news import KINDS, TOLD
from . import globs, retries, telling, values
from .broken import quoted
from .document import ScalarNode
from .settings import NO_VARIABLES, TaskRule, in_file, plain
from .units import GB, KB, MB
from .values import BadValue, Reader, Value


@dataclass(frozen=True, slots=True)
class Key:
    """A key, how its value is read, what it is when left out, and what it means in one line.

    A default that is a Path is relative to the workspace. A `note` marks a key that only old files have: it is
    accepted where it changes nothing, and `config` shows the note.
    """

    name: str
    read: Reader[Any]
    default: Any
    doc: str
    required: bool = False
    note: str = ""

    @property
    def default_text(self) -> str:
        """The default as the file would say it; empty if it is nothing."""
        default = plain(in_file(self.name, self.default))
        if default in (None, [], {}) or self.required or self.note:
            return ""
        return default if isinstance(default, str) and default else json.dumps(default)

    @property
    def may_be_empty(self) -> bool:
        """Whether `key:` without a value stands for the default: it does where that default is itself nothing."""
        return not self.required and self.default in (None, "", (), {})

    def value(self, value: Value) -> Any:
        """The typed value. Raises BadValue."""
        return self.default if self.may_be_empty and values.is_empty(value.node) else self.read(value)


def unknown(key: ScalarNode, what: str, known: Mapping[str, Key]) -> BadValue:
    """The problem of a key that is not in the table, with the nearest one that is."""
    nearest = values.did_you_mean(key.text, tuple(word for word in known if not known[word].note))
    return BadValue(key, f"unknown {what} {quoted(key.text)}" + (f"; {nearest}" if nearest else ""))


def _rules(value: Value) -> tuple[TaskRule, ...]:
    """`tasks`: the map from globs to options."""
    found = []
    for entry in values.entries(value, "a map from globs to options, such as {'big_*': {gpus: 2}}"):
        label = f"{value.label}[{quoted(entry.key.text)}]"
        pattern = value.context.attempt(globs.glob, value.child(values.as_name(entry.key), label))
        given = value.context.attempt(_options, value.child(entry.value, label))
        if pattern is not None and given is not None:
            found.append(TaskRule(pattern, entry.key.line, entry.key.column, MappingProxyType(given)))
    return tuple(found)


def _options(value: Value) -> dict[str, Any]:
    """The options of one glob; bad ones are noted and left out."""
    given: dict[str, Any] = {}
    allowed = ", ".join(TASK_OPTIONS)
    for entry in () if values.is_empty(value.node) else values.entries(value, f"a map of options ({allowed})"):
        option = TASK_OPTIONS.get(entry.key.text)
        if option is None:
            value.context.problems.append(unknown(entry.key, "option", TASK_OPTIONS))
            continue
        content = value.child(entry.value, f"{value.label}.{option.name}")
        given[option.name] = value.context.attempt(option.value, content)
    return given


def _table(*keys: Key) -> Mapping[str, Key]:
    return {key.name: key for key in keys}


_NO_LIMIT = "leave it out for no limit"
_NO_LIMIT_HERE = "leave its value out ('time_limit:') for no limit"

TASK_OPTIONS: Mapping[str, Key] = _table(
    Key("gpus", values.integer(0), 1, "number of GPUs that the task gets, one slot on each; 0: it runs beside them"),
    Key("exclusive", values.boolean, False, "true: nothing else runs on its GPUs meanwhile"),
    Key("priority", values.integer(), 0, "of the tasks that wait, higher numbers start first"),
    Key("args", values.arguments, (), "arguments after the config path, in place of the `args` of the workspace"),
    Key("environment", values.variables, NO_VARIABLES, "variables, added to the `environment` of the workspace"),
    Key("after", globs.task_patterns, (), "glob or list of globs of the tasks that must be completed first"),
    Key("time_limit", values.limit_in_seconds(_NO_LIMIT_HERE), None, "longest time that a run may take; empty: none"),
    Key("command", values.command, None, "argument list, in place of the `command` of the workspace; empty: none"),
    Key("max_retries", values.integer(0, 1000), 3, "retries of a failed run, in place of those of the workspace"),
    Key("retry_on", retries.conditions, None, "what is retried, in place of the `retry_on` of the workspace"),
    Key("min_free_memory", values.size_or_auto, None, "as that of the workspace, for these tasks; empty: none"),
    Key("max_running", values.integer(1), None, "how many tasks of this glob run at once"),
)

_NOTHING_TYPED = "accepted for old files; nothing is typed into sessions, so there is nothing to delay"

KEYS: Mapping[str, Key] = _table(
    Key("task_name", values.task_name, "", "prefix of sessions and logs; `${task_name}` stands for it", required=True),
    Key("work_dir", values.path, Path("."), "folder where the runs start; relative to the workspace, as all paths"),
    Key("config_dir", values.path, Path("configs"), "folder of the task configs"),
    Key("script_path", values.path, Path("train.py"), "Python script that every run starts"),
    Key("output_dir", values.path, Path("out"), "folder of the completion markers"),
    Key("python_env", values.text_or_none, None, "interpreter: path, name on PATH, or folder of a virtual environment"),
    Key("conda_env", values.text, "", "conda environment that is activated before the run: its name or folder"),
    Key("command", values.command, None, "argument list that runs in place of python and script"),
    Key("args", values.arguments, (), "arguments of the script after `--config_path CONFIG`"),
    Key("config_pattern", globs.patterns, ("*.yml", "*.yaml"), "glob or list of globs for the task configs"),
    Key("max_jobs_per_gpu", values.integer(1), 2, "runs that may share one GPU"),
    Key("gpu_count", values.count_or_auto(1), None, "number of GPUs to use; auto: all that the driver counts"),
    Key("use_gpus", values.devices, None, "indices or UUIDs of the GPUs to use, best first; wins over gpu_count"),
    Key("placement", values.choice("spread", "pack"), "spread", "spread: emptiest GPU first; pack: fullest first"),
    Key("min_free_memory", values.size_or_auto, None, "GPU memory that must be free for a run; auto: as others took"),
    Key("warmup", values.seconds, 60.0, "how long a run reserves what it has not yet taken of its min_free_memory"),
    Key("max_utilization", values.integer(1, 100), None, "percent; beside more work than this nothing more starts"),
    Key("respect_other_processes", values.boolean, True, "false: runs start beside compute processes of others too"),
    Key("ignore_processes", globs.process_patterns, (), "globs of users and commands that count as nobody there"),
    Key("cpu_slots", values.count_or_auto(0), None, "runs without GPUs (gpus: 0) at once; auto: one for each core"),
    Key(
        "cuda_visible_devices_var",
        values.variable_name,
        "CUDA_VISIBLE_DEVICES",
        "variable that tells a run its GPU indices (HIP_VISIBLE_DEVICES on AMD)",
    ),
    Key(
        "gpu_ids", values.choice("index", "uuid"), "index", "what a run is told: indices or UUIDs; of MIG always UUIDs"
    ),
    Key("environment", values.variables, NO_VARIABLES, "map of variables for every run"),
    Key("pre_run", values.shell_or_command, None, "shell command or argument list before a run; if it fails, so does"),
    Key("post_run", values.shell_or_command, None, "shell command or argument list after a run, however that ended"),
    Key("interactive", values.boolean, False, "true: a run reads from its terminal; false: from /dev/null"),
    Key("tasks", _rules, (), f"map from globs of task names to their options: {', '.join(TASK_OPTIONS)}"),
    Key("require_marker", values.boolean, False, "true: exit code 0 without a fresh completion marker is a failure"),
    Key("strict_exit", values.boolean, False, "true: another exit code is a failure even with a fresh marker"),
    Key("keep_children", values.boolean, False, "true: processes that outlive their run are left alone, on its slot"),
    Key("stop_grace", values.seconds, 10.0, "time that a run has to end when asked to, before it is killed"),
    Key("time_limit", values.limit_in_seconds(_NO_LIMIT), None, "longest time that a run may take"),
    Key("stall_after", values.limit_in_seconds(_NO_LIMIT), None, "without output and use of its GPU a run is stalled"),
    Key("kill_stalled", values.boolean, False, "true: a stalled run is ended, as one that takes too long"),
    Key("auto_restart_failed", values.boolean, False, "true: retry runs that failed, took too long, or were lost"),
    Key(
        "retry_on",
        retries.conditions,
        None,
        "what is retried: list of oom (out of memory), failed (with any exit code), timed_out, lost, and exit codes; "
        "wins over auto_restart_failed",
    ),
    Key("max_retries", values.integer(0, 1000), 3, "how many times a task is retried"),
    Key("retry_delay", values.positive_seconds, 10.0, "time before the first retry; it doubles with each, up to 30m"),
    Key("retry_args", values.arguments, (), "more arguments for a retried run, such as [--resume]"),
    Key("notify", telling.urls, (), "list of apprise URLs that are told what happens; needs `tinksched[notify]`"),
    Key("notify_on", telling.kinds, TOLD, f"what these are told of: list of {', '.join(KINDS)}"),
    Key("on_event", telling.program, None, "argument list that gets every event as JSON on standard input"),
    Key("check_interval", values.positive_seconds, 30.0, "safety net: how often to look even if nothing was reported"),
    Key("startup_delay", values.seconds, 0.0, "least time between two starts on the same GPU"),
    Key("scheduler_session_suffix", values.file_name_part, "_scheduler", "the scheduler's session: task_name and this"),
    Key("worker_prefix", values.session_text, "", "prefix of the runs' sessions, in place of task_name"),
    Key("cleanup_on_complete", values.boolean, False, "true: close the session of a completed run"),
    Key("keep_sessions", values.integer(0), 20, "number of ended sessions that are kept to look at, the newest"),
    Key("log_dir", values.path, Path("logs"), "folder of the logs"),
    Key("enable_logging", values.boolean, True, "false: no log files, only the screens of the sessions"),
    Key("log_max_size", values.size_in_bytes(64 * KB), 200 * MB, "a longer log of a run keeps its head and its tail"),
    Key("min_free_disk", values.size_in_bytes(), GB, "with less free disk space nothing new starts; 0: never mind"),
    Key("state_dir", values.own_folder, Path(".tinksched"), "folder of the scheduler's private state"),
    Key("executor", values.choice("tmux", "local"), "tmux", "tmux: a session for each run; local: plain processes"),
    Key("tmux_socket", values.file_name_part, "", "name of a private tmux server; empty: the user's default one"),
    Key("command_delay", values.as_written, "", "for old files only", note=_NOTHING_TYPED),
)
