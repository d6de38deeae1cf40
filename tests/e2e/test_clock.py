"""A clock that is set, forth and back, while tasks run: nothing ends early, nothing waits for a day."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clock_double import COMPILER, Clock
from tests.support import Bench, Lab

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler: builds a clock that can be set")

HOUR, DAY = 3600, 86400
JUMPS = pytest.mark.parametrize("jump", [-DAY, -HOUR, HOUR, DAY])


@pytest.fixture
def clock(lab: Lab, tmp_path: Path) -> Clock:
    made = Clock(tmp_path)
    lab.environment |= made.environment
    return made


def durations(bench: Bench) -> list[float]:
    return [task["ended_at"] - task["started_at"] for task in bench.tasks().values() if task["ended_at"]]


@JUMPS
def test_a_time_limit_counts_the_time_that_passes(lab: Lab, clock: Clock, jump: int) -> None:
    bench = lab.workspace(gpu_count=1, executor="local", time_limit=1800, check_interval=1)
    gate = bench.gate()
    bench.add("long.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("long")
    bench.wait_for_states(long="running")
    clock.set(jump)
    bench.add("other.yml")
    bench.run("start", "other.yml")  # the scheduler has looked since
    bench.wait_for_states(other="completed", long="running")
    bench.run("stop")
    bench.run("start")  # and so has another one
    gate.open()
    bench.wait_for_states(long="completed")
    assert all(0 <= seconds < 60 for seconds in durations(bench)), durations(bench)
    assert bench.starts() == {"long": 1, "other": 1}


@JUMPS
def test_a_time_limit_ends_a_run_whatever_the_clock_says(lab: Lab, clock: Clock, jump: int) -> None:
    bench = lab.workspace(gpu_count=1, executor="local", time_limit=3, check_interval=3600)
    bench.add("long.yml", "seconds: 1000\n")
    bench.run("start")
    bench.wait_for_starts("long")
    clock.set(jump)
    bench.wait_for_states(long="timed_out")
    assert all(2 <= seconds < 60 for seconds in durations(bench)), durations(bench)


@JUMPS
def test_no_retry_waits_for_a_clock_that_was_set_back(lab: Lab, clock: Clock, jump: int) -> None:
    bench = lab.workspace(
        gpu_count=1, executor="local", check_interval=1, auto_restart_failed=True, max_retries=1, retry_delay=5
    )
    bench.add("bad.yml", "code: 1\n")
    bench.run("start")
    bench.wait_for_states(bad="queued")
    bench.wait_until(lambda: bench.starts() == {"bad": 1}, "the first attempt")
    clock.set(jump)
    bench.wait_for_states(bad="failed")
    assert bench.starts() == {"bad": 2}
    assert all(0 <= seconds < 60 for seconds in durations(bench)), durations(bench)


@JUMPS
def test_no_start_waits_for_a_clock_that_was_set_back(lab: Lab, clock: Clock, jump: int) -> None:
    bench = lab.workspace(gpu_count=1, executor="local", check_interval=1, startup_delay=3)
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.add("b.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a")
    clock.set(jump)
    bench.wait_for_starts("b")
    gate.open()
    bench.wait_for_states(a="completed", b="completed")
    assert all(0 <= seconds < 60 for seconds in durations(bench)), durations(bench)
