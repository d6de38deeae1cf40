"""Which task starts where, and why each other one waits: the rules as examples, and what holds for every queue."""

from __future__ import annotations

import heapq
import itertools
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from tinksched.core.gpu import GpuProcess, GpuState
from tinksched.core.model import (
    ALONE,
    CPU,
    GpuSlots,
    Placement,
    Reason,
    ReasonCode,
    Run,
    RunState,
    Task,
    TaskSpec,
    TaskState,
    Tenant,
)
from tinksched.core.placement import Decision, Policy, _Walk, decide, explain, place
from tinksched.core.sharing import Demand, Terms, demand_of, desks_of, kind_of

NOW = 1_700_000_000.0
SPREAD, PACK = Policy.SPREAD, Policy.PACK
GIB = 2**30
relaxed = settings(deadline=None)  # the machine that runs the tests may be busy


def task(
    number: int, *, gpus: int = 1, pinned: tuple[int, ...] = (), exclusive: bool = False, priority: int = 0,
    memory: int | Literal["auto"] | None = None, limit: float | None = None,
) -> Task:  # fmt: skip
    """The task that is `number` in the queue and has that id; its name is `t{number}`."""
    spec = TaskSpec(
        (), "/", "", "", gpus=gpus, pinned=pinned, exclusive=exclusive, min_free_memory=memory, time_limit=limit
    )
    return Task(number, f"t{number}", f"t{number}.yml", spec, TaskState.QUEUED, priority, number, NOW, NOW)


def run(name: str, gpu: int, *, exclusive: bool = False) -> Run:
    return Run(
        id=f"run-{name}", task_id=0, task=name, attempt=1, state=RunState.RUNNING, gpus=(gpu,),
        devices=(f"index-{gpu}",), executor="local", session="", directory="/", work_dir="/", log=None, lease="/l",
        marker="/m", marker_before=None, boot_id="b", created_at=NOW, exclusive=exclusive,
    )  # fmt: skip


def tenant(limit: int, name: str = "theirs") -> Tenant:
    return Tenant("bob", "/home/bob/ws", name, limit, NOW)


def gpu(
    index: int, slots: int = 1, *, own: int = 0, exclusive: bool = False, others: tuple[Tenant, ...] = (),
    last_start: float | None = None,
) -> GpuSlots:  # fmt: skip
    """A GPU with `own` runs of this workspace on it, which are exclusive or not."""
    runs = tuple(run(f"own{index}-{number}", index, exclusive=exclusive) for number in range(own))
    return GpuSlots(index, f"index-{index}", slots, runs, others, last_start)


def demands_of(queue: list[Task], need_of: Callable[[Task], int | None] = lambda one: None) -> Counter[Demand]:
    """With these a walk is brief."""
    return Counter(demand_of(kind_of(one.spec), need_of(one)) for one in queue)


def placed(*tasks: Task, on: list[GpuSlots], policy: Policy = SPREAD, delay: float = 0) -> list[tuple[int, ...]]:
    """The GPUs of each task that is placed, in the order of starting, as (task, *gpus)."""
    found = place(tasks, on, NOW, policy=policy, startup_delay=delay)
    return [(placement.task_id, *placement.gpus) for placement in found]


def why(task: Task, *before: Task, on: list[GpuSlots], policy: Policy = SPREAD, delay: float = 0) -> Reason:
    """Why `task`, which is in the queue after `before`, waits."""
    return explain(task, [*before, task], on, NOW, policy=policy, startup_delay=delay)


# ---------------------------------------------------------------- choosing a GPU


def test_spread_takes_the_emptiest_gpu_first() -> None:
    gpus = [gpu(0, 3, own=2), gpu(1, 3), gpu(2, 3, own=1)]
    assert placed(task(1), task(2), task(3), on=gpus) == [(1, 1), (2, 1), (3, 2)]


def test_pack_takes_the_fullest_gpu_that_has_a_slot_first() -> None:
    gpus = [gpu(0, 3), gpu(1, 3, own=3), gpu(2, 3, own=1)]
    assert placed(task(1), task(2), task(3), on=gpus, policy=PACK) == [(1, 2), (2, 2), (3, 0)]


@pytest.mark.parametrize("policy", Policy)
def test_equally_loaded_gpus_are_taken_in_the_order_of_preference(policy: Policy) -> None:
    assert placed(task(1), on=[gpu(3, 2), gpu(0, 2), gpu(1, 2)], policy=policy) == [(1, 3)]


def test_others_on_a_gpu_count_as_its_load() -> None:
    gpus = [gpu(0, 4, others=(tenant(4),)), gpu(1, 4)]
    assert placed(task(1), on=gpus) == [(1, 1)]
    assert placed(task(1), on=gpus, policy=PACK) == [(1, 0)]


def test_slots_are_filled_to_the_last_one_and_not_beyond() -> None:
    tasks = [task(number) for number in range(1, 6)]
    assert placed(*tasks, on=[gpu(0, 2), gpu(1, 2, own=1)]) == [(1, 0), (2, 0), (3, 1)]


def test_without_gpus_nothing_starts_and_it_is_said() -> None:
    assert placed(task(1), on=[]) == []
    reason = why(task(1), on=[])
    assert reason.code is ReasonCode.NO_SUCH_GPU
    assert reason.text.endswith("the scheduler uses no GPU")


