"""`setup-workspace`: a folder that is ready to be filled with configs."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from ..config import CONFIG_NAME, load
from ..errors import UsageError, WorkspaceError
from ..host.statedir import NAME as STATE
from . import migrate

WRAPPER = "scheduler.sh"
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class SetUp:
    """What `setup-workspace` did: paths relative to the workspace."""

    folder: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]  # as they were
    backups: tuple[str, ...]
    migrated: bool = False  # there was a configuration
    added: tuple[str, ...] = ()  # the keys that it got, as comments
    notes: tuple[str, ...] = ()  # values that mean something else now, or need a look; one line each
    running: tuple[str, ...] = ()  # what is left of an older scheduler


def setup_workspace(folder: Path, *, force: bool) -> SetUp:
    """Make a workspace: configuration, wrapper, `configs/` with one example, `out/`, a `.gitignore` line.

    With `force` a workspace that is there is migrated: its configuration keeps values and comments and gets what it
    lacks, the wrapper is replaced, and each file that changes is kept as `NAME.bak-TIME`.

    Raises:
        UsageError: files of these names exist and `force` was not given, or the folder can't be written.
        ConfigError: the configuration that is there has problems; nothing was touched.
    """
    there = [name for name in (CONFIG_NAME, WRAPPER) if os.path.lexists(folder / name)]
    if there and not force:
        raise UsageError(
            f"{folder} has {' and '.join(there)} already; nothing was changed",
            hint=f"tinksched setup-workspace {shlex.quote(str(folder))} --force migrates it, and keeps a copy of each "
            "file that it changes",
        )
    try:
        return _migrate(folder) if CONFIG_NAME in there else _create(folder)
    except OSError as error:
        raise WorkspaceError(f"{error.filename or folder}: can't be written: {error.strerror}") from None


def template(name: str) -> str:
    """The text of a template: from the installed package, or from beside it in a checkout."""
    packaged = resources.files("tinksched") / "_templates" / name
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "templates" / name).read_text(encoding="utf-8")


def _create(folder: Path) -> SetUp:
    """A workspace without a configuration gets one, and whatever else is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_NAME).write_text(_filled(template(CONFIG_NAME), folder), encoding="utf-8")
    changes = [_put_wrapper(folder)]
    if not (folder / "configs").exists():
        (folder / "configs").mkdir()
        (folder / "configs" / "example.yml").write_text(template("example_task.yml"), encoding="utf-8")
        changes.append(_Change("configs/example.yml"))
    (folder / "out").mkdir(exist_ok=True)
    changes.append(_ignore_state(folder))
    return _set_up(folder, [_Change(CONFIG_NAME), *changes])


def _migrate(folder: Path) -> SetUp:
    """A workspace with a configuration keeps it; nothing is touched if it can't be migrated."""
    path = folder / CONFIG_NAME
    text = _read(path)
    done = migrate.migrate(_filled(text, folder), folder)
    changes = [_Change(CONFIG_NAME, changed=False)]
    if done.text != text:
        # What a link leads to is changed, and the link stays.
        changes = [_Change(CONFIG_NAME, backup=_keep(path, path.resolve()))]
        _replace(path.resolve(), _BOM * _has_bom(path) + done.text, path.stat().st_mode)
    changes += [_put_wrapper(folder), _ignore_state(folder)]
    return replace(
        _set_up(folder, changes),
        migrated=True,
        added=done.added,
        notes=tuple(map(str, done.notes)),
        running=tuple(migrate.still_running(done.settings)),
    )


@dataclass(frozen=True, slots=True)
class _Change:
    """A file that was written, or was found as it should be."""

    name: str
    changed: bool = True
    backup: str | None = None


def _set_up(folder: Path, changes: Sequence[_Change]) -> SetUp:
    return SetUp(
        folder,
        written=tuple(change.name for change in changes if change.changed),
        kept=tuple(change.name for change in changes if not change.changed),
        backups=tuple(change.backup for change in changes if change.backup),
    )


def _read(path: Path) -> str:
    """The text of a configuration.

    Raises:
        ConfigError: it isn't text, or can't be read.
    """
    try:
        if path.is_file():
            return path.read_bytes().decode().removeprefix(_BOM)
    except (OSError, UnicodeDecodeError):
        pass
    load(path.parent)
    raise WorkspaceError(f"{path} can't be read")


def _has_bom(path: Path) -> bool:
    return path.read_bytes().startswith(_BOM.encode())


def _filled(text: str, folder: Path) -> str:
    """The template with its placeholders replaced; any other text as it is, also a copy of the template by hand."""
    name = re.sub(r"[^\w-]+", "_", folder.resolve().name).strip("_") or "experiment"
    name = name.encode()[:60].decode(errors="ignore")
    text = text.replace('"@TASK_NAME@"', f'"{name}"')
    return re.sub(r"^@PYTHON_ENV_LINE@$", lambda _: _python_env_line(), text, flags=re.MULTILINE)


def _python_env_line() -> str:
    """The interpreter of the environment that is active now, so that cron finds the same one."""
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        prefix = os.environ.get(variable)
        if prefix and os.access(Path(prefix) / "bin" / "python", os.X_OK):
            # JSON's strings are YAML's double-quoted ones.
            return f"python_env: {json.dumps(str(Path(prefix) / 'bin' / 'python'), ensure_ascii=False)}"
    return "#python_env: python3"


def _put_wrapper(folder: Path) -> _Change:
    """Write scheduler.sh; one that is there and differs is kept, a link as a link."""
    path = folder / WRAPPER
    text = template(WRAPPER).replace("@TINKSCHED@", shlex.quote(_program()))
    if path.is_file() and not path.is_symlink() and os.access(path, os.X_OK) and path.read_bytes() == text.encode():
        return _Change(WRAPPER, changed=False)
    backup = _keep(path, path) if os.path.lexists(path) else None
    _replace(path, text, 0o755)
    return _Change(WRAPPER, backup=backup)


def _keep(path: Path, source: Path) -> str:
    """Copy `source` to `NAME.bak-TIME` beside `path`, under a name that is not taken. Returns that name."""
    stamp = f"{path.name}.bak-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (f"{stamp}-{number}" if number > 1 else stamp for number in itertools.count(1))
    backup = next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
    shutil.copy2(source, backup, follow_symlinks=False)
    return backup.name


def _replace(path: Path, text: str, mode: int) -> None:
    """The file has either its old content or the new one, whatever happens."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.write_bytes(text.encode())
    aside.chmod(stat.S_IMODE(mode))
    aside.replace(path)


def _program() -> str:
    """The `tinksched` that belongs to this Python, whether it is there (yet) or not: the wrapper looks further."""
    return str(Path(sys.executable).absolute().parent / "tinksched")


def _ignore_state(folder: Path) -> _Change:
    """Add the state folder to `.gitignore`, if it isn't there."""
    path = folder / ".gitignore"
    line = f"{STATE}/"
    data = path.read_bytes() if path.exists() else b""
    if line.encode() in [known.strip() for known in data.splitlines()]:
        return _Change(path.name, changed=False)
    with path.open("ab") as file:
        file.write((b"" if not data or data.endswith(b"\n") else b"\n") + line.encode() + b"\n")
    return _Change(path.name)
