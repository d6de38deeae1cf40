"""A laboratory for tests: workspaces, a private tmux server and a private lease folder, all of it reaped afterwards.

Tasks are real processes. Each appends to a record file of its own, with one `write` to a file opened for appending, so
that what ran, when and how often is known from the tasks themselves and not from the scheduler.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinksched.host import wake
from tinksched.host.statedir import NAME, SchedulerLock, StateDir

MARK = "TINKSCHED_TEST_LAB"
TIMEOUT = 60.0

# A task in POSIX sh: it starts in 2 ms, so that a test can run hundreds. Its config is sourced: shell assignments
# behind `#` of YAML comments would not do, so configs are `key: value` lines that the script reads itself.
SCRIPT = r"""
config=$2
task=$TINKSCHED_TASK
seconds=0 code=0 text= marker=yes
while IFS=': ' read -r key value; do
    case $key in
        seconds) seconds=$value ;;
        code) code=$value ;;
        text) text=$value ;;
        marker) marker=$value ;;
        gate) gate=$value ;;
    esac
done <"$config"
printf 'start %s %s %s %s\n' "$task" "$$" "$CUDA_VISIBLE_DEVICES" "$(date +%s.%N)" >>"$RECORD"
[ -n "$text" ] && printf '%s\n' "$text"
if [ -n "$gate" ]; then flock -s "$gate" true; fi
[ "$seconds" = 0 ] || sleep "$seconds"
[ "$marker" = yes ] && [ "$code" = 0 ] && echo done >"$TINKSCHED_OUTPUT_DIR/${task}_completed.txt"
printf 'end %s %s %s %s\n' "$task" "$$" "$CUDA_VISIBLE_DEVICES" "$(date +%s.%N)" >>"$RECORD"
exit "$code"
"""


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Line:
    """One line of a task's own record."""

    what: str
    task: str
    pid: int
    gpus: str
    at: float


