"""A look at submitted code before it is accepted. Off unless it is configured."""

from __future__ import annotations

from ..config.server import ServerSettings
from .submission import Wanted


class Scanner:
    """Looks at code as the settings say."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings

    async def look(self, wanted: Wanted) -> list[str]:
        """What was found that is no reason to reject. Raises Refused (400): something was."""
        return []
