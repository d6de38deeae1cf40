"""What may be done to jobs from the page: nothing in a workspace; on a server what its API allows as well."""

from __future__ import annotations

import logging
from typing import Protocol

from ...core.lifecycle import Requeued
from ...core.model import Task, TaskState
from ...store.transaction import Transaction
from .. import tables
from ..desk import Desk
from ..limits import Limits
from ..services import Services
from ..submission import Refused
from .cards import Card
from .views import Viewer

_BY_HAND = "Somebody has queued this by hand, in the server's workspace: the ordinary commands act on it there"
_KEYLESS = "The secrets of a service are not kept beyond its end: submit it again"
_log = logging.getLogger("tinksched.server")


class Works(Protocol):
    """What a source can have done."""

    async def cancel(self, viewer: Viewer, card: Card, address: str) -> str:
        """End a job. Returns what to tell. Raises Refused."""

    async def retry(self, viewer: Viewer, card: Card, address: str) -> str:
        """Queue a job that has ended again. Returns what to tell. Raises Refused."""


class ReadOnly:
    """See `Works`."""

    async def cancel(self, viewer: Viewer, card: Card, address: str) -> str:
        raise Refused(403, f"This page only shows: tinksched cancel {card.id}")

    async def retry(self, viewer: Viewer, card: Card, address: str) -> str:
        raise Refused(403, f"This page only shows: tinksched retry {card.id}")


class ServerWorks:
    """See `Works`."""

    def __init__(self, desk: Desk, services: Services, limits: Limits) -> None:
        self._desk = desk
        self._services = services
        self._limits = limits

    async def cancel(self, viewer: Viewer, card: Card, address: str) -> str:
        self._limits.hit("cancel", address)
        if card.kind == "job":
            await self._desk.cancel(card.id, viewer.user)
        elif card.kind == "task":
            raise Refused(400, _BY_HAND)
        elif not await self._services.cancel(self._services.known(card.id), viewer.user):
            raise Refused(400, "Job already completed")
        _log.info("Job %s cancelled by user_id=%s", card.id, viewer.user)
        return "Job cancelled successfully"

    async def retry(self, viewer: Viewer, card: Card, address: str) -> str:
        """The same job again, as `tinksched retry` does it: a new run, which counts as a submission."""
        desk, settings = self._desk, self._desk.settings
        if card.kind != "job":
            raise Refused(
                400, _BY_HAND if card.kind == "task" else "The keys of a service are not kept: submit it again"
            )
        is_exempt = viewer.is_admin and not settings.limit_admins
        self._limits.hit("submit", address)
        if not is_exempt:
            self._limits.hit("submit_user", address, viewer.user)
            self._limits.hit("user", viewer.user)
        if desk.closing:
            raise Refused(503, "The server is stopping", retry_after=10.0)
        if not desk.folders.work(card.id).is_dir():
            raise Refused(400, "What the job ran is not kept any more: submit it again")
        desk.folders.check_room(settings.min_free_disk)

        def requeue(tx: Transaction) -> None:
            task = _ended(tx, card)
            if not tables.is_dealt_with(tx, card.id):
                raise Refused(503, "Its results are being written: try again soon", retry_after=1.0)
            if not is_exempt and tables.active_jobs(tx.connection, card.user) >= settings.active_jobs:
                most = settings.active_jobs
                raise Refused(429, f"User already has {most} active job{'s' * (most > 1)}", retry_after=30.0)
            tx.apply(task, Requeued(tx.queue_numbers(1)[0], task.priority, task.spec))

        await desk.write(requeue)
        _log.info("Job %s queued again by user_id=%s", card.id, viewer.user)
        return "Job queued again"


def _ended(tx: Transaction, card: Card) -> Task:
    task = tx.task(card.task)
    if task is None:
        raise Refused(404, "Job not found")
    if task.state is not TaskState.DONE:
        raise Refused(400, "Job has not ended")
    return task
