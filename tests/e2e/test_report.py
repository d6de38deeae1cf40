"""`report` from the shell: on a pipe, as JSON, and as a page."""

from __future__ import annotations

import json
import os
import time

from tests.bench import history
from tests.support import Lab


def test_a_day_is_reported(lab: Lab) -> None:
    tasks = {"good.yml": "", "bad.yml": "code: 3", "<b>.yml": ""}
    bench = lab.workspace(tasks=tasks, executor="local", gpu_count=1)
    assert "nothing has run here yet" in bench.run("report").out
    bench.run("start", "--wait", code=1)
    (bench.folder / "out" / "good_metrics.json").write_text('{"accuracy": 0.75}')
    text = bench.run("report", PYTHONUTF8="1").out
    assert "GPU 0  |" in text and "3: 2 completed, 1 failed" in text and "exit code 3" in text
    assert "accuracy" in text and "0.75" in text
    narrow = bench.run("report", COLUMNS="80", PYTHONUTF8="1").out
    assert "GPU 0" in narrow and max(map(len, narrow.splitlines())) <= 80
    found = json.loads(bench.run("report", "--json").out)
    assert found["version"] == 1 and found["run_counts"] == {"completed": 2, "failed": 1}
    assert found["metrics"] == {"good": {"accuracy": 0.75}} and len(found["runs"]) == 3
    answer = bench.run("report", "--html", "page.html")
    assert answer.out == "" and "written: page.html" in answer.err
    page = (bench.folder / "page.html").read_text()
    assert "&lt;b&gt;" in page and "<b>.yml" not in page and "exit code 3" in page
    assert "nothing ran in this time" in bench.run("report", "--since", "0s").out
    assert "no time" in bench.run("report", "--since", "noon", code=2).err
    assert "can't be written" in bench.run("report", "--html", "no/such/page.html", code=2).err


def test_a_page_goes_into_a_pipe_or_a_device_and_not_in_its_place(lab: Lab) -> None:
    bench = lab.workspace(tasks={"first.yml": ""}, executor="local", gpu_count=1)
    pipe = bench.folder / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        bench.run("report", "--html", "pipe")
        assert os.read(reader, 15) == b"<!doctype html>"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_ten_thousand_finished_tasks_are_reported_soon(lab: Lab) -> None:
    bench = lab.workspace(tasks={"first.yml": ""}, executor="local", gpu_count=1)
    bench.run("start", "--wait")
    bench.wait_for_scheduler_end()
    history.finish(bench.folder, 10_000)
    took = []
    for _ in range(3):
        began = time.perf_counter()
        answer = bench.run("report")
        took.append(time.perf_counter() - began)
    assert "10001: 10001 completed" in answer.out
    assert min(took) < 2, took
