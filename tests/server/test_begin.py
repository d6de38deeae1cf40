"""A server that can't begin says why, ends with 2, and has changed nothing."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving import Serving


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that is there: owner, mode and content."""
    found = {}
    for path in sorted((folder, *folder.rglob("*"))):
        status = path.lstat()
        if not path.name.endswith(("-wal", "-shm")):  # SQLite's own, empty when nobody has it open
            found[str(path)] = (status.st_uid, status.st_mode, path.read_bytes() if path.is_file() else b"")
    return found


def refused(server: Serving) -> str:
    """What it says. Nothing of its state has changed."""
    before = tree(server.folder)
    answer = server.run("serve", code=2)
    assert "Traceback" not in answer.text and not answer.out
    assert tree(server.folder) == before
    return answer.err


@pytest.fixture
def used(serving: Callable[..., Serving]) -> Serving:
    """A server that has worked, and does not now."""
    server = serving()
    server.token("alice")
    return server


def test_a_port_in_use(used: Serving) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        used.configure(port=port)
        assert f"127.0.0.1:{port}: can't listen there: Address already in use" in refused(used)


def test_a_server_that_runs_already(server: Serving) -> None:
    assert "another server works here already" in server.run("serve", code=2).err
    with server.client() as client:
        assert client.get("/health").status_code == 200


def test_another_server_leaves_the_settings_of_the_first_one(server: Serving) -> None:
    config = (server.state / "scheduler_config.yml").read_text()
    server.configure(stop_grace=99)
    server.run("serve", code=2)
    server.token("alice")
    assert (server.state / "scheduler_config.yml").read_text() == config


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("PRAGMA user_version = 999", "written by a newer tinksched"),
        ("UPDATE facts SET value = '999' WHERE key = 'server_schema'", "written by a newer tinksched"),
        ("PRAGMA application_id = 7", "a database of another program"),
    ],
)
def test_a_database_that_is_not_for_us(used: Serving, sql: str, said: str) -> None:
    connection = sqlite3.connect(used.state / ".tinksched" / "state.db")
    connection.execute(sql)
    connection.commit()
    connection.close()
    assert said in refused(used)


def test_a_damaged_database(used: Serving) -> None:
    (used.state / ".tinksched" / "state.db").write_bytes(b"no database" * 1000)
    assert "can't be read" in refused(used)


def test_a_database_that_is_gone_while_jobs_are_there(used: Serving) -> None:
    (used.state / ".tinksched" / "state.db").unlink()
    (used.state / "jobs" / "one").mkdir(parents=True)
    assert "the database is gone" in refused(used) and (used.state / "jobs" / "one").exists()


@pytest.mark.parametrize("key", ["state_dir", "results_dir"])
def test_a_folder_that_is_missing(used: Serving, key: str) -> None:
    used.configure(**{key: str(used.folder / "not mounted" / "here")})
    assert f"{key} is " in (said := refused(used)) and "there is no folder" in said


def test_a_folder_of_other_things(serving: Callable[..., Serving]) -> None:
    server = serving()
    server.state.mkdir(mode=0o755)
    (server.state / "thesis.tex").touch()
    assert "holds other things" in refused(server)


@pytest.mark.parametrize("name", ["scheduler_config.yml", "job.sh"])
def test_a_folder_with_files_of_somebody_else_under_our_names(serving: Callable[..., Serving], name: str) -> None:
    server = serving()
    server.state.mkdir(mode=0o700)
    (server.state / name).write_text("task_name: my own\n")
    assert f"{name}: was not written by a server" in refused(server)
    assert (server.state / name).read_text() == "task_name: my own\n" and os.listdir(server.state) == [name]
    (server.state / name).unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a folder to somebody else")
def test_a_folder_of_another_user(used: Serving) -> None:
    subprocess.run(["chown", "-R", "12345", str(used.state)], check=True)
    assert "belongs to uid 12345" in refused(used)
