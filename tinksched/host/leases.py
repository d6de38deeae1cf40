"""Leases: the host-wide proof that a run occupies a slot of a GPU, as kernel locks that die with the run.

One folder is shared by all users of the host. In it:

    DEVICE.admission     locked exclusively while somebody looks at a GPU and decides
    DEVICE.RUN           a lease: one inode for each run, with one name for each GPU that the run is on

A lease is **live** while anybody holds a shared `flock` on its inode (flock(2)): first the scheduler that wrote it,
then also the run's wrapper and, as an inherited descriptor, the run's own processes. A shared lock lets the wrapper
take over while the scheduler still holds, so there is no instant at which the lease looks free. Whoever counts (only
under the admission lock) tries an exclusive lock: if it can't be had, the lease is live. If it can, the lease is dead,
and it is emptied before the lock is given back, so that a wrapper that comes late finds its lease revoked and never
begins. Nothing can go stale: a killed process, a crashed scheduler, a lost tmux server all let go in the kernel.

The names carry the run ids, so a run that is killed by `kill -9` can't be mistaken for a later one. When a lease is
let go, its writer's descriptor closes, which inotify reports as CLOSE_WRITE to all who wait for a slot; those who only
look open for reading and wake nobody.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.model import Tenant
from ..errors import TinkschedError, UsageError

FOLDER_VARIABLE = "TINKSCHED_LEASE_DIR"
ADMISSION_SECONDS = 2.0  # it is held for milliseconds
_ADMISSION = "admission"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a lease says of its holder."""

    run_id: str
    task: str
    workspace: str
    limit: int  # the most runs that the holder allows on each of its GPUs, itself included
    since: float


class Lease:
    """A lease that this process holds too. Closing it lets go of this process's part only."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go; whoever else holds the lease keeps it alive."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Leases:
    """The lease folder of this host."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open the folder, and make it if it isn't there.

        Raises:
            UsageError: it can't be made or isn't usable by everybody.
        """
        self.folder = folder or default_folder()
        self._prepare()

    @contextlib.contextmanager
    def admission(self, devices: Iterable[str]) -> Iterator[Desk]:
        """Hold the admission locks of these GPUs: inside, nobody else on the host gives out a slot on them.

        Raises:
            TinkschedError: another program has held one of the locks for more than 2 seconds.
        """
        with contextlib.ExitStack() as stack:
            for device in sorted(set(devices)):  # one order for all, so that two can't wait for each other
                stack.callback(os.close, self._lock_admission(device))
            yield Desk(self)

    def hold(self, path: Path) -> Lease | None:
        """Hold a lease that a living run of ours has already; None if it is revoked or its file is gone."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_size == 0 or not _same_file(descriptor, path):
            os.close(descriptor)
            return None
        return Lease(path, descriptor)

    def holders(self, device: str) -> list[tuple[Claim, str]]:
        """The live leases of a GPU, each with the name of its user. Without the admission lock it is only a look."""
        return [(claim, _user_name(owner)) for _, claim, owner in self._live(device, revoke=False)]

    def release(self, path: Path, devices: Sequence[str], run_id: str) -> None:
        """Remove the names of a lease whose run has ended."""
        for name in (path, *(path.with_name(lease_file(device, run_id)) for device in devices)):
            with contextlib.suppress(OSError):
                name.unlink()

    # -- inside

    def _prepare(self) -> None:
        try:
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True, exist_ok=True)
                self.folder.chmod(0o1777)
        except OSError as error:
            raise UsageError(
                f"{self.folder}: the folder for this host's GPU leases can't be made: {error.strerror}",
                hint=f"an administrator can make it once: mkdir -m 1777 {self.folder}",
            ) from None
        if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            raise UsageError(
                f"{self.folder}: the folder for this host's GPU leases can't be written by you",
                hint=f"its owner can open it to all users: chmod 1777 {self.folder}",
            )

    def _lock_admission(self, device: str) -> int:
        path = self.folder / f"{device}.{_ADMISSION}"
        deadline = time.monotonic() + ADMISSION_SECONDS
        while True:
            descriptor = _open_shared(path)
            if not _lock_until(descriptor, deadline):
                os.close(descriptor)
                raise TinkschedError(f"{path}: another program has kept this lock for {ADMISSION_SECONDS:.0f} seconds")
            if _same_file(descriptor, path):
                return descriptor
            os.close(descriptor)  # somebody deleted and remade the file meanwhile: this lock guards nothing

    def _live(self, device: str, *, revoke: bool) -> list[tuple[str, Claim, int]]:
        prefix = f"{device}."
        with os.scandir(self.folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.startswith(prefix))
        found = []
        for name in names:
            if name == prefix + _ADMISSION or "." in name[len(prefix) :]:
                continue
            live = self._look(self.folder / name, revoke=revoke)
            if live is not None:
                found.append((name, *live))
        return found

    def _look(self, path: Path, *, revoke: bool) -> tuple[Claim, int] | None:
        """What a lease says if it is live. A dead one is revoked for good if `revoke` (needs the admission lock)."""
        try:
            # Not blocking: somebody may have put a named pipe there.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read_claim(descriptor, path), os.fstat(descriptor).st_uid
            if revoke:
                _revoke(path, descriptor)
            return None
        finally:
            os.close(descriptor)


