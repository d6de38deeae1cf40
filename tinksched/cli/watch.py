"""`watch`: the live view of a workspace, where there is a terminal for it."""

from __future__ import annotations

import os
import sys

import typer

from ..errors import MissingProgram, UsageError
from . import colour, tables
from .finding import find
from .options import ConfigOption, WorkspaceOption


def watch(context: typer.Context, workspace: WorkspaceOption = None, config: ConfigOption = None) -> None:
    """Live view: GPUs, tasks, and the log of the selected one. Keys cancel, retry, attach; ? lists them.

    \b
    Example:
      tinksched watch
    """
    found = find(context, workspace, config)
    _require_terminal()
    try:
        import textual  # noqa: F401
    except ImportError:
        raise MissingProgram("watch needs Textual, which is not installed", hint=_INSTALL) from None
    from . import watchapp

    if colour.chosen() == "never":
        os.environ["NO_COLOR"] = "1"
    elif colour.chosen() == "always":
        os.environ.pop("NO_COLOR", None)
    code = watchapp.run(found, signs=tables.takes_signs(sys.stdout))
    if code:
        raise typer.Exit(code)


_INSTALL = "pip install 'tinksched[watch]'; without it: tinksched status --watch"


def _require_terminal() -> None:
    """Raises UsageError: this is none, or one that can do nothing but print."""
    streams = {"input": sys.stdin, "output": sys.stdout, "messages (standard error)": sys.stderr}
    elsewhere = [name for name, stream in streams.items() if stream is None or not stream.isatty()]
    terminal = os.environ.get("TERM", "")
    if elsewhere:
        why = f"{' and '.join(elsewhere)} {'are' if len(elsewhere) > 1 else 'is'} not a terminal"
    elif terminal in ("", "dumb", "unknown"):
        why = f"TERM is {terminal!r}, a terminal that can't move its cursor" if terminal else "TERM is not set"
    else:
        return
    raise UsageError(f"watch needs a terminal: {why}", hint="tinksched status --watch, or tinksched status")
