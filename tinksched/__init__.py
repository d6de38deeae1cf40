"""tinksched: queue a folder of configs, keep every GPU busy, watch any run live in tmux, lose nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import TinkschedError, Workspace

__version__ = "0.1.0"
__all__ = ["TinkschedError", "Workspace", "__version__"]


def __getattr__(name: str) -> Any:
    """The Python API, loaded when somebody asks for it: the command line doesn't."""
    if name in ("TinkschedError", "Workspace"):
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
