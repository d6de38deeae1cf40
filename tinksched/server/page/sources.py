"""Where the page gets its facts: from a server, or from a workspace without one. Read in the feed's own thread."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ...core.model import Reason
from ...errors import TinkschedError
from ...host.completion import marker_identity
from ...operations.metrics import ENDINGS, files_of
from ...operations.status import Outlook
from ...operations.workspace import Workspace, find, user_name
from ...scheduler.devices import Watch
from ...store import Glance
from .cards import Owned
from .detail import Facts


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why nothing starts, or nothing is known: for whoever runs it, and for its users."""

    full: str
    plain: str


class Source(Protocol):
    """What the two have in common."""

    mode: str
    title: str

    @property
    def workspace(self) -> Workspace:
        """Whose store holds the tasks."""

    @property
    def watch(self) -> Watch | None:
        """What looks at the GPUs; None if nothing does at present."""

    def owned(self, glances: Collection[Glance]) -> Mapping[int, Owned]:
        """What these tasks are, by their ids. Called in the feed's thread.

        Raises:
            TinkschedError, sqlite3.Error: it can't be read.
        """

    def moving(self) -> Collection[int]:
        """The ids of tasks that may have changed though no event says so."""

    def said(self, reason: Reason, owned: Owned) -> str:
        """A reason, as its owner may read it."""

    def facts(self, facts: Facts) -> Facts:
        """What the store knows of a job, and what else there is: its config, its logs, where its numbers may be."""

    def trouble(self, outlook: Outlook) -> Trouble | None:
        """What is wrong as a whole."""

    def close(self) -> None:
        """Let go of everything. Called in the feed's thread."""


class WorkspaceSource:
    """A workspace of its own: everything in it is the user's who looks."""

    mode = "workspace"

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._config = marker_identity(workspace.settings.file)
        self.title = workspace.settings.task_name
        self.watch: Watch | None = Watch(patience=1.0)
        self._user = user_name()

    @property
    def workspace(self) -> Workspace:
        """As its configuration is now; one that has problems is not taken over."""
        settings = self._workspace.settings
        identity = marker_identity(settings.file)
        if identity not in (None, self._config):
            self._config = identity
            with contextlib.suppress(TinkschedError):
                self._workspace = find(settings.workspace, settings.file)
        return self._workspace

    def owned(self, glances: Collection[Glance]) -> Mapping[int, Owned]:
        return {one.id: Owned(str(one.id), "task", self._user, one.name, one.queued_at) for one in glances}

    def moving(self) -> Collection[int]:
        return ()

    def said(self, reason: Reason, owned: Owned) -> str:
        return reason.text

    def facts(self, facts: Facts) -> Facts:
        folder, task = self.workspace.settings.output_dir, facts.card.task
        there = {path.name for path in (folder / f"{task}_metrics.{ending}" for ending in ENDINGS) if path.exists()}
        there |= {task} if (folder / task).is_dir() else set()
        log = facts.runs[-1].log if facts.runs else None
        logs = {"log": Path(log)} if log is not None else {}
        return replace(facts, measured=files_of(folder, task, there), logs=logs)

    def trouble(self, outlook: Outlook) -> Trouble | None:
        if outlook.scheduler_pid is None and outlook.waiting:
            by = f" (stopped {outlook.stopped})" if outlook.stopped else ""
            text = f"no scheduler runs{by}: `tinksched start` starts one"
        elif outlook.paused is not None:
            text = outlook.paused.text
        else:
            return None
        return Trouble(text, text)

    def close(self) -> None:
        pass
