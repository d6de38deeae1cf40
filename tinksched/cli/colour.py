"""When output has colours: `--color`, NO_COLOR (https://no-color.org), and whether it goes to a terminal."""

from __future__ import annotations

from ..errors import UsageError

CHOICES = ("auto", "always", "never")
_chosen = "auto"


def choose(when: str) -> None:
    """What the user wants. Raises UsageError: it is none of the choices."""
    global _chosen
    if when not in CHOICES:
        raise UsageError(f"--color must be one of {', '.join(CHOICES)}, not {when!r}")
    _chosen = when


def chosen() -> str:
    """What the user wants: auto, always or never."""
    return _chosen
