"""Why a task that found no room waits: the one sentence that helps most."""

from __future__ import annotations

from collections.abc import Sequence

from .model import Reason, ReasonCode
from .sharing import Demand, Desk

_LONGEST_COMMAND = 60
_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20))
_Words = dict[str, "str | int | float"]


def why(demand: Demand, desks: Sequence[Desk], free: Sequence[Desk], now: float) -> Reason:
    """Why a task waits that may use these GPUs, of which `free` would take it but for their startup delay.

    The order of the checks is the order of their weight.
    """
    wanted = demand.gpus
    if len(free) >= wanted:
        desk = sorted(free, key=lambda desk: (desk.ready_at() or now, desk.order))[wanted - 1]
        return Reason(ReasonCode.STARTUP_DELAY, {"gpu": desk.gpu.index, "until": desk.ready_at() or now})
    there = [desk for desk in desks if desk.has_slot(demand)]
    if len(there) < wanted:
        return _no_slots(demand, desks, len(there))
    if sum(desk.is_open(demand) for desk in there) >= wanted:
        return _kept(demand, there)
    return _no_room(demand, desks, there, now)


def no_such_gpu(demand: Demand, desks: Sequence[Desk], names: Sequence[str] = ()) -> Reason:
    """Why a task can't ever start on these GPUs. `names` are the devices that it is pinned to."""
    if not demand.gpus:
        return Reason(ReasonCode.NO_CPU_SLOTS)
    able = [desk for desk in desks if not demand.pinned or desk.gpu.index in demand.pinned]
    if len(able) >= demand.gpus:
        count = sum(desk.could_ever(demand) for desk in able)
        each = f" on each of {demand.gpus} GPUs" if demand.gpus > 1 else ""
        words = {"wanted": _amount(demand), "where": each, "count": count or "none"}
        return Reason(ReasonCode.NO_SUCH_MEMORY, {**words, "has": "has" if count <= 1 else "have"})
    names = names or [str(gpu) for gpu in demand.pinned]
    pinned = ", ".join(name if gpu < 0 else str(gpu) for gpu, name in zip(demand.pinned, names, strict=True))
    wanted = f"GPU {pinned}" if demand.pinned else f"{demand.gpus} GPU{'s' * (demand.gpus > 1)}"
    exists = f"GPU {_listed(desks)}" if len(desks) == 1 else f"GPUs {_listed(desks)}"
    return Reason(ReasonCode.NO_SUCH_GPU, {"wanted": wanted, "exists": exists if desks else "no GPU"})


def cpu_full(desk: Desk) -> Reason:
    """Why a task without GPUs waits."""
    if desk.used < desk.allowed:
        return _others_turn([desk])
    return Reason(ReasonCode.CPU_FULL, {"used": desk.used, "slots": desk.gpu.slots, "others": _others([desk])})


def size(count: int) -> str:
    """A size for a person: `12 GiB`, `1.5 GiB`."""
    unit, factor = next(((unit, factor) for unit, factor in _UNITS if count >= factor), _UNITS[-1])
    return f"{max(count, 0) / factor:.1f}".removesuffix(".0") + f" {unit}"


# -- slots


def _no_slots(demand: Demand, desks: Sequence[Desk], count: int) -> Reason:
    others = _others(desks)
    if demand.exclusive:
        what = "a GPU" if demand.gpus == 1 else f"{demand.gpus} GPUs"
        empty = {"free": count or "none", "free_is": "is" if count <= 1 else "are"}
        return Reason(ReasonCode.NEEDS_EMPTY_GPUS, {"wanted": what, **empty, "others": others})
    if demand.gpus > 1:
        some = {"free": count or "none", "free_has": "has" if count <= 1 else "have"}
        return Reason(ReasonCode.TOO_FEW_GPUS, {"wanted": demand.gpus, **some, "others": others})
    taken: _Words = {
        "used": sum(desk.used for desk in desks),
        "slots": sum(desk.gpu.slots for desk in desks),
        "others": others,
    }
    if demand.pinned:
        return Reason(ReasonCode.PINNED_GPU_FULL, {"gpu": _listed(desks), **taken})
    return Reason(ReasonCode.GPUS_FULL, taken)


def _kept(demand: Demand, there: Sequence[Desk]) -> Reason:
    """For whom free slots are kept: another task of this queue, or another scheduler of this host."""
    there = [desk for desk in there if desk.is_open(demand)]
    holder = next((desk for desk in there if desk.held_for), None)
    if holder is None:
        return _others_turn(there)
    if holder.held_memory:
        return Reason(ReasonCode.KEPT_FOR, {"task": holder.held_for})
    return Reason(ReasonCode.HELD_FOR, {"task": holder.held_for})


def _others_turn(there: Sequence[Desk]) -> Reason:
    turn = next(desk.gpu.reserved for desk in there if desk.gpu.reserved)
    return Reason(ReasonCode.OTHERS_TURN, {"user": turn.user, "workspace": turn.workspace})


