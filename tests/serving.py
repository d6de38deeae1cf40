"""A real server in a laboratory: `tinksched serve` in a process of its own, and clients that speak HTTP with it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.support import TIMEOUT, Answer, Lab

QUICK = "print('hello')\n"


class Serving:
    """One server with a state folder of its own. `url` is known once it serves."""

    def __init__(self, lab: Lab, name: str = "server", **settings: object) -> None:
        self.lab = lab
        self.folder = lab.folder / name
        self.folder.mkdir()
        self.state = self.folder / "state"
        self.config = self.folder / "server.yml"
        self.configure(**settings)
        self.url = ""
        self.process: subprocess.Popen[str] | None = None
        self._log = self.folder / "stderr"

    def configure(self, **settings: object) -> None:
        """Write server.yml. A test wants many calls at once, and no bubblewrap unless it says so."""
        values: dict[str, object] = {
            "port": 0, "scheduler_port": 0, "state_dir": str(self.state), "isolation": "none", "limits": False,
            "active_jobs": 1000, "executor": "local", "stop_grace": 1, "min_free_disk": "0B",
        }  # fmt: skip
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in {**values, **settings}.items()]
        self.config.write_text("".join(lines))

    # -- the command line

    def run(self, *arguments: str, code: int | None = 0, text: str = "") -> Answer:
        """Run `tinksched` with this server's configuration behind the arguments."""
        done = subprocess.run(
            [sys.executable, "-m", "tinksched", *arguments, "--config", str(self.config)],
            env=self.lab.environment, input=text, capture_output=True, text=True, timeout=TIMEOUT, cwd=self.folder,
        )  # fmt: skip
        answer = Answer(done.returncode, done.stdout, done.stderr)
        assert code is None or answer.code == code, f"{arguments}: exit code {answer.code}\n{answer.text}"
        return answer

    def workspace(self, *arguments: str, code: int = 0) -> Answer:
        """Run a command of the workspace in which the server's jobs run."""
        done = subprocess.run(
            [sys.executable, "-m", "tinksched", "--workspace", str(self.state), *arguments],
            env=self.lab.environment, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{arguments}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return Answer(done.returncode, done.stdout, done.stderr)

    def token(self, user: str, *, admin: bool = False) -> str:
        """A fresh token of a user."""
        return self.run("token", "create", user, "--generate", *(["--admin"] if admin else [])).out.strip()

    # -- its life

    def launch(self) -> None:
        """Begin to serve."""
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tinksched", "serve", "--config", str(self.config)],
                env=self.lab.environment, stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.folder,
            )  # fmt: skip

    def start(self) -> Serving:
        """Serve, and wait until it does."""
        self.launch()
        assert self.process is not None and self.process.stdout is not None
        for line in self.process.stdout:
            found = re.search(r"serves on (http://\S+)", line)
            if found:
                self.url = found[1]
                return self
        raise AssertionError(f"the server ended: {self.process.wait()}\n{self.log()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal, and wait for that."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(TIMEOUT)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def close(self) -> None:
        """End it, and every job: they have a clean environment, by which no laboratory knows them."""
        if self.process is not None:
            self.stop(signal.SIGKILL)
        if (self.state / "scheduler_config.yml").exists():
            subprocess.run(
                [sys.executable, "-m", "tinksched", "--workspace", str(self.state), "kill-all"],
                env=self.lab.environment, capture_output=True, timeout=TIMEOUT, check=False,
            )  # fmt: skip

    def log(self) -> str:
        """What it said on standard error."""
        return self._log.read_text()

    # -- clients

    def client(self, token: str | None = None) -> httpx.Client:
        """A client with a user's token."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT, trust_env=False)

    def submit(
        self, token: str | None, code: str | bytes = QUICK, user: str = "alice", wait: bool = True, **more: Any
    ) -> httpx.Response:
        """Submit a script with a config of these fields."""
        query = {"wait": str(wait).lower(), **more.pop("query", {})}
        with self.client(token) as client:
            return client.post("/api/submit", params=query, files=form(code, user=user, **more))

    def job(self, token: str, job_id: str, what: str = "status") -> dict[str, Any]:
        """What the server says of a job."""
        with self.client(token) as client:
            answer = client.get(f"/api/{what}/{job_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait_for(self, token: str, job_id: str, status: str) -> dict[str, Any]:
        """The job, once it is in this status."""
        return until(lambda: self.job(token, job_id), lambda job: job["status"] == status)


def form(code: str | bytes = QUICK, **fields: Any) -> Mapping[str, Any]:
    """The files of a submission. A field that is None is left out."""
    values = {"competition_id": "comp", "project_id": "proj", "user_id": fields.pop("user", "alice"),
              "expected_time": 60, **fields}  # fmt: skip
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items() if value is not None)
    return {
        "code": ("solution.py", code if isinstance(code, bytes) else code.encode(), "text/x-python"),
        "config_file": ("config.yaml", text.encode(), "application/x-yaml"),
    }


def until(look: Callable[[], Any], good: Callable[[Any], bool], seconds: float = TIMEOUT) -> Any:
    """What is seen, once it is as wanted."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if good(found):
            return found
        assert time.monotonic() < deadline, f"did not come true: {found}"
        time.sleep(0.02)


def pid_files(folder: Path) -> list[int]:
    """The pids that jobs wrote into files of a folder."""
    return [int(path.read_text()) for path in folder.glob("*.pid")]
