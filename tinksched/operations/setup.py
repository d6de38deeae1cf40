"""`setup-workspace`: a folder that is ready to be filled with configs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ..config import CONFIG_NAME
from ..errors import UsageError, WorkspaceError
from ..host.statedir import NAME as STATE

WRAPPER = "scheduler.sh"


@dataclass(frozen=True, slots=True)
class SetUp:
    """What `setup-workspace` did: paths relative to the workspace."""

    folder: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]
    backups: tuple[str, ...]


def setup_workspace(folder: Path, *, force: bool) -> SetUp:
    """Make a workspace: configuration, wrapper, `configs/` with one example, `out/`, a `.gitignore` line.

    With `force` the wrapper is replaced (and kept as a backup) where there is one; a configuration that is there is
    kept as it is.

    Raises:
        UsageError: files of these names exist and `force` was not given, or the folder can't be written.
    """
    there = [name for name in (CONFIG_NAME, WRAPPER) if (folder / name).exists()]
    if there and not force:
        raise UsageError(
            f"{folder} has {' and '.join(there)} already; nothing was changed",
            hint=f"tinksched setup-workspace {shlex.quote(str(folder))} --force replaces {WRAPPER} (and keeps a copy)",
        )
    try:
        return _write(folder, there)
    except OSError as error:
        raise WorkspaceError(f"{error.filename or folder}: can't be written: {error.strerror}") from None


def template(name: str) -> str:
    """The text of a template: from the installed package, or from beside it in a checkout."""
    packaged = resources.files("tinksched") / "_templates" / name
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "templates" / name).read_text(encoding="utf-8")


def _write(folder: Path, there: list[str]) -> SetUp:
    written, kept, backups = [], [], []
    folder.mkdir(parents=True, exist_ok=True)
    if CONFIG_NAME in there:
        kept.append(CONFIG_NAME)
    else:
        (folder / CONFIG_NAME).write_text(_configuration(folder), encoding="utf-8")
        written.append(CONFIG_NAME)
    if WRAPPER in there:
        backup = f"{WRAPPER}.bak-{time.strftime('%Y%m%d-%H%M%S')}"
        shutil.copy2(folder / WRAPPER, folder / backup)
        backups.append(backup)
    _write_wrapper(folder / WRAPPER)
    written.append(WRAPPER)
    if not (folder / "configs").exists():
        (folder / "configs").mkdir()
        (folder / "configs" / "example.yml").write_text(template("example_task.yml"), encoding="utf-8")
        written.append("configs/example.yml")
    (folder / "out").mkdir(exist_ok=True)
    if _ignore_state(folder / ".gitignore"):
        written.append(".gitignore")
    return SetUp(folder, tuple(written), tuple(kept), tuple(backups))


def _configuration(folder: Path) -> str:
    name = re.sub(r"[^\w-]+", "_", folder.resolve().name).strip("_") or "experiment"
    name = name.encode()[:60].decode(errors="ignore")
    text = template(CONFIG_NAME).replace("@TASK_NAME@", name)
    return text.replace("@PYTHON_ENV_LINE@", _python_env_line())


def _python_env_line() -> str:
    """The interpreter of the environment that is active now, so that cron finds the same one."""
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        prefix = os.environ.get(variable)
        if prefix and os.access(Path(prefix) / "bin" / "python", os.X_OK):
            # JSON's strings are YAML's double-quoted ones.
            return f"python_env: {json.dumps(str(Path(prefix) / 'bin' / 'python'), ensure_ascii=False)}"
    return "#python_env: python3"


def _write_wrapper(path: Path) -> None:
    text = template(WRAPPER).replace("@TINKSCHED@", shlex.quote(_program()))
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.chmod(0o755)
    aside.replace(path)


def _program() -> str:
    """The `tinksched` that belongs to this Python, whether it is there (yet) or not: the wrapper looks further."""
    return str(Path(sys.executable).absolute().parent / "tinksched")


def _ignore_state(path: Path) -> bool:
    """Add the state folder to `.gitignore`. False if it stands there already."""
    line = f"{STATE}/"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if line in text.splitlines():
        return False
    with path.open("a", encoding="utf-8") as file:
        file.write(("" if not text or text.endswith("\n") else "\n") + line + "\n")
    return True
