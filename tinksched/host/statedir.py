"""The private state folder of a workspace: who owns it, what lies where in it, and the lock of its scheduler."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pwd
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from ..errors import Unwritable, WorkspaceError
from . import filesystems
from .processes import Process, identify
from .rundir import RunDir, write_private

NAME = ".tinksched"
POINTER = "elsewhere"  # the file that names the folder on a local disk where the state of a shared workspace lies
# Missing in a Python that was built with an old C library; the kernel has them since 3.15.
_OFD_GETLK: int = getattr(fcntl, "F_OFD_GETLK", 36)
_OFD_SETLK: int = getattr(fcntl, "F_OFD_SETLK", 37)
_FLOCK = "hhqqi4x"  # struct flock of fcntl(2) on 64-bit Linux


@dataclass(frozen=True, slots=True)
class Home:
    """Which host and path this state belongs to, and the workspace's own id."""

    host: str
    machine: str
    path: str
    workspace_id: str


@dataclass(frozen=True, slots=True)
class StateDir:
    """The paths in the state folder."""

    path: Path

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / "state.db"

    @property
    def lock(self) -> Path:
        """Locked by the scheduler for as long as it lives."""
        return self.path / "lock"

    @property
    def runs(self) -> Path:
        """One folder for each run that has not been cleared away."""
        return self.path / "runs"

    @property
    def snapshots(self) -> Path:
        """The configs of runs as they were, by their hashes."""
        return self.path / "snapshots"

    @property
    def environments(self) -> Path:
        """The stored environments of the commands that queued tasks."""
        return self.path / "environments"

    @property
    def exists(self) -> bool:
        """Whether anything was ever queued here."""
        try:
            status = self.database.stat()
            return status.st_size > 0 or not stat.S_ISREG(status.st_mode) or self.has_traces
        except FileNotFoundError:
            return self.has_traces
        except NotADirectoryError:
            raise WorkspaceError(
                f"{self.path} is not a folder", hint="it is where the workspace's state belongs"
            ) from None
        except PermissionError:
            _check_owner(self.path)
            raise WorkspaceError(f"{self.path}: the workspace's state can't be read: permission denied") from None

    @property
    def shared(self) -> bool:
        """Whether it lies on a network file system, which other hosts may have, too."""
        return filesystems.is_network(filesystems.kind(self.path))

    @property
    def has_traces(self) -> bool:
        """Whether tasks ran here, whatever became of the database."""
        with contextlib.suppress(OSError):
            return any(RunDir(entry).is_prepared for entry in self.runs.iterdir())
        return False


def default_folder(workspace: Path) -> Path:
    """Where the private state lies if the user names no place.

    That is `.tinksched` in the workspace. On a network file system, where locks and SQLite are not to be trusted and
    other hosts look in too, it is a folder on a local disk; the workspace's `.tinksched` then says whose it is, and
    where.

    Raises:
        WorkspaceError: another host has its state of this workspace on a disk of its own.
    """
    inside = StateDir(workspace / NAME)
    if inside.database.exists() or not filesystems.is_network(filesystems.kind(workspace)):
        return inside.path
    home = read_home(inside)
    if home is not None:
        _check_host(inside, home)
        with contextlib.suppress(OSError):
            return Path((inside.path / POINTER).read_text().rstrip("\n"))
    name = f"{workspace.name}-{hashlib.sha256(os.fsencode(workspace)).hexdigest()[:12]}"
    bases = (Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser(), Path("/var/tmp"))
    for base, folder in zip(bases, ("tinksched", f"tinksched-{os.geteuid()}"), strict=True):
        if base.is_absolute() and not filesystems.is_network(filesystems.kind(base)):
            return base / folder / name
    return inside.path


def prepare(workspace: Path, folder: Path | None = None) -> tuple[StateDir, Home]:
    """The state folder for somebody who is going to write: made if it isn't there, and surely ours.

    `folder` is where it lies; None stands for `.tinksched` in the workspace.

    Raises:
        WorkspaceError: it belongs to another user, another host or another place, or may not be written.
        Unwritable: the disk is full or read-only.
    """
    state = StateDir(folder or workspace / NAME)
    try:
        _check_owner(workspace)
        state.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(state.path)
        for folder in (state.runs, state.environments):
            folder.mkdir(mode=0o700, exist_ok=True)
        home = _home(state, workspace)
        _check_writable(state.path)
        if not state.path.is_relative_to(workspace) and filesystems.is_network(filesystems.kind(workspace)):
            _say_where(StateDir(workspace / NAME), home, state)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise Unwritable(
                f"{state.path}: the workspace's state can't be written: {error.strerror}",
                hint="make room there, or name another place as state_dir",
            ) from None
        raise WorkspaceError(
            f"{state.path}: the workspace's state can't be written: {error.strerror}",
            hint="tinksched keeps its state in the workspace; it needs a place where you may write",
        ) from None
    return state, home


def check_home(state: StateDir) -> None:
    """For those who only read: refuse state that another host is working with.

    Raises:
        WorkspaceError: the state belongs to another host.
    """
    home = read_home(state)
    if home is not None:
        _check_host(state, home)


def read_home(state: StateDir) -> Home | None:
    """What the state says of its home; None if it says nothing.

    Raises:
        WorkspaceError: it says something that can't be understood; it is left as it is.
    """
    file = state.path / "home"
    try:
        record = json.loads(file.read_text())
        return Home(**{name: str(record[name]) for name in ("host", "machine", "path", "workspace_id")})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"{file} can't be read ({error}), so nobody knows which host this state belongs to",
            hint=f"if no other host works on this workspace: rm {file}",
        ) from None


