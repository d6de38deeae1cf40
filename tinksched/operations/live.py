"""What `watch` shows, kept up to date by a thread of its own: whoever shows it is never held up by what hangs.

The thread looks when a change is announced, when the selected log grows, when the scheduler ends, and every few seconds
for what nobody announces; never more often than once a second, and less often where a look takes long. The driver is
asked in yet another thread (`nvml.Monitor`), so that one that hangs keeps neither the tasks nor the logs back.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..core.gpu import GpuState
from ..errors import TinkschedError
from ..host import inotify, nvml, processes, wake
from ..host.gpus import Inventory
from ..host.logfile import tail
from . import logs
from . import workspace as workspaces
from .snapshot import Status
from .status import MOST
from .status import status as status_of
from .workspace import Workspace

LOOK_SECONDS = 1.0  # from one look to the next, at least
NET_SECONDS = 5.0  # at most: new configs and the leases of others are announced by nobody
REST, LONG_REST = 4, 100  # a look is followed by so many times as much rest; where nothing is announced, by more
SAMPLE_SECONDS = 2.0  # from one sample of the GPUs to the next
FIRST_SAMPLE_SECONDS = 1.0  # the first picture waits so long for the driver
NO_DRIVER_SECONDS = 60.0
BUCKET_SECONDS = 10.0  # what one mark of a meter stands for
BUCKETS = 90
LOG_BYTES = 65536
LOG_LINES = 1000


@dataclass(frozen=True, slots=True)
class Meter:
    """A GPU over the last minutes, in percent: a mean for each BUCKET_SECONDS, the newest last. None is not known."""

    busy: tuple[float | None, ...] = ()
    memory: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a log, as plain lines."""

    path: str | None = None
    lines: tuple[str, ...] = ()
    there: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is to be shown, at one instant."""

    status: Status | None = None
    trouble: str = ""  # why the status is not that of now, as a sentence without a full stop
    states: Mapping[str, GpuState] = field(default_factory=dict)  # newer ones than in the status, by device
    meters: Mapping[str, Meter] = field(default_factory=dict)  # by device
    tail: Tail = field(default_factory=Tail)


class Live:
    """Keeps `seen` up to date. What is wanted may be changed from any thread."""

    def __init__(self, workspace: Workspace, changed: Callable[[], object], *, most: int = MOST) -> None:
        """`changed` is called in another thread, whenever `seen` has changed, and once if this ends by a defect."""
        self.seen = Seen()
        self.failure: Exception | None = None
        self._workspace = workspace
        self._config = _stamp(workspace.settings.file)
        self._changed = changed
        self._most = most
        self._everything = False
        self._log: str | None = None
        self._closing = False
        self._monitor = nvml.Monitor()
        self._sample = nvml.Sample(time.time(), Inventory((), driver=True, problem="NVML has not answered yet"), {})
        self._gauges: dict[str, _Gauge] = {}
        self._look_at = self._free_at = 0.0  # when to look next, and before when not (monotonic)
        self._sample_at = self._tail_at = self._tail_free_at = 0.0
        self._tail_stamp: object = None
        self._listener: wake.Receiver | None = None
        self._watch: inotify.Watch | None = None
        self._scheduler: tuple[int, int] | None = None  # its pid, and a descriptor that says when it ends
        self._bell, self._ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking. Does not wait for what hangs."""
        self._closing = True
        self.wake()
        self._thread.join(0.5)

    def follow(self, log: str | None) -> None:
        """Show the end of this log from now on."""
        if log != self._log:
            self._log = log
            self.wake()

    def list_everything(self, wanted: bool) -> None:
        """Whether the status lists all tasks, however many there are."""
        if wanted != self._everything:
            self._everything = wanted
            self._look_at = self._free_at = 0.0
            self.wake()

    def look_again(self) -> None:
        """Look as soon as possible."""
        self._look_at = self._free_at = 0.0
        self.wake()

    def wake(self) -> None:
        """Have the thread see what is wanted."""
        with contextlib.suppress(OSError):  # full: it is awake; closed: it has ended
            os.write(self._ring, b"x")

    # -- in the thread

    def _run(self) -> None:
        self._monitor.wake = self.wake
        try:
            self._monitor.wait(FIRST_SAMPLE_SECONDS)
            while not self._closing:
                news = [self._take_sample(), self._look(), self._read_log()]
                if any(news):
                    self._changed()
                self._wait()
        except Exception as error:  # a defect: told where it can be seen
            self.failure = error
            self._changed()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._monitor.wake = lambda: None
        if self._listener is not None:
            self._listener.close()
        if self._watch is not None:
            self._watch.close()
        if self._scheduler is not None:
            os.close(self._scheduler[1])
        os.close(self._bell)
        ring, self._ring = self._ring, -1
        os.close(ring)

    def _take_sample(self) -> bool:
        """Have the GPUs looked at when it is time, and note what came of the last time."""
        now = time.monotonic()
        latest = self._monitor.latest
        new = latest is not None and (latest.at, latest.late) != (self._sample.at, self._sample.late)
        if latest is not None and new:
            if latest.inventory.devices != self._sample.inventory.devices:
                self._look_at = 0.0
            self._sample = latest
            for name, state in latest.states.items():
                self._gauges.setdefault(name, _Gauge()).note(state)
            meters = {name: gauge.meter(time.time()) for name, gauge in self._gauges.items()}
            self.seen = replace(self.seen, states=latest.states, meters=meters)
        if now >= self._sample_at:
            self._sample_at = now + (SAMPLE_SECONDS if self._sample.inventory.driver else NO_DRIVER_SECONDS)
            self._monitor.request()
        return new

    def _look(self) -> bool:
        began = time.monotonic()
        if began < self._look_at:
            return False
        self._listen()
        if self._listener is not None:
            self._listener.clear()  # before looking, so that what comes meanwhile is not missed
        try:
            self._read_config()
            self._require_folder()
            most = None if self._everything else self._most
            seen = replace(self.seen, status=status_of(self._workspace, most, self._sample), trouble="")
        except (TinkschedError, OSError) as error:
            seen = replace(self.seen, trouble=str(error).splitlines()[0])
        changed = seen.status is not None or seen != self.seen
        self.seen = seen
        self._watch_scheduler()
        now = time.monotonic()
        took = now - began
        self._free_at = now + max(LOOK_SECONDS, REST * took)
        net, rest = (NET_SECONDS, LONG_REST) if self._listener is not None else (LOOK_SECONDS, REST)
        self._look_at = now + max(net, rest * took)
        return changed

    def _listen(self) -> None:
        """Hear of changes, also where the state folder has come only now, or was deleted and made again."""
        folder = self._workspace.state.path
        here = self._listener
        if here is not None and (here.path.parent != folder / wake.LISTENERS or not here.path.exists()):
            here.close()
            self._listener = None
        if self._listener is None:
            with contextlib.suppress(OSError, TinkschedError):  # another user's, or not there yet
                self._listener = wake.listen(folder)

    def _read_config(self) -> None:
        """Take over a configuration that was edited. Raises ConfigError: it has problems; the old one stays."""
        settings = self._workspace.settings
        stamp = _stamp(settings.file)
        if stamp not in (None, self._config):
            self._workspace = workspaces.find(settings.workspace, settings.file)
            self._config = stamp

    def _require_folder(self) -> None:
        folder = self._workspace.settings.workspace
        if not folder.is_dir():
            raise TinkschedError(f"the workspace {folder} is gone")

    def _watch_scheduler(self) -> None:
        pid = self.seen.status.scheduler_pid if self.seen.status is not None else None
        if self._scheduler is not None and self._scheduler[0] != pid:
            os.close(self._scheduler[1])
            self._scheduler = None
        if self._scheduler is None and pid:
            process = processes.identify(pid)
            descriptor = processes.open_pidfd(process) if process is not None else None
            self._scheduler = (pid, descriptor) if descriptor is not None else None

    def _read_log(self) -> bool:
        """Read the end of the log if it is another one, or may have grown."""
        wanted, now = self._log, time.monotonic()
        same = wanted == self.seen.tail.path
        if same and now < self._tail_at:
            return False
        if not same:
            self._tail_stamp = None
            self._watch_log(wanted)
        self._tail_free_at = now + LOOK_SECONDS
        # Without a watch it has to be looked at; so has one that isn't there yet.
        self._tail_at = now + (NET_SECONDS if self._watch is not None else LOOK_SECONDS)
        stamp = None if wanted is None else _stamp(Path(wanted))
        if same and stamp == self._tail_stamp:
            return False
        if stamp is not None and self._watch is None:
            self._watch_log(wanted)
        self._tail_stamp = stamp
        lines = () if wanted is None or stamp is None else _lines(wanted)
        self.seen = replace(self.seen, tail=Tail(wanted, lines, stamp is not None))
        return True

    def _watch_log(self, path: str | None) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if path is not None:
            with contextlib.suppress(OSError):
                watch = inotify.Watch()
                try:
                    watch.add(Path(path), inotify.MODIFY | inotify.DELETE_SELF | inotify.MOVE_SELF)
                except OSError:
                    watch.close()
                    raise
                self._watch = watch

    def _wait(self) -> None:
        """Until something is due. What may not be done yet is not even listened for."""
        now = time.monotonic()
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        until = [self._look_at, self._sample_at]
        if self._scheduler is not None:
            poller.register(self._scheduler[1], select.POLLIN)
        if self._listener is not None:
            if now >= self._free_at:
                poller.register(self._listener.fileno(), select.POLLIN)
            else:
                until.append(self._free_at)
        if self._log is not None:
            until.append(self._tail_at)
        if self._watch is not None:
            if now >= self._tail_free_at:
                poller.register(self._watch.fileno(), select.POLLIN)
            else:
                until.append(self._tail_free_at)
        # A millisecond more, or it would spin for the last one.
        for descriptor, _ in poller.poll(max(0.0, min(until) - now) * 1000 + 1):
            self._heard(descriptor)

    def _heard(self, descriptor: int) -> None:
        if descriptor == self._bell:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._bell, 4096):
                    pass
        elif self._scheduler is not None and descriptor == self._scheduler[1]:
            os.close(descriptor)
            self._scheduler = None
            self._look_at = 0.0
        elif self._watch is not None and descriptor == self._watch.fileno():
            self._watch.clear()
            self._tail_at = 0.0
        else:
            self._look_at = 0.0


