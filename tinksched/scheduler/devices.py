"""The GPUs that a workspace's scheduler uses: what the settings ask for, on the machine that there is."""

from __future__ import annotations

import os

from ..config import Settings
from ..host import gpus, nvml


def resolve_gpus(settings: Settings) -> gpus.Resolved:
    """The GPUs that this workspace's tasks may use on this machine.

    Raises:
        UsageError: the settings ask for what isn't there.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return gpus.resolve(nvml.discover(), gpu_count=settings.gpu_count, use_gpus=settings.use_gpus, visible=visible)
