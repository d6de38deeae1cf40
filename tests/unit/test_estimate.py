"""How long things take, and when they will start and end: by hand-made queues whose answer one can see."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinksched.core.estimate import Forecast, Plan, Typical, forecast
from tinksched.core.instants import clock as clock_time
from tinksched.core.model import ALONE, GpuSlots, Hold, Run, RunState, Task, TaskSpec, TaskState, Tenant

NOW = 1_700_000_000.0
SPEC = TaskSpec(("x",), "/w", "/m", "/o")
TEN = Typical([("x", 10.0)], [])


def task(number: int, name: str = "", *, priority: int = 0, not_before: float | None = None,
         need: int | None = None, hold: Hold | None = None, **spec: Any) -> Task:  # fmt: skip
    return Task(number, name or f"t{number}", "/c", replace(SPEC, **spec), TaskState.QUEUED, priority, number, NOW, NOW,
                not_before=not_before, hold=hold, need=need)  # fmt: skip


def run(number: int, began: float, gpus: tuple[int, ...] = (0,), name: str = "", **given: Any) -> Run:
    return Run(
        id=f"r{number}", task_id=number, task=name or f"t{number}", attempt=1, state=RunState.RUNNING, gpus=gpus,
        devices=tuple(f"index-{gpu}" for gpu in gpus), executor="local", session="", directory="/d", work_dir="/w",
        log=None, lease="/l", marker="/m", marker_before=None, boot_id="b", created_at=NOW + began, **given,
    )  # fmt: skip


def gpus(count: int, slots: int, *own: Run, others: tuple[Tenant, ...] = ()) -> list[GpuSlots]:
    return [
        GpuSlots(index, f"index-{index}", slots, tuple(one for one in own if index in one.gpus), others)
        for index in range(count)
    ]


def expected(queue: list[Task], slots: list[GpuSlots], *running: Run, typical: Typical = TEN,
             limits: tuple[tuple[str, int], ...] = ()) -> Forecast:  # fmt: skip
    return forecast(Plan(queue, running, slots, limits), typical, NOW)


def after(found: Forecast) -> dict[int, float]:
    """In how many seconds each task starts."""
    return {number: at - NOW for number, at in found.starts.items()}


# ---------------------------------------------------------------- how long


def test_the_duration_is_the_median() -> None:
    assert Typical([("a", 5.0), ("b", 1000.0), ("c", 7.0)], []).seconds("d") == 7.0
    assert Typical([("a", 4.0), ("b", 6.0)], []).seconds("d") == 5.0
    assert Typical([], []).seconds("d") is None


def test_siblings_are_asked_first_and_otherwise_all() -> None:
    typical = Typical([("big_1", 100.0), ("big_2", 200.0), ("small", 3.0), ("tiny", 1.0)], ["big_*", "none_*", "*_l"])
    assert typical.seconds("big_9") == 150.0
    assert typical.seconds("other") == 2.0, "those to which no glob applies are siblings, too"
    assert typical.seconds("none_1") == 51.5, "of all: nothing like it has completed"
    assert typical.seconds("big_3_l") == 51.5


def test_what_has_taken_longer_is_compared_with_what_took_longer() -> None:
    typical = Typical([("a", 10.0), ("b", 20.0), ("c", 60.0), ("d", 80.0)], [])
    assert typical.seconds("x", elapsed=10.0) == 40.0
    assert typical.seconds("x", elapsed=45.0) == 70.0
    assert typical.seconds("x", elapsed=90.0) is None, "nobody knows"


# ---------------------------------------------------------------- what runs


def test_a_run_ends_when_its_duration_is_over_or_its_time_limit() -> None:
    early, late, limited = run(1, -4), run(2, -11), run(3, -1, deadline=NOW + 3)
    found = expected([], gpus(1, 3, early, late, limited), early, late, limited)
    assert found.ends == {1: NOW + 6, 3: NOW + 3}
    assert found.batch_ends == NOW + 6


def test_without_anything_that_completed_nothing_is_known() -> None:
    one = run(1, -4)
    assert expected([task(2)], gpus(1, 1, one), one, typical=Typical([], [])) == Forecast()


def test_where_nothing_is_to_be_done_there_is_no_end() -> None:
    assert expected([], gpus(1, 1)) == Forecast()


# ---------------------------------------------------------------- the queue


def test_the_queue_takes_the_slots_in_its_order() -> None:
    one = run(1, -4)
    found = expected([task(number) for number in range(2, 8)], gpus(1, 2, one), one)
    assert after(found) == {2: 0.0, 3: 6.0, 4: 10.0, 5: 16.0, 6: 20.0, 7: 26.0}
    assert found.batch_ends == NOW + 36


def test_slots_that_others_hold_are_not_ours_and_their_limit_counts() -> None:
    tenant = Tenant("bob", "/b", "y", 2, NOW)
    found = expected([task(1), task(2)], gpus(1, 4, others=(tenant,)))
    assert after(found) == {1: 0.0, 2: 10.0}
    full = expected([task(1)], gpus(1, 1, others=(tenant,)))
    assert full == Forecast(), "when they leave is not known"


def test_no_gpu_means_no_estimate() -> None:
    assert expected([task(1)], []) == Forecast()
    assert after(expected([task(1, gpus=0), task(2, gpus=0)], [])) == {1: 0.0, 2: 0.0}


def test_a_task_for_several_gpus_waits_for_all_of_them() -> None:
    one = run(1, -4, gpus=(0,))
    found = expected([task(2, gpus=2), task(3)], gpus(2, 1, one), one)
    assert after(found) == {2: 6.0, 3: 16.0}
    assert 4 not in expected([task(4, gpus=3)], gpus(2, 1)).starts


@pytest.mark.parametrize("alone", [{"exclusive": True}, {"need": ALONE}])
def test_a_task_that_wants_a_gpu_for_itself_waits_until_one_is_empty(alone: dict[str, Any]) -> None:
    one, two = run(1, -4), run(2, -1)
    found = expected([task(3, **alone), task(4)], gpus(1, 2, one, two), one, two)
    assert after(found) == {3: 9.0, 4: 19.0}


def test_an_exclusive_run_holds_every_slot_of_its_gpu() -> None:
    one = run(1, -4, exclusive=True)
    assert after(expected([task(2), task(3)], gpus(1, 2, one), one)) == {2: 6.0, 3: 6.0}


def test_a_pinned_task_waits_for_its_gpu() -> None:
    one = run(1, -4, gpus=(1,))
    found = expected([task(2, pinned=(1,)), task(3)], gpus(2, 1, one), one)
    assert after(found) == {2: 6.0, 3: 0.0}
    gone = expected([task(2, pinned=(7,)), task(3)], gpus(1, 1))
    assert after(gone) == {3: 0.0} and gone.batch_ends is None, "of the whole batch nothing can be said"


def test_a_retry_waits_for_its_time_and_others_pass_it() -> None:
    found = expected([task(1, not_before=NOW + 25), task(2), task(3), task(4)], gpus(1, 1))
    assert after(found) == {2: 0.0, 3: 10.0, 4: 20.0, 1: 30.0}
    alone = expected([task(1, not_before=NOW + 25)], gpus(1, 1))
    assert after(alone) == {1: 25.0}


def test_a_held_task_starts_at_its_time_or_nobody_knows_when() -> None:
    later, forever = Hold("ann", NOW, NOW + 25), Hold("ann", NOW)
    found = expected([task(1, hold=later), task(2), task(3), task(4)], gpus(1, 1))
    assert after(found) == {2: 0.0, 3: 10.0, 4: 20.0, 1: 30.0}
    alone = expected([task(1, hold=later, not_before=NOW + 20)], gpus(1, 1))
    assert after(alone) == {1: 25.0} and alone.batch_ends == NOW + 35
    found = expected([task(1, "a", hold=forever), task(2, "b", after=("a",)), task(3)], gpus(1, 1))
    assert set(found.starts) == {3} and found.batch_ends is None


def test_what_comes_after_others_starts_when_all_of_them_have_ended() -> None:
    queue = [task(1, "report", after=("train_*",)), task(2, "train_a"), task(3, "train_b"), task(4, "free"),
             task(5, "mail", after=("report",))]  # fmt: skip
    one = run(9, -2, gpus=(1,), name="train_c")
    found = expected(queue, gpus(2, 1, one), one)
    assert after(found) == {2: 0.0, 3: 8.0, 4: 10.0, 1: 18.0, 5: 28.0}


def test_of_those_that_come_after_something_that_never_starts_nothing_is_known() -> None:
    found = expected([task(1, "a", gpus=9), task(2, "b", after=("a",)), task(3)], gpus(1, 1))
    assert set(found.starts) == {3} and found.batch_ends is None


def test_no_more_of_a_glob_run_at_once_than_allowed_and_others_use_the_slots() -> None:
    queue = [*(task(number, f"web_{number}") for number in range(3)), *(task(number) for number in range(3, 6))]
    found = expected(queue, gpus(1, 2), limits=(("web_*", 1),))
    assert after(found) == {0: 0.0, 1: 10.0, 2: 20.0, 3: 0.0, 4: 10.0, 5: 20.0}


def test_each_task_takes_as_long_as_its_siblings() -> None:
    typical = Typical([("big_0", 100.0), ("small", 1.0)], ["big_*"])
    found = expected([task(1, "big_1"), task(2), task(3)], gpus(1, 1), typical=typical)
    assert after(found) == {1: 0.0, 2: 100.0, 3: 101.0}


@given(
    st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.booleans()), max_size=30), st.integers(1, 3),
    st.integers(1, 3),
)  # fmt: skip
def test_no_slot_is_ever_taken_twice(wishes: list[tuple[int, bool, bool]], count: int, slots: int) -> None:
    queue = [
        task(number, gpus=wide, exclusive=alone, not_before=NOW + 3 if late else None)
        for number, (wide, alone, late) in enumerate(wishes)
    ]
    found = expected(queue, gpus(count, slots))
    assert set(found.starts) == {number for number, (wide, *_) in enumerate(wishes) if wide <= count}
    for at in set(found.starts.values()):
        there = [one for one in queue if one.id in found.starts and found.starts[one.id] <= at < found.ends[one.id]]
        assert sum(one.spec.gpus * (slots if one.spec.exclusive else 1) for one in there) <= count * slots


def test_a_queue_of_ten_thousand_costs_little() -> None:
    queue, slots = [task(number) for number in range(10_000)], gpus(8, 4)
    expected(queue[:9], slots)
    took = []
    for _ in range(3):
        began = time.process_time()
        found = expected(queue, slots)
        took.append(time.process_time() - began)
    assert len(found.starts) == 10_000
    assert min(took) < 0.1


def test_ten_thousand_tasks_that_come_after_each_other_cost_little() -> None:
    chain = [task(number, f"t{number}", after=(f"t{number - 1}",) if number else ()) for number in range(10_000)]
    began = time.process_time()
    assert len(expected(chain[::-1], gpus(1, 1)).starts) == 10_000
    globs = [task(number, f"t{number}", after=(f"x{number}*",)) for number in range(10_000)]
    assert expected(globs, gpus(1, 1)) == Forecast(), "too many globs to be followed"
    assert time.process_time() - began < 2.0


# ---------------------------------------------------------------- how it is said


def test_an_instant_is_said_with_its_day_if_that_is_another() -> None:
    noon = time.mktime((2026, 3, 4, 12, 0, 0, 0, 0, -1))
    assert clock_time(noon + 3600, noon) == "13:00"
    assert clock_time(noon + 86400, noon).endswith(" 12:00") and not clock_time(noon + 86400, noon).startswith("2026")
    assert clock_time(noon + 30 * 86400, noon).startswith("2026-04-03 ")
