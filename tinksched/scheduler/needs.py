"""What is known of tasks' needs of GPU memory besides their specs: what their last runs taught, and their siblings.

`min_free_memory: auto` stands for the most that a completed sibling had, and a margin. Siblings are the tasks for which
the same line of the configuration says `auto`. Until one of them has completed, nothing is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from ..config import Settings
from ..core.lifecycle import with_margin
from ..core.model import ALONE, GpuSlots, Task
from ..core.sharing import AUTO, Demand, demand_of, kind_of

OVERHEAD = 5  # percent of a GPU's memory that nobody can have: that of the driver, of a display
MOST_RUNS = 1000  # the last ones, among which siblings are looked for


@dataclass(frozen=True, slots=True)
class Lesson:
    """What siblings have taught. Sizes are bytes."""

    need: int
    peak: int
    siblings: int
    pattern: str  # what they have in common; empty for all tasks


class Sort(NamedTuple):
    """All that a task's need depends on: those of one sort need the same."""

    kind: Demand
    pattern: str | None  # what its siblings have in common; empty for all tasks, None if it learns from nobody
    need: int | None  # what its own last run taught


class Needs:
    """Knows what the completed runs of one workspace had."""

    def __init__(self, settings: Settings, peaks: Iterable[tuple[str, int]]) -> None:
        """`peaks` are tasks' names with the most memory (bytes) that a completed run of each had on a GPU."""
        self._settings = settings
        self._peaks: dict[str, int] = {}
        self._lessons: dict[str, Lesson | None] = {}
        self.usable: Mapping[int, int | None] = {}  # bytes that a run can have of each GPU; None where nobody knows
        for name, peak in peaks:
            self.completed(name, peak)

    def use(self, settings: Settings) -> None:
        """The configuration has changed."""
        self._settings = settings
        self._lessons.clear()

    def completed(self, name: str, peak: int) -> None:
        """A run of this task has completed."""
        self._peaks[name] = max(peak, self._peaks.get(name, 0))
        self._lessons.clear()

    def of(self, task: Task) -> int | None:
        """What must be free on each of its GPUs, in bytes; ALONE for a GPU for itself; None if nothing is known."""
        return self._need(self.sort_of(task))

    def demands(self, sorts: Mapping[Sort, int]) -> Counter[Demand]:
        """How many tasks ask for the same, of so many of each sort."""
        found: Counter[Demand] = Counter()
        for sort, count in sorts.items():
            found[demand_of(sort.kind, self._need(sort))] += count
        return found

    def sort_of(self, task: Task) -> Sort:
        """The sort of a task, with the present configuration."""
        kind = kind_of(task.spec)
        if kind.memory != AUTO:
            return Sort(kind, None, task.need)
        rule = self._settings.rule_for(task.name, "min_free_memory")
        return Sort(kind, rule.pattern if rule is not None else "", task.need)

    def lesson(self, task: Task) -> Lesson | None:
        """What its siblings have taught; None if it doesn't say `auto`, or none of them has completed."""
        return self._lesson(self.sort_of(task).pattern)

    def _need(self, sort: Sort) -> int | None:
        if sort.need == ALONE:
            return ALONE
        lesson = self._lesson(sort.pattern)
        known = [need for need in (sort.need, lesson.need if lesson else None) if need is not None]
        need = max(known, default=None)
        # What too few GPUs can give, even empty: with GPUs for itself it has all that there is.
        return ALONE if need is not None and self._is_too_much(sort.kind, need) else need

    def _is_too_much(self, kind: Demand, need: int) -> bool:
        allowed = [size for gpu, size in self.usable.items() if not kind.pinned or gpu in kind.pinned]
        return bool(allowed) and sum(size is None or size >= need for size in allowed) < kind.gpus

    def _lesson(self, pattern: str | None) -> Lesson | None:
        if pattern is None:
            return None
        if pattern not in self._lessons:
            peaks = [peak for name, peak in self._peaks.items() if not pattern or fnmatchcase(name, pattern)]
            most = max(peaks, default=None)
            self._lessons[pattern] = None if most is None else Lesson(with_margin(most), most, len(peaks), pattern)
        return self._lessons[pattern]


def usable(slots: Iterable[GpuSlots]) -> dict[int, int | None]:
    """What a run can have of each of these GPUs, in bytes: of an empty one the driver keeps a part for itself."""
    totals = {gpu.index: gpu.state.memory_total if gpu.state is not None else None for gpu in slots}
    return {index: None if total is None else total - total * OVERHEAD // 100 for index, total in totals.items()}
