"""Whose turn it is, when several schedulers share GPUs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tinksched.core import fairness
from tinksched.core.fairness import Ask, Rival, Turns, asks_of
from tinksched.core.gpu import GpuProcess, GpuState
from tinksched.core.model import GpuSlots, Tenant
from tinksched.core.sharing import Demand, Terms, desks_of

A, B, C = "GPU-a", "GPU-b", "GPU-c"


def gpu(device: str = A, used: int = 0, slots: int = 1, limit: int = 9) -> GpuSlots:
    others = tuple(Tenant("x", "/x", f"t{number}", limit, 0.0, f"run-{number}") for number in range(used))
    return GpuSlots(int(device[-1], 16), device, slots, (), others)


def rival(
    name: str = "other", last: float = 0.0, count: int = 1, devices: tuple[str, ...] = (A, B, C), gpus: int = 1,
    limit: int = 9, user: str = "",
) -> Rival:  # fmt: skip
    return Rival(name, f"/{name}", user or name, last, (Ask(devices, gpus, limit, count),) if count else ())


def me(last: float = 0.0, count: int = 100, user: str = "me") -> Rival:
    return rival("mine", last, count, user=user)


GIB = 2**30


def seen(slots: GpuSlots, free: int | None, *, ours: int = 0) -> GpuSlots:
    """The GPU with so many GiB free, and so many that runs of tinksched hold."""
    processes = (GpuProcess(1, ours * GIB, run="run-0"),) if ours else ()
    state = GpuState(
        slots.device, slots.index, 0.0, 80 * GIB, None if free is None else free * GIB, processes=processes
    )
    return replace(slots, state=state)


def needs(memory: int, last: float = 1.0, count: int = 1, gpus: int = 1) -> Rival:
    """A rival whose tasks need so many GiB."""
    one = rival("other", last, count, gpus=gpus)
    return replace(one, asks=tuple(replace(ask, memory=memory * GIB) for ask in one.asks))


def turns(me: Rival, others: list[Rival], gpus: list[GpuSlots], held: dict[tuple[str, str], int]) -> Turns:
    return fairness.turns(me, others, desks_of(gpus, Terms(), 0.0), held)


def left(turn: Turns) -> dict[str, int]:
    return {device: reserved.count for device, reserved in turn.reserved.items()}


def test_alone_one_leaves_nothing_to_anybody() -> None:
    assert turns(me(), [], [gpu(slots=4)], {}) == Turns({}, frozenset())


def test_of_two_who_hold_the_same_the_one_goes_first_whose_last_start_is_longer_ago() -> None:
    assert left(turns(me(last=5), [rival(last=3)], [gpu()], {})) == {A: 1}
    assert left(turns(me(last=3), [rival(last=5)], [gpu()], {})) == {}


def test_who_holds_fewer_slots_goes_first_whenever_he_started() -> None:
    held = {("me", "/mine"): 2, ("other", "/other"): 1}
    assert left(turns(me(last=1), [rival(last=9)], [gpu()], held)) == {A: 1}


def test_a_users_slots_are_counted_over_all_his_workspaces() -> None:
    held = {("me", "/elsewhere"): 3, ("other", "/other"): 1}
    assert left(turns(me(), [rival(last=9)], [gpu()], held)) == {A: 1}


def test_a_user_with_three_workspaces_gets_no_more_than_one_with_one() -> None:
    crowd = [rival(name, last=number, user="crowd") for number, name in enumerate(("w1", "w2", "w3"), 1)]
    turn = turns(me(last=2), crowd, [gpu(slots=4)], {})
    assert left(turn) == {A: 2}
    assert turn.ready == {"w1", "w2"}


def test_free_slots_are_given_out_in_turns() -> None:
    assert left(turns(me(last=2), [rival(last=1, count=9)], [gpu(slots=5)], {})) == {A: 3}
    assert left(turns(me(last=1), [rival(last=2, count=9)], [gpu(slots=5)], {})) == {A: 2}


def test_nobody_is_left_more_than_he_asks_for() -> None:
    assert left(turns(me(last=2), [rival(last=1, count=1)], [gpu(A, slots=3), gpu(B, slots=3)], {})) == {A: 1}


def test_one_that_needs_an_empty_gpu_has_it_kept_from_filling_up_when_its_turn_comes() -> None:
    turn = turns(me(last=2), [rival(last=1, limit=1)], [gpu(used=2, slots=4)], {("me", "/mine"): 2})
    assert left(turn) == {A: 2}
    assert turn.ready == frozenset(), "it can't start yet, so it has all the time it needs"
    turn = turns(me(last=2), [rival(last=1, limit=1)], [gpu(slots=4)], {})
    assert left(turn) == {A: 4}
    assert turn.ready == {"other"}


def test_one_that_allows_fewer_runs_than_the_others_finds_room_for_itself() -> None:
    """With a limit of 2, the GPU may have one other run beside it, though the others allow 4."""
    assert left(turns(me(last=2), [rival(last=1, limit=2)], [gpu(slots=4)], {})) == {A: 3}


def test_a_wide_task_has_its_gpus_kept() -> None:
    turn = turns(me(last=2), [rival(last=1, gpus=2)], [gpu(A), gpu(B, used=1), gpu(C, used=1)], {("me", "/mine"): 2})
    assert left(turn) == {A: 1}
    assert turn.ready == frozenset()


def test_one_that_asks_for_gpus_which_i_do_not_use_takes_nothing_from_me() -> None:
    assert left(turns(me(last=2), [rival(last=1, devices=("GPU-f",))], [gpu()], {})) == {}


def test_one_whose_memory_is_there_gets_a_slot_and_its_memory() -> None:
    turn = turns(me(last=2), [needs(50)], [seen(gpu(slots=4), 60)], {})
    assert turn.reserved[A].count == 1 and turn.reserved[A].memory == 50 * GIB
    assert turn.ready == {"other"}


def test_one_whose_memory_is_not_there_yet_has_it_gathered() -> None:
    turn = turns(me(last=2), [needs(50)], [seen(gpu(slots=4, used=1), 30, ours=50)], {("me", "/mine"): 1})
    assert left(turn) == {A: 3}, "nothing starts there until it fits"
    assert turn.ready == frozenset(), "it can't start yet, so it has all the time it needs"


def test_it_gathers_where_the_least_is_missing() -> None:
    gpus = [seen(gpu(A, slots=4, used=1), 30, ours=50), seen(gpu(B, slots=4, used=2), 45, ours=35)]
    assert left(turns(me(last=2), [needs(50)], gpus, {})) == {B: 2}


def test_memory_that_strangers_hold_or_nobody_knows_of_keeps_nobody_waiting() -> None:
    for hopeless in (seen(gpu(slots=4), 30, ours=10), seen(gpu(slots=4), None), gpu(slots=4)):
        assert turns(me(last=2), [needs(50)], [hopeless], {}) == Turns({}, frozenset())


def test_of_several_that_need_memory_only_as_many_fit_as_there_is_memory() -> None:
    turn = turns(me(last=2), [needs(30, count=9)], [seen(gpu(slots=9), 70)], {})
    assert turn.ready == {"other"}
    assert turn.reserved[A].memory >= 30 * GIB


def test_asks_name_the_gpus_that_will_do_and_the_slots_of_the_cpu() -> None:
    gpus = [seen(gpu(A, slots=2), 70), seen(gpu(B, slots=2, used=1), 30, ours=10), gpu(C, slots=2)]
    desks = desks_of(gpus, Terms(), 0.0)
    need = Demand(1, memory=50 * GIB)
    assert asks_of([need, need, Demand(1)], desks) == (
        Ask((A,), 1, 2, 2, 50 * GIB), Ask((A, B, C), 1, 2, 1),
    )  # fmt: skip
    assert asks_of([need._replace(gpus=2)], desks) == ()
    cpu = desks_of([GpuSlots(-1, "cpu", 8)], Terms(), 0.0)
    assert asks_of([Demand(0), Demand(0)], cpu) == (Ask(("cpu",), 1, 8, 2),)


@given(
    slots=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    used=st.lists(st.integers(0, 5), min_size=3, max_size=3),
    asks=st.lists(st.tuples(st.integers(0, 8), st.integers(1, 3), st.integers(1, 5), st.integers(0, 9)), max_size=4),
    mine=st.integers(0, 9),
    held=st.dictionaries(st.sampled_from([("me", "/mine"), ("r0", "/r0"), ("r1", "/r1")]), st.integers(0, 4)),
)
def test_what_is_left_was_free_and_every_scheduler_agrees_about_it(
    slots: list[int],
    used: list[int],
    asks: list[tuple[int, int, int, int]],
    mine: int,
    held: dict[tuple[str, str], int],
) -> None:
    gpus = [
        gpu(device, min(full, most), most, most) for device, most, full in zip((A, B, C), slots, used, strict=False)
    ]
    rivals = [
        rival(f"r{number}", last, count, gpus=wide, limit=limit)
        for number, (count, wide, limit, last) in enumerate(asks)
    ]
    everybody = [me(last=4, count=mine), *rivals]
    kept: Counter[str] = Counter()
    for one in everybody:
        others = [rival for rival in everybody if rival is not one]
        turn = turns(one, others, gpus, held)
        assert turn == turns(one, others, gpus, held)
        for slot in gpus:
            reserved = turn.reserved.get(slot.device)
            assert reserved is None or 0 < reserved.count <= slot.allowed - slot.used
            if reserved is None or reserved.count < slot.allowed - slot.used:
                kept[slot.device] += 1
        assert one.workspace_id not in turn.ready
    if any(one.asks for one in everybody):
        for slot in gpus:
            assert kept[slot.device] or slot.used >= slot.allowed, "a free slot is never left to others by everybody"
