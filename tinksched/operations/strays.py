"""Runs of this workspace that nobody has on record, because the state folder was deleted while they ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import Settings
from ..errors import TinkschedError, UsageError
from ..host import processes
from ..host.leases import Leases
from ..host.rundir import RunDir
from ..host.statedir import SchedulerLock, StateDir
from ..store import Store


@dataclass(frozen=True, slots=True)
class Stray:
    """A run that goes on without a record."""

    run_id: str
    task: str


def find(settings: Settings, state: StateDir, store: Store | None) -> list[Stray]:
    """The runs that hold leases in the name of this workspace, and are not on record."""
    try:
        living = Leases().of_workspace(str(settings.workspace))
    except TinkschedError:
        return []
    # In this order: a scheduler leases first and commits afterwards, so what it leases now may not be on record yet.
    if not living or SchedulerLock(state).is_held():
        return []
    ids = [claim.run_id for claim in living]
    unknown = store.unknown_runs(ids) if store is not None else ids
    strays = [Stray(claim.run_id, claim.task) for claim in living if claim.run_id in unknown]
    return sorted(strays, key=lambda stray: stray.task)


def refuse(settings: Settings, state: StateDir, store: Store) -> None:
    """Refuse to queue anything while there are some: they may be the very same tasks.

    Raises:
        UsageError: there are.
    """
    strays = find(settings, state, store)
    if strays:
        names = ", ".join(sorted({stray.task for stray in strays}))
        known = any(RunDir(state.runs / stray.run_id).is_prepared for stray in strays)
        repair = "; or put it together again: tinksched doctor --repair" if known else ""
        raise UsageError(
            f"{names} still run{'s' * (len(strays) == 1)}, but the record of that is gone: {state.path} was deleted "
            "meanwhile; nothing was queued",
            hint="wait until they have ended (nvidia-smi or ps shows them), or end them: tinksched kill-all" + repair,
        )


def end(strays: Sequence[Stray], grace: float) -> tuple[str, ...]:
    """End them, verified dead. Returns the names of those of which something could not be killed."""
    ended = {stray.task: processes.end(stray.run_id, grace=grace) for stray in strays}
    return tuple(task for task, (_, alive) in ended.items() if alive)
