"""A job as the page has it: made once, as JSON, and again only when something of it changes. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

from ...core.model import Outcome, RunState, TaskState
from ...store import Glance

QUEUED, STARTING, RUNNING = "queued", "starting", "running"
COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"
_ENDS = {Outcome.COMPLETED.value: COMPLETED, Outcome.CANCELLED.value: CANCELLED}


class Owned(NamedTuple):
    """What the store does not say of a task: whose it is, and what it is to them."""

    id: str
    kind: str  # job, training, inference, task
    user: str
    name: str
    created_at: float
    port: int | None = None
    url: str | None = None
    status: str | None = None  # where it is more than what the task says: a service runs once it answers
    error: str | None = None  # the same


class Prospect(NamedTuple):
    """What is to be said of a job besides; of one that waits it may change while nothing happens to the job."""

    place: int | None = None  # from 1
    reason: str | None = None
    expected_start: float | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """A job, all but ready to be sent: `core` is the JSON of what the job itself is."""

    id: str
    task: str  # its name in the store
    user: str
    kind: str
    name: str
    status: str
    attempt: int
    exit_code: int | None
    created_at: float
    order: tuple[float, float, float]  # the most relevant ones first
    core: str
    prospect: Prospect

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in (QUEUED, STARTING, RUNNING)

    @property
    def text(self) -> str:
        """Its JSON."""
        return f"{self.core}, {json.dumps(self.prospect._asdict(), allow_nan=False)[1:]}"


def status_of(glance: Glance) -> str:
    """The status of a task in the words of the page."""
    if glance.state == TaskState.QUEUED.value:
        return QUEUED
    if glance.state == TaskState.ACTIVE.value:
        return RUNNING if glance.run_state == RunState.RUNNING.value else STARTING
    return _ENDS.get(str(glance.outcome), FAILED)


def card_of(glance: Glance, owned: Owned, prospect: Prospect, error: str | None) -> Card:
    """The card of a task. `error` says why it failed, if it did."""
    status = owned.status or status_of(glance)
    ran = glance.has_run
    over = glance.state == TaskState.DONE.value
    began = glance.began_at if ran else None
    ended = (glance.ended_at if ran and glance.ended_at is not None else glance.changed_at) if over else None
    exit_code = glance.exit_code if over and ran else None
    core = {
        "id": owned.id,
        "kind": owned.kind,
        "name": owned.name,
        "user": owned.user,
        "status": status,
        "gpus": glance.gpus if ran else (),
        "port": owned.port,
        "url": owned.url,
        "created_at": owned.created_at,
        "started_at": began,
        "ended_at": ended,
        "error": (owned.error or error) if status == FAILED else None,
        "exit_code": exit_code,
        "attempt": glance.attempts,
    }
    return Card(
        owned.id, glance.name, owned.user, owned.kind, owned.name, status, glance.attempts, exit_code,
        owned.created_at, _order(glance, status, began, ended), json.dumps(core, allow_nan=False)[:-1], prospect,
    )  # fmt: skip


def with_prospect(card: Card, prospect: Prospect) -> Card:
    """The card with other prospects. Thousands get other places at each start, and `replace` takes its time."""
    if card.prospect == prospect:
        return card
    return Card(
        card.id, card.task, card.user, card.kind, card.name, card.status, card.attempt, card.exit_code,
        card.created_at, card.order, card.core, prospect,
    )  # fmt: skip


def _order(glance: Glance, status: str, began: float | None, ended: float | None) -> tuple[float, float, float]:
    """What runs, then what waits in the order in which it is considered, then what ended, the newest first."""
    if ended is not None:
        return (2, -ended, -glance.id)
    if status == QUEUED:
        return (1, -glance.priority, glance.queue_number)
    return (0, began or 0.0, glance.id)
