"""The scheduler: one process for each workspace that observes, decides, persists and acts."""

from .loop import Result, Scheduler

__all__ = ["Result", "Scheduler"]
