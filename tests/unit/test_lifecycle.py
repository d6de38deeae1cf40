"""The two state machines: which event is possible where, and what it changes."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import fields, replace
from typing import get_args

import pytest

from tinksched.core.lifecycle import (
    Began,
    Dropped,
    Ended,
    Finished,
    GaveBack,
    Held,
    Launched,
    Ranked,
    Released,
    Requeued,
    Retried,
    RunEvent,
    TaskEvent,
    apply_run,
    apply_task,
    run_sources,
    task_sources,
)
from tinksched.core.model import (
    GpuSlots,
    Hold,
    Outcome,
    Reason,
    ReasonCode,
    Request,
    Run,
    RunState,
    Task,
    TaskSpec,
    TaskState,
    Tenant,
)
from tinksched.errors import Conflict

NOW = 1_700_000_000.0
SPEC = TaskSpec(("python", "train.py"), "/w", "/w/out/a_completed.txt", "/w/out")
NEW_SPEC = replace(SPEC, gpus=2, exclusive=True)
REASON = Reason(ReasonCode.NEVER_BEGAN, {"why": "its lease was revoked"})
TASK = Task(7, "a", "/w/configs/a.yml", SPEC, TaskState.QUEUED, 1, 3, NOW - 50, NOW - 50)
RUN = Run(
    id="00ff", task_id=7, task="a", attempt=1, state=RunState.STARTING, gpus=(0,), devices=("index-0",),
    executor="local", session="", directory="/d", work_dir="/w", log=None, lease="/l", marker="/m",
    marker_before=None, boot_id="b", created_at=NOW - 5,
)  # fmt: skip

BEGAN = Began("hash")
GAVE_BACK = GaveBack(REASON)
RETRIED = Retried(REASON, 99.0)
FINISHED = Finished(Outcome.FAILED, Reason(ReasonCode.EXIT_CODE, {"code": 3}))
DROPPED = Dropped(Outcome.CANCELLED, Reason(ReasonCode.CANCELLED_BY_USER, {"user": "ann"}))
REQUEUED = Requeued(9, 5, NEW_SPEC)
LAUNCHED = Launched(123, 456, "demo_a_gpu0")
ENDED = Ended(Outcome.COMPLETED, None, 0, NOW - 1)
HELD = Held(Hold("ann", NOW, NOW + 60))
TASK_EVENTS: tuple[TaskEvent, ...] = (
    BEGAN, GAVE_BACK, RETRIED, FINISHED, DROPPED, REQUEUED, HELD, Released(), Ranked(7),
)  # fmt: skip
RUN_EVENTS: tuple[RunEvent, ...] = (LAUNCHED, ENDED)

TASK_TABLE = {
    (TaskState.QUEUED, Began): TaskState.ACTIVE,
    (TaskState.QUEUED, Dropped): TaskState.DONE,
    (TaskState.ACTIVE, GaveBack): TaskState.QUEUED,
    (TaskState.ACTIVE, Retried): TaskState.QUEUED,
    (TaskState.ACTIVE, Finished): TaskState.DONE,
    (TaskState.DONE, Requeued): TaskState.QUEUED,
    (TaskState.QUEUED, Held): TaskState.QUEUED,
    (TaskState.QUEUED, Released): TaskState.QUEUED,
    (TaskState.QUEUED, Ranked): TaskState.QUEUED,
}
RUN_TABLE = {
    (RunState.STARTING, Launched): RunState.RUNNING,
    (RunState.STARTING, Ended): RunState.ENDED,
    (RunState.RUNNING, Ended): RunState.ENDED,
}


def in_state(state: TaskState) -> Task:
    """A task that may be there: it has an outcome exactly if it is done, and a request only if it is active."""
    outcome = Outcome.FAILED if state is TaskState.DONE else None
    request = Request.CANCEL if state is TaskState.ACTIVE else None
    return replace(TASK, state=state, outcome=outcome, request=request, attempts=2, reason=REASON, config_hash="old")


def word(value: object) -> str:
    return value.name if isinstance(value, TaskState | RunState) else type(value).__name__


def changed(before: object, after: object) -> set[str]:
    """The names of the fields in which two records of one kind differ."""
    return {field.name for field in fields(before) if getattr(before, field.name) != getattr(after, field.name)}  # type: ignore[arg-type]


def test_every_event_and_every_state_is_in_the_tables_of_this_test() -> None:
    assert {type(event) for event in TASK_EVENTS} == set(get_args(TaskEvent))
    assert {type(event) for event in RUN_EVENTS} == set(get_args(RunEvent))
    assert {state for state, _ in TASK_TABLE} == set(TaskState)
    assert {state for state, _ in RUN_TABLE} | {RunState.ENDED} == set(RunState)


@pytest.mark.parametrize(("state", "event"), [*itertools.product(TaskState, TASK_EVENTS)], ids=word)
def test_each_event_of_a_task_moves_it_as_the_table_says_or_is_refused(state: TaskState, event: TaskEvent) -> None:
    task = in_state(state)
    target = TASK_TABLE.get((state, type(event)))
    assert (state in task_sources(event)) is (target is not None)
    if target is None:
        with pytest.raises(Conflict) as caught:
            apply_task(task, event, NOW)
        assert "a" in caught.value.message
        assert state.value in caught.value.message
        return
    moved = apply_task(task, event, NOW)
    assert moved.state is target
    assert moved.changed_at == NOW
    assert (moved.outcome is not None) is (target is TaskState.DONE)
    assert task == in_state(state), "the argument is as it was"


@pytest.mark.parametrize(("state", "event"), [*itertools.product(RunState, RUN_EVENTS)], ids=word)
def test_each_event_of_a_run_moves_it_as_the_table_says_or_is_refused(state: RunState, event: RunEvent) -> None:
    run = replace(RUN, state=state)
    target = RUN_TABLE.get((state, type(event)))
    assert (state in run_sources(event)) is (target is not None)
    if target is None:
        with pytest.raises(Conflict) as caught:
            apply_run(run, event, NOW)
        assert "run 00ff of a" in caught.value.message
        return
    assert apply_run(run, event, NOW).state is target


def test_a_task_that_began_counts_an_attempt_and_forgets_why_it_waited() -> None:
    task = in_state(TaskState.QUEUED)
    moved = apply_task(task, BEGAN, NOW)
    assert (moved.attempts, moved.reason, moved.config_hash) == (3, None, "hash")
    assert changed(task, moved) == {"state", "changed_at", "attempts", "reason", "config_hash"}


def test_a_config_that_could_not_be_read_has_no_hash() -> None:
    assert apply_task(in_state(TaskState.QUEUED), Began(None), NOW).config_hash is None


def test_a_run_that_never_began_does_not_count_as_an_attempt() -> None:
    queued = replace(TASK, attempts=4)
    back = apply_task(apply_task(queued, BEGAN, NOW), GAVE_BACK, NOW + 1)
    assert back.attempts == 4
    assert back.reason == REASON
    assert back.rank == queued.rank, "it keeps its place in the queue"
    assert back.queued_at == queued.queued_at


def test_a_queued_task_is_never_one_that_somebody_has_asked_to_cancel() -> None:
    """It would start once more, only to be ended: the user's command runs although it was cancelled."""
    cancelled = in_state(TaskState.ACTIVE)
    assert cancelled.request is Request.CANCEL
    with contextlib.suppress(Conflict):  # to refuse is right as well: its run must end as cancelled
        assert apply_task(cancelled, GAVE_BACK, NOW).request is None


