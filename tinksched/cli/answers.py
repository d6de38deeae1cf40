"""What the commands that act say to programs: one form for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import tables

JSON_VERSION = 1


def answer(
    command: str, done: Iterable[str] = (), left: Mapping[str, str] | Iterable[tuple[str, str]] = (), /, **more: object
) -> None:
    """Print the one JSON document of a command: the tasks that it acted on, those that it left and why, and `more`."""
    print(tables.as_json({"version": JSON_VERSION, "command": command, "done": [*done], "left": dict(left), **more}))
