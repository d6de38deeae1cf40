"""Readers of globs: of names of tasks and files, and of other people's users and commands."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from .document import ScalarNode, SequenceNode
from .values import Reader, Value, filled, items

LONGEST_GLOB = 255  # characters, as file names


def patterns(value: Value) -> tuple[str, ...]:
    """One glob or a list of globs, for the names of the files in a folder."""
    if isinstance(value.node, ScalarNode) and value.node.kind == "text":
        return (glob(value),)
    found = items(value, glob, "a glob such as '*.yml', or a list of globs")
    if isinstance(value.node, SequenceNode) and not value.node.items:
        raise value.forbids("must not be an empty list")
    return found


def glob(value: Value) -> str:
    """A glob for one file or task name."""
    if "/" in filled(value):
        raise value.forbids("must not hold '/'; it matches names, not paths")
    return _any_glob(value)


def _any_glob(value: Value) -> str:
    found = filled(value)
    if len(found) > LONGEST_GLOB:
        raise value.forbids(f"must not be longer than {LONGEST_GLOB} characters")
    try:
        fnmatchcase("", found)
    except re.error:
        raise value.bad("a glob such as '*.yml'") from None
    return found


def _some_globs(reader: Reader[str], expected: str) -> Reader[tuple[str, ...]]:
    """One glob or a list of globs; the list may be empty."""

    def read(value: Value) -> tuple[str, ...]:
        is_one = isinstance(value.node, ScalarNode) and value.node.kind == "text"
        return (reader(value),) if is_one else items(value, reader, expected)

    return read


task_patterns = _some_globs(glob, "a glob of task names such as 'prepare*', or a list of globs")
process_patterns = _some_globs(_any_glob, "a glob of users or commands such as 'Xorg', or a list of globs")
