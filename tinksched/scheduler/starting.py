"""From a placed task to a prepared run: its names, its environment, its files. Nothing is launched here."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from ..config import Settings, placeholders
from ..core.model import Placement, Run, RunRecord, RunState, Task
from ..host.completion import marker_identity
from ..host.gpus import exported
from ..host.memory import oom_kills
from ..host.processes import RUN_ID_VARIABLE, boot_id, since_boot
from ..host.rundir import RunDir, write_private
from ..host.statedir import Home, StateDir
from ..host.tmux import session_name

_FORGOTTEN = re.compile(r"TMUX|TMUX_PANE|TINKSCHED_(?:RUN_ID|TASK|GPUS|OUTPUT_DIR|ATTEMPT)|OLDPWD|SHLVL|_")
SNAPSHOT_BYTES = 1_000_000
OWNER = ".workspace"  # the file that says whose logs are in a folder
_TERMINAL = "screen-256color"  # what every tmux since 1.9 understands, whatever the queueing terminal was


def run_session(settings: Settings, task: str, gpus: tuple[int, ...]) -> str:
    """The session of a run: `{worker_prefix or task_name}_{task}_gpu{N}`, `_gpu0-1` for several, `_cpu` for none."""
    where = f"gpu{'-'.join(map(str, gpus))}" if gpus else "cpu"
    return session_name(f"{settings.worker_prefix or settings.task_name}_{task}_{where}")


def scheduler_session(settings: Settings) -> str:
    """The session of the workspace's scheduler."""
    return session_name(f"{settings.task_name}{settings.scheduler_session_suffix}")


