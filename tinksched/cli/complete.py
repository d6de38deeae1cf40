"""Completion of commands, options and task names. The shells' scripts ask for each word: fast, and without a word of
complaint whatever is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from .shells import SCRIPTS, SHORT

_MOST = 1000  # names that a shell is given
_TASKS = (  # commands that take tasks
    "logs", "attach", "explain", "show", "cancel", "retry", "wait", "hold", "release", "priority", "clean",
    "status",
)  # fmt: skip
_WITH_VALUE = {"--workspace", "--config", "--color", "--attempt", "--timeout", "--at", "--older-than"}
_OF_RUN = {"--gpus", "-g", "--memory", "-m", "--after", "-a", "--name", "-n", "--cwd"}  # which take a value there


def answer(words: Sequence[str]) -> None:
    """Print what may stand in the place of the last word, one candidate a line. Never fails."""
    try:
        *before, begun = words or [""]
        candidates = [word for word in _candidates(before, begun) if word.startswith(begun) and word.isprintable()]
        print("".join(f"{word}\n" for word in candidates[:_MOST]), end="")
    except Exception:  # whatever it is, the user is typing
        return


def _candidates(before: Sequence[str], begun: str) -> Iterable[str]:
    if "--" in before:
        return []
    if before and before[-1] in _WITH_VALUE:
        return ("auto", "always", "never") if before[-1] == "--color" else ()
    plain = [*_without_options(before)]
    command, arguments = SHORT.get(plain[0], plain[0]) if plain else None, plain[1:]
    if command == "run":
        return () if arguments else _of_run(before, begun)
    if begun.startswith("-"):
        return _options(command)
    if command is None or command == "help":
        from .app import COMMANDS

        return COMMANDS
    if command == "completion":
        return SCRIPTS
    if command in ("start", "sweep") and not arguments:
        return _configs(before, begun, templates=command == "sweep")
    return _tasks(before) if command in _TASKS else ()


def _without_options(words: Sequence[str]) -> Iterable[str]:
    """The words that are neither options nor their values."""
    value = False
    for word in words:
        if not value and not word.startswith("-"):
            yield word
        value = word in _WITH_VALUE or word in _OF_RUN


def _of_run(before: Sequence[str], begun: str) -> Iterable[str]:
    """The options of `run`, and the tasks of `--after`; the command itself is left to the shell."""
    if before[-1] in ("--after", "-a"):
        return _tasks(before)
    if begun.startswith("--after="):
        return (f"--after={task}" for task in _tasks(before))
    return _options("run") if begun.startswith("-") and before[-1] not in _OF_RUN else ()


def _configs(before: Sequence[str], begun: str, *, templates: bool) -> Iterable[str]:
    """The config files of the workspace, for the last of a list with commas; of templates those as well that are no
    task."""
    from ..config import natural_key
    from ..operations import selection
    from ..operations import workspace as workspaces

    given = _places(before)
    settings = workspaces.find(given.get("--workspace"), given.get("--config")).settings
    if templates:
        names = [
            name for name in os.listdir(settings.config_dir) if name.endswith((".yml", ".yaml")) and name[0] != "."
        ]
        return sorted(names, key=natural_key)
    earlier = begun[: begun.rfind(",") + 1]
    return (earlier + name for name in sorted(selection.file_names(settings), key=natural_key))


def _places(before: Sequence[str]) -> dict[str, Path]:
    """The folder and the file that the words name."""
    return {name: Path(value) for name, value in pairwise(before) if name in ("--workspace", "--config")}


def _options(command: str | None) -> Iterable[str]:
    from typer.main import get_command

    from .app import app, command_of

    found = get_command(app) if command is None else command_of(command)
    return sorted({option for parameter in found.params for option in parameter.opts if option.startswith("--")})


def _tasks(before: Sequence[str]) -> Iterable[str]:
    """The tasks of the workspace that is meant, those that were queued last first."""
    from ..operations import workspace as workspaces
    from ..store import Store

    given = _places(before)
    folder = workspaces.folder_of(given.get("--workspace"), given.get("--config"))
    state = folder / ".tinksched" / "state.db"
    if "--config" in given or not state.is_file():
        state = workspaces.find(given.get("--workspace"), given.get("--config")).state.database
    if not os.access(state, os.W_OK):
        return []
    with Store(state) as store:
        return store.names()[::-1]
