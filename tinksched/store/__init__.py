"""What is on disk: tasks, runs, events and a few facts, in one SQLite database of the workspace."""

from .database import REPAIR
from .packing import Bar, DoneTask, Glance, Listed, Past, Ran, Remains
from .records import about
from .store import PAUSED, STOPPED, Event, Store
from .transaction import NewTask, Transaction

__all__ = [
    "PAUSED",
    "REPAIR",
    "STOPPED",
    "Bar",
    "DoneTask",
    "Event",
    "Glance",
    "Listed",
    "NewTask",
    "Past",
    "Ran",
    "Remains",
    "Store",
    "Transaction",
    "about",
]
