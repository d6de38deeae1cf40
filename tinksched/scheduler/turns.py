"""Taking turns with the other schedulers of the host: whom to leave slots to, and what to say to them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..core.fairness import Ask, Rival, asks_of, turns
from ..core.fairness import Turns as Turn
from ..core.model import ReasonCode, Task
from ..core.placement import Decision
from ..host.leases import user_name
from ..host.notices import Heard, Notice, listen
from .scene import Scene, looked_at

MOST_ASKS = 16
TURN_SECONDS = 2.0  # how long a slot is kept free for one whose turn it is and who doesn't take it
_FOR_SLOTS = {
    ReasonCode.GPUS_FULL, ReasonCode.PINNED_GPU_FULL, ReasonCode.TOO_FEW_GPUS, ReasonCode.NEEDS_EMPTY_GPUS,
    ReasonCode.HELD_FOR, ReasonCode.OTHERS_TURN, ReasonCode.NEEDS_MEMORY, ReasonCode.KEPT_FOR, ReasonCode.CPU_FULL,
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

    def leave(self, first: Decision, scene: Scene) -> Scene:
        """The scene, with the slots marked that are left to others. `first` is what would start if nobody else waited.

        The slots of the CPU are shared for themselves: who has many of them waits for a GPU no longer for that.
        """
        mine = [task for task in looked_at(scene.queue, first) if task.id not in first.waiting or _asks(task, first)]
        me = replace(self._me, last_start=scene.last_start, asks=_asks_of(mine, scene))
        believed = [heard for heard in self._rivals if self._still_believed(heard, scene.now)]
        rivals = [heard.rival for heard in believed]
        desks, cpu = scene.desks()
        left = turns(me, rivals, desks, scene.slots_by_holder(cpu=False))
        of_cpu = turns(me, rivals, cpu, scene.slots_by_holder(cpu=True)) if cpu else Turn({}, frozenset())
        for heard in believed:
            self._remember(heard, heard.rival.workspace_id in left.ready | of_cpu.ready, scene.now)
        since = [since for heard in believed if (since := self._since(heard)) is not None]
        self.wake_at = min(since) + TURN_SECONDS if since and (left.reserved or of_cpu.reserved) else None
        return replace(
            scene,
            slots=[replace(gpu, reserved=left.reserved.get(gpu.device)) for gpu in scene.slots],
            cpu=replace(scene.cpu, reserved=of_cpu.reserved.get(scene.cpu.device)) if scene.cpu else None,
        )

    def say(self, last: Decision, scene: Scene, started: float) -> None:
        """Tell the others what still waits for slots, if there are others."""
        waiting = [task for task in looked_at(scene.queue, last) if _asks(task, last)]
        everywhere = [*scene.slots, *([scene.cpu] if scene.cpu else [])]
        asks = _asks_of(waiting, scene) if self._rivals or any(gpu.others for gpu in everywhere) else ()
        if asks:
            self._notice.say(self._me.workspace, started, asks)
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


def _asks_of(tasks: Sequence[Task], scene: Scene) -> tuple[Ask, ...]:
    """What these tasks ask for. Who stands behind so many different kinds has time to say it later."""
    desks, cpu = scene.desks()
    demands = [scene.demand(task) for task in tasks]
    for_gpus = asks_of([demand for demand in demands if demand.gpus], desks)
    for_cpu = asks_of([demand for demand in demands if not demand.gpus], cpu)
    return (*for_gpus[:MOST_ASKS], *for_cpu)


def _asks(task: Task, decision: Decision) -> bool:
    """Whether the task waits for nothing but what schedulers give back."""
    reason = decision.waiting.get(task.id)
    return reason is not None and reason.code in _FOR_SLOTS
