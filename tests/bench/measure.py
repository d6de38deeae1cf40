"""What is made of times: hand-overs, makespans, medians and spreads. All of it pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Span = tuple[float, float]  # a task's own start and end, in seconds of the monotonic clock


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of all samples, between which values nine in ten of them lie, and how the rounds' medians differ."""

    median: float
    low: float  # the 5th percentile
    high: float  # the 95th
    lowest_round: float
    highest_round: float
    count: int


def handovers(spans: Iterable[Span], slots: int) -> list[float]:
    """Seconds from the end of a task to the start of the one that takes its slot.

    The first `slots` starts find a free slot. Each later one takes the slot that has been free for longest: the
    earliest end that no start has taken yet. Negative if more than `slots` tasks ever ran at once.
    """
    spans = list(spans)
    starts = sorted(start for start, _ in spans)
    ends = sorted(end for _, end in spans)
    return [start - end for start, end in zip(starts[slots:], ends, strict=False)]


def makespan(spans: Iterable[Span]) -> float:
    """Seconds from the first start to the last end."""
    spans = list(spans)
    return max(end for _, end in spans) - min(start for start, _ in spans)


def percentile(samples: Sequence[float], share: float) -> float:
    """The value below which this share (0 to 1) of the samples lies, interpolated between neighbours."""
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread(rounds: Sequence[Sequence[float]]) -> Spread:
    """The spread of some rounds' samples.

    Raises:
        ValueError: there is no sample.
    """
    full = [list(samples) for samples in rounds if samples]
    every = [sample for samples in full for sample in samples]
    if not every:
        raise ValueError("no samples")
    medians = [statistics.median(samples) for samples in full]
    return Spread(
        statistics.median(every), percentile(every, 0.05), percentile(every, 0.95), min(medians), max(medians),
        len(every),
    )  # fmt: skip
