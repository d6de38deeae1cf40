"""Which node a job that waits will get, as far as anybody can say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinksched.server.projection import Projection, Work, project

TIMES = st.floats(-100, 1e6)


def test_a_job_gets_the_node_with_the_least_work_ahead_and_of_equals_the_lowest() -> None:
    running = [Work("r0", 100, (0,)), Work("r1", 10, (1,))]
    found = project([0, 1, 2], running, [Work("a", 50), Work("b", 20), Work("c", 5), Work("d", 1)])
    assert found.places == {"a": (2, 0), "b": (1, 1), "c": (1, 2), "d": (1, 3)}
    assert found.lengths == {0: 0, 1: 3, 2: 1} and found.times == {0: 100, 1: 36, 2: 50}
    assert project([1, 0], [], [Work("a", 1)]).places == {"a": (0, 0)}


def test_one_that_takes_longer_than_it_should_counts_nothing() -> None:
    assert project([0], [Work("r", -50, (0,))], []).times == {0: 0}


def test_without_nodes_nobody_gets_any() -> None:
    assert project([], [Work("r", 5, (0,))], [Work("a", 1)]) == Projection()


def test_work_on_a_node_that_is_not_there_is_left_out() -> None:
    assert project([0], [Work("r", 5, (0, 7))], []).times == {0: 5}


@given(st.lists(st.integers(0, 7), min_size=1, unique=True), st.lists(TIMES, max_size=8), st.lists(TIMES, max_size=20))
def test_no_work_is_lost_and_places_are_in_order(nodes: list[int], busy: list[float], waiting: list[float]) -> None:
    running = [Work(f"r{n}", left, (node,)) for n, (node, left) in enumerate(zip(nodes, busy, strict=False))]
    found = project(nodes, running, [Work(str(n), left) for n, left in enumerate(waiting)])
    assert [found.places[str(n)][1] for n in range(len(waiting))] == list(range(len(waiting)))
    assert sum(found.lengths.values()) == len(waiting) and set(found.times) == set(nodes)
    total = sum(max(0.0, one.left) for one in running) + sum(max(0.0, left) for left in waiting)
    assert abs(sum(found.times.values()) - total) <= 1e-6 * max(1.0, total)
