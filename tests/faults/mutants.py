"""Schedulers with a defect, to see that the check of a storm can fail."""

from __future__ import annotations

import subprocess
from typing import Any


def launches_before_it_persists() -> None:
    """Launches inside of the transaction that would put the run on record."""
    from tinksched.executors.base import wrapper_command
    from tinksched.scheduler.ledger import Ledger

    original = Ledger._start_what_fits

    def start(self: Ledger, tx: Any, desk: Any, *rest: Any, **how: Any) -> None:
        original(self, tx, desk, *rest, **how)
        for run in rest[-1]:
            subprocess.Popen(wrapper_command(run), start_new_session=True, close_fds=True)

    Ledger._start_what_fits = start  # type: ignore[method-assign]


def takes_unknown_for_dead() -> None:
    """Believes that a run is over as soon as its wrapper is gone."""
    from tinksched.executors.base import Exited, Gone, WrapperRuns
    from tinksched.host.rundir import RunDir

    original = WrapperRuns._judge

    def judge(self: WrapperRuns, handle: Any, living: Any) -> Any:
        status = RunDir(handle.directory).exit_status()
        if status is None and living and not self._wrapper_lives(handle):
            return Gone()
        if status is not None:
            return Exited(status.code, status.at)
        return original(self, handle, living)

    WrapperRuns._judge = judge  # type: ignore[method-assign]


def ignores_leases() -> None:
    """Sees nobody else on any GPU."""
    from tinksched.scheduler.slots import Slots

    original = Slots.of_gpus

    def of_gpus(self: Slots, own: Any, held: Any) -> Any:
        return original(self, own, [])

    Slots.of_gpus = of_gpus  # type: ignore[method-assign]


def forgets_what_was_being_launched() -> None:
    """Queues a run again that was being launched when its scheduler died, without asking whether it has begun."""
    from tinksched.host.rundir import RunDir
    from tinksched.scheduler.ledger import Ledger

    original = Ledger._settle

    def settle(self: Ledger, run: Any) -> Any:
        take_back, RunDir.take_back = RunDir.take_back, lambda _: True  # type: ignore[method-assign]
        try:
            return original(self, run)
        finally:
            RunDir.take_back = take_back  # type: ignore[method-assign]

    Ledger._settle = settle  # type: ignore[method-assign]


BY_NAME = {
    function.__name__: function
    for function in (
        launches_before_it_persists,
        takes_unknown_for_dead,
        ignores_leases,
        forgets_what_was_being_launched,
    )
}