def test_an_empty_queue_is_no_decision() -> None:
    assert decide([], [gpu(0)], NOW, policy=SPREAD) == Decision((), {}, None)


# ---------------------------------------------------------------- the order of the queue


def test_the_queue_is_served_in_its_order() -> None:
    urgent = task(9, priority=5)
    assert urgent.rank < task(1).rank < task(2).rank
    assert placed(urgent, task(1), task(2), on=[gpu(0), gpu(1)]) == [(9, 0), (1, 1)]


def test_a_pinned_task_whose_gpu_is_full_is_passed_by() -> None:
    assert placed(task(1, pinned=(0,)), task(2), on=[gpu(0, own=1), gpu(1)]) == [(2, 1)]


def test_a_pinned_task_gets_its_gpu_although_another_one_is_emptier() -> None:
    assert placed(task(1, pinned=(0,)), on=[gpu(0, 2, own=1), gpu(1, 2)]) == [(1, 0)]


def test_several_pins_are_a_choice() -> None:
    assert placed(task(1, pinned=(1, 2)), on=[gpu(0), gpu(1, own=1), gpu(2)]) == [(1, 2)]


def test_of_several_pins_those_that_exist_count() -> None:
    assert placed(task(1, pinned=(7, 1)), on=[gpu(0), gpu(1)]) == [(1, 1)]


def test_an_impossible_task_is_passed_by_and_holds_nothing() -> None:
    impossible = task(1, gpus=3, exclusive=True)
    assert placed(impossible, task(2), on=[gpu(0), gpu(1)]) == [(2, 0)]
    assert why(impossible, on=[gpu(0), gpu(1)]).code is ReasonCode.NO_SUCH_GPU


# ---------------------------------------------------------------- several GPUs


def test_a_wide_task_gets_different_gpus_in_ascending_order() -> None:
    assert placed(task(1, gpus=2), on=[gpu(2, 4), gpu(0, 4, own=1), gpu(1, 4)]) == [(1, 1, 2)]


def test_a_wide_task_never_gets_two_slots_of_one_gpu() -> None:
    assert placed(task(1, gpus=2), on=[gpu(0, 2), gpu(1, own=1)]) == []


def test_a_wide_pinned_task_gets_its_pins() -> None:
    assert placed(task(1, gpus=2, pinned=(0, 2)), on=[gpu(0), gpu(1), gpu(2)]) == [(1, 0, 2)]


def test_a_wide_task_holds_the_free_slots_against_later_ones() -> None:
    wide, narrow = task(1, gpus=2), task(2)
    gpus = [gpu(0), gpu(1, own=1)]
    assert placed(wide, narrow, on=gpus) == []
    assert why(narrow, wide, on=gpus) == Reason(ReasonCode.HELD_FOR, {"task": "t1"})
    assert why(wide, on=gpus).text == "needs 2 GPUs at once, 1 has a free slot"


def test_a_wide_task_holds_no_more_than_it_needs() -> None:
    assert placed(task(1, gpus=2), task(2), task(3), on=[gpu(0, 3), gpu(1, own=1)]) == [(2, 0), (3, 0)]
    three = [gpu(0), gpu(1, own=1), gpu(2, own=1), gpu(3)]
    assert placed(task(1, gpus=3), task(2), on=three) == []
    assert placed(task(1, gpus=2, pinned=(0, 1)), task(2), on=three) == [(2, 3)]


def test_an_earlier_task_is_not_held_up_by_a_later_wide_one() -> None:
    assert placed(task(1), task(2, gpus=2), on=[gpu(0), gpu(1, own=1)]) == [(1, 0)]


def test_two_wide_tasks_hold_different_gpus_where_there_are_enough() -> None:
    gpus = [gpu(0), gpu(1, own=1), gpu(2), gpu(3, own=1), gpu(4)]
    wide = [task(1, gpus=2, pinned=(0, 1)), task(2, gpus=2, pinned=(2, 3))]
    assert placed(*wide, task(3), task(4), on=gpus) == [(3, 4)]


# ---------------------------------------------------------------- exclusive tasks


def test_an_exclusive_task_takes_only_an_empty_gpu() -> None:
    assert placed(task(1, exclusive=True), on=[gpu(0, 4, own=1), gpu(1, 4, others=(tenant(4),)), gpu(2, 4)]) == [(1, 2)]


@pytest.mark.parametrize("policy", Policy)
def test_nothing_joins_an_exclusive_task_that_starts_in_the_same_moment(policy: Policy) -> None:
    assert placed(task(1, exclusive=True), task(2), on=[gpu(0, 4)], policy=policy) == [(1, 0)]


def test_nothing_joins_an_exclusive_run() -> None:
    assert placed(task(1), on=[gpu(0, 4, own=1, exclusive=True)]) == []


def test_an_exclusive_task_does_not_join_one_that_starts_in_the_same_moment() -> None:
    assert placed(task(1), task(2, exclusive=True), on=[gpu(0, 4)]) == [(1, 0)]


def test_a_waiting_exclusive_task_lets_one_gpu_drain() -> None:
    gpus = [gpu(0, 3, own=2), gpu(1, 3, own=1)]
    assert placed(task(1, exclusive=True), task(2), task(3), on=gpus) == [(2, 0)]
    assert why(task(3), task(1, exclusive=True), task(2), on=gpus).code is ReasonCode.HELD_FOR


