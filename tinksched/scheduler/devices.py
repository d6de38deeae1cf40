"""The GPUs that a workspace's scheduler uses: what the settings ask for on this machine, and what they do."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from ..config import Settings
from ..core.model import CPU, GpuSlots, Run, Tenant
from ..errors import TinkschedError, UsageError
from ..host import gpus, nvml

FADING_SECONDS = 10.0  # that the processes of a run may take to leave a GPU after its end
CPU_INDEX = -1  # as that of a GPU
FRESH_SECONDS = 1.0  # while tasks wait, the GPUs are looked at again at every event, but not more often than that


def resolve_gpus(settings: Settings, inventory: gpus.Inventory | None = None) -> gpus.Resolved:
    """The GPUs that this workspace's tasks may use on this machine, or on that of the inventory.

    Raises:
        UsageError: the settings ask for what isn't there.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = nvml.discover() if inventory is None else inventory
    found = gpus.resolve(there, gpu_count=settings.gpu_count, use_gpus=settings.use_gpus, visible=visible)
    nameless = [str(gpu.index) for gpu in found.gpus if gpu.uuid is None]
    if settings.gpu_ids == "uuid" and nameless:
        why = f" ({found.note})" if found.note else ""
        raise UsageError(f"gpu_ids is uuid, and the UUID of GPU {', '.join(nameless)} is not known{why}")
    return found


def gpus_if_any(settings: Settings, inventory: gpus.Inventory | None = None) -> gpus.Resolved:
    """As `resolve_gpus`; none where that fails, with the reason as the note. For tasks that need no GPU."""
    try:
        return resolve_gpus(settings, inventory)
    except TinkschedError as error:
        return gpus.Resolved((), error.message)


def cpu_slots(settings: Settings) -> int:
    """How many runs without GPUs may go on at once."""
    return len(os.sched_getaffinity(0)) if settings.cpu_slots is None else settings.cpu_slots


def most_on_cpu(slots: int) -> int:
    """How many runs without GPUs all schedulers of the host together may have, as one with so many slots sees it."""
    return max(slots, os.cpu_count() or 1)


def cpu_of(slots: int, own: tuple[Run, ...], others: tuple[Tenant, ...]) -> GpuSlots:
    """The CPU like a GPU. `slots` are for the own runs; others have theirs, and all of them the machine."""
    return GpuSlots(CPU_INDEX, CPU, min(len(others) + slots, most_on_cpu(slots)), own, others)


def fading_runs(runs: Iterable[Run], now: float) -> frozenset[str]:
    """The ids of those that have just ended, and may not have left their GPUs yet."""
    return frozenset(run.id for run in runs if run.ended_at is not None and now - run.ended_at < FADING_SECONDS)


def is_on(run: Run, index: int, device: str) -> bool:
    """Whether a run is on this GPU. Indices may have changed since it began; names have not, if both are UUIDs."""
    if device in run.devices or gpus.uuid_of(device) is None:
        return device in run.devices or index in run.gpus
    return index in [number for number, name in zip(run.gpus, run.devices, strict=False) if gpus.uuid_of(name) is None]


class Watch:
    """What a scheduler sees of its GPUs while it works. Nobody waits for the driver after the beginning."""

    def __init__(self, *, blind: bool = False) -> None:
        """Takes the first sample, and waits for it: what starts first has to know as much as what starts later.

        A blind one sees nothing.
        """
        self._monitor = nvml.Monitor() if not blind and nvml.has_library() else None
        self._said: str | None = None
        self._lost: set[str] = set()
        if self._monitor is not None:
            self._monitor.wait(nvml.START_PATIENCE)

    @property
    def sample(self) -> nvml.Sample | None:
        """The newest one; None without a driver."""
        return self._monitor.latest if self._monitor else None

    @property
    def inventory(self) -> gpus.Inventory:
        """The GPUs of this machine as they were seen last."""
        sample = self.sample
        return sample.inventory if sample else gpus.Inventory((), driver=False, problem=None)

    @property
    def due(self) -> float | None:
        """When it is to be said that the driver does not answer (monotonic), if it is asked at present."""
        return self._monitor.due if self._monitor else None

    def listen(self, told: Callable[[], object]) -> None:
        """Call this, from another thread, whenever there is a newer sample."""
        if self._monitor is not None:
            self._monitor.wake = told

    def look(self, interval: float, *, waiting: bool, ended: bool = False) -> None:
        """Ask for a sample if the newest one is old: older than `interval`, or than a second while tasks wait.

        If a run has ended for which others wait, it is: what that run had is free now.
        """
        sample = self.sample
        age = time.time() - sample.at if sample else -1.0
        old = not 0 <= age < min(interval, FRESH_SECONDS if waiting else interval)
        if self._monitor and (old or (ended and waiting)):
            self._monitor.request()

    def news(self, used: Mapping[int, str], runs: Collection[Run]) -> Iterator[str]:
        """What is to be said about the GPUs in use, each thing once. `runs` are those that go on."""
        sample = self.sample
        if self._monitor is None or sample is None:
            return
        problem = "late" if self._monitor.late else sample.problem
        if problem != self._said:
            yield sample.problem or "NVML answers, and has no problem any more"
        self._said = problem
        for index, device in used.items():
            state = sample.state_of(device, index)
            if state is None or state.lost == (device in self._lost):
                continue
            self._lost ^= {device}
            if not state.lost:
                yield f"GPU {index} is back"
                continue
            there = ", ".join(run.task for run in runs if device in run.devices)
            yield f"GPU {index} is lost ({state.problem}): nothing is started there; on it {there or 'nothing'} ran"
