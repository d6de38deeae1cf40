"""What the tables of `gpus` say."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from ..core.gpu import GpuProcess, GpuState
from ..core.instants import ago
from ..host.leases import Held
from ..operations.occupancy import Occupancy, Occupied
from ..operations.seen import memory_text, size_text, unknown_memory
from .tables import Cell, Part, Table, printable

WIDE = 140  # columns, from which on there is room for UUIDs
_SHORTEST, _BESIDE = 20, 72  # characters of a command; columns that the rest of its line takes


def occupancy(now: Occupancy, *, width: int) -> list[Part]:
    """The parts of `gpus`, one below the other: the GPUs, who is on them, who waits. UUIDs only where there is room."""
    wide = width >= WIDE
    parts: list[Part] = []
    if now.gpus:
        columns = ("GPU", "MEMORY", "USE", "TEMP", "POWER", "SLOTS", "NAME", *(["UUID"] if wide else []))
        parts.append(Table(columns, [_gpu(gpu, wide) for gpu in now.gpus]))
    runs = {held.claim.run_id: held for gpu in now.gpus for held in gpu.holders}
    rows = [row for gpu in now.gpus for row in _tenants(gpu, runs, max(_SHORTEST, width - _BESIDE))]
    if rows:
        parts += [[], Table(("GPU", "USER", "WHO", "MEMORY", "STARTED", "WHERE"), rows, right=3, folded=2)]
    for rival in now.waiting:
        count = sum(ask.count for ask in rival.asks)
        what = "1 task waits" if count == 1 else f"{count} tasks wait"
        parts.append([(f"{what} for a slot: {printable(rival.user)}, {printable(rival.workspace)}", "")])
    if now.note:
        parts.append([(now.note if now.gpus else f"{now.note}; nobody holds a slot", "")])
    return parts


def _gpu(gpu: Occupied, wide: bool) -> list[Cell]:
    state = gpu.state or GpuState(gpu.device, -1, 0.0)
    unused = "" if state.lost else "MIG" if gpu.divided else "free"
    return [
        (_label(gpu), "bold"),
        ("lost", "bold red") if state.lost else (memory_text(state), ""),
        (_unit(state.utilization, " %"), ""),
        (_unit(state.temperature, " C"), ""),
        (_unit(state.power, " W"), ""),
        (f"{len(gpu.holders)} taken", "") if gpu.holders else (unused, "dim"),
        (printable(gpu.name or ""), ""),
        *([(gpu.uuid or "", "dim")] if wide else []),
    ]


def _tenants(gpu: Occupied, runs: Mapping[str, Held], room: int) -> Iterator[list[Cell]]:
    """A row for each run that holds a slot, with its processes below it; then what is not tinksched's.

    Commands are cut to `room` characters.
    """
    state = gpu.state
    listed = list(state.processes or ()) if state else []
    for held in gpu.holders:
        own = [process for process in listed if process.run == held.claim.run_id]
        known = [process.memory for process in own if process.memory is not None]
        since = ago(held.claim.since, time.time())
        yield _row(gpu, held.user, held.claim.task, size_text(sum(known)) if known else "", since, held.claim.workspace)
        yield from (_process(gpu, process, "", room) for process in own)
    here = {held.claim.run_id for held in gpu.holders}
    for process in listed:
        if process.run not in here:
            run = runs.get(process.run)
            task = f"{run.claim.task} of {run.claim.workspace}" if run else "a run"
            where = f"{task}, which was not given this GPU" if process.run else process.standing
            yield _process(gpu, process, where, room)
    unknown = unknown_memory(state) if state else 0
    if unknown:
        yield _row(gpu, "?", "held by unknown", size_text(unknown), "", "")
    if state and state.processes is None and state.problem is None and not gpu.divided:
        yield _row(gpu, "?", "processes can't be told from here", "", "", "")


def _process(gpu: Occupied, process: GpuProcess, where: str, room: int) -> list[Cell]:
    command = process.command or "has ended, or can't be seen from here"
    command = command if len(command) <= room else f"{command[: room - 1]}…"
    memory = size_text(process.memory)
    return _row(gpu, process.user or "?", f"  {process.pid}  {command}", memory, "", where, "dim" if not where else "")


def _row(gpu: Occupied, user: str, who: str, memory: str, since: str, where: str, style: str = "") -> list[Cell]:
    texts = (user, who, memory, since, where)
    return [(_label(gpu).strip(), "bold"), *((printable(text), style) for text in texts)]


def _label(gpu: Occupied) -> str:
    """Instances stand below their GPU, and a little to the right of it."""
    text = str(gpu.index) if gpu.index is not None else printable(gpu.device)
    return f"  {text}" if gpu.parent is not None else text


def _unit(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.0f}{unit}"
