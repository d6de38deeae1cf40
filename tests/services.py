"""What tests of service jobs have in common: a server that starts training servers, and an OpenTinker client."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import httpx

from tests.serving import Serving, until

SCRIPT = Path(__file__).parent / "training_server.py"
SETTINGS: dict[str, object] = {"server_script": str(SCRIPT), "cpu_slots": 2}


def ports() -> dict[str, object]:
    """A range of ports for a server: tests that run at the same time shall not meet."""
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "0")))
    first = 21_000 + 40 * worker  # below those that the kernel gives to outgoing connections
    return {"port_range": [first, first + 39]}


class Client:
    """A user of the API, by name, with a key of their own."""

    def __init__(self, server: Serving, name: str = "alice", key: str | None = None) -> None:
        self.server = server
        self.name = name
        self.key = key or str(self.ask("POST", "/register", params={"username": name})["api_key"])

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request, whatever comes of it."""
        with self.server.client(getattr(self, "key", None)) as client:
            return client.request(method, path, **more)

    def ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """One request that is granted."""
        answer = self.call(method, path, **more)
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    def train(self, config: dict[str, Any] | None = None, **more: Any) -> str:
        """The id of a training server with this config."""
        return str(self.ask("POST", "/submit_job", json={"config": config or {}, **more})["job_id"])

    def status(self, job: str) -> dict[str, Any]:
        """What has become of it."""
        return self.ask("GET", f"/job_status/{job}")

    def wait(self, job: str, *wanted: str) -> dict[str, Any]:
        """The job, once it is in one of these states."""
        over = {"COMPLETED", "FAILED", "CANCELLED"}
        found: dict[str, Any] = until(lambda: self.status(job), lambda one: one["status"] in {*wanted, *over})
        assert found["status"] in wanted, found
        return found

    def running(self, config: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """A training server that answers."""
        return self.wait(self.train(config, **more), "RUNNING")

    def complete(self, job: str) -> dict[str, Any]:
        """Say that it has done its work."""
        return self.ask("POST", f"/complete_job/{job}")

    def cancel(self, job: str) -> dict[str, Any]:
        """Say that it is not wanted."""
        return self.ask("DELETE", f"/cancel_job/{job}")


def answers(url: str) -> bool:
    """Whether anybody is there."""
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
