"""The GPUs that a workspace's scheduler uses: what the settings ask for, on the machine that there is."""

from __future__ import annotations

import os

from ..config import Settings
from ..errors import TinkschedError
from ..host import gpus


def resolve_gpus(settings: Settings) -> gpus.Resolved:
    """The GPUs that this workspace's tasks may use on this machine.

    Raises:
        UsageError: the settings ask for what isn't there.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return gpus.resolve(gpus.discover(), gpu_count=settings.gpu_count, use_gpus=settings.use_gpus, visible=visible)


def gpus_if_any(settings: Settings) -> gpus.Resolved:
    """As `resolve_gpus`; none where that fails, with the reason as the note. For tasks that need no GPU."""
    try:
        return resolve_gpus(settings)
    except TinkschedError as error:
        return gpus.Resolved((), error.message)


def cpu_slots(settings: Settings) -> int:
    """How many runs without GPUs may go on at once."""
    return len(os.sched_getaffinity(0)) if settings.cpu_slots is None else settings.cpu_slots
