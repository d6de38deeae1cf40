"""`tinksched setup-workspace`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ..operations import setup


def setup_workspace(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder; it is made if it isn't there.")],
    force: Annotated[bool, typer.Option("--force", help="Replace scheduler.sh (a copy is kept).")] = False,
) -> None:
    """Make a folder a workspace: a commented configuration, a wrapper script, configs/ with one example, out/."""
    done = setup.setup_workspace(directory, force=force)
    for name in done.written:
        print(f"wrote {done.folder / name}")
    for name in done.kept:
        print(f"kept  {done.folder / name}")
    for name in done.backups:
        print(f"saved {done.folder / name}")
    print("\nNext:")
    print(f"  1. put your training script at {done.folder / 'train.py'}, or name yours in scheduler_config.yml")
    print(f"  2. put one config per task into {done.folder / 'configs'}")
    print(f"  3. cd {shlex.quote(str(done.folder))} && tinksched start")
