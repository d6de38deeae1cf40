"""Processes: who is alive, who belongs to a run, and ending them for certain.

A pid is reused, so a process is its pid and its start time, in clock ticks since boot, from field 22 of
`/proc/PID/stat` (proc(5)). The processes of a run are those that carry its id in their environment, those that hold its
lease as the descriptor that the wrapper gave them (some programs overwrite their environment to set a title), and all
that descend from these. What has neither *and* is adopted by init can't be found.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

RUN_ID_VARIABLE = "TINKSCHED_RUN_ID"
LEASE_DESCRIPTOR = 9  # under which the wrapper opens the lease
_NAMED = f"\0{RUN_ID_VARIABLE}=".encode()
_PART = 16384


@dataclass(frozen=True, slots=True)
class Process:
    """One process, for as long as it lives."""

    pid: int
    started: int  # clock ticks since boot

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return identify(self.pid) == self

    def may_live(self) -> bool:
        """As `alive`; of another user's that `/proc` hides from us (hidepid), whether any process has its pid."""
        stat = _stat(self.pid)
        if stat is not None:
            return stat.process == self and not stat.zombie
        try:
            os.kill(self.pid, 0)
        except OSError as error:
            return error.errno == errno.EPERM
        return False  # it is ours, and has ended just now

    @property
    def is_ending(self) -> bool:
        """Whether it has given up its memory already: it has ended, or is about to."""
        return not _read(f"{self.pid}/cmdline")

    @property
    def name(self) -> str:
        """Its program's name, for messages; longer than the 15 characters that the kernel keeps."""
        import psutil

        try:
            return psutil.Process(self.pid).name()
        except psutil.Error:
            return "?"


@dataclass(frozen=True, slots=True)
class _Stat:
    process: Process
    parent: int
    zombie: bool