class Logs:
    """Where the logs of a workspace lie. A folder of somebody else's logs is never written to.

    `train_logs` is ours if it says so in a small file. In a `log_dir` that several workspaces share, the second one
    gets `train_logs-ID`, and its scheduler's log gets the same ending.
    """

    def __init__(self, settings: Settings, home: Home) -> None:
        self._settings = settings
        self._id = home.workspace_id
        plain = settings.log_dir / "train_logs"
        self._ending = "" if not plain.exists() or self._is_ours(plain) else f"-{self._id}"

    @property
    def folder(self) -> Path:
        """The folder of the runs' logs."""
        return self._settings.log_dir / f"train_logs{self._ending}"

    @property
    def scheduler(self) -> Path:
        """The scheduler's own log."""
        return self._settings.log_dir / f"{self._settings.task_name}_scheduler{self._ending}.log"

    def prepare(self) -> None:
        """Make the folders. Raises OSError: they can't be made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        owner = self.folder / OWNER
        if not owner.exists():
            owner.write_text(f"{self._id}\n")

    def of_run(self, task: str, attempt: int) -> Path:
        """`{task}.log`, and `{task}.2.log` for the second attempt; another name if that is somebody else's log.

        The second attempt of `exp` and the first one of a task `exp.2` would like the same.
        """
        wanted = self.folder / (f"{task}.log" if attempt == 1 else f"{task}.{attempt}.log")
        return wanted if not wanted.exists() else self.folder / f"{task}.attempt-{attempt}.log"

    def _is_ours(self, folder: Path) -> bool:
        try:
            return (folder / OWNER).read_text().strip() == self._id
        except OSError:
            return False


class RunMaker:
    """Makes runs of the tasks of one workspace."""

    def __init__(self, settings: Settings, state: StateDir, home: Home) -> None:
        self._settings = settings
        self._state = state
        self._logs = Logs(settings, home)
        self._boot = boot_id()

    def new_id(self) -> str:
        """A run id that was never used and can't be guessed: 16 hexadecimal digits."""
        return os.urandom(8).hex()

    def make(
        self, task: Task, run_id: str, placed: Placement, devices: tuple[str, ...], lease: Path, now: float
    ) -> Run:
        """The run of `task` where it was placed. `devices` are the names of its GPUs, or that of the CPU."""
        attempt = task.attempts + 1
        log = self._logs.of_run(task.name, attempt) if self._settings.enable_logging else None
        return Run(
            id=run_id,
            task_id=task.id,
            task=task.name,
            attempt=attempt,
            state=RunState.STARTING,
            gpus=placed.gpus,
            devices=devices,
            executor=self._settings.executor,
            session=run_session(self._settings, task.name, placed.gpus) if self._settings.executor == "tmux" else "",
            directory=str(self._state.runs / run_id),
            work_dir=task.spec.work_dir,
            log=str(log) if log else None,
            lease=str(lease),
            marker=task.spec.marker,
            marker_before=marker_identity(task.spec.marker),
            boot_id=self._boot,
            created_at=now,
            exclusive=placed.exclusive,
            deadline=now + task.spec.time_limit if task.spec.time_limit is not None else None,
            record=RunRecord(
                since_boot=since_boot() - (time.time() - now),  # the same instant as `created_at`
                memory=placed.memory,
            ),
        )

    def prepare(self, task: Task, run: Run, base: Mapping[str, str], ports: Collection[int | None]) -> Run:
        """Write what the wrapper needs, and return the run with the record of it.

        `base` is the environment of the command that queued the task; `ports` are those that other runs were given.

        Raises:
            OSError: the disk is full, say.
        """
        spec = task.spec
        if run.log is not None:
            self._logs.prepare()
        Path(spec.output_dir).mkdir(parents=True, exist_ok=True)
        again = spec.retry_args if task.failures else ()
        texts = [*spec.command, *again, *spec.pre_run, *spec.post_run, *(value for _, value in spec.environment)]
        port = free_port(ports) if "port" in placeholders.used(texts) else None
        values = self._values(task, run, port)

        command = placeholders.expand_command((*spec.command, *again), values)
        own = {name: placeholders.expand(value, values) for name, value in spec.environment}
        RunDir(run.directory).prepare(
            command,
            self._environment(run, base, own, spec.output_dir),
            pre_run=placeholders.expand_command(spec.pre_run, values),
            post_run=placeholders.expand_command(spec.post_run, values),
            interactive=spec.interactive,
            streams=spec.streams,
        )
        record = RunRecord(
            command=command,
            python=spec.python,
            node=socket.gethostname(),
            config_hash=snapshot(self._state.snapshots, task.config) if task.config else None,
            commit=spec.commit,
            dirty=spec.dirty,
            port=port,
            old_marker=spec.old_marker,
            oom_kills=oom_kills(),
            old_marker_before=marker_identity(spec.old_marker) if spec.old_marker else None,
            since_boot=run.record.since_boot,
            memory=run.record.memory,
        )
        return replace(run, record=record)

    def _values(self, task: Task, run: Run, port: int | None) -> dict[str, str]:
        """What the placeholders stand for."""
        return {
            "python": task.spec.python,
            "script": task.spec.script,
            "config": task.config,
            "task": task.name,
            "gpus": self._told(run),
            "ngpus": str(len(run.gpus)),
            "port": str(port or ""),
            "attempt": str(run.attempt),
            "workspace": str(self._settings.workspace),
            "output_dir": task.spec.output_dir,
        }

    def _told(self, run: Run) -> str:
        """What the run is told of its GPUs."""
        devices = run.devices if run.gpus else ()
        return exported(run.gpus, devices, by_uuid=self._settings.gpu_ids == "uuid")

    def _environment(
        self, run: Run, base: Mapping[str, str], own: Mapping[str, str], output_dir: str
    ) -> dict[str, str]:
        gpus = self._told(run)
        environment = clean_environment(base)
        if run.session:
            environment["TERM"] = _TERMINAL
        environment |= own
        environment |= {
            "PWD": run.work_dir,
            "PYTHONUNBUFFERED": "1",
            # CUDA's own order is the fastest device first; NVML and nvidia-smi count along the PCI bus.
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            self._settings.cuda_visible_devices_var: gpus,
            RUN_ID_VARIABLE: run.id,
            "TINKSCHED_TASK": run.task,
            "TINKSCHED_GPUS": gpus,
            "TINKSCHED_OUTPUT_DIR": output_dir,
            "TINKSCHED_ATTEMPT": str(run.attempt),
        }
        return environment


def free_port(taken: Collection[int | None]) -> int:
    """A TCP port that nobody listens on now, and that no other run of this scheduler was given."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def snapshot(folder: Path, config: str) -> str | None:
    """Keep the config as it is now, by its hash. Returns the hash; None if it can't be read or is too long to keep."""
    try:
        content = Path(config).read_bytes()
    except OSError:
        return None
    name = hashlib.sha256(content).hexdigest()
    if len(content) <= SNAPSHOT_BYTES and not (folder / name).exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        aside = folder / f"{name}.{os.getpid()}"
        aside.unlink(missing_ok=True)
        write_private(aside, content)
        aside.replace(folder / name)
    return name


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what belongs to the shell, the tmux session or the run that it was taken from."""
    return {name: value for name, value in environment.items() if not _FORGOTTEN.fullmatch(name)}


def current_environment() -> dict[str, str]:
    """The environment of this process, as runs that it queues will get it."""
    return clean_environment(os.environ)
