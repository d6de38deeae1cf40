"""Hand-over, start-up and memory in a workspace with a long queue and a long history, beside an empty one."""

from __future__ import annotations

import os
import time
from pathlib import Path

from . import history
from .measure import handovers
from .place import Corner, Place, Record
from .proc import memory
from .results import Results, say
from .systems import Batch, Tinksched, names

EMPTY = "empty"
SYSTEM = Tinksched()


def scale(place: Place, results: Results, queued: int, finished: int, batch: Batch, rounds: int) -> None:
    """A batch at the head of the queue, in an empty workspace and in a full one in turn."""
    full = f"{queued:,} queued, {finished:,} finished"
    with place.corner("full") as corner:
        say(f"scale: making {full}")
        record = corner.record()
        folder = _seeded(corner, record, batch)
        results.add("scale database", "tinksched", [history.finish(folder, finished) / finished])
        history.wait(folder, queued)
        for number in range(rounds):
            say(f"scale, round {number + 1} of {rounds}")
            with place.corner("empty") as other:
                pipe = other.record()
                command = [*place.task, os.fspath(pipe.path), str(batch.seconds)]
                fresh = SYSTEM.workspace(other, command, batch.slots, names("t", batch.count + batch.slots))
                _round(other, fresh, pipe, batch, results, EMPTY)
            _round(corner, folder, record, batch, results, full)
            corner.call("tinksched", "stop", "--workspace", folder)
            while any(place.is_task(line) for line in corner.processes().values()):
                time.sleep(0.05)  # the last ones end by themselves
            record.drain()


def _seeded(corner: Corner, record: Record, batch: Batch) -> Path:
    """A workspace in which one task has run, as a pattern for the others."""
    command = [*corner.place.task, os.fspath(record.path), str(batch.seconds)]
    folder = SYSTEM.workspace(corner, command, batch.slots, ["seed"])
    corner.call("tinksched", "start", "--wait", "--workspace", folder)
    record.read(1)
    return folder


def _round(corner: Corner, folder: Path, record: Record, batch: Batch, results: Results, name: str) -> None:
    begun = time.monotonic()
    results.add("scale start", name, [corner.call("tinksched", "start", "--workspace", folder)])
    spans = record.read(batch.count)
    results.add("scale memory", name, [memory(SYSTEM.service(corner))[0]])
    results.add("scale first", name, [min(start for start, _ in spans) - begun])
    results.add("scale handover", name, handovers(spans, batch.slots))
