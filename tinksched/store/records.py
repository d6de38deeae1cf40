"""Tasks and runs as rows that tell everything by themselves, and back. JSON is used for what is never searched by.

So they stand beside each run (`about`), and so databases of before version 3 had them; `packing` has the present form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from ..core.diagnosis import Diagnosis, Kind
from ..core.model import Hold, Outcome, Reason, ReasonCode, Request, Run, RunRecord, RunState, Task, TaskSpec, TaskState

Row = Mapping[str, Any]
_OUTCOMES = {outcome.value: outcome for outcome in Outcome}  # thousands are asked for at once


def task_of(row: Row) -> Task:
    """A task from its row."""
    return Task(
        id=row["id"],
        name=row["name"],
        config=row["config"],
        spec=spec_of(row["spec"]),
        state=TaskState(row["state"]),
        priority=row["priority"],
        queue_number=row["queue_number"],
        queued_at=row["queued_at"],
        changed_at=row["changed_at"],
        attempts=row["attempts"],
        outcome=outcome_of(row["outcome"]),
        reason=reason_of(row["reason"]),
        request=Request(row["request"]) if row["request"] else None,
        config_hash=row["config_hash"],
        failures=row["failures"],
        not_before=row["not_before"],
        need=row.get("need"),  # what stands beside a run of an older version has none
        hold=hold_of(row.get("hold")),
    )


def task_row(task: Task) -> dict[str, object]:
    """The columns of a task, its id and name aside."""
    return {
        "config": task.config,
        "spec": json.dumps(asdict(task.spec), separators=(",", ":")),
        "state": task.state.value,
        "priority": task.priority,
        "queue_number": task.queue_number,
        "queued_at": task.queued_at,
        "changed_at": task.changed_at,
        "attempts": task.attempts,
        "outcome": task.outcome.value if task.outcome else None,
        "reason": reason_text(task.reason),
        "config_hash": task.config_hash,
        "failures": task.failures,
        "not_before": task.not_before,
        "need": task.need,
        "hold": hold_text(task.hold),
    }


def run_of(row: Row) -> Run:
    """A run from its row, joined with the name of its task as `task`."""
    columns = {
        **row,
        "state": RunState(row["state"]),
        "outcome": outcome_of(row["outcome"]),
        "reason": reason_of(row["reason"]),
        "gpus": tuple(json.loads(row["gpus"])),
        "devices": tuple(json.loads(row["devices"])),
        "exclusive": bool(row["exclusive"]),
        "record": record_of(row["record"]),
    }
    return Run(**columns)


def run_row(run: Run) -> dict[str, object]:
    """The columns of a run, its id and task aside."""
    columns = asdict(run)
    for key in ("id", "task", "task_id"):
        del columns[key]
    columns |= {
        "state": run.state.value,
        "outcome": run.outcome.value if run.outcome else None,
        "reason": reason_text(run.reason),
        "gpus": json.dumps(run.gpus),
        "devices": json.dumps(run.devices),
        "exclusive": int(run.exclusive),
        "record": json.dumps(asdict(run.record)),
    }
    return columns


def about(task: Task, run: Run) -> dict[str, dict[str, object]]:
    """The rows of a task and its run by columns: what is kept beside the run, from which both can be made again."""
    return {"task": {"name": task.name, **task_row(task)}, "run": {"id": run.id, **run_row(run)}}


@lru_cache(maxsize=256)
def reason_of(text: str | None) -> Reason | None:
    """A reason from its JSON."""
    if text is None:
        return None
    record = json.loads(text)
    found = record.get("found")
    diagnosis = Diagnosis(Kind(found["kind"]), found["text"]) if found else None
    return Reason(ReasonCode(record["code"]), record.get("detail", {}), diagnosis)


def reason_text(reason: Reason | None) -> str | None:
    """A reason as JSON."""
    if reason is None:
        return None
    record: dict[str, object] = {"code": reason.code.value, "detail": dict(reason.detail)}
    if reason.found is not None:
        record["found"] = {"kind": reason.found.kind.value, "text": reason.found.text}
    return json.dumps(record, ensure_ascii=False)


@lru_cache(maxsize=16)
def hold_of(text: str | None) -> Hold | None:
    """A hold from its JSON."""
    return Hold(**json.loads(text)) if text else None


@lru_cache(maxsize=16)
def hold_text(hold: Hold | None) -> str | None:
    """A hold as JSON."""
    return json.dumps(asdict(hold), ensure_ascii=False) if hold else None


def outcome_of(text: str | None) -> Outcome | None:
    """An outcome from its column."""
    return (_OUTCOMES.get(text) or Outcome(text)) if text else None


def spec_of(text: str) -> TaskSpec:
    """A spec from its JSON."""
    columns: dict[str, Any] = json.loads(text)
    record: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in columns.items()}
    record["environment"] = tuple((name, value) for name, value in record["environment"])
    return TaskSpec(**record)


def record_of(text: str | None) -> RunRecord:
    """Runs of before version 2 have none."""
    if text is None:
        return RunRecord()
    record = json.loads(text)
    record["command"] = tuple(record["command"])
    return RunRecord(**record)


def moved(value: Any, old: str, new: str) -> Any:
    """A value in which every path at or below `old` lies at or below `new`."""
    if isinstance(value, str):
        return new + value[len(old) :] if value == old or value.startswith(f"{old}/") else value
    if isinstance(value, list | tuple):
        return type(value)(moved(item, old, new) for item in value)
    if isinstance(value, dict):
        return {key: moved(item, old, new) for key, item in value.items()}
    return value
