"""The GPUs of this machine, and which of them the scheduler uses. Pure: `nvml` asks the driver.

Indices are NVML's: the order of the PCI bus, which `nvidia-smi` shows and which CUDA follows with
`CUDA_DEVICE_ORDER=PCI_BUS_ID`. They can change over a reboot; UUIDs don't.

A GPU that MIG divides can't be used itself; its instances are devices of their own. CUDA knows these by UUID only, so
they have numbers that no GPU has: instance 2 of GPU 1 is 202.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tinksched.errors import UsageError

NO_DRIVER = "no NVIDIA driver: slots only"
_UUID_STARTS = ("GPU-", "MIG-")
_OLD_INSTANCE = re.compile(r"(MIG-GPU-.+)_([0-9]+)_([0-9]+)")  # drivers before 470: MIG-GPU-UUID/INSTANCE/INSTANCE


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU or MIG instance. What NVML doesn't know, or wasn't there to tell, is None and never a number."""

    index: int
    """NVML's index, from 0; of a MIG instance see `instance_number`."""
    uuid: str | None = None
    """Such as `GPU-8932f937-d72c-4106-c12f-20bd9faed9f6`; the same after a reboot."""
    name: str | None = None
    """The product's name, such as `NVIDIA H200`."""
    memory_total: int | None = None
    """Bytes. None also where the GPU has no memory of its own."""
    parent: int | None = None
    """The index of the GPU that this is a MIG instance of."""
    divided: bool = False
    """MIG is on, so only its instances can be used."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was found on this machine, in NVML's order; the instances of a GPU follow it."""

    devices: tuple[Device, ...]
    driver: bool
    """Whether NVML's library is there. It comes with the driver, and can be there while the driver is not loaded."""
    problem: str | None
    """A sentence without a full stop, if NVML failed; no driver at all is no problem."""
    version: str | None = None
    """The driver's version, such as `550.54.15`."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The GPUs that the scheduler uses, none twice; `resolve` finds at least one."""

    gpus: tuple[Device, ...]
    """In order of preference: that of `use_gpus`, else that of CUDA_VISIBLE_DEVICES, else NVML's."""
    note: str | None
    """What `status` should say about them, if anything."""
    there: tuple[Device, ...] = ()
    """All devices of this machine, those that MIG divides as well."""

    @property
    def names(self) -> dict[int, str]:
        """The names under which their leases stand, by index."""
        return {gpu.index: lease_name(gpu) for gpu in self.gpus}


def instance_number(parent: int, place: int) -> int:
    """The number of a MIG instance, from the index of its GPU and its place there. CUDA knows no such index."""
    return 100 * (parent + 1) + place


# ---------------------------------------------------------------- which of them to use


def resolve(
    inventory: Inventory,
    *,
    gpu_count: int | None,
    use_gpus: tuple[int | str, ...] | None,
    visible: str | None,
) -> Resolved:
    """Decide which GPUs the scheduler uses. Pure.

    Without NVML (no driver, or it fails as a whole) GPUs are only slots: numbers are trusted, `visible` is ignored,
    and `note` says so.

    Args:
        inventory: What `nvml.discover` found.
        gpu_count: How many, at least 1; None is `auto`: all that may be used, or 1 without NVML. MIG instances count,
            the GPU that they are part of does not.
        use_gpus: Indices or UUIDs in order of preference; wins over `gpu_count`. None if not given. A UUID may be
            shortened to a beginning that only one GPU has.
        visible: The scheduler's own CUDA_VISIBLE_DEVICES, None if unset: the set of GPUs that may be used. Indices
            in it are NVML's. CUDA silently hides the GPUs behind an invalid entry; here such an entry is an error.
            Source: CUDA C++ Programming Guide, "CUDA Environment Variables".

    Raises:
        UsageError: NVML fails as a whole; there is no GPU, or fewer than asked for; an entry names no GPU, one that is
            not allowed, one that another entry names too, one that MIG divides, or one that does not say its UUID;
            UUIDs without NVML.
    """
    if not inventory.devices and inventory.problem and inventory.driver:
        # Slots by index would not see the leases that runs hold on the same GPUs by UUID.
        raise UsageError(
            f"{inventory.problem}, so the GPUs can't be told apart",
            hint="tasks of `gpus: 0` can run all the same; see what `nvidia-smi` says, and restart the machine if its "
            "driver was updated",
        )
    if not inventory.devices and not inventory.driver:
        note = f"{inventory.problem}: slots only" if inventory.problem else NO_DRIVER
        slots = _slots_only(gpu_count, use_gpus, note)
        return Resolved(slots, note, slots)
    if not inventory.devices:
        raise UsageError(
            "no GPU: the NVIDIA driver is there, but it counts 0 GPUs",
            hint="see what `nvidia-smi -L` prints; a container must be given its GPUs (`docker run --gpus all`)",
        )
    if all(device.divided for device in inventory.devices):
        raise UsageError(
            f"no GPU that can be used: MIG is on for {_list(inventory.devices)}, and there is no instance",
            hint="make instances with `nvidia-smi mig -cgi … -C`, or switch MIG off",
        )
    if not any(map(_can_be_used, inventory.devices)):
        raise UsageError(f"no GPU that can be used: {inventory.problem or 'none of them says its UUID'}")
    allowed = _allowed(inventory.devices, visible)
    if use_gpus is not None:
        gpus = _named(use_gpus, inventory.devices, allowed)
    else:
        gpus = _counted(gpu_count, inventory.devices, allowed)
    return Resolved(gpus, inventory.problem, inventory.devices)


