"""GPUs shared by what NVML saw on them: each rule as an example, and the traps that are known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tinksched.core.gpu import GpuProcess, GpuState
from tinksched.core.linking import best_set
from tinksched.core.model import (
    CPU,
    GpuSlots,
    Reason,
    ReasonCode,
    Reserved,
    Run,
    RunRecord,
    RunState,
    Task,
    TaskSpec,
    TaskState,
    Tenant,
)
from tinksched.core.placement import LOOK_AGAIN_SECONDS, Decision, Policy, can_ever_start, decide
from tinksched.core.sharing import Demand, Terms, desks_of, kind_of

NOW = 1_700_000_000.0
GIB = 2**30


def task(number: int, memory: int | str | None = None, *, gpus: int = 1, **more: object) -> Task:
    """The task `t{number}`; its memory is in GiB."""
    need = memory * GIB if isinstance(memory, int) else memory
    spec = replace(TaskSpec((), "/", "", "", gpus=gpus), min_free_memory=need, **more)  # type: ignore[arg-type]
    return Task(number, f"t{number}", "", spec, TaskState.QUEUED, 0, number, NOW, NOW)


def run(name: str, memory: int = 0, *, age: float = 0, deadline: float | None = None, gpu: int = 0) -> Run:
    """A run of this workspace that reserved so many GiB when it started."""
    return Run(
        id=f"run-{name}", task_id=0, task=name, attempt=1, state=RunState.RUNNING, gpus=(gpu,), devices=(f"G{gpu}",),
        executor="local", session="", directory="/", work_dir="/", log=None, lease="/l", marker="/m",
        marker_before=None, boot_id="b", created_at=NOW - age, record=RunRecord(memory=memory * GIB),
        deadline=None if deadline is None else NOW + deadline,
    )  # fmt: skip


def tenant(memory: int, *, age: float = 0, warmup: float = 60, name: str = "theirs") -> Tenant:
    return Tenant("bob", "/home/bob/ws", name, 9, NOW - age, f"run-{name}", memory * GIB, warmup)


def process(memory: int | None = 1, *, run: str = "", user: str | None = "alice", command: str | None = "python big.py",
            compute: bool = True) -> GpuProcess:  # fmt: skip
    return GpuProcess(4242, None if memory is None else memory * GIB, user, command, compute, run)


def gpu(
    index: int = 0, free: int | None = 80, *processes: GpuProcess, slots: int = 4, own: tuple[Run, ...] = (),
    others: tuple[Tenant, ...] = (), listed: bool = True, age: float = 0, **more: object,
) -> GpuSlots:  # fmt: skip
    """A GPU of 80 GiB as NVML saw it `age` seconds ago."""
    state = GpuState(f"G{index}", index, NOW - age, 80 * GIB, None if free is None else free * GIB)
    state = replace(state, processes=processes if listed else None, **more)  # type: ignore[arg-type]
    return GpuSlots(index, f"G{index}", slots, own, others, state=state)


def look(queue: list[Task], *gpus: GpuSlots, terms: Terms | None = None, **more: object) -> Decision:
    return decide(queue, gpus, NOW, policy=Policy.SPREAD, terms=terms or Terms(), **more)  # type: ignore[arg-type]


def placed(queue: list[Task], *gpus: GpuSlots, terms: Terms | None = None, **more: object) -> list[tuple[int, ...]]:
    return [(one.task_id, *one.gpus) for one in look(queue, *gpus, terms=terms, **more).placements]


def why(queue: list[Task], *gpus: GpuSlots, terms: Terms | None = None, **more: object) -> Reason:
    """Why the last one waits."""
    return look(queue, *gpus, terms=terms, **more).waiting[queue[-1].id]


# ---------------------------------------------------------------- free memory


@pytest.mark.parametrize(("free", "starts"), [(19, False), (20, True), (None, False)])
def test_a_task_starts_where_what_it_needs_is_free(free: int | None, starts: bool) -> None:
    assert bool(placed([task(1, 20)], gpu(0, free))) is starts


def test_a_task_that_needs_no_memory_minds_none() -> None:
    assert placed([task(1)], gpu(0, 0)) == [(1, 0)]
    assert placed([task(1)], gpu(0, None)) == [(1, 0)]
    assert placed([task(1, 0)], gpu(0, None)) == [(1, 0)], "0 is none"


def test_what_is_not_known_is_said_and_never_compared() -> None:
    reason = why([task(1, 20)], gpu(0, None), GpuSlots(1, "G1", 4))
    assert reason.text == "needs 20 GiB free, and how much of GPU 0, 1 is free is not known"


def test_two_that_start_before_either_has_allocated_are_counted_both() -> None:
    """The trap: both would see the same free memory."""
    decision = look([task(1, 50), task(2, 50), task(3, 30)], gpu(0, 80))
    assert [one.task_id for one in decision.placements] == [1]
    assert decision.placements[0].memory == 50 * GIB
    assert decision.waiting[2].text == (
        "needs 50 GiB free; GPU 0 has: 80 GiB free, of which 50 GiB are reserved for t1 (starts now)"
    )


def test_a_young_run_reserves_what_it_has_not_yet_allocated() -> None:
    young = run("exp3", 50, age=20)
    fresh = gpu(0, 80, own=(young,))
    assert placed([task(1, 31)], fresh) == [] and placed([task(1, 30)], fresh) == [(1, 0)]
    half = gpu(0, 60, process(20, run="run-exp3"), own=(young,))
    assert placed([task(1, 31)], half) == [] and placed([task(1, 30)], half) == [(1, 0)]
    whole = gpu(0, 25, process(55, run="run-exp3"), own=(young,))
    assert placed([task(1, 25)], whole) == [(1, 0)], "it took more than it reserved: nothing is left to reserve"


def test_a_run_of_somebody_else_reserves_as_well_by_its_own_warm_up() -> None:
    assert placed([task(1, 40)], gpu(0, 80, others=(tenant(50, age=70, warmup=90),))) == []
    assert placed([task(1, 40)], gpu(0, 80, others=(tenant(50, age=70, warmup=60),))) == [(1, 0)]


def test_after_the_warm_up_nothing_is_reserved() -> None:
    assert placed([task(1, 40)], gpu(0, 80, own=(run("a", 50, age=59),))) == []
    assert placed([task(1, 40)], gpu(0, 80, own=(run("a", 50, age=60),))) == [(1, 0)]
    assert placed([task(1, 40)], gpu(0, 80, own=(run("a", 50, age=20),)), terms=Terms(warmup=15)) == [(1, 0)]


def test_what_nvml_could_not_have_seen_yet_stays_reserved() -> None:
    """The look is older than the end of the warm-up: what was allocated in between is not in it."""
    assert placed([task(1, 40)], gpu(0, 80, own=(run("a", 50, age=61),), age=5)) == []


def test_a_clock_that_was_set_back_reserves_nothing_for_ever() -> None:
    assert placed([task(1, 40)], gpu(0, 80, own=(run("a", 50, age=-86400),))) == [(1, 0)]


def test_where_processes_can_not_be_listed_a_young_run_reserves_all() -> None:
    assert placed([task(1, 40)], gpu(0, 60, own=(run("a", 50, age=5),), listed=False)) == []
    unknown = gpu(0, 60, process(None, run="run-a"), own=(run("a", 50, age=5),))
    assert placed([task(1, 40)], unknown) == []


def test_auto_asks_for_nothing_until_something_is_known() -> None:
    assert placed([task(1, "auto")], gpu(0, 0)) == [(1, 0)]
    assert placed([task(1, "auto")], gpu(0, 10), need_of=lambda _: 20 * GIB) == []
    assert placed([task(1, "auto")], gpu(0, 10), need_of=lambda _: None) == [(1, 0)]


def test_of_what_the_spec_says_and_what_is_known_the_larger_counts() -> None:
    assert placed([task(1, 10)], gpu(0, 15), need_of=lambda _: 20 * GIB) == []
    assert placed([task(1, 20)], gpu(0, 15), need_of=lambda _: 10 * GIB) == []
    assert placed([task(1)], gpu(0, 15), need_of=lambda _: 20 * GIB) == []


def test_more_than_any_gpu_has_is_said_and_holds_nothing() -> None:
    queue = [task(1, 100), task(2, 10)]
    assert placed(queue, gpu(0), gpu(1)) == [(2, 0)]
    assert why(queue[:1], gpu(0)).text == "needs 100 GiB free; of the GPUs here none has so much memory"
    mixed = [gpu(0), gpu(1, memory_total=200 * GIB)]
    assert why([task(1, 100, gpus=2)], *mixed).text == (
        "needs 100 GiB free on each of 2 GPUs; of the GPUs here 1 has so much memory"
    )


def test_the_reason_names_the_gpu_with_most_and_for_whom_it_is_reserved() -> None:
    first = gpu(0, 5, process(75, run="run-a"), own=(run("a"),))
    exp3 = run("exp3", 8, age=20, gpu=1)
    second = gpu(1, 14, process(66, run="run-b"), own=(exp3, run("b", gpu=1)))
    assert why([task(1, 20)], first, second).text == (
        "needs 20 GiB free; GPU 1 has most: 14 GiB free, of which 8 GiB are reserved for exp3 (started 20 s ago)"
    )
    assert why([task(1, 20, gpus=2)], first, gpu(1, 40)).text == (
        "needs 20 GiB free on each of 2 GPUs; 1 has that, and GPU 0 has: 5 GiB free"
    )


def test_memory_that_no_run_of_ours_will_give_back_is_called_so() -> None:
    assert why([task(1, 20)], gpu(0, 5, own=(run("a"),)), gpu(1, 4)).text == (
        "needs 20 GiB free; GPU 0 has most: 5 GiB free; others than tinksched hold the rest"
    )


def test_full_slots_are_said_before_memory() -> None:
    assert why([task(1, 20)], gpu(0, 0, slots=1, own=(run("a"),))).code is ReasonCode.GPUS_FULL


# ---------------------------------------------------------------- waiting for memory


def test_for_what_no_event_reports_the_scheduler_looks_again_soon() -> None:
    assert look([task(1, 20)], gpu(0, 5)).wake_at == NOW + LOOK_AGAIN_SECONDS
    assert look([task(1)], gpu(0, 5, process())).wake_at == NOW + LOOK_AGAIN_SECONDS
    assert look([task(1)], gpu(0, 5, utilization=99), terms=Terms(max_utilization=80)).wake_at is not None
    assert look([task(1, 20)], gpu(0, 5, slots=1, own=(run("a"),))).wake_at is None, "the end of a run is an event"
    assert look([task(1, 20)], gpu(0, 50)).wake_at is None


def test_the_end_of_a_reservation_wakes_it_too() -> None:
    decision = look([task(1, 40)], gpu(0, 80, own=(run("a", 50, age=59.5),)))
    assert decision.wake_at == NOW + 0.5


def test_who_waits_for_memory_keeps_the_gpu_with_most_of_it() -> None:
    busy = [
        gpu(0, 10, process(70, run="run-a"), own=(run("a"),)),
        gpu(1, 30, process(50, run="run-b"), own=(run("b"),)),
    ]
    queue = [task(1, 40), task(2, 10), task(3, 5), task(4)]
    assert placed(queue, *busy) == [(2, 0)], "GPU 1 is kept for t1; t3 finds nothing left, t4 says nothing of its need"
    assert why(queue[:3], *busy).text.startswith("the free memory is kept for t1")
    assert why(queue, *busy).code is ReasonCode.KEPT_FOR


def test_a_stream_of_small_ones_does_not_starve_a_big_one() -> None:
    """Whatever ends first, the big one's GPU is not filled up again."""
    held = gpu(0, 20, process(30, run="run-a"), process(30, run="run-b"), own=(run("a"), run("b")))
    assert placed([task(1, 60), task(2, 10)], held) == []
    then = gpu(0, 50, process(30, run="run-b"), own=(run("b"),))
    assert placed([task(1, 60), task(2, 10)], then) == []
    assert placed([task(1, 60), task(2, 10)], gpu(0, 80)) == [(1, 0), (2, 0)]


