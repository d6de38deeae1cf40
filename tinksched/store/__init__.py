"""What is on disk: tasks, runs, events and a few facts, in one SQLite database of the workspace."""

from .database import REPAIR
from .records import about
from .store import Event, NewTask, Store, Transaction

__all__ = ["REPAIR", "Event", "NewTask", "Store", "Transaction", "about"]