def test_two_waiting_exclusive_tasks_let_two_gpus_drain() -> None:
    gpus = [gpu(0, 2, own=1), gpu(1, 2, own=1), gpu(2, 2, own=1)]
    alone = [task(1, exclusive=True), task(2, exclusive=True)]
    assert placed(*alone, task(3), task(4), on=gpus) == [(3, 2)]


def test_a_wide_exclusive_task_needs_all_of_its_gpus_empty() -> None:
    wide = task(1, gpus=2, exclusive=True)
    assert placed(wide, on=[gpu(0, 2), gpu(1, 2, own=1)]) == []
    assert placed(wide, task(2), on=[gpu(0, 2), gpu(1, 2), gpu(2, 2, own=1)]) == [(1, 0, 1), (2, 2)]


# ---------------------------------------------------------------- others on this host


@pytest.mark.parametrize(("limit", "starts"), [(1, 0), (2, 1), (3, 2), (9, 3)])
def test_the_least_of_everybodys_limits_counts(limit: int, starts: int) -> None:
    tasks = [task(number) for number in range(1, 9)]
    assert len(placed(*tasks, on=[gpu(0, 4, others=(tenant(limit),))])) == starts


def test_of_several_tenants_the_strictest_counts() -> None:
    assert placed(task(1), on=[gpu(0, 9, others=(tenant(9), tenant(2)))]) == []


def test_more_runs_than_are_allowed_now_do_no_harm() -> None:
    assert placed(task(1), task(2, exclusive=True), on=[gpu(0, 1, own=3), gpu(1, 2, others=(tenant(0),))]) == []


# ---------------------------------------------------------------- startup_delay


def test_two_starts_on_one_gpu_are_a_delay_apart() -> None:
    tasks = [task(1), task(2), task(3)]
    assert placed(*tasks, on=[gpu(0, 3), gpu(1, 3)], delay=5) == [(1, 0), (2, 1)]
    reason = why(task(3), task(1), task(2), on=[gpu(0, 3), gpu(1, 3)], delay=5)
    assert reason == Reason(ReasonCode.STARTUP_DELAY, {"gpu": 0, "until": NOW + 5})


@pytest.mark.parametrize(
    ("last", "starts"),
    [
        pytest.param(None, True, id="never started"),
        pytest.param(NOW - 10, True, id="just over"),
        pytest.param(NOW - 10.5, True, id="over"),
        pytest.param(NOW - 9.5, False, id="not over"),
        pytest.param(NOW, False, id="now"),
        pytest.param(NOW + 10, False, id="a little in the future"),
        pytest.param(NOW + 10.5, True, id="the clock jumped back"),
        pytest.param(NOW + 86400, True, id="the clock jumped back by a day"),
    ],
)
def test_a_delay_ends_and_a_clock_that_jumped_back_does_not_prolong_it(last: float | None, starts: bool) -> None:
    decision = decide([task(1)], [gpu(0, last_start=last)], NOW, policy=SPREAD, startup_delay=10)
    assert bool(decision.placements) is starts
    assert (decision.wake_at is None) is starts


def test_no_delay_is_no_delay_even_at_the_same_instant() -> None:
    assert placed(task(1), task(2), on=[gpu(0, 2, last_start=NOW)]) == [(1, 0), (2, 0)]


def test_the_wake_time_is_that_of_the_first_delay_that_somebody_waits_for() -> None:
    gpus = [gpu(0, own=1, last_start=NOW - 9), gpu(1, last_start=NOW - 4), gpu(2, last_start=NOW - 6)]
    assert decide([task(1)], gpus, NOW, policy=SPREAD, startup_delay=10).wake_at == NOW + 4
    assert decide([task(1, pinned=(1,))], gpus, NOW, policy=SPREAD, startup_delay=10).wake_at == NOW + 6
    assert decide([task(1, pinned=(0,))], gpus, NOW, policy=SPREAD, startup_delay=10).wake_at is None


def test_a_wide_task_that_waits_for_a_delay_keeps_its_gpus() -> None:
    gpus = [gpu(0, 2, last_start=NOW - 1), gpu(1)]
    assert placed(task(1, gpus=2), task(2), on=gpus, delay=10) == []


def test_a_wide_task_waits_until_enough_of_its_gpus_may_start_again() -> None:
    gpus = [gpu(0, last_start=NOW - 9), gpu(1, last_start=NOW - 3)]
    wide = task(1, gpus=2)
    reason = explain(wide, [wide], gpus, NOW, policy=SPREAD, startup_delay=10)
    assert reason.detail["until"] == NOW + 7


def test_a_wide_task_holds_the_gpus_that_may_start_first() -> None:
    gpus = [gpu(0, last_start=NOW - 1), gpu(1, last_start=NOW - 9), gpu(2)]
    assert placed(task(1, gpus=2), task(2), on=gpus, delay=10) == []


# ---------------------------------------------------------------- reasons, as they are read