def boot_id() -> str:
    """The identity of this boot of the kernel; another one after every restart."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def since_boot() -> float:
    """Seconds since boot, those of a suspended machine included. Nobody can set this clock (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def identify(pid: int) -> Process | None:
    """The process that has this pid now; None if there is none, or only its zombie."""
    stat = _stat(pid)
    return None if stat is None or stat.zombie else stat.process


def usage(process: Process) -> tuple[int, int] | None:
    """Clock ticks of processor time and resident pages; None if the process has ended. See proc(5), `stat`."""
    fields = _fields(process.pid)
    if fields is None or int(fields[19]) != process.started:
        return None
    return sum(map(int, fields[11:15])), int(fields[21])


def open_pidfd(process: Process) -> int | None:
    """A descriptor that becomes readable when the process ends; None if it has ended or the kernel has no pidfds.

    The caller closes it. Callers that get None look at `alive()` and, if it is true, have to poll.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except AttributeError:  # a Python that was built for older kernels
        return None
    except OSError:  # gone (ESRCH), not supported (ENOSYS), or out of descriptors: polling is right for the rest
        return None
    if process.alive():
        return descriptor
    os.close(descriptor)
    return None


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in the order in which the kernel gives out pids: ever higher, and from the bottom again after pid_max."""

    last_pid: int
    forks: int  # since boot, in all pid namespaces; threads are counted too
    threads: int  # that there are

    @classmethod
    def now(cls) -> Moment | None:
        """This moment; None where the kernel doesn't tell. See proc(5), `/proc/loadavg` and `/proc/stat`."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            *_, entities, last_pid = _read("loadavg").split()
            forks = _read("stat").partition(b"\nprocesses ")[2].split(maxsplit=1)[0]
            return cls(int(last_pid), int(forks), int(entities.partition(b"/")[2]))
        return None

    def younger(self) -> Callable[[int], bool]:
        """A test for pids: whether their process may have been born since then.

        Where so many were born that the numbers may have come round, all may.
        """
        now, most = Moment.now(), _pid_max()
        # A pid that is taken is passed over, so the numbers advance by more than one for each fork.
        if now is None or 2 * (now.forks - self.forks) + self.threads >= most // 2:
            return lambda _: True
        first, last = self.last_pid, now.last_pid
        if first <= last:
            return lambda pid: first < pid <= last
        return lambda pid: pid > first or pid <= last


def of_runs(run_ids: Iterable[str], since: Moment | None = None) -> dict[str, list[Process]]:
    """The living processes of each run, found in one pass over `/proc`.

    The wrapper itself does not carry the run id in its environment and is not among them. `since` is a moment before
    the runs began: what was there then can't be of them, and isn't looked at.
    """
    found: dict[str, list[Process]] = {run_id: [] for run_id in run_ids}
    if not found:
        return found
    stats = _own_processes(since)
    owner: dict[int, str] = {}
    for pid in stats:
        run_id = _named_run(pid) or _leased_run(pid)
        if run_id in found:
            owner[pid] = run_id
    for pid, stat in stats.items():
        run_id = _inherited(pid, stats, owner)
        if run_id is not None:
            found[run_id].append(stat.process)
    return found


def wrappers(run_dir: str) -> list[Process]:
    """The shells of the wrapper of the run in this folder, found by their arguments."""
    wanted = os.fsencode(run_dir)
    return [stat.process for pid, stat in _own_processes().items() if _wrapped(pid) == wanted]


def run_of(pid: int) -> str | None:
    """The run, of any workspace and user of this host, that a process belongs to; None if there is none.

    Environments and descriptors of others can't be read, but everybody can see who was started by which wrapper.
    """
    for _ in range(1000):  # parents can change while we climb
        stat = _stat(pid)
        if stat is None:
            return None
        folder = _wrapped(pid)
        run_id = os.path.basename(os.fsdecode(folder)) if folder else _named_run(pid) or _leased_run(pid)
        if run_id:
            return run_id
        pid = stat.parent
    return None


def arguments(pid: int) -> list[str]:
    """The program and its arguments, as everybody can read them; empty if it has ended, or is the kernel's own."""
    return [os.fsdecode(word) for word in _read(f"{pid}/cmdline").rstrip(b"\0").split(b"\0") if word]


def end(run_id: str, *, grace: float, spare: int = 0) -> tuple[list[Process], list[Process]]:
    """End every process of a run but the one with the pid `spare`: TERM, then after `grace` seconds KILL, until none is
    left.

    Blocks until they are dead, at most `grace` + 10 seconds. A process that forks while it is being killed is met by
    looking again. Returns all that were signalled, and those that are still alive (stuck in the kernel, or not ours).
    """
    signalled: dict[Process, None] = {}
    term_until = time.monotonic() + grace
    give_up = term_until + 10.0
    while True:
        alive = [process for process in of_runs([run_id])[run_id] if process.pid != spare]
        if not alive:
            return list(signalled), []
        now = time.monotonic()
        if now >= give_up:
            return list(signalled), alive
        number = signal.SIGTERM if now < term_until else signal.SIGKILL
        for process in alive:
            if process not in signalled or number == signal.SIGKILL:
                send(process, number)
            signalled[process] = None
        wait_for(alive, max(0.0, term_until - now) if number == signal.SIGTERM else 1.0)


def send(process: Process, number: int) -> bool:
    """Send a signal to exactly this process. False if it has ended or belongs to somebody else."""
    descriptor = open_pidfd(process)
    try:
        if descriptor is not None:
            signal.pidfd_send_signal(descriptor, number)
        elif process.alive():
            os.kill(process.pid, number)
        else:
            return False
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if descriptor is not None:
            os.close(descriptor)
    # A stopped process sees TERM only when it runs again.
    if number == signal.SIGTERM:
        send(process, signal.SIGCONT)
    return True


def wait_for(processes: Iterable[Process], seconds: float) -> bool:
    """Wait until all of these have ended, at most `seconds`. True if they have."""
    deadline = time.monotonic() + seconds
    for process in processes:
        descriptor = open_pidfd(process)
        if descriptor is None:
            _poll_until_dead(process, deadline)
            continue
        try:
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
        finally:
            os.close(descriptor)
    return not any(process.alive() for process in processes)


def _poll_until_dead(process: Process, deadline: float) -> None:
    """For kernels without pidfds."""
    while process.alive() and time.monotonic() < deadline:
        time.sleep(0.02)


def _pid_max() -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(_read("sys/kernel/pid_max"))
    return 0


def _own_processes(since: Moment | None = None) -> dict[int, _Stat]:
    me = os.geteuid()
    stats: dict[int, _Stat] = {}
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if since is not None:  # asked after they were listed: who is born later is not among them
        pids = list(filter(since.younger(), pids))
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if me != 0 and os.stat(f"/proc/{pid}").st_uid != me:
                continue
            stat = _stat(pid)
            if stat is not None and not stat.zombie:
                stats[pid] = stat
    return stats


def _fields(pid: int) -> list[bytes] | None:
    """The fields of `/proc/PID/stat` from the third on."""
    text = _read(f"{pid}/stat")
    # The command name is in parentheses and may hold spaces and parentheses itself.
    return text[text.rindex(b")") + 2 :].split(None, 22) if text else None


def _stat(pid: int) -> _Stat | None:
    fields = _fields(pid)
    if fields is None:
        return None
    return _Stat(Process(pid, int(fields[19])), parent=int(fields[1]), zombie=fields[0] in (b"Z", b"X"))


def _named_run(pid: int) -> str | None:
    """The run whose id stands in the environment of the process."""
    environment = b"\0" + _read(f"{pid}/environ")
    at = environment.find(_NAMED)
    if at < 0:
        return None
    at += len(_NAMED)
    return environment[at : environment.find(b"\0", at)].decode(errors="replace")


def _leased_run(pid: int) -> str | None:
    """The run whose lease the process was given by its wrapper. A lease's name ends in the run id.

    Schedulers open leases as well, but never so that a program which they start would inherit them.
    """
    try:
        target = os.readlink(f"/proc/{pid}/fd/{LEASE_DESCRIPTOR}")
        flags = re.search(rb"flags:\s*([0-7]+)", _read(f"{pid}/fdinfo/{LEASE_DESCRIPTOR}"))
    except OSError as error:
        _raise_unless_gone(error)
        return None
    if flags is None or int(flags[1], 8) & os.O_CLOEXEC:
        return None
    run_id = target.removesuffix(" (deleted)").rpartition(".")[2]
    return None if _wrapped(pid) is not None else run_id


def _wrapped(pid: int) -> bytes | None:
    """The run's folder, if the process is a shell of a wrapper."""
    words = _read(f"{pid}/cmdline").split(b"\0", 8)
    for word, following in itertools.pairwise(words):  # /bin/sh stands before it, or env -i /bin/sh
        if word.endswith(b"/executors/wrapper.sh"):
            return following
    return None


def _read(name: str) -> bytes:
    """A file of `/proc`; empty if it, or its process, is gone. Plain system calls: it is done for every process."""
    try:
        descriptor = os.open(f"/proc/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = part = os.read(descriptor, _PART)
            while len(part) == _PART:  # the kernel gives all that is there, so less is the end
                part = os.read(descriptor, _PART)
                content += part
            return content
        finally:
            os.close(descriptor)
    except OSError as error:
        _raise_unless_gone(error)
        return b""


def _raise_unless_gone(error: OSError) -> None:
    """A process that can't be looked at because *we* are out of something is not one that is gone."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error


def _inherited(pid: int, stats: dict[int, _Stat], owner: dict[int, str]) -> str | None:
    """The run of the nearest ancestor that has one, the process itself included."""
    seen = 0
    while pid in stats and seen < 1000:
        if pid in owner:
            return owner[pid]
        pid = stats[pid].parent
        seen += 1
    return None
