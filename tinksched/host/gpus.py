"""The GPUs of this machine: what NVML says about them, and which of them the scheduler uses.

`discover` asks the driver; it is the only function here with a side effect, and it never raises. `resolve` is pure:
it turns what was found, and what the user asked for, into the GPUs to use or into an error that says why not.

Source: the NVML API reference (https://docs.nvidia.com/deploy/nvml-api/), through NVIDIA's own binding `pynvml`
(package nvidia-ml-py). Indices are NVML's: the order of the PCI bus, which `nvidia-smi` shows and which CUDA follows
with `CUDA_DEVICE_ORDER=PCI_BUS_ID`. They can change over a reboot; UUIDs don't.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tinksched.errors import UsageError

NO_DRIVER = "no NVIDIA driver: slots only"
_UUID_START = "GPU-"


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU. What NVML doesn't know, or wasn't there to tell, is None and never a number."""

    index: int
    """NVML's index, from 0."""
    uuid: str | None = None
    """Such as `GPU-8932f937-d72c-4106-c12f-20bd9faed9f6`; the same after a reboot."""
    name: str | None = None
    """The product's name, such as `NVIDIA H200`."""
    memory_total: int | None = None
    """Bytes. None also where the GPU has no memory of its own."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was found on this machine, in NVML's order."""

    devices: tuple[Device, ...]
    driver: bool
    """Whether NVML's library is there. It comes with the driver, and can be there while the driver is not loaded."""
    problem: str | None
    """A sentence without a full stop, if NVML failed; no driver at all is no problem."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The GPUs that the scheduler uses, none twice; `resolve` finds at least one."""

    gpus: tuple[Device, ...]
    """In order of preference: that of `use_gpus`, else that of CUDA_VISIBLE_DEVICES, else NVML's."""
    note: str | None
    """What `status` should say about them, if anything."""


# ---------------------------------------------------------------- asking the driver


def discover() -> Inventory:
    """Ask NVML for this machine's GPUs, afresh at each call. Never raises.

    Starting NVML takes milliseconds, or seconds where the driver's persistence mode is off.

    Returns:
        `driver=False` without a problem if there is no NVML library (pynvml can't tell this from one that doesn't
        load); no devices and a problem if NVML fails as a whole; devices with unknown fields and a problem if
        it fails for single devices.
    """
    if "pynvml" not in sys.modules and not _has_library():
        return Inventory((), driver=False, problem=None)
    try:
        import pynvml  # type: ignore[import-untyped,unused-ignore]
    except Exception as error:  # absent or broken: tasks that need no GPU run all the same
        return Inventory((), driver=False, problem=f"nvidia-ml-py can't be imported ({error})")
    try:
        with _session(pynvml):
            return _take_stock(pynvml)
    except pynvml.NVMLError_LibraryNotFound:
        return Inventory((), driver=False, problem=None)
    except Exception as error:  # a foreign library and its binding: whatever they raise is no reason to stop
        return Inventory((), driver=True, problem=f"NVML fails ({_reason(error)})")


def _has_library() -> bool:
    """Whether NVML's library can be loaded, as `pynvml` loads it. Most of its own loading is spared where it can't."""
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


