"""What tasks need of GPU memory: learned from siblings, and from a run that had too little."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tinksched.config import Settings, load
from tinksched.core.gpu import GpuState
from tinksched.core.model import ALONE, GpuSlots, Task, TaskSpec, TaskState
from tinksched.core.placement import Policy, decide
from tinksched.core.sharing import demand_of, kind_of
from tinksched.scheduler.needs import Needs

GIB = 2**30


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "scheduler_config.yml").write_text(
        "task_name: T\nmin_free_memory: auto\n"
        "tasks:\n  'big_*': {min_free_memory: auto}\n  'big_b*': {priority: 3}\n  'small_*': {min_free_memory: 1GiB}\n"
    )
    return load(tmp_path)


def task(name: str, memory: object = "auto", need: int | None = None) -> Task:
    spec = TaskSpec(("x",), "/", "/m", "/o", min_free_memory=memory)  # type: ignore[arg-type]
    return replace(Task(1, name, "/c", spec, TaskState.QUEUED, 0, 1, 0.0, 0.0), need=need)


def test_until_a_sibling_has_completed_nothing_is_known(settings: Settings) -> None:
    needs = Needs(settings, [])
    assert needs.of(task("big_a")) is None and needs.lesson(task("big_a")) is None


def test_the_most_that_a_sibling_had_and_a_margin_is_asked_for(settings: Settings) -> None:
    needs = Needs(settings, [("big_a", 10 * GIB), ("big_b", 20 * GIB), ("other", 70 * GIB)])
    lesson = needs.lesson(task("big_c"))
    assert lesson is not None and (lesson.need, lesson.peak, lesson.siblings) == (22 * GIB, 20 * GIB, 2)
    assert lesson.pattern == "big_*" and needs.of(task("big_c")) == 22 * GIB
    assert needs.of(task("none_of_these")) == 77 * GIB, "all tasks are siblings where the workspace says `auto`"


def test_each_completed_run_teaches(settings: Settings) -> None:
    needs = Needs(settings, [("big_a", 10 * GIB)])
    assert needs.of(task("big_c")) == 11 * GIB
    needs.completed("big_b", 30 * GIB)
    needs.completed("big_b", 1 * GIB)
    assert needs.of(task("big_c")) == 33 * GIB


def test_a_size_that_is_written_down_is_not_learned(settings: Settings) -> None:
    needs = Needs(settings, [("small_a", 10 * GIB)])
    assert needs.of(task("small_b", GIB)) is None and needs.of(task("small_b", None)) is None


def test_what_too_few_gpus_have_even_empty_is_a_gpu_for_itself(settings: Settings) -> None:
    needs = Needs(settings, [("big_a", 70 * GIB)])
    needs.usable = {0: 76 * GIB, 1: 23 * GIB}
    assert needs.of(task("big_b")) == ALONE, "77 GiB: the driver keeps some of the 80 for itself"
    needs.usable = {0: 78 * GIB, 1: 23 * GIB}
    assert needs.of(task("big_b")) == 77 * GIB
    one = task("big_b")
    assert needs.of(replace(one, spec=replace(one.spec, pinned=(1,)))) == ALONE
    assert needs.of(replace(one, spec=replace(one.spec, gpus=2))) == ALONE
    needs.usable = {0: None}
    assert needs.of(task("big_b")) == 77 * GIB, "what is not known is no reason"


def test_what_an_own_run_taught_counts_where_it_is_more(settings: Settings) -> None:
    needs = Needs(settings, [("big_a", 10 * GIB)])
    assert needs.of(task("big_a", need=40 * GIB)) == 40 * GIB
    assert needs.of(task("big_a", need=1 * GIB)) == 11 * GIB
    assert needs.of(task("big_a", need=ALONE)) == ALONE
    assert needs.of(task("small_a", None, need=5)) == 5


# ---------------------------------------------------------------- a queue of them


def gpu(index: int, free: int, slots: int) -> GpuSlots:
    """A GPU with so many GiB free; the rest is held by processes that nobody can account for."""
    state = GpuState(f"G{index}", index, 0.0, 80 * GIB, free * GIB, (80 - free) * GIB, processes=())
    return GpuSlots(index, f"G{index}", slots, state=state)


def test_ten_thousand_of_several_patterns_that_do_not_fit_are_not_gone_through(settings: Settings) -> None:
    needs, asked = Needs(settings, [("big_a", 30 * GIB), ("other", 20 * GIB)]), []

    def need_of(task: Task) -> int | None:
        asked.append(task.id)
        return needs.of(task)

    kinds = [("big_", "auto", None), ("other_", "auto", None), ("big_b", "auto", 50 * GIB), ("small_", GIB, None)]
    prefix = [kinds[number % 3] for number in range(10_000)]
    queue = [replace(task(f"{name}{id}", memory, need), id=id) for id, (name, memory, need) in enumerate(prefix)]
    gpus = [gpu(0, 5, 4), gpu(1, 10, 4)]
    demands = needs.demands(Counter(map(needs.sort_of, queue)))
    assert not decide(queue, gpus, 0.0, policy=Policy.SPREAD, need_of=need_of, demands=demands).placements
    assert len(asked) <= 8, "one for each slot that somebody may wait for, and no more"
    fits = replace(task("big_fits", "auto", None), id=10_000)
    needs.usable = {0: None, 1: None}
    queue.append(replace(fits, name="small_fits", spec=replace(fits.spec, min_free_memory=GIB)))
    demands = needs.demands(Counter(map(needs.sort_of, queue)))
    found = decide(queue, gpus, 0.0, policy=Policy.SPREAD, need_of=needs.of, demands=demands)
    assert [placed.task_id for placed in found.placements] == [10_000], "one that fits is found at their end"


names = st.sampled_from(("big_a", "big_b", "small_a", "other"))
sizes = st.sampled_from((1, 9 * GIB, 20 * GIB, 70 * GIB, 90 * GIB))
tasks = st.builds(
    lambda name, memory, need, gpus, pinned: replace(
        one := task(name, memory, need), spec=replace(one.spec, gpus=gpus, pinned=pinned)
    ),
    names, st.sampled_from(("auto", "auto", None, 10 * GIB)), st.none() | sizes | st.just(ALONE),
    st.sampled_from((0, 1, 1, 2)), st.sampled_from(((), (), (1,))),
)  # fmt: skip


@hypothesis_settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(tasks, max_size=30), st.dictionaries(names, sizes), st.lists(st.sampled_from((0, 5, 25, 80)), max_size=3)
)
def test_by_sorts_it_comes_out_as_if_each_task_had_been_tried(
    settings: Settings, queue: list[Task], peaks: dict[str, int], free: list[int]
) -> None:
    needs = Needs(settings, peaks.items())
    needs.usable = dict.fromkeys(range(len(free)), 76 * GIB)
    queue = [replace(task, id=number, name=f"{task.name}{number}") for number, task in enumerate(queue)]
    demands = needs.demands(Counter(map(needs.sort_of, queue)))
    assert demands == Counter(demand_of(kind_of(task.spec), needs.of(task)) for task in queue)
    gpus = [gpu(index, size, 3) for index, size in enumerate(free)]
    each = decide(queue, gpus, 0.0, policy=Policy.SPREAD, need_of=needs.of)
    brief = decide(queue, gpus, 0.0, policy=Policy.SPREAD, need_of=needs.of, demands=demands)
    assert brief.placements == each.placements
    assert brief.wake_at is not None if each.wake_at is not None else True
