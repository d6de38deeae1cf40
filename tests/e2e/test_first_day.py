"""What somebody does who has read the README only, and what the commands say then."""

from __future__ import annotations

import signal
import sys
from subprocess import PIPE, Popen

from tests.support import Bench, Lab


def until_it_listens(bench: Bench) -> None:
    """Until a command follows what the scheduler announces, besides this test itself."""
    bench.wait_until(lambda: len([*(bench.state.path / "listeners").iterdir()]) > 1, "a listener")


def follower(bench: Bench, *words: str) -> Popen[str]:
    """A command that follows the scheduler by now, its standard error apart."""
    command = Popen([sys.executable, "-m", "tinksched", *words], cwd=bench.folder, env=bench.lab.environment, text=True,
                    stdout=PIPE, stderr=PIPE)  # fmt: skip
    until_it_listens(bench)
    return command


def test_the_log_of_a_task_that_waits_is_followed_once_it_starts(lab: Lab) -> None:
    bench = lab.workspace()
    bench.run("pause")
    bench.run("run", "--name", "z", "--", "echo", "hello at last")
    assert "has not run yet" in bench.run("logs", "z", code=3).err
    command = follower(bench, "logs", "z", "-f")
    bench.run("resume")
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (0, "hello at last\n")
    assert "z has not run yet. It waits: paused by root" in err


def test_following_the_log_of_a_task_that_waits_can_be_ended(lab: Lab) -> None:
    bench = lab.workspace()
    bench.run("pause")
    bench.run("run", "--name", "z", "--", "echo", "never")
    command = follower(bench, "logs", "z", "-f")
    command.send_signal(signal.SIGINT)
    assert command.communicate(timeout=60) and command.returncode == 130
    command = follower(bench, "logs", "z", "-f")
    bench.run("cancel", "z")
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (3, "") and "z has not run" in err
