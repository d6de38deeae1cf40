"""Asking NVML about one device: what it does not know is None, and what went wrong is kept."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

_LOST = (15, 16, 28)  # GPU_IS_LOST, RESET_REQUIRED, GPU_NOT_FOUND
_QUIET = (3, 4, 13, 25)  # NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH: answers


def reason_of(error: Exception) -> str:
    """What the error says, without a full stop."""
    return (str(error) or type(error).__name__).rstrip(".")


class Asker:
    """Asks about one device, and keeps the first thing that went wrong."""

    def __init__(self, nvml: ModuleType, about: str) -> None:
        self._nvml = nvml
        self._about = about
        self.problem: str | None = None
        self.lost = False

    def ask(self, question: Callable[..., Any], *arguments: object) -> Any:
        """The answer; None if there is none."""
        return self._ask(question, arguments, quiet=_QUIET)

    def insist(self, question: Callable[..., Any], *arguments: object) -> Any:
        """The same, of what every GPU knows: that there is no answer is a problem, whatever the driver says."""
        return self._ask(question, arguments, quiet=())

    def _ask(self, question: Callable[..., Any], arguments: tuple[object, ...], quiet: tuple[int, ...]) -> Any:
        try:
            return question(*arguments)
        except Exception as error:  # a foreign library and its binding: whatever they raise is no reason to stop
            code = error.value if isinstance(error, self._nvml.NVMLError) else None
            if code not in quiet:  # a GPU that shares the host's memory, an older driver: an answer, not a problem
                self.lost |= code in _LOST
                self.problem = self.problem or f"NVML fails{self._about} ({reason_of(error)})"
            return None
