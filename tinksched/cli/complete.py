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
    command = next((word for word in _without_options(before)), None)
    command = SHORT.get(command, command) if command else None
    if begun.startswith("-"):
        return _options(command)
    if command is None or command == "help":
        from .app import COMMANDS

        return COMMANDS
    if command == "completion":
        return SCRIPTS
    return _tasks(before) if command in _TASKS or (command == "run" and before[-1] in ("--after", "-a")) else ()


def _without_options(words: Sequence[str]) -> Iterable[str]:
    """The words that are neither options nor their values."""
    value = False
    for word in words:
        if not value and not word.startswith("-"):
            yield word
        value = word in _WITH_VALUE


def _options(command: str | None) -> Iterable[str]:
    from typer.main import get_command

    from .app import app, command_of

    found = get_command(app) if command is None else command_of(command)
    return sorted({option for parameter in found.params for option in parameter.opts if option.startswith("--")})


def _tasks(before: Sequence[str]) -> Iterable[str]:
    """The tasks of the workspace that is meant, those that were queued last first."""
    from ..operations import workspace as workspaces
    from ..store import Store

    given = {name: Path(value) for name, value in pairwise(before) if name in _WITH_VALUE}
    folder = workspaces.folder_of(given.get("--workspace"), given.get("--config"))
    state = folder / ".tinksched" / "state.db"
    if "--config" in given or not state.is_file():
        state = workspaces.find(given.get("--workspace"), given.get("--config")).state.database
    if not os.access(state, os.W_OK):
        return []
    with Store(state) as store:
        return store.names()[::-1]
