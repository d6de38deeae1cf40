"""Tasks that come after others, at the size of real queues: what is kept up to date is what a fresh look would say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinksched.core.model import Hold, Outcome, ReasonCode, Task, TaskSpec, TaskState
from tinksched.core.relations import Fate, Relations, find_cycle, named_by, waits

NOW = 1_700_000_000.0
QUEUED = Fate(TaskState.QUEUED, None)
COMPLETED = Fate(TaskState.DONE, Outcome.COMPLETED)
FAILED = Fate(TaskState.DONE, Outcome.FAILED)
NAMES = ("a", "b", "ab", "exp1", "exp2", "x[1]")
fates = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([QUEUED, COMPLETED, FAILED]))
globs = st.lists(st.sampled_from([*NAMES, "*", "exp*", "?", "[ab]*"]), min_size=1, max_size=3).map(tuple)
changes = st.lists(st.tuples(st.sampled_from([*NAMES, "new"]), st.sampled_from([QUEUED, COMPLETED, FAILED])))
relaxed = settings(deadline=None)


def task(name: str, after: tuple[str, ...], number: int = 1) -> Task:
    spec = TaskSpec((), "/", "", "", after=after)
    return Task(number, name, f"{name}.yml", spec, TaskState.QUEUED, 0, number, NOW, NOW)


def said(relations: Relations, one: Task) -> tuple[object, object]:
    found = waits([one], relations, NOW)
    return found.waiting.get(one.id), found.hopeless.get(one.id)


@relaxed
@given(fates, globs, changes)
def test_what_is_kept_up_to_date_says_what_a_fresh_look_says(
    before: Mapping[str, Fate], after: tuple[str, ...], later: list[tuple[str, Fate]]
) -> None:
    one, kept, truth = task("a", after), Relations(before), dict(before)
    said(kept, one)
    for name, fate in later:
        kept.put(name, fate)
        truth[name] = fate
        now, fresh = said(kept, one), said(Relations(truth), one)
        assert (now[0] is None, now[1] is None) == (fresh[0] is None, fresh[1] is None)
        left = [name for name in named_by(after, truth) if name != "a" and truth[name] != COMPLETED]
        assert (now == (None, None)) == (not left)


def test_the_reason_names_three_and_counts_the_rest() -> None:
    waiting, _ = said(Relations(dict.fromkeys(["t1", "t2", "t3", "t4", "t5"], QUEUED)), task("last", ("t*",)))
    assert waiting is not None and "t1, t2, t3 and 2 more" in waiting.text  # type: ignore[attr-defined]


def test_a_glob_that_matches_the_task_itself_does_not_mean_it() -> None:
    assert said(Relations({"last": QUEUED, "t1": COMPLETED}), task("last", ("*",))) == (None, None)


def test_a_task_behind_a_failed_one_is_hopeless_until_that_is_tried_again() -> None:
    relations, one = Relations({"t1": FAILED}), task("last", ("t1",))
    assert said(relations, one)[1] is not None
    relations.put("t1", QUEUED)
    assert said(relations, one)[1] is None and said(relations, one)[0] is not None


@pytest.mark.parametrize(
    ("after", "cycle"),
    [
        ({"a": ("b",), "b": ("a",)}, ["a", "b", "a"]),
        ({"a": ("a",)}, None),  # it does not mean itself
        ({"a": ("*",), "b": ("a",)}, ["a", "b", "a"]),
        ({"a": ("b",), "b": ("c",), "c": ("ab",)}, None),
        ({"a": ("b",), "b": ("c",), "c": ("a",)}, ["a", "b", "c", "a"]),
        ({"a": ("gone",)}, None),
    ],
)
def test_cycles(after: Mapping[str, tuple[str, ...]], cycle: list[str] | None) -> None:
    assert find_cycle(after, ["a", "b", "c", "ab"]) == cycle


def test_ten_thousand_tasks_after_ten_thousand_others_are_looked_at_once() -> None:
    """With a look at each pair this would take minutes, and the test's time limit would end it."""
    first = [f"train{number}" for number in range(10_000)]
    later = [task(f"eval{number}", ("train*",), number) for number in range(10_000)]
    relations = Relations(dict.fromkeys([*first, *(one.name for one in later)], QUEUED))
    assert find_cycle({one.name: one.spec.after for one in later}, [*first, *(one.name for one in later)]) is None
    for name in first:
        relations.put(name, COMPLETED)
    assert not waits(later, relations, NOW).waiting


def test_a_held_task_waits_until_it_is_let_go_or_until_its_time() -> None:
    held = replace(task("a", ()), hold=Hold("ann", NOW - 60))
    found = waits([held], Relations(), NOW)
    assert found.wake_at is None and found.waiting[1].code is ReasonCode.HELD
    assert found.waiting[1].text.startswith("held by ann since ")
    later = replace(held, hold=Hold("ann", NOW - 60, NOW + 30))
    found = waits([later], Relations(), NOW)
    assert found.wake_at == NOW + 30 and found.waiting[1].code is ReasonCode.HELD_UNTIL
    assert not waits([later], Relations(), NOW + 30).waiting


def test_a_held_task_that_can_never_start_is_given_up_all_the_same() -> None:
    held = replace(task("a", ("b",)), hold=Hold("ann", NOW))
    assert waits([held], Relations({"b": FAILED}), NOW).hopeless
    assert waits([held], Relations({"b": QUEUED}), NOW).waiting[1].code is ReasonCode.HELD
    freed = replace(held, hold=Hold("ann", NOW - 9, NOW - 1))
    assert waits([freed], Relations({"b": QUEUED}), NOW).waiting[1].code is ReasonCode.WAITS_FOR