@pytest.mark.parametrize(
    ("waiting", "before", "gpus", "text"),
    [
        pytest.param(task(9), [], [gpu(0, own=1), gpu(1, 2, own=2)], "all slots are taken (3 of 3)", id="full"),
        pytest.param(
            task(9), [], [gpu(0, 2, others=(tenant(1),))],
            "all slots are taken (1 of 2; one by bob, theirs of /home/bob/ws)", id="full, by one tenant",
        ),
        pytest.param(
            task(9), [], [gpu(0, 2, others=(tenant(2), tenant(2)))],
            "all slots are taken (2 of 2; one by bob, theirs of /home/bob/ws and 1 more)", id="full, by tenants",
        ),
        pytest.param(
            task(9), [], [gpu(0, 4, own=1, exclusive=True)],
            "all slots are taken (1 of 4; own0-0 has one for itself alone)", id="beside an exclusive run",
        ),
        pytest.param(
            task(9, pinned=(1,)), [], [gpu(0), gpu(1, 2, own=2)],
            "pinned to GPU 1, whose slots are taken (2 of 2)", id="pinned",
        ),
        pytest.param(
            task(9, pinned=(0, 1)), [], [gpu(0, own=1), gpu(1, own=1), gpu(2)],
            "pinned to GPU 0, 1, whose slots are taken (2 of 2)", id="pinned to two",
        ),
        pytest.param(
            task(9, gpus=3), [], [gpu(0), gpu(1), gpu(2, own=1)],
            "needs 3 GPUs at once, 2 have a free slot", id="wide, two free",
        ),
        pytest.param(
            task(9, gpus=2), [], [gpu(0, own=1), gpu(1, own=1)],
            "needs 2 GPUs at once, none has a free slot", id="wide, none free",
        ),
        pytest.param(
            task(9, exclusive=True), [], [gpu(0, 2, own=1)],
            "wants a GPU for itself alone, and none is empty", id="exclusive",
        ),
        pytest.param(
            task(9, exclusive=True, gpus=3), [], [gpu(0), gpu(1), gpu(2, others=(tenant(3),))],
            "wants 3 GPUs for itself alone, and 2 are empty; one by bob, theirs of /home/bob/ws", id="exclusive, wide",
        ),
        pytest.param(
            task(9), [task(1, exclusive=True)], [gpu(0, 2, own=1)],
            "the free slots are held for t1, which comes first and needs more than one slot", id="held",
        ),
        pytest.param(
            task(9, gpus=4), [], [gpu(0), gpu(1)], "asks for 4 GPUs, and the scheduler uses GPUs 0, 1", id="too wide",
        ),
        pytest.param(
            task(9, pinned=(5,)), [], [gpu(1)], "asks for GPU 5, and the scheduler uses GPU 1", id="no such GPU",
        ),
        pytest.param(task(9), [], [gpu(0)], "starts as soon as the scheduler looks", id="starts next"),
    ],
)  # fmt: skip
def test_the_reason_reads_as(waiting: Task, before: list[Task], gpus: list[GpuSlots], text: str) -> None:
    assert why(waiting, *before, on=gpus).text == text


def test_the_delay_reads_as_a_time_of_day() -> None:
    text = why(task(1), on=[gpu(0, last_start=NOW)], delay=90).text
    until = datetime.fromtimestamp(NOW + 90).strftime("%H:%M:%S")
    assert text == f"the last start on GPU 0 is too recent (startup_delay); next start at {until}"


def test_who_takes_a_gpu_alone_is_named_in_the_moment_in_which_it_starts_too() -> None:
    alone = task(1, exclusive=True)
    assert "t1" in why(task(2), alone, on=[gpu(0, 4)]).text


def test_gpus_that_are_empty_but_held_are_not_called_taken() -> None:
    first = task(1, gpus=2, pinned=(0, 1))
    gpus = [gpu(0), gpu(1, own=1), gpu(2), gpu(3, own=1)]
    assert "2 have" in why(task(2, gpus=3), first, on=gpus).text


_DETAILS = {
    "used": 1, "slots": 2, "others": "", "gpu": 0, "wanted": 2, "free": "none", "free_has": "has", "free_is": "is",
    "task": "t1", "until": NOW, "exists": "GPUs 0, 1", "why": "its lease was revoked", "code": 137, "signal": "KILL",
    "names": "python (12)", "user": "ann", "how": "failed", "retry": 1, "retries": 3, "tasks": "t1, t2", "limit": "2 h",
    "pattern": "big_*", "folder": "/w/out", "count": "2 processes", "workspace": "/home/ann/w",
    "where": "; GPU 1 has", "young": "", "has": "have", "who": "bob runs `python x.py`", "pid": 12, "more": "",
    "busy": 9, "most": 8,
}  # fmt: skip


@pytest.mark.parametrize("code", ReasonCode)
def test_every_reason_has_a_text_that_is_part_of_a_sentence(code: ReasonCode) -> None:
    text = Reason(code, _DETAILS).text
    assert text
    assert text[0].islower() or text[0].isdigit()
    assert not set("{}\n") & set(text)
    assert not text.endswith((".", ",", ";", " "))
    assert "  " not in text
    assert "( " not in text


@pytest.mark.parametrize("code", ReasonCode)
def test_a_reason_without_the_details_of_its_text_is_still_a_text(code: ReasonCode) -> None:
    text = Reason(code).text
    assert text
    assert not set("{}") & set(text)


def test_braces_in_a_detail_are_text() -> None:
    assert Reason(ReasonCode.HELD_FOR, {"task": "{slots}{0}"}).text.startswith("the free slots are held for {slots}{0}")


# ---------------------------------------------------------------- what holds for every queue

_flags = st.booleans()