def _others(desks: Sequence[Desk]) -> str:
    """What a person must know of those on these GPUs who are not of this workspace, as an ending of a sentence."""
    tenants = [tenant for desk in desks for tenant in desk.gpu.others]
    if tenants:
        first = tenants[0]
        more = f" and {len(tenants) - 1} more" if len(tenants) > 1 else ""
        return f"; one by {first.user}, {first.task} of {first.workspace}{more}"
    alone = [run.task for desk in desks for run in desk.gpu.own if run.exclusive]
    alone += [task.name for desk in desks for task, demand in desk.started if demand.exclusive]
    if alone:
        return f"; {alone[0]} has one for itself alone"
    leaving = [(desk.gpu.index, pid) for desk in desks for pid in desk.gpu.leaving.values()]
    return "; a run that has ended still holds GPU {} (pid {})".format(*leaving[0]) if leaving else ""


# -- what NVML saw


def _no_room(demand: Demand, desks: Sequence[Desk], there: Sequence[Desk], now: float) -> Reason:
    """There are slots, but not enough GPUs with room. What may end soonest is named first."""
    lacking = [desk for desk in there if not desk.closed and not desk.has_memory(demand)]
    if lacking:
        return _no_memory(demand, desks, there, lacking, now)
    closed = [desk for desk in there if desk.closed]
    busy = [desk for desk in closed if desk.closed == "busy"]
    if busy:
        desk = min(busy, key=_utilization)
        most = desk.terms.max_utilization or 0
        return Reason(ReasonCode.GPU_BUSY, {"gpu": desk.gpu.index, "busy": _utilization(desk), "most": most})
    taken = [desk for desk in closed if desk.closed == "others"]
    return _stranger(taken) if taken else Reason(ReasonCode.GPU_LOST, {"gpu": _listed(closed)})


def _no_memory(
    demand: Demand, desks: Sequence[Desk], there: Sequence[Desk], lacking: Sequence[Desk], now: float
) -> Reason:
    known = [desk for desk in lacking if desk.available is not None]
    if not known:
        return Reason(ReasonCode.MEMORY_UNKNOWN, {"wanted": _amount(demand), "gpu": _listed(lacking)})
    best = min(known, key=lambda desk: (desk.missing(demand), desk.order))
    enough = sum(desk.is_open(demand) for desk in there)
    where = f"; GPU {best.gpu.index} has" + (" most" if len(known) > 1 else "")
    if demand.gpus > 1:
        where = f" on each of {demand.gpus} GPUs; {enough} ha{'ve' if enough > 1 else 's'} that, and{where[1:]}"
    words = {"wanted": _amount(demand), "where": where, "free": _free(best), "young": _young(best, now)}
    waits = sum(desk.can_open(demand) for desk in desks) >= demand.gpus
    return Reason(ReasonCode.NEEDS_MEMORY if waits else ReasonCode.MEMORY_OF_OTHERS, words)


def _free(desk: Desk) -> str:
    return size((desk.available or 0) + sum(run.memory for run in desk.young) + _starting(desk))


def _starting(desk: Desk) -> int:
    return sum(demand.bytes or 0 for _, demand in desk.started)


def _young(desk: Desk, now: float) -> str:
    """Whose reservations make the free memory less, as a part of a sentence."""
    reserved = sum(run.memory for run in desk.young) + _starting(desk)
    if not reserved:
        return ""
    names = [f"{run.task} (started {max(0.0, now - run.since):.0f} s ago)" for run in desk.young]
    names += [f"{task.name} (starts now)" for task, demand in desk.started if demand.bytes]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f", of which {size(reserved)} {'are' if reserved != 2**30 else 'is'} reserved for {names[0]}{more}"


def _stranger(desks: Sequence[Desk]) -> Reason:
    """Whose process it is. It may be a hostile one: its words are shown without what a terminal would obey."""
    desk = desks[0]
    process = desk.strangers[0]
    who = "a process whose owner can't be seen is"
    if desk.gpu.fading:
        who = "an unknown process, maybe of a run that has ended, is"
    if process.user is not None or process.command is not None:
        what = f"runs `{_plain(process.command)}`" if process.command is not None else "has a process"
        who = f"{_plain(process.user) if process.user is not None else 'somebody'} {what}"
    more = "" if len(desks) == 1 else f", and others on GPU {_listed(desks[1:])}"
    return Reason(ReasonCode.OTHER_PROCESS, {"who": who, "gpu": desk.gpu.index, "pid": process.pid, "more": more})


def _plain(text: str) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
    return shown if len(shown) <= _LONGEST_COMMAND else f"{shown[: _LONGEST_COMMAND - 1]}…"


def _utilization(desk: Desk) -> int:
    return (desk.gpu.state.utilization if desk.gpu.state is not None else None) or 0


def _amount(demand: Demand) -> str:
    return size(demand.bytes or 0)


def _listed(desks: Sequence[Desk]) -> str:
    return ", ".join(str(desk.gpu.index) for desk in desks)
