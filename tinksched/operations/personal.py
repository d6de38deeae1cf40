"""The personal workspace: where commands are queued by somebody who is in no workspace."""

from __future__ import annotations

import os
from pathlib import Path

from ..config import CONFIG_NAME
from ..errors import UsageError

CONFIG = """\
# The workspace of the commands that `tinksched run` queues outside of every other workspace.
# `tinksched config` lists all keys.
task_name: personal
max_jobs_per_gpu: 1
"""


def folder() -> Path:
    """Where it lies: in the user's folder for state, see the XDG Base Directory Specification."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return Path(base if os.path.isabs(base) else "~/.local/state").expanduser() / "tinksched" / "personal"


def exists() -> bool:
    """Whether it was ever used."""
    return (folder() / CONFIG_NAME).is_file()


def make() -> Path:
    """Make it (0700), unless it is there.

    Raises:
        UsageError: it can't be made.
    """
    place = folder()
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
        (place / "configs").mkdir(exist_ok=True)
        if not exists():
            aside = place / f"{CONFIG_NAME}.{os.getpid()}"
            aside.write_text(CONFIG)
            aside.replace(place / CONFIG_NAME)
    except OSError as error:
        raise UsageError(f"{place}: the personal workspace can't be made: {error.strerror}") from None
    return place
