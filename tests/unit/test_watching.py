"""What is odd about a run: where it is seen, and since when it does nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from tinksched.core import watching
from tinksched.core.gpu import GpuProcess, GpuState
from tinksched.core.model import Run, RunState
from tinksched.core.watching import SETTLING, Listing, Sight, flags_of, is_idle, is_stalled

NOW = 1_700_000_000.0
OLD = NOW - SETTLING - 1
RUN = Run(
    id="ours", task_id=1, task="exp1", attempt=1, state=RunState.RUNNING, gpus=(0, 1), devices=("GPU-a", "GPU-b"),
    executor="local", session="", directory="/r/ours", work_dir="/", log="/l", lease="/leases/GPU-a.ours", marker="/m",
    marker_before=None, boot_id="boot", created_at=OLD,
)  # fmt: skip


def states(
    *listed: tuple[GpuProcess, ...] | None, rates: tuple[int | None, ...] = (None, None, None)
) -> dict[str, GpuState]:
    names = ("GPU-a", "GPU-b", "GPU-c")
    return {
        name: GpuState(name, index, NOW, processes=processes, utilization=rate)
        for index, (name, processes, rate) in enumerate(zip(names, listed, rates, strict=True))
    }


def ours(memory: int | None, pid: int = 7) -> GpuProcess:
    return GpuProcess(pid, memory, "me", "python train.py", run="ours")


def others() -> GpuProcess:
    return GpuProcess(9, 5, "she", "python big.py")


def test_a_run_is_seen_with_all_its_processes_on_each_of_its_gpus() -> None:
    sight = Listing(states((ours(3), ours(4, pid=8), others()), (ours(2),), (), rates=(90, 50, 1))).sight_of(RUN)
    assert sight == Sight(memory=(7, 2), utilization=70.0, untouched=(), elsewhere=())
    assert flags_of(RUN, sight, NOW, None, 60.0) == []


def test_what_nvml_does_not_tell_is_unknown_and_flags_nothing() -> None:
    for sight in (Listing({}).sight_of(RUN), Listing(states(None, None, None)).sight_of(RUN)):
        assert sight == Sight(None, None, (), ()) and flags_of(RUN, sight, NOW, None, None) == []
    partly = Listing(states((ours(None),), (ours(3),), (), rates=(10, None, 0))).sight_of(RUN)
    assert partly == Sight(None, None, (), ())


def test_a_run_on_a_gpu_that_it_was_not_given_is_flagged_at_once() -> None:
    sight = Listing(states((), (), (ours(1),))).sight_of(replace(RUN, created_at=NOW))
    assert sight.elsewhere == (2,)
    assert flags_of(replace(RUN, created_at=NOW), sight, NOW, None, None) == ["it is on GPU 2, which it was not given"]


def test_a_run_that_does_not_touch_its_gpu_is_flagged_once_it_had_time_to() -> None:
    none, one = Listing(states((others(),), (), ())).sight_of(RUN), Listing(states((ours(1),), (), ())).sight_of(RUN)
    assert (none.memory, one.memory) == (None, (1, 0)), "what was never there has no peak that could teach anything"
    assert flags_of(RUN, none, NOW, None, None) == ["it does not use GPUs 0, 1"]
    assert flags_of(RUN, one, NOW, None, None) == ["it does not use GPU 1, which it was given"]
    assert flags_of(replace(RUN, created_at=NOW - 1), none, NOW, None, None) == []


def test_a_stall_is_flagged_when_it_has_lasted_long_enough_and_its_words_stay() -> None:
    sight = Sight((1, 1), 0.0, (), ())
    since = datetime.fromtimestamp(NOW - 100).strftime("%Y-%m-%d %H:%M:%S")
    for later in (0, 5000):
        (flag,) = flags_of(RUN, sight, NOW + later, NOW - 100, 100.0)
        assert flag == f"stalled since {since}: no output, and its GPU is idle" and is_stalled([flag])
    assert watching.said(flag, NOW + 7100) == "stalled for 2 h: no output, and its GPU is idle"
    assert watching.said(flag, NOW - 60) == "stalled for 40 s: no output, and its GPU is idle"
    assert watching.said("it does not use GPU 1", NOW) == "it does not use GPU 1"
    assert watching.said("stalled since 11-21 10:00: no output", NOW) == "stalled since 11-21 10:00: no output", (
        "an old record"
    )
    assert flags_of(RUN, sight, NOW, NOW - 99, 100.0) == []
    assert flags_of(RUN, sight, NOW, NOW - 9999, None) == []
    assert flags_of(RUN, sight, NOW, None, 1.0) == []


@pytest.mark.parametrize(
    ("utilization", "cpu", "idle"),
    [
        (0.0, 1.0, True),
        (5.0, None, True),
        (6.0, 0.0, False),
        (None, 0.0, True),
        (None, 0.5, False),
        (None, None, False),
    ],
)
def test_the_gpu_tells_whether_a_run_is_idle_and_where_it_does_not_the_processor(
    utilization: float | None, cpu: float | None, idle: bool
) -> None:
    assert is_idle(Sight(None, utilization, (), ()), cpu) is idle
