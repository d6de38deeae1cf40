"""`python -m tests.bench.traced ARGUMENTS`: tinksched, with the time of each step of a hand-over written to $TRACE."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from tinksched.cli import main
from tinksched.executors.tmux import TmuxExecutor
from tinksched.host.tmux import LibTmux
from tinksched.scheduler import ledger
from tinksched.scheduler.ledger import Ledger
from tinksched.scheduler.loop import Scheduler

# Each with what is done when it is reached, and since the one before it.
STEPS: tuple[tuple[str, Any, str, str], ...] = (
    ("the wrapper wrote the status, and the scheduler woke up", Scheduler, "_tick", "before"),
    ("its end was seen, and that no process of it is left", Scheduler, "_commit", "before"),
    ("its lease was let go, its marker left, the GPUs' admission locked", Ledger, "_record", "before"),
    ("its end was written", Ledger, "_start_what_fits", "before"),
    ("it was decided what starts", ledger, "decide", "after"),
    ("that one's lease, folder, environment and script were made", Ledger, "_intend", "after"),
    ("it was written, and the transaction synced", Ledger, "commit", "after"),
    ("its launch began", TmuxExecutor, "launch", "before"),
    ("a thread was there, and tmux's client was called", LibTmux, "_ask", "before"),
)
LAST = "tmux made the session; the wrapper took the lease and became the task"


def _marked(function: Callable[..., Any], mark: Callable[[], None], when: str) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def later(*args: Any, **kwargs: Any) -> Any:
            mark()
            return await function(*args, **kwargs)

        return later

    @functools.wraps(function)
    def marked(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            mark()
        try:
            return function(*args, **kwargs)
        finally:
            if when == "after":
                mark()

    return marked


def _trace(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def mark(number: int) -> None:
        os.write(descriptor, f"{number} {time.monotonic():.9f}\n".encode())

    for number, (_, owner, name, when) in enumerate(STEPS):
        setattr(owner, name, _marked(getattr(owner, name), functools.partial(mark, number), when))


if __name__ == "__main__":
    _trace(os.environ["TRACE"])
    main(sys.argv[1:])
