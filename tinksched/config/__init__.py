"""scheduler_config.yml <-> typed, frozen settings. YAML dictionaries die here."""

from __future__ import annotations

from tinksched.config.loader import load
from tinksched.config.natural import natural_key
from tinksched.config.schema import KEYS, TASK_OPTIONS, Key
from tinksched.config.settings import CONFIG_NAME, Origin, Settings, TaskOptions, TaskRule, plain

__all__ = [
    "CONFIG_NAME",
    "KEYS",
    "TASK_OPTIONS",
    "Key",
    "Origin",
    "Settings",
    "TaskOptions",
    "TaskRule",
    "load",
    "natural_key",
    "plain",
]
