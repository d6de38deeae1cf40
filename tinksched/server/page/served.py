"""A server as the source of its page: the jobs of both HTTP APIs, each with its owner."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace

from ...core.model import Reason
from ...operations.metrics import ENDINGS
from ...operations.status import Outlook
from ...operations.workspace import Workspace
from ...scheduler.devices import Watch
from ...store import Glance
from ..discretion import discreet
from ..engine import Engine
from ..folders import RESULTS, Folders
from ..services_setup import url_of
from ..services_tables import Service, ServiceTables
from ..tables import Tables
from .cards import Owned
from .detail import Facts
from .sources import Trouble

NOBODY = ""  # whose the tasks are that somebody queued by hand in the server's workspace
_NAMES = ("experiment_name", "name", "project_name", "model_path", "model")
_LONGEST_NAME = 200
_PLAIN = "the server starts no jobs at present"


class ServerSource:
    """See `Source`."""

    mode = "server"
    title = "tinksched"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tables: Tables | None = None
        self._folders = Folders(engine.folder)
        self._moving: set[int] = set()
        self._owners: dict[str, str] = {}  # by job

    @property
    def workspace(self) -> Workspace:
        return Workspace(self._engine.workspace, self._engine.state)

    @property
    def watch(self) -> Watch | None:
        return self._engine.watch

    def renewed(self) -> None:
        """The database is another file now. Called in the feed's thread."""
        self.close()

    def owned(self, glances: Collection[Glance]) -> Mapping[int, Owned]:
        found = {one.id: Owned(one.name, "task", NOBODY, one.name, one.queued_at) for one in glances}
        for one in self._known().owners([one.id for one in glances]):
            name = f"{one.competition}/{one.project}"
            found[one.task_id] = Owned(one.job_id, "job", one.user, name, one.created_at)
        services = ServiceTables(self._known()).of_tasks([one.id for one in glances])
        found.update((task, self._service(one)) for task, one in services.items())
        self._owners.update((one.id, one.user) for one in found.values())
        return found

    def _service(self, one: Service) -> Owned:
        port = None if one.is_over else one.port
        url = url_of(self._engine.settings, port) if port is not None and one.status == "RUNNING" else None
        status = one.status.lower()
        return Owned(one.id, one.kind, one.user, _name_of(one), one.created_at, port, url, status, one.error)

    def _known(self) -> Tables:
        if self._tables is None:
            self._tables = Tables(self._engine.database)
        return self._tables

    def moving(self) -> Collection[int]:
        """What is written down of services beside their tasks; once more after it has been."""
        before, self._moving = self._moving, ServiceTables(self._known()).moving()
        return before | self._moving

    def said(self, reason: Reason, owned: Owned) -> str:
        return discreet(reason, lambda job: self._owners.get(job) == owned.user)

    def facts(self, facts: Facts) -> Facts:
        """The command is the isolation's, and says nothing to a user."""
        job_id = facts.card.id
        work = self._folders.work(job_id)
        config = self._known().config_of(job_id)
        service = ServiceTables(self._known()).service(job_id) if config is None else None
        config = json.dumps(service.request, indent=2, ensure_ascii=False) if service is not None else config
        measured = [work / f"metrics.{ending}" for ending in ENDINGS]
        logs = {"stdout": self._folders.stdout(job_id), "stderr": self._folders.stderr(job_id)}
        return replace(facts, config=config, config_file=None, measured=[*measured, work / RESULTS], logs=logs)

    def trouble(self, outlook: Outlook) -> Trouble | None:
        engine = self._engine
        if not engine.is_alive():
            return Trouble(f"no job is run any more: {engine.trouble or 'the scheduler ended'}", _PLAIN)
        if outlook.stopped is not None:
            how = f"tinksched --workspace {engine.folder} start goes on"
            return Trouble(f"stopped {outlook.stopped}; {how}", _PLAIN)
        return Trouble(outlook.paused.text, _PLAIN) if outlook.paused is not None else None

    def close(self) -> None:
        if self._tables is not None:
            self._tables.close()
        self._tables = None


def _name_of(one: Service) -> str:
    """What a person would call it: its model, or how its config names the experiment."""
    config = one.request.get("config")
    places = (one.request, config if isinstance(config, dict) else {})
    found = [place.get(key) for key in _NAMES for place in places]
    return next((text for text in found if isinstance(text, str) and text), one.kind)[:_LONGEST_NAME]
