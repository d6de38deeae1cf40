"""The words of the scheduler as frozen types: Task, Run, Slots, Placement, and why something waits or failed.

Times are seconds since the epoch. Nothing here reads a clock or a file; a changed object is a new object.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from . import instants
from .diagnosis import Diagnosis, Kind
from .gpu import GpuState

CPU = "cpu"  # the device whose slots the runs take that need no GPU
Detail = Mapping[str, "str | int | float"]


class TaskState(str, enum.Enum):
    """Where a task is. "Blocked", "held" and "paused" are reasons of QUEUED, not states."""

    QUEUED = "queued"  # waits for a slot; says why
    ACTIVE = "active"  # has a run that starts or runs
    DONE = "done"  # has an outcome


class RunState(str, enum.Enum):
    """Where a run is."""

    STARTING = "starting"  # intended and on disk; the executor may or may not have launched it
    RUNNING = "running"  # the executor said that it runs
    ENDED = "ended"  # has an outcome, and none of its processes is left


class Outcome(str, enum.Enum):
    """How a run ended; a task that is done has the outcome of its last run."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    LOST = "lost"  # nobody can know how it ended


class Request(str, enum.Enum):
    """What a user asked for while the task was active. A request is a column, not a state."""

    CANCEL = "cancel"
    KILL_ALL = "kill_all"


RETRIED = (Outcome.FAILED.value, Outcome.TIMED_OUT.value, Outcome.LOST.value)  # unless somebody says otherwise
OOM = "oom"  # among what is retried: out of memory, on the GPU or on the host
ALONE = -1  # as what a task needs: a GPU for itself


class ReasonCode(str, enum.Enum):
    """Why a task waits, or why a run ended as it did. The text of each stands in `_TEXTS`."""

    # waiting
    STARTS_NEXT = "starts_next"
    GPUS_FULL = "gpus_full"
    PINNED_GPU_FULL = "pinned_gpu_full"
    TOO_FEW_GPUS = "too_few_gpus"
    NEEDS_EMPTY_GPUS = "needs_empty_gpus"
    HELD_FOR = "held_for"
    OTHERS_TURN = "others_turn"
    STARTUP_DELAY = "startup_delay"
    NO_SUCH_GPU = "no_such_gpu"
    NO_SUCH_MEMORY = "no_such_memory"
    NEEDS_MEMORY = "needs_memory"
    MEMORY_OF_OTHERS = "memory_of_others"
    MEMORY_UNKNOWN = "memory_unknown"
    KEPT_FOR = "kept_for"
    OTHER_PROCESS = "other_process"
    GPU_BUSY = "gpu_busy"
    GPU_LOST = "gpu_lost"
    NO_GPU_SEEN = "no_gpu_seen"
    CPU_FULL = "cpu_full"
    NO_CPU_SLOTS = "no_cpu_slots"
    NEVER_BEGAN = "never_began"
    NO_SCHEDULER = "no_scheduler"
    RETRY_DELAY = "retry_delay"
    HELD = "held"
    HELD_UNTIL = "held_until"
    PAUSED = "paused"
    WAITS_FOR = "waits_for"
    MAX_RUNNING = "max_running"
    LOW_DISK = "low_disk"
    # ended
    EXIT_CODE = "exit_code"
    MARKER_DESPITE_EXIT = "marker_despite_exit"
    NO_MARKER = "no_marker"
    KILLED_BY_SIGNAL = "killed_by_signal"
    TERMINAL_CLOSED = "terminal_closed"
    LEFTOVERS_KILLED = "leftovers_killed"
    LAUNCH_FAILED = "launch_failed"
    OUT_OF_MEMORY = "out_of_memory"
    NO_EXIT_STATUS = "no_exit_status"
    WRAPPER_KILLED = "wrapper_killed"
    SESSION_GONE = "session_gone"
    TMUX_GONE = "tmux_gone"
    MACHINE_RESTARTED = "machine_restarted"
    INTERRUPTED = "interrupted"
    CANCELLED_BY_USER = "cancelled_by_user"
    KILL_ALL = "kill_all"
    MARKER_FROM_BEFORE = "marker_from_before"
    TIME_LIMIT = "time_limit"
    STALLED = "stalled"
    PRE_RUN_FAILED = "pre_run_failed"
    DEPENDENCY = "dependency"


