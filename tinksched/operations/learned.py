"""Where a waiting task's need of GPU memory comes from, for `explain`."""

from __future__ import annotations

from ..core.explanation import size
from ..core.lifecycle import MARGIN
from ..core.model import ALONE, Task
from ..core.sharing import AUTO, kind_of
from ..scheduler.needs import Needs


def learned(needs: Needs, task: Task) -> list[str]:
    """What was learned of it, as sentences."""
    lines = []
    lesson = needs.lesson(task)
    if lesson is not None:
        who = "1 task" if lesson.siblings == 1 else f"{lesson.siblings} tasks"
        like = f" like {lesson.pattern!r}" if lesson.pattern else ""
        had = f"{who}{like} completed and had at most {size(lesson.peak)} on a GPU"
        lines.append(
            f"Its need of GPU memory was learned: {had}, so with {MARGIN} % more it waits for {size(lesson.need)}."
        )
    elif kind_of(task.spec).memory == AUTO:
        lines.append("Its need of GPU memory is not known yet (auto): no task like it has completed.")
    if task.need == ALONE:
        lines.append("Its last run ran out of GPU memory, so it waits for a GPU for itself.")
    elif task.need is not None:
        lines.append(f"Its last run ran out of GPU memory, so it waits for more than that had: {size(task.need)}.")
    return lines
