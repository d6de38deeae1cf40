"""What a run uses, as samples of it show: one small record a run, however long it takes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

Number = TypeVar("Number", int, float)
MOST_FLAGS = 5
LONGEST_FLAG = 200  # characters


@dataclass(frozen=True, slots=True)
class Sample:
    """A run at one instant. What nobody could find out is None, never 0.

    `flags` are what is odd about it now, as sentences without a full stop: "never touched its GPU".
    """

    at: float  # seconds since the epoch
    gpu_memory: Sequence[int] | None = None  # bytes, on each of its GPUs
    gpu_utilization: float | None = None  # percent, mean over its GPUs
    cpu_seconds: float | None = None  # of all its processes so far, those that have ended included if they are known
    memory: int | None = None  # bytes, resident, of all its processes
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run uses now, and at its peak; after its end, what it used. None is unknown.

    Memory of a GPU is that on the GPU where the run has the most: it is what one GPU must have free for it.
    """

    at: float = 0.0  # of the last sample
    samples: int = 0
    gpu_samples: int = 0  # those in which the utilisation was known
    gpu_memory: int | None = None
    gpu_memory_peak: int | None = None
    gpu_utilization: float | None = None  # percent, mean over the samples
    cpu_seconds: float | None = None
    memory: int | None = None
    memory_peak: int | None = None
    flags: tuple[str, ...] = ()

    def with_sample(self, sample: Sample) -> Usage:
        """The record with one more sample. What a sample does not know stays as it was, but for the memory now."""
        gpu_memory = max(sample.gpu_memory, default=None) if sample.gpu_memory is not None else None
        mean, known = self.gpu_utilization, self.gpu_samples
        if sample.gpu_utilization is not None:
            known += 1
            mean = sample.gpu_utilization if mean is None else mean + (sample.gpu_utilization - mean) / known
        return replace(
            self,
            at=sample.at,
            samples=self.samples + 1,
            gpu_samples=known,
            gpu_memory=gpu_memory,
            gpu_memory_peak=_most(self.gpu_memory_peak, gpu_memory),
            gpu_utilization=mean,
            cpu_seconds=_most(self.cpu_seconds, sample.cpu_seconds),  # that of children who were not waited for is lost
            memory=sample.memory,
            memory_peak=_most(self.memory_peak, sample.memory),
            flags=tuple(flag[:LONGEST_FLAG] for flag in sample.flags[:MOST_FLAGS]),
        )


def _most(before: Number | None, now: Number | None) -> Number | None:
    return now if before is None else before if now is None else max(before, now)
