"""Free space."""

from __future__ import annotations

import contextlib
import shutil

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


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
