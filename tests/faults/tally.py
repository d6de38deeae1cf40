"""What the storms of a test session hit, and what they would have missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tests.faults.steps import SCHEDULER, TOKENS

WINDOW = 0.01  # of a defect that shows in so many of the faults of its kind


def summary(properties: Sequence[tuple[str, Any]]) -> Iterator[str]:
    """The lines for the end of a test session, from what its tests recorded; none if no storm was among them."""
    seeds = {value for name, value in properties if name == "seed"}
    if seeds:
        yield f"TINKSCHED_SEED={', '.join(map(str, seeds))}"
        yield from lines([tuple(value) for name, value in properties if name == "fault"])


def lines(faults: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The summary, from (kind, step) of every fault that hit."""
    groups = Counter(_group(kind, step) for kind, step in faults)
    yield f"faults: {len(faults)} hit, 0 violations where the tests passed"
    for group, count in sorted(groups.items()):
        missed = (1 - WINDOW) ** count
        yield f"  {count:5} {group}; the chance to miss a window that one in a hundred of them hits: {missed:.2g}"
    steps = Counter(step for _, step in faults)
    for what, names in (("the scheduler", tuple(SCHEDULER)), ("wrappers and tasks", TOKENS)):
        never = [name for name in names if not steps[name]]
        least = min(steps[name] for name in names)
        rest = f"; not: {', '.join(never)}" if never else f", at least {least} times each"
        yield f"  named steps of {what}: {len(names) - len(never)} of {len(names)} hit{rest}"


def _group(kind: str, step: str) -> str:
    if kind != "scheduler":
        where = "at random instants" if step == "random instant" else "at named steps"
        return {"tmux": "kills of the tmux server", "all": "kills of everything at once"}.get(
            kind, f"kills of a {kind} {where}"
        )
    if step.startswith("line "):
        return "kills of the scheduler at a random line of its code"
    return f"kills of the scheduler at {'random instants' if step == 'random instant' else 'named steps'}"