@st.composite
def queues(draw: st.DrawFn, *, indices: int = 5, size: int = 12, plain: bool = False) -> list[Task]:
    """Tasks in the order of their rank, of all kinds; some are impossible. Plain ones ask for slots of GPUs only."""
    tasks = []
    for number in range(draw(st.integers(0, size))):
        pinned = tuple(sorted(draw(st.frozensets(st.integers(0, indices), max_size=3)))) if draw(_flags) else ()
        tasks.append(
            task(
                number + 1,
                gpus=draw(st.sampled_from((1, 1, 1, 2, 3, 4) if plain else (0, 1, 1, 1, 2, 3))),
                pinned=pinned,
                exclusive=draw(st.sampled_from((False, False, False, True))),
                priority=draw(st.integers(-1, 1)),
                memory=None if plain else draw(st.sampled_from((None, None, 10 * GIB, 20 * GIB, 50 * GIB, "auto"))),
                limit=None if plain else draw(st.sampled_from((None, None, 10.0, 100.0))),
            )
        )
    return sorted(tasks, key=lambda one: one.rank)


@st.composite
def machines(draw: st.DrawFn, *, most: int = 4, seen: bool = False) -> list[GpuSlots]:
    """GPUs in any order of preference, in any state that runs within the limits lead to, and some beyond."""
    found = []
    for index in draw(st.lists(st.integers(0, 5), unique=True, max_size=most)):
        slots = draw(st.integers(1, 4))
        others = tuple(tenant(limit) for limit in draw(st.lists(st.integers(0, 4), max_size=2)))
        exclusive = draw(st.sampled_from((False, False, False, True)))
        own = draw(st.integers(0, 1 if exclusive else slots))
        last = draw(st.none() | st.floats(NOW - 30, NOW + 30))
        one = gpu(index, slots, own=own, exclusive=exclusive, others=others, last_start=last)
        if seen:
            limits = [draw(st.sampled_from((None, NOW + 5, NOW + 50))) for _ in one.own]
            runs = tuple(replace(run, deadline=at) for run, at in zip(one.own, limits, strict=True))
            one = replace(one, own=runs, state=draw(st.none() | states(index, runs)))
        found.append(one)
    return found


@st.composite
def states(draw: st.DrawFn, index: int, runs: tuple[Run, ...]) -> GpuState:
    """What NVML may say about a GPU with these runs."""
    lists = draw(st.sampled_from((True, True, True, False)))
    processes = [
        GpuProcess(number, draw(st.sampled_from((None, 5 * GIB, 30 * GIB))), "me", "x", run=run.id)
        for number, run in enumerate(runs)
    ]
    if draw(st.sampled_from((False, False, False, True))):
        processes.append(GpuProcess(99, 3 * GIB, draw(st.sampled_from((None, "bob"))), None, draw(_flags)))
    free = draw(st.sampled_from((None, 0, 15 * GIB, 40 * GIB, 80 * GIB)))
    links = draw(st.frozensets(st.sampled_from([f"index-{other}" for other in range(6)]), max_size=2))
    return GpuState(
        f"index-{index}", index, NOW, 80 * GIB, free, None if free is None else 80 * GIB - free,
        draw(st.sampled_from((None, 0, 95))), processes=tuple(processes) if lists else None, links=links,
        numa=draw(st.sampled_from((None, 0, 1))), lost=draw(st.sampled_from((False, False, False, False, True))),
    )  # fmt: skip


cpus = st.none() | st.builds(
    lambda slots, used: GpuSlots(-1, CPU, slots, (), (tenant(slots),) * min(slots, used)),
    st.integers(1, 3), st.integers(0, 3),
)  # fmt: skip
needs_of = st.dictionaries(st.integers(1, 30), st.sampled_from((None, 1, 20 * GIB, ALONE)), max_size=5)
some_terms = st.sampled_from((Terms(), Terms(max_utilization=50), Terms(respect_others=False)))


delays = st.sampled_from((0.0, 0.0, 0.5, 10.0))
policies = st.sampled_from(Policy)


def after(gpus: list[GpuSlots], tasks: list[Task], placements: tuple[Placement, ...]) -> list[GpuSlots]:
    """The GPUs once the placed tasks have started, as the next look will show them."""
    by_id = {one.id: one for one in tasks}
    started: dict[int, list[Run]] = {one.index: [] for one in gpus}
    for placement in placements:
        for index in placement.gpus:
            one = by_id[placement.task_id]
            started[index].append(run(one.name, index, exclusive=one.spec.exclusive))
    return [
        replace(one, own=(*one.own, *started[one.index]), last_start=NOW if started[one.index] else one.last_start)
        for one in gpus
    ]


@relaxed
@given(queues(plain=True), machines(), policies, delays)
def test_no_gpu_gets_more_than_anybody_on_it_allows(
    tasks: list[Task], gpus: list[GpuSlots], policy: Policy, delay: float
) -> None:
    placements = place(tasks, gpus, NOW, policy=policy, startup_delay=delay)
    for before, now in zip(gpus, after(gpus, tasks, placements), strict=True):
        if now.own == before.own:
            continue
        assert now.used <= now.slots
        assert all(now.used <= other.limit for other in now.others)
        if any(one.exclusive for one in now.own):
            assert now.used == 1


@relaxed
@given(queues(plain=True), machines(), policies, delays)
def test_every_task_is_either_placed_once_or_has_a_reason(
    tasks: list[Task], gpus: list[GpuSlots], policy: Policy, delay: float
) -> None:
    decision = decide(tasks, gpus, NOW, policy=policy, startup_delay=delay)
    ids = [placement.task_id for placement in decision.placements]
    assert sorted([*ids, *decision.waiting]) == sorted(one.id for one in tasks)
    assert ids == [one.id for one in tasks if one.id in ids], "they start in the order of the queue"


