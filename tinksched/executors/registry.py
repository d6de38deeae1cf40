"""The executors by name. Each is imported only when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UsageError
from .base import Wake

if TYPE_CHECKING:
    from .local import LocalExecutor
    from .tmux import TmuxExecutor

NAMES = ("tmux", "local")


def make(name: str, wake: Wake, *, tmux_socket: str, workspace_id: str) -> TmuxExecutor | LocalExecutor:
    """The executor of this name.

    Raises:
        UsageError: there is none.
    """
    if name == "tmux":
        from ..host.tmux import LibTmux
        from .tmux import TmuxExecutor

        return TmuxExecutor(wake, LibTmux(tmux_socket), workspace_id)
    if name == "local":
        from .local import LocalExecutor

        return LocalExecutor(wake)
    raise UsageError(f"there is no executor {name!r}; there are {', '.join(NAMES)}")


__all__ = ["NAMES", "make"]
