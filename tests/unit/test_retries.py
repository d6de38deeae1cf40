"""Which ends are tried again, and what the next run needs after its predecessor ran out of memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.test_lifecycle import NOW, SPEC, TASK
from tinksched.core.diagnosis import Diagnosis, Kind
from tinksched.core.lifecycle import Finished, Retried, after_run, apply_task, is_retried, need_after
from tinksched.core.model import ALONE, RETRIED, Outcome, Reason, ReasonCode, Task, TaskState

GB = 2**30
CODE = Reason(ReasonCode.EXIT_CODE, {"code": 1})
CUDA = replace(CODE, found=Diagnosis(Kind.CUDA_MEMORY, "CUDA out of memory"))
HOST = replace(CODE, found=Diagnosis(Kind.HOST_MEMORY, "host out of memory"))
DISK = replace(CODE, found=Diagnosis(Kind.NO_SPACE, "no space left on the disk"))
KERNEL = Reason(ReasonCode.OUT_OF_MEMORY, {"how": "exit code 137 (signal KILL)", "count": "1 process"})
LIMIT = Reason(ReasonCode.TIME_LIMIT, {"limit": "60 s"})


def active(**given: Any) -> Task:
    spec = replace(SPEC, **{"max_retries": 3, **given.pop("spec", {})})
    return replace(TASK, state=TaskState.ACTIVE, spec=spec, **given)


ENDS = {  # outcome, reason, exit code
    "completed": (Outcome.COMPLETED, None, 0),
    "cancelled": (Outcome.CANCELLED, Reason(ReasonCode.INTERRUPTED), 130),
    "exit 1": (Outcome.FAILED, CODE, 1),
    "exit 75": (Outcome.FAILED, Reason(ReasonCode.EXIT_CODE, {"code": 75}), 75),
    "no marker": (Outcome.FAILED, Reason(ReasonCode.NO_MARKER), 0),
    "cuda": (Outcome.FAILED, CUDA, 1),
    "host": (Outcome.FAILED, HOST, 1),
    "disk": (Outcome.FAILED, DISK, 1),
    "kernel": (Outcome.FAILED, KERNEL, 137),
    "kernel, lost": (Outcome.LOST, KERNEL, None),
    "lost": (Outcome.LOST, Reason(ReasonCode.NO_EXIT_STATUS), None),
    "limit": (Outcome.TIMED_OUT, LIMIT, 143),
    "cancelled oom": (Outcome.CANCELLED, CUDA, 75),
}
FAILED = {"exit 1", "exit 75", "no marker", "cuda", "host", "disk", "kernel"}


@pytest.mark.parametrize(
    ("retry_on", "retried"),
    [
        (RETRIED, FAILED | {"lost", "kernel, lost", "limit"}),
        (("failed",), FAILED),
        (("lost",), {"lost", "kernel, lost"}),
        (("timed_out",), {"limit"}),
        (("oom",), {"cuda", "host", "kernel", "kernel, lost"}),
        ((75,), {"exit 75"}),
        ((137, 143), {"kernel"}),
        (("oom", 75, "lost"), {"cuda", "host", "kernel", "kernel, lost", "lost", "exit 75"}),
        ((), set()),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else "",
)
def test_what_is_named_is_retried_and_nothing_else(retry_on: tuple[str | int, ...], retried: set[str]) -> None:
    assert {name for name, (outcome, reason, code) in ENDS.items() if is_retried(retry_on, outcome, reason, code)} == (
        retried
    )


@pytest.mark.parametrize("name", ENDS)
def test_retries_end_with_their_number(name: str) -> None:
    outcome, reason, code = ENDS[name]
    event = after_run(active(failures=3), outcome, reason, NOW, exit_code=code)
    assert event == Finished(outcome, reason)


def test_a_retry_says_why_and_when_and_where() -> None:
    plain = after_run(active(), Outcome.FAILED, CODE, NOW, exit_code=1)
    assert isinstance(plain, Retried) and plain.not_before == NOW + 10
    assert plain.reason.text.startswith("its last run failed (exit code 1); it is tried again at ")
    assert plain.reason.text.endswith("(retry 1 of 3)")
    known = after_run(active(failures=1), Outcome.FAILED, CUDA, NOW, exit_code=1, peak=20 * GB)
    assert known.reason is not None
    assert known.reason.text.startswith("its last run failed: CUDA out of memory (exit code 1); it is tried again at ")
    assert known.reason.text.endswith("(retry 2 of 3, where 22.0 GiB of GPU memory are free)")
    unknown = after_run(active(), Outcome.FAILED, CUDA, NOW, exit_code=1)
    assert unknown.reason is not None
    assert unknown.reason.text.endswith("(retry 1 of 3, with a GPU for itself)")


def test_after_out_of_memory_the_next_run_needs_more_than_the_last_one_had() -> None:
    assert need_after(None, CUDA, 20 * GB) == 22 * GB
    assert need_after(None, CUDA, None) == ALONE
    assert need_after(22 * GB, CUDA, 30 * GB) == 33 * GB
    assert need_after(22 * GB, CUDA, 20 * GB) == ALONE, "that much was free, and it was not enough"
    assert need_after(22 * GB, CUDA, None) == ALONE
    assert need_after(ALONE, CUDA, 30 * GB) == ALONE
    assert need_after(None, CUDA, 0) == 0


@pytest.mark.parametrize("reason", [None, CODE, HOST, DISK, KERNEL, LIMIT])
def test_after_anything_else_it_needs_what_it_needed(reason: Reason | None) -> None:
    for before in (None, ALONE, 5 * GB):
        assert need_after(before, reason, 20 * GB) == before


def test_the_need_stays_until_the_task_is_queued_by_hand() -> None:
    from tinksched.core.lifecycle import Began, GaveBack, Requeued

    event = after_run(active(), Outcome.FAILED, CUDA, NOW, exit_code=1, peak=20 * GB)
    queued = apply_task(active(), event, NOW)
    assert queued.need == 22 * GB and queued.failures == 1
    began = apply_task(queued, Began("h"), NOW)
    assert began.need == 22 * GB
    assert apply_task(began, GaveBack(CODE), NOW).need == 22 * GB
    again = after_run(began, Outcome.LOST, None, NOW)
    assert apply_task(began, again, NOW).need == 22 * GB
    done = apply_task(began, Finished(Outcome.FAILED, CUDA), NOW)
    assert apply_task(done, Requeued(9, 0, SPEC), NOW).need is None
