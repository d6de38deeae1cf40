"""A GPU as it was seen at one moment: pure data, which `host.nvml` fills in and placement judges.

Sizes are bytes, times are seconds since the epoch. What NVML does not know, or was not there to tell, is None and
never a number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that NVML lists on a GPU."""

    pid: int
    memory: int | None = None
    """What it holds on this GPU. None where NVML can't tell."""
    user: str | None = None
    """Its owner's name. None if it can't be seen from here: another container's, or it has just ended."""
    command: str | None = None
    """Its program and arguments, shortened; None as `user`."""
    compute: bool = True
    """False for one that only draws: a display server."""
    run: str = ""
    """The run of tinksched, of any workspace and user of this host, that it belongs to; empty for all others."""

    @property
    def hidden(self) -> bool:
        """Whether nobody can tell from here what it runs, so that it may be of any run (proc(5), hidepid)."""
        return not self.run and self.command is None

    @property
    def program(self) -> str:
        """What it runs, without arguments; a question mark if it can't be seen."""
        return (self.command or "?").split(" ", 1)[0]

    @property
    def standing(self) -> str:
        """What it is to tinksched if no run is known to own it, in words."""
        return "may be tinksched's" if self.hidden else "not tinksched's"


@dataclass(frozen=True, slots=True)
class GpuState:
    """What NVML said about one GPU, at one moment."""

    device: str
    """The name under which its leases stand."""
    index: int
    at: float
    memory_total: int | None = None
    memory_free: int | None = None
    memory_used: int | None = None
    utilization: int | None = None
    """Percent of the last sample period in which a kernel ran."""
    temperature: int | None = None
    """Degrees Celsius."""
    power: float | None = None
    """Watts."""
    processes: tuple[GpuProcess, ...] | None = None
    """None if they can't be listed, or can't be told apart from here (in a container without the host's pids)."""
    links: frozenset[str] = frozenset()
    """The devices that it is linked to by NVLink."""
    numa: int | None = None
    """The NUMA node that it hangs on."""
    lost: bool = False
    """It has fallen off the bus, or wants a reset: nothing may be started there."""
    problem: str | None = None
    """A sentence without a full stop, if NVML failed for it."""

    @property
    def strangers(self) -> list[GpuProcess]:
        """The compute processes that no run of tinksched owns."""
        return [process for process in self.processes or () if process.compute and not process.run]
