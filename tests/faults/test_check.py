"""The check of a storm can fail: schedulers with a defect are found out."""

from __future__ import annotations

import random

import pytest

from tests.faults.check import violations
from tests.faults.storm import Storm, Weather
from tests.support import Lab

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
        Weather(retries=2, strikes=3, others={"token": 1}, tokens=("began.both", "began.inner")),
        ("overlap", "over: "),
    ),
    "ignores_leases": (Weather(workspaces=2, deaths={"instant": 1}), ("over: ",)),
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
            if any(sign in line for line in wrong for sign in signs):
                return
        pytest.fail("no storm showed it")
    finally:
        storm.close()
