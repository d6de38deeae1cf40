"""`tinksched setup-workspace`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ..operations import setup
from ..operations.setup import SetUp


def setup_workspace(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder; it is made if it isn't there.")],
    force: Annotated[
        bool,
        typer.Option("--force", help="Migrate what is there: values and comments stay, old files are kept as copies."),
    ] = False,
) -> None:
    """Make a folder a workspace. It gets a commented configuration, a wrapper script, configs/ with one example, out/.

    With --force an older workspace becomes one of this version.

    \b
    Examples:
      tinksched setup-workspace ~/experiments/first
      tinksched setup-workspace old_workspace --force
    """
    done = setup.setup_workspace(directory, force=force)
    for verb, names in (("wrote", done.written), ("kept ", done.kept), ("saved", done.backups)):
        for name in names:
            print(f"{verb} {done.folder / name}")
    if done.migrated:
        _migration(done)
    else:
        _first_steps(done)


def _migration(done: SetUp) -> None:
    """What became of the old workspace, and what to look at."""
    if done.added:
        count = f"{len(done.added)} key{'s' * (len(done.added) != 1)}"
        print(f"\n{count} that the configuration did not have stand at its end, as comments with their defaults")
    if done.notes:
        print("\nChanged, or to be looked at:")
    for note in done.notes:
        print(f"  {note}")
    for sentence in done.running:
        print(f"\n{sentence}")
    print("\nNext:")
    print(f"  cd {shlex.quote(str(done.folder))} && tinksched config && tinksched start --dry-run")


def _first_steps(done: SetUp) -> None:
    print("\nNext:")
    print(f"  1. put your training script at {done.folder / 'train.py'}, or name yours in scheduler_config.yml")
    print(f"  2. put one config per task into {done.folder / 'configs'}")
    print(f"  3. cd {shlex.quote(str(done.folder))} && tinksched start")
