"""Who is told what happened: a real HTTP server, a dead one, one that never answers, and commands of one's own."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import Bench, Lab
from tinksched.core.news import OF_ALL, OF_BATCHES, OF_TASKS


class Service(http.server.ThreadingHTTPServer):
    """Keeps what it is sent; `json://` of apprise is a plain POST."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(handler) -> None:
                body = handler.rfile.read(int(handler.headers["Content-Length"]))
                self.messages.append(json.loads(body))
                handler.send_response(200)
                handler.end_headers()

            def log_message(handler, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"json://user:secret@127.0.0.1:{self.server_port}"


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        yield server
        server.shutdown()


def scheduler_log(bench: Bench) -> str:
    path = bench.folder / "logs" / "T_scheduler.log"
    return path.read_text() if path.exists() else ""


RECORDER = "import sys; open('told', 'a').write(sys.stdin.read())"


def told(bench: Bench) -> list[dict[str, Any]]:
    path = bench.folder / "told"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_services_are_told_of_failures_and_of_the_end_of_the_batch(lab: Lab, service: Service) -> None:
    bench = lab.workspace(tasks={"good.yml": "", "bad.yml": "code: 3"}, executor="local", notify=[service.url])
    bench.run("start", "--wait", code=1)
    bench.wait_until(lambda: "all done" in str(service.messages), "the summary", tell=lambda: service.messages)
    text = json.dumps(service.messages)
    assert "bad failed: exit code 3" in text and "1 completed, 1 failed" in text
    assert sum("all done" in str(message) for message in service.messages) == 1
    assert "good completed" not in text, "not asked for"
    assert "secret" not in bench.run("config").out + bench.run("config", "--json").out + bench.run("status").text
    assert "secret" not in scheduler_log(bench)
    assert json.loads(bench.run("config", "--json").out)["settings"]["notify"]["value"] == ["json://…"]


@pytest.mark.parametrize("executor", ["tmux", "local"])
def test_a_command_gets_every_event_as_json(lab: Lab, executor: str) -> None:
    bench = lab.workspace(
        tasks={"a.yml": "", "b.yml": "code: 3", "after.yml": ""}, executor=executor, retry_on=["failed"], max_retries=1,
        retry_delay="0.1s", on_event=[sys.executable, "-c", RECORDER],
    )  # fmt: skip
    path = bench.folder / "scheduler_config.yml"
    path.write_text(path.read_text() + 'tasks: {after: {after: ["b"]}}\n')
    bench.run("start", "--wait", code=1)
    bench.wait_until(lambda: any(event["event"] == "batch_done" for event in told(bench)), "the events")
    events = told(bench)
    of = {name: [e["event"] for e in events if e.get("task") == name] for name in ("a", "b", "after")}
    assert of == {"a": ["started", "completed"], "b": ["started", "retried", "started", "failed"], "after": ["failed"]}
    (failed,) = [event for event in events if event["event"] == "failed" and event["task"] == "b"]
    assert failed["version"] == 1 and failed["exit_code"] == 3 and failed["attempt"] == 2
    assert failed["outcome"] == "failed" and failed["reason_code"] == "exit_code" and failed["seconds"] >= 0
    assert failed["workspace"] == str(bench.folder) and failed["log"].endswith("b.2.log")
    (done,) = [event for event in events if event["event"] == "batch_done"]
    assert {*done} == {*OF_ALL, *OF_BATCHES} and {*told(bench)[0]} == {*OF_ALL, *OF_TASKS}
    assert done["counts"] == {"completed": 1, "failed": 2}
    assert {item["task"] for item in done["not_completed"]} == {"b", "after"}


def test_a_dead_a_hanging_and_an_unknown_service_delay_nothing(lab: Lab) -> None:
    with socket.socket() as hanging, socket.socket() as dead:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen(20)
        dead.bind(("127.0.0.1", 0))  # bound, and nobody listens
        urls = [
            f"json://tokenA@127.0.0.1:{dead.getsockname()[1]}",
            f"json://tokenB@127.0.0.1:{hanging.getsockname()[1]}",
        ]
        tasks = {f"t{number}.yml": "code: 1" for number in range(12)}
        bench = lab.workspace(tasks=tasks, executor="local", notify=urls, on_event=["sleep", "1000"])
        began = time.monotonic()
        bench.run("start", "--wait", code=1)
        bench.wait_for_scheduler_end()
        assert time.monotonic() - began < 15
        bench.wait_until(lambda: scheduler_log(bench).count("was not told") >= 2, "the lines",
                         tell=lambda: scheduler_log(bench))  # fmt: skip
        log = scheduler_log(bench)
    assert "notify[0] (json://…) was not told" in log and "notify[1] (json://…) was not told" in log
    assert "token" not in log


def test_what_a_command_prints_is_in_the_log_and_its_failure_is_one_line(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""}, executor="local")
    bench.reconfigure(on_event=["sh", "-c", "echo said; exit 4"])
    bench.run("start", "--wait")
    bench.wait_until(lambda: "on_event (batch_done) ended" in scheduler_log(bench), "the log")
    log = scheduler_log(bench)
    assert "on_event (completed a): said" in log and "on_event (completed a) ended with exit code 4" in log


