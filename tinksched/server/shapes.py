"""The shapes of requests and answers, for the interactive reference: each field with its meaning and an example."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

STATUSES = ("pending", "running", "completed", "failed", "cancelled")
_ID = "6f1c0f3e-7d0c-4a52-9a64-0f2d1f3b8f10"
_AT = "2026-01-31T12:00:00.000000+00:00"
_CONFIG = "competition_id: titanic\nproject_id: baseline\nuser_id: alice\nexpected_time: 600\n"

SUBMISSION: dict[str, Any] = {
    "type": "object",
    "required": ["code", "config_file"],
    "properties": {
        "code": {
            "type": "string",
            "format": "binary",
            "description": "the Python script (UTF-8)",
            "examples": ["print('hello')\n"],
        },
        "config_file": {
            "type": "string",
            "format": "binary",
            "description": "YAML or JSON with competition_id, project_id, user_id, expected_time (seconds), and token "
            "unless it is in the Authorization header",
            "examples": [_CONFIG],
        },
    },
}
EVENTS: dict[str, Any] = {
    "description": "events `stdout` and `stderr` as the job prints, then `end` with its status as JSON",
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "string",
                "description": "server-sent events; with the last id in `Last-Event-ID` they go on from there",
                "examples": ["event: stdout\nid: 6-0\ndata: hello\ndata: \n\n"],
            }
        }
    },
}


def _job_id() -> Any:
    return Field(description="the job", examples=[_ID])


def _status() -> Any:
    return Field(description=f"one of {', '.join(STATUSES)}", examples=["completed"])


def _created() -> Any:
    return Field(description="when it was submitted, in UTC", examples=[_AT])


def _at(what: str) -> Any:
    return Field(description=f"when it {what}, in UTC; null if it has not", examples=[_AT])


def _node() -> Any:
    return Field(description="its node, or the one that it will probably get; null if it never had one", examples=[0])


def _node_id() -> Any:
    return Field(description="its number", examples=[0])


def _exit_code() -> Any:
    return Field(description="of its process; 128 + n after signal n; null before its end", examples=[0])


def _place() -> Any:
    return Field(description="how many jobs are before it; null unless it waits", examples=[2])


def _user() -> Any:
    return Field(description="whose job it is", examples=["alice"])


def _warnings() -> Any:
    return Field(
        description="what was noticed when it was submitted", examples=[["imports no library of machine learning"]]
    )


def _competition() -> Any:
    return Field(description="as submitted", examples=["titanic"])


def _warning() -> Any:
    return Field(None, description="what of the submission was ignored; only if there was something",
                 examples=["local_results_path is ignored"])  # fmt: skip


def _count(what: str) -> Any:
    return Field(description=what, examples=[3])


def _seconds(what: str) -> Any:
    return Field(description=what, examples=[420.0])


class Shape(BaseModel):
    """An answer has these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Error(Shape):
    """What is wrong."""

    detail: str = Field(description="one sentence for a person", examples=["Invalid or expired token"])


class Status(Shape):
    """A job so far."""

    job_id: str = _job_id()
    status: str = _status()
    node_id: int | None = _node()
    queue_position: int | None = _place()
    created_at: str = _created()
    started_at: str | None = _at("started")
    completed_at: str | None = _at("ended")
    exit_code: int | None = _exit_code()
    reason: str | None = Field(description="why it waits, or how it ended", examples=["timed out after 600 s"])
    warnings: list[str] = _warnings()


class Results(Shape):
    """What a job printed."""

    job_id: str = _job_id()
    status: str = _status()
    stdout: str | None = Field(description="its results.jsonl if it wrote one, else what it printed; null before its "
                               "end", examples=["{\"score\": 0.93}\n"])  # fmt: skip
    stderr: str | None = Field(description="what it printed as errors; null before its end", examples=[""])
    exit_code: int | None = _exit_code()
    started_at: str | None = _at("started")
    completed_at: str | None = _at("ended")
    results_file: str | None = Field(
        description="on the server; null if there is none", examples=["alice_titanic_20260131_120000.jsonl"]
    )
    reason: str | None = Field(description="how it ended, where there is something to say", examples=[None])
    warnings: list[str] = _warnings()


class Finished(Results):
    """The answer to a submission that waited: as the job is at its end, or when the time was up."""

    node_id: int | None = _node()
    queue_position: int | None = _place()
    created_at: str = _created()
    warning: str | None = _warning()


class Accepted(Shape):
    """The answer to a submission with wait=false."""

    job_id: str = _job_id()
    node_id: int | None = _node()
    status: str = Field(description="always pending", examples=["pending"])
    queue_position: int = Field(description="how many jobs are before it", examples=[2])
    message: str = Field(description="for a person", examples=["Job submitted successfully"])
    created_at: str = _created()
    warning: str | None = _warning()
    warnings: list[str] = _warnings()


Submitted = Finished | Accepted


class Cancelled(Shape):
    """A job will end, or never begin."""

    message: str = Field(description="for a person", examples=["Job cancelled successfully"])
    status: str = Field(description="always cancelled", examples=["cancelled"])