def test_no_gpu_stands_idle_for_what_other_people_hold() -> None:
    ignored = Terms(ignored=("alice",))
    assert placed([task(1, 40), task(2, 10)], gpu(0, 20, process(60)), terms=ignored) == [(2, 0)]
    assert placed([task(1, gpus=2), task(2)], gpu(0), gpu(1, 80, process())) == [(2, 0)]
    assert placed([task(1, 20, gpus=2), task(2, 10)], gpu(0), gpu(1, None)) == [(2, 0)]
    assert placed([task(1, gpus=2), task(2)], gpu(0), gpu(1, lost=True)) == [(2, 0)]


def test_memory_that_nobody_can_account_for_is_waited_for_only_while_runs_are_there() -> None:
    there = gpu(0, 20, own=(run("a"),), listed=False)
    assert placed([task(1, 40), task(2, 10)], there) == []
    assert placed([task(1, 40), task(2, 10)], gpu(0, 20, listed=False)) == [(2, 0)]


def test_a_wide_task_keeps_its_memory_and_leaves_the_rest() -> None:
    wide = task(1, 30, gpus=2)
    gpus = [gpu(0, 60, slots=3), gpu(1, 10, process(70, run="run-a"), own=(run("a", gpu=1),))]
    assert placed([wide, task(2, 30), task(3, 10)], *gpus) == [(2, 0)]


