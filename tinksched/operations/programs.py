"""The programs that tasks run with: interpreters, conda environments, and what git says of the code."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..config import Settings
from ..errors import MissingProgram, UsageError
from ..scheduler.starting import clean_environment, current_environment

CONDA_SECONDS = 60.0
GIT_SECONDS = 2.0
_CONDA_PLACES = ("~/miniconda3", "~/anaconda3", "~/miniforge3", "~/mambaforge", "/opt/conda", "/opt/miniconda3")


@dataclass(frozen=True, slots=True)
class Programs:
    """What is the same for all tasks that one command queues."""

    python: str
    environment: Mapping[str, str]  # of the queueing command, with the conda environment activated


@dataclass(frozen=True, slots=True)
class Commit:
    """The code as git knows it. Empty where there is no repository, or git did not answer in time."""

    id: str = ""
    dirty: bool = False


def find(settings: Settings) -> Programs:
    """The interpreter and the environment.

    Raises:
        UsageError: what `python_env` or `conda_env` names isn't there.
    """
    environment = current_environment()
    if settings.conda_env:
        environment = conda_environment(settings.conda_env)
    return Programs(interpreter(settings, environment), environment)


def interpreter(settings: Settings, environment: Mapping[str, str]) -> str:
    """The Python that runs the script: `python_env`, else that of `conda_env`, else a `.venv`, else `python3`.

    Raises:
        UsageError: what `python_env` names isn't there or can't be executed.
    """
    named = settings.python_env
    if named is not None:
        return _named_interpreter(settings, named)
    if not settings.conda_env:
        for folder in (settings.work_dir, settings.workspace):
            venv = folder / ".venv" / "bin" / "python"
            if os.access(venv, os.X_OK):
                return str(venv)
    program = "python" if settings.conda_env else "python3"
    found = shutil.which(program, path=environment.get("PATH"))
    if found is None:
        raise MissingProgram(f"there is no {program} on PATH", hint="name an interpreter with python_env")
    return found


def _named_interpreter(settings: Settings, named: str) -> str:
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


def conda_environment(name: str) -> dict[str, str]:
    """The variables of an activated conda environment: asked of conda once, when tasks are queued.

    Raises:
        UsageError: there is no conda, or it has no such environment.
    """
    conda = _conda()
    if conda is None:
        raise MissingProgram(
            f"conda_env is {name!r}, but there is no conda on this machine (not on PATH, and no CONDA_EXE)",
            hint="install conda, or take conda_env out of scheduler_config.yml",
        )
    which = ["-p", name] if os.sep in name else ["-n", name]
    try:
        answer = subprocess.run(
            [conda, "run", *which, "env", "-0"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CONDA_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"conda_env: {conda} can't be asked for {name!r}: {error}") from None
    if answer.returncode != 0:
        said = " ".join(answer.stderr.decode(errors="replace").split())[-300:]
        raise UsageError(
            f"conda_env: conda has no environment {name!r}: {said}", hint="conda env list shows those that it has"
        )
    pairs = (entry.partition(b"=") for entry in answer.stdout.split(b"\0") if b"=" in entry)
    return clean_environment({os.fsdecode(key).lstrip("\n"): os.fsdecode(value) for key, _, value in pairs})


def commit(folder: Path) -> Commit:
    """The commit of a folder, and whether files that git knows differ from it. Once a `start`, two seconds at most."""
    head = _git(folder, "rev-parse", "HEAD")
    if not head:
        return Commit()
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return Commit(head.strip(), bool(changes))


def executable(word: str, folder: Path, environment: Mapping[str, str]) -> bool:
    """Whether a command's first word is a program that can be run from `folder`."""
    if os.sep in word:
        path = folder / word
        return path.is_file() and os.access(path, os.X_OK)
    return shutil.which(word, path=environment.get("PATH")) is not None


def _conda() -> str | None:
    named = os.environ.get("CONDA_EXE")
    if named and os.access(named, os.X_OK):
        return named
    found = shutil.which("conda") or shutil.which("mamba") or shutil.which("micromamba")
    if found:
        return found
    places = (Path(place).expanduser() / "bin" / "conda" for place in _CONDA_PLACES)
    return next((str(place) for place in places if os.access(place, os.X_OK)), None)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS / 2,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.decode(errors="replace") if answer.returncode == 0 else None
