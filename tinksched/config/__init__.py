"""scheduler_config.yml <-> typed, frozen settings. YAML dictionaries die here."""

from __future__ import annotations

from .loader import load
from .natural import natural_key
from .schema import KEYS, TASK_OPTIONS, Key
from .settings import CONFIG_NAME, Origin, RunningLimit, Settings, TaskOptions, TaskRule, plain

__all__ = [
    "CONFIG_NAME",
    "KEYS",
    "TASK_OPTIONS",
    "Key",
    "Origin",
    "RunningLimit",
    "Settings",
    "TaskOptions",
    "TaskRule",
    "load",
    "natural_key",
    "plain",
]