# ---------------------------------------------------------------- who may pass


def test_one_that_is_sure_to_have_ended_in_time_may_pass() -> None:
    """t1 starts when `a` ends: at its deadline and the grace, at the latest."""
    gpus = [gpu(0, slots=1), gpu(1, slots=1, own=(run("a", deadline=100, gpu=1),))]
    wide = task(1, gpus=2)
    assert placed([wide, task(2, time_limit=100.0)], *gpus) == [(2, 0)]
    assert placed([wide, task(2, time_limit=100.5)], *gpus) == []
    assert placed([wide, task(2)], *gpus) == []


def test_nobody_passes_where_nothing_is_certain() -> None:
    gpus = [gpu(0, slots=1), gpu(1, slots=1, own=(run("a", gpu=1),))]
    assert placed([task(1, gpus=2), task(2, time_limit=1.0)], *gpus) == []
    theirs = [gpu(0, slots=1), replace(gpu(1), others=(replace(tenant(0), limit=1),))]
    assert placed([task(1, gpus=2), task(2, time_limit=1.0)], *theirs) == []


def test_who_passes_needs_room_all_the_same() -> None:
    gpus = [gpu(0, 20, slots=2), gpu(1, 80, slots=1, own=(run("a", deadline=100, gpu=1),))]
    assert placed([task(1, 10, gpus=2), task(2, 30, time_limit=10.0)], *gpus) == []
    assert placed([task(1, 10, gpus=2), task(2, 20, time_limit=10.0)], *gpus) == [(2, 0)]


