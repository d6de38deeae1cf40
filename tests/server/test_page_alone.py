"""`tinksched dashboard`: the page of a workspace, and the page alone for a server elsewhere."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.test_page import events_of, raw_events
from tests.serving import until
from tests.support import TIMEOUT, Bench, Lab
from tinksched.server.page.alone import origin_of


class Dashboard:
    """The command, at work."""

    def __init__(self, bench: Bench, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tinksched", "dashboard", "--port", "0", *arguments],
            env=bench.lab.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=bench.folder,
        )  # fmt: skip
        self.said = self.line()
        if "--server" not in arguments:
            self.said = self.line()
        found = re.match(r"(http://[^/]+)/dashboard(?:\?token=(\S+))?", self.said)
        assert found is not None, self.said
        self.url, self.token = found[1], found[2]

    def line(self) -> str:
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return line.strip()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=TIMEOUT, trust_env=False)

    @contextlib.contextmanager
    def entered(self) -> Iterator[httpx.Client]:
        """A browser that was let in."""
        with self.client() as client:
            answer = client.get("/dashboard", params={"token": self.token})
            assert answer.status_code == 303 and answer.headers["location"] == "/dashboard"
            self.token = self.line().partition("token=")[2]
            yield client

    def close(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(TIMEOUT)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


Opened = Callable[..., Dashboard]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Starts the command in a workspace; it is gone when the test has ended."""
    made: list[Dashboard] = []

    def begin(bench: Bench, *arguments: str) -> Dashboard:
        made.append(Dashboard(bench, *arguments))
        return made[-1]

    yield begin
    for one in made:
        if one.process.poll() is None:
            one.close()


def test_a_workspace_is_shown_without_a_scheduler_and_live_with_one(lab: Lab, opened: Opened) -> None:
    bench = lab.workspace(tasks={"good.yml": "", "bad.yml": "code: 3\n"})
    board = opened(bench)
    with board.entered() as client, client.stream("GET", "/dashboard/api/events") as stream:
        events = events_of(stream.iter_lines())
        kind, scene = next(events)
        assert kind == "state" and scene["mode"] == "workspace" and scene["jobs"] == []
        assert scene["trouble"] is None
        bench.run("start", "--wait", code=None)
        jobs: dict[str, dict[str, object]] = {}
        runs: dict[str, dict[str, object]] = {}
        while {job["status"] for job in jobs.values()} != {"completed", "failed"}:
            kind, change = next(events)
            jobs.update((job["name"], job) for job in change.get("jobs", ()))
            runs.update((run["name"], run) for run in change.get("runs", ()))
        assert jobs["bad"]["error"] == "exit code 3" and jobs["good"]["kind"] == "task"
        assert {name: run["outcome"] for name, run in runs.items()} == {"good": "completed", "bad": "failed"}
        number = jobs["bad"]["id"]
        found = client.get(f"/dashboard/api/jobs/{number}").json()
        assert found["config"] == "code: 3\n" and str(bench.folder / "configs" / "bad.yml") in found["command"]
        for what in ("cancel", "retry"):
            answer = client.post(f"/dashboard/api/jobs/{number}/{what}")
            assert answer.status_code == 403 and f"tinksched {what} {number}" in answer.json()["detail"]
        assert client.get("/dashboard/api/users").status_code == 403


def test_a_log_is_cleaned_and_followed(lab: Lab, opened: Opened) -> None:
    bench = lab.workspace(tasks={"a.yml": ""}, command=["sh", "-c", _NOISY])
    board = opened(bench)
    bench.run("start")
    with board.entered() as client:
        for _ in range(2):  # while it runs, and afterwards
            job = _first(client)
            with client.stream("GET", f"/dashboard/api/jobs/{job}/log") as stream:
                events = raw_events(stream.iter_lines())
                text = ""
                for kind, data in events:
                    text += data if kind == "log" else ""
                    if "90 %" in text:
                        (bench.folder / "go").touch()
            assert text == "red\n90 %\ndone\n" and kind == "end"


_NOISY = """printf '\\033[31mred\\033[0m\\n10 %%\\r50 %%\\r90 %%\\n'; until [ -e go ]; do sleep 0.05; done; echo done"""


def _first(client: httpx.Client) -> str:
    jobs = until(lambda: client.get("/dashboard/api/state").json()["jobs"], lambda jobs: jobs and jobs[0]["started_at"])
    return str(jobs[0]["id"])


