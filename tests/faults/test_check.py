"""The check of a storm can fail: schedulers with a defect are found out."""

from __future__ import annotations

import random

import pytest

from tests.faults.check import violations
from tests.faults.storm import Storm, Weather
from tests.support import Lab

_LONG = {"instant": 1}

MUTANTS = {
    "launches_before_it_persists": (
        Weather(executor="local", deaths={"step": 1}, steps=("a tick: ends and starts written, not committed",)),
        ("is not on record", "overlap"),
    ),
    "forgets_what_was_being_launched": (
        Weather(deaths={"step": 1}, steps=("after launch, before record",)),
        ("is not on record", "overlap"),
    ),
    "takes_unknown_for_dead": (
        # In tmux the kernel hangs up whoever outlives the wrapper, so there it would hardly ever show.
        Weather("local", retries=2, longest=1.0, deaths=_LONG, strikes=6, others={"token": 1}, tokens=("began.both",)),
        ("overlap", "over: "),
    ),
    "ignores_leases": (Weather(workspaces=2, deaths=_LONG), ("over: ",)),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_defect_is_found(lab: Lab, mutant: str) -> None:
    weather, signs = MUTANTS[mutant]
    weather.mutants = (mutant,)
    storm = Storm(lab, weather, f"{random.random()}")
    try:
        for faults in range(5, 100, 5):
            storm.rage(faults)
            wrong = violations(lab, storm.field, storm.benches, weather.retries)
            if any(line.startswith(signs) or line.endswith(signs) for line in wrong):
                return
            assert not storm.refused or "lost runs" in storm.log(0), storm.log(0)
            if storm.refused:
                return  # the next scheduler saw it even before the check
        pytest.fail("no storm showed it")
    finally:
        storm.close()
