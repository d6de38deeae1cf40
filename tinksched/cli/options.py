"""The options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", metavar="DIR", help="The workspace (default: this folder, or the nearest above it)."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The configuration (default: scheduler_config.yml)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, with a version number, for programs.")]
