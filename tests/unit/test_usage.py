"""Folding samples of a run into one small record."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinksched.core.usage import LONGEST_FLAG, MOST_FLAGS, Sample, Usage

GB = 2**30
samples = st.builds(
    Sample,
    at=st.floats(0, 1e10),
    gpu_memory=st.none() | st.lists(st.integers(0, 2**40), max_size=8),
    gpu_utilization=st.none() | st.floats(0, 100),
    cpu_seconds=st.none() | st.floats(0, 1e9),
    memory=st.none() | st.integers(0, 2**50),
    flags=st.lists(st.text(max_size=300), max_size=9).map(tuple),
)


def folded(*given: Sample) -> Usage:
    usage = Usage()
    for sample in given:
        usage = usage.with_sample(sample)
    return usage


def test_memory_is_that_of_the_fullest_gpu_and_its_peak_stays() -> None:
    usage = folded(Sample(1.0, [2 * GB, 5 * GB], memory=7), Sample(2.0, [3 * GB, 1 * GB], memory=4))
    assert (usage.gpu_memory, usage.gpu_memory_peak, usage.memory, usage.memory_peak) == (3 * GB, 5 * GB, 4, 7)
    assert (usage.at, usage.samples) == (2.0, 2)


def test_the_utilisation_is_the_mean_of_the_samples_that_know_it() -> None:
    usage = folded(*(Sample(1.0, gpu_utilization=value) for value in (10.0, None, 50.0, 90.0, None)))
    assert usage.gpu_utilization == pytest.approx(50.0)
    assert (usage.gpu_samples, usage.samples) == (3, 5)


def test_cpu_time_never_goes_back() -> None:
    """A process that has ended takes its own along."""
    assert folded(Sample(1.0, cpu_seconds=30.0), Sample(2.0, cpu_seconds=4.0)).cpu_seconds == 30.0


def test_what_is_not_known_is_none_and_never_a_number() -> None:
    usage = folded(Sample(1.0), Sample(2.0, []))
    assert usage == Usage(at=2.0, samples=2)
    then = usage.with_sample(Sample(3.0, [0], 0.0, 0.0, 0))
    assert (then.gpu_memory, then.gpu_memory_peak, then.gpu_utilization, then.cpu_seconds) == (0, 0, 0.0, 0.0)
    lost = then.with_sample(Sample(4.0))
    assert lost == replace(then, at=4.0, samples=4, gpu_memory=None, memory=None)


def test_flags_are_those_of_now_and_few_and_short() -> None:
    usage = folded(Sample(1.0, flags=("a",)), Sample(2.0, flags=tuple("x" * 999 for _ in range(99))))
    assert len(usage.flags) == MOST_FLAGS and {len(flag) for flag in usage.flags} == {LONGEST_FLAG}
    assert usage.with_sample(Sample(3.0)).flags == ()


@given(st.lists(samples, max_size=8))
def test_a_peak_is_never_below_what_was_seen_and_a_mean_between(given: list[Sample]) -> None:
    usage = folded(*given)
    seen = [max(sample.gpu_memory) for sample in given if sample.gpu_memory]
    assert usage.gpu_memory_peak == max(seen, default=None)
    rates = [sample.gpu_utilization for sample in given if sample.gpu_utilization is not None]
    if usage.gpu_utilization is not None:
        assert min(rates) - 1e-6 <= usage.gpu_utilization <= max(rates) + 1e-6
    assert usage.samples == len(given)
