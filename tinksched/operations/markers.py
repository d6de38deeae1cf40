"""Completion markers that are there before a task has a run: ours, and those of scripts of older workspaces."""

from __future__ import annotations

import os
import re

from ..config import Settings
from ..host.completion import marker_identity
from .selection import TaskConfig

_ROOT = re.compile(rb"""(?m)^root_dir[ \t]*:[ \t]*(?:"([^"\n]*)"|'([^'\n]*)'|([^#\n]*))""")


def marker_path(folder: str, task: str) -> str:
    """The marker of a task in a folder."""
    return os.path.join(folder, f"{task}_completed.txt")


def old_marker(config: TaskConfig) -> str:
    """Where scripts of old workspaces put their marker: into the `root_dir` of the task's own config. Empty without."""
    try:
        descriptor = os.open(config.file, os.O_RDONLY | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - thousands are read at once
            content = file.read()
    except OSError:
        return ""
    found = _ROOT.search(content) if b"root_dir" in content else None
    root = next((group.strip() for group in found.groups() if group), b"") if found else b""
    place = root.decode(errors="replace")
    return marker_path(place, config.name) if os.path.isabs(place) else ""


def is_marked(settings: Settings, config: TaskConfig, old: str | None = None) -> bool:
    """Whether a completion marker of the task is there, written by whomever. `old` is `old_marker`, if it is known."""
    if marker_identity(marker_path(str(settings.output_dir), config.name)):
        return True
    place = old_marker(config) if old is None else old
    return bool(place) and marker_identity(place) is not None
