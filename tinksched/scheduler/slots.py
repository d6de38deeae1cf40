"""The slots that the runs of a workspace may take: those of its GPUs, and those of the CPU for tasks without GPUs.

With the leases that its runs hold on them, and what was seen of the GPUs last.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from ..config import Settings
from ..core.model import CPU, GpuSlots, Placement, Run, Task, Tenant
from ..host.leases import Claim, Desk, Held, Lease, Leases, tenant_of
from ..host.nvml import Sample
from ..host.processes import Process
from .devices import CPU_INDEX, FADING_SECONDS, cpu_of, cpu_slots, is_on, most_on_cpu


class Slots:
    """What a workspace's scheduler knows of them. `own` are its runs that go on, `others` the leases of others."""

    def __init__(self) -> None:
        self._leases = Leases()
        self._held: dict[str, Lease] = {}  # by run id
        self._last_start: dict[int, float] = {}  # by GPU
        self._gone: dict[str, float] = {}  # runs whose leases were let go just now, and when (monotonic)
        self.gpus: Mapping[int, str] = {}  # index to device name, in order of preference
        self.cpu = 0  # how many runs without GPUs may go on at once
        self.seen: Sample | None = None  # what the GPUs do

    def use(self, settings: Settings, gpus: Mapping[int, str]) -> None:
        """Work with these settings and GPUs from now on."""
        self._settings = settings
        self.gpus = gpus
        self.cpu = cpu_slots(settings)

    @property
    def folder(self) -> Path:
        """Where the leases of this host are; a slot that falls free shows there."""
        return self._leases.folder

    def remake_folder(self) -> None:
        """Somebody deleted it. Raises TinkschedError: it can't be made."""
        self._leases.prepare()

    def close(self) -> None:
        """Let go of the leases. Runs that go on hold theirs themselves."""
        self._leases.close()
        for lease in self._held.values():
            lease.close()

    # -- what there is

    @property
    def last_start(self) -> float:
        """When this workspace last started a run; 0 if it never did."""
        return max(self._last_start.values(), default=0.0)

    def devices(self, *, cpu: bool) -> list[str]:
        """Whose admission locks are wanted; that of the CPU where tasks need no GPU."""
        return [*self.gpus.values(), *([CPU] if cpu else [])]

    def of_gpus(self, own: Collection[Run], others: Sequence[Held]) -> list[GpuSlots]:
        """The GPUs as placement sees them."""
        now = time.monotonic()
        self._gone = {run_id: at for run_id, at in self._gone.items() if now - at < FADING_SECONDS}
        fading = frozenset(self._gone)
        return [
            GpuSlots(
                index,
                device,
                self._settings.max_jobs_per_gpu,
                own=tuple(run for run in own if is_on(run, index, device)),
                others=_tenants(device, others),
                last_start=self._last_start.get(index),
                state=self.seen.state_of(device, index) if self.seen else None,
                fading=fading,
            )
            for index, device in self.gpus.items()
        ]

    def of_cpu(self, own: Collection[Run], others: Sequence[Held]) -> GpuSlots | None:
        """The slots of tasks without GPUs, like those of a GPU; None if there are none."""
        mine = tuple(run for run in own if not run.gpus)
        return cpu_of(self.cpu, mine, _tenants(CPU, others)) if self.cpu else None

    # -- leases

    def admission(self, *, cpu: bool) -> AbstractContextManager[Desk]:
        """The admission locks of all devices. Raises TinkschedError: they can't be had at present."""
        return self._leases.admission(self.devices(cpu=cpu))

    def look(self, *, cpu: bool) -> list[Held]:
        """Who holds leases on all devices. Raises TinkschedError: the folder can't be read."""
        return self._leases.look(self.devices(cpu=cpu))

    def take(self, desk: Desk, task: Task, placed: Placement, run_id: str, now: float) -> tuple[tuple[str, ...], Path]:
        """Lease the slots of a placement for a run. Returns the devices and the lease's file."""
        devices = tuple(self.gpus[index] for index in placed.gpus) or (CPU,)
        claim = self._claim(run_id, task.name, placed.gpus, placed.exclusive, now, placed.memory)
        self._held[run_id] = desk.grant(devices, claim)
        return devices, self._held[run_id].path

    def started(self, run: Run) -> None:
        """A run has been put on record."""
        self._last_start.update(dict.fromkeys(run.gpus or (CPU_INDEX,), run.created_at))

    def hold(self, run: Run) -> None:
        """Hold the lease of a run that an earlier scheduler started."""
        lease = self._leases.hold(Path(run.lease))
        if lease is not None:
            self._held[run.id] = lease
        self.started(run)

    def let_go(self, run: Run) -> None:
        """Give back the lease of a run that has ended. All its processes are gone, so nobody else holds it."""
        lease = self._held.pop(run.id, None)
        if lease is not None:
            lease.close()
        self._gone[run.id] = time.monotonic()
        self._leases.release(Path(run.lease), run.devices, run.id)

    def bare(self, own: Iterable[Run]) -> list[Run]:
        """The runs of whose lease a file is gone, so that others don't see that they are there."""
        return [run for run in own if not all(self._leases.is_there(device, run.id) for device in run.devices)]

    def restore(self, desk: Desk, run: Run, alive: Sequence[Process]) -> bool:
        """Make the lease of a run again that somebody has deleted. False if its GPUs are not used any more."""
        if not set(run.devices) <= set(desk.devices):
            return False
        claim = self._claim(run.id, run.task, run.gpus, run.exclusive, run.created_at, run.record.memory)
        restored = desk.restore(run.devices, replace(claim, processes=tuple(alive)))
        before, self._held[run.id] = self._held.get(run.id), restored
        if before is not None:
            before.close()
        return True

    def _claim(self, run_id: str, task: str, gpus: Sequence[int], exclusive: bool, since: float, memory: int) -> Claim:
        """What the lease of a run says."""
        limit = 1 if exclusive else self._settings.max_jobs_per_gpu
        limit = limit if gpus else most_on_cpu(self.cpu)
        workspace = str(self._settings.workspace)
        return Claim(run_id, task, workspace, limit, since, memory=memory, warmup=self._settings.warmup)


def _tenants(device: str, others: Sequence[Held]) -> tuple[Tenant, ...]:
    return tuple(tenant_of(lease) for lease in others if lease.device == device)
