"""How a scheduler ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """How the scheduler ended: what is left and what became of the tasks."""

    stopped: bool
    terminated: bool  # by a signal: nobody wants another one to take over
    counts: Mapping[str, int]
    impossible: int  # queued tasks that can't ever start on the GPUs that there are
    deleted: bool | None = None  # the state was deleted meanwhile; whether all that was known is back in its place
