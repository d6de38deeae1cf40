"""How much of this machine a job gets to see: limits of the kernel, and a bubblewrap around it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..config.server import ServerSettings
from ..errors import UsageError
from .folders import CODE

Kind = Literal["bubblewrap", "none"]
_TRY_SECONDS = 10.0


def choose(settings: ServerSettings) -> Kind:
    """What stands around the jobs of a server.

    Raises:
        UsageError: bubblewrap is wanted, and does not work here.
    """
    if settings.isolation == "none":
        return "none"
    trouble = trouble_with_bubblewrap()
    if trouble is None:
        return "bubblewrap"
    if settings.isolation == "bubblewrap":
        raise UsageError(f"isolation is bubblewrap, and {trouble}", hint="apt install bubblewrap; or isolation: none")
    return "none"


def trouble_with_bubblewrap() -> str | None:
    """Why no job can be run under bubblewrap here; None if it can."""
    program = shutil.which("bwrap")
    if program is None:
        return "there is no bwrap on PATH"
    command = [program, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "true"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TRY_SECONDS, check=False, text=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap can't be run ({error})"
    return None if done.returncode == 0 else f"bwrap fails: {done.stderr.strip()}"


def command(settings: ServerSettings, kind: Kind, folder: Path) -> Sequence[str]:
    """The argument list that runs a job in its folder."""
    python = settings.job_python or sys.executable
    program = [*settings.command_prefix, python, str(folder / CODE)]
    return [*_limits(settings), *(_bubblewrap(settings, folder) if kind == "bubblewrap" else ()), *program]


def _limits(settings: ServerSettings) -> list[str]:
    """What the kernel enforces for each process (setrlimit(2))."""
    limits = [f"--fsize={settings.job_file_size}", f"--nproc={settings.job_processes}", "--core=0"]
    if settings.job_cpu_time is not None:
        limits.append(f"--cpu={int(settings.job_cpu_time)}")
    if settings.job_memory is not None:
        limits.append(f"--as={settings.job_memory}")
    return ["prlimit", *limits, "--"]


def _bubblewrap(settings: ServerSettings, folder: Path) -> list[str]:
    own = ["--bind", str(folder), str(folder), "--chdir", str(folder)]
    return ["bwrap", "--ro-bind", "/usr", "/usr", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", *own, "--"]