@settings(deadline=None, max_examples=400)
@given(queues(size=30), machines(seen=True), policies, delays, cpus, needs_of, some_terms)
def test_a_brief_walk_starts_the_same_and_gives_the_same_reasons(
    tasks: list[Task], gpus: list[GpuSlots], policy: Policy, delay: float, cpu: GpuSlots | None,
    needs: dict[int, int | None], terms: Terms,
) -> None:  # fmt: skip
    def need_of(one: Task) -> int | None:
        return needs.get(one.id)

    def walk(demands: Counter[Demand] | None) -> Decision:
        return decide(
            tasks,
            gpus,
            NOW,
            policy=policy,
            startup_delay=delay,
            terms=terms,
            cpu=cpu,
            need_of=need_of,
            demands=demands,
        )

    naive = _Walk(desks_of(gpus, terms, NOW, delay), desks_of([cpu] if cpu else [], terms, NOW), policy, NOW)
    reasons = {}
    for one in tasks:
        naive.spent.clear()  # each is tried
        reasons[one.id] = naive.look(one, demand_of(kind_of(one.spec), need_of(one)))
    whole, brief = walk(None), walk(demands_of(tasks, need_of))
    assert whole.placements == tuple(naive.placements)
    assert whole.waiting == {one: reason for one, reason in reasons.items() if reason is not None}
    assert whole.wake_at == naive.wake_at
    assert brief.placements == whole.placements
    assert brief.looked_at == len(brief.placements) + len(brief.waiting) <= len(tasks)
    assert set(brief.waiting) <= set(whole.waiting)
    if whole.wake_at is not None:  # it is woken in time, and now and then for one who would not have waited for that
        assert brief.wake_at is not None and NOW < brief.wake_at <= whole.wake_at


@settings(deadline=None, max_examples=400)
@given(queues(), machines(seen=True), policies, delays, cpus, needs_of, some_terms)
def test_nothing_starts_where_there_is_no_room_for_it(
    tasks: list[Task], gpus: list[GpuSlots], policy: Policy, delay: float, cpu: GpuSlots | None,
    needs: dict[int, int | None], terms: Terms,
) -> None:  # fmt: skip
    decision = decide(
        tasks,
        gpus,
        NOW,
        policy=policy,
        startup_delay=delay,
        terms=terms,
        cpu=cpu,
        need_of=lambda one: needs.get(one.id),
    )
    ids = [placement.task_id for placement in decision.placements]
    assert sorted([*ids, *decision.waiting]) == sorted(one.id for one in tasks)
    by_id, on_cpu = {one.id: one for one in tasks}, 0
    claimed = dict.fromkeys((one.index for one in gpus), 0)
    for placement in decision.placements:
        spec = by_id[placement.task_id].spec
        assert len(placement.gpus) == spec.gpus
        on_cpu += not spec.gpus
        for index in placement.gpus:
            claimed[index] += placement.memory
        least = [spec.min_free_memory, needs.get(placement.task_id)]
        assert not spec.gpus or placement.memory == max(need for need in (0, *least) if isinstance(need, int))
    assert not on_cpu or (cpu is not None and cpu.used + on_cpu <= cpu.slots)
    for before, now in zip(gpus, after(gpus, tasks, decision.placements), strict=True):
        if now.own == before.own:
            continue
        assert now.used <= now.allowed
        if before.state is not None:
            assert not before.state.lost
            assert claimed[now.index] <= (before.state.memory_free or 0)
            most = terms.max_utilization
            assert most is None or (before.state.utilization or 0) <= most
            others = {tenant.user for tenant in before.others} - {terms.user}
            hidden = [one for one in before.state.processes or () if one.hidden and others]  # may be of their runs
            strange = [one for one in before.state.processes or () if one.compute and not one.run and one not in hidden]
            assert not strange or not terms.respect_others
        else:
            assert not claimed[now.index], "what is not known is never enough"
    for reason in decision.waiting.values():
        event(reason.code.value)
        assert reason.text[0] in string.ascii_lowercase and not set("{}\n") & set(reason.text)
        assert not reason.text.endswith((".", " ", ",", "(")) and "  " not in reason.text


def test_a_brief_walk_does_not_go_through_ten_thousand_tasks_that_can_not_start() -> None:
    queue = [task(number) for number in range(10_000)]
    decision = decide(queue, [gpu(0, 4, own=3), gpu(1, 4, own=4)], NOW, policy=SPREAD, demands=demands_of(queue))
    assert len(decision.placements) == 1 and decision.looked_at <= 9


@relaxed
@given(queues(plain=True), machines(), policies, delays)
def test_a_placement_gives_exactly_what_was_asked_for(
    tasks: list[Task], gpus: list[GpuSlots], policy: Policy, delay: float
) -> None:
    there = {one.index for one in gpus}
    by_id = {one.id: one for one in tasks}
    for placement in place(tasks, gpus, NOW, policy=policy, startup_delay=delay):
        spec = by_id[placement.task_id].spec
        assert len(placement.gpus) == len(set(placement.gpus)) == spec.gpus
        assert list(placement.gpus) == sorted(placement.gpus)
        assert set(placement.gpus) <= there
        assert not spec.pinned or set(placement.gpus) <= set(spec.pinned)


