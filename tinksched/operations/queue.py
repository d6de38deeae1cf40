"""`pause`, `resume`, `hold`, `release`, `priority`: what waits, and in which order, without a change of what runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache

from ..core.lifecycle import ForMany, Held, Ranked, Released
from ..core.model import Hold, TaskState, in_words
from ..errors import NothingToActOn, UsageError
from ..host import wake
from ..store import PAUSED, STOPPED, Listed
from . import daemon, selection
from .selection import Wanted
from .workspace import OpenWorkspace, actor, user_name

LARGEST_PRIORITY = 1_000_000  # as in the configuration


@dataclass(frozen=True, slots=True)
class Changed:
    """What a command has done: the tasks that it changed, and those that it could not, with why."""

    done: tuple[str, ...]
    left: tuple[tuple[str, str], ...] = ()


def pause(opened: OpenWorkspace) -> tuple[Hold, bool]:
    """Have nothing new start; what runs goes on. Returns the pause, and whether it is new."""
    with opened.store.transaction(actor("pause"), time.time()) as tx:
        before = opened.store.pause()
        if before is not None:
            return before, False
        now = Hold(user_name(), time.time())
        tx.set_fact(PAUSED, json.dumps(asdict(now)))
    _tell(opened)
    return now, True


def resume(opened: OpenWorkspace) -> Hold:
    """Let tasks start again. Returns the pause that was.

    Raises:
        NothingToActOn: nobody paused the workspace.
    """
    with opened.store.transaction(actor("resume"), time.time()) as tx:
        before = opened.store.pause()
        if before is None:
            raise NothingToActOn("nothing is paused here")
        tx.set_fact(PAUSED, None)
    _tell(opened)
    return before


def keep_going(opened: OpenWorkspace) -> str | None:
    """After something was let go: what was started to run it, or why nothing will."""
    if not opened.store.has_queue() or daemon.nudge(opened):
        return None
    stopped = opened.store.fact(STOPPED)
    if stopped is not None:
        return f"no scheduler runs (stopped {stopped}): `tinksched start` starts one"
    return daemon.ensure(opened)


def hold(opened: OpenWorkspace, wanted: Wanted) -> Changed:
    """Have queued tasks wait until they are released.

    Raises:
        NothingToActOn: none is queued.
    """

    def why_not(task: Listed) -> str | None:
        return "is held already" if task.hold is not None and task.hold.until is None else None

    event = Held(Hold(user_name(), time.time()))
    return _change(opened, "hold", wanted, lambda task: event, why_not)


def release(opened: OpenWorkspace, wanted: Wanted, until: float | None) -> Changed:
    """Let held tasks go; with `until` (seconds since the epoch) only then, which goes for any queued task.

    Raises:
        NothingToActOn: there is none.
    """

    def why_not(task: Listed) -> str | None:
        return "is not held" if task.hold is None and until is None else None

    now = time.time()
    event = Released() if until is None else Held(Hold(user_name(), now, until))
    return _change(opened, "release", wanted, lambda task: event, why_not)


def prioritise(opened: OpenWorkspace, wanted: Wanted, priority: int, *, relative: bool) -> Changed:
    """Give queued tasks a priority, or with `relative` one that is higher by so much.

    Raises:
        NothingToActOn: none is queued.
        UsageError: it would be beyond what a priority may be.
    """

    def event(task: Listed) -> ForMany:
        number = task.priority + priority if relative else priority
        if abs(number) > LARGEST_PRIORITY:
            raise UsageError(f"{task.name} would have the priority {number}; at most {LARGEST_PRIORITY} is allowed")
        return Ranked(number)

    return _change(opened, "priority", wanted, event, lambda task: None)


def put_first(opened: OpenWorkspace, wanted: Wanted) -> tuple[Changed, int]:
    """Give queued tasks a priority above that of all others that wait now; what was changed, and that priority.

    Raises:
        NothingToActOn: none is queued.
    """

    @cache
    def first() -> int:  # asked for in the transaction of the change
        chosen = frozenset(selection.select(opened.store, wanted))
        queue = opened.store.roster(TaskState.QUEUED)
        highest = max((task.priority for task in queue if task.name not in chosen), default=0)
        return min(highest + 1, LARGEST_PRIORITY)

    return _change(opened, "priority", wanted, lambda task: Ranked(first()), lambda task: None), first()


def _change(
    opened: OpenWorkspace, command: str, wanted: Wanted, event: Callable[[Listed], ForMany],
    why_not: Callable[[Listed], str | None],
) -> Changed:  # fmt: skip
    """Change those that can be changed, in one transaction. What `--all` means is only these."""
    done: list[Listed] = []
    moves: dict[ForMany, list[Listed]] = {}
    left = []
    with opened.store.transaction(actor(command), time.time()) as tx:
        names = [] if wanted == Wanted(everything=True) else selection.select(opened.store, wanted)
        tasks = opened.store.roster(TaskState.QUEUED) if wanted.everything else opened.store.listed(names).values()
        for task in _in_order(tasks, names):
            state = None if task.state == TaskState.QUEUED else f"is {in_words(task.outcome or task.state)}"
            reason = state or why_not(task)
            if reason is None:
                done.append(task)
                moves.setdefault(event(task), []).append(task)
            elif not wanted.everything:
                left.append((task.name, reason))
        for move, those in moves.items():
            tx.apply_to(those, move)
    if not done:
        said = selection.listed([f"{name} {why}" for name, why in left])
        raise NothingToActOn(f"nothing to do: {said}" if left else "no such task is queued")
    _tell(opened)
    return Changed(tuple(task.name for task in done), tuple(left))


def _in_order(tasks: Iterable[Listed], names: Sequence[str]) -> list[Listed]:
    rank = {name: number for number, name in enumerate(names)}
    return sorted(tasks, key=lambda task: (rank.get(task.name, len(rank)), task.id))


def _tell(opened: OpenWorkspace) -> None:
    """The scheduler looks again, and so does everybody who follows."""
    daemon.nudge(opened)
    wake.announce(opened.state.path)
