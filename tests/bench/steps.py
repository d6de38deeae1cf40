"""One hand-over step by step: where the time goes between a task's last instruction and the next one's first."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Sequence

from .measure import Span
from .place import HERE, Place
from .results import Results, say
from .systems import Batch, Tinksched, names
from .traced import LAST, STEPS


def steps(place: Place, results: Results, count: int, rounds: int) -> None:
    """Tasks one after another on one slot, so that nothing else happens in a hand-over."""
    system = Tinksched()
    for number in range(rounds):
        say(f"steps, round {number + 1} of {rounds}")
        with place.corner("steps") as corner:
            record, trace = corner.record(), corner.folder / "trace"
            batch = Batch(count, 0.1, 1)
            command = [*place.task, os.fspath(record.path), str(batch.seconds)]
            folder = system.workspace(corner, command, batch.slots, names("t", batch.count))
            extra = {"TRACE": os.fspath(trace), "PYTHONPATH": os.fspath(HERE.parent.parent)}
            words = (sys.executable, "-m", "tests.bench.traced", "start", "--foreground", "--workspace", folder)
            corner.call(*words, extra=extra)
            found = [line.split() for line in trace.read_text().splitlines()]
            marks = [(int(step), float(at)) for step, at in found]
            parts = list(of_handovers(record.read(count), marks))
        for column, name in enumerate([step[0] for step in STEPS] + [LAST]):
            results.add("steps", f"{column + 1}. {name}", [row[column] for row in parts])
        results.add("steps", "all of it", [sum(row) for row in parts])


def of_handovers(spans: Sequence[Span], marks: Sequence[tuple[int, float]]) -> Iterator[list[float]]:
    """The seconds that each step of each hand-over took; hand-overs in which a step is missing are left out."""
    ordered = sorted(spans)
    for (_, end), (start, _) in itertools.pairwise(ordered):
        times: list[float] = []
        for step, at in marks:
            if end <= at <= start and step == len(times):
                times.append(at)
        if len(times) == len(STEPS):
            reached = [end, *times, start]
            yield [after - before for before, after in itertools.pairwise(reached)]
