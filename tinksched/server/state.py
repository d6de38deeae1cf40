"""The state folder of a server: a workspace of its own, with the server's tables in its database."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from ..config import CONFIG_NAME, Settings, load
from ..config.served import HEADER
from ..config.server import FILE_NAME, ServerSettings, default_state, load_server
from ..errors import Damaged, UsageError
from ..host import statedir
from ..host.rundir import sync
from ..host.statedir import Home, StateDir
from ..store import Store
from . import services_setup, tables
from .folders import JOBS
from .isolation import HEAD, SCRIPT

_RESTORE = "tinksched db restore FILE puts a backup in its place and keeps what is there; or name another state_dir"


def find(config: Path | None) -> ServerSettings:
    """The settings of the server that is meant: by a file, by `server.yml` in this folder, or by the defaults.

    Raises:
        ConfigError: the file has problems.
    """
    here = Path(FILE_NAME)
    return load_server(config if config is not None else here if here.exists() else None)


def prepare(settings: ServerSettings) -> tuple[StateDir, Home]:
    """Make the folder what the server needs, or see that it is. A folder that can't be used is left as it is.

    Raises:
        TinkschedError: it can't be used, or belongs to somebody else.
    """
    state, home = _place(settings)
    try:
        if not state.exists and any((settings.state_dir / JOBS).glob("*")):
            raise Damaged(f"{state.database}: the database is gone, and {settings.state_dir / JOBS} holds jobs")
        with Store(state.database, create=not state.exists) as store, store.transaction("server", time.time()) as tx:
            tables.migrate(tx)
    except Damaged as error:
        raise Damaged(error.message, hint=_RESTORE) from None
    return state, home


def place(settings: ServerSettings) -> StateDir:
    """The private folder, whatever the database in it is.

    Raises:
        TinkschedError: it can't be used, or belongs to somebody else.
    """
    return _place(settings)[0]


def existing(settings: ServerSettings) -> StateDir:
    """The private folder of a server that has worked.

    Raises:
        UsageError: none has.
    """
    found = StateDir(settings.state_dir.resolve() / statedir.NAME)
    if not found.exists:
        raise UsageError(f"{settings.state_dir}: no server has worked here", hint="name its server.yml: --config FILE")
    return found


def _place(settings: ServerSettings) -> tuple[StateDir, Home]:
    folder = settings.state_dir
    try:
        _make(folder)
        return statedir.prepare(folder.resolve())
    except OSError as error:
        raise UsageError(f"{folder}: can't be used for the server's state: {error.strerror}") from None


def configure(settings: ServerSettings) -> Settings:
    """Write the configuration of the workspace, for the server that has its lock.

    Raises:
        UsageError: it can't be written.
    """
    folder = settings.state_dir
    aside = folder / f"{CONFIG_NAME}.{os.getpid()}"
    try:
        aside.write_text(HEADER + "".join(f"{key}: {json.dumps(value)}\n" for key, value in _config(settings)))
        aside.replace(folder / CONFIG_NAME)
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: can't be written: {error.strerror}") from None
    return load(folder)


def _make(folder: Path) -> None:
    """The folder, private and ours. Only the default one is made with the folders around it: a disk that is not
    mounted must not be mistaken for a new server."""
    if folder == default_state():
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif not folder.parent.is_dir():
        raise UsageError(f"state_dir is {folder}, and there is no folder {folder.parent}", hint="make it, or mount it")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        sync(folder.parent)
    for name, beginning in ((CONFIG_NAME, HEADER), (SCRIPT, HEAD), services_setup.MADE):
        if not _is_ours(folder / name, beginning):
            raise UsageError(f"{folder / name}: was not written by a server", hint="name another state_dir")
    status = folder.stat()
    if status.st_uid == os.geteuid() and status.st_mode & 0o077:
        if any(folder.iterdir()) and not (folder / statedir.NAME).is_dir():
            raise UsageError(
                f"{folder}: holds other things, and others may look into it", hint="name another state_dir"
            )
        folder.chmod(0o700)


def _is_ours(file: Path, beginning: str) -> bool:
    """Whether a file that the server writes is not there yet, or was written by one."""
    with contextlib.suppress(FileNotFoundError), file.open("rb") as stream:
        return stream.read(len(beginning)) == beginning.encode()
    return not file.is_symlink()


def make_results(settings: ServerSettings) -> None:
    """The folder of the results files.

    Raises:
        UsageError: it can't be used.
    """
    folder = settings.results_dir
    if not folder.parent.is_dir():
        raise UsageError(
            f"results_dir is {folder}, and there is no folder {folder.parent}", hint="make it, or mount it"
        )
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
        sync(folder.parent)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder}: results can't be written there")


def _config(settings: ServerSettings) -> list[tuple[str, object]]:
    """The configuration of the workspace."""
    found: list[tuple[str, object]] = [
        ("task_name", "server"),
        ("config_dir", "none"),
        ("max_jobs_per_gpu", 1),
        ("cpu_slots", settings.cpu_slots),
        ("respect_other_processes", settings.respect_other_processes),
        ("ignore_processes", list(settings.ignore_processes)),
        ("strict_exit", True),
        ("stop_grace", settings.stop_grace),
        ("min_free_disk", f"{settings.min_free_disk}B"),
        ("log_dir", str(settings.logs_dir)),
        ("executor", settings.executor),
        ("tmux_socket", settings.tmux_socket),
        ("notify", list(settings.notify)),
        ("notify_on", list(settings.notify_on)),
    ]
    return found if settings.use_gpus is None else [*found, ("use_gpus", list(settings.use_gpus))]