_TEXTS: dict[ReasonCode, str] = {
    ReasonCode.STARTS_NEXT: "starts as soon as the scheduler looks",
    ReasonCode.GPUS_FULL: "all slots are taken ({used} of {slots}{others})",
    ReasonCode.PINNED_GPU_FULL: "pinned to GPU {gpu}, whose slots are taken ({used} of {slots}{others})",
    ReasonCode.TOO_FEW_GPUS: "needs {wanted} GPUs at once, {free} {free_has} a free slot{others}",
    ReasonCode.NEEDS_EMPTY_GPUS: "wants {wanted} for itself alone, and {free} {free_is} empty{others}",
    ReasonCode.HELD_FOR: "the free slots are held for {task}, which comes first and needs more than one slot",
    ReasonCode.OTHERS_TURN: "the free slots are left to {user} ({workspace}), whose turn it is",
    ReasonCode.STARTUP_DELAY: "the last start on GPU {gpu} is too recent (startup_delay); next start {until}",
    ReasonCode.NO_SUCH_GPU: "asks for {wanted}, and the scheduler uses {exists}",
    ReasonCode.NO_SUCH_MEMORY: "needs {wanted} free{where}; of the GPUs here {count} {has} so much memory",
    ReasonCode.NEEDS_MEMORY: "needs {wanted} free{where}: {free} free{young}",
    ReasonCode.MEMORY_OF_OTHERS: "needs {wanted} free{where}: {free} free{young}; others than tinksched hold the rest",
    ReasonCode.MEMORY_UNKNOWN: "needs {wanted} free, and how much of GPU {gpu} is free is not known",
    ReasonCode.KEPT_FOR: "the free memory is kept for {task}, which comes first and needs more of it",
    ReasonCode.OTHER_PROCESS: "respects other people's processes: {who} on GPU {gpu} (pid {pid}){more}",
    ReasonCode.GPU_BUSY: "the free slots are on GPUs that are busy: GPU {gpu} is at {busy} % (max_utilization: {most})",
    ReasonCode.GPU_LOST: "nothing is started on GPU {gpu}, which has fallen off the bus, wants a reset or is divided",
    ReasonCode.NO_GPU_SEEN: "waits until the GPUs can be seen: {why}",
    ReasonCode.CPU_FULL: "all CPU slots are taken ({used} of {slots}{others})",
    ReasonCode.NO_CPU_SLOTS: "needs no GPU, and there are no CPU slots (cpu_slots is 0)",
    ReasonCode.NEVER_BEGAN: "its last launch never began ({why}), so it is queued again",
    ReasonCode.NO_SCHEDULER: "no scheduler runs",
    ReasonCode.RETRY_DELAY: "its last run {how}; it is tried again {until} (retry {retry} of {retries}{need})",
    ReasonCode.HELD: "held by {user} {since}: `tinksched release` lets it go",
    ReasonCode.HELD_UNTIL: "not before {at}, says {user}",
    ReasonCode.PAUSED: "paused by {user} {since}: nothing starts before `tinksched resume`",
    ReasonCode.WAITS_FOR: "comes after {tasks}",
    ReasonCode.MAX_RUNNING: "at most {limit} of {pattern} run at once (max_running)",
    ReasonCode.LOW_DISK: "only {free} are free on the disk of {folder} (min_free_disk is {wanted})",
    ReasonCode.EXIT_CODE: "exit code {code}",
    ReasonCode.MARKER_DESPITE_EXIT: "it wrote its completion marker and then ended with exit code {code}",
    ReasonCode.NO_MARKER: "exit code 0, but no fresh completion marker (require_marker)",
    ReasonCode.KILLED_BY_SIGNAL: "exit code {code} (signal {signal})",
    ReasonCode.TERMINAL_CLOSED: "exit code {code} (signal HUP: its tmux session or the tmux server was ended)",
    ReasonCode.LEFTOVERS_KILLED: "processes that outlived it were killed: {names}",
    ReasonCode.LAUNCH_FAILED: "could not be launched: {why}",
    ReasonCode.NO_EXIT_STATUS: "it is gone and left no exit status{why}",
    ReasonCode.OUT_OF_MEMORY: "{how}; the kernel killed {count} for want of memory while it ran (see dmesg)",
    ReasonCode.WRAPPER_KILLED: "its wrapper was killed by signal {signal}, and it left no exit status",
    ReasonCode.SESSION_GONE: "its tmux session is gone, and it left no exit status",
    ReasonCode.TMUX_GONE: "its tmux server is gone, and it left no exit status",
    ReasonCode.MACHINE_RESTARTED: "the machine restarted while it ran",
    ReasonCode.INTERRUPTED: "interrupted with Ctrl-C in its session",
    ReasonCode.CANCELLED_BY_USER: "cancelled by {user}",
    ReasonCode.KILL_ALL: "ended by kill-all",
    ReasonCode.MARKER_FROM_BEFORE: "its completion marker was there before any run of it",
    ReasonCode.TIME_LIMIT: "ran longer than its time limit of {limit}",
    ReasonCode.STALLED: "stalled, and ended for that: no output and no use of its GPU for {limit} (stall_after)",
    ReasonCode.PRE_RUN_FAILED: "pre_run ended with exit code {code}, so the command was not started",
    ReasonCode.DEPENDENCY: "{task}, which it comes after, {how}",
}

