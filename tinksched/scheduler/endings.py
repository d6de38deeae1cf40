"""From what was seen of a run to how it ended. Pure but for the look at the marker."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Settings
from ..core.model import Outcome, Reason, ReasonCode, Request, Run
from ..executors.base import Exited, Gone, NeverBegan, Observation
from ..host.completion import conclude, is_fresh


@dataclass(frozen=True, slots=True)
class Ending:
    """A run that is over. `outcome` is None if it never began."""

    run: Run
    outcome: Outcome | None
    reason: Reason | None
    exit_code: int | None
    at: float


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else is known when a run is over."""

    request: Request | None = None
    requested_by: str = ""
    leftovers: tuple[str, ...] = ()  # names of processes that outlived the run and were killed
    rebooted: bool = False


def ending_of(
    run: Run, seen: Observation, circumstances: Circumstances, settings: Settings, now: float
) -> Ending | None:
    """The ending that the observation stands for; None while the run is not over, or nobody knows."""
    match seen:
        case Exited(code, at):
            outcome, reason = conclude(
                code,
                fresh_marker=is_fresh(run.marker, run.marker_before),
                require_marker=settings.require_marker,
                strict_exit=settings.strict_exit,
            )
            # A run that completed before the signal arrived has completed.
            if outcome is not Outcome.COMPLETED and circumstances.request is not None:
                outcome, reason = _requested(circumstances)
            if reason is None and circumstances.leftovers:
                names = ", ".join(dict.fromkeys(circumstances.leftovers))
                reason = Reason(ReasonCode.LEFTOVERS_KILLED, {"names": names})
            return Ending(run, outcome, reason, code, min(at, now) if at >= run.created_at else now)
        case NeverBegan(why):
            if circumstances.request is not None:
                return Ending(run, *_requested(circumstances), None, now)
            return Ending(run, None, Reason(ReasonCode.NEVER_BEGAN, {"why": why}), None, now)
        case Gone():
            if circumstances.request is not None:
                return Ending(run, *_requested(circumstances), None, now)
            return Ending(run, Outcome.LOST, _lost(circumstances), None, now)
        case _:
            return None


def _requested(circumstances: Circumstances) -> tuple[Outcome, Reason]:
    if circumstances.request is Request.KILL_ALL:
        return Outcome.CANCELLED, Reason(ReasonCode.KILL_ALL)
    return Outcome.CANCELLED, Reason(ReasonCode.CANCELLED_BY_USER, {"user": circumstances.requested_by or "a user"})


def _lost(circumstances: Circumstances) -> Reason:
    if circumstances.rebooted:
        return Reason(ReasonCode.MACHINE_RESTARTED)
    return Reason(ReasonCode.NO_EXIT_STATUS, {"why": ": its wrapper was killed"})