def put_back(state: StateDir, home: Home) -> None:
    """Make the folder again that was deleted while somebody worked with it. What is there now stays as it is.

    Raises:
        OSError: it can't be made, or a link stands in its place.
    """
    if state.path.is_symlink():
        raise OSError(f"{state.path} is a link now")
    state.path.mkdir(mode=0o700, exist_ok=True)
    for folder in (state.runs, state.environments):
        folder.mkdir(mode=0o700, exist_ok=True)
    _write_home(state, home, new=True)


class SchedulerLock:
    """Held by a process for as long as it is the workspace's only scheduler.

    It is an open-file-description lock (fcntl(2)): asking who holds it takes nothing, so that asking can't make a
    scheduler believe that another one runs.
    """

    def __init__(self, state: StateDir) -> None:
        self._path = state.lock
        self._descriptor = -1

    def acquire(self) -> bool:
        """Become the only scheduler. False if there is one."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.fcntl(descriptor, _OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except OSError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Stop being the scheduler."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def is_deleted(self) -> bool:
        """Whether the file that this process has locked is no longer in its place, so that the lock guards nothing.

        Raises:
            PermissionError: the folder can't be read.
        """
        try:
            return not os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return True

    def is_held(self) -> bool:
        """Whether a scheduler runs, this process included."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, _OFD_GETLK, asked))
            return bool(answer[0] != fcntl.F_UNLCK)
        finally:
            os.close(descriptor)

    def holder(self) -> Process | None:
        """The scheduler's process; None if none runs, or it has not written its pid yet."""
        if not self.is_held():
            return None
        with contextlib.suppress(OSError, ValueError):
            return identify(int(self._path.read_text()))
        return None


def machine_id() -> str:
    """What tells this host from others: the machine id, or where there is none the host's name."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError):
            text = Path(path).read_text().strip()
            if text:
                return text
    return os.uname().nodename


def _home(state: StateDir, workspace: Path) -> Home:
    home = read_home(state)
    if home is None:
        _write_home(state, Home(os.uname().nodename, machine_id(), str(workspace), os.urandom(4).hex()), new=True)
        home = read_home(state)  # that of whoever was first
        assert home is not None
    _check_host(state, home)
    if home.path == str(workspace):
        return home
    if not state.path.is_relative_to(workspace) and Path(home.path).is_dir():
        raise WorkspaceError(
            f"{state.path} holds the state of the workspace {home.path}, not of {workspace}",
            hint="give each workspace a state_dir of its own",
        )
    there: Home | None = None
    with contextlib.suppress(OSError, WorkspaceError, ValueError):  # whatever lies in the old place now
        elsewhere = Path(home.path) / state.path.relative_to(workspace)
        if elsewhere.samefile(state.path):
            return home  # one folder, mounted in two places
        there = read_home(StateDir(elsewhere))
    if there is not None and there.workspace_id == home.workspace_id:
        raise WorkspaceError(
            f"{workspace} is a copy of the workspace {home.path}, state included",
            hint=f"to begin with a state of its own: rm -r {state.path}",
        )
    moved = Home(home.host, home.machine, str(workspace), home.workspace_id)
    _write_home(state, moved, new=False)
    return moved


def _say_where(inside: StateDir, home: Home, state: StateDir) -> None:
    """Leave word for other hosts, and for who looks from this one, where the state of a shared workspace lies."""
    inside.path.mkdir(mode=0o700, exist_ok=True)
    there = read_home(inside)
    if there is not None:
        _check_host(inside, there)
    if there != home:
        _write_home(inside, home, new=there is None)
    aside = inside.path / f"{POINTER}.{os.getpid()}"
    aside.unlink(missing_ok=True)
    write_private(aside, os.fsencode(state.path) + b"\n")
    aside.replace(inside.path / POINTER)


def _check_host(state: StateDir, home: Home) -> None:
    if home.machine != machine_id():
        raise WorkspaceError(
            f"{state.path.parent}: this workspace is worked on by the host {home.host}, and this is "
            f"{os.uname().nodename}",
            hint=f"use it on {home.host}; if that host is gone for good: rm {state.path / 'home'}",
        )


def _write_home(state: StateDir, home: Home, *, new: bool) -> None:
    """Written aside and put in place as a whole. A new one never replaces one that is there."""
    record = {"host": home.host, "machine": home.machine, "path": home.path, "workspace_id": home.workspace_id}
    aside = state.path / f"home.{os.getpid()}"
    aside.unlink(missing_ok=True)
    write_private(aside, json.dumps(record).encode() + b"\n")
    with aside.open("rb") as file:
        os.fsync(file.fileno())  # once in a workspace's life: a home that lost its content would lock everybody out
    if not new:
        aside.replace(state.path / "home")
        return
    with contextlib.suppress(FileExistsError):
        os.link(aside, state.path / "home")
    aside.unlink()


def _check_owner(folder: Path) -> None:
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        name = _user(owner)
        raise WorkspaceError(
            f"{folder} belongs to {name}, and you are {_user(os.geteuid())}",
            hint=f"run it as {name}, or make a workspace of your own: tinksched setup-workspace DIR",
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # as in many containers
        return f"uid {uid}"


def _check_writable(folder: Path) -> None:
    """Write for real: a read-only mount or a full quota shows only so."""
    probe = folder / f"probe.{os.getpid()}"
    probe.write_bytes(b"x")
    probe.unlink()