@pytest.mark.parametrize("outcome", Outcome)
def test_a_finished_task_has_the_outcome_and_the_reason_of_its_run_and_no_request(outcome: Outcome) -> None:
    task = in_state(TaskState.ACTIVE)
    moved = apply_task(task, Finished(outcome, None), NOW)
    assert (moved.outcome, moved.reason, moved.request) == (outcome, None, None)
    assert moved.attempts == task.attempts


def test_a_dropped_task_is_done_without_another_attempt() -> None:
    moved = apply_task(in_state(TaskState.QUEUED), DROPPED, NOW)
    assert (moved.outcome, moved.attempts) == (Outcome.CANCELLED, 2)
    assert moved.reason is not None
    assert moved.reason.text == "cancelled by ann"


def test_a_requeued_task_goes_to_the_end_of_the_queue_as_the_configuration_says_now() -> None:
    task = in_state(TaskState.DONE)
    moved = apply_task(task, REQUEUED, NOW)
    assert (moved.queue_number, moved.priority, moved.spec, moved.queued_at) == (9, 5, NEW_SPEC, NOW)
    assert (moved.outcome, moved.reason, moved.request) == (None, None, None)
    assert (moved.attempts, moved.config_hash) == (2, "old"), "the attempts go on counting"
    assert (moved.id, moved.name, moved.config) == (task.id, task.name, task.config)