def test_only_the_browser_that_was_let_in_sees_anything(lab: Lab, opened: Opened) -> None:
    board = opened(lab.workspace(tasks={"a.yml": ""}))
    first = board.token
    with board.client() as stranger:
        for path in ("session", "state", "events", "jobs", "jobs/1", "jobs/1/log", "users"):
            answer = stranger.get(f"/dashboard/api/{path}")
            assert answer.status_code == 401 and "tinksched dashboard" in answer.json()["detail"], path
        assert stranger.get("/dashboard", params={"token": "guessed"}).status_code == 401
        assert stranger.get("/dashboard").status_code == 200, "the page itself is no secret"
        answer = stranger.get("/")
        assert answer.status_code == 303 and answer.headers["location"] == "/dashboard"
    with board.entered() as client:
        answer = client.get("/dashboard/api/session")
        said = answer.json()
        assert said["signed_in"] and not said["auth"] and not said["is_admin"] and answer.status_code == 200
        assert said["may"] == {"cancel": False, "retry": False}
    with board.client() as stranger:
        answer = stranger.get("/dashboard", params={"token": first})
        assert answer.status_code == 401 and "used before" in answer.json()["detail"]
    with board.client() as second:
        answer = second.get("/dashboard", params={"token": board.token})
        cookie = answer.headers["set-cookie"].lower()
        assert answer.status_code == 303 and "httponly" in cookie and "samesite=strict" in cookie
        assert answer.headers["referrer-policy"] == "no-referrer" and answer.headers["cache-control"] == "no-store"
        port = board.url.rpartition(":")[2]
        for host in ("evil.example.org", f"evil.example.org:{port}", "127.0.0.1", f"127.0.0.1.evil.org:{port}", ""):
            answer = second.get("/dashboard/api/state", headers={"Host": host})
            assert answer.status_code in (400, 421) and "jobs" not in answer.text, host
        for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
            assert second.get("/dashboard/api/state", headers={"Host": host}).status_code in (200, 401)
    assert board.close(signal.SIGINT) == 0


def test_the_page_alone_says_where_its_server_is_and_nothing_else(lab: Lab, opened: Opened) -> None:
    board = opened(lab.workspace(tasks={}), "--server", "http://gpu.example.org:8001/x?y")
    assert board.line().endswith(f"allowed_origins: [{board.url}]")
    with board.client() as client:
        assert client.get("/dashboard/api/session").json()["server"] == "http://gpu.example.org:8001"
        answer = client.get("/dashboard")
        assert answer.status_code == 200
        assert "script-src 'self'; " in answer.headers["content-security-policy"]
        assert "connect-src 'self' http: https:; " in answer.headers["content-security-policy"], (
            "it can be edited there"
        )
        assert client.get("/dashboard/api/state").status_code == 404


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "for this machine only"),
        (["--host", "192.0.2.1"], "for this machine only"),
        (["--server", "gpu.example.org"], "is no URL"),
        (["--server", "ftp://gpu.example.org"], "is no URL"),
        (["--server", "http://a.b;c/"], "is no URL"),
        (["--server", "http://a.b", "--workspace", "."], "not a workspace"),
    ],
)
def test_what_it_refuses(lab: Lab, arguments: list[str], said: str) -> None:
    bench = lab.workspace(tasks={})
    answer = bench.run("dashboard", "--port", "0", *arguments, code=2)
    assert said in answer.err and "Traceback" not in answer.err


def test_of_a_servers_url_only_its_origin_is_taken() -> None:
    assert origin_of("https://a.b/; script-src *") == "https://a.b"
    assert origin_of("http://[::1]:8001/dashboard") == "http://[::1]:8001"


def test_a_port_that_is_taken_and_an_extra_that_is_missing(lab: Lab, opened: Opened, tmp_path: Path) -> None:
    bench = lab.workspace(tasks={})
    port = opened(bench).url.rpartition(":")[2]
    assert "name another --port" in bench.run("dashboard", "--port", port, code=2).err
    for name in ("fastapi", "uvicorn"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('gone', name=__name__)\n")
    lab.environment["PYTHONPATH"] = str(tmp_path)
    answer = bench.run("dashboard", code=2)
    assert "pip install 'tinksched[server]'" in answer.err and "Traceback" not in answer.err


def test_a_scene_is_json_whatever_names_and_texts_are(lab: Lab, opened: Opened) -> None:
    odd = "<img src=x onerror=alert(1)> é \u2028"
    bench = lab.workspace(tasks={f"{odd}.yml": f"# {odd}\n"})
    bench.run("start", "--wait")
    board = opened(bench)
    with board.entered() as client:
        scene = json.loads(client.get("/dashboard/api/state").content)
        (job,) = scene["jobs"]
        assert job["name"] == odd
        assert client.get(f"/dashboard/api/jobs/{job['id']}").json()["config"] == f"# {odd}\n"
