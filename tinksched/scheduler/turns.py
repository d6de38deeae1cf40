"""Taking turns with the other schedulers of the host: whom to leave slots to, and what to say to them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..core.fairness import Ask, Rival, asks_of, turns
from ..core.model import GpuSlots, ReasonCode, Task
from ..core.placement import Decision
from ..host.leases import Held, user_name
from ..host.notices import Heard, Notice, listen

MOST_ASKS = 16
TURN_SECONDS = 2.0  # how long a slot is kept free for one whose turn it is and who doesn't take it
_FOR_SLOTS = {
    ReasonCode.GPUS_FULL, ReasonCode.PINNED_GPU_FULL, ReasonCode.TOO_FEW_GPUS, ReasonCode.NEEDS_EMPTY_GPUS,
    ReasonCode.HELD_FOR, ReasonCode.OTHERS_TURN,
}  # fmt: skip


class Turns:
    """The part of one scheduler. Used only under the admission locks of its GPUs, but for `withdraw`."""

    def __init__(self, folder: Path, workspace_id: str, workspace: Path) -> None:
        self._folder = folder
        self._notice = Notice(folder, workspace_id)
        self._me = Rival(workspace_id, str(workspace), user_name(os.geteuid()), 0.0, ())
        self._offered: dict[str, tuple[int, float]] = {}  # by workspace id: the notice, and since when it could start
        self._rivals: list[Heard] = []
        self.wake_at: float | None = None  # when somebody's turn is over who did not take it

    @property
    def notice(self) -> str:
        """The file name of what this scheduler says: its own words are no news to it."""
        return self._notice.name

    def begin(self) -> None:
        """Called once by who has become the scheduler of the workspace."""
        self._notice.remove_former()

    def listen(self) -> bool:
        """Hear the others. Returns whether anybody else waits."""
        self._rivals = []
        with contextlib.suppress(OSError):
            self._rivals = listen(self._folder, self._notice.name)
        return bool(self._rivals)

    def leave(
        self, first: Decision, queue: Sequence[Task], slots: Sequence[GpuSlots], held: Sequence[Held], last: float,
        now: float,
    ) -> list[GpuSlots]:  # fmt: skip
        """The slots, with those marked that are left to others. `first` is what would start if nobody else waited."""
        about = _looked_at(queue, first)
        mine = [task for task in about if task.id not in first.waiting or _waits_for_slots(task, first)]
        me = replace(self._me, last_start=last, asks=_asks(mine, slots))
        believed = [heard for heard in self._rivals if self._still_believed(heard, now)]
        counts = Counter((lease.user, lease.claim.workspace) for lease in held)
        left = turns(me, [heard.rival for heard in believed], slots, counts)
        for heard in believed:
            self._remember(heard, heard.rival.workspace_id in left.ready, now)
        since = [since for heard in believed if (since := self._since(heard)) is not None]
        self.wake_at = min(since) + TURN_SECONDS if since and left.reserved else None
        return [replace(gpu, reserved=left.reserved.get(gpu.device)) for gpu in slots]

    def say(self, last: Decision, queue: Sequence[Task], slots: Sequence[GpuSlots], started: float) -> None:
        """Tell the others what still waits for slots, if there are others."""
        waiting = [task for task in _looked_at(queue, last) if _waits_for_slots(task, last)]
        if waiting and (self._rivals or any(gpu.others for gpu in slots)):
            self._notice.say(self._me.workspace, started, _asks(waiting, slots))
        else:
            self._notice.withdraw()

    def withdraw(self) -> None:
        """Nothing of this scheduler waits for a slot."""
        self._notice.withdraw()
        self.wake_at = None

    # -- inside

    def _still_believed(self, heard: Heard, now: float) -> bool:
        """One who could have started and did not has had his turn, until he says something new."""
        since = self._since(heard)
        return since is None or since <= now < since + TURN_SECONDS

    def _since(self, heard: Heard) -> float | None:
        stamp, since = self._offered.get(heard.rival.workspace_id, (None, 0.0))
        return since if stamp == heard.stamp else None

    def _remember(self, heard: Heard, ready: bool, now: float) -> None:
        if not ready:
            self._offered.pop(heard.rival.workspace_id, None)
        elif self._since(heard) is None:
            self._offered[heard.rival.workspace_id] = (heard.stamp, now)


def _asks(tasks: Sequence[Task], slots: Sequence[GpuSlots]) -> tuple[Ask, ...]:
    """What these tasks ask for. Who stands behind so many different kinds has time to say it later."""
    return asks_of(tasks, slots)[:MOST_ASKS]


def _looked_at(queue: Iterable[Task], decision: Decision) -> Iterator[Task]:
    """The tasks that the decision is about, in their order."""
    placed = {placement.task_id for placement in decision.placements}
    about = (task for task in queue if task.id in placed or task.id in decision.waiting)
    return itertools.islice(about, decision.looked_at)


def _waits_for_slots(task: Task, decision: Decision) -> bool:
    reason = decision.waiting.get(task.id)
    return reason is not None and reason.code in _FOR_SLOTS
