"""The shapes of requests and answers, for the interactive reference: each field with its meaning and an example."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

STATUSES = ("pending", "running", "completed", "failed", "cancelled")
_ID = "6f1c0f3e-7d0c-4a52-9a64-0f2d1f3b8f10"
_AT = "2026-01-31T12:00:00.000000+00:00"

SUBMISSION: dict[str, Any] = {
    "type": "object",
    "required": ["code", "config_file"],
    "properties": {
        "code": {"type": "string", "format": "binary", "description": "the Python script (UTF-8)"},
        "config_file": {
            "type": "string",
            "format": "binary",
            "description": "YAML or JSON with competition_id, project_id, user_id, expected_time (seconds), and token "
            "unless it is in the Authorization header",
        },
    },
}


def _job_id() -> Any:
    return Field(description="the job", examples=[_ID])


def _status() -> Any:
    return Field(description=f"one of {', '.join(STATUSES)}", examples=["completed"])


def _at(what: str) -> Any:
    return Field(None, description=f"when it {what}, in UTC; null if it has not", examples=[_AT])


def _node() -> Any:
    return Field(None, description="its node, or the one that it will probably get", examples=[0])


def _exit_code() -> Any:
    return Field(None, description="of its process; 128 + n after signal n", examples=[0])


def _place() -> Any:
    return Field(None, description="how many jobs are before it; null unless it waits", examples=[2])


def _user() -> Any:
    return Field(description="whose job it is", examples=["alice"])


def _warnings() -> Any:
    return Field(
        description="what was noticed when it was submitted", examples=[["imports no library of machine learning"]]
    )


class Error(BaseModel):
    """What is wrong."""

    detail: str = Field(description="one sentence for a person", examples=["Invalid or expired token"])


class Status(BaseModel):
    """A job so far."""

    job_id: str = _job_id()
    status: str = _status()
    node_id: int | None = _node()
    queue_position: int | None = _place()
    created_at: str = Field(description="when it was submitted, in UTC", examples=[_AT])
    started_at: str | None = _at("started")
    completed_at: str | None = _at("ended")
    exit_code: int | None = _exit_code()
    reason: str | None = Field(None, description="why it waits, or how it ended", examples=["timed out after 600 s"])
    warnings: list[str] = _warnings()


class Results(BaseModel):
    """What a job printed."""

    job_id: str = _job_id()
    status: str = _status()
    stdout: str | None = Field(None, description="its results.jsonl if it wrote one, else what it printed",
                               examples=["{\"score\": 0.93}\n"])  # fmt: skip
    stderr: str | None = Field(None, description="what it printed as errors", examples=[""])
    exit_code: int | None = _exit_code()
    started_at: str | None = _at("started")
    completed_at: str | None = _at("ended")
    results_file: str | None = Field(
        None, description="on the server", examples=["alice_titanic_20260131_120000.jsonl"]
    )
    reason: str | None = Field(None, description="how it ended, where there is something to say", examples=[None])
    warnings: list[str] = _warnings()


class Finished(Results):
    """The answer to a submission that waited; one with `wait=false` has a message and no results."""

    node_id: int | None = _node()
    queue_position: int | None = _place()
    created_at: str = Field(description="when it was submitted, in UTC", examples=[_AT])
    message: str | None = Field(None, description="only with wait=false", examples=["Job submitted successfully"])


class Cancelled(BaseModel):
    """A job will end, or never begin."""

    message: str = Field(description="for a person", examples=["Job cancelled successfully"])
    status: str = Field(description="always cancelled", examples=["cancelled"])


class Listed(BaseModel):
    """A job in a list."""

    job_id: str = _job_id()
    user_id: str = _user()
    status: str = _status()
    competition_id: str = Field(description="as submitted", examples=["titanic"])
    project_id: str = Field(description="as submitted", examples=["baseline"])
    node_id: int | None = _node()
    created_at: str = Field(description="when it was submitted, in UTC", examples=[_AT])
    started_at: str | None = _at("started")
    completed_at: str | None = _at("ended")
    exit_code: int | None = _exit_code()


class Node(BaseModel):
    """A GPU of the server, or a CPU slot."""

    node_id: int = Field(description="its number", examples=[0])
    name: str = Field(description="for a person", examples=["GPU 0"])
    state: str = Field(description="idle or busy", examples=["idle"])
    queue_length: int = Field(description="jobs that wait and will probably run here", examples=[2])
    total_wait_time: float = Field(description="seconds of work ahead, as expected by its owners", examples=[420.0])
    gpus: list[str] = Field(description="the names of its GPUs", examples=[["GPU-8a6f"]])
    slots_used: int = Field(description="jobs that run here", examples=[1])
    slots_total: int = Field(description="jobs that may run here at once", examples=[1])


class Dashboard(BaseModel):
    """Everything at once."""

    timestamp: str = Field(description="now, in UTC", examples=[_AT])
    user_id: str = Field(description="who asks", examples=["alice"])
    is_admin: bool = Field(description="whether everybody's jobs are in the answer", examples=[False])
    job_statistics: dict[str, int] = Field(description="jobs by status, and their total", examples=[{"total": 1}])
    user_statistics: dict[str, dict[str, int]] | None = Field(None, description="by user; for admins", examples=[None])
    node_statistics: list[Node] = Field(description="as /api/nodes", examples=[[]])
    queue_information: list[dict[str, Any]] = Field(description="each node with its queue and its job", examples=[[]])
    active_jobs: list[dict[str, Any]] = Field(description="jobs that wait or run", examples=[[]])
    recent_jobs: list[dict[str, Any]] = Field(description="the last 10 that ended", examples=[[]])
    health_metrics: dict[str, Any] = Field(description="how busy and how successful", examples=[{"jobs_last_24h": 3}])


class Health(BaseModel):
    """Whether jobs can be run."""

    status: str = Field(description="healthy or unhealthy", examples=["healthy"])
    database: str = Field(description="ok, or what is wrong with it", examples=["ok"])
    scheduler: str = Field(description="ok, or what is wrong with it", examples=["ok"])
    nodes: dict[str, int] = Field(description="reachable and total", examples=[{"reachable": 4, "total": 4}])
    free_disk: int | None = Field(None, description="bytes", examples=[10**11])


class Service(BaseModel):
    """What this is."""

    service: str = Field(description="its name", examples=["tinksched"])
    version: str = Field(description="its version", examples=["0.1.0"])
    endpoints: dict[str, str] = Field(description="where to go on", examples=[{"docs": "/docs"}])
