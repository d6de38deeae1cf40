"""Rows as they lie in the database: what many rows say stands once, in the table `texts`, and is parsed once.

Such a text is JSON. A list in the place of a text is what stands around a name in it: ["/w/configs/", ".yml"] is
/w/configs/exp1.yml for the task exp1, and so one text serves all tasks that were queued together. In `directory` and
`lease` it is the run's id that is left out.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, NamedTuple

from ..core.model import Outcome, Reason, Request, Run, RunRecord, RunState, Task, TaskSpec, TaskState
from ..core.usage import Usage
from . import records

_SPEC = tuple(field.name for field in fields(TaskSpec) if field.name not in ("marker", "old_marker"))
_RECORD = ("python", "node", "commit", "dirty", "oom_kills")  # what many runs have in common
_OWN = {  # what each run has for itself, and what is not written down
    field.name: field.default for field in fields(RunRecord) if field.name not in (*_RECORD, "command")
}
_SHARED = ("gpus", "devices", "exclusive", "executor", "work_dir", "boot_id")
_STATES = {state.value: state for state in TaskState}
_RUN_STATES = {state.value: state for state in RunState}
Row = Mapping[str, Any]

# The order in which `task_of` and `run_of` take the columns.
TASK_COLUMNS = ("id", "name", "text", "old_marker", "state", "outcome", "reason", "request", "priority", "queue_number",
                "queued_at", "changed_at", "attempts", "failures", "not_before", "config_hash", "need",
                "hold")  # fmt: skip
RUN_COLUMNS = ("id", "task_id", "task", "attempt", "text", "state", "outcome", "reason", "exit_code", "session",
               "marker_before", "pid", "pid_started", "created_at", "started_at", "ended_at", "deadline",
               "record")  # fmt: skip

_ELSEWHERE = {"text": "texts.text", "task": "tasks.name"}


def _select(table: str, columns: Sequence[str]) -> str:
    """A query for these columns of a table and of those that it refers to."""
    return f"SELECT {', '.join(_ELSEWHERE.get(name, f'{table}.{name}') for name in columns)} FROM {table}"


TASKS = f"{_select('tasks', TASK_COLUMNS)} JOIN texts ON texts.id = tasks.shared"
RUNS = f"{_select('runs', RUN_COLUMNS)} JOIN tasks ON tasks.id = runs.task_id JOIN texts ON texts.id = runs.shared"


def task_text(task: Task) -> str:
    """What the task has in common with others."""
    spec = task.spec
    common = (getattr(spec, name) for name in _SPEC)
    return _task_text(_around(task.config, task.name), _around(spec.marker, task.name), *common)


def task_columns(task: Task) -> dict[str, object]:
    """The columns that the task has for itself, but for its id, its name and what was asked for."""
    return {
        "state": task.state.value,
        "outcome": task.outcome.value if task.outcome else None,
        "reason": records.reason_text(task.reason),
        "priority": task.priority,
        "queue_number": task.queue_number,
        "attempts": task.attempts,
        "failures": task.failures,
        "not_before": task.not_before,
        "need": task.need,
        "hold": records.hold_text(task.hold),
        "config_hash": task.config_hash,
        "old_marker": task.spec.old_marker or None,
        "queued_at": task.queued_at,
        "changed_at": task.changed_at,
    }


def task_of(
    task_id: int, name: str, text: str, old_marker: str | None, state: str, outcome: str | None, reason: str | None,
    request: str | None, priority: int, queue_number: int, queued_at: float, changed_at: float, attempts: int,
    failures: int, not_before: float | None, config_hash: str | None, need: int | None,
    hold: str | None,
) -> Task:  # fmt: skip
    """A task from its columns, in the order of `TASK_COLUMNS`; `text` is the one that it shares."""
    config, marker, common = _parsed_task(text)
    return Task(
        task_id,
        name,
        _joined(config, name),
        TaskSpec(marker=_joined(marker, name), old_marker=old_marker or "", **common),
        _STATES[state],
        priority,
        queue_number,
        queued_at,
        changed_at,
        attempts,
        records.outcome_of(outcome),
        records.reason_of(reason),
        Request(request) if request else None,
        config_hash,
        failures,
        not_before,
        need,
        records.hold_of(hold),
    )


def run_text(run: Run) -> str:
    """What the run has in common with others: those on the same GPUs, since the same boot, of the same code."""
    record = run.record
    common = {
        **{name: getattr(run, name) for name in _SHARED},
        **{name: _around(getattr(run, name), run.task) for name in ("log", "marker")},
        **{name: _around(getattr(run, name), run.id) for name in ("directory", "lease")},
        **{name: getattr(record, name) for name in _RECORD},
    }
    if record.port is None:  # otherwise the command is probably like no other one
        common["command"] = [_around(word, run.task) for word in record.command]
    return _text(common)


def run_columns(run: Run) -> dict[str, object]:
    """The columns that the run has for itself, but for its ids and its attempt."""
    return {
        "state": run.state.value,
        "outcome": run.outcome.value if run.outcome else None,
        "reason": records.reason_text(run.reason),
        "exit_code": run.exit_code,
        "session": run.session,
        "marker_before": run.marker_before,
        "pid": run.pid,
        "pid_started": run.pid_started,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "deadline": run.deadline,
        "record": _own_record(run.record),
    }


def run_of(
    run_id: str, task_id: int, task: str, attempt: int, text: str, state: str, outcome: str | None, reason: str | None,
    exit_code: int | None, session: str, marker_before: str | None, pid: int | None, pid_started: int | None,
    created_at: float, started_at: float | None, ended_at: float | None, deadline: float | None, own: str | None,
) -> Run:  # fmt: skip
    """A run from its columns, in the order of `RUN_COLUMNS`; `task` is the name of its task."""
    common, record = _parsed_run(text)
    columns = {**record, **json.loads(own)} if own else record
    command = tuple(_joined(word, task) for word in columns["command"])
    return Run(
        id=run_id,
        task_id=task_id,
        task=task,
        attempt=attempt,
        state=_RUN_STATES[state],
        gpus=common["gpus"],
        devices=common["devices"],
        executor=common["executor"],
        session=session,
        directory=_joined(common["directory"], run_id),
        work_dir=common["work_dir"],
        log=None if common["log"] is None else _joined(common["log"], task),
        lease=_joined(common["lease"], run_id),
        marker=_joined(common["marker"], task),
        marker_before=marker_before,
        boot_id=common["boot_id"],
        created_at=created_at,
        pid=pid,
        pid_started=pid_started,
        started_at=started_at,
        ended_at=ended_at,
        outcome=records.outcome_of(outcome),
        reason=records.reason_of(reason),
        exit_code=exit_code,
        exclusive=common["exclusive"],
        deadline=deadline,
        record=RunRecord(**{**columns, "command": command}),
    )


class DoneTask(NamedTuple):
    """What a list says of a task that is done: there may be very many, and a Task and a Run of each take their time."""

    id: int
    name: str
    config: str
    wanted_gpus: int
    outcome: Outcome
    reason: Reason | None
    config_hash: str | None
    priority: int
    attempts: int
    queued_at: float
    gpus: tuple[int, ...]  # this and what follows are of its last run
    exit_code: int | None
    started_at: float | None
    ended_at: float | None
    session: str | None
    log: str | None
    pid: int | None
    usage: Usage | None = None


def done_of(
    task_id: int, name: str, text: str, outcome: str, reason: str | None, config_hash: str | None, priority: int,
    attempts: int, queued_at: float, changed_at: float, run: str | None, ran: str | None,
    exit_code: int | None, created_at: float | None, ended_at: float | None, session: str | None, pid: int | None,
    *usage: Any,
) -> DoneTask:  # fmt: skip
    """A task that is done from its columns, those of its last run, and what that used; `text` and `run` are what they
    share. Of one that was queued again and given up there the last run is an earlier one: only its log is named."""
    config, _, spec = _parsed_task(text)
    common: dict[str, Any] = _parsed_run(run)[0] if run is not None else {"gpus": (), "log": None}
    log = None if common["log"] is None else _joined(common["log"], name)
    # By the clock, which may have been set, only where nothing else tells the two ends apart.
    cancelled_later = outcome == Outcome.CANCELLED.value and queued_at > (ended_at or queued_at)
    if run is None or ran != outcome or cancelled_later:
        return DoneTask(
            task_id, name, _joined(config, name), spec["gpus"], Outcome(outcome), records.reason_of(reason),
            config_hash, priority, attempts, queued_at, (), None, None, changed_at, None, log, None,
        )  # fmt: skip
    return DoneTask(
        task_id, name, _joined(config, name), spec["gpus"], Outcome(outcome), records.reason_of(reason), config_hash,
        priority, attempts, queued_at, common["gpus"], exit_code, created_at, ended_at, session or None, log, pid,
        usage_of(*usage) if usage[0] is not None else None,
    )  # fmt: skip


class Listed(NamedTuple):
    """What is needed to choose among thousands of tasks."""

    id: int
    name: str
    state: str
    outcome: str | None
    changed_at: float
    attempts: int
    queue_number: int


ROSTER = f"SELECT {', '.join(Listed._fields)} FROM tasks"


class Glance(NamedTuple):
    """A task and its newest run in a few words, for who follows thousands of them."""

    id: int
    name: str
    state: str
    outcome: str | None
    reason: Reason | None
    priority: int
    queue_number: int
    queued_at: float
    changed_at: float
    attempts: int
    run: str | None  # its newest run, as all of the following
    run_state: str | None
    run_outcome: str | None
    exit_code: int | None
    began_at: float | None
    ended_at: float | None
    gpus: tuple[int, ...]

    @property
    def has_run(self) -> bool:
        """Whether what it is now comes of its newest run: it may have been queued again, and given up there."""
        if self.run is None or self.state == TaskState.QUEUED.value:
            return False
        # By the clock, which may have been set, only where nothing else tells the two ends apart.
        later = self.outcome == Outcome.CANCELLED.value and self.queued_at > (self.ended_at or self.queued_at)
        return self.state == TaskState.ACTIVE.value or (self.run_outcome == self.outcome and not later)


GLANCES = (
    "SELECT tasks.id, name, tasks.state, tasks.outcome, tasks.reason, priority, queue_number, queued_at, changed_at, "
    "attempts, runs.id, runs.state, runs.outcome, exit_code, created_at, ended_at, ran.text FROM tasks "
    "LEFT JOIN runs ON runs.task_id = tasks.id "
    "AND runs.attempt = (SELECT max(attempt) FROM runs r WHERE r.task_id = tasks.id) "
    "LEFT JOIN texts ran ON ran.id = runs.shared"
)


def glance_of(*columns: Any) -> Glance:
    """A glance from its columns, in the order of `GLANCES`; the last one is what its run shares."""
    task_id, name, state, outcome, reason, *more, ran = columns
    gpus: tuple[int, ...] = _parsed_run(ran)[0]["gpus"] if ran is not None else ()
    return Glance._make([task_id, name, state, outcome, records.reason_of(reason), *more, gpus])


class Bar(NamedTuple):
    """A run on a timeline. Times are seconds since the epoch."""

    run: str
    task_id: int
    began_at: float
    ended_at: float | None
    outcome: str | None
    gpus: tuple[int, ...]


BARS = "SELECT runs.id, task_id, created_at, ended_at, outcome, text FROM runs JOIN texts ON texts.id = runs.shared"


def bar_of(*columns: Any) -> Bar:
    """A bar from its columns, in the order of `BARS`."""
    *more, text = columns
    return Bar._make([*more, _parsed_run(text)[0]["gpus"]])


class Past(NamedTuple):
    """What `start` asks of a task that it finds a config of."""

    name: str
    config: str
    state: TaskState
    outcome: Outcome | None
    reason: Reason | None
    config_hash: str | None


PASTS = (
    "SELECT name, text, state, outcome, reason, config_hash FROM tasks JOIN texts ON texts.id = tasks.shared "
    "WHERE name IN (SELECT value FROM json_each(?))"
)


def past_of(name: str, text: str, state: str, outcome: str | None, reason: str | None, config_hash: str | None) -> Past:
    """The past of a task from its columns, in the order of `PASTS`."""
    config = _joined(_parsed_task(text)[0], name)
    return Past(name, config, _STATES[state], records.outcome_of(outcome), records.reason_of(reason), config_hash)


class Remains(NamedTuple):
    """What a run leaves, to be cleaned away."""

    id: str
    task_id: int
    session: str
    directory: str
    log: str | None


def remains_of(run_id: str, task_id: int, task: str, session: str, text: str) -> Remains:
    """What a run leaves from its columns; `task` is the name of its task."""
    common = _parsed_run(text)[0]
    log = None if common["log"] is None else _joined(common["log"], task)
    return Remains(run_id, task_id, session, _joined(common["directory"], run_id), log)


class Ran(NamedTuple):
    """What a report says of a run: there may be very many. Without an end it goes on."""

    task: str
    attempt: int
    outcome: Outcome | None
    reason: Reason | None
    exit_code: int | None
    gpus: tuple[int, ...]
    queued_at: float  # when its task was queued last
    started_at: float
    ended_at: float | None


def ran_of(
    task: str, attempt: int, outcome: str | None, reason: str | None, exit_code: int | None, text: str,
    queued_at: float, started_at: float, ended_at: float | None,
) -> Ran:  # fmt: skip
    """A run from its columns and its task's; `text` is the one that it shares."""
    gpus = _parsed_run(text)[0]["gpus"]
    return Ran(
        task, attempt, records.outcome_of(outcome), records.reason_of(reason), exit_code, gpus, queued_at, started_at,
        ended_at,
    )  # fmt: skip