class Desk:
    """What may be done under the admission locks."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    def tenants(self, device: str, own: Iterable[str]) -> list[Tenant]:
        """Who else is on this GPU. `own` are the run ids that the caller counts itself."""
        mine = set(own)
        live = self._leases._live(device, revoke=True)
        return [
            Tenant(_user_name(uid), claim.workspace, claim.task, claim.limit, claim.since)
            for _, claim, uid in live
            if claim.run_id not in mine
        ]

    def grant(self, devices: Sequence[str], claim: Claim) -> Lease:
        """Write a lease for a new run and hold it. The caller has looked at `tenants` and decided.

        Raises:
            TinkschedError: the file can't be written (the disk is full, say).
        """
        first, *others = [self._leases.folder / lease_file(device, claim.run_id) for device in devices]
        try:
            descriptor = os.open(first, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                os.fchmod(descriptor, 0o666)  # whoever finds it dead must be able to empty it
                os.write(descriptor, _claim_text(claim))
                for other in others:
                    os.link(first, other)
            except BaseException:
                os.close(descriptor)
                self._leases.release(first, devices, claim.run_id)
                raise
        except OSError as error:
            raise TinkschedError(f"{first}: the lease can't be written: {error.strerror}") from None
        return Lease(first, descriptor)


def default_folder() -> Path:
    """The folder that all users of this host agree on.

    The choice depends on what is the same for everybody, never on who asks: an administrator's folder if there is
    one, else the host's lock folder if all may write to it, else `/var/tmp`, which outlives logins.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    made_by_admin = Path("/var/lib/tinksched/leases")
    if made_by_admin.is_dir():
        return made_by_admin
    locks = Path("/run/lock")
    with contextlib.suppress(OSError):
        if stat.S_IMODE(locks.stat().st_mode) & 0o1777 == 0o1777:
            return locks / "tinksched"
    return Path("/var/tmp/tinksched-leases")


def lease_file(device: str, run_id: str) -> str:
    """The name of a run's lease on a GPU."""
    return f"{device}.{run_id}"


def _open_shared(path: Path) -> int:
    """Open a lock file that everybody shares.

    Existing files are opened without O_CREAT: in a sticky folder the kernel refuses it for files of others
    (`fs.protected_regular`, proc(5)). Read-only is enough for flock and wakes nobody who watches for writers.
    """
    while True:
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            os.fchmod(descriptor, 0o644)
            return descriptor


def _lock_until(descriptor: int, deadline: float) -> bool:
    """An exclusive lock. Others hold it for milliseconds, and flock has no time-out of its own: hence the steps."""
    pause = 0.0005
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                raise
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def _revoke(path: Path, locked: int) -> None:
    """Make a dead lease useless for a wrapper that comes late: remove it, or if it is another user's, empty it.

    What is emptied is the very file that is locked, whatever its name means by now.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        if os.path.samestat(os.fstat(descriptor), os.fstat(locked)):
            os.ftruncate(descriptor, 0)
            path.unlink()
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _claim_text(claim: Claim) -> bytes:
    record = {
        "run": claim.run_id,
        "task": claim.task,
        "workspace": claim.workspace,
        "limit": claim.limit,
        "since": claim.since,
    }
    return json.dumps(record).encode() + b"\n"


def _read_claim(descriptor: int, path: Path) -> Claim:
    """What a live lease says. One that can't be understood still counts: alone on its GPU, to be safe."""
    try:
        record = json.loads(os.pread(descriptor, 65536, 0))
        return Claim(
            str(record["run"]), str(record["task"]), str(record["workspace"]), int(record["limit"]),
            float(record["since"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Claim(path.name.rpartition(".")[2], "an unreadable lease", str(path), 1, 0.0)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
