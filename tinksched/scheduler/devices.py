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
STALE_SECONDS = 2.0  # by what is older nothing starts: a process that has come since then is not in it
SILENCE_SECONDS = 1.0  # after which what is known has to do
BRIEF_SECONDS = 2.0  # how long the driver is waited for by who can do without it


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


def names_of(runs: Iterable[Run]) -> dict[int, str]:
    """By which names runs knew the GPUs, by index, the newest: one that does not say its UUID now is known by that."""
    ordered = sorted(runs, key=lambda run: run.created_at)
    return {index: device for run in ordered for index, device in zip(run.gpus, run.devices, strict=False)}


def is_on(run: Run, index: int, device: str) -> bool:
    """Whether a run is on this GPU. Indices may have changed since it began; names have not, if both are UUIDs."""
    if device in run.devices or gpus.uuid_of(device) is None:
        return device in run.devices or index in run.gpus
    return index in [number for number, name in zip(run.gpus, run.devices, strict=False) if gpus.uuid_of(name) is None]


class Watch:
    """What a scheduler sees of its GPUs while it works. Nobody waits for the driver after the beginning."""

    def __init__(self, *, blind: bool = False, patience: float = nvml.START_PATIENCE) -> None:
        """Takes the first sample, and waits for it, but not longer than `patience` seconds.

        A blind one sees nothing.
        """
        self._monitor = nvml.Monitor() if not blind and nvml.has_library() else None
        self._said: str | None = None
        self._lost: set[str] = set()
        self._there: tuple[gpus.Device, ...] = ()  # when it was last decided which of them are used
        self._again = False  # whether a run has ended since the newest sample was asked for
        if self._monitor is not None:
            self._monitor.wait(patience)

    @property
    def sample(self) -> nvml.Sample | None:
        """The newest one; None without a driver."""
        return self._monitor.latest if self._monitor else None

    @property
    def inventory(self) -> gpus.Inventory:
        """The GPUs of this machine as they were seen last."""
        sample = self.sample
        if sample is None and self._monitor is not None:
            return gpus.Inventory((), driver=True, problem="NVML has not answered yet")
        return sample.inventory if sample else gpus.Inventory((), driver=False, problem=None)

    @property
    def due(self) -> float | None:
        """When something comes of it that the driver does not answer (monotonic), if it is asked at present."""
        asked = self._monitor.asked if self._monitor else None
        if self._monitor is None or asked is None:
            return None
        enough = asked + SILENCE_SECONDS
        return enough if time.monotonic() < enough else self._monitor.due

    def must_wait(self) -> bool:
        """Whether no task may start on a GPU until a newer sample is there, which wakes the scheduler.

        It is asked for here; if it does not come soon, what is known has to do.
        """
        if self._monitor is None or self._monitor.age < STALE_SECONDS:
            return False
        self._monitor.request()
        asked = self._monitor.asked
        return asked is not None and time.monotonic() < asked + SILENCE_SECONDS

    def names(self, settings: Settings, used: Mapping[int, str]) -> Mapping[int, str]:
        """The GPUs to use with these settings. Those in use keep their names where they don't answer now.

        Raises:
            UsageError: as `resolve_gpus`; but where none is in use, there may be none.
        """
        find = resolve_gpus if used else gpus_if_any
        return find(settings, gpus.known_again(self.inventory, used)).names

    def more(self, settings: Settings, used: Mapping[int, str]) -> Mapping[int, str] | None:
        """The GPUs to use from now on, if more of them answer than before, and all those in use are among them.

        The names by index; None if nothing has changed.
        """
        there = self.inventory.devices
        if there == self._there:
            return None
        self._there = there
        try:
            names = self.names(settings, used)
        except TinkschedError:
            return None
        return names if set(names.values()) > set(used.values()) else None

    def listen(self, told: Callable[[], object]) -> None:
        """Call this, from another thread, whenever there is a newer sample."""
        if self._monitor is not None:
            self._monitor.wake = told

    def look(self, interval: float, *, waiting: bool, ended: bool = False) -> None:
        """Ask for a sample if the newest one is old: older than `interval`, or than a second while tasks wait.

        If a run has ended for which others wait, it is: what that run had is free now.
        """
        if self._monitor is None:
            return
        self._again |= ended
        old = self._monitor.age >= min(interval, FRESH_SECONDS if waiting else interval)
        if (old or (self._again and waiting)) and self._monitor.request():
            self._again = False

    def news(self, used: Mapping[int, str], runs: Collection[Run]) -> Iterator[str]:
        """What is to be said about the GPUs in use, each thing once. `runs` are those that go on."""
        sample = self.sample
        if self._monitor is None or sample is None:
            return
        problem = "late" if sample.late else sample.problem  # its words count the seconds
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
