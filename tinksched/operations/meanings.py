"""What the values of an old scheduler's configuration mean now, where that is something else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ..config import Settings
from ..config.units import duration
from ..errors import MissingProgram, TinkschedError
from ..host.tmux import session_name
from ..scheduler.devices import resolve_gpus
from .programs import conda_environment, interpreter

DELAY = "the pause between the steps of a session; now the least seconds between two starts on the same GPU"
NO_CONDA = "there is no conda on this machine, and that is an error at `start` now"


def _about_task_name(name: str, settings: Settings) -> str | None:
    kept = session_name(settings.task_name)
    return None if kept == settings.task_name else f"tmux can't have such names; the sessions are called {kept}_… now"


def _about_folder(path: str, settings: Settings) -> str | None:
    return None if settings.work_dir.is_dir() else f"there is no folder {settings.work_dir}; `start` refuses that now"


def _about_script(path: str, settings: Settings) -> str | None:
    there = settings.script_path.is_file()
    return None if there else f"there is no file {settings.script_path}; `start` refuses that now"


def _about_python(path: str, settings: Settings) -> str | None:
    try:
        interpreter(settings, os.environ)
    except TinkschedError as error:
        return f"{error.message.removeprefix('python_env: ')}; `start` refuses that now"
    return None


def _about_jobs(count: str, settings: Settings) -> str | None:
    return "was for this workspace alone; now it counts the runs of all workspaces and users of this machine on a GPU"


def _about_count(count: str, settings: Settings) -> str | None:
    try:
        resolve_gpus(settings)
    except TinkschedError as error:
        return f"{error.message.removeprefix('gpu_count is ')}; was not checked, `start` refuses that now"
    return None


def _about_interval(text: str, settings: Settings) -> str | None:
    if settings.check_interval >= 30:
        return None
    return "was how soon an end was noticed; ends are noticed at once now, so there is no need for a short one"


def _about_delay(text: str, settings: Settings) -> str | None:
    return f"was {DELAY}; 0 if you don't need that" if settings.startup_delay else None


def _about_logs(path: str, settings: Settings) -> str | None:
    if settings.log_dir != Path("/tmp"):
        return None
    return (
        "kept, but /tmp is emptied when the machine starts, and workspaces that share it get folders of their own "
        "(train_logs-…) now; better: logs"
    )


def _about_conda(name: str, settings: Settings) -> str | None:
    try:
        if settings.conda_env:
            conda_environment(settings.conda_env)
    except TinkschedError as error:
        return f"{error.message.removeprefix('conda_env: ')}; `start` refuses that now"
    return None


def lacks_conda() -> bool:
    """Whether there is no conda at all, which is something else than an environment that it does not have."""
    try:
        conda_environment("base")
    except MissingProgram:
        return True
    except TinkschedError:
        return False
    return False


def _about_pattern(text: str, settings: Settings) -> str | None:
    try:
        hidden = sorted(path.name for path in settings.config_dir.iterdir() if path.name[0] in "._")
    except OSError:
        return None
    named = [name for name in hidden if name.endswith((".yml", ".yaml"))]
    return f"names that begin with _ or . are no tasks now: {', '.join(named)}" if named else None


def _about_restart(text: str, settings: Settings) -> str | None:
    now = "runs that fail are tried again" if text.lower() == "true" else "true would have runs that fail tried again"
    return f"did nothing; now it works: {now}"


QUESTIONS: Mapping[str, Callable[[str, Settings], str | None]] = {
    "task_name": _about_task_name,
    "work_dir": _about_folder,
    "script_path": _about_script,
    "python_env": _about_python,
    "max_jobs_per_gpu": _about_jobs,
    "gpu_count": _about_count,
    "check_interval": _about_interval,
    "startup_delay": _about_delay,
    "command_delay": lambda text, settings: "ignored: nothing is typed into sessions, so there is nothing to delay",
    "log_dir": _about_logs,
    "conda_env": _about_conda,
    "config_pattern": _about_pattern,
    "auto_restart_failed": _about_restart,
    "max_retries": lambda text, settings: "did nothing; now it limits the retries, if auto_restart_failed is true",
}


def seconds(text: str) -> float | None:
    """A duration in seconds; None if it is none."""
    try:
        return duration(text)
    except ValueError:
        return None