_TIMES: Mapping[str, tuple[str, Callable[[float, float], str]]] = {  # details that are times: for all times, and now
    "until": ("at %H:%M:%S", instants.ago),
    "since": ("since %Y-%m-%d %H:%M", instants.ago),
    "at": ("%Y-%m-%d %H:%M:%S", instants.both),
}
_DIAGNOSED = {ReasonCode.TIME_LIMIT: Kind.TIME_LIMIT, ReasonCode.OUT_OF_MEMORY: Kind.HOST_MEMORY}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something waits or ended: a code that programs compare, with the details that its text needs.

    `found` is what the run's log says of it, where that is clear.
    """

    code: ReasonCode
    detail: Detail = field(default_factory=dict)
    found: Diagnosis | None = None

    @property
    def text(self) -> str:
        """One sentence, without a full stop, that stays true."""
        return self.said(None)

    def said(self, now: float | None) -> str:
        """The same as a person says it now: times are how long ago they are."""
        words = dict(self.detail)
        for name in _TIMES.keys() & words.keys():
            at, (form, relative) = float(words[name]), _TIMES[name]
            words[name] = datetime.fromtimestamp(at).strftime(form) if now is None else relative(at, now)
        text = _TEXTS[self.code].format_map(_Blank(words))
        if self.found is None:
            return text
        return f"{self.found.text}; {text}" if "(" in text else f"{self.found.text} ({text})"

    @property
    def diagnosis(self) -> Diagnosis | None:
        """What it was, from the log or from the code."""
        kind = _DIAGNOSED.get(self.code)
        return Diagnosis(kind, self.text) if kind is not None else self.found


class _Blank(dict[str, "str | int | float"]):
    """A detail that an older version did not record leaves a blank, never an error."""

    def __missing__(self, key: str) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a task needs and runs, resolved when it was queued.

    `command` is the whole argument list, with placeholders that are filled in when a run starts. `pinned` holds GPU
    indices; empty means any. `environment` are the variables that the workspace adds; `environment_ref` names the
    stored environment of the command that queued the task.
    """

    command: tuple[str, ...]
    work_dir: str
    marker: str
    output_dir: str
    gpus: int = 1  # 0: it runs beside the GPUs, on a CPU slot
    pinned: tuple[int, ...] = ()
    exclusive: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    environment_ref: str = ""
    after: tuple[str, ...] = ()  # globs of the tasks that must have completed
    time_limit: float | None = None  # seconds
    max_retries: int = 0
    retry_on: tuple[str | int, ...] = RETRIED  # outcomes, `oom`, and exit codes
    retry_delay: float = 10.0  # seconds before the first retry; doubles with each
    retry_args: tuple[str, ...] = ()  # added to the command of a retried run
    pre_run: tuple[str, ...] = ()
    post_run: tuple[str, ...] = ()
    interactive: bool = False
    python: str = ""
    script: str = ""
    old_marker: str = ""  # where the config's own `root_dir` puts its marker
    commit: str = ""  # of work_dir when the task was queued
    dirty: bool = False
    min_free_memory: int | Literal["auto"] | None = None  # bytes, on each of its GPUs
    streams: str = ""  # folder whose files `stdout` and `stderr` get what it writes; empty: its terminal alone
    pinned_devices: tuple[str, ...] = ()  # the names of the GPUs in `pinned`, which outlive a change of indices

    def pinned_on(self, gpus: Mapping[int, str]) -> tuple[int, ...]:
        """The indices that the pinned GPUs have now, among these (index to name); -1 for one that is not there."""
        if not self.pinned_devices:  # queued by a version that did not know them
            return self.pinned
        index_of = {device: index for index, device in gpus.items()}
        return tuple(
            index_of.get(device, index if device.startswith("index-") else -1)
            for index, device in zip(self.pinned, self.pinned_devices, strict=False)
        )


