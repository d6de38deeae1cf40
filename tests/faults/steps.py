"""The named steps at which the scheduler is killed, and the wrapper's.

A step is `before` or `after` a call of a function of tinksched, or `in` a generator: before each thing that it yields.
"""

from __future__ import annotations

_EXECUTORS = ("executors.tmux:TmuxExecutor", "executors.local:LocalExecutor")

# Each name with the places that it stands for: when, module and name.
SCHEDULER: dict[str, tuple[tuple[str, str], ...]] = {
    "queueing: tasks added, not committed": (("after", "store.transaction:Transaction.add_tasks"),),
    "queueing: committed": (("after", "operations.start:queue"),),
    "a tick: before it persists": (("before", "scheduler.ledger:Ledger.commit"),),
    "a tick: ends and starts written, not committed": (("after", "scheduler.ledger:Ledger._start_what_fits"),),
    "after persist, before launch": tuple(("before", f"{name}.launch") for name in _EXECUTORS),
    "after launch, before record": (("before", "scheduler.ledger:Ledger.record_launches"),),
    "between the launches of a batch": (
        ("after", "host.tmux:_creation"),
        ("after", "executors.local:_spawn"),
    ),
    "after record": (("after", "scheduler.ledger:Ledger.record_launches"),),
    "a run: its row added, not committed": (("after", "store.transaction:Transaction.add_run"),),
    "a run: its state changed, not committed": (("after", "store.transaction:Transaction.apply_run"),),
    "a task: its state changed, not committed": (("after", "store.transaction:Transaction.apply"),),
    "an end: before it is written": (("before", "scheduler.ledger:Ledger._record"),),
    "an end: written, not committed": (("after", "scheduler.ledger:Ledger._record"),),
    "an end: committed, not yet forgotten": (("before", "scheduler.ledger:Ledger._forget"),),
    "an end: marker left": (("after", "scheduler.ledger:Ledger._leave_marker"),),
    "adopting: before": (("before", "scheduler.ledger:Ledger.adopt"),),
    "adopting: a run is settled": (("before", "scheduler.ledger:Ledger._settle"),),
    "adopting: taken back or not": (("after", "host.rundir:RunDir.take_back"),),
    "adopting: settled": (("after", "scheduler.ledger:Ledger._settle"),),
    "adopting: lease held again": (("after", "host.leases:Leases.hold"),),
    "adopting: after": (("after", "scheduler.ledger:Ledger.adopt"),),
    "migrating: file made": (("after", "store.database:_create_private"),),
    "migrating: before": (("before", "store.database:_migrate"),),
    "migrating: between statements": (("in", "store.database:statements"),),
    "lease: admitted": (("after", "host.leases:Leases._lock_admission"),),
    "lease: before it is granted": (("before", "host.leases:Desk.grant"),),
    "lease: granted": (("after", "host.leases:Desk.grant"),),
    "lease: before it is let go": (("before", "host.leases:Lease.close"),),
    "lease: let go, its names still there": (("before", "host.leases:Leases.release"),),
    "lease: released": (("after", "host.leases:Leases.release"),),
    "run folder: before": (("before", "host.rundir:RunDir.prepare"),),
    "run folder: half made": (("after", "host.rundir:write_private"),),
    "run folder: made": (("after", "host.rundir:RunDir.prepare"),),
    "run folder: before it is deleted": (("before", "host.rundir:RunDir.remove"),),
    "tidying up": tuple(("before", f"{name}.forget") for name in _EXECUTORS),
    "announcing": (("before", "host.wake:announce"),),
    "the scheduler's lock: taken": (("after", "host.statedir:SchedulerLock.acquire"),),
    "the state folder: made": (("after", "host.statedir:prepare"),),
}

# What only the first scheduler of a workspace does, before anything else.
FIRST = (
    "the state folder: made",
    "migrating: file made",
    "migrating: before",
    *("migrating: between statements",) * 3,
    "queueing: tasks added, not committed",
    "queueing: committed",
)

# Deaths that leave runs of which the next scheduler has to find out whether they began.
UNSETTLED = ("after persist, before launch", "between the launches of a batch", "after launch, before record")

# Where a token kills: the wrapper's two shells, or the task.
TOKENS = tuple(
    [f"{step}.{who}" for step in ("unlocked", "locked", "began", "ended") for who in ("inner", "outer", "both")]
    + ["begun.task"]
)
