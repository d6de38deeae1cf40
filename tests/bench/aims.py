"""What the project set out to reach, beside what a run measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .cold import PYTHON
from .commands import FILES, LIMIT
from .measure import spread
from .results import Results
from .running import FLOOR


@dataclass(frozen=True, slots=True)
class Verdict:
    """An aim, its limit and what was measured, both in `unit`; None where it was not measured."""

    aim: str
    limit: float
    unit: str
    measured: float | None

    @property
    def words(self) -> str:
        """Reached, or missed and by how much."""
        if self.measured is None:
            return ""
        if self.measured <= self.limit:
            return "reached"
        times = self.measured / self.limit
        return f"missed by {(times - 1) * 100:.0f} %" if times < 2 else f"missed: {times:.1f} times as much"


def verdicts(results: Results) -> Iterator[Verdict]:
    """Every aim, in the order of their importance."""

    def median(metric: str, system: str) -> float | None:
        rounds = results.samples.get(metric, {}).get(system)
        return spread(rounds).median if rounds and any(rounds) else None

    def ratio(metric: str, system: str, other: str) -> float | None:
        mine, theirs = median(metric, system), median(metric, other)
        return mine / theirs if mine is not None and theirs else None

    def scaled(metric: str, system: str, scale: float) -> float | None:
        value = median(metric, system)
        return value * scale if value is not None else None

    gflow = "gflow, tasks of 5 s"
    yield Verdict("hand-over, beside bare `tmux new-session`", 3, "×", ratio("handover", "tinksched", FLOOR))
    yield Verdict("hand-over, beside gflow's", 1 / 50, "×", ratio("handover", "tinksched", gflow))
    yield Verdict("makespan, beside task-spooler's", 1.05, "×", ratio("makespan", "tinksched", "task-spooler"))
    long = next((name for name in results.samples.get("scale handover", {}) if name != "empty"), "")
    grown = ratio("scale handover", long, "empty")
    yield Verdict("hand-over grows with queue and history by", 20, "%", None if grown is None else (grown - 1) * 100)
    yield Verdict("10,000 configs queued", 3, "s", median("enqueue 10000", "tinksched"))
    yield Verdict("`status --json` of 10,000", 1, "s", median("status 10000", "tinksched status --json"))
    commands = results.samples.get("commands 10000", {})
    slowest = max((spread(rounds).median * 1e3 for name, rounds in commands.items() if name != FILES), default=None)
    yield Verdict("the slowest command, with 10,000 tasks", LIMIT * 1e3, "ms", slowest)
    yield Verdict("idle, processor", 0.2, "% of a core", scaled("idle cpu", "tinksched", 100))
    yield Verdict("idle, memory", 60, "MB", scaled("idle rss", "tinksched", 1e-6))
    yield Verdict("a round of looking at 64 runs on 8 GPUs", 20, "ms of CPU", scaled("sampling", "tinksched", 1e3))
    yield Verdict("`tinksched status`, beside `python3 -c pass`", 10, "×", ratio("cold", "tinksched status", PYTHON))
