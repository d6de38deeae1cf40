"""What tasks need of GPU memory: learned from siblings, and from a run that had too little."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tinksched.config import Settings, load
from tinksched.core.model import ALONE, Task, TaskSpec, TaskState
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
