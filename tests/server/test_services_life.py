"""Service jobs when things go wrong around them, and what administrators do with them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.services import SETTINGS, Client, answers, ports
from tests.serving import Serving, until
from tests.support import Lab
from tinksched.host import processes

Serve = Callable[..., Serving]


@pytest.fixture
def services(serving: Serve) -> Serve:
    """Makes servers that can start training servers, and begins to serve."""
    return lambda name="server", **settings: serving(name, **{**SETTINGS, **ports(), **settings}).start()


def pid_of(job: dict[str, object], stamp: Path) -> int:
    """The program of a job that runs."""
    assert job["status"] == "RUNNING"
    return int(stamp.read_text().split()[-2])


def runner_of(pid: int) -> int:
    """The runner of a job, by its program."""
    return int(Path(f"/proc/{pid}/stat").read_text().split()[3])


def test_in_tmux_it_can_be_watched_and_interrupted(services: Serve, lab: Lab) -> None:
    server = services(executor="tmux")
    alice = Client(server)
    job = alice.running()
    (session,) = [name for name in lab.sessions() if job["job_id"] in name]
    lab.tmux("send-keys", "-t", f"={session}:", "C-c")
    alice.wait(job["job_id"], "CANCELLED")
    closed = alice.running()
    (session,) = [name for name in lab.sessions() if closed["job_id"] in name]
    lab.tmux("kill-session", "-t", f"={session}")
    assert "tmux session" in alice.wait(closed["job_id"], "FAILED")["error_message"]
    assert not answers(closed["server_url"])
    lab.tmux("kill-server")


def test_a_runner_that_is_killed_takes_its_program_along(services: Serve, tmp_path: Path) -> None:
    alice, stamp = Client(services()), tmp_path / "stamp"
    job = alice.running({"stamp": str(stamp)})
    os.kill(runner_of(pid_of(job, stamp)), signal.SIGKILL)
    failed = alice.wait(job["job_id"], "FAILED")
    assert failed["error_message"].startswith("exit code 137") and not answers(job["server_url"])
    assert alice.running()["port"] == job["port"], "its port is free again"


def test_a_signal_to_the_runner_is_passed_on(services: Serve, tmp_path: Path) -> None:
    alice, stamp = Client(services()), tmp_path / "stamp"
    job = alice.running({"stamp": str(stamp)})
    os.kill(runner_of(pid_of(job, stamp)), signal.SIGTERM)
    assert alice.wait(job["job_id"], "FAILED")["error_message"].startswith("exit code 143")


def test_a_program_that_is_killed_says_by_what(services: Serve, tmp_path: Path) -> None:
    alice, stamp = Client(services()), tmp_path / "stamp"
    job = alice.running({"stamp": str(stamp)})
    os.kill(pid_of(job, stamp), signal.SIGKILL)
    assert alice.wait(job["job_id"], "FAILED")["error_message"].startswith("exit code 137 (signal KILL)")


def test_nothing_is_left_of_what_was_ended(services: Serve, tmp_path: Path) -> None:
    """A program that starts others, one of them apart, in a session of its own."""
    stamp = tmp_path / "stamp"
    text = f'setsid sleep 600 & sleep 600 & echo $! >{stamp}.sleep; exec "$@"'
    command = ["/bin/sh", "-c", text, "sh", "{python}", "{server_script}", "server.port={port}", "{arguments}"]
    alice = Client(services(training_command=command, stop_grace=2))
    job = alice.running({"stamp": str(stamp)})
    run = processes.run_of(pid_of(job, stamp))
    assert run is not None and len(processes.of_runs([run])[run]) >= 4
    alice.complete(job["job_id"])
    assert processes.of_runs([run])[run] == []


def test_administrators_cancel_and_retry_with_the_commands_of_a_workspace(services: Serve, tmp_path: Path) -> None:
    server = services()
    alice, stamp = Client(server), tmp_path / "stamp"
    job = alice.running({"stamp": str(stamp)})["job_id"]
    server.workspace("cancel", job)
    assert alice.wait(job, "CANCELLED")["server_url"] is None
    until(lambda: server.log(), lambda text: f"Job {job} ended" in text)
    server.workspace("retry", job)
    again = alice.wait(job, "RUNNING")
    assert answers(again["server_url"]) and again["error_message"] is None and len(stamp.read_text().split()) == 4
    alice.complete(job)
    assert alice.status(job)["status"] == "COMPLETED"


def test_the_start_of_jobs_can_be_stopped(services: Serve) -> None:
    server = services()
    alice = Client(server)
    server.workspace("pause")
    job = alice.train()
    assert alice.status(job)["reason"] == "the administrator has stopped the start of jobs"
    server.workspace("resume")
    alice.wait(job, "RUNNING")


def test_the_database_is_checked_saved_and_cleaned_with_them(services: Serve) -> None:
    server = services()
    alice = Client(server)
    over, running = alice.running()["job_id"], alice.running()["job_id"]
    alice.complete(over)
    assert "ok: 2 jobs" in server.run("db", "check").out
    server.run("db", "backup", "saved.db")
    until(lambda: server.log(), lambda text: f"Job {over} ended" in text)
    server.run("db", "clean", "--older-than", "0s", "--yes")
    assert [job["job_id"] for job in alice.ask("GET", "/list_jobs")["jobs"]] == [running]
    assert os.listdir(server.state / "jobs") == os.listdir(server.state / "output") == [running]
    assert alice.call("GET", f"/job_status/{over}").status_code == 404
    assert "ok: 1 jobs" in server.run("db", "check").out


def test_secrets_of_a_job_that_ended_without_a_server_are_gone_after_the_next_start(services: Serve) -> None:
    server = services()
    alice = Client(server)
    job = alice.running({"ends": 1}, wandb_key="w" * 20)
    file = server.state / "output" / job["job_id"] / "secrets"
    server.stop(signal.SIGKILL)
    until(lambda: answers(job["server_url"]), lambda there: not there)
    assert file.exists()
    server.start()
    alice.wait(job["job_id"], "COMPLETED")
    until(file.exists, lambda there: not there)


def test_a_deleted_progress_file_harms_nobody(services: Serve) -> None:
    server = services()
    alice = Client(server)
    job = alice.running()
    (server.state / "output" / job["job_id"] / "progress").unlink()
    server.stop()
    server.start()
    assert alice.status(job["job_id"]) == job
    assert httpx.get(job["server_url"]).status_code == 200
