"""Free space, and logs that grow too long."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from ..config import Settings
from ..core.model import Reason, ReasonCode


def low_disk(settings: Settings) -> Reason | None:
    """Why nothing new may start, if the disk of the logs or of the results has less than `min_free_disk` left."""
    wanted = settings.min_free_disk
    for folder in (settings.output_dir, settings.log_dir):
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(folder).free
            if free < wanted:
                detail: dict[str, str | int | float] = {
                    "free": _size(free), "folder": str(folder), "wanted": _size(wanted),
                }  # fmt: skip
                return Reason(ReasonCode.LOW_DISK, detail)
    return None


def shorten(log: Path, limit: int) -> bool:
    """Cut the middle out of a log that is longer than `limit` bytes: half of them stay at its head, a quarter below.

    The writer appends, so it goes on at the new end. What it adds while this runs may be lost with the middle.
    """
    try:
        with log.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size <= limit:
                return False
            head, tail = limit // 2, limit // 4
            file.seek(size - tail)
            end = file.read(tail)
            note = f"\r\n[tinksched: {size - head - tail} bytes were cut out here, see log_max_size]\r\n"
            os.ftruncate(file.fileno(), head)
            file.seek(head)
            file.write(note.encode() + end[end.find(b"\n") + 1 :])
        return True
    except OSError:
        return False


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