def in_words(state: str) -> str:
    """The state or outcome of a task, as a person says it."""
    return "running" if state == TaskState.ACTIVE.value else state.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Hold:
    """Somebody wants what is queued to wait: until it is let go, or until a time."""

    user: str
    since: float
    until: float | None = None

    @property
    def reason(self) -> Reason:
        """Why a held task waits."""
        if self.until is None:
            return Reason(ReasonCode.HELD, {"user": self.user, "since": self.since})
        return Reason(ReasonCode.HELD_UNTIL, {"user": self.user, "at": self.until})


@dataclass(frozen=True, slots=True)
class Task:
    """One config file in the queue, named by the file's stem; or a command that `run` queued, which has no config."""

    id: int
    name: str
    config: str
    spec: TaskSpec
    state: TaskState
    priority: int
    queue_number: int
    queued_at: float
    changed_at: float
    attempts: int = 0
    outcome: Outcome | None = None
    reason: Reason | None = None
    request: Request | None = None
    config_hash: str | None = None
    failures: int = 0  # failed, timed-out and lost runs since it was last queued by hand
    not_before: float | None = None
    need: int | None = None  # bytes that must be free on each of its GPUs, or ALONE: what its last run has taught
    hold: Hold | None = None

    def on(self, gpus: Mapping[int, str]) -> Task:
        """The task, pinned to the indices that its GPUs have among these (index to name)."""
        pinned = self.spec.pinned_on(gpus) if self.spec.pinned else ()
        return self if pinned == self.spec.pinned else replace(self, spec=replace(self.spec, pinned=pinned))

    @property
    def rank(self) -> tuple[int, int]:
        """The sort key of the queue: higher priority first, then the queue number."""
        return (-self.priority, self.queue_number)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The circumstances of a run, for whoever asks later what exactly ran."""

    command: tuple[str, ...] = ()
    python: str = ""
    node: str = ""
    config_hash: str | None = None
    commit: str = ""
    dirty: bool = False
    port: int | None = None
    old_marker: str = ""
    old_marker_before: str | None = None
    oom_kills: int | None = None  # of the host since its boot, when the run was prepared
    since_boot: float | None = None  # seconds, when the run was made; the clock of `deadline` can be set meanwhile
    memory: int = 0  # bytes that were reserved for it on each of its GPUs when it started


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt at a task. A retry is a new Run of the same Task.

    `devices` are the names under which leases stand (a UUID, or `index-N` without a driver); `gpus` are the indices
    that the run sees in `CUDA_VISIBLE_DEVICES`, in the same order. A run without GPUs has the one device `CPU`.
    `marker_before` identifies the marker file that was there at launch, so that a stale one is never taken for this
    run's.
    """

    id: str
    task_id: int
    task: str
    attempt: int
    state: RunState
    gpus: tuple[int, ...]
    devices: tuple[str, ...]
    executor: str
    session: str  # empty for an executor without sessions
    directory: str
    work_dir: str
    log: str | None
    lease: str
    marker: str
    marker_before: str | None
    boot_id: str
    created_at: float
    pid: int | None = None
    pid_started: int | None = None  # clock ticks since boot, from /proc/PID/stat
    started_at: float | None = None
    ended_at: float | None = None
    outcome: Outcome | None = None
    reason: Reason | None = None
    exit_code: int | None = None
    exclusive: bool = False
    deadline: float | None = None
    record: RunRecord = field(default_factory=RunRecord)


