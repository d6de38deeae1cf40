"""What storms found, each once more on its own."""

from __future__ import annotations

import pytest

from tests.faults.check import left_over
from tests.faults.storm import Storm, Weather
from tests.support import Lab


@pytest.mark.parametrize("executor", ["tmux", "local"])
def test_runs_that_never_began_leave_no_session(lab: Lab, executor: str) -> None:
    storm = Storm(lab, Weather(executor=executor), "")
    tokens = [f"unlocked.{number}.both" for number in range(3)]  # after three times, a task is given up
    for token in tokens:
        storm.field.ask_for(token)
    try:
        storm.calm(keep_tokens=True)
    finally:
        storm.close()
    assert [hit.step for hit in storm.field.hits()] == tokens
    assert not list(left_over(lab, storm.benches))