class Listed(Shape):
    """A job in a list."""

    job_id: str = _job_id()
    user_id: str = _user()
    status: str = _status()
    competition_id: str = _competition()
    project_id: str = Field(description="as submitted", examples=["baseline"])
    node_id: int | None = _node()
    created_at: str = _created()
    started_at: str | None = _at("started")
    completed_at: str | None = _at("ended")
    exit_code: int | None = _exit_code()


class Node(Shape):
    """A GPU of the server, or a CPU slot."""

    node_id: int = _node_id()
    name: str = Field(description="for a person", examples=["GPU 0"])
    state: str = Field(description="idle or busy", examples=["idle"])
    queue_length: int = _count("jobs that wait and will probably run here")
    total_wait_time: float = _seconds("seconds of work ahead, as expected by its owners")
    gpus: list[str] = Field(description="the names of its GPUs", examples=[["NVIDIA H200"]])
    slots_used: int = Field(description="jobs that run here", examples=[1])
    slots_total: int = Field(description="jobs that may run here at once", examples=[1])


class UserTally(Shape):
    """The jobs of a user."""

    total: int = _count("all of them")
    pending: int = _count("that wait")
    running: int = _count("that run")
    completed: int = _count("that ended well")
    failed: int = _count("that did not")


class Tally(UserTally):
    """How many jobs there are."""

    cancelled: int = _count("that somebody cancelled")


class Current(Shape):
    """The job on a node."""

    job_id: str = _job_id()
    user_id: str = _user()
    competition_id: str = _competition()
    started_at: str | None = _at("started")


class Queue(Shape):
    """A node with its queue and its job."""

    node_id: int = _node_id()
    queue_size: int = _count("jobs that wait and will probably run here")
    queue_time_seconds: float = _seconds("of work ahead")
    is_busy: bool = Field(description="whether a job runs here", examples=[True])
    current_job: Current | None = Field(description="the job, if it is the caller's business", examples=[None])


class Active(Shape):
    """A job that waits or runs."""

    job_id: str = _job_id()
    user_id: str = _user()
    competition_id: str = _competition()
    status: str = _status()
    node_id: int | None = _node()
    expected_time: int = Field(description="seconds, as submitted", examples=[600])
    created_at: str = _created()
    started_at: str | None = _at("started")
    queue_position: int | None = _place()


class Recent(Listed):
    """A job that has ended."""

    duration_seconds: float | None = _seconds("that it ran; null if it never began")


class Metrics(Shape):
    """How busy the server is, and how successful."""

    node_utilization_percent: float = Field(description="of the nodes that have a job", examples=[50.0])
    average_queue_time_seconds: float | None = _seconds("from submission to start, of the last 100 that ended")
    total_active_jobs: int = _count("jobs that wait or run")
    success_rate_percent: float | None = Field(description="of the last 100 that ended", examples=[97.0])
    jobs_last_24h: int = _count("jobs submitted in the last 24 hours")


class Dashboard(Shape):
    """Everything at once."""

    timestamp: str = Field(description="now, in UTC", examples=[_AT])
    user_id: str = Field(description="who asks", examples=["alice"])
    is_admin: bool = Field(description="whether that is an admin, who sees everybody's jobs", examples=[False])
    job_statistics: Tally = Field(description="jobs by status", examples=[dict.fromkeys(("total", *STATUSES), 3)])
    user_statistics: dict[str, UserTally] | None = Field(
        None, description="by user; only for admins", examples=[{"alice": dict.fromkeys(("total", *STATUSES[:4]), 3)}]
    )
    node_statistics: list[Node] = Field(description="as /api/nodes", examples=[[]])
    queue_information: list[Queue] = Field(description="each node with its queue and its job", examples=[[]])
    active_jobs: list[Active] = Field(description="jobs that wait or run", examples=[[]])
    recent_jobs: list[Recent] = Field(description="the last 10 that ended", examples=[[]])
    health_metrics: Metrics = Field(description="how busy and how successful", examples=[{"jobs_last_24h": 3}])


class Reachable(Shape):
    """The nodes of the server."""

    reachable: int = Field(description="that can run jobs", examples=[4])
    total: int = Field(description="all of them", examples=[4])


class Health(Shape):
    """Whether jobs can be run."""

    status: str = Field(description="healthy or unhealthy", examples=["healthy"])
    database: str = Field(description="ok, or what is wrong with it", examples=["ok"])
    scheduler: str = Field(description="ok, or what is wrong with it", examples=["ok"])
    nodes: Reachable = Field(description="the GPUs or CPU slots", examples=[{"reachable": 4, "total": 4}])
    free_disk: int | None = Field(description="bytes; null if nobody knows", examples=[10**11])


class Service(Shape):
    """What this is."""

    service: str = Field(description="its name", examples=["tinksched"])
    version: str = Field(description="its version", examples=["0.1.0"])
    status: str = Field(description="running", examples=["running"])
    authentication: str = Field(description="whether the OpenTinker API asks for a key: enabled or disabled",
                                examples=["enabled"])  # fmt: skip
    endpoints: dict[str, str] = Field(description="where to go on", examples=[{"docs": "/docs"}])
