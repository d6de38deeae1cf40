"""`doctor`: is everything in order that a workspace needs? A list of small checks, each of which looks at one thing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..config import CONFIG_NAME, load
from ..core.model import Run
from ..errors import ConfigError, TinkschedError, UsageError
from ..host import filesystems, statedir
from ..host.leases import Leases
from ..host.rundir import RunDir
from ..scheduler import disk
from ..scheduler.devices import resolve_gpus
from ..store import Store
from . import hostchecks, preflight, repair, strays
from .hostchecks import Found, Level
from .workspace import LAST_GOOD, Workspace

__all__ = ["CHECKS", "JSON_VERSION", "MACHINE", "Check", "Level", "examine", "json_of"]

JSON_VERSION = 1
LITTLE_ROOM = 50_000_000  # bytes; the state of a thousand tasks takes about five million
FEW_INODES = 1_000


@dataclass(frozen=True, slots=True)
class Check:
    """What one look found: about what, how bad, what was seen, and what to do about it (empty if nothing)."""

    name: str
    level: Level
    what: str
    todo: str = ""


def examine(workspace: Workspace | None) -> list[Check]:
    """Look at everything, or without a workspace at the machine alone.

    Reads only; no check keeps another one from being made.
    """
    looks = [(name, partial(look, None)) for name, look in MACHINE]
    if workspace is not None:
        looks = [(name, partial(look, workspace)) for name, look in CHECKS]
    found = []
    for name, look in looks:
        try:
            level, what, todo = look()
        except (TinkschedError, OSError) as error:
            level, what, todo = Level.BAD, str(error), getattr(error, "hint", None) or ""
        found.append(Check(name, level, what, todo))
    return found


def json_of(checks: list[Check]) -> dict[str, object]:
    """The versioned form for programs."""
    rows = [{"name": one.name, "level": one.level.value, "what": one.what, "todo": one.todo} for one in checks]
    return {"version": JSON_VERSION, "fine": all(one.level is not Level.BAD for one in checks), "checks": rows}


def _config(workspace: Workspace) -> Found:
    """The configuration, and all that `start` would refuse."""
    settings = workspace.settings
    kept = settings.file.name == LAST_GOOD  # in place of one that has problems
    file = settings.workspace / CONFIG_NAME if kept else settings.file
    try:
        settings = load(settings.workspace, file)
        preflight.check_settings(settings)
    except ConfigError as error:
        used = "; the last one that had none is used here" if kept else ""
        return Level.BAD, f"{error.message}{used}", f"edit {file}"
    except UsageError as error:
        return Level.BAD, error.message, error.hint or f"see {file}"
    try:
        resolve_gpus(settings)
    except UsageError as error:
        return Level.WARN, f"tasks that need a GPU can't start: {error.message}", error.hint or f"see {file}"
    warnings = [str(warning) for warning in settings.warnings]
    return (Level.WARN, "; ".join(warnings), f"edit {file}") if warnings else (Level.OK, str(file), "")


def _permissions(workspace: Workspace) -> Found:
    """Environments of runs lie in the state folder, with the keys of their users in them."""
    folder = workspace.state.path
    if not folder.is_dir():
        return Level.OK, "there is no state folder yet", ""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o022:
        return Level.BAD, f"others may write {folder} (mode {mode:o}), and so decide what runs", f"chmod 700 {folder}"
    if mode & 0o077:
        what = f"others may read {folder} (mode {mode:o}), where environments of runs are kept"
        return Level.WARN, what, f"chmod 700 {folder}"
    return Level.OK, f"{folder} is yours alone", ""


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


def _results(workspace: Workspace) -> Found:
    """The disks of logs and results."""
    low = disk.low_disk(workspace.settings)
    if low is not None:
        return Level.BAD, f"nothing new starts: {low.text}", "make room there, or lower min_free_disk"
    settings = workspace.settings
    for folder in (settings.log_dir, settings.output_dir):
        if folder.is_dir():
            status = os.statvfs(folder)
            if status.f_files > 0 and status.f_favail < FEW_INODES:
                what = f"{status.f_favail} inodes are left on the disk of {folder}"
                return Level.BAD, what, "delete files there: without inodes no log can be made"
    return Level.OK, f"{settings.log_dir}, {settings.output_dir}", ""


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


def _locks(workspace: Workspace) -> Found:
    """Whether the leases and the record say the same."""
    settings, state = workspace.settings, workspace.state
    active: list[Run] = []
    if state.exists:
        with Store.reading(state.database, shared=state.shared) as store:
            unknown = [stray.task for stray in strays.find(settings, state, store)]
            active = store.active_runs()
    else:
        unknown = [stray.task for stray in strays.find(settings, state, None)]
    if unknown:
        what = f"{', '.join(unknown)}: running and holding slots, but not on record"
        return Level.BAD, what, "tinksched kill-all ends them; `doctor --repair` may put the record together again"
    held = {(lease.device, lease.claim.run_id) for lease in Leases().look()}
    bare = [run.task for run in active if _lives(run) and any((device, run.id) not in held for device in run.devices)]
    if bare:
        runs = workspace.lock.is_held()
        todo = "the scheduler restores them when it looks next" if runs else "tinksched start restores them"
        return Level.WARN, f"the leases of {', '.join(bare)} are gone: others may start on the same GPUs", todo
    return Level.OK, "leases and record agree", ""


def _lives(run: Run) -> bool:
    return run.pid is not None and RunDir(run.directory).exit_status() is None


CHECKS: tuple[tuple[str, Callable[[Workspace], Found]], ...] = (
    ("machine", hostchecks.machine),
    ("config", _config),
    ("state folder", _state),
    ("permissions", _permissions),
    ("free space", _room),
    ("logs and results", _results),
    ("home", _home),
    ("database", _database),
    ("scheduler", _scheduler),
    ("runs", _runs),
    ("leases", hostchecks.lease_folder),
    ("admission", hostchecks.admission),
    ("locks", _locks),
    ("gpus", hostchecks.driver),
    ("processes", hostchecks.others),
    ("tmux", hostchecks.multiplexer),
    ("logging out", hostchecks.lingering),
    ("flock", hostchecks.flock),
)
MACHINE: tuple[tuple[str, Callable[[None], Found]], ...] = (  # where there is no workspace
    ("machine", hostchecks.machine),
    ("personal workspace", hostchecks.personal_folder),
    ("leases", hostchecks.lease_folder),
    ("admission", hostchecks.admission),
    ("gpus", hostchecks.driver),
    ("processes", hostchecks.others),
    ("tmux", hostchecks.multiplexer),
    ("logging out", hostchecks.lingering),
    ("flock", hostchecks.flock),
)