class _Gauge:
    """The means of what was seen of a GPU, bucket by bucket."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, list[float], list[float]]] = deque(maxlen=BUCKETS)

    def note(self, state: GpuState) -> None:
        number = int(state.at // BUCKET_SECONDS)
        if not self._buckets or self._buckets[-1][0] < number:
            self._buckets.append((number, [], []))
        _, busy, memory = self._buckets[-1]
        if state.utilization is not None:
            busy.append(state.utilization)
        if state.memory_used is not None and state.memory_total:
            memory.append(100.0 * state.memory_used / state.memory_total)

    def meter(self, now: float) -> Meter:
        """Up to now; buckets that nobody looked into are there, too."""
        known = {number: (_mean(busy), _mean(memory)) for number, busy, memory in self._buckets}
        last = max(int(now // BUCKET_SECONDS), *known)
        first = max(min(known), last - BUCKETS + 1)
        pairs = [known.get(number, (None, None)) for number in range(first, last + 1)]
        return Meter(tuple(busy for busy, _ in pairs), tuple(memory for _, memory in pairs))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _lines(path: str) -> tuple[str, ...]:
    """The last lines of a log, as a terminal would show them in the end."""
    text = logs.clean(tail(path, LOG_BYTES))
    return tuple(line.rstrip() for line in text.rstrip("\n").split("\n")[-LOG_LINES:])


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; None if it isn't there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