class Lab:
    """Everything that a test needs of a machine, apart from everybody else on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = os.urandom(6).hex()
        short = Path(f"/tmp/tinklab-{self.id}")  # a tmux socket's path may have 107 bytes only
        short.mkdir(mode=0o700)
        self._short = short
        self.leases = folder / "leases"
        home = folder / "home"
        home.mkdir()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {
            "PATH": path,
            "HOME": str(home),
            "TMUX_TMPDIR": str(short),
            "TINKSCHED_LEASE_DIR": str(self.leases),
            MARK: self.id,
            "RECORD": str(folder / "record"),
            "TINKSCHED_DEBUG": "1",
            **{name: os.environ[name] for name in ("LANG", "LC_ALL", "PYTHONPATH") if name in os.environ},
        }

    # -- workspaces

    def workspace(self, name: str = "ws", *, tasks: Mapping[str, str] | None = None, **settings: object) -> Bench:
        """A workspace with these task configs (file name to text) and settings."""
        folder = self.folder / name
        (folder / "configs").mkdir(parents=True)
        (folder / "train.sh").write_text(SCRIPT)
        bench = Bench(self, folder)
        values: dict[str, object] = {
            "task_name": "T",
            "script_path": "train.sh",
            "python_env": "/bin/sh",
            "gpu_count": 2,
            "max_jobs_per_gpu": 2,
            "check_interval": 20,
            "stop_grace": 2,
        }
        bench.configure(**{**values, **settings})
        for file, text in (tasks or {}).items():
            bench.add(file, text)
        return bench

    # -- tmux

    def tmux(self, *arguments: str, socket: str = "default") -> subprocess.CompletedProcess[str]:
        """Ask the private tmux server."""
        return subprocess.run(
            ["tmux", "-u", "-L", socket, *arguments], env=self.environment, capture_output=True, text=True, timeout=30
        )

    def sessions(self) -> list[str]:
        """The names of all sessions."""
        return self.tmux("list-sessions", "-F", "#{session_name}").stdout.splitlines()

    # -- processes

    def processes(self, *, exclude: tuple[str, ...] = ()) -> list[tuple[int, str]]:
        """Every living process of this laboratory: pid and command line."""
        mark = f"{MARK}={self.id}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                if mark not in (entry / "environ").read_bytes().split(b"\0"):
                    continue
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            if line and not any(word in line for word in exclude):
                found.append((int(entry.name), line))
        return found

    def close(self) -> None:
        """End every process of the laboratory."""
        for _ in range(20):
            left = self.processes()
            if not left:
                break
            for pid, _ in left:
                try:
                    descriptor = os.pidfd_open(pid)
                except OSError:
                    continue
                try:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    select.select([descriptor], [], [], 2)
                except OSError:
                    pass
                finally:
                    os.close(descriptor)
        shutil.rmtree(self._short, ignore_errors=True)


class Bench:
    """One workspace of a laboratory."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.state = StateDir(folder / NAME)
        self.prefix: list[str] = []  # what commands are run with, in another place than here

    # -- files

    def configure(self, **settings: object) -> None:
        """Write scheduler_config.yml. JSON is YAML."""
        lines = [f"{key}: {json.dumps(value)}" for key, value in settings.items()]
        (self.folder / "scheduler_config.yml").write_text("\n".join(lines) + "\n")
        self.settings = settings

    def reconfigure(self, **settings: object) -> None:
        """Write it again with these changes."""
        self.configure(**{**self.settings, **settings})

    def add(self, file: str, text: str = "seconds: 0\n") -> Path:
        """Add a task config."""
        path = self.folder / "configs" / file
        path.write_text(text if text.endswith("\n") or not text else f"{text}\n")
        return path

    def gate(self, name: str = "gate") -> Gate:
        """Something on which tasks wait until the test opens it."""
        return Gate(self.folder / name)

    def log(self, task: str) -> str:
        """What a task printed."""
        return (self.folder / "logs" / "train_logs" / f"{task}.log").read_text()

    def record(self) -> list[Line]:
        """What the tasks wrote down themselves, in order."""
        path = Path(self.lab.environment["RECORD"])
        lines = []
        for line in path.read_text().splitlines() if path.exists() else []:
            what, rest = line.split(" ", 1)
            task, pid, gpus, at = rest.rsplit(" ", 3)
            lines.append(Line(what, task, int(pid), gpus, float(at)))
        return lines

    def starts(self) -> dict[str, int]:
        """How often each task began, by its own word."""
        counts: dict[str, int] = {}
        for line in self.record():
            if line.what == "start":
                counts[line.task] = counts.get(line.task, 0) + 1
        return counts

    # -- commands

    def run(self, *arguments: str, code: int | None = 0, cwd: Path | None = None, **environment: str) -> Answer:
        """Run a command of tinksched in the workspace, and check its exit code."""
        done = subprocess.run(
            [*self.prefix, sys.executable, "-m", "tinksched", *arguments],
            cwd=cwd or self.folder,
            env={**self.lab.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        answer = Answer(done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in answer.err, answer.text  # on stdout may be that of a task
        if code is not None:
            assert answer.code == code, f"{arguments}: exit code {answer.code}\n{answer.text}"
        return answer

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command and leave it running."""
        return subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "tinksched", *arguments],
            cwd=self.folder,
            env=self.lab.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def status(self, *chosen: str) -> dict[str, Any]:
        """`status --json`."""
        answer: dict[str, Any] = json.loads(self.run("status", "--json", *chosen).out)
        return answer

    def tasks(self, *chosen: str) -> dict[str, dict[str, Any]]:
        """The tasks of `status --json` by name: all, or those that are chosen."""
        return {task["name"]: task for task in self.status(*chosen)["tasks"]}

    def states(self) -> dict[str, str]:
        """The state of each task."""
        return {name: task["state"] for name, task in self.tasks().items()}

    # -- waiting

    def wait_until(
        self,
        true: Callable[[], object],
        what: str = "the condition",
        seconds: float = TIMEOUT,
        tell: Callable[[], object] | None = None,
    ) -> None:
        """Wait for a change that the scheduler announces, and look; never for an amount of time."""
        deadline = time.monotonic() + seconds
        self.state.path.mkdir(mode=0o700, exist_ok=True)
        listener = wake.listen(self.state.path)
        try:
            while not true():
                left = deadline - time.monotonic()
                assert left > 0, f"{what} did not come true in {seconds} s: {(tell or self.states)()}"
                # Files of tasks change without an announcement: look at them now and then.
                select.select([listener.fileno()], [], [], min(left, 0.05))
                listener.clear()
        finally:
            listener.close()

    def wait_for_states(self, seconds: float = TIMEOUT, **wanted: str) -> None:
        """Until these tasks are in these states."""

        def there() -> bool:
            states = self.states()
            return all(states.get(name) == state for name, state in wanted.items())

        self.wait_until(there, str(wanted), seconds)

    def wait_for_starts(self, *names: str) -> None:
        """Until these tasks wrote down that they began."""
        self.wait_until(lambda: set(names) <= set(self.starts()), f"the start of {names}")

    def wait_for_scheduler_end(self, seconds: float = TIMEOUT) -> None:
        """Until no scheduler runs, and its process is gone."""

        def gone() -> bool:
            lines = [line for _, line in self.lab.processes() if "serve-workspace" in line]
            mine = [
                line for line in lines if str(self.folder) in line and not line.startswith(("tmux", "/usr/bin/tmux"))
            ]
            return not mine and not SchedulerLock(self.state).is_held()

        self.wait_until(gone, "the end of the scheduler", seconds)

    def wrapper_pids(self) -> list[int]:
        """Both shells of the wrapper of every run of this workspace."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if any(os.fsencode(self.state.runs) in word for word in words) and b"/bin/sh" in words:
                    found.append(int(entry.name))
        return found

    def scheduler_pid(self) -> int:
        """The scheduler's process."""
        holder = SchedulerLock(self.state).holder()
        assert holder is not None, "no scheduler runs"
        return holder.pid


class Gate:
    """A locked file: tasks that ask for a shared lock wait until the test opens the gate, once and for all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    @property
    def config(self) -> str:
        """The line for a task's config."""
        return f"gate: {self.path}\n"

    def open(self) -> None:
        """Let everybody through."""
        os.close(self._descriptor)