def test_who_passes_does_not_delay_the_holder_by_a_startup_delay() -> None:
    gpus = [gpu(0, slots=1), gpu(1, slots=1, own=(run("a", deadline=100, gpu=1),))]
    assert placed([task(1, gpus=2), task(2, time_limit=10.0)], *gpus, startup_delay=200.0) == []


def test_one_may_pass_on_memory_that_is_kept() -> None:
    """t1 needs 60 GiB, which are free when `a` has ended."""
    held = gpu(0, 30, process(50, run="run-a"), own=(run("a", deadline=100),))
    assert placed([task(1, 60), task(2, 20, time_limit=90.0)], held) == [(2, 0)]
    assert placed([task(1, 60), task(2, 20, time_limit=200.0)], held) == []


def test_the_gpu_that_is_certain_to_be_free_first_is_held() -> None:
    """And so it stays, whoever passes: GPU 1 has fewer runs then, but nobody knows when they end."""
    certain = gpu(0, slots=2, own=(run("a", deadline=100), run("p", deadline=50)))
    alone = replace(task(1), spec=replace(task(1).spec, exclusive=True))
    gpus = [certain, gpu(1, slots=2, own=(run("b", gpu=1),))]
    assert placed([alone, task(2)], *gpus) == [(2, 1)]


def test_an_overdue_run_makes_nothing_certain() -> None:
    gpus = [gpu(0, slots=1), gpu(1, slots=1, own=(run("a", deadline=-30, gpu=1),))]
    assert placed([task(1, gpus=2), task(2, time_limit=1.0)], *gpus) == []