USAGE_COLUMNS = tuple(field.name for field in fields(Usage))  # after `run_id`


def usage_of(*columns: Any) -> Usage:
    """A usage from its columns, in the order of `USAGE_COLUMNS`.

    Raises:
        ValueError: they are not what this program has written.
    """
    *numbers, text = columns
    flags = json.loads(text) if text else []
    if not all(isinstance(flag, str) for flag in flags) or any(isinstance(number, str | bytes) for number in numbers):
        raise ValueError(columns)
    return Usage(*[*numbers, tuple(flags)])


def usage_columns(usage: Usage) -> tuple[object, ...]:
    """The columns of a usage, in that order."""
    *numbers, flags = (getattr(usage, name) for name in USAGE_COLUMNS)
    return (*numbers, _text(flags) if flags else None)


def number_of(connection: sqlite3.Connection, text: str) -> int:
    """The number of a text in `texts`, where it is put if it isn't there."""
    found = connection.execute("SELECT id FROM texts WHERE text = ?", (text,)).fetchone()
    if found is not None:
        return int(found[0])
    return int(connection.execute("INSERT INTO texts (text) VALUES (?)", (text,)).lastrowid or 0)


def event_text(who: str, what: str, from_state: str | None, to_state: str | None) -> str:
    """What an event has in common with others."""
    return _text([who, what, from_state, to_state])


