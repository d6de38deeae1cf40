"""`status` as it is called most: understood without Typer, and printed into a pipe without Rich.

To load these two takes longer than all the rest of it. What is not plain here is left to Typer, and means the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..operations import status as looking
from ..operations import workspace as workspaces
from ..operations.selection import Wanted
from ..operations.workspace import Workspace
from . import tables

_FLAGS = {"--json": "--json", "-j": "--json", "--all": "--all", "-a": "--all"}


@dataclass(frozen=True, slots=True)
class Call:
    """A call of `status`."""

    workspace: Path | None
    config: Path | None
    as_json: bool
    everything: bool

    def run(self) -> None:
        """Do it."""
        show(workspaces.find(self.workspace, self.config), as_json=self.as_json, everything=self.everything)


def understand(arguments: Sequence[str]) -> Call | None:
    """The call of `status` that the arguments are, if they are a plain one."""
    if arguments[:1] != ["status"]:
        return None
    flags: set[str] = set()
    values: dict[str, Path] = {}
    words = iter(arguments[1:])
    for word in words:
        name, equals, value = word.partition("=")
        if word in _FLAGS:
            flags.add(_FLAGS[word])
            continue
        if not equals:
            value = next(words, "")
        if name not in ("--workspace", "--config") or not value or value.startswith("-"):
            return None
        values[name] = Path(value)
    return Call(values.get("--workspace"), values.get("--config"), "--json" in flags, "--all" in flags)


def show(found: Workspace, *, as_json: bool, everything: bool, wanted: Wanted | None = None) -> None:
    """Print the status of a workspace, of all tasks or those that are `wanted`.

    Raises:
        NothingToActOn: these are none.
    """
    if as_json:
        print(tables.as_json(looking.status(found, wanted=wanted).json()))
        return
    now = looking.status(found, None if everything else looking.MOST, wanted=wanted)
    if not tables.wants_rich():
        tables.show(now)
        return
    from . import render

    render.status(now)