# ---------------------------------------------------------------- other people


def test_nothing_starts_beside_a_strange_process_and_the_reason_names_it() -> None:
    assert placed([task(1)], gpu(0, 80, process()), gpu(1)) == [(1, 1)]
    assert why([task(1)], gpu(0, 80, process())).text == (
        "respects other people's processes: alice runs `python big.py` on GPU 0 (pid 4242)"
    )
    two = [gpu(0, 80, process(user=None, command=None)), gpu(1, 80, process())]
    assert why([task(1)], *two).text == (
        "respects other people's processes: a process whose owner can't be seen is on GPU 0 (pid 4242), "
        "and others on GPU 1"
    )


@pytest.mark.parametrize(
    "harmless",
    [
        pytest.param(process(run="there"), id="a run of any workspace that holds a slot here"),
        pytest.param(process(run="fading"), id="a run that has just ended"),
        pytest.param(process(compute=False), id="a display"),
        pytest.param(process(user="gdm", command="/usr/bin/gnome-shell --x"), id="an ignored user"),
        pytest.param(process(user="bob", command="/opt/bin/Xorg :0"), id="an ignored program"),
        pytest.param(process(user="bob", command="python demo.py"), id="an ignored command"),
    ],
)
def test_beside_these_it_starts(harmless: GpuProcess) -> None:
    terms = Terms(ignored=("gdm", "Xorg", "python demo*"))
    there = Tenant("bob", "/his", "exp", 4, 0.0, run="there")
    here = replace(gpu(0, 80, harmless, others=(there,)), fading=frozenset({"fading"}))
    assert placed([task(1)], here, terms=terms) == [(1, 0)]


HIDDEN = process(60, user=None, command=None)
BOBS, MINE = tenant(0), replace(tenant(0), user="me")


@pytest.mark.parametrize(
    ("hidden", "tenants", "starts"),
    [
        pytest.param(HIDDEN, [BOBS], True, id="it may be bob's run"),
        pytest.param(HIDDEN, [BOBS, MINE], True, id="so it may beside mine"),
        pytest.param(HIDDEN, [MINE], False, id="mine would not be hidden"),
        pytest.param(HIDDEN, [], False, id="nobody has a run here"),
        pytest.param(replace(HIDDEN, user="bob"), [BOBS], True, id="bob's, and bob has a run here"),
        pytest.param(replace(HIDDEN, user="alice"), [BOBS], False, id="alice has none"),
        pytest.param(replace(HIDDEN, command="python big.py"), [BOBS], False, id="what can be seen is no run"),
    ],
)
def test_who_is_hidden_is_respected_where_it_can_not_be_a_run_of_somebody_else(
    hidden: GpuProcess, tenants: list[Tenant], starts: bool
) -> None:
    here = gpu(0, 20, hidden, others=tuple(tenants))
    assert bool(placed([task(1)], here, terms=Terms(user="me"))) is starts


def test_memory_of_who_may_be_a_run_is_waited_for() -> None:
    big = [task(1, 70), task(2, 5)]
    assert placed(big, gpu(0, 20, HIDDEN, slots=2, others=(BOBS,))) == [], "the other slot is held for the big one"
    assert placed(big, gpu(0, 20, process(60, run="gone"), slots=2), terms=Terms(respect_others=False)) == [(2, 0)]


def test_what_is_left_of_a_run_that_holds_nothing_here_is_like_a_stranger() -> None:
    """A daemon that outlived its run, say: nothing starts beside it, and nobody waits for its memory with idle GPUs."""
    left = gpu(0, 10, process(60, run="gone"))
    assert placed([task(1)], left) == [] and why([task(1)], left).code is ReasonCode.OTHER_PROCESS
    small = [task(1, 60), task(2, 5)]
    assert placed(small, left, terms=Terms(respect_others=False)) == [(2, 0)]


def test_other_people_need_not_be_respected() -> None:
    assert placed([task(1)], gpu(0, 80, process()), terms=Terms(respect_others=False)) == [(1, 0)]


