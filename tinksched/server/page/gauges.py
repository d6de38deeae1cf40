"""What the GPUs did in the last hour: a mean for each step, of the samples that somebody looked at. In memory only."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from ...core.gpu import GpuState

STEP = 30.0  # seconds
STEPS = 120


class Gauge:
    """One GPU."""

    def __init__(self) -> None:
        self._at = 0.0  # of the newest sample
        self._steps: deque[tuple[int, list[int], list[int]]] = deque(maxlen=STEPS)  # number, bytes, percent

    def note(self, state: GpuState) -> None:
        """Take a sample. One that was seen before counts once."""
        if state.at <= self._at:
            return
        self._at = state.at
        number = int(state.at // STEP)
        if not self._steps or self._steps[-1][0] < number:
            self._steps.append((number, [], []))
        _, memory, busy = self._steps[-1]
        if state.memory_used is not None:
            memory.append(state.memory_used)
        if state.utilization is not None:
            busy.append(state.utilization)

    def history(self, now: float) -> dict[str, Any]:
        """The hour up to now; a step into which nobody looked is null."""
        first = int(now // STEP) - STEPS + 1
        known = {number: (_mean(memory), _mean(busy)) for number, memory, busy in self._steps}
        pairs = [known.get(number, (None, None)) for number in range(first, first + STEPS)]
        return {
            "from": first * STEP,
            "step": STEP,
            "memory": [memory for memory, _ in pairs],
            "utilization": [busy for _, busy in pairs],
        }


def _mean(values: Sequence[int]) -> int | None:
    return round(sum(values) / len(values)) if values else None
