"""`tinksched db`, and results that are kept for a time only."""

from __future__ import annotations

import os
import pty
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.check import rows
from tests.server.test_faults import change
from tests.server.test_stopping import gated
from tests.serving import Serving, until
from tests.support import TIMEOUT


def database(server: Serving) -> Path:
    return server.state / ".tinksched" / "state.db"


# ---------------------------------------------------------------- backup


def test_a_backup_while_it_works_is_whole_private_and_replaces_nothing(server: Serving) -> None:
    token = server.token("alice")
    job = server.submit(token).json()["job_id"]
    file = server.folder / "backup.db"
    assert f"written: {file}" in server.run("db", "backup", str(file)).out
    assert file.stat().st_mode & 0o777 == 0o600
    assert [row["job_id"] for row in rows(file, "SELECT job_id FROM jobs WHERE status = 'completed'")] == [job]
    before = file.read_bytes()
    assert "is there already" in server.run("db", "backup", str(file), code=2).err and file.read_bytes() == before
    server.submit(token)
    server.run("db", "backup", "--force", str(file))
    assert len(rows(file, "SELECT * FROM jobs")) == 2
    assert not [name for name in os.listdir(server.folder) if name.startswith(".backup")]


@pytest.mark.parametrize(
    ("file", "said"), [("nowhere/x.db", "No such file"), ("state/.tinksched/state.db", "elsewhere")]
)
def test_a_backup_that_can_not_be_written(server: Serving, file: str, said: str) -> None:
    assert said in server.run("db", "backup", "--force", str(server.folder / file), code=2).err
    assert server.run("db", "check").out.startswith("ok: ")


def test_there_is_nothing_to_back_up(serving: Callable[..., Serving]) -> None:
    for words in (["backup", "x.db"], ["check"], ["clean", "--older-than", "1d"]):
        assert "no server has worked here" in serving(words[0]).run("db", *words, code=2).err


# ---------------------------------------------------------------- restore


def test_a_restored_server_is_the_one_of_the_backup_and_runs_nothing_twice(server: Serving, tmp_path: Path) -> None:
    token, gate = server.token("alice"), tmp_path / "gate"
    done = server.submit(token).json()["job_id"]
    running = server.submit(token, gated(gate), wait=False).json()["job_id"]
    server.wait_for(token, running, "running")
    pending = server.submit(token, "print('once')", wait=False).json()["job_id"]
    file = server.folder / "backup.db"
    server.run("db", "backup", str(file))
    assert "a server works here" in server.run("db", "restore", str(file), code=2).err
    gate.touch()
    server.wait_for(token, pending, "completed")
    later = server.submit(token).json()["job_id"]
    server.token("bob")
    server.stop()
    answer = server.run("db", "restore", str(file))
    assert f"so they don't run again: {pending}" in answer.out
    kept = Path(answer.out.split("the one of before: ")[1].splitlines()[0])
    assert len(rows(kept, "SELECT * FROM jobs")) == 4
    server.start()
    assert server.wait_for(token, running, "completed")["exit_code"] == 0
    assert server.job(token, done)["status"] == "completed"
    given_up = server.job(token, pending)
    assert given_up["status"] == "failed" and "after the backup was made" in given_up["reason"]
    assert server.job(token, pending, "results")["stdout"] == "once\n"
    with server.client(token) as client:
        assert client.get(f"/api/status/{later}").status_code == 404
    assert (server.state / "output" / later / "stdout").read_text() == "hello\n", "what a job printed is not deleted"
    assert f"output/{later}: belongs to no job" in server.run("db", "check", code=1).out
    assert "bob" not in server.run("token", "list").out
    server.submit(token).raise_for_status()


@pytest.mark.parametrize("kind", ["missing", "no database", "another program's", "newer", "of a workspace"])
def test_what_is_no_backup_is_refused_and_all_stays_as_it_was(serving: Callable[..., Serving], kind: str) -> None:
    server = serving()
    server.token("alice")
    file = server.folder / "backup.db"
    server.run("db", "backup", str(file))
    if kind == "missing":
        file.unlink()
    elif kind == "no database":
        file.write_bytes(b"x" * 5000)
    else:
        sql = {"another program's": "PRAGMA application_id = 7", "newer": "PRAGMA user_version = 999"}
        change(file, sql.get(kind, "DELETE FROM facts"))
    before = database(server).read_bytes()
    answer = server.run("db", "restore", str(file), code=2)
    assert str(file) in answer.err and "Traceback" not in answer.err
    assert database(server).read_bytes() == before
    assert sorted(os.listdir(server.state / ".tinksched")) == sorted(
        name for name in os.listdir(server.state / ".tinksched") if "restored" not in name and "before" not in name
    )
    assert "alice" in server.run("token", "list").out


def test_a_damaged_database_is_replaced_by_a_backup(serving: Callable[..., Serving]) -> None:
    server = serving()
    token = server.token("alice")
    file = server.folder / "backup.db"
    server.run("db", "backup", str(file))
    database(server).write_bytes(b"damaged" * 1000)
    assert "tinksched db restore" in server.run("serve", code=2).err
    server.run("db", "restore", str(file))
    server.start()
    assert server.submit(token).status_code == 200


