"""A clock that a test can set, for programs that are started with `environment`: a small real shared library."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

COMPILER = shutil.which("cc") or shutil.which("gcc")


class Clock:
    """The time of day of those programs."""

    def __init__(self, folder: Path) -> None:
        assert COMPILER is not None
        self._offset = folder / "clock"
        library = folder / "libclock.so"
        source = Path(__file__).with_name("clock_double.c")
        subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_DOUBLE": str(self._offset)}
        self.set(0)

    def set(self, seconds: int) -> None:
        """Put it forward (or back) by so many seconds against the true time."""
        aside = self._offset.with_suffix(".new")
        aside.write_text(f"{seconds}\n")
        aside.replace(self._offset)