def test_processes_that_can_not_be_listed_stop_nobody() -> None:
    assert placed([task(1)], gpu(0, 80, listed=False)) == [(1, 0)]


def test_a_hostile_command_line_is_only_text() -> None:
    text = why([task(1)], gpu(0, 80, process(command="a\x1b[2J {0}\n" + "x" * 500))).text
    assert "\x1b" not in text and "\n" not in text and "{0}" in text and len(text) < 160


def test_a_busy_gpu_gets_no_further_run() -> None:
    terms = Terms(max_utilization=80)
    assert placed([task(1)], gpu(0, utilization=81), gpu(1, utilization=80), terms=terms) == [(1, 1)]
    assert placed([task(1)], gpu(0, utilization=None), terms=terms) == [(1, 0)]
    assert why([task(1)], gpu(0, utilization=97), gpu(1, utilization=90), terms=terms).text == (
        "the free slots are on GPUs that are busy: GPU 1 is at 90 % (max_utilization: 80)"
    )


def test_nothing_starts_on_a_gpu_that_fell_off_the_bus_and_nobody_is_given_up() -> None:
    assert placed([task(1)], gpu(0, lost=True), gpu(1)) == [(1, 1)]
    assert why([task(1)], gpu(0, lost=True)).text == (
        "nothing is started on GPU 0, which has fallen off the bus, wants a reset or is divided"
    )
    assert can_ever_start(kind_of(task(1, 20).spec), [0])


def test_no_gpu_gets_what_would_be_left_of_a_rivals_memory() -> None:
    """Another scheduler's turn: it needs 50 of 80 GiB, and one slot of four."""
    left = replace(gpu(0), reserved=Reserved(1, "bob", "/w", 50 * GIB))
    assert placed([task(1, 30), task(2, 10)], left) == [(1, 0)]
    assert placed([task(1, 31)], left) == []
    assert placed([task(1)], left) == []
    assert why([task(1, 31)], left).code is ReasonCode.OTHERS_TURN


# ---------------------------------------------------------------- sets of GPUs


def linked(index: int, *links: int, numa: int | None = None, own: int = 0) -> GpuSlots:
    runs = tuple(run(f"{index}-{number}", gpu=index) for number in range(own))
    return gpu(index, own=runs, links=frozenset(f"G{other}" for other in links), numa=numa)


def test_linked_gpus_are_taken_together() -> None:
    pairs = [linked(0, 3), linked(1, 2), linked(2, 1), linked(3, 0)]
    assert placed([task(1, gpus=2)], *pairs) == [(1, 0, 3)]
    assert placed([task(1, gpus=2)], linked(0), linked(1, own=1), linked(2, 1, own=1)) == [(1, 1, 2)], "before load"


def test_then_those_on_one_numa_node_and_then_the_first() -> None:
    assert placed([task(1, gpus=2)], linked(0, numa=0), linked(1, numa=1), linked(2, numa=1)) == [(1, 1, 2)]
    assert placed([task(1, gpus=2)], linked(0, numa=0), linked(1, numa=0), linked(2, numa=0)) == [(1, 0, 1)]
    assert placed([task(1, gpus=2)], gpu(2), gpu(0), gpu(1)) == [(1, 0, 2)], "nothing known: by preference"


def test_a_link_that_one_side_alone_knows_is_a_link() -> None:
    assert placed([task(1, gpus=2)], linked(0), linked(1), linked(2, 0)) == [(1, 0, 2)]


def test_of_very_many_a_good_set_is_found_step_by_step() -> None:
    """Two islands of 16, and the GPUs come alternately: there are 10 million sets of 8."""
    gpus = [linked(index, *(other for other in range(32) if other % 2 == index % 2)) for index in range(32)]
    chosen = best_set(desks_of(gpus, Terms(), NOW), 8)
    assert len({desk.gpu.index % 2 for desk in chosen}) == 1 and len(chosen) == 8


# ---------------------------------------------------------------- tasks without GPUs


def cpu(slots: int, used: int = 0) -> GpuSlots:
    return GpuSlots(-1, CPU, slots, tuple(replace(run(f"c{n}"), gpus=(), devices=(CPU,)) for n in range(used)))


