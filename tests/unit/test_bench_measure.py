"""The benchmarks' arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.measure import handovers, makespan, percentile, spread


def test_a_start_takes_the_slot_that_has_been_free_for_longest() -> None:
    spans = [(0.0, 3.0), (0.0, 1.0), (1.5, 4.0), (3.25, 5.0), (4.5, 6.0)]
    assert handovers(spans, 2) == [0.5, 0.25, 0.5]


def test_tasks_that_all_find_a_free_slot_hand_nothing_over() -> None:
    assert handovers([(0.0, 1.0), (0.1, 1.1)], 2) == []
    assert handovers([], 4) == []


def test_the_order_in_which_the_lines_were_written_does_not_matter() -> None:
    spans = [(0.0, 1.0), (2.0, 3.0), (1.25, 2.25)]
    assert handovers(spans, 1) == handovers(spans[::-1], 1) == [0.25, -0.25]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 4))
def test_slots_that_are_filled_at_once_have_hand_overs_of_nothing(lengths: list[float], slots: int) -> None:
    free = [0.0] * slots
    spans = []
    for length in lengths:
        start = min(free)
        free[free.index(start)] = start + length
        spans.append((start, start + length))
    assert handovers(spans, slots) == [0.0] * max(0, len(lengths) - slots)


def test_a_makespan_goes_from_the_first_start_to_the_last_end() -> None:
    assert makespan([(2.0, 3.0), (1.0, 6.0), (4.0, 5.0)]) == 5.0


def test_a_percentile_lies_between_its_neighbours() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([0.0, 10.0], 0.05) == 0.5
    assert percentile([7.0], 0.95) == 7.0


def test_a_spread_is_that_of_all_samples_and_of_the_medians_of_the_rounds() -> None:
    found = spread([[1.0, 2.0, 9.0], [], [4.0]])
    assert (found.median, found.lowest_round, found.highest_round, found.count) == (3.0, 2.0, 4.0, 4)
    assert found.low < found.median < found.high
    with pytest.raises(ValueError, match="no samples"):
        spread([[], []])