@dataclass(frozen=True, slots=True)
class Tenant:
    """Somebody else's hold on a GPU of this host, as its lease says it: another workspace or another user."""

    user: str
    workspace: str
    task: str
    limit: int  # the most runs that this one allows on the GPU, itself included
    since: float
    run: str = ""  # its id
    memory: int = 0  # bytes that it reserves on the GPU while it is young
    warmup: float = 0.0  # seconds for which it is


@dataclass(frozen=True, slots=True)
class Reserved:
    """Free slots of a GPU that are left to another scheduler of this host, because it is its turn."""

    count: int
    user: str
    workspace: str
    memory: int = 0  # bytes that it needs there


@dataclass(frozen=True, slots=True)
class GpuSlots:
    """A GPU as placement sees it: its slots, who of this workspace is on it, and who else."""

    index: int
    device: str
    slots: int
    own: tuple[Run, ...] = ()
    others: tuple[Tenant, ...] = ()
    last_start: float | None = None
    reserved: Reserved | None = None
    fading: frozenset[str] = frozenset()  # runs that have just ended: what is left of them goes by itself
    state: GpuState | None = None

    @property
    def leaving(self) -> Mapping[str, int]:
        """The runs that have ended and that NVML still lists here, each with a pid: their slots are not free yet.

        What NVML saw before a run ended counts as well, until a newer look has not found it. A run is one of `fading`
        for a few seconds only: what NVML still lists after that keeps no slot as a run of ours, and is somebody's
        process like any other.
        """
        listed = (self.state.processes if self.state is not None else None) or ()
        return {process.run: process.pid for process in listed if process.run in self.fading}

    @property
    def used(self) -> int:
        """Slots that are taken, by anybody on this host."""
        return len(self.own) + len(self.others) + len(self.leaving)

    @property
    def allowed(self) -> int:
        """The most runs that may be on it now: the least of what everybody on it allows."""
        own = [1 for run in self.own if run.exclusive]
        return min([self.slots, *own, *(tenant.limit for tenant in self.others)])


@dataclass(frozen=True, slots=True)
class Placement:
    """A task that starts now, and the GPUs that it gets (indices, ascending); none if it needs none."""

    task_id: int
    gpus: tuple[int, ...]
    memory: int = 0  # bytes to be reserved on each of them until the run has allocated them
    exclusive: bool = False  # nothing else may start on them meanwhile


def spot(gpus: Sequence[int]) -> str:
    """Where a run is, for a person: `GPU 0, 1`, or `CPU`."""
    return f"GPU {', '.join(map(str, gpus))}" if gpus else "CPU"
