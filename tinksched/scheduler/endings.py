"""From what was seen of a run to how it ended. Pure but for the look at the marker."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from ..config import Settings
from ..core.model import Outcome, Reason, ReasonCode, Request, Run
from ..executors.base import Exited, Gone, NeverBegan, Observation
from ..host.completion import conclude, is_fresh, signal_name


@dataclass(frozen=True, slots=True)
class Ending:
    """A run that is over. `outcome` is None if it never began."""

    run: Run
    outcome: Outcome | None
    reason: Reason | None
    exit_code: int | None
    at: float
    passing: bool = False  # it never began because the machine could not, now: no fault of the task's


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else is known when a run is over."""

    request: Request | None = None
    requested_by: str = ""
    leftovers: tuple[str, ...] = ()  # names of processes that outlived the run and were killed
    rebooted: bool = False
    pre_run_failed: bool = False
    oom_kills: int = 0  # of the host, while it ran
    stalled: bool = False  # it was ended because it did nothing any more
    ended_first: bool = False  # it had ended by itself before anything was done about a request


def ending_of(
    run: Run, seen: Observation, circumstances: Circumstances, settings: Settings, now: float
) -> Ending | None:
    """The ending that the observation stands for; None while the run is not over, or nobody knows."""
    match seen:
        case Exited(code, at):
            outcome, reason = conclude(
                code,
                fresh_marker=has_fresh_marker(run),
                require_marker=settings.require_marker,
                strict_exit=settings.strict_exit,
            )
            if reason is not None and reason.code is ReasonCode.KILLED_BY_SIGNAL:
                reason = _killed(run, code, reason, circumstances)
            if circumstances.pre_run_failed:
                outcome, reason = Outcome.FAILED, Reason(ReasonCode.PRE_RUN_FAILED, {"code": code})
            # Many programs save a checkpoint at TERM and end with 0: that is no completion, unless they say so.
            has_completed = outcome is Outcome.COMPLETED and (has_fresh_marker(run) or circumstances.ended_first)
            if circumstances.request is not None and not has_completed:
                outcome, reason = _requested(circumstances)
            elif run.deadline is not None and at >= run.deadline and not has_completed:
                outcome, reason = Outcome.TIMED_OUT, _too_long(run)
            elif circumstances.stalled and not has_completed:
                outcome, reason = Outcome.TIMED_OUT, _stalled(settings)
            if reason is None and circumstances.leftovers:
                names = ", ".join(dict.fromkeys(circumstances.leftovers))
                reason = Reason(ReasonCode.LEFTOVERS_KILLED, {"names": names})
            return Ending(run, outcome, reason, code, min(at, now) if at >= run.created_at else now)
        case NeverBegan(why, passing):
            if circumstances.request is not None:
                return Ending(run, *_requested(circumstances), None, now)
            return Ending(run, None, Reason(ReasonCode.NEVER_BEGAN, {"why": why}), None, now, passing)
        case Gone():
            if circumstances.request is not None:
                return Ending(run, *_requested(circumstances), None, now)
            if run.deadline is not None and now >= run.deadline and not circumstances.rebooted:
                return Ending(run, Outcome.TIMED_OUT, _too_long(run), None, now)
            if circumstances.stalled:
                return Ending(run, Outcome.TIMED_OUT, _stalled(settings), None, now)
            return Ending(run, Outcome.LOST, _lost(seen, circumstances), None, now)
        case _:
            return None


def has_fresh_marker(run: Run) -> bool:
    """Whether the run wrote its completion marker, here or where the config's own `root_dir` puts it."""
    record = run.record
    old = bool(record.old_marker) and is_fresh(record.old_marker, record.old_marker_before)
    return old or is_fresh(run.marker, run.marker_before)


def _too_long(run: Run) -> Reason:
    limit = (run.deadline or 0.0) - run.created_at
    return Reason(ReasonCode.TIME_LIMIT, {"limit": f"{limit:g} s"})


def _stalled(settings: Settings) -> Reason:
    return Reason(ReasonCode.STALLED, {"limit": f"{settings.stall_after or 0:g} s"})


def _requested(circumstances: Circumstances) -> tuple[Outcome, Reason]:
    if circumstances.request is Request.KILL_ALL:
        return Outcome.CANCELLED, Reason(ReasonCode.KILL_ALL)
    return Outcome.CANCELLED, Reason(ReasonCode.CANCELLED_BY_USER, {"user": circumstances.requested_by or "a user"})


def _killed(run: Run, code: int, reason: Reason, circumstances: Circumstances) -> Reason:
    """What most probably killed a command, where the kernel or the signal tells."""
    if code == 128 + signal.SIGHUP and run.session:
        return Reason(ReasonCode.TERMINAL_CLOSED, {"code": code})
    if code == 128 + signal.SIGKILL:
        return _for_memory(reason, circumstances) or reason
    return reason


def _lost(seen: Gone, circumstances: Circumstances) -> Reason:
    if circumstances.rebooted:
        return Reason(ReasonCode.MACHINE_RESTARTED)
    reason = Reason(ReasonCode.NO_EXIT_STATUS, {"why": ": its wrapper is gone"})
    if seen.lost:
        reason = Reason(ReasonCode.TMUX_GONE if seen.lost == "server" else ReasonCode.SESSION_GONE)
    elif seen.signal is not None:
        name = signal_name(128 + seen.signal)
        number = f"{seen.signal} ({name})" if name else str(seen.signal)
        reason = Reason(ReasonCode.WRAPPER_KILLED, {"signal": number})
    if seen.signal in (None, signal.SIGKILL):
        return _for_memory(reason, circumstances) or reason
    return reason


def _for_memory(reason: Reason, circumstances: Circumstances) -> Reason | None:
    """Where something was killed and the kernel ran out of memory meanwhile, that is what a person must know first."""
    count = circumstances.oom_kills
    if count <= 0:
        return None
    some = "1 process" if count == 1 else f"{count} processes"
    return Reason(ReasonCode.OUT_OF_MEMORY, {"how": reason.text, "count": some})
