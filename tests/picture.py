"""Draws the README's picture from a real run: python -m tests.picture WORKSPACE FILE.svg

WORKSPACE is one whose tasks are running at this moment (that of the quickstart, say).
"""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tinksched.cli import render, tables
from tinksched.cli.tables import Part, Table
from tinksched.operations.status import status
from tinksched.operations.workspace import find


def at_home(part: Part, folder: Path) -> Part:
    """The part as it looks if the folder is the user's home: pictures name no folder of the machine they come from."""
    if isinstance(part, Table):
        return replace(part, rows=[[(_named(text, folder), style) for text, style in row] for row in part.rows])
    return [(_named(text, folder), style) for text, style in part]


def _named(text: str, folder: Path) -> str:
    return re.sub(r"/\S*…", "~/…", text.replace(str(folder), "~"))  # also where the name of the folder was cut


def draw(workspace: Path, picture: Path) -> None:
    """Write what `tinksched status` shows now as an SVG."""
    console = Console(
        record=True, width=100, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    console.print("[bold]$[/bold] tinksched status")
    for part in tables.status(status(find(workspace, None)), signs=True):
        console.print(render.rich_part(at_home(part, workspace.absolute().parent)))
    console.save_svg(str(picture), title="tinksched")


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
