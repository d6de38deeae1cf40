"""The one temporary folder in which everything happens, and the end of everything that was started there."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from .measure import Span

MARK = "TINKSCHED_BENCH"  # in the environment of every process of a benchmark: the place's id and the corner's name
PATIENCE = 180.0  # seconds without any sign of life after which a system has failed
HERE = Path(__file__).parent


class BenchError(Exception):
    """A system did not do what it was asked for."""


class Place:
    """A private folder. What is in it and what was started from it is gone when the block is left."""

    def __init__(self, parent: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tinkbench-", dir=parent))
        self._id = self.folder.name
        self._corners = 0
        self.task = self._compile()

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_all(self._id)
        shutil.rmtree(self.folder, ignore_errors=True)

    def corner(self, name: str) -> Corner:
        """A fresh corner: home, tmux server, sockets and leases of its own."""
        self._corners += 1
        return Corner(self, f"{self._corners}-{name}", self._id)

    def is_task(self, line: str) -> bool:
        """Whether this command line is that of a task, and not of something around it."""
        return line.startswith(" ".join(self.task))

    def _compile(self) -> list[str]:
        compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
        if compiler is None:
            return [sys.executable, "-I", "-S", str(HERE / "task.py")]
        program = self.folder / "task"
        subprocess.run([compiler, "-O2", "-o", program, HERE / "task.c"], check=True)
        return [str(program)]

    @staticmethod
    def end_all(mark: str) -> None:
        """Kill every process with the mark, until none is left."""
        for _ in range(20):
            left = marked(mark)
            if not left:
                return
            for pid in left:
                _kill(pid)


def marked(mark: str) -> list[int]:
    """The processes whose environment carries the mark, by pid."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if any(word.startswith(wanted) for word in (entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
    return found


def _kill(pid: int) -> None:
    """Kill a process and wait until it is dead."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [], 2)
        finally:
            os.close(descriptor)


def _await(pid: int) -> bool:
    """Wait for a child's end. False if it did not come in time, and it was killed."""
    descriptor = os.pidfd_open(pid)
    try:
        if select.select([descriptor], [], [], PATIENCE)[0]:
            return True
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return False
    finally:
        os.close(descriptor)


class Corner:
    """The part of the place in which one system works for one round."""

    def __init__(self, place: Place, name: str, mark: str) -> None:
        self.place = place
        self.folder = place.folder / name
        self._mark = f"{mark}/{name}/"
        self.home = self.folder / "home"
        self.home.mkdir(parents=True)
        (self.folder / "run").mkdir(mode=0o700)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {
            "PATH": path,
            "HOME": str(self.home),
            "SHELL": "/bin/sh",
            "TERM": "screen",
            "TMUX_TMPDIR": str(self.folder / "run"),
            "TMPDIR": str(self.folder),
            "TINKSCHED_LEASE_DIR": str(self.folder / "leases"),
            "TS_SOCKET": str(self.folder / "run" / "tsp"),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_DATA_HOME": str(self.home / ".local/share"),
            "XDG_STATE_HOME": str(self.home / ".local/state"),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            MARK: self._mark,
            **{name: os.environ[name] for name in ("LANG", "LC_ALL", "PYTHONPATH") if name in os.environ},
        }
        self._records: list[Record] = []
        (self.home / ".profile").write_text(f"PATH='{path}'\n")  # a login shell must find the peers' programs

    def record(self) -> Record:
        """A fresh pipe for the times of tasks."""
        self._records.append(Record(self.folder / f"record{len(self._records)}"))
        return self._records[-1]

    def call(self, *words: str | Path, codes: Sequence[int] = (0,), extra: Mapping[str, str] | None = None) -> float:
        """Run a command to its end and return its wall time in seconds.

        Raises:
            BenchError: another exit code.
        """
        command = [os.fspath(word) for word in words]
        said = self.folder / "said"
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(said), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        ]
        program = shutil.which(command[0], path=self.environment["PATH"])
        if program is None:
            raise BenchError(f"{command[0]} is not installed")
        environment = {**self.environment, **(extra or {})}
        before = time.monotonic()
        pid = os.posix_spawn(program, command, environment, file_actions=actions)
        ended = _await(pid)
        _, status = os.waitpid(pid, 0)
        seconds = time.monotonic() - before
        code = os.waitstatus_to_exitcode(status)
        if not ended:
            raise BenchError(f"{' '.join(command[:6])}: not done after {PATIENCE:.0f} seconds")
        if code not in codes:
            raise BenchError(f"{' '.join(command[:6])}: exit code {code}\n{said.read_text(errors='replace')}")
        return seconds

    def processes(self) -> dict[int, str]:
        """What runs here: the command line of each process."""
        found = {}
        for pid in marked(self._mark):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if line:
                    found[pid] = line
        return found

    def clear(self) -> None:
        """End what runs here, and remove what lies here."""
        self.place.end_all(self._mark)
        for record in self._records:
            record.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Corner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()


class Record:
    """A named pipe to which tasks write their times: who reads it waits for them without asking again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path, 0o600)
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # also for writing: it has no end
        self._rest = b""

    def read(self, count: int) -> list[Span]:
        """The times of the next `count` tasks, in the order in which they ended; waits for them.

        Raises:
            BenchError: nothing was written for too long.
        """
        spans: list[Span] = []
        while len(spans) < count:
            if b"\n" not in self._rest:
                if not select.select([self._descriptor], [], [], PATIENCE)[0]:
                    raise BenchError(f"{len(spans)} of {count} tasks ended, and then none for {PATIENCE:.0f} seconds")
                self._rest += os.read(self._descriptor, 4096)
                continue
            line, _, self._rest = self._rest.partition(b"\n")
            start, end = line.split()
            spans.append((float(start), float(end)))
        return spans

    def drain(self) -> None:
        """Forget what was written and not read."""
        self._rest = b""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, 65536):
                pass

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._descriptor)
