"""What `status` shows of a workspace at one instant: typed, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

from ..core.gpu import GpuState
from ..core.model import Reason, Tenant
from ..core.usage import Usage
from .seen import state_json

JSON_VERSION = 1


class TaskStatus(NamedTuple):
    """A task as a user sees it. Times are seconds since the epoch. A tuple: there may be very many."""

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
    expected_start: float | None = None  # of a queued one
    expected_end: float | None = None  # of a queued or active one
    usage: Usage | None = None  # of its run, as far as anybody looked
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
    state: GpuState | None = None  # None without a driver


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
    batch_ends: float | None = None  # when all that is queued and active will probably be done
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
            "batch_ends": self.batch_ends,
            "tasks": self._tasks_json(),
        }

    def _tasks_json(self) -> list[dict[str, object]]:
        """Thousands wait for one reason, which is put in words once."""
        reasons = {id(task.reason): task.reason for task in self.tasks}
        said = {key: (_reason_json(reason), diagnosis_json(reason)) for key, reason in reasons.items()}
        return [_task_json(task, *said[id(task.reason)]) for task in self.tasks]


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
        "state": state_json(gpu.state),
    }


def diagnosis_json(reason: Reason | None) -> dict[str, str] | None:
    """What it was, for programs; None where that is not clear."""
    found = reason.diagnosis if reason else None
    return {"kind": found.kind.value, "text": found.text} if found else None


def _reason_json(reason: Reason | None) -> dict[str, object] | None:
    return {"code": reason.code.value, "text": reason.text, "detail": dict(reason.detail)} if reason else None


def _task_json(
    task: TaskStatus, reason: dict[str, object] | None, diagnosis: dict[str, str] | None
) -> dict[str, object]:
    return {
        "name": task.name,
        "number": task.number,
        "state": task.state,
        "reason": reason,
        "diagnosis": diagnosis,
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
        "expected_start": task.expected_start,
        "expected_end": task.expected_end,
        "session": task.session,
        "log": task.log,
        "pid": task.pid,
        "usage": asdict(task.usage) if task.usage else None,
    }
