"""The life of a job over HTTP, with a real server, real processes and real tmux."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving import Serving, form, until
from tests.support import TIMEOUT, Lab

FOREVER = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n"


def test_a_submission_waits_and_gets_what_the_job_printed(server: Serving) -> None:
    token = server.token("alice")
    answer = server.submit(token, "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)\n").json()
    assert (answer["status"], answer["exit_code"], answer["stdout"], answer["stderr"]) == (
        "failed",
        3,
        "out\n",
        "err\n",
    )
    assert answer["started_at"] < answer["completed_at"] and answer["node_id"] == 0
    assert answer["stdout_from"] == "stdout"
    assert re.fullmatch(r"[0-9a-f-]{36}", answer["job_id"])


def test_one_that_does_not_wait_is_pending_then_running_then_done(server: Serving) -> None:
    token = server.token("alice")
    answer = server.submit(token, FOREVER, wait=False).json()
    assert answer["status"] == "pending" and answer["queue_position"] == 0 and answer["message"]
    job = server.wait_for(token, answer["job_id"], "running")
    assert job["started_at"] and job["completed_at"] is None and job["queue_position"] is None
    second = server.submit(token, wait=False).json()
    assert server.job(token, second["job_id"])["queue_position"] == 0
    assert server.job(token, second["job_id"], "results")["stdout"] is None
    with server.client(token) as client:
        assert client.post(f"/api/cancel/{answer['job_id']}").json() == {
            "message": "Job cancelled successfully", "status": "cancelled",
        }  # fmt: skip
    server.wait_for(token, answer["job_id"], "cancelled")
    server.wait_for(token, second["job_id"], "completed")
    with server.client(token) as client:
        again = client.post(f"/api/cancel/{answer['job_id']}")
    assert (again.status_code, again.json()) == (400, {"detail": "Job already completed"})


def test_results_go_to_the_documented_file_and_results_jsonl_wins(server: Serving) -> None:
    token = server.token("alice")
    code = "open('results.jsonl', 'w').write('{\"score\": 1}\\n')\nprint('noise')\n"
    answers = [server.submit(token, code, competition_id="cup").json() for _ in range(2)]
    assert {(answer["stdout"], answer["stdout_from"]) for answer in answers} == {('{"score": 1}\n', "results.jsonl")}
    files = sorted((server.state / "results").iterdir())
    assert len(files) == 2 and all(re.match(r"alice_cup_\d{8}_\d{6}(_2)?\.jsonl", file.name) for file in files)
    assert [file.read_text() for file in files] == ['{"score": 1}\n'] * 2
    assert {answer["results_file"] for answer in answers} == set(map(str, files))


def test_a_job_that_takes_too_long_has_failed_and_says_so(serving: Callable[..., Serving]) -> None:
    server = serving(timeout_multiplier=1).start()
    token = server.token("alice")
    answer = server.submit(token, FOREVER, expected_time=1).json()
    assert answer["status"] == "failed" and re.fullmatch(r"timed out after \d s", answer["reason"])


def test_a_client_that_hangs_up_does_not_cancel_its_job(server: Serving) -> None:
    token = server.token("alice")
    with server.client(token) as client:
        with pytest.raises(Exception, match="timed out"):
            client.post("/api/submit", files=form("import time; time.sleep(2); print('done')"), timeout=1.0)
        jobs = client.get("/api/jobs").json()
    server.wait_for(token, jobs[0]["job_id"], "completed")


def test_jobs_outlive_the_server_and_are_found_again(serving: Callable[..., Serving], tmp_path: Path) -> None:
    server = serving().start()
    token = server.token("alice")
    gate = tmp_path / "gate"
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)\nprint('through')\n"
    running = server.submit(token, code, wait=False).json()["job_id"]
    pending = server.submit(token, wait=False).json()["job_id"]
    server.wait_for(token, running, "running")
    assert server.stop() == 0
    gate.touch()
    server.start()
    assert server.wait_for(token, running, "completed")["exit_code"] == 0
    server.wait_for(token, pending, "completed")
    assert server.job(token, running, "results")["stdout"] == "through\n"


def test_output_is_followed_live_and_from_where_one_was(server: Serving) -> None:
    token = server.token("alice")
    lines = ["import time", "for n in range(3):", "    print('é', n, flush=True)", "    time.sleep(0.2)"]
    code = "\n".join([*lines, "import sys", "sys.stderr.write('x')", ""])
    job = server.submit(token, code, wait=False).json()["job_id"]

    def events(since: str | None = None) -> list[tuple[str, str, str]]:
        headers = {"Last-Event-ID": since} if since else {}
        with server.client(token) as client, client.stream("GET", f"/api/logs/{job}", headers=headers) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            text = "".join(stream.iter_text())
        found = []
        for block in text.strip().split("\n\n"):
            lines = [line.split(": ", 1) for line in block.split("\n") if not line.startswith(":")]
            fields = {key: value for key, value in lines if key != "data"}
            data = "\n".join(value for key, value in lines if key == "data")
            found.append((fields.get("event", ""), fields.get("id", ""), data))
        return [event for event in found if event[0]]

    seen = events()
    assert "".join(data for kind, _, data in seen if kind == "stdout") == "é 0\né 1\né 2\n"
    assert seen[-1][0] == "end" and json.loads(seen[-1][2]) == {"status": "completed", "exit_code": 0}
    later = events(seen[0][1])
    assert [event for event in later if event[0] == "end"] and "é 0" not in str(later)


def test_a_session_shows_both_outputs(serving: Callable[..., Serving], lab: Lab) -> None:
    server = serving(executor="tmux").start()
    token = server.token("alice")
    job = server.submit(token, "import sys\nprint('one')\nprint('two', file=sys.stderr)\n").json()
    assert (job["stdout"], job["stderr"]) == ("one\n", "two\n")
    session = next(name for name in lab.sessions() if job["job_id"] in name)
    screen = until(lambda: lab.tmux("capture-pane", "-p", "-t", f"={session}:").stdout, lambda text: "two" in text)
    assert "one" in screen
    lab.tmux("kill-server")


def test_many_wait_at_once_and_all_get_their_answers(serving: Callable[..., Serving]) -> None:
    server = serving(cpu_slots=4).start()
    token = server.token("alice")
    answers: list[str] = []

    def one(number: int) -> None:
        answers.append(server.submit(token, f"print({number})").json()["stdout"])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(int(answer) for answer in answers) == list(range(30))


def test_nothing_of_the_servers_environment_reaches_a_job(serving: Callable[..., Serving], lab: Lab) -> None:
    lab.environment["SECRET"] = "of the server"
    server = serving().start()
    answer = server.submit(server.token("alice"), "import os, json\nprint(json.dumps(dict(os.environ)))").json()
    environment = json.loads(answer["stdout"])
    assert "SECRET" not in environment and environment["HOME"] == environment["PWD"]
    assert environment["JOB_ID"] == answer["job_id"] and os.environ["PATH"] in environment["PATH"]


def test_a_job_that_waits_is_cancelled_at_once_and_never_begins(server: Serving) -> None:
    token = server.token("alice")
    first = server.submit(token, FOREVER, wait=False).json()["job_id"]
    waiting = server.submit(token, wait=False).json()["job_id"]
    with server.client(token) as client:
        assert client.post(f"/api/cancel/{waiting}").status_code == 200
        assert client.post(f"/api/cancel/{waiting}").json() == {"detail": "Job already completed"}
        job = server.job(token, waiting)
        assert (job["status"], job["started_at"], job["reason"]) == ("cancelled", None, "cancelled by alice")
        client.post(f"/api/cancel/{first}")
    server.wait_for(token, first, "cancelled")
    server.submit(token)
    with server.client(token) as client:
        health = client.get("/api/dashboard").json()["health_metrics"]
    assert health["success_rate_percent"] == 100, "what was cancelled is no failure"


def test_results_that_are_too_large_stay_where_they_are(serving: Callable[..., Serving]) -> None:
    server = serving(max_results_size="1MB").start()
    code = "open('results.jsonl', 'w').truncate(10**10)\n"
    job = server.submit(server.token("alice"), code).json()
    assert job["status"] == "completed" and job["results_file"] is None
    own = server.state / "jobs" / job["job_id"] / "results.jsonl"
    assert own.stat().st_size == 10**10 and not list((server.state / "results").iterdir())
    assert f"its results stay in {own}: 10000000000 bytes, and max_results_size is" in server.log()


def test_what_lies_ahead_gets_less_while_a_job_runs(server: Serving) -> None:
    token = server.token("alice")
    job = server.submit(token, FOREVER, wait=False).json()["job_id"]
    server.wait_for(token, job, "running")
    with server.client() as client:
        first = client.get("/api/nodes").json()[0]["total_wait_time"]
        until(lambda: client.get("/api/nodes").json()[0]["total_wait_time"], lambda now: 0 < now < first - 2)
