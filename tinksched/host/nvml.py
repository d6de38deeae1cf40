"""What NVIDIA's driver says: which GPUs there are (`discover`), and what they do at the moment (`look`, `Monitor`).

A call into the driver may take seconds, and where a GPU is broken it may never return; nobody can end it then. So all
calls are made in threads of their own, one after the other in the whole process. Whoever asks waits until a deadline,
or not at all (`Monitor`), and a thread that hangs is left behind; until it comes back nobody calls the driver again.

Nothing here raises for what the driver does. Unknown is None. Without the driver's library nothing is loaded.

Source: the NVML API reference (https://docs.nvidia.com/deploy/nvml-api/), through NVIDIA's own binding `pynvml`
(package nvidia-ml-py), which is not thread-safe by contract, though NVML is.
"""

from __future__ import annotations

import _thread  # and not threading: `status` shall start fast where there is no driver
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypeVar

from ..core.gpu import GpuProcess, GpuState
from .asker import Asker, reason_of
from .gpus import Device, Inventory, instance_number, lease_name
from .owners import Owner, Owners

PATIENCE = 10.0  # seconds until it is said that NVML does not answer
START_PATIENCE = 30.0  # to start NVML takes a second or two for each GPU where the driver's persistence mode is off
REOPEN_SECONDS = 10.0  # after an error of the driver NVML is started anew, but not all the time
_NODES = 16  # words of 64 NUMA nodes each: more than any machine has

_Answer = TypeVar("_Answer")

_driver = _thread.allocate_lock()  # held by the one thread of this process that is in the driver


@dataclass(frozen=True, slots=True)
class Sample:
    """The GPUs at one moment."""

    at: float
    """Seconds since the epoch, when it was begun."""
    inventory: Inventory
    states: Mapping[str, GpuState]
    """By device name; those of MIG instances as well. Empty if NVML fails as a whole."""
    late: bool = False
    """Whether the next one is overdue: then it has no numbers any more."""

    @property
    def problem(self) -> str | None:
        """A sentence without a full stop, if NVML failed."""
        return self.inventory.problem

    def state_of(self, device: str, index: int) -> GpuState | None:
        """The state of a device that is used; None without a driver.

        One that isn't there any more is lost, and so is one that MIG divides now: only its instances can be used.
        """
        found = self.states.get(device)
        if found is not None and any(there.divided and there.index == found.index for there in self.inventory.devices):
            return replace(found, lost=True, problem=f"GPU {found.index} is divided by MIG")
        if found is not None or not self.inventory.driver:
            return found
        if self.states:
            nameless = self.states.get(lease_name(Device(index)))  # it is there, but can't say who it is
            problem = (nameless.problem if nameless else None) or f"GPU {index} has fallen off the bus"
            return GpuState(device, index, self.at, lost=True, problem=problem)
        return GpuState(device, index, self.at, problem=self.problem)


def discover(seconds: float = START_PATIENCE) -> Inventory:
    """Ask for this machine's GPUs, afresh at each call. Waits at most `seconds`.

    Returns:
        `driver=False` without a problem if there is no NVML library (pynvml can't tell this from one that doesn't
        load); no devices and a problem if NVML fails as a whole or does not answer in time; devices with unknown
        fields and a problem if it fails for single devices.
    """
    return _ask(_inventory, lambda missing: missing, seconds)


def look(seconds: float = PATIENCE) -> Sample:
    """Ask for the GPUs and what they do, afresh at each call. Waits at most `seconds`; what it returns: `discover`."""
    return _ask(_sample, lambda missing: Sample(time.time(), missing, {}), seconds)


def persistence(seconds: float = PATIENCE) -> Mapping[int, bool]:
    """Whether the driver stays loaded while nobody uses a GPU, by index. Those that don't say so are left out."""
    return _ask(_persistence, lambda missing: {}, seconds)


