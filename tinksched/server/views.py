"""What the HTTP API says of jobs and nodes, as its contract has it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from ..core.model import ReasonCode
from .desk import Desk
from .folders import read_text
from .projection import Projection
from .services_tables import ServiceTables
from .tables import Job

Answer = dict[str, Any]


def iso(at: float | None) -> str | None:
    """A time as ISO 8601 in UTC with an offset."""
    return None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat()


def reason_of(desk: Desk, job: Job) -> str | None:
    """Why a job waits, or how it ended, where there is something to say."""
    if job.status == "pending" and desk.tables.stopped() is not None:
        return "the administrator has stopped the start of jobs"
    if job.reason is None:
        return None
    if job.reason.code is ReasonCode.TIME_LIMIT and job.ended_at is not None and job.started_at is not None:
        return f"timed out after {job.ended_at - job.started_at:.0f} s"
    return job.reason.text


def node_and_place(desk: Desk, job: Job) -> tuple[int | None, int | None]:
    """On which node a job runs, ran or will run; and its place in the queue, from 0, while it waits."""
    if job.status == "pending":
        return desk.projection().places.get(job.id, (None, None))
    nodes = desk.nodes_of(job)
    return (nodes[0] if nodes else None), None


def status(desk: Desk, job: Job) -> Answer:
    """`/api/status`."""
    node, place = node_and_place(desk, job)
    return {
        "job_id": job.id,
        "status": job.status,
        "node_id": node,
        "queue_position": place,
        "created_at": iso(job.created_at),
        "started_at": iso(job.started_at),
        "completed_at": iso(job.ended_at),
        "exit_code": job.exit_code,
        "reason": reason_of(desk, job),
        "warnings": list(job.warnings),
    }


def results(desk: Desk, job: Job, reason: str | None) -> Answer:
    """`/api/results`. Reads files: not for the event loop, which alone reads the database."""
    over = job.is_over and desk.folders.output(job.id).exists()  # if not, `keep_results` has passed
    most = desk.settings.max_answer_size
    return {
        "job_id": job.id,
        "status": job.status,
        "stdout": read_text(desk.folders.result(job.id), most) if over else None,
        "stderr": read_text(desk.folders.stderr(job.id), most) if over else None,
        "exit_code": job.exit_code,
        "started_at": iso(job.started_at),
        "completed_at": iso(job.ended_at),
        "results_file": job.results_file if job.results_file and os.path.exists(job.results_file) else None,
        "reason": reason,
        "warnings": list(job.warnings),
    }


def accepted(desk: Desk, job: Job) -> Answer:
    """The answer to a submission that does not wait."""
    node, place = node_and_place(desk, job)
    return {
        "job_id": job.id,
        "node_id": node,
        "status": "pending",
        "queue_position": place if place is not None else 0,
        "message": "Job submitted successfully",
        "warnings": list(job.warnings),
        "created_at": iso(job.created_at),
    }


def place(desk: Desk, job: Job) -> Answer:
    """Where a job is, for an answer that says more of it."""
    node, place = node_and_place(desk, job)
    return {"node_id": node, "queue_position": place, "created_at": iso(job.created_at)}


def listed(desk: Desk, job: Job) -> Answer:
    """A line of `/api/jobs`."""
    return {
        "job_id": job.id,
        "user_id": job.user,
        "status": job.status,
        "competition_id": job.competition,
        "project_id": job.project,
        "node_id": node_and_place(desk, job)[0],
        "created_at": iso(job.created_at),
        "started_at": iso(job.started_at),
        "completed_at": iso(job.ended_at),
        "exit_code": job.exit_code,
    }


def nodes(desk: Desk) -> list[Answer]:
    """`/api/nodes`: nothing in it says whose jobs there are."""
    projection, busy = desk.projection(), _busy(desk)
    return [_node(desk, number, projection, busy) for number in desk.engine.nodes]


def _node(desk: Desk, number: int, projection: Projection, busy: Mapping[int, Job | None]) -> Answer:
    device = desk.engine.gpus.get(number)
    return {
        "node_id": number,
        "name": f"GPU {number}" if device is not None and desk.engine.gpus_per_job else f"CPU slot {number}",
        "state": "busy" if number in busy else "idle",
        "queue_length": projection.lengths.get(number, 0),
        "total_wait_time": round(projection.times.get(number, 0.0), 3),
        "gpus": [device] if device is not None else [],
        "slots_used": int(number in busy),
        "slots_total": 1,
    }


def _busy(desk: Desk) -> dict[int, Job | None]:
    """The job on each node; None for a service job. CPU slots are all alike, so there the first ones are busy."""
    running, services = desk.tables.running(), ServiceTables(desk.tables).running()
    if not desk.engine.gpus_per_job:
        return dict(zip(desk.engine.nodes, [*running, *(None for _ in services)], strict=False))
    on_gpus: dict[int, Job | None] = {gpu: None for service in services for gpu in service.gpus}
    return {**on_gpus, **{node: job for job in running for node in desk.nodes_of(job)}}


def dashboard(desk: Desk, user: str, whose: str | None, *, is_admin: bool) -> Answer:
    """`/api/dashboard`: only what is that user's, or (for None) everybody's."""
    now, counts = time.time(), desk.tables.counts(whose)
    projection, busy = desk.projection(), _busy(desk)
    ended = desk.tables.ended(100, whose)
    active = [job for job in (*desk.tables.running(), *desk.tables.waiting()) if whose in (None, job.user)]
    answer: Answer = {
        "timestamp": iso(now),
        "user_id": user,
        "is_admin": is_admin,
        "job_statistics": _tally(counts, ("pending", "running", "completed", "failed", "cancelled")),
        "node_statistics": nodes(desk),
        "queue_information": [
            {
                "node_id": number,
                "queue_size": projection.lengths.get(number, 0),
                "queue_time_seconds": round(projection.times.get(number, 0.0), 3),
                "is_busy": number in busy,
                "current_job": _current(busy.get(number), whose),
            }
            for number in desk.engine.nodes
        ],
        "active_jobs": [
            {
                **{key: status(desk, job)[key] for key in ("status", "node_id", "queue_position")},
                "job_id": job.id,
                "user_id": job.user,
                "competition_id": job.competition,
                "expected_time": job.expected_time,
                "created_at": iso(job.created_at),
                "started_at": iso(job.started_at),
            }
            for job in active
        ],
        "recent_jobs": [{**listed(desk, job), "duration_seconds": _seconds(job)} for job in ended[:10]],
        "health_metrics": {
            "node_utilization_percent": round(100 * len(busy) / max(1, len(desk.engine.nodes)), 1),
            "average_queue_time_seconds": _average_wait(ended),
            "total_active_jobs": len(active),
            "success_rate_percent": _success(ended),
            "jobs_last_24h": desk.tables.since(now - 86_400.0, whose),
        },
    }
    if is_admin:
        kinds = ("pending", "running", "completed", "failed")
        users = sorted({name for name, _ in counts})
        answer["user_statistics"] = {
            name: _tally({key: count for key, count in counts.items() if key[0] == name}, kinds) for name in users
        }
    return answer


def _current(job: Job | None, whose: str | None) -> Answer | None:
    if job is None or whose not in (None, job.user):
        return None
    return {
        "job_id": job.id,
        "user_id": job.user,
        "competition_id": job.competition,
        "started_at": iso(job.started_at),
    }


def _tally(counts: Mapping[tuple[str, str], int], kinds: Iterable[str]) -> Answer:
    total = sum(counts.values())
    by_kind = {kind: sum(count for (_, status), count in counts.items() if status == kind) for kind in kinds}
    return {"total": total, **by_kind}


def _seconds(job: Job) -> float | None:
    if job.started_at is None or job.ended_at is None:
        return None
    return round(max(0.0, job.ended_at - job.started_at), 3)


def _average_wait(ended: Iterable[Job]) -> float | None:
    waits = [job.started_at - job.created_at for job in ended if job.started_at is not None]
    return round(math.fsum(waits) / len(waits), 3) if waits else None


def _success(ended: Iterable[Job]) -> float | None:
    """Of those that ended by themselves: what was cancelled is neither a success nor a failure."""
    good = [job.status == "completed" for job in ended if job.status != "cancelled"]
    return round(100 * sum(good) / len(good), 1) if good else None