def test_a_task_without_gpus_runs_beside_them() -> None:
    busy = gpu(0, slots=1, own=(run("a"),))
    assert placed([task(1), task(2, gpus=0)], busy, cpu=cpu(4)) == [(2,)]
    assert placed([task(1, gpus=0)], cpu=cpu(1)) == [(1,)], "where there is no GPU at all"


def test_slots_of_the_cpu_are_counted() -> None:
    queue = [task(number, gpus=0) for number in (1, 2, 3)]
    assert placed(queue, cpu=cpu(3, used=1)) == [(1,), (2,)]
    assert why(queue, cpu=cpu(3, used=1)).text == "all CPU slots are taken (3 of 3)"
    assert why(queue, cpu=None).text == "needs no GPU, and there are no CPU slots (cpu_slots is 0)"


def test_what_is_about_gpus_means_nothing_without() -> None:
    lonely = task(1, 20, gpus=0, exclusive=True, pinned=(7,))
    assert placed([lonely, task(2, gpus=0)], cpu=cpu(2), startup_delay=10) == [(1,), (2,)]
    assert not can_ever_start(kind_of(lonely.spec), [], cpu=False)


def test_a_full_cpu_keeps_no_gpu_from_anybody() -> None:
    assert placed([task(1, gpus=0), task(2)], gpu(0), cpu=cpu(1, used=1)) == [(2, 0)]


# ---------------------------------------------------------------- long queues


def brief(queue: list[Task], *gpus: GpuSlots, **more: object) -> Decision:
    demands: Counter[Demand] = Counter(kind_of(one.spec) for one in queue)
    return look(queue, *gpus, demands=demands, **more)


def test_ten_thousand_that_wait_for_memory_are_not_all_looked_at() -> None:
    queue = [task(number, 60) for number in range(10_000)]
    ours = gpu(0, 10, process(70, run="run-a"), own=(run("a"),))
    theirs = gpu(1, 10)
    assert brief(queue, ours, theirs).looked_at <= 8
    small = [*queue, task(10_000, 10)]
    decision = brief(small, ours, theirs)
    assert [one.task_id for one in decision.placements] == [10_000], "the small one at their end is found"
    assert decision.looked_at <= 9


def test_one_of_another_kind_at_the_end_costs_nothing_while_it_can_not_start() -> None:
    queue = [*(task(number, 60) for number in range(10_000)), task(10_000, 70, gpus=2), task(10_001, gpus=0)]
    full = [gpu(index, 10, process(70, run="run-a"), own=(run("a"),), slots=1) for index in (0, 1)]
    assert brief(queue[:-1], *full).looked_at <= 8
    assert [one.task_id for one in brief(queue, *full, cpu=cpu(4)).placements] == [10_001]


# ---------------------------------------------------------------- who has ended, and is still there


def test_a_slot_is_free_when_who_had_it_has_left_the_gpu() -> None:
    left = replace(gpu(0, 80, process(run="a"), process(run="a"), slots=2), fading=frozenset({"a"}))
    assert placed([task(1), task(2)], left) == [(1, 0)], "one run, however many processes it has"
    assert placed([task(1, exclusive=True)], left) == []
    assert placed([task(1)], replace(left, fading=frozenset({"b"})), terms=Terms(respect_others=False)) == [(1, 0)]


def test_it_is_looked_again_soon_and_the_reason_says_who_is_waited_for() -> None:
    left = replace(gpu(0, 80, process(run="a"), slots=1), fading=frozenset({"a"}))
    decision = decide([task(1)], [left], NOW, policy=Policy.SPREAD)
    assert decision.wake_at == NOW + LOOK_AGAIN_SECONDS
    assert "; a run that has ended still holds GPU 0 (pid 4242)" in decision.waiting[1].text
    brief = decide([task(1)], [left], NOW, policy=Policy.SPREAD, demands={kind_of(task(1).spec): 1})
    assert brief.wake_at == NOW + LOOK_AGAIN_SECONDS


def test_nobody_passes_because_it_would_have_ended_before_who_is_leaving() -> None:
    left = replace(gpu(0, 80, process(run="a"), slots=2), fading=frozenset({"a"}))
    assert placed([task(1, exclusive=True), task(2, time_limit=1.0)], left) == []
