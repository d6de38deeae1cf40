"""`doctor`: is everything in order that a workspace needs? A list of small checks, each of which looks at one thing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ..errors import TinkschedError
from ..host import filesystems, statedir, tmux
from ..host.leases import Leases
from ..host.rundir import RunDir
from ..store import Store
from . import repair
from .workspace import Workspace

JSON_VERSION = 1
LITTLE_ROOM = 50_000_000  # bytes; the state of a thousand tasks takes about five million
FEW_INODES = 1_000


class Level(str, Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"  # it works, but not as well as it could
    BAD = "bad"  # something is broken


@dataclass(frozen=True, slots=True)
class Check:
    """What one look found: about what, how bad, what was seen, and what to do about it (empty if nothing)."""

    name: str
    level: Level
    what: str
    todo: str = ""


def examine(workspace: Workspace) -> list[Check]:
    """Look at everything. Reads only; no check keeps another one from being made."""
    found = []
    for name, look in CHECKS:
        try:
            level, what, todo = look(workspace)
        except (TinkschedError, OSError) as error:
            level, what, todo = Level.BAD, str(error), getattr(error, "hint", None) or ""
        found.append(Check(name, level, what, todo))
    return found


def json_of(checks: list[Check]) -> dict[str, object]:
    """The versioned form for programs."""
    rows = [{"name": one.name, "level": one.level.value, "what": one.what, "todo": one.todo} for one in checks]
    return {"version": JSON_VERSION, "fine": all(one.level is not Level.BAD for one in checks), "checks": rows}


Found = tuple[Level, str, str]


def _state(workspace: Workspace) -> Found:
    folder = workspace.state.path
    kind = filesystems.kind(folder)
    if filesystems.is_network(kind):
        todo = "state_dir: a folder on a local disk is faster, and safe against other hosts"
        return Level.WARN, f"{folder} is on a network file system ({kind}): a slower journal is used", todo
    return Level.OK, f"{folder} ({kind})", ""


def _room(workspace: Workspace) -> Found:
    place = workspace.state.path
    while not place.exists():
        place = place.parent
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    said = f"{free / 1e6:.0f} MB free" + (f", {status.f_favail} inodes" if status.f_files else "")
    if status.f_flag & os.ST_RDONLY:
        return Level.BAD, f"the disk of {place} is read-only", "remount it, or name another state_dir"
    if free < LITTLE_ROOM or (status.f_files > 0 and status.f_favail < FEW_INODES):
        return Level.BAD, f"the disk of {place} is nearly full: {said}", "make room: nothing can be recorded without"
    return Level.OK, said, ""


def _home(workspace: Workspace) -> Found:
    home = statedir.read_home(workspace.state)
    if home is None:
        return Level.OK, "nothing was ever queued here", ""
    statedir.check_home(workspace.state)
    return Level.OK, f"{home.host}, workspace {home.workspace_id}", ""


def _database(workspace: Workspace) -> Found:
    wrong = repair.trouble(workspace)
    if wrong is not None:
        return Level.BAD, wrong.message, "tinksched doctor --repair"
    if not workspace.state.exists:
        return Level.OK, "there is none yet", ""
    with Store.reading(workspace.state.database, shared=workspace.state.shared) as store:
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(store.counts().items()))
    return Level.OK, f"whole ({counts or 'no tasks'})", ""


def _scheduler(workspace: Workspace) -> Found:
    if not workspace.lock.is_held():
        return Level.OK, "none runs", ""
    holder = workspace.lock.holder()
    if holder is None:
        return Level.WARN, "the lock is held by a process that can't be seen from here", "is it in another container?"
    return Level.OK, f"runs as process {holder.pid}", ""


def _runs(workspace: Workspace) -> Found:
    if not workspace.state.exists:
        return Level.OK, "none yet", ""
    with Store.reading(workspace.state.database, shared=workspace.state.shared) as store:
        active = store.active_runs()
    gone = [run.task for run in active if not Path(run.directory).is_dir()]
    if gone:
        return Level.BAD, f"the run folders of {', '.join(gone)} are gone", "their exit codes can't be known any more"
    ended = sum(RunDir(run.directory).exit_status() is not None for run in active)
    return Level.OK, f"{len(active)} active, {ended} of them ended and not recorded yet", ""


def _leases(workspace: Workspace) -> Found:
    folder = Leases().folder
    kind = filesystems.kind(folder)
    if filesystems.is_network(kind):
        return Level.BAD, f"{folder} is on a network file system ({kind})", "TINKSCHED_LEASE_DIR must name a local one"
    return Level.OK, f"{folder} ({kind})", ""


def _tmux(workspace: Workspace) -> Found:
    if workspace.settings.executor != "tmux":
        return Level.OK, f"not needed (executor: {workspace.settings.executor})", ""
    tmux.require()
    return Level.OK, shutil.which("tmux") or "", ""


def _flock(workspace: Workspace) -> Found:
    found = shutil.which("flock")
    if found is None:
        return Level.BAD, "flock is not on PATH", "install util-linux"
    return Level.OK, found, ""


CHECKS: tuple[tuple[str, Callable[[Workspace], Found]], ...] = (
    ("state folder", _state),
    ("free space", _room),
    ("home", _home),
    ("database", _database),
    ("scheduler", _scheduler),
    ("runs", _runs),
    ("leases", _leases),
    ("tmux", _tmux),
    ("flock", _flock),
)