@relaxed
@given(queues(plain=True), machines(), policies, delays)
def test_decisions_depend_on_nothing_but_the_arguments(
    tasks: list[Task], gpus: list[GpuSlots], policy: Policy, delay: float
) -> None:
    first = decide(tasks, gpus, NOW, policy=policy, startup_delay=delay)
    assert decide(iter(tasks), tuple(gpus), NOW, policy=policy, startup_delay=delay) == first
    assert place(tasks, gpus, NOW, policy=policy, startup_delay=delay) == first.placements
    for one in tasks:
        expected = first.waiting.get(one.id, Reason(ReasonCode.STARTS_NEXT))
        assert explain(one, tasks, gpus, NOW, policy=policy, startup_delay=delay) == expected


@relaxed
@given(queues(plain=True), machines(), policies, delays)
def test_every_reason_reads_as_part_of_a_sentence(
    tasks: list[Task], gpus: list[GpuSlots], policy: Policy, delay: float
) -> None:
    for reason in decide(tasks, gpus, NOW, policy=policy, startup_delay=delay).waiting.values():
        event(reason.code.value)
        assert reason.text[0] in string.ascii_lowercase
        assert not set("{}\n") & set(reason.text)
        assert not reason.text.endswith((".", " ", ",", "("))
        assert "  " not in reason.text


@relaxed
@given(queues(plain=True), machines(), policies, delays)
def test_of_two_with_the_same_needs_the_later_never_starts_first(
    tasks: list[Task], gpus: list[GpuSlots], policy: Policy, delay: float
) -> None:
    started = {placement.task_id for placement in place(tasks, gpus, NOW, policy=policy, startup_delay=delay)}
    for one, other in itertools.combinations(tasks, 2):
        if one.spec == other.spec and other.id in started:
            assert one.id in started


@relaxed
@given(queues(plain=True), machines(), policies)
def test_a_slot_that_nobody_may_want_is_the_only_one_that_stays_free(
    tasks: list[Task], gpus: list[GpuSlots], policy: Policy
) -> None:
    """Work is conserved: an ordinary task waits only if every slot that it may have is taken or held."""
    decision = decide(tasks, gpus, NOW, policy=policy)
    rest = after(gpus, tasks, decision.placements)
    for one in tasks:
        reason = decision.waiting.get(one.id)
        if reason is None or reason.code in (ReasonCode.HELD_FOR, ReasonCode.NO_SUCH_GPU):
            continue
        mine = [other for other in rest if not one.spec.pinned or other.index in one.spec.pinned]
        free = [other for other in mine if other.used < (1 if one.spec.exclusive else other.allowed)]
        assert len(free) < one.spec.gpus


@relaxed
@given(queues(plain=True), machines(), policies, delays)
def test_a_second_look_at_the_same_instant_starts_nothing_more(
    tasks: list[Task], gpus: list[GpuSlots], policy: Policy, delay: float
) -> None:
    decision = decide(tasks, gpus, NOW, policy=policy, startup_delay=delay)
    rest = [one for one in tasks if one.id in decision.waiting]
    again = place(rest, after(gpus, tasks, decision.placements), NOW, policy=policy, startup_delay=delay)
    wide = [one.id for one in rest if one.spec.gpus > 1 or one.spec.exclusive]
    assert wide or again == ()  # a held GPU may change with the load, so only without these one walk settles it


@relaxed
@given(queues(size=6, plain=True), machines(), policies)
def test_with_a_delay_everything_that_fits_starts_at_the_wake_times(
    tasks: list[Task], gpus: list[GpuSlots], policy: Policy
) -> None:
    """Nothing else happens meanwhile, so what a delay holds up must not wait for another event."""
    now, queue, picture = NOW, tasks, gpus
    for _ in range(200):
        decision = decide(queue, picture, now, policy=policy, startup_delay=10)
        picture = [
            replace(one, last_start=now if one.used > old.used else old.last_start)
            for one, old in zip(after(picture, queue, decision.placements), picture, strict=True)
        ]
        queue = [one for one in queue if one.id in decision.waiting]
        if decision.wake_at is None:
            break
        assert decision.wake_at > now
        now = decision.wake_at
    else:
        pytest.fail("the wake times lead nowhere")
    assert not any(reason.code is ReasonCode.STARTUP_DELAY for reason in decision.waiting.values())


# ---------------------------------------------------------------- a long run


