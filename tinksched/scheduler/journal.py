"""What the scheduler says while it works: on its screen, and in the scheduler's log."""

from __future__ import annotations

import logging
import sys
from pathlib import Path


class Journal:
    """Timestamped lines for people. A full disk never stops the scheduler because of its log."""

    def __init__(self, log: Path | None, *, screen: bool) -> None:
        logging.raiseExceptions = False
        self._logger = logging.Logger("tinksched", logging.INFO)
        form = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
        handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)] if screen else []
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