# ---------------------------------------------------------------- check


def test_check_tells_what_does_not_belong_together(server: Serving) -> None:
    token = server.token("alice")
    job = server.submit(token).json()["job_id"]
    assert server.run("db", "check").out.startswith("ok: 1 jobs, 1 good tokens, ")
    change(database(server), "PRAGMA foreign_keys = OFF")
    stray = str(uuid.uuid4())
    (server.state / "jobs" / stray).mkdir()
    connection = sqlite3.connect(database(server))
    connection.execute("UPDATE server_jobs SET task_id = 999")
    connection.commit()
    connection.close()
    found = server.run("db", "check", code=1)
    assert f"job {job}: its task is gone" in found.out and f"{stray}: belongs to no job" in found.out


# ---------------------------------------------------------------- clean


def age(server: Serving, job: str, days: float) -> None:
    change(database(server), f"UPDATE tasks SET changed_at = {time.time() - days * 86_400} WHERE name = '{job}'")


def test_clean_forgets_what_ended_long_ago(server: Serving, tmp_path: Path) -> None:
    token = server.token("alice")
    old, young = (server.submit(token).json() for _ in range(2))
    running = server.submit(token, gated(tmp_path / "gate"), wait=False).json()["job_id"]
    age(server, old["job_id"], 31)
    age(server, running, 31)
    assert "no job ended more than 60d ago" in server.run("db", "clean", "--older-than", "60d", code=3).err
    assert (
        "would remove 1 job with what it printed" in server.run("db", "clean", "--older-than", "30d", "--dry-run").out
    )
    assert "nothing was removed" in server.run("db", "clean", "--older-than", "30d", code=2).err
    assert server.job(token, old["job_id"])["status"] == "completed"
    server.run("db", "clean", "--older-than", "30d", "--yes")
    with server.client(token) as client:
        assert client.get(f"/api/status/{old['job_id']}").status_code == 404
    for name in ("jobs", "output"):
        assert set(os.listdir(server.state / name)) == {young["job_id"], running}
    assert Path(old["results_file"]).exists(), "only with --results"
    assert server.run("db", "check").out.startswith("ok: 2 jobs")
    age(server, young["job_id"], 31)
    server.run("db", "clean", "--older-than", "30d", "--results", "--yes")
    assert not Path(young["results_file"]).exists() and Path(old["results_file"]).exists()
    assert rows(database(server), "SELECT job_id FROM server_jobs") == [{"job_id": running}]
    (tmp_path / "gate").touch()
    assert server.wait_for(token, running, "completed")["exit_code"] == 0


@pytest.mark.parametrize("way", ["clean", "keep_results"])
def test_the_results_of_every_run_go(serving: Callable[..., Serving], way: str) -> None:
    server = serving().start()
    token = server.token("alice")
    first = server.submit(token).json()
    job = first["job_id"]
    server.workspace("retry", job)
    until(
        lambda: server.job(token, job, "results")["results_file"],
        lambda file: file not in (None, first["results_file"]),
    )
    assert len(os.listdir(server.state / "results")) == 2
    age(server, job, 31)
    if way == "clean":
        assert "2 results files" in server.run("db", "clean", "--older-than", "30d", "--results", "--dry-run").out
        server.run("db", "clean", "--older-than", "30d", "--results", "--yes")
    else:
        server.stop()
        server.configure(keep_results="30d")
        server.start()
    until(lambda: os.listdir(server.state / "results"), lambda names: not names)


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 1)])
def test_clean_asks_on_a_terminal(server: Serving, answer: str, code: int) -> None:
    token = server.token("alice")
    job = server.submit(token).json()["job_id"]
    age(server, job, 31)
    ours, theirs = pty.openpty()
    command = ["db", "clean", "--older-than", "30d", "--config", str(server.config)]
    clean = subprocess.Popen(
        [sys.executable, "-m", "tinksched", *command], env=server.lab.environment, stdin=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(ours, 1000)
    assert b"remove 1 job with what it printed?" in said
    os.write(ours, answer.encode())
    assert clean.wait(TIMEOUT) == code
    os.close(ours)
    assert len(rows(database(server), "SELECT * FROM jobs")) == code


def test_results_that_are_too_old_are_deleted_and_the_job_stays_on_record(serving: Callable[..., Serving]) -> None:
    server = serving(keep_results="30d").start()
    token = server.token("alice")
    old, young = (server.submit(token).json() for _ in range(2))
    server.stop()
    age(server, old["job_id"], 31)
    server.start()
    until(lambda: Path(old["results_file"]).exists(), lambda there: not there)
    until(lambda: os.listdir(server.state / "output"), lambda names: names == [young["job_id"]])
    assert os.listdir(server.state / "jobs") == [young["job_id"]] and Path(young["results_file"]).exists()
    answer = server.job(token, old["job_id"], "results")
    assert (answer["status"], answer["stdout"], answer["stderr"]) == ("completed", None, None)
    assert "Results of 1 jobs deleted" in server.log()
