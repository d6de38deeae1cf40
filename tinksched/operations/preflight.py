"""What can be checked before anything runs, checked before anything runs; all of it at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..config import Settings
from ..errors import MissingProgram, TinkschedError, UsageError
from ..host import gpus, tmux
from ..host.leases import Leases
from ..scheduler.devices import resolve_gpus


def check(settings: Settings) -> tuple[str, gpus.Resolved]:
    """The interpreter and the GPUs, if this machine and these settings can run tasks.

    Raises:
        UsageError: they can't; every problem is named.
    """
    problems: list[TinkschedError] = []

    def attempt(step: Callable[[], object]) -> object:
        try:
            return step()
        except TinkschedError as error:
            problems.append(error)
            return None

    if settings.executor == "tmux":
        attempt(tmux.require)
    attempt(_require_flock)
    attempt(lambda: _require_folder(settings.work_dir, "work_dir"))
    attempt(lambda: _require_file(settings.script_path, "script_path"))
    attempt(Leases)
    attempt(lambda: _require_writable(settings))
    interpreter = attempt(lambda: find_interpreter(settings))
    resolved = attempt(lambda: resolve_gpus(settings))
    if problems:
        raise _together(problems)
    assert isinstance(interpreter, str) and isinstance(resolved, gpus.Resolved)
    return interpreter, resolved


def find_interpreter(settings: Settings) -> str:
    """The Python that runs the script: `python_env`, else a `.venv`, else `python3`.

    Raises:
        UsageError: what `python_env` names isn't there or can't be executed.
    """
    named = settings.python_env
    if named is None:
        for folder in (settings.work_dir, settings.workspace):
            venv = folder / ".venv" / "bin" / "python"
            if os.access(venv, os.X_OK):
                return str(venv)
        found = shutil.which("python3")
        if found is None:
            raise MissingProgram("there is no python3 on PATH", hint="name an interpreter with python_env")
        return found
    path = Path(named).expanduser()
    if os.sep not in named and not (settings.workspace / path).is_dir():
        found = shutil.which(named)
        if found is None:
            raise UsageError(f"python_env: there is no {named!r} on PATH", hint="name a path, or a venv's folder")
        return found
    path = settings.workspace / path
    if path.is_dir():
        path = path / "bin" / "python"
    if not path.exists():
        raise UsageError(f"python_env: there is no {path}", hint="name an interpreter, or a venv's folder")
    if not os.access(path, os.X_OK) or path.is_dir():
        raise UsageError(f"python_env: {path} can't be executed", hint="name an interpreter, or a venv's folder")
    return str(path)


def _require_flock() -> None:
    if shutil.which("flock") is None:
        raise MissingProgram("flock is not installed", hint="it is part of util-linux: sudo apt-get install util-linux")


def _require_folder(path: Path, key: str) -> None:
    if not path.is_dir():
        raise UsageError(f"{key}: there is no folder {path}")


def _require_file(path: Path, key: str) -> None:
    if not path.is_file():
        what = "is a folder, not a script" if path.is_dir() else "does not exist"
        raise UsageError(f"{key}: {path} {what}", hint=f"{key} is relative to the workspace, or absolute")


def _require_writable(settings: Settings) -> None:
    folders = [(settings.output_dir, "output_dir")]
    if settings.enable_logging:
        folders.append((settings.log_dir, "log_dir"))
    for folder, key in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{key}: {folder} can't be made: {error.strerror}") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(f"{key}: {folder} can't be written")


def _together(problems: list[TinkschedError]) -> TinkschedError:
    if len(problems) == 1:
        return problems[0]
    lines = [problem.message + (f"\n    {problem.hint}" if problem.hint else "") for problem in problems]
    return UsageError("\n".join(lines))
