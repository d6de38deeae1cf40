"""The clock of a run: it can't be set, and what a clock of today says of an exit file is fitted into the run's life."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tinksched.core.model import Reason, ReasonCode, Run, RunRecord, RunState, Task, TaskSpec, TaskState
from tinksched.core.relations import Relations, waits
from tinksched.executors.base import Exited, Gone
from tinksched.host.processes import boot_id, since_boot
from tinksched.scheduler import clock

DAY = 86400.0
BOOT = boot_id()


def run_of(*, ago: float, set_by: float = 0.0, boot: str = BOOT) -> Run:
    """A run that was made `ago` seconds ago, by a clock that was set forward by `set_by` seconds since."""
    return Run(
        "0123456789abcdef", 1, "a", 1, RunState.RUNNING, (0,), ("index-0",), "local", "", "/r", "/w", None, "/l", "/m",
        None, boot, time.time() - ago - set_by, record=RunRecord(since_boot=since_boot() - ago),
    )  # fmt: skip


@pytest.mark.parametrize("jump", [-DAY, 0.0, DAY])
def test_a_run_is_as_old_as_the_time_that_passed(jump: float) -> None:
    run = run_of(ago=100, set_by=jump)
    assert 100 <= clock.now_of(run, BOOT) - run.created_at < 110


def test_runs_of_another_boot_or_without_that_record_go_by_the_time_of_day() -> None:
    for run in (run_of(ago=10, boot="another"), replace(run_of(ago=10), record=RunRecord())):
        assert abs(clock.now_of(run, BOOT) - time.time()) < 5


@pytest.mark.parametrize("jump", [-DAY, 0.0, DAY])
@pytest.mark.parametrize("file_age", [-DAY, 0.0, 40.0, DAY])
def test_a_run_never_ends_before_it_began_or_after_now(jump: float, file_age: float) -> None:
    run = run_of(ago=100, set_by=jump)
    now = clock.now_of(run, BOOT)
    seen = clock.corrected(Exited(3, time.time() - file_age), run, now)
    assert isinstance(seen, Exited)
    assert seen.code == 3 and run.created_at <= seen.at <= now
    if file_age == 40.0:
        assert 59 < seen.at - run.created_at < 70
    assert clock.corrected(Gone(), run, now) == Gone()


@pytest.mark.parametrize(("now", "waiting"), [(1000.0, True), (1009.0, True), (1010.0, False), (999.0, False)])
def test_a_retry_waits_only_within_its_delay(now: float, waiting: bool) -> None:
    """999 is before the delay began: the clock was set back."""
    spec = TaskSpec(("true",), "/w", "/m", "/o")
    reason = Reason(ReasonCode.RETRY_DELAY, {"until": 1010.0})
    task = Task(1, "a", "/c", spec, TaskState.QUEUED, 0, 1, 0.0, 1000.0, attempts=1, reason=reason, not_before=1010.0)
    assert (1 in waits([task], Relations(), now).waiting) is waiting
