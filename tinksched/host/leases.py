"""Leases: the host-wide proof that a run occupies a slot of a GPU, as kernel locks that die with the run.

One folder is shared by all users of the host. In it:

    DEVICE.admission     locked exclusively while somebody looks at a GPU and decides
    DEVICE.RUN           a lease: one inode for each run, with one name for each GPU that the run is on
    waiting.WORKSPACE    what a scheduler says to the others while it waits for slots (see `notices`)

A lease is **live** while anybody holds a shared `flock` on its inode (flock(2)): first the scheduler that wrote it,
then also the run's wrapper and, as an inherited descriptor, the run's own processes. A shared lock lets the wrapper
take over while the scheduler still holds, so there is no instant at which the lease looks free. Whoever counts (only
under the admission lock) tries an exclusive lock: if it can't be had, the lease is live. If it can, the lease is dead,
and it is emptied before the lock is given back, so that a wrapper that comes late finds its lease revoked and never
begins. Nothing can go stale: a killed process, a crashed scheduler, a lost tmux server all let go in the kernel.

A lease whose file somebody deleted is written anew by its scheduler. The run's processes hold the old file, so the new
one names them: it is live while they are, whoever holds it. And a scheduler that saw a lease keeps the file open, so it
sees from the kernel's lock that the run still lives, whatever became of the name.

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
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.model import Tenant
from ..errors import TinkschedError, UsageError
from .processes import Process

FOLDER_VARIABLE = "TINKSCHED_LEASE_DIR"
ADMISSION_SECONDS = 2.0  # it is held for milliseconds
_ADMISSION = "admission"
_LONGEST_WARMUP = 86400.0  # seconds: what another user's lease says is not believed beyond that
# Not blocking: somebody may have put a named pipe there. Read-only: that wakes nobody.
_TO_LOOK = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Claim:
    """What a lease says of its holder."""

    run_id: str
    task: str
    workspace: str
    limit: int  # the most runs that the holder allows on each of its GPUs, itself included
    since: float
    processes: tuple[Process, ...] = ()  # of a lease that was written anew: who proves that it is live
    memory: int = 0  # bytes of each of its GPUs that the run reserves, less what it has allocated, while it is young
    warmup: float = 0.0  # seconds for which it is


@dataclass(frozen=True, slots=True)
class Held:
    """A live lease on a GPU: what it says, and the name of its user."""

    device: str
    claim: Claim
    user: str


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
        self._seen: dict[str, tuple[int, Held]] = {}  # leases of others: a descriptor of each, by file name
        self.prepare()

    @contextlib.contextmanager
    def admission(self, devices: Iterable[str]) -> Iterator[Desk]:
        """Hold the admission locks of these GPUs: inside, nobody else on the host gives out a slot on them.

        Raises:
            TinkschedError: another program has held one of the locks for more than 2 seconds, or they can't be opened.
        """
        locks: dict[str, int] = {}
        with contextlib.ExitStack() as stack:
            for device in sorted(set(devices)):  # one order for all, so that two can't wait for each other
                locks[device] = self._lock_admission(device)
                stack.callback(os.close, locks[device])
            yield Desk(self, locks)

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
        """The live leases of a GPU, each with the name of its user."""
        return [(held.claim, held.user) for held in self.look([device])]

    def look(self, devices: Iterable[str] | None = None) -> list[Held]:
        """The live leases of these GPUs; without an argument, of all that anybody ever used on this host.

        To find out takes an exclusive lock for an instant, so this too is done under the admission locks: others would
        take a dead lease for a live one. Somebody who keeps such a lock does not keep this from looking.

        Raises:
            TinkschedError: the folder can't be read.
        """
        wanted = self._known() if devices is None else list(devices)
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(TinkschedError):
                stack.enter_context(self.admission(device for device in wanted if self._admission(device).exists()))
            with _explained(self.folder):
                return self._live(wanted, revoke=False)

    def is_there(self, device: str, run_id: str) -> bool:
        """Whether the file of a run's lease on a GPU exists."""
        return (self.folder / lease_file(device, run_id)).exists()

    def of_workspace(self, workspace: str) -> list[Claim]:
        """The live leases that runs of this workspace hold, by what the leases say; each run once."""
        claims = [held.claim for held in self.look() if held.claim.workspace == workspace]
        return list({claim.run_id: claim for claim in claims}.values())

    def release(self, path: Path, devices: Sequence[str], run_id: str) -> None:
        """Remove the names of a lease whose run has ended."""
        for name in (path, *(path.with_name(lease_file(device, run_id)) for device in devices)):
            with contextlib.suppress(OSError):
                name.unlink()

    def prepare(self) -> None:
        """Make the folder if it isn't there.

        Raises:
            UsageError: it can't be made or isn't usable by everybody.
        """
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
            if os.statvfs(self.folder).f_flag & os.ST_RDONLY:
                why, hint = "is on a read-only file system", f"name another one for all users: {FOLDER_VARIABLE}=DIR"
            else:
                why, hint = "can't be written by you", f"its owner can open it to all users: chmod 1777 {self.folder}"
            raise UsageError(f"{self.folder}: the folder for this host's GPU leases {why}", hint=hint)

    # -- inside

    def _admission(self, device: str) -> Path:
        return self.folder / f"{device}.{_ADMISSION}"

    def _known(self) -> list[str]:
        with _explained(self.folder):
            names = os.listdir(self.folder)
        return sorted(name.removesuffix(f".{_ADMISSION}") for name in names if name.endswith(f".{_ADMISSION}"))

    def _lock_admission(self, device: str) -> int:
        path = self._admission(device)
        deadline = time.monotonic() + ADMISSION_SECONDS
        while True:
            if not self.folder.is_dir():
                self.prepare()  # somebody deleted it
            with _explained(path):
                descriptor = _open_shared(path)
                try:
                    locked = _lock_until(descriptor, deadline)
                    if locked and _same_file(descriptor, path):
                        return descriptor
                except BaseException:
                    os.close(descriptor)
                    raise
            os.close(descriptor)
            if not locked:
                raise TinkschedError(f"{path}: another program has kept this lock for {ADMISSION_SECONDS:.0f} seconds")
            # else somebody deleted and remade the file meanwhile: this lock guards nothing

    def _live(self, devices: Iterable[str], *, revoke: bool) -> list[Held]:
        """The live leases of these GPUs, in the order of the file names. Raises OSError: they can't be looked at."""
        wanted = frozenset(devices)
        found = []
        for name in sorted(os.listdir(self.folder)):
            device, _, run_id = name.rpartition(".")
            if device in wanted and run_id != _ADMISSION:
                live = self._look(self.folder / name, revoke=revoke)
                if live is not None:
                    found.append(Held(device, live[0], user_name(live[1])))
        return found

    def occupants(self, devices: Iterable[str], own: Container[str]) -> list[Held]:
        """For the desk: who is on these GPUs, also those whose files were deleted since the last look."""
        found = self._live(devices, revoke=True)
        names = {lease_file(held.device, held.claim.run_id): held for held in found}
        for name, (descriptor, held) in list(self._seen.items()):
            if name not in names and is_locked(descriptor):
                found.append(held)
            else:
                os.close(descriptor)
                del self._seen[name]
        for name, held in names.items():
            if held.claim.run_id not in own:
                with contextlib.suppress(OSError):  # it is there; only its deletion would go unnoticed
                    self._seen[name] = (os.open(self.folder / name, _TO_LOOK), held)
        return found

    def close(self) -> None:
        """Close what is kept open of others' leases."""
        for descriptor, _ in self._seen.values():
            os.close(descriptor)
        self._seen.clear()

    def _look(self, path: Path, *, revoke: bool) -> tuple[Claim, int] | None:
        """What a lease says if it is live. A dead one is revoked for good if `revoke` (needs the admission lock).

        Raises:
            OSError: nobody can say (this process is out of descriptors, say). That is never taken for dead.
        """
        try:
            descriptor = os.open(path, _TO_LOOK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # gone meanwhile, or no file of ours
                return None
            if error.errno == errno.EACCES:
                return self._unreadable(path)
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            claim, owner = _read_claim(descriptor, path), os.fstat(descriptor).st_uid
            if is_locked(descriptor) or any(process.may_live() for process in claim.processes):
                return claim, owner
            if revoke:
                _revoke(path, descriptor)
            return None
        finally:
            os.close(descriptor)

    def _unreadable(self, path: Path) -> tuple[Claim, int] | None:
        """A lease that its owner closed to others counts, to be safe. An empty one was never granted."""
        try:
            status = path.lstat()
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            return None
        return _unknown_claim(path), status.st_uid


class Desk:
    """What may be done under the admission locks."""

    def __init__(self, leases: Leases, locks: Mapping[str, int]) -> None:
        self._leases = leases
        self._locks = locks  # the admission locks that are held: descriptors by device

    @property
    def devices(self) -> Collection[str]:
        """The GPUs whose admission locks are held."""
        return self._locks.keys()

    def occupants(self, own: Container[str] = ()) -> list[Held]:
        """Who is on these GPUs. What is found dead is revoked. `own` are the run ids that the caller counts itself.

        Raises:
            TinkschedError: nobody can say at present.
        """
        with _explained(self._leases.folder):
            return self._leases.occupants(self._locks, own)

    def grant(self, devices: Sequence[str], claim: Claim) -> Lease:
        """Write a lease for a new run and hold it. The caller has looked at who is there, and decided.

        Raises:
            TinkschedError: the file can't be written (the disk is full, say), or somebody deleted the admission locks.
        """
        leases = self._leases
        for device in devices:
            if not _same_file(self._locks[device], leases._admission(device)):
                raise TinkschedError(f"{leases._admission(device)}: somebody deleted this lock")
        first, *others = [leases.folder / lease_file(device, claim.run_id) for device in devices]
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
                leases.release(first, devices, claim.run_id)
                raise
        except OSError as error:
            raise TinkschedError(f"{first}: the lease can't be written: {error.strerror}") from None
        return Lease(first, descriptor)

    def restore(self, devices: Sequence[str], claim: Claim) -> Lease:
        """Write the lease of a living run anew, of which a file is gone. `claim.processes` are the run's.

        Raises:
            TinkschedError: as for `grant`.
        """
        self._leases.release(self._leases.folder / lease_file(devices[0], claim.run_id), devices, claim.run_id)
        return self.grant(devices, claim)


def tenant_of(held: Held) -> Tenant:
    """A live lease as placement sees it."""
    claim = held.claim
    return Tenant(
        held.user, claim.workspace, claim.task, claim.limit, claim.since, claim.run_id, claim.memory, claim.warmup
    )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TinkschedError(f"{error.filename or path}: the GPU leases can't be read: {error.strerror}") from None


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


def is_locked(descriptor: int) -> bool:
    """Whether somebody holds a lock. If not, this descriptor does, exclusively, until it is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


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
    record: dict[str, object] = {
        "run": claim.run_id,
        "task": claim.task,
        "workspace": claim.workspace,
        "limit": claim.limit,
        "since": claim.since,
    }
    if claim.processes:
        record["processes"] = [[process.pid, process.started] for process in claim.processes]
    if claim.memory:
        record |= {"memory": claim.memory, "warmup": claim.warmup}
    return json.dumps(record).encode() + b"\n"


def _read_claim(descriptor: int, path: Path) -> Claim:
    """What a live lease says. One that can't be understood still counts: alone on its GPU, to be safe."""
    try:
        record = json.loads(os.pread(descriptor, 65536, 0))
        return Claim(
            str(record["run"]), str(record["task"]), str(record["workspace"]), int(record["limit"]),
            float(record["since"]), tuple(Process(int(pid), int(start)) for pid, start in record.get("processes", ())),
            max(0, int(record.get("memory", 0))), max(0.0, min(float(record.get("warmup", 0.0)), _LONGEST_WARMUP)),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return _unknown_claim(path)


def _unknown_claim(path: Path) -> Claim:
    return Claim(path.name.rpartition(".")[2], "an unreadable lease", str(path), 1, 0.0)


def user_name(uid: int) -> str:
    """The name of a user; the number where the host knows no name, as in many containers."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
