"""What is on disk: tasks, runs, events and a few facts, in one SQLite database of the workspace."""

from .store import Event, NewTask, Store, Transaction

__all__ = ["Event", "NewTask", "Store", "Transaction"]
