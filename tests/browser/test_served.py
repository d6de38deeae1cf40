"""The page of a real `tinksched serve`, with real jobs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.nvml_double import GIB, Gpu, NvmlDouble, Process
from tests.serving import Serving
from tests.support import Lab

from .watched import Watched

Opened = Callable[..., Watched]
ROWS = ".rows .row"
TALKS = """
import pathlib, sys, time
print("begun", flush=True)
while not pathlib.Path({end!r}).exists():
    time.sleep(0.02)
print("and done", file=sys.stderr, flush=True)
"""

RECORD = """
window.received = "";
const plain = window.fetch;
window.fetch = async (...asked) => {
    const answer = await plain(...asked);
    const [ours, theirs] = answer.body.tee();
    (async () => {
        for await (const part of ours.pipeThrough(new TextDecoderStream())) window.received += part;
    })().catch(() => {});
    return new Response(theirs, {status: answer.status, headers: answer.headers});
};
"""
PRY = """async () => {
    const headers = {Authorization: `Bearer ${localStorage.getItem("opentinker_api_key")}`};
    for (const path of ["state?jobs=1000", "jobs?offset=0&limit=100", "users", "jobs/JOB", "jobs/JOB/log"])
        await (await fetch(`/dashboard/api/${path}`, {headers})).text();
    for (const verb of ["cancel", "retry"])
        await (await fetch(`/dashboard/api/jobs/JOB/${verb}`, {headers, method: "POST"})).text();
}"""


@pytest.fixture
def server(lab: Lab, tmp_path: Path) -> Iterator[Serving]:
    """A server on a machine with two GPUs; on the second one is somebody else."""
    double = NvmlDouble(tmp_path)
    somebody = (Process(1, 30 * GIB),)
    double.write(Gpu("GPU-a", utilization=7, temperature=41), Gpu("GPU-b", utilization=80, processes=somebody))
    lab.environment.update(double.environment())
    serving = Serving(lab).start()
    yield serving
    serving.close()


def test_a_job_is_seen_from_its_start_to_its_end(server: Serving, opened: Opened, tmp_path: Path) -> None:
    token, end = server.token("alice"), tmp_path / "end"
    page = opened(f"{server.url}/dashboard", key=token).page
    expect(page.locator(".gpu")).to_have_count(2)
    expect(page.locator(".slot.is-foreign")).to_have_count(1)
    job = server.submit(token, TALKS.format(end=str(end)), wait=False).json()["job_id"]
    expect(page.locator(ROWS).filter(has_text=job)).to_contain_text("Running")
    expect(page.locator(".slot.is-running")).to_contain_text("alice")
    page.locator(ROWS).filter(has_text=job).get_by_role("link").first.click()
    expect(page.get_by_role("log")).to_contain_text("begun")
    end.touch()
    expect(page.get_by_role("log").locator(".from-stderr")).to_contain_text("and done")
    expect(page.locator("#job .job-head")).to_contain_text("Completed")
    page.get_by_role("tab", name="Runs").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("Completed")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Completed")).to_contain_text("1")


def test_a_job_is_cancelled_and_retried(server: Serving, opened: Opened, tmp_path: Path) -> None:
    token = server.token("alice")
    job = server.submit(token, TALKS.format(end=str(tmp_path / "never")), wait=False).json()["job_id"]
    server.wait_for(token, job, "running")
    page = opened(f"{server.url}/dashboard#job={job}", key=token).page
    page.locator("#job").get_by_role("button", name="Cancel job").click()
    page.locator("#confirm").get_by_role("button", name="Cancel job").click()
    expect(page.locator("#job .job-head")).to_contain_text("Cancelled")
    expect(page.locator(".log-state")).to_have_text("Ended")
    page.locator("#job").get_by_role("button", name="Retry").click()
    page.locator("#confirm").get_by_role("button", name="Retry").click()
    expect(page.locator("#job .job-head")).to_contain_text("Running")
    expect(page.locator(".log-state")).to_have_text("Live")
    expect(page.get_by_role("log")).to_contain_text("begun")
    server.wait_for(token, job, "running")


def test_the_page_goes_on_after_a_restart_and_ends_with_its_token(server: Serving, opened: Opened) -> None:
    token = server.token("alice")
    page = opened(f"{server.url}/dashboard", key=token).page
    expect(page.locator("#connection")).to_have_text("Live")
    port = int(server.url.rsplit(":", 1)[1])
    server.stop(signal.SIGKILL)
    expect(page.locator("#banner")).to_contain_text("Away since")
    server.configure(port=port)
    server.start()
    expect(page.locator("#connection")).to_have_text("Live")
    job = server.submit(token).json()["job_id"]
    expect(page.locator(ROWS).filter(has_text=job)).to_contain_text("Completed")
    server.run("token", "revoke-user", "alice")
    page.get_by_role("button", name="Refresh").click()
    expect(page.get_by_role("heading", name="The server refuses this key")).to_be_visible()
    expect(page.locator("#scene")).to_be_hidden()


def test_nothing_of_another_users_jobs_reaches_the_browser(server: Serving, opened: Opened, tmp_path: Path) -> None:
    alice, bob, end = server.token("alice"), server.token("bob"), tmp_path / "end"
    secret = {"user": "bob", "competition_id": "bobs-comp", "project_id": "bobs-project"}
    job = server.submit(bob, TALKS.format(end=str(end)), wait=False, **secret).json()["job_id"]
    server.wait_for(bob, job, "running")
    page = opened(f"{server.url}/dashboard", key=alice, script=RECORD).page
    expect(page.locator(".slot.is-taken")).to_contain_text("another user")
    page.evaluate(PRY.replace("JOB", job))
    everything = page.evaluate("window.received + document.documentElement.outerHTML")
    assert "another user" in everything and '"is_admin"' in everything
    for word in (job, "bobs-comp", "bobs-project", '"bob"', "begun"):
        assert word not in everything
    end.touch()