def test_a_held_task_changes_in_nothing_else_and_forgets_it_when_it_begins_or_is_dropped() -> None:
    task = in_state(TaskState.QUEUED)
    held = apply_task(task, HELD, NOW)
    assert changed(task, held) == {"hold", "changed_at"} and held.hold == HELD.hold
    assert apply_task(held, Released(), NOW) == replace(task, changed_at=NOW)
    assert apply_task(held, BEGAN, NOW).hold is None and apply_task(held, DROPPED, NOW).hold is None


def test_a_priority_changes_the_rank_and_not_the_place_among_equals() -> None:
    task = in_state(TaskState.QUEUED)
    assert apply_task(task, Ranked(-3), NOW).rank == (3, task.queue_number)


def test_a_launched_run_knows_its_process_and_when_it_started() -> None:
    moved = apply_run(RUN, LAUNCHED, NOW)
    assert (moved.pid, moved.pid_started, moved.session, moved.started_at) == (123, 456, "demo_a_gpu0", NOW)
    assert changed(RUN, moved) == {"state", "pid", "pid_started", "session", "started_at"}


def test_a_run_whose_process_had_ended_already_can_be_launched_without_one() -> None:
    assert apply_run(RUN, Launched(None, None, ""), NOW).pid is None


def test_an_ended_run_keeps_what_is_known_of_it() -> None:
    running = apply_run(RUN, LAUNCHED, NOW - 3)
    moved = apply_run(running, ENDED, NOW)
    assert (moved.outcome, moved.exit_code, moved.ended_at) == (Outcome.COMPLETED, 0, NOW - 1)
    assert changed(running, moved) == {"state", "outcome", "exit_code", "ended_at"}


def test_a_run_never_leaves_its_end() -> None:
    ended = apply_run(RUN, ENDED, NOW)
    for event in RUN_EVENTS:
        with pytest.raises(Conflict):
            apply_run(ended, event, NOW)


def test_higher_priority_ranks_before_a_lower_queue_number() -> None:
    tasks = [replace(TASK, priority=priority, queue_number=number) for priority, number in ((0, 2), (5, 9), (0, 1))]
    ranked = sorted(tasks, key=lambda task: task.rank)
    assert [(task.priority, task.queue_number) for task in ranked] == [(5, 9), (0, 1), (0, 2)]


def test_a_gpu_allows_the_least_of_what_everybody_on_it_allows() -> None:
    tenants = (Tenant("ann", "/a", "x", 5, NOW), Tenant("bob", "/b", "y", 3, NOW))
    assert GpuSlots(0, "index-0", 4).allowed == 4
    assert GpuSlots(0, "index-0", 4, others=tenants).allowed == 3
    assert GpuSlots(0, "index-0", 4, (replace(RUN, exclusive=True),)).allowed == 1
    assert GpuSlots(0, "index-0", 4, (RUN,), tenants).used == 3
