"""The options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import colour

ELSEWHERE = "the personal workspace: this folder is in none"
UNSAID = "tinksched.unsaid"  # in a context: a command works there, and has not said so

WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", metavar="DIR", help="The workspace (default: this folder, or the nearest above it)."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The configuration (default: scheduler_config.yml)."),
]
SelectorsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TASK...]",
        help="Names, globs ('exp*'), numbers (1-3,5), @ for the task that was queued last, @~1 for the one before. "
        "A name wins over all else that it may mean.",
    ),
]
FailedOption = Annotated[bool, typer.Option("--failed", "-f", help="Those that failed, timed out or were lost.")]
AllOption = Annotated[bool, typer.Option("--all", "-a", help="All to which it applies.")]
JsonOption = Annotated[bool, typer.Option("--json", "-j", help="Print JSON, with a version number, for programs.")]


def _choose_color(value: str | None) -> str | None:
    if value is not None:
        colour.choose(value)
    return value


ColorOption = Annotated[
    str | None,
    typer.Option(
        "--color", metavar="WHEN", callback=_choose_color, help="auto (the default), always or never; NO_COLOR counts."
    ),
]
