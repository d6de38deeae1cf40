"""How a run ended, decided from the evidence that it left."""

from __future__ import annotations

import hashlib
import os
import signal
from dataclasses import replace
from pathlib import Path

from ..core.diagnosis import TAIL_BYTES, diagnose
from ..core.model import Outcome, Reason, ReasonCode, Run
from .logfile import tail

_BY_ITSELF = (ReasonCode.EXIT_CODE, ReasonCode.KILLED_BY_SIGNAL, ReasonCode.PRE_RUN_FAILED)  # nobody ended it


def marker_identity(path: Path | str) -> str | None:
    """What distinguishes this marker from any other one: inode, size and modification time. None without a file."""
    try:
        status = os.stat(path)  # thousands are asked for at once, and a Path costs more than the question
    except (OSError, ValueError):
        return None
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def is_fresh(path: Path | str, before: str | None) -> bool:
    """Whether the marker is there and isn't the one that was there at launch."""
    now = marker_identity(path)
    return now is not None and now != before


def file_hash(path: Path | str) -> str | None:
    """The SHA-256 of a file; None if it can't be read."""
    digest = hashlib.sha256()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # thousands are read at once: a file object costs more
        try:
            while data := os.read(descriptor, 65536):
                digest.update(data)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return digest.hexdigest()


def conclude(
    code: int, *, fresh_marker: bool, require_marker: bool, strict_exit: bool
) -> tuple[Outcome, Reason | None]:
    """The outcome of a run that left an exit status.

    0 is completed, unless a marker is required and there is no fresh one. Anything else is failed, unless there is a
    fresh marker (programs crash in teardown) and `strict_exit` is off. 130 is Ctrl-C: cancelled.
    """
    if code == 0:
        if require_marker and not fresh_marker:
            return Outcome.FAILED, Reason(ReasonCode.NO_MARKER)
        return Outcome.COMPLETED, None
    if fresh_marker and not strict_exit:
        return Outcome.COMPLETED, Reason(ReasonCode.MARKER_DESPITE_EXIT, {"code": code})
    if code == 128 + signal.SIGINT:
        return Outcome.CANCELLED, Reason(ReasonCode.INTERRUPTED)
    name = signal_name(code)
    if name:
        return Outcome.FAILED, Reason(ReasonCode.KILLED_BY_SIGNAL, {"code": code, "signal": name})
    return Outcome.FAILED, Reason(ReasonCode.EXIT_CODE, {"code": code})


def with_diagnosis(run: Run, outcome: Outcome | None, reason: Reason | None, exit_code: int | None) -> Reason | None:
    """The reason of an ended run, with what its log says of it where that is clear."""
    if outcome is not Outcome.FAILED or reason is None or reason.code not in _BY_ITSELF or run.log is None:
        return reason
    return replace(reason, found=diagnose(tail(run.log, TAIL_BYTES).decode(errors="replace"), exit_code))


def signal_name(code: int) -> str | None:
    """The signal that a shell's exit status above 128 stands for: 137 is "KILL"."""
    try:
        return signal.Signals(code - 128).name.removeprefix("SIG") if code > 128 else None
    except ValueError:
        return None
