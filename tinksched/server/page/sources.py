"""Where the page gets its facts: from a server, or from a workspace without one. Read in the feed's own thread."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from ...core.model import Reason
from ...operations.status import Outlook
from ...operations.workspace import Workspace, user_name
from ...scheduler.devices import Watch
from ...store import Glance
from .cards import Owned


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

    def trouble(self, outlook: Outlook) -> Trouble | None:
        """What is wrong as a whole."""

    def close(self) -> None:
        """Let go of everything. Called in the feed's thread."""


class WorkspaceSource:
    """A workspace of its own: everything in it is the user's who looks."""

    mode = "workspace"

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.title = workspace.settings.task_name
        self.watch: Watch | None = Watch(patience=1.0)
        self._user = user_name()

    def owned(self, glances: Collection[Glance]) -> Mapping[int, Owned]:
        return {one.id: Owned(str(one.id), "task", self._user, one.name, one.queued_at) for one in glances}

    def moving(self) -> Collection[int]:
        return ()

    def said(self, reason: Reason, owned: Owned) -> str:
        return reason.text

    def trouble(self, outlook: Outlook) -> Trouble | None:
        if outlook.scheduler_pid is None:
            by = f" (stopped {outlook.stopped})" if outlook.stopped else ""
            text = f"no scheduler runs{by}: `tinksched start` starts one"
        elif outlook.paused is not None:
            text = outlook.paused.text
        else:
            return None
        return Trouble(text, text)

    def close(self) -> None:
        pass
