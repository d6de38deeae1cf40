"""Service jobs through the OpenTinker API: real programs, real ports, real clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import Serving, until

SCRIPT = Path(__file__).parents[1] / "training_server.py"


@pytest.fixture
def services(serving: Callable[..., Serving]) -> Callable[..., Serving]:
    """Makes servers that can start training servers."""

    def make(**settings: object) -> Serving:
        return serving(**{"server_script": str(SCRIPT), "cpu_slots": 2, "health_path": "/health", **settings})

    return make


def register(server: Serving, name: str = "alice") -> str:
    """A key of a new user."""
    answer = httpx.post(f"{server.url}/register", params={"username": name})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["api_key"])


def submit(server: Serving, key: str, **config: Any) -> dict[str, Any]:
    """A training server with this config."""
    with server.client(key) as client:
        answer = client.post("/submit_job", json={"config": config})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def status(server: Serving, key: str, job: str) -> dict[str, Any]:
    with server.client(key) as client:
        answer = client.get(f"/job_status/{job}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def wait_for(server: Serving, key: str, job: str, *wanted: str) -> dict[str, Any]:
    """The job, once it is in one of these states."""
    found: dict[str, Any] = until(lambda: status(server, key, job), lambda job: job["status"] in wanted)
    return found


def test_a_client_gets_a_server_talks_to_it_and_completes(services: Callable[..., Serving]) -> None:
    server = services().start()
    key = register(server)
    job = submit(server, key, model={"path": "tiny"}, epochs=3)
    assert job["status"] in ("STARTING", "RUNNING") and set(job) == {"job_id", "status", "message", "server_url"}
    ready = wait_for(server, key, job["job_id"], "RUNNING", "FAILED")
    assert ready["status"] == "RUNNING", ready
    said = httpx.get(ready["server_url"]).json()
    assert said["arguments"] == [
        f"server.port={ready['port']}", f"job_id={job['job_id']}", "enable_agent_loop=false", "model.path=tiny",
        "epochs=3",
    ]  # fmt: skip
    with server.client(key) as client:
        for _ in range(2):
            answer = client.post(f"/complete_job/{job['job_id']}").json()
            assert answer["status"] == "COMPLETED" and answer["job_id"] == job["job_id"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(ready["server_url"])
    over = status(server, key, job["job_id"])
    assert over["status"] == "COMPLETED" and over["completed_at"] and over["server_url"] is None
