"""What is on disk: tasks, runs, events and a few facts, in one SQLite database of the workspace."""

from .database import REPAIR
from .packing import DoneTask, Ran
from .records import about
from .store import STOPPED, Event, Store
from .transaction import NewTask, Transaction

__all__ = ["REPAIR", "STOPPED", "DoneTask", "Event", "NewTask", "Ran", "Store", "Transaction", "about"]