@contextmanager
def _session(nvml: ModuleType) -> Iterator[None]:
    """NVML is usable inside; initialisations are counted by NVML, so each is paired with a shutdown."""
    nvml.nvmlInit()
    try:
        yield
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _take_stock(nvml: ModuleType) -> Inventory:
    found = [_ask_device(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    problems = [problem for _, problem in found if problem]
    return Inventory(tuple(device for device, _ in found), driver=True, problem="; ".join(problems) or None)


def _ask_device(nvml: ModuleType, index: int) -> tuple[Device, str | None]:
    """One device and its first problem. A device that doesn't answer is counted all the same, so indices stay true."""
    problems: list[str] = []

    def ask(question: Callable[..., Any], argument: object) -> Any:
        try:
            return question(argument)
        except nvml.NVMLError_NotSupported:  # an answer, not a problem: a GPU that shares the host's memory, say
            return None
        except Exception as error:
            problems.append(f"NVML fails for GPU {index} ({_reason(error)})")
            return None

    handle = ask(nvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return Device(index), problems[0] if problems else None
    memory = ask(nvml.nvmlDeviceGetMemoryInfo, handle)
    device = Device(
        index=index,
        uuid=ask(nvml.nvmlDeviceGetUUID, handle) or None,
        name=ask(nvml.nvmlDeviceGetName, handle) or None,
        memory_total=None if memory is None else int(memory.total),
    )
    return device, problems[0] if problems else None


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).rstrip(".")


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
        inventory: What `discover` found.
        gpu_count: How many, at least 1; None is `auto`: all that may be used, or 1 without NVML.
        use_gpus: Indices or UUIDs in order of preference; wins over `gpu_count`. None if not given. A UUID may be
            shortened to a beginning that only one GPU has.
        visible: The scheduler's own CUDA_VISIBLE_DEVICES, None if unset: the set of GPUs that may be used. Indices
            in it are NVML's. CUDA silently hides the GPUs behind an invalid entry; here such an entry is an error.
            Source: CUDA C++ Programming Guide, "CUDA Environment Variables".

    Raises:
        UsageError: There is no GPU, or fewer than asked for; an entry names no GPU, one that is not allowed, or one
            that another entry names too; UUIDs without NVML.
    """
    if not inventory.devices and inventory.problem and inventory.driver:
        # Slots by index would not see the leases that runs hold on the same GPUs by UUID.
        raise UsageError(
            f"{inventory.problem}, so the GPUs can't be told apart",
            hint="see what `nvidia-smi` says; after an update of the driver the machine wants a restart",
        )
    if not inventory.devices and not inventory.driver:
        note = f"{inventory.problem}: slots only" if inventory.problem else NO_DRIVER
        return Resolved(_slots_only(gpu_count, use_gpus, note), note)
    if not inventory.devices:
        raise UsageError(
            "no GPU: the NVIDIA driver is there, but it counts 0 GPUs",
            hint="see what `nvidia-smi -L` prints; a container must be given its GPUs (`docker run --gpus all`)",
        )
    allowed = _allowed(inventory.devices, visible)
    if use_gpus is not None:
        gpus = _named(use_gpus, inventory.devices, allowed)
    else:
        gpus = _counted(gpu_count, inventory.devices, allowed)
    return Resolved(gpus, inventory.problem)


def lease_name(device: Device) -> str:
    """The device's name in the host-wide lease folder: its UUID, or `index-N`; letters, digits, `-` and `_` only."""
    if device.uuid is None:
        return f"index-{device.index}"
    return re.sub(r"[^A-Za-z0-9_-]", "_", device.uuid)


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
        return tuple(devices)
    if not visible.strip():
        raise UsageError(
            "CUDA_VISIBLE_DEVICES is empty, and so allows no GPU",
            hint=f"unset it, or let it name GPUs that may be used; this machine has {_list(devices)}",
        )
    entries = [entry.strip() for entry in visible.split(",")]
    gpus = [_find(entry, devices, "CUDA_VISIBLE_DEVICES") for entry in entries]
    return _distinct(entries, gpus, "CUDA_VISIBLE_DEVICES")


def _named(use_gpus: Sequence[int | str], devices: Sequence[Device], allowed: Sequence[Device]) -> tuple[Device, ...]:
    gpus = [_find(entry, devices, "use_gpus") for entry in use_gpus]
    for gpu in gpus:
        if gpu not in allowed:
            raise UsageError(
                f"GPU {gpu.index} may not be used; CUDA_VISIBLE_DEVICES allows {_list(allowed)} only (use_gpus)"
            )
    return _distinct(use_gpus, gpus, "use_gpus")


def _counted(gpu_count: int | None, devices: Sequence[Device], allowed: Sequence[Device]) -> tuple[Device, ...]:
    count = len(allowed) if gpu_count is None else gpu_count
    _require_positive(count)
    if count > len(devices):
        raise UsageError(f"gpu_count is {count}, but this machine has {len(devices)}: {_list(devices)}")
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
    if not matches and text.startswith(_UUID_START) and text != _UUID_START:
        matches = [device for device in devices if device.uuid is not None and device.uuid.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"{text} is the beginning of the UUIDs of several GPUs: {_list(matches)} ({source})")
    number = text.isdecimal()
    raise UsageError(
        f"GPU {text if number else repr(text)} does not exist here; this machine has {_list(devices)} ({source})",
        hint=None if number else "`nvidia-smi -L` lists the GPUs with their UUIDs; MIG instances can't be used",
    )


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


def _list(devices: Sequence[Device]) -> str:
    """`GPU 0`, `GPUs 0-3`, or `GPUs 0, 2` for a message."""
    indices = sorted(device.index for device in devices)
    first, last = indices[0], indices[-1]
    if len(indices) == 1:
        return f"GPU {first}"
    if len(indices) > 2 and last - first == len(indices) - 1:
        return f"GPUs {first}-{last}"
    return f"GPUs {', '.join(map(str, indices))}"
