"""The end of a run's log."""

from __future__ import annotations

import os
from pathlib import Path


def tail(path: Path | str, size: int) -> bytes:
    """The last `size` bytes of a log; nothing if there is none."""
    try:
        with Path(path).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read(size)
    except (OSError, ValueError):
        return b""
