"""Runs that ended while no scheduler looked: `status` shows them as the next scheduler will record them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..config import Settings
from ..core.model import Outcome, Reason, ReasonCode, Run, RunState
from ..host import processes
from ..host.completion import conclude, is_fresh, with_diagnosis
from ..host.processes import Process, boot_id, identify
from ..host.rundir import RunDir


def ended_unseen(settings: Settings, active: Sequence[Run]) -> dict[str, Run]:
    """While no scheduler looks: the runs that have ended by now, as the scheduler will record them."""
    ended: dict[str, Run] = {}
    living = processes.of_runs(run.id for run in active)
    for run in active:
        status = RunDir(run.directory).exit_status()
        if status is not None:
            outcome, reason = conclude(
                status.code,
                fresh_marker=is_fresh(run.marker, run.marker_before),
                require_marker=settings.require_marker,
                strict_exit=settings.strict_exit,
            )
            reason = with_diagnosis(run, outcome, reason, status.code)
            ended[run.id] = replace(
                run, outcome=outcome, reason=reason, exit_code=status.code, ended_at=max(status.at, run.created_at)
            )
        elif not living[run.id] and not _wrapper_lives(run) and run.state is not RunState.STARTING:
            rebooted = run.boot_id != boot_id()
            why = Reason(ReasonCode.MACHINE_RESTARTED if rebooted else ReasonCode.NO_EXIT_STATUS)
            ended[run.id] = replace(run, outcome=Outcome.LOST, reason=why)
    return ended


def _wrapper_lives(run: Run) -> bool:
    if run.boot_id != boot_id():
        return False
    known = Process(run.pid, run.pid_started).alive() if run.pid and run.pid_started is not None else False
    return known or identify(RunDir(run.directory).began() or -1) is not None