def pinned(entry: str, found: Resolved) -> Device:
    """The GPU in use that an entry of the GPU list names, by index or UUID.

    Raises:
        UsageError: there is none.
    """
    known = [gpu for gpu in found.there if entry in (str(gpu.index), gpu.uuid)]
    for gpu in known:
        if gpu in found.gpus:
            return gpu
        _refuse_unusable(gpu, found.there, "the GPU list")
    exist = ", ".join(str(gpu.index) for gpu in sorted(found.gpus, key=lambda gpu: gpu.index))
    raise UsageError(f"GPU {entry!r} is not one that the scheduler uses (there are: {exist})")


def lease_name(device: Device) -> str:
    """The device's name in the host-wide lease folder: its UUID, or `index-N`; letters, digits, `-` and `_` only."""
    if device.uuid is None:
        return f"index-{device.index}"
    return re.sub(r"[^A-Za-z0-9_-]", "_", device.uuid)


def known_again(inventory: Inventory, names: Mapping[int, str]) -> Inventory:
    """The inventory, in which devices that don't say their UUIDs at present have those that they had before.

    `names` are the devices' names in the lease folder, by index.
    """
    told = {device.uuid for device in inventory.devices}

    def again(device: Device) -> Device:
        before = uuid_of(names.get(device.index, ""))
        return device if device.uuid is not None or before in told else replace(device, uuid=before)

    return replace(inventory, devices=tuple(map(again, inventory.devices)))


def uuid_of(name: str) -> str | None:
    """The UUID of the device that has this name in the lease folder; None for `index-N`."""
    old = _OLD_INSTANCE.fullmatch(name)
    if old:
        return "/".join(old.groups())
    return name if name.startswith(_UUID_STARTS) else None


def exported(indices: Sequence[int], names: Sequence[str], *, by_uuid: bool) -> str:
    """What a run finds in CUDA_VISIBLE_DEVICES: indices, or UUIDs if that is asked for or one is a MIG instance.

    `names` are the devices' names in the lease folder, in the same order. A device without a UUID keeps its index.
    """
    if not by_uuid and not any(name.startswith("MIG-") for name in names):
        return ",".join(map(str, indices))
    return ",".join(uuid_of(name) or str(index) for index, name in zip(indices, names, strict=True))


def _slots_only(gpu_count: int | None, use_gpus: Sequence[int | str] | None, note: str) -> tuple[Device, ...]:
    if use_gpus is None:
        count = 1 if gpu_count is None else gpu_count
        _require_positive(count)
        return tuple(Device(index) for index in range(count))
    gpus = []
    for entry in use_gpus:
        if not re.fullmatch(r"[0-9]{1,6}", str(entry)):
            raise UsageError(f"{note}; GPUs can then be named by index only, not as {entry!r} (use_gpus)")
        gpus.append(Device(int(entry)))
    return _distinct(use_gpus, gpus, "use_gpus")


def _allowed(devices: Sequence[Device], visible: str | None) -> tuple[Device, ...]:
    """The devices that CUDA_VISIBLE_DEVICES lets through, in its order."""
    if visible is None:
        return tuple(filter(_can_be_used, devices))
    if not visible.strip():
        raise UsageError(
            "CUDA_VISIBLE_DEVICES is empty, and so allows no GPU",
            hint=f"unset it, or let it name GPUs that may be used; this machine has {_list(devices)}",
        )
    entries = [entry.strip() for entry in visible.split(",")]
    gpus = [_find(entry, devices, "CUDA_VISIBLE_DEVICES") for entry in entries]
    usable = tuple(filter(_can_be_used, _distinct(entries, gpus, "CUDA_VISIBLE_DEVICES")))
    if not usable:
        _refuse_unusable(gpus[0], devices, "CUDA_VISIBLE_DEVICES")
    return usable


def _named(use_gpus: Sequence[int | str], devices: Sequence[Device], allowed: Sequence[Device]) -> tuple[Device, ...]:
    gpus = [_find(entry, devices, "use_gpus") for entry in use_gpus]
    for gpu in gpus:
        _refuse_unusable(gpu, devices, "use_gpus")
        if gpu not in allowed:
            raise UsageError(
                f"GPU {gpu.index} may not be used; CUDA_VISIBLE_DEVICES allows {_list(allowed)} only (use_gpus)"
            )
    return _distinct(use_gpus, gpus, "use_gpus")


