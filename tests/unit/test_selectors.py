"""Which tasks on record the words on a command line mean: the same for every command."""

from __future__ import annotations

import pytest

from tests.unit.test_store import add, begin, finish
from tinksched.core.model import Outcome
from tinksched.errors import NothingToActOn, UsageError
from tinksched.operations.selection import Wanted, one, select
from tinksched.store import Store

NAMES = ("exp1", "exp2", "exp10", "a b", "7", "@", "x[1]", "lr=0.1", "3-4")


@pytest.fixture
def tasks(store: Store) -> Store:
    """The tasks 1 to 9 of these names; exp2 has failed, exp10 was lost, the task named "a b" has completed."""
    known = {task.name: task for task in add(store, *NAMES)}
    for name, outcome in (("exp2", Outcome.FAILED), ("exp10", Outcome.LOST), ("a b", Outcome.COMPLETED)):
        finish(store, *begin(store, known[name]), outcome)
    return store


def chosen(store: Store, *words: str, failed: bool = False, everything: bool = False) -> list[str]:
    return select(store, Wanted(words, failed, everything))


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["exp1"], ["exp1"]),
        (["exp1.yml"], ["exp1"]),
        (["exp1.yaml", "exp1"], ["exp1"]),
        (["exp*"], ["exp1", "exp2", "exp10"]),
        (["exp?"], ["exp1", "exp2"]),
        (["[!e]*"], ["a b", "7", "@", "x[1]", "lr=0.1", "3-4"]),
        (["2"], ["exp2"]),
        (["1-3,5"], ["exp1", "exp2", "exp10", "7"]),
        (["2-2,1"], ["exp2", "exp1"]),
        (["8-999999999999999999"], ["lr=0.1", "3-4"]),
        (["@~1"], ["lr=0.1"]),
        (["@~8"], ["exp1"]),
        (["exp2", "exp*", "1"], ["exp2", "exp1", "exp10"]),
        (["lr=0.1"], ["lr=0.1"]),
    ],
    ids=" ".join,
)  # fmt: skip
def test_words(tasks: Store, words: list[str], names: list[str]) -> None:
    assert chosen(tasks, *words) == names


@pytest.mark.parametrize("name", ["7", "@", "x[1]", "3-4"])
def test_a_name_wins_over_what_else_it_may_mean(tasks: Store, name: str) -> None:
    assert chosen(tasks, name) == [name]
    assert one(tasks, name) == name


def test_the_newest_is_the_task_that_was_queued_last_whatever_became_of_it(store: Store) -> None:
    b = add(store, "a", "b")[1]
    finish(store, *begin(store, b))
    assert chosen(store, "@") == ["b"]
    assert chosen(store, "@~0", "@~1") == ["b", "a"]


def test_those_that_failed_and_all(tasks: Store) -> None:
    assert chosen(tasks, failed=True) == ["exp2", "exp10"]
    assert chosen(tasks, "exp1", failed=True) == ["exp1", "exp2", "exp10"]
    assert chosen(tasks, everything=True) == list(NAMES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["epx1"], "there is no task 'epx1'; nothing was done"),
        (["exp1", "nope"], "there is no task 'nope'; nothing was done"),
        (["zzz*"], "no task matches 'zzz*'; nothing was done"),
        (["99"], "no task has the number 99; nothing was done"),
        (["6-5"], "no task has the number 6-5; nothing was done"),
        (["@~9"], "@~9 means no task: 9 are on record; nothing was done"),
        (["no", "none"], "there is no task 'no' (nor 'none'); nothing was done"),
        (["1,"], "there is no task '1,'; nothing was done"),
        (["-1"], "there is no task '-1'; nothing was done"),
        ([""], "there is no task ''; nothing was done"),
        (["exp\udc801"], "there is no task"),
    ],
)
def test_a_word_that_means_nothing(tasks: Store, words: list[str], said: str) -> None:
    with pytest.raises(NothingToActOn) as caught:
        chosen(tasks, *words)
    assert said in caught.value.message
    assert caught.value.exit_code == 3


def test_near_names_are_named(tasks: Store) -> None:
    with pytest.raises(NothingToActOn) as caught:
        chosen(tasks, "epx1")
    assert caught.value.hint is not None and caught.value.hint.startswith("did you mean exp1")
    with pytest.raises(NothingToActOn) as caught:
        chosen(tasks, "exq1*")
    assert caught.value.hint is not None and "exp1" in caught.value.hint


def test_nothing_has_failed(store: Store) -> None:
    add(store, "a")
    with pytest.raises(NothingToActOn, match="no task has failed"):
        chosen(store, failed=True)
    assert chosen(store, "a", failed=True) == ["a"]


def test_where_one_is_wanted_several_are_named(tasks: Store) -> None:
    with pytest.raises(UsageError) as caught:
        one(tasks, "exp*")
    assert "'exp*' means 3 tasks" in caught.value.message and "exp1, exp2, exp10" in caught.value.message
    assert one(tasks, "exp10*") == "exp10" and one(tasks, "4") == "a b"


def test_a_plain_name_among_very_many_tasks_asks_for_no_list(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, "a", "b")
    monkeypatch.setattr(store, "roster", lambda: pytest.fail("all tasks were read"))
    assert chosen(store, "b", "a.yml") == ["b", "a"]
