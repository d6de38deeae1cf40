"""Tokens: made, listed and ended by the command line while a server runs; and where none of them may ever appear."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.faults.check import rows
from tests.serving import Serving, form
from tests.support import TIMEOUT, Lab
from tinksched.store import Store

SECRET = "correct-horse-battery-staple"


def is_good(server: Serving, token: str) -> bool:
    """Whether it lets its owner in."""
    with server.client(token) as client:
        answer = client.get("/api/jobs")
    assert answer.status_code == 200 or answer.json() == {"detail": "Invalid or expired token"}
    return answer.status_code == 200


def test_a_token_is_made_from_an_argument_from_a_pipe_or_by_the_server(server: Serving) -> None:
    done = server.run("token", "create", "alice", SECRET)
    assert done.out == "" and SECRET not in done.err and is_good(server, SECRET)
    done = server.run("token", "create", "bob", "-", text="from-a-pipe-123\nnot this\n")
    assert done.out == "" and is_good(server, "from-a-pipe-123")
    made = [server.run("token", "create", user, "--generate").out for user in ("carol", "dave")]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}\n", text) for text in made) and made[0] != made[1]
    assert is_good(server, made[0].strip()) and is_good(server, made[1].strip())


def test_days_are_cut_to_thirty_and_that_is_said(server: Serving) -> None:
    for days, said in (
        ("31", "good for 30 days (31 were asked for; 30 are the most)"),
        ("inf", "good for 30 days (inf"),
        ("30", "good for 30 days, until"),
        ("1.5", "good for 1.5 days, until"),
    ):
        assert said in server.run("token", "create", "alice", "--generate", "--days", days).err
    assert "good for 30 days, until" in server.run("token", "create", "alice", "--generate").err
    for row in json.loads(server.run("token", "list", "--json").out)["tokens"]:
        assert row["expires_at"] - row["created_at"] <= 30 * 86_400


def test_a_new_token_ends_the_users_older_ones_and_no_others(server: Serving) -> None:
    first, bob = server.token("alice"), server.token("bob")
    with Store(next(server.state.rglob("*.db"))) as store, store.transaction("test", 0.0) as tx:
        tx.connection.execute("INSERT INTO server_tokens VALUES ('k', 'alice', 'key', 0, 0, NULL, NULL)")
    second = server.token("alice")
    assert [is_good(server, token) for token in (first, second, bob)] == [False, True, True]
    rows = json.loads(server.run("token", "list", "--json").out)["tokens"]
    states = {(row["user"], row["kind"], row["state"]) for row in rows}
    assert states == {("alice", "queue", "revoked"), ("alice", "queue", "good"), ("alice", "key", "good"),
                      ("bob", "queue", "good")}  # fmt: skip


def test_an_end_holds_at_once_for_a_server_that_runs(server: Serving) -> None:
    tokens = [server.token(user) for user in ("alice", "bob", "carol")]
    assert all(is_good(server, token) for token in tokens)
    server.run("token", "revoke", tokens[0])
    server.run("token", "revoke", "-", text=f"{tokens[1]}\n")
    assert server.run("token", "revoke-user", "carol").out == "revoked: 1\n"
    assert not any(is_good(server, token) for token in tokens)
    server.run("token", "create", "alice", SECRET, "--days", "1e-9")
    assert not is_good(server, SECRET)
    server.run("token", "create", "alice", SECRET)
    assert is_good(server, SECRET)


def test_admin_is_what_the_newest_token_says(server: Serving) -> None:
    admin = server.token("alice", admin=True)
    job = server.submit(admin, user="bob").json()["job_id"]
    plain = server.token("alice")
    with server.client(plain) as client:
        assert client.get(f"/api/status/{job}").status_code == 403
        assert client.get("/api/dashboard").json()["is_admin"] is False


def test_nobody_gets_the_token_of_somebody_else(server: Serving) -> None:
    server.run("token", "create", "alice", SECRET)
    done = server.run("token", "create", "bob", SECRET, "--admin", code=2)
    assert "by somebody else" in done.err and SECRET not in done.text
    server.run("token", "revoke-user", "alice")
    server.run("token", "create", "bob", SECRET, code=2)
    assert not is_good(server, SECRET)


@pytest.mark.parametrize(
    ("arguments", "text", "said"),
    [
        (("create", "alice"), "", "name a TOKEN, - for standard input, or --generate"),
        (("create", "alice", SECRET, "--generate"), "", "name a TOKEN, - for standard input, or --generate"),
        (("create", "alice", "short"), "", "8 to 512 printable ASCII characters"),
        (("create", "alice", "-"), "", "8 to 512 printable ASCII characters"),
        (("create", "alice", "-"), "two words here\n", "8 to 512 printable ASCII characters"),
        (("create", "alice", "-"), "x" * 10_000, "8 to 512 printable ASCII characters"),
        (("create", "alice", "pässwörter"), "", "8 to 512 printable ASCII characters"),
        (("create", "../alice", SECRET), "", "a user is 1 to 128 letters"),
        (("create", "", SECRET), "", "a user is 1 to 128 letters"),
        (("create", "a b", SECRET), "", "a user is 1 to 128 letters"),
        (("create", "a" * 129, SECRET), "", "a user is 1 to 128 letters"),
        (("create", "alice", SECRET, "--days", "0"), "", "longer than 0 days"),
        (("create", "alice", SECRET, "--days", "-3"), "", "longer than 0 days"),
        (("create", "alice", SECRET, "--days", "nan"), "", "longer than 0 days"),
        (("create", "alice", SECRET, "--days", "soon"), "", "soon"),
        (("revoke", SECRET), "", "there is no such token"),
        (("revoke", "-"), "", "there is no such token"),
        (("revoke-user", "alice"), "", "alice has no token that is good"),
    ],
)
def test_what_can_not_be_done_is_said(
    serving: Callable[..., Serving], arguments: tuple[str, ...], text: str, said: str
) -> None:
    server = serving()
    done = server.run("token", *arguments, text=text, code=None)
    assert done.code != 0 and said in done.err and "Traceback" not in done.err
    assert SECRET not in done.text
    assert json.loads(server.run("token", "list", "--json").out) == {"version": 1, "tokens": []}


def test_the_list_shows_no_token(server: Serving) -> None:
    server.run("token", "create", "alice", SECRET, "--admin", "--days", "3")
    shown = server.run("token", "list").out
    assert re.search(r"alice +admin +queue +\S+ \S+ +\S+ \S+ +3\.0 +good", shown)
    (row,) = json.loads(server.run("token", "list", "--json").out)["tokens"]
    assert row.keys() == {"user", "admin", "kind", "created_at", "expires_at", "days_left", "state"}
    assert (row["user"], row["admin"], row["state"]) == ("alice", True, "good") and 2.9 < row["days_left"] <= 3
    assert SECRET not in shown


def test_there_is_no_token_to_begin_with(serving: Callable[..., Serving]) -> None:
    server = serving().start()
    assert rows(next(server.state.rglob("*.db")), "SELECT count(*) AS tokens FROM server_tokens") == [{"tokens": 0}]
    for token in ("admin", "changeme", "password", "secret", "token", "test", "default", "tinksched", "root"):
        assert not is_good(server, token)


# ---------------------------------------------------------------- where they may not appear


def test_no_token_is_written_down_anywhere(serving: Callable[..., Serving], lab: Lab) -> None:
    server = serving(executor="tmux").start()
    token, wrong = server.token("alice"), "wrong-but-somebodys-secret-1"
    look = "import os, json, sys\nprint(json.dumps(dict(os.environ)), sys.argv)\nprint(open('config.yaml').read())\n"
    fields = {"note": f"my token is {token}", "list": ["a", {token: f"x{token}y"}], "header": f"Bearer {token}"}
    answers = [httpx.post(f"{server.url}/api/submit", files=form(look, token=token, **fields))]
    assert answers[0].status_code == 200 and "[redacted]" in answers[0].json()["stdout"]
    answers += [server.submit(token, look), server.submit(wrong), server.submit(token, competition_id=token)]
    assert answers[-1].json()["detail"] == "competition_id: must not hold the token"
    for path in ("/", "/health", "/docs", "/openapi.json", "/api/nodes", "/api/jobs", "/api/dashboard", f"/api/{token}",
                 f"/api/status/{token}", f"/api/jobs?user_id={token}", f"/api/jobs?status={token}"):  # fmt: skip
        for one in (token, wrong):
            with server.client(one) as client:
                answers.append(client.get(path))
    files = {**form(), "config_file": ("c", f"token: {token}\ntoken: {token}\nx: [\n".encode(), "x/y")}
    answers.append(httpx.post(f"{server.url}/api/submit", files=files))
    answers.append(httpx.request("GET", server.url, headers={"Authorization": f"Basic {token}"}))
    with httpx.Client(base_url=server.url) as client:
        answers.append(client.get("/api/jobs", headers={"Authorization": token}))
    for answer in answers:
        for one in (token, wrong):
            assert one not in answer.text and one not in str(answer.headers), (answer.request.url, answer.text)
    found = [path for path in server.folder.rglob("*") if path.is_file() and has(path, token, wrong)]
    assert found == [] and token not in server.log()
    assert "refused login from 127.0.0.1" in server.log()
    assert server.stop() == 0
    found = [path for path in lab.folder.rglob("*") if path.is_file() and has(path, token, wrong)]
    assert found == []
    lab.tmux("kill-server")


def has(path: Path, *tokens: str) -> bool:
    """Whether one of them stands in a file: the database, its write-ahead log, logs, configs and all the rest."""
    content = path.read_bytes()
    return any(token.encode() in content for token in tokens)


def test_the_database_and_its_log_are_looked_at_while_they_are_open(server: Serving) -> None:
    """That the test above looks at the right files: what is submitted does stand in one of them."""
    server.submit(server.token("alice"), competition_id="a-name-to-be-found")
    names = {path.name for path in server.folder.rglob("*") if path.is_file() and has(path, "a-name-to-be-found")}
    assert any(".db" in name for name in names) and "config.yaml" in names


@pytest.mark.parametrize("way", ["-", "--generate"])
def test_no_process_list_shows_a_token_that_was_piped_or_made(serving: Callable[..., Serving], way: str) -> None:
    server = serving()
    seen: set[bytes] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            for entry in os.scandir("/proc"):
                if entry.name.isdigit():
                    for name in ("cmdline", "environ"):
                        try:
                            seen.add(Path(entry.path, name).read_bytes())
                        except OSError:
                            continue

    thread = threading.Thread(target=watch)
    thread.start()
    command = [sys.executable, "-m", "tinksched", "token", "create", "alice", way, "--config", str(server.config)]
    try:
        done = subprocess.run(
            command, env=server.lab.environment, input=SECRET, capture_output=True, text=True, timeout=TIMEOUT,
            cwd=server.folder, check=True,
        )  # fmt: skip
    finally:
        ended.set()
        thread.join()
    token = SECRET if way == "-" else done.stdout.strip()
    assert any(b"token\0create\0alice" in line for line in seen)
    assert not any(token.encode() in line for line in seen)


@pytest.mark.parametrize("command", ["create", "revoke"])
def test_help_says_that_an_argument_can_be_seen(serving: Callable[..., Serving], command: str) -> None:
    done = serving().run("token", command, "--help")
    assert "can see it" in " ".join(re.sub(r"[│|]", " ", done.out).split())


def test_what_the_server_writes_is_for_its_user_alone(serving: Callable[..., Serving]) -> None:
    server = serving()
    before = os.umask(0)
    try:
        server.start()
        token = server.token("alice")
        assert server.submit(token, "print('x')\nopen('own', 'w').close()\n").status_code == 200
    finally:
        os.umask(before)
    paths = (server.state, *server.state.rglob("*"))
    assert {path: oct(path.stat().st_mode) for path in paths if path.stat().st_mode & 0o077} == {}
