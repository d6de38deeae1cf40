"""Finding a workspace, and what belongs to it."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import CONFIG_NAME, Origin, Settings, load
from ..errors import ConfigError, Damaged, NothingToActOn, Unwritable, WorkspaceError
from ..host import statedir
from ..host.statedir import Home, SchedulerLock, StateDir
from ..store import REPAIR, Store
from . import personal

PLACE = "place"  # the fact that says where the paths on record lie
_STATE = re.compile(r"""(?m)^state_dir:[ \t]*["']?([^"'#\n]+)""")
LAST_GOOD = "last_config.yml"  # in the state folder: the configuration that tasks were last queued with


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace with its settings, as somebody sees it who may only read."""

    settings: Settings
    state: StateDir
    trouble: ConfigError | None = None  # with the configuration, whose place `settings` take that were good once

    @property
    def lock(self) -> SchedulerLock:
        """The lock of its scheduler."""
        return SchedulerLock(self.state)

    def store(self) -> Store | None:
        """The store; None if nothing was ever queued here.

        Raises:
            StoreError: it can't be read.
            WorkspaceError: it belongs to another host.
        """
        if not self.state.exists:
            return None
        statedir.check_home(self.state)
        store = Store.reading(self.state.database, shared=self.state.shared)
        home = statedir.read_home(self.state)
        if home is None or (store.fact(PLACE) in (None, home.path) and home.path == str(self.settings.workspace)):
            return store
        # The first look after a move. A copy, or a place where nothing may be written, is shown as it is.
        with contextlib.suppress(WorkspaceError, Unwritable):
            self.open().store.close()
        return store

    def open(self) -> OpenWorkspace:
        """The workspace for somebody who is going to write.

        Raises:
            WorkspaceError: it belongs to somebody else, or can't be written.
            StoreError: its database can't be used.
        """
        before = statedir.read_home(self.state)
        state, home = statedir.prepare(self.settings.workspace, self.settings.state_dir)
        fresh = not state.database.is_symlink() and (not state.database.exists() or not state.database.stat().st_size)
        if fresh and state.has_traces:
            raise Damaged(
                f"{state.database}: the state database is gone or empty, but tasks have run here", hint=REPAIR
            )
        store = Store(state.database, create=True, shared=state.shared)
        _follow(store, before.path if before else home.path, home.path)
        return OpenWorkspace(self.settings, state, home, store)

    def open_existing(self) -> OpenWorkspace:
        """The same, where there is nothing to do without earlier tasks.

        Raises:
            NothingToActOn: nothing was ever queued here.
        """
        if not self.state.exists:
            raise NothingToActOn("nothing was ever queued in this workspace", hint="tinksched start")
        return self.open()


@dataclass(frozen=True, slots=True)
class OpenWorkspace:
    """A workspace with its state open for writing. Close it, or use it as a context."""

    settings: Settings
    state: StateDir
    home: Home
    store: Store

    @property
    def lock(self) -> SchedulerLock:
        """The lock of its scheduler."""
        return SchedulerLock(self.state)

    def __enter__(self) -> OpenWorkspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()


def _follow(store: Store, before: str, now: str) -> None:
    """Have the paths on record follow a workspace that was moved. The place is a fact, changed in the same commit."""
    place = store.fact(PLACE)
    if place == now:
        return
    with store.transaction(actor("moved"), time.time()) as tx:
        if (place or before) != now:
            tx.relocate(place or before, now)
        tx.set_fact(PLACE, now)


def find(directory: Path | None, config: Path | None, *, last_good: bool = False) -> Workspace:
    """The workspace that is meant: the named folder, or the nearest one upwards from here that has a configuration.

    What must work in any case (`stop`, `kill-all`, `logs`) sets `last_good`: if the configuration has problems, the one
    that tasks were last queued with is used, and the workspace says what the trouble is.

    Raises:
        WorkspaceError: there is none.
        ConfigError: its configuration has problems.
    """
    folder = folder_of(directory, config)
    trouble = None
    try:
        settings = load(folder, config.absolute() if config is not None else None)
    except ConfigError as error:
        kept = _kept(folder, config or folder / CONFIG_NAME) if last_good else None
        if kept is None:
            raise
        settings, trouble = load(folder, kept), error
    settings = _with_state(settings)
    return Workspace(settings, StateDir(settings.state_dir), trouble)


def _kept(folder: Path, config: Path) -> Path | None:
    """The configuration that tasks were last queued with, where it was kept: in the state folder, which the broken one
    may still name."""
    places = [statedir.default_folder(folder)]
    if config.is_file() and os.access(config, os.R_OK):
        places += [folder / found.strip() for found in _STATE.findall(config.read_text(errors="replace"))]
    return next((place / LAST_GOOD for place in places if (place / LAST_GOOD).is_file()), None)


def is_fallback(found: Workspace) -> bool:
    """Whether it is the personal workspace, and the current folder is not in it."""
    folder = personal.folder()
    return found.settings.workspace == folder and not Path.cwd().is_relative_to(folder)


def folder_of(directory: Path | None, config: Path | None) -> Path:
    """The folder of the workspace that is meant.

    Raises:
        WorkspaceError: there is none.
    """
    return _named(directory) if directory is not None else _nearest(config)


def _with_state(settings: Settings) -> Settings:
    """The settings with the folder of the private state, if the user named none and it can't be in the workspace."""
    if settings.origins["state_dir"].kind != "default":
        return settings
    folder = statedir.default_folder(settings.workspace)
    if folder == settings.state_dir:
        return settings
    note = Origin("default", note="the workspace is on a network file system")
    return replace(settings, state_dir=folder, origins={**settings.origins, "state_dir": note})


def actor(command: str) -> str:
    """Who does it, for the event log: the command and the user's name."""
    return f"{command} by {user_name()}"


def user_name() -> str:
    """The name of the user who runs this program."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this uid, as in many containers
        return str(os.geteuid())


def _named(directory: Path) -> Path:
    if not directory.is_dir():
        raise WorkspaceError(f"{directory}: there is no such folder", hint=f"tinksched setup-workspace {directory}")
    return directory


def _nearest(config: Path | None) -> Path:
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise WorkspaceError("the current folder was deleted", hint="cd to an existing folder") from None
    for folder in (here, *here.parents):
        if (folder / CONFIG_NAME).is_file():
            return folder
    if config is not None:
        return config.absolute().parent
    if personal.exists():
        return personal.folder()
    raise WorkspaceError(
        f"{here} is not in a workspace: no {CONFIG_NAME} here or in a folder above",
        hint="cd to your workspace, name it with --workspace DIR, or make one: tinksched setup-workspace DIR; "
        "a single command needs none: tinksched run -- COMMAND",
    )
