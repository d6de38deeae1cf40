"""`gpus`: what this host's GPUs do, who is on them since when, and who waits. Needs no workspace, and reads only."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..core.fairness import Rival
from ..core.gpu import GpuState
from ..core.model import CPU
from ..host import gpus, notices, nvml
from ..host.leases import Held, Leases, default_folder
from .seen import state_json

JSON_VERSION = 1
_INDEX = re.compile(r"index-([0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class Occupied:
    """A GPU of this host, or a slot counter where there is no driver, and the live leases on it."""

    index: int | None
    device: str
    name: str | None
    present: bool | None  # whether the driver knows it; None without a driver
    holders: tuple[Held, ...]
    uuid: str | None = None
    parent: int | None = None  # the index of the GPU that this is a MIG instance of
    divided: bool = False  # MIG is on: its instances are used, not the GPU itself
    state: GpuState | None = None


@dataclass(frozen=True, slots=True)
class Occupancy:
    """The GPUs of this host at one instant."""

    gpus: tuple[Occupied, ...]
    waiting: tuple[Rival, ...]  # schedulers that wait for slots which others hold
    note: str | None
    driver: str | None = None  # its version

    def json(self) -> dict[str, object]:
        """The versioned form for programs. Times are seconds since the epoch."""
        return {
            "version": JSON_VERSION,
            "note": self.note,
            "driver": self.driver,
            "gpus": [_gpu_json(gpu) for gpu in self.gpus],
            "waiting": [
                {
                    "user": rival.user,
                    "workspace": rival.workspace,
                    "tasks": sum(ask.count for ask in rival.asks),
                    "devices": sorted({device for ask in rival.asks for device in ask.devices}),
                }
                for rival in self.waiting
            ],
        }


def occupancy() -> Occupancy:
    """Look at this host.

    Raises:
        TinkschedError: the lease folder can't be read.
    """
    sample = nvml.look()
    inventory = sample.inventory
    folder = default_folder()
    held = Leases(folder).look() if folder.is_dir() else []
    rivals = tuple(heard.rival for heard in notices.listen(folder, "")) if folder.is_dir() else ()
    shown = [_occupied(found, held, sample) for found in inventory.devices]
    known = {gpu.device for gpu in shown}
    for device in sorted({lease.device for lease in held} - known):
        counted = _INDEX.fullmatch(device)
        present = False if inventory.driver and device != CPU else None
        shown.append(Occupied(int(counted[1]) if counted else None, device, None, present, _on(device, held)))
    note = inventory.problem or (None if inventory.driver else gpus.NO_DRIVER)
    return Occupancy(tuple(shown), rivals, note, inventory.version)


def _occupied(found: gpus.Device, held: list[Held], sample: nvml.Sample) -> Occupied:
    device = gpus.lease_name(found)
    state = sample.states.get(device)
    return Occupied(
        found.index, device, found.name, True, _on(device, held), found.uuid, found.parent, found.divided, state
    )


def _on(device: str, held: list[Held]) -> tuple[Held, ...]:
    return tuple(sorted((lease for lease in held if lease.device == device), key=lambda lease: lease.claim.since))


def _gpu_json(gpu: Occupied) -> dict[str, object]:
    return {
        "index": gpu.index,
        "device": gpu.device,
        "name": gpu.name,
        "present": gpu.present,
        "uuid": gpu.uuid,
        "mig": {"divided": gpu.divided, "parent": gpu.parent},
        "state": state_json(gpu.state),
        "holders": [
            {
                "user": lease.user,
                "workspace": lease.claim.workspace,
                "task": lease.claim.task,
                "run": lease.claim.run_id,
                "since": lease.claim.since,
                "limit": lease.claim.limit,
            }
            for lease in gpu.holders
        ],
    }
