"""The state folder of a server: a workspace of its own, with the server's tables in its database."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from ..config import CONFIG_NAME, Settings, load
from ..config.server import FILE_NAME, ServerSettings, load_server
from ..errors import UsageError
from ..host import statedir
from ..host.statedir import Home, StateDir
from ..store import Store
from . import tables

_HEADER = "# Written by `tinksched serve`, which reads server.yml: what is changed here is overwritten.\n"


def find(config: Path | None) -> ServerSettings:
    """The settings of the server that is meant: by a file, by `server.yml` in this folder, or by the defaults.

    Raises:
        ConfigError: the file has problems.
    """
    here = Path(FILE_NAME)
    return load_server(config if config is not None else here if here.exists() else None)


def prepare(settings: ServerSettings) -> tuple[Settings, StateDir, Home]:
    """Make the folder what the server needs, or see that it is.

    Raises:
        TinkschedError: it can't be used, or belongs to somebody else.
    """
    folder = settings.state_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
        aside = folder / f"{CONFIG_NAME}.{os.getpid()}"
        aside.write_text(_HEADER + "".join(f"{key}: {json.dumps(value)}\n" for key, value in _config(settings)))
        aside.replace(folder / CONFIG_NAME)
        folder = settings.results_dir
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: can't be used by the server: {error.strerror}") from None
    workspace = load(settings.state_dir)
    state, home = statedir.prepare(workspace.workspace, workspace.state_dir)
    with Store(state.database, create=True) as store, store.transaction("server", time.time()) as tx:
        tables.migrate(tx)
    return workspace, state, home


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
        ("executor", settings.executor),
        ("tmux_socket", settings.tmux_socket),
        ("notify", list(settings.notify)),
        ("notify_on", list(settings.notify_on)),
    ]
    return found if settings.use_gpus is None else [*found, ("use_gpus", list(settings.use_gpus))]
