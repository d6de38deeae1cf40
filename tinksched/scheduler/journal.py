"""What the scheduler says while it works: on its screen, and in the scheduler's log."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path


class Journal:
    """Timestamped lines for people. A full disk never stops the scheduler because of its log."""

    def __init__(self, log: Path | None, *, screen: bool) -> None:
        logging.raiseExceptions = False
        self.log = log
        self._logger = logging.Logger("tinksched", logging.INFO)
        form = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
        handlers: list[logging.Handler] = [_screen()] if screen else []
        if log is not None:
            handlers.append(logging.FileHandler(log, encoding="utf-8", delay=True))
        for handler in handlers:
            handler.setFormatter(form)
            self._logger.addHandler(handler)

    def say(self, text: str) -> None:
        """One line. Control characters of a name can't make it two, or write to the terminal."""
        self._logger.info("%s", "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text))

    def close(self) -> None:
        """Close the file."""
        for handler in self._logger.handlers:
            handler.close()


def _screen() -> logging.Handler:
    """Where lines are shown. A terminal that was stopped (Ctrl-S, a hanging tmux) must not stop the scheduler."""
    if sys.stdout.isatty():
        with contextlib.suppress(OSError):
            return _Terminal(f"/proc/self/fd/{sys.stdout.fileno()}")
    return logging.StreamHandler(sys.stdout)


class _Terminal(logging.Handler):
    """A terminal that is written to without waiting: what it does not take is in the log only."""

    def __init__(self, path: str) -> None:
        """Raises OSError: it can't be opened."""
        super().__init__()
        # Opened anew: the flag would otherwise be set for everybody who shares our standard output.
        self._descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            os.write(self._descriptor, (self.format(record) + "\n").encode(errors="replace"))

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()