class Monitor:
    """Keeps NVML started, and takes a sample when it is asked for one. The asking costs microseconds.

    For a process that lives long. Everything here is called from one thread.
    """

    def __init__(self, *, patience: float = PATIENCE) -> None:
        """After `patience` seconds it is said that NVML does not answer."""
        self.wake: Callable[[], object] = _nothing
        """Called from another thread when a newer sample is there."""
        self._patience = patience
        self._idle = _thread.allocate_lock()  # held while an answer is awaited
        self._session: _Session | None = None
        self._owners = Owners()
        self._opened = 0.0
        self._asked: float | None = None  # monotonic, if an answer is awaited
        self._answered = -math.inf  # monotonic, when the newest sample came
        self._latest: Sample | None = None

    @property
    def latest(self) -> Sample | None:
        """The newest sample; None before the first.

        If NVML has not answered for long it says so, and gives no numbers any more: what they were then, nobody may
        rely on now.
        """
        late = self.late
        if late is None:
            return self._latest
        known = self._latest or Sample(time.time(), Inventory((), driver=True, problem=None), {})
        states = {name: _without_numbers(state, late) for name, state in known.states.items()}
        return replace(known, inventory=replace(known.inventory, problem=late), states=states, late=True)

    @property
    def late(self) -> str | None:
        """A sentence without a full stop, if an answer is overdue."""
        waited = 0.0 if self._asked is None else time.monotonic() - self._asked
        return f"NVML has not answered for {waited:.0f} s" if waited >= self._patience else None

    @property
    def due(self) -> float | None:
        """When an answer will be overdue (monotonic); None if none is awaited or it is already."""
        asked = self._asked
        return None if asked is None or self.late else asked + self._patience

    @property
    def age(self) -> float:
        """How long ago the newest sample came, in seconds; infinite before the first."""
        return time.monotonic() - self._answered

    @property
    def asked(self) -> float | None:
        """Since when an answer is awaited (monotonic)."""
        return self._asked

    def request(self) -> bool:
        """Take a sample, unless one is being taken: then False."""
        if not self._idle.acquire(blocking=False):
            return False
        self._asked = time.monotonic()
        try:
            _thread.start_new_thread(self._take, ())
        except RuntimeError:  # out of threads: the next one who asks tries it again
            self._asked = None
            self._idle.release()
            return False
        return True

    def wait(self, seconds: float) -> None:
        """Take a sample, and wait until it is there, or for so long."""
        self.request()
        if self._idle.acquire(timeout=seconds):
            self._idle.release()

    def _take(self) -> None:
        with _driver:
            self._latest = self._sample()
        self._answered = time.monotonic()
        self._asked = None
        self._idle.release()
        with suppress(RuntimeError):  # the loop that was to be woken is closed
            self.wake()

    def _sample(self) -> Sample:
        """Called in a thread of its own, that is the only one."""
        nvml, missing = _library()
        if nvml is None:
            return Sample(time.time(), missing, {})
        try:
            if self._session is None:
                self._session, self._opened = _Session(nvml), time.monotonic()
            sample = self._session.sample(self._owners)
        except Exception as error:  # see `_ask`
            self._close_session()
            return Sample(time.time(), _failed(error), {})
        if self._session.doubtful and time.monotonic() - self._opened >= REOPEN_SECONDS:
            self._close_session()
        return sample

    def _close_session(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None


def _nothing() -> None:
    pass


def _without_numbers(state: GpuState, problem: str) -> GpuState:
    """What of a GPU does not change from one second to the next."""
    return GpuState(
        state.device, state.index, state.at, state.memory_total, links=state.links, numa=state.numa, lost=state.lost,
        problem=problem,
    )  # fmt: skip


# ---------------------------------------------------------------- how the driver is asked


def _ask(
    question: Callable[[ModuleType], _Answer], otherwise: Callable[[Inventory], _Answer], seconds: float
) -> _Answer:
    """The answer, or, if it can't be had in time, what `otherwise` makes of an inventory that says so."""
    nvml, missing = _library()
    if nvml is None:
        return otherwise(missing)
    late = otherwise(Inventory((), driver=True, problem=f"NVML has not answered for {seconds:g} s"))
    deadline = time.monotonic() + seconds
    if not _driver.acquire(timeout=seconds):
        return late
    answers: list[_Answer] = []
    done = _thread.allocate_lock()
    done.acquire()

    def work() -> None:
        try:
            answers.append(question(nvml))
        except nvml.NVMLError_LibraryNotFound:
            answers.append(otherwise(Inventory((), driver=False, problem=None)))
        except Exception as error:  # a foreign library and its binding: whatever they raise is no reason to stop
            answers.append(otherwise(_failed(error)))
        finally:
            _driver.release()
            done.release()

    try:
        _thread.start_new_thread(work, ())
    except RuntimeError as error:  # out of threads
        _driver.release()
        return otherwise(_failed(error))
    return answers[0] if done.acquire(timeout=max(0.0, deadline - time.monotonic())) else late


def _library() -> tuple[ModuleType | None, Inventory]:
    """The binding of NVML; where it isn't there, what to say about the machine."""
    if "pynvml" not in sys.modules and not has_library():
        return None, Inventory((), driver=False, problem=None)
    try:
        import pynvml  # type: ignore[import-untyped,unused-ignore]
    except Exception as error:  # absent or broken: tasks that need no GPU run all the same
        return None, Inventory((), driver=False, problem=f"nvidia-ml-py can't be imported ({error})")
    return pynvml, Inventory((), driver=True, problem=None)


def has_library() -> bool:
    """Whether NVML's library can be loaded, as `pynvml` loads it. Most of its own loading is spared where it can't."""
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def _failed(error: Exception) -> Inventory:
    return Inventory((), driver=True, problem=f"NVML fails ({reason_of(error)})")


def _inventory(nvml: ModuleType) -> Inventory:
    with _session(nvml) as session:
        return session.inventory()


def _sample(nvml: ModuleType) -> Sample:
    with _session(nvml) as session:
        return session.sample(Owners())


def _persistence(nvml: ModuleType) -> dict[int, bool]:
    with _session(nvml):
        found = {}
        for index in range(nvml.nvmlDeviceGetCount()):
            ask = Asker(nvml, "").ask
            handle = ask(nvml.nvmlDeviceGetHandleByIndex, index)
            mode = ask(nvml.nvmlDeviceGetPersistenceMode, handle) if handle is not None else None
            if mode is not None:
                found[index] = bool(mode)
        return found


@contextmanager
def _session(nvml: ModuleType) -> Iterator[_Session]:
    session = _Session(nvml)
    try:
        yield session
    finally:
        session.close()


# ---------------------------------------------------------------- the questions


@dataclass(frozen=True, slots=True)
class _Found:
    """A device, with what asks about it."""

    device: Device
    handle: Any  # None if it can't be had
    memory: Any
    asker: Asker

    @property
    def name(self) -> str:
        return lease_name(self.device)


class _Session:
    """NVML, started. Initialisations are counted by NVML, so each is paired with a shutdown."""

    def __init__(self, nvml: ModuleType) -> None:
        """Raises whatever pynvml does: NVML fails as a whole."""
        self._nvml = nvml
        self._linked: tuple[str, ...] = ()  # the devices whose links are known
        self._links: dict[str, frozenset[str]] = {}
        self._numa: dict[str, int | None] = {}
        self.doubtful = False  # whether the driver reported an error: NVML should be started anew
        nvml.nvmlInit()
        self._version = Asker(nvml, "").ask(nvml.nvmlSystemGetDriverVersion)

    def close(self) -> None:
        """Give NVML back."""
        with suppress(Exception):
            self._nvml.nvmlShutdown()

    def inventory(self) -> Inventory:
        """The devices that there are.

        Raises:
            Exception: NVML fails as a whole.
        """
        return self._inventory(self._find())

    def sample(self, owners: Owners) -> Sample:
        """What all devices do now. Raises as `inventory`."""
        at = time.time()
        found = self._find()
        self._learn_links(found)
        states = [self._state(one, at) for one in found]
        whose = owners.look({process.pid for state in states for process in state.processes or ()})
        states = [replace(state, processes=_with_owners(state.processes, whose)) for state in states]
        self.doubtful = any(one.asker.problem for one in found)
        return Sample(at, self._inventory(found), {state.device: state for state in states})

    def _inventory(self, found: Sequence[_Found]) -> Inventory:
        problems = dict.fromkeys(one.asker.problem for one in found if one.asker.problem)
        devices = tuple(one.device for one in found)
        return Inventory(devices, driver=True, problem="; ".join(problems) or None, version=self._version)

    def _find(self) -> list[_Found]:
        """The GPUs, each followed by its MIG instances. One that does not answer is counted, so indices stay true."""
        return [one for index in range(self._nvml.nvmlDeviceGetCount()) for one in self._find_at(index)]

    def _find_at(self, index: int) -> Iterator[_Found]:
        nvml, asker = self._nvml, Asker(self._nvml, f" for GPU {index}")
        handle = asker.insist(nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is None:
            asker.lost = True
            yield _Found(Device(index), None, None, asker)
            return
        mode = asker.ask(nvml.nvmlDeviceGetMigMode, handle)
        yield self._describe(asker, handle, Device(index, divided=bool(mode and mode[0])))
        if mode and mode[0]:
            yield from self._find_instances(asker, handle, index)

    def _find_instances(self, asker: Asker, handle: Any, parent: int) -> Iterator[_Found]:
        nvml = self._nvml
        for place in range(asker.ask(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            try:
                instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
            except nvml.NVMLError:  # most places are free
                continue
            number = instance_number(parent, place)
            yield self._describe(Asker(nvml, f" for MIG instance {number}"), instance, Device(number, parent=parent))

    def _describe(self, asker: Asker, handle: Any, device: Device) -> _Found:
        nvml = self._nvml
        uuid, name = asker.insist(nvml.nvmlDeviceGetUUID, handle), asker.ask(nvml.nvmlDeviceGetName, handle)
        # As `nvidia-smi` counts it: the older form takes what the driver keeps for itself for used.
        memory = asker.ask(nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
        if memory is None and not asker.problem:
            memory = asker.ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        total = None if memory is None else int(memory.total)
        return _Found(replace(device, uuid=uuid or None, name=name or None, memory_total=total), handle, memory, asker)

    def _state(self, found: _Found, at: float) -> GpuState:
        nvml, ask, handle, memory = self._nvml, found.asker.ask, found.handle, found.memory
        state = GpuState(found.name, found.device.index, at)
        if handle is not None:
            rates = ask(nvml.nvmlDeviceGetUtilizationRates, handle)
            power = ask(nvml.nvmlDeviceGetPowerUsage, handle)
            state = replace(
                state,
                memory_total=None if memory is None else int(memory.total),
                memory_free=None if memory is None else int(memory.free),
                memory_used=None if memory is None else int(memory.used),
                utilization=None if rates is None else int(rates.gpu),
                temperature=self._temperature(ask, handle),
                power=None if power is None else power / 1000,
                # Of one that MIG divides, all processes of its instances are listed: they are on these.
                processes=None if found.device.divided else self._processes(ask, handle),
                links=self._links.get(found.name, frozenset()),
                numa=self._numa.get(found.name),
            )
        return replace(state, lost=found.asker.lost, problem=found.asker.problem)

    def _temperature(self, ask: Callable[..., Any], handle: Any) -> int | None:
        nvml = self._nvml
        degrees = ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        if degrees is None and hasattr(nvml, "nvmlDeviceGetTemperatureV"):  # its successor
            degrees = ask(nvml.nvmlDeviceGetTemperatureV, handle, nvml.NVML_TEMPERATURE_GPU)
        return None if degrees is None else int(degrees)

    def _processes(self, ask: Callable[..., Any], handle: Any) -> tuple[GpuProcess, ...] | None:
        compute, graphics = self._listed(ask, handle, "Compute"), self._listed(ask, handle, "Graphics")
        if compute is None:
            return None
        found = {one.pid: GpuProcess(one.pid, one.usedGpuMemory, compute=False) for one in graphics or ()}
        # One that does both is in both lists, each time with all that it holds.
        found |= {one.pid: GpuProcess(one.pid, one.usedGpuMemory) for one in compute}
        return tuple(found.values())

    def _listed(self, ask: Callable[..., Any], handle: Any, kind: str) -> Any:
        newer = ask(getattr(self._nvml, f"nvmlDeviceGet{kind}RunningProcesses_v3"), handle)
        if newer is not None:
            return newer
        return ask(getattr(self._nvml, f"nvmlDeviceGet{kind}RunningProcesses_v2"), handle)  # drivers before 510

    def _learn_links(self, found: Sequence[_Found]) -> None:
        """Which GPUs reach each other by NVLink, directly or through switches, and their NUMA nodes."""
        names = tuple(one.name for one in found)
        if names == self._linked:
            return
        nvml = self._nvml
        whole = [one for one in found if one.handle is not None and one.device.parent is None]
        for one in whole:
            ask = Asker(nvml, "").ask  # none of this is worth a complaint
            self._links[one.name] = frozenset(
                other.name
                for other in whole
                if other is not one
                and ask(nvml.nvmlDeviceGetP2PStatus, one.handle, other.handle, nvml.NVML_P2P_CAPS_INDEX_NVLINK) == 0
            )
            words = ask(nvml.nvmlDeviceGetMemoryAffinity, one.handle, _NODES, nvml.NVML_AFFINITY_SCOPE_NODE) or ()
            nodes = [64 * place + bit for place, word in enumerate(words) for bit in range(64) if word >> bit & 1]
            self._numa[one.name] = nodes[0] if len(nodes) == 1 else None
        self._linked = names


def _with_owners(
    listed: tuple[GpuProcess, ...] | None, whose: Mapping[int, Owner] | None
) -> tuple[GpuProcess, ...] | None:
    """The processes with their owners. None if they can't be told apart from here: then nobody knows of an empty list
    whether nobody is there.
    """
    if listed is None or whose is None:
        return None
    named = zip(listed, (whose[one.pid] for one in listed), strict=True)
    return tuple(replace(one, user=user, command=command, run=run) for one, (user, command, run) in named)
