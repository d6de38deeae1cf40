"""Storms of kills, each followed by a check of everything that was promised.

TINKSCHED_FAULTS=1000 sh tests/run.sh tests/faults -n 2   so many faults in all (default 100)
TINKSCHED_SEED=7 sh tests/run.sh tests/faults            the same choices again
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from tests.faults.check import violations
from tests.faults.storm import Storm, Weather
from tests.support import Lab

FAULTS = int(os.environ.get("TINKSCHED_FAULTS") or 100)
SEED = os.environ.get("TINKSCHED_SEED") or str(
    random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID")).randrange(10**6)
)

_LONG = {"instant": 1}
_WRAPPERS = {"token": 6, "wrapper": 2, "task": 1}

# Each storm with its part of all faults, in a hundred.
STORMS: dict[str, tuple[int, Weather]] = {
    "scheduler-steps": (38, Weather(deaths={"step": 1}, every_step=True)),
    "scheduler-lines": (8, Weather(deaths={"line": 1})),
    "scheduler-local": (8, Weather(executor="local")),
    "strangers": (10, Weather(workspaces=2)),
    "wrappers": (12, Weather(deaths=_LONG, strikes=8, others=_WRAPPERS)),
    "wrappers-retries-local": (10, Weather(executor="local", retries=2, deaths=_LONG, strikes=8, others=_WRAPPERS)),
    "everything": (
        14,
        Weather(workspaces=2, retries=2, strikes=4, others={"token": 2, "wrapper": 1, "task": 1, "tmux": 8, "all": 3}),
    ),
}


@pytest.mark.timeout(120 + 3 * FAULTS)
@pytest.mark.parametrize("name", STORMS)
def test_no_task_is_lost_and_no_gpu_is_overfilled(
    lab: Lab, name: str, record_property: Callable[[str, object], None]
) -> None:
    share, weather = STORMS[name]
    print(f"TINKSCHED_SEED={SEED} TINKSCHED_FAULTS={FAULTS}")
    storm = Storm(lab, weather, f"{SEED} {name}")
    try:
        storm.rage(max(1, FAULTS * share // 100))
        storm.calm()
    finally:
        storm.close()
    for hit in storm.field.hits():
        record_property("fault", [hit.kind, hit.step])
    record_property("seed", SEED)
    wrong = violations(lab, storm.field, storm.benches, weather.retries)
    assert not wrong, f"TINKSCHED_SEED={SEED}: {len(wrong)} violations:\n" + "\n".join(wrong[:30])
