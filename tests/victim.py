"""A scheduler that halts at a step of its work, so that a test can do something at this very instant."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.support import TIMEOUT, Bench

# A scheduler that stops itself (SIGSTOP) once, at the step that its first argument names.
VICTIM = r"""
import os, signal, sys
from tinksched.cli import main
from tinksched.executors.local import LocalExecutor
from tinksched.host.statedir import SchedulerLock
from tinksched.scheduler.ledger import Ledger

step, *arguments = sys.argv[1:]
halted = []

def here(name):
    if name == step and not halted:
        halted.append(name)
        os.kill(os.getpid(), signal.SIGSTOP)

launch, record, commit, release = LocalExecutor.launch, Ledger.record_launches, Ledger.commit, SchedulerLock.release

async def slow_launch(self, runs):
    here("intended")
    answer = await launch(self, runs)
    here("launched")
    return answer

def slow_record(self, launched):
    record(self, launched)
    here("recorded")

def slow_commit(self, endings, **how):
    if endings:
        here("ending")
    new = commit(self, endings, **how)
    if endings:
        here("ended")
    return new

def slow_release(self):
    here("before release")
    release(self)
    here("after release")

LocalExecutor.launch, Ledger.record_launches = slow_launch, slow_record
Ledger.commit, SchedulerLock.release = slow_commit, slow_release
main(arguments)
"""


class Victim:
    """A scheduler in the foreground that halts at a step."""

    def __init__(self, bench: Bench, step: str, *arguments: str) -> None:
        script = bench.lab.folder / "victim.py"
        script.write_text(VICTIM)
        command = [*bench.prefix, sys.executable, str(script), step, "start", "--foreground", *arguments]
        self.process = subprocess.Popen(
            command, cwd=bench.folder, env=bench.lab.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def wait_until_halted(self) -> None:
        found = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert found is not None and found.si_code == os.CLD_STOPPED, self.process.communicate()[0]

    def go_on(self, number: signal.Signals = signal.SIGCONT) -> None:
        os.kill(self.process.pid, number)

    def finish(self) -> str:
        out, _ = self.process.communicate(timeout=TIMEOUT)
        assert "Traceback" not in out, out
        return out