@dataclass
class Day:
    """A machine and its queue over time. Time jumps from one event to the next."""

    slots: int
    gpus: int
    policy: Policy
    delay: float = 0
    now: float = NOW
    queue: list[Task] = field(default_factory=list)
    running: list[tuple[float, int, Task, tuple[int, ...]]] = field(default_factory=list)
    last: dict[int, float] = field(default_factory=dict)
    starts: list[Task] = field(default_factory=list)
    durations: dict[int, float] = field(default_factory=dict)
    wake_at: float | None = None

    def look(self) -> None:
        """What the scheduler does when it is woken: start what may start, and check that all limits hold."""
        picture = [
            GpuSlots(
                index, f"index-{index}", self.slots,
                own=tuple(
                    run(one.name, index, exclusive=one.spec.exclusive)
                    for _, _, one, on in self.running if index in on
                ),
                last_start=self.last.get(index),
            )
            for index in range(self.gpus)
        ]  # fmt: skip
        self.queue.sort(key=lambda one: one.rank)
        decision = decide(self.queue, picture, self.now, policy=self.policy, startup_delay=self.delay)
        by_id = {one.id: one for one in self.queue}
        for placement in decision.placements:
            one = by_id[placement.task_id]
            heapq.heappush(self.running, (self.now + self.durations[one.id], one.id, one, placement.gpus))
            self.last.update(dict.fromkeys(placement.gpus, self.now))
            self.starts.append(one)
        self.queue = [one for one in self.queue if one.id in decision.waiting]
        self.wake_at = decision.wake_at
        for index in range(self.gpus):
            on = [one for _, _, one, used in self.running if index in used]
            assert len(on) <= (1 if any(one.spec.exclusive for one in on) else self.slots)

    def step(self) -> bool:
        """To the next event. False if there is none any more."""
        times = [self.running[0][0]] if self.running else []
        times += [self.wake_at] if self.wake_at is not None else []
        if not times:
            return False
        self.now = max(self.now, min(times))
        while self.running and self.running[0][0] <= self.now:
            heapq.heappop(self.running)
        self.look()
        return True


@st.composite
def days(draw: st.DrawFn) -> tuple[Day, list[Task]]:
    gpus = draw(st.integers(1, 4))
    day = Day(draw(st.integers(1, 3)), gpus, draw(policies), draw(st.sampled_from((0.0, 0.0, 3.0, 10.0))))
    tasks = []
    for number in range(1, draw(st.integers(1, 40)) + 1):
        pinned = (draw(st.integers(0, gpus - 1)),) if draw(st.integers(0, 4)) == 0 else ()
        wide = 1 if pinned else draw(st.sampled_from((1, 1, 1, min(2, gpus), gpus)))
        tasks.append(task(number, gpus=wide, pinned=pinned, exclusive=draw(st.integers(0, 4)) == 0))
        day.durations[number] = draw(st.sampled_from((1.0, 1.0, 2.0, 5.0, 13.0)))
    return day, tasks


@settings(max_examples=150, deadline=None)
@given(days())
def test_every_queue_of_possible_tasks_is_worked_off(given_day: tuple[Day, list[Task]]) -> None:
    day, tasks = given_day
    day.queue = list(tasks)
    day.look()
    while day.step():
        pass
    assert day.queue == []
    assert sorted(one.id for one in day.starts) == sorted(one.id for one in tasks), "each of them exactly once"


@settings(max_examples=120, deadline=None)
@given(
    slots=st.integers(1, 3),
    gpus=st.integers(1, 4),
    wide=st.integers(1, 4),
    exclusive=st.booleans(),
    policy=policies,
    delay=st.sampled_from((0.0, 0.0, 1.0, 10.0)),
    durations=st.lists(st.sampled_from((1.0, 1.5, 2.0, 3.0, 5.0)), min_size=5, max_size=30),
    kinds=st.lists(st.sampled_from(("any", "any", "pinned", "wide", "alone")), min_size=1, max_size=10),
)
def test_a_task_that_needs_more_than_one_slot_is_not_starved_by_a_stream_of_others(
    slots: int, gpus: int, wide: int, exclusive: bool, policy: Policy, delay: float, durations: list[float],
    kinds: list[str],
) -> None:  # fmt: skip
    """Every slot that is freed finds another task that wants it, for ever; the big one starts all the same.

    A GPU that is held never gets a new run. Which ones are held may change, but only towards fewer runs on them, and
    a run lasts 5 at most: of the others, only those overtake it that fit elsewhere in that time.
    """
    assume(wide <= gpus and (wide > 1 or exclusive))
    day = Day(slots, gpus, policy, delay)
    numbers, lasts, next_kind = itertools.count(2), itertools.cycle(durations), itertools.cycle(kinds)

    def refill() -> None:
        while len(day.queue) < gpus * slots + 3:
            number, kind = next(numbers), next(next_kind)
            pinned = (number % gpus,) if kind == "pinned" else ()
            other = task(number, gpus=gpus if kind == "wide" else 1, pinned=pinned, exclusive=kind == "alone")
            day.durations[number] = next(lasts)
            day.queue.append(other)

    refill()
    day.look()  # the machine is as full as it gets
    big = replace(task(next(numbers), gpus=wide, exclusive=exclusive), name="big")
    day.durations[big.id] = 1.0
    day.queue = [big]  # all that is queued from now on comes after it
    longest = gpus * slots * (5.0 + delay)
    while big not in day.starts:
        refill()
        assert day.step()
        assert day.now <= NOW + longest, "it waits for longer than everything that ran at first can last"
    overtook = [one for one in day.starts if one.id > big.id and one is not big]
    assert len(overtook) <= longest * gpus * slots
    event(f"overtaken by {min(len(overtook), 10)}")


def test_two_starving_tasks_are_served_in_their_order() -> None:
    day = Day(2, 2, SPREAD)
    day.queue = [task(number) for number in range(1, 5)]
    day.durations = dict.fromkeys(range(100), 2.0) | {1: 1.0, 3: 7.0}
    day.look()
    day.queue += [task(10, gpus=2, exclusive=True), task(11, exclusive=True), *(task(20 + n) for n in range(40))]
    while day.step():
        pass
    order = [one.id for one in day.starts]
    assert order.index(10) < order.index(11)
    assert len(order) == 46
