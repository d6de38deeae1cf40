"""From a placed task to a prepared run: its names, its environment, its files. Nothing is launched here."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from ..config import Settings
from ..core.model import Run, RunState, Task
from ..host.completion import marker_identity
from ..host.processes import RUN_ID_VARIABLE, boot_id
from ..host.rundir import RunDir
from ..host.statedir import Home, StateDir
from ..host.tmux import session_name

_FORGOTTEN = re.compile(r"TMUX|TMUX_PANE|TINKSCHED_(?:RUN_ID|TASK|GPUS|OUTPUT_DIR|ATTEMPT)|OLDPWD|SHLVL|_")
STOPPED = "stopped"  # the fact that a user stopped the scheduler; `start` clears it
_TERMINAL = "screen-256color"  # what every tmux since 1.9 understands, whatever the queueing terminal was


def run_session(settings: Settings, task: str, gpus: tuple[int, ...]) -> str:
    """The session of a run: `{worker_prefix or task_name}_{task}_gpu{N}`, `_gpu0-1` for several GPUs."""
    prefix = settings.worker_prefix or settings.task_name
    return session_name(f"{prefix}_{task}_gpu{'-'.join(map(str, gpus))}")


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
        owner = self.folder / ".workspace"
        if not owner.exists():
            owner.write_text(f"{self._id}\n")

    def of_run(self, task: str, attempt: int) -> Path:
        """`{task}.log`, and `{task}.2.log` for the second attempt."""
        return self.folder / (f"{task}.log" if attempt == 1 else f"{task}.{attempt}.log")

    def _is_ours(self, folder: Path) -> bool:
        try:
            return (folder / ".workspace").read_text().strip() == self._id
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
        return secrets.token_hex(8)

    def make(self, task: Task, run_id: str, gpus: Mapping[int, str], lease: Path, now: float) -> Run:
        """The run of `task` on these GPUs (index to device name, in the order of the indices)."""
        attempt = task.attempts + 1
        log = self._logs.of_run(task.name, attempt) if self._settings.enable_logging else None
        indices = tuple(gpus)
        return Run(
            id=run_id,
            task_id=task.id,
            task=task.name,
            attempt=attempt,
            state=RunState.STARTING,
            gpus=indices,
            devices=tuple(gpus.values()),
            executor=self._settings.executor,
            session=run_session(self._settings, task.name, indices) if self._settings.executor == "tmux" else "",
            directory=str(self._state.runs / run_id),
            work_dir=task.spec.work_dir,
            log=str(log) if log else None,
            lease=str(lease),
            marker=task.spec.marker,
            marker_before=marker_identity(task.spec.marker),
            boot_id=self._boot,
            created_at=now,
            exclusive=task.spec.exclusive,
        )

    def prepare(self, task: Task, run: Run, base: Mapping[str, str]) -> None:
        """Write what the wrapper needs. `base` is the environment of the command that queued the task.

        Raises:
            OSError: the disk is full, say.
        """
        self._logs.prepare()
        Path(task.spec.output_dir).mkdir(parents=True, exist_ok=True)
        RunDir(run.directory).prepare(task.spec.command, self._environment(task, run, base))

    def _environment(self, task: Task, run: Run, base: Mapping[str, str]) -> dict[str, str]:
        gpus = ",".join(map(str, run.gpus))
        environment = clean_environment(base)
        if run.session:
            environment["TERM"] = _TERMINAL
        environment |= dict(task.spec.environment)
        environment |= {
            "PWD": run.work_dir,
            "PYTHONUNBUFFERED": "1",
            # CUDA's own order is the fastest device first; NVML and nvidia-smi count along the PCI bus.
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            self._settings.cuda_visible_devices_var: gpus,
            RUN_ID_VARIABLE: run.id,
            "TINKSCHED_TASK": task.name,
            "TINKSCHED_GPUS": gpus,
            "TINKSCHED_OUTPUT_DIR": task.spec.output_dir,
            "TINKSCHED_ATTEMPT": str(run.attempt),
        }
        return environment


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what belongs to the shell, the tmux session or the run that it was taken from."""
    return {name: value for name, value in environment.items() if not _FORGOTTEN.fullmatch(name)}


def current_environment() -> dict[str, str]:
    """The environment of this process, as runs that it queues will get it."""
    return clean_environment(os.environ)