@lru_cache(maxsize=256)
def event_of(text: str) -> tuple[str, str, str | None, str | None]:
    """Who, what, from which state and to which."""
    who, what, from_state, to_state = json.loads(text)
    return who, what, from_state, to_state


@lru_cache(maxsize=1024, typed=True)
def _task_text(config: str | tuple[str, ...], marker: str | tuple[str, ...], *spec: Any) -> str:
    return _text({"config": config, "marker": marker, **dict(zip(_SPEC, spec, strict=True))})


@lru_cache(maxsize=1024)
def _parsed_task(text: str) -> tuple[Any, Any, dict[str, Any]]:
    common = json.loads(text)
    config, marker = common.pop("config"), common.pop("marker")
    spec = {name: tuple(value) if isinstance(value, list) else value for name, value in common.items()}
    spec["environment"] = tuple((name, value) for name, value in spec["environment"])
    return config, marker, spec


@lru_cache(maxsize=1024)
def _parsed_run(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    common = json.loads(text)
    record = {name: common.pop(name) for name in _RECORD}
    record["command"] = common.pop("command", ())
    common["gpus"], common["devices"] = tuple(common["gpus"]), tuple(common["devices"])
    return common, record


def _own_record(record: RunRecord) -> str | None:
    own = {name: value for name, default in _OWN.items() if (value := getattr(record, name)) != default}
    if record.port is not None:
        own["command"] = record.command
    return _text(own) if own else None


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _around(text: Any, name: str) -> Any:
    """The text without the name: what stands around it, wherever it is a word of its own."""
    if not text or not name or name not in text:
        return text
    first, *others = text.split(name)
    parts = [first]
    for part in others:
        if parts[-1][-1:].isalnum() or part[:1].isalnum():  # the end or the beginning of another word
            parts[-1] += name + part
        else:
            parts.append(part)
    return tuple(parts) if len(parts) > 1 else text


def _joined(parts: Any, name: str) -> str:
    if isinstance(parts, str):
        return parts
    return name.join(parts)


# -- rows of before version 3, as SQL functions of its migration: name, number of arguments, function


def _old_task_text(name: str, config: str, spec: str) -> str:
    return task_text(_old_task(name, config, spec))


def _old_marker(spec: str) -> str | None:
    return _old_task("", "", spec).spec.old_marker or None


def _old_task(name: str, config: str, spec: str) -> Task:
    return Task(0, name, config, records.spec_of(spec), TaskState.QUEUED, 0, 0, 0.0, 0.0)


def _old_run_text(task: str, run_id: str, *columns: Any) -> str:
    names = ("gpus", "devices", "exclusive", "executor", "work_dir", "boot_id", "directory", "log", "lease", "marker",
             "record")  # fmt: skip
    given = dict(zip(names, columns, strict=True))
    given |= {
        "gpus": tuple(json.loads(given["gpus"])),
        "devices": tuple(json.loads(given["devices"])),
        "exclusive": bool(given["exclusive"]),
        "record": records.record_of(given["record"]),
    }
    unshared: dict[str, Any] = {"session": "", "marker_before": None, "created_at": 0.0}
    return run_text(Run(id=run_id, task_id=0, task=task, attempt=0, state=RunState.ENDED, **given, **unshared))


def _old_own_record(record: str | None) -> str | None:
    return _own_record(records.record_of(record))


FUNCTIONS = (
    ("task_text", 3, _old_task_text),
    ("old_marker", 1, _old_marker),
    ("run_text", 13, _old_run_text),
    ("own_record", 1, _old_own_record),
    ("event_text", 4, event_text),
)
