"""The summary of the storms of kills."""

from __future__ import annotations

from tests.faults import tally
from tests.faults.steps import SCHEDULER, TOKENS


def test_the_chance_to_miss_a_window_falls_with_the_number_of_faults() -> None:
    lines = list(tally.lines([("scheduler", next(iter(SCHEDULER)))] * 300 + [("tmux", "random instant")]))
    assert lines[0].startswith("faults: 301 hit")
    assert "    1 kills of the tmux server" in lines[2] and lines[2].endswith(": 0.99")
    assert "  300 kills of the scheduler at named steps" in lines[1] and lines[1].endswith(": 0.049")
    assert f"1 of {len(SCHEDULER)} hit; not: " in lines[3]
    assert f"0 of {len(TOKENS)} hit" in lines[4]


def test_it_says_when_every_step_was_hit() -> None:
    faults = [("scheduler", step) for step in SCHEDULER] * 2 + [("wrapper", step) for step in TOKENS]
    *_, scheduler, tokens = tally.lines(faults)
    assert scheduler.endswith(f"{len(SCHEDULER)} of {len(SCHEDULER)} hit, at least 2 times each")
    assert tokens.endswith("at least 1 times each")