def test_bad_urls_and_commands_are_refused_without_showing_a_secret(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""}, executor="local")
    bad: list[tuple[object, str]] = [
        ("nonsense", "must be a URL"),
        (["x y://secret"], "must be a URL"),
        ([5], "must be a URL"),
        (["nosuch://secret"], "no URL that apprise understands"),
        ({"a": 1}, "must be a list"),
    ]
    for notify, words in bad:
        bench.reconfigure(notify=notify)
        answer = bench.run("start", code=2)
        assert words in answer.err and "secret" not in answer.err and "scheduler_config.yml:" in answer.err
    bench.reconfigure(notify=[], notify_on=["failled"])
    assert "did you mean 'failed'?" in bench.run("start", code=2).err
    bench.reconfigure(notify_on=["failed"], on_event=["no-such-program"])
    assert "on_event: 'no-such-program' is no program" in bench.run("start", code=2).err


def test_without_the_extra_the_error_names_what_to_install(lab: Lab, tmp_path: Path) -> None:
    bench = lab.workspace(tasks={"a.yml": ""}, executor="local", notify=["json://127.0.0.1"])
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text("import sys; sys.modules['apprise'] = None\n")
    answer = bench.run("start", code=2, PYTHONPATH=str(hide))
    assert "pip install 'tinksched[notify]'" in answer.err
    assert bench.starts() == {}


def test_a_scheduler_that_is_killed_tells_nothing_twice_and_what_it_has_handed_over_is_told(lab: Lab) -> None:
    tasks = {f"t{number}.yml": "" for number in range(8)}
    slow = f"import time; time.sleep(0.1); {RECORDER}"
    bench = lab.workspace(tasks=tasks, executor="local", gpu_count=1, max_jobs_per_gpu=1)
    bench.reconfigure(on_event=[sys.executable, "-c", slow])
    bench.run("start")
    bench.wait_until(lambda: len(bench.starts()) >= 3, "some starts")
    os.kill(bench.scheduler_pid(), signal.SIGKILL)
    bench.run("start", "--wait", code=None)
    bench.wait_until(lambda: any(event["event"] == "batch_done" for event in told(bench)), "the end")
    seen = [(event["event"], event.get("run")) for event in told(bench) if event["event"] != "batch_done"]
    assert len(seen) == len(set(seen)) and len({run for _, run in seen}) >= 7


def test_a_cancel_without_a_scheduler_is_no_end_of_a_batch(lab: Lab) -> None:
    bench = lab.workspace(executor="local", gpu_count=1, max_jobs_per_gpu=1)
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.add("b.yml", gate.config)
    bench.reconfigure(on_event=[sys.executable, "-c", RECORDER])
    bench.run("start")
    bench.wait_for_starts("a")
    bench.run("stop")
    bench.run("cancel", "a")
    bench.wait_until(lambda: any(event["event"] == "cancelled" for event in told(bench)), "the news")
    assert not any(event["event"] == "batch_done" for event in told(bench))