def _counted(gpu_count: int | None, devices: Sequence[Device], allowed: Sequence[Device]) -> tuple[Device, ...]:
    count = len(allowed) if gpu_count is None else gpu_count
    _require_positive(count)
    there = list(filter(_can_be_used, devices))
    if count > len(there):
        raise UsageError(f"gpu_count is {count}, but this machine has {len(there)}: {_list(there)}{_silent(devices)}")
    if count > len(allowed):
        raise UsageError(f"gpu_count is {count}, but CUDA_VISIBLE_DEVICES allows {len(allowed)}: {_list(allowed)}")
    return tuple(allowed[:count])


def _require_positive(gpu_count: int) -> None:
    if gpu_count < 1:
        raise UsageError(f"gpu_count is {gpu_count}; at least 1 is needed, or `auto`")


def _find(entry: int | str, devices: Sequence[Device], source: str) -> Device:
    """The device of this index or UUID, or the only one whose UUID begins so. `source` is where the entry stands."""
    text = str(entry)
    matches = [device for device in devices if text in (str(device.index), device.uuid)]
    if not matches and text.startswith(_UUID_STARTS) and text not in _UUID_STARTS:
        matches = [device for device in devices if device.uuid is not None and device.uuid.startswith(text)]
    if len(matches) == 1:
        _refuse_divided(matches[0], devices, source)
        return matches[0]
    if matches:
        raise UsageError(f"{text} is the beginning of the UUIDs of several GPUs: {_list(matches)} ({source})")
    number = text.isdecimal()
    raise UsageError(
        f"GPU {text if number else repr(text)} does not exist here; this machine has {_list(devices)} ({source})",
        hint=None if number else "`nvidia-smi -L` lists the GPUs and MIG instances with their UUIDs",
    )


def _can_be_used(device: Device) -> bool:
    """Whether it is no GPU that MIG divides, and says who it is: leases by index are not seen by those by UUID."""
    return not device.divided and device.uuid is not None


def _refuse_unusable(gpu: Device, devices: Sequence[Device], source: str) -> None:
    """Raises UsageError: see `_can_be_used`."""
    _refuse_divided(gpu, devices, source)
    if gpu.uuid is None:
        raise UsageError(
            f"GPU {gpu.index} does not answer ({source})",
            hint="see what `nvidia-smi` says about it; it may want a reset",
        )


def _refuse_divided(gpu: Device, devices: Sequence[Device], source: str) -> None:
    """Raises UsageError: MIG divides this GPU. Its instances are named."""
    if not gpu.divided:
        return
    instances = [device for device in devices if device.parent == gpu.index]
    parts = f"its instances are {', '.join(map(_label, instances))}" if instances else "it has no instances"
    raise UsageError(f"GPU {gpu.index} is divided by MIG, and can't be used itself; {parts} ({source})")


def _distinct(entries: Sequence[int | str], gpus: Sequence[Device], source: str) -> tuple[Device, ...]:
    """The GPUs, of which each belongs to the entry at its place; none may come twice."""
    if not gpus:
        raise UsageError(f"{source} names no GPU; leave it out to use all that there are")
    named: dict[int, int | str] = {}
    for entry, gpu in zip(entries, gpus, strict=True):
        if gpu.index in named:
            raise UsageError(f"GPU {gpu.index} is named twice, as {named[gpu.index]} and as {entry} ({source})")
        named[gpu.index] = entry
    return tuple(gpus)


def _silent(devices: Sequence[Device]) -> str:
    """Those that don't say who they are, as an ending of a sentence."""
    indices = [device.index for device in devices if device.uuid is None]
    return f"; {_numbers(indices)} do{'es' * (len(indices) == 1)} not answer" if indices else ""


def _list(devices: Sequence[Device]) -> str:
    """`GPU 0`, `GPUs 0-3`, or `GPUs 0, 2` for a message; MIG instances one by one."""
    indices = sorted(device.index for device in devices if device.parent is None and not device.divided)
    instances = [_label(device) for device in devices if device.parent is not None]
    if not indices and not instances:
        indices = sorted(device.index for device in devices)
    whole = _numbers(indices) if indices else ""
    return ", ".join(filter(None, [whole, f"MIG {', '.join(instances)}" if instances else ""]))


def _numbers(indices: Sequence[int]) -> str:
    first, last = indices[0], indices[-1]
    if len(indices) == 1:
        return f"GPU {first}"
    if len(indices) > 2 and last - first == len(indices) - 1:
        return f"GPUs {first}-{last}"
    return f"GPUs {', '.join(map(str, indices))}"


def _label(instance: Device) -> str:
    return f"{instance.index} ({instance.uuid})" if instance.uuid else str(instance.index)
