"""Schedulers to be killed: `python -m tests.faults.victim`, a program that forks one for each line that it reads.

Forking spares the start of an interpreter. The child becomes what the given command line of tinksched is, but dies of
SIGKILL, by its own hand, at the step that was asked for. Nothing in tinksched knows of this.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from tests.faults import mutants
from tests.faults.steps import SCHEDULER

TRACED = ("scheduler", "store", "host", "executors")


def die(hits: str, step: str) -> None:
    """Write down where, and be killed."""
    descriptor = os.open(hits, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"scheduler\t{step}\t{os.getpid()}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # another thread of the process may be the one that is killed first


class Countdown:
    """Kills this process at the n-th time."""

    def __init__(self, hits: str, step: str, times: int) -> None:
        self._hits, self._step, self._left = hits, step, times

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            die(self._hits, self._step)


def arm_step(step: str, reached: Callable[[], None]) -> None:
    """Call `reached` whenever the step is reached."""
    for when, place in SCHEDULER[step]:
        module, _, path = place.partition(":")
        owner: Any = importlib.import_module(f"tinksched.{module}")
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, name, wrapped(getattr(owner, name), when, reached))


def wrapped(function: Any, when: str, reached: Callable[[], None]) -> Any:
    """The function with a call of `reached` before or after it."""
    if when == "in":

        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Iterator[Any]:
            for item in function(*args, **kwargs):
                reached()
                yield item

        return generator
    assert when == "before" or not inspect.iscoroutinefunction(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            reached()
        answer = function(*args, **kwargs)
        if when == "after":
            reached()
        return answer

    return call


def arm_line(hits: str, number: int) -> None:
    """Die at the n-th line of the scheduler's own code that is executed, in whatever thread."""
    import tinksched

    root = Path(tinksched.__file__).parent
    folders = tuple(f"{root / part}{os.sep}" for part in TRACED)
    left = [number]

    def line(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                place = Path(frame.f_code.co_filename).relative_to(root)
                die(hits, f"line {place}:{frame.f_lineno}")
        return line

    def call(frame: FrameType, event: str, _: object) -> Any:
        return line if frame.f_code.co_filename.startswith(folders) else None

    threading.settrace(call)
    sys.settrace(call)


def become(order: dict[str, Any]) -> None:
    """Be a command of tinksched, in this process."""
    os.setsid()
    os.chdir(order["cwd"])
    output = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for mutant in order.get("mutants", ()):
        mutants.BY_NAME[mutant]()
    if "step" in order:
        arm_step(order["step"], Countdown(order["hits"], order["step"], order["times"]))
    from tinksched.cli import main

    sys.argv = ["tinksched", *order["argv"]]
    if "line" in order:
        arm_line(order["hits"], order["line"])
    main()


def preload() -> None:
    """Import what a scheduler needs, once for all of them."""
    for name in ("cli", "cli.app", "cli.queue", "cli.render", "operations.start", "operations.daemon"):
        importlib.import_module(f"tinksched.{name}")
    for name in ("scheduler.main", "executors.tmux", "executors.local", "rich.table", "libtmux", "psutil"):
        importlib.import_module(name if "." not in name or name.startswith("rich") else f"tinksched.{name}")


def serve() -> None:
    """Read orders, fork, tell the pid and afterwards the wait status."""
    preload()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                become(json.loads(line))
            except SystemExit as end:
                os._exit(end.code if isinstance(end.code, int) else 0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(99)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    serve()
