"""What was seen of a GPU, for programs and for people."""

from __future__ import annotations

from ..core.gpu import GpuProcess, GpuState

# What the driver itself keeps, and what is in none of its lists though somebody has it, can be told apart by size only.
UNKNOWN_BYTES = 512 * 2**20


def unknown_memory(state: GpuState) -> int | None:
    """Bytes that are held by nobody who is listed: a stale context, another container. None if that can't be said."""
    if state.memory_used is None or state.processes is None:
        return None
    listed = [process.memory for process in state.processes]
    if None in listed:
        return None
    unknown = state.memory_used - sum(memory or 0 for memory in listed)
    return unknown if unknown >= UNKNOWN_BYTES else 0


def state_json(state: GpuState | None) -> dict[str, object] | None:
    """The versioned form for programs: bytes, percent, degrees Celsius, watts; null is "not known"."""
    if state is None:
        return None
    return {
        "at": state.at,
        "memory": {
            "total": state.memory_total,
            "used": state.memory_used,
            "free": state.memory_free,
            "unknown": unknown_memory(state),
        },
        "utilization": state.utilization,
        "temperature": state.temperature,
        "power": state.power,
        "numa": state.numa,
        "links": sorted(state.links),
        "lost": state.lost,
        "problem": state.problem,
        "processes": None if state.processes is None else [_process_json(process) for process in state.processes],
    }


def memory_text(state: GpuState) -> str:
    """`12.3/141 GiB`; empty if neither is known."""
    if state.memory_used is None and state.memory_total is None:
        return ""
    return f"{_gib(state.memory_used)}/{_gib(state.memory_total)} GiB"


def size_text(count: int | None) -> str:
    """Bytes as people read them beside a GPU."""
    return "?" if count is None else f"{_gib(count)} GiB"


def _gib(count: int | None) -> str:
    if count is None:
        return "?"
    found = count / 2**30
    return f"{found:.0f}" if found >= 100 or found == round(found) else f"{found:.1f}"


def _process_json(process: GpuProcess) -> dict[str, object]:
    return {
        "pid": process.pid,
        "user": process.user,
        "command": process.command,
        "memory": process.memory,
        "compute": process.compute,
        "run": process.run or None,
    }
