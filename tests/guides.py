"""What older guides of this HTTP API show, done as they show it against a fresh server with the documented limits.

`python -m tests.guides` writes what was seen to examples/server/TRANSCRIPTS.md; a test does it all again and compares.
What differs from one time to the next (ids, times, versions) is replaced by names.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.nvml_double import Gpu, NvmlDouble
from tests.serving import Serving, until
from tests.support import TIMEOUT, Lab

FILE = Path(__file__).parents[1] / "examples/server/TRANSCRIPTS.md"
HEAD = """\
# The calls of older guides, and what this server answers

Written by `python -m tests.guides`, which makes each call against a fresh server; a test compares. `JOB-1` stands for
an id, `TIME` for a time. The server has the documented limits, two CPU slots in place of GPUs, and no isolation.

"""
TAIL = """\
## What does not work as those guides have it

| call | why | instead |
| --- | --- | --- |
| `status`, `results`, `jobs`, `cancel` without a header | anybody could read anybody's output: 401 | the header, as for `submit` |
| `submit` that answers at once by default | the newer guides wait | `?wait=false` |
| port 8000 | the newer guides have 8001 | `port: 8000` in `server.yml` |
| times without an offset | they said nothing of their zone | ISO 8601 in UTC, with `+00:00` |
| every failed job is `completed` with `exit_code: 0` | that hid crashes | real exit codes; not 0 is `failed` |
| `dashboard` is for admins only | users asked for it | a user gets their own part |
| 5 submissions a minute from one address | an office has one address | 5 of each user, and 100 from an address |
| `local_results_path` of a config | a client could write any file of the server | the answers, and `results_dir` |
| the server's own scripts (`main.py`, `token_manager.py`, `dashboard_example.py`, `tests/…`) | another program | `tinksched serve`, `tinksched token`, `GET /api/dashboard` |
| `config.py` | code is no configuration | `server.yml`; the guide has a table of the names |
| a token as an argument | it shows in lists of processes | it works; better `--generate`, or `-` and standard input |
| `DELETE FROM jobs …` in the database | `jobs` is a view; rows alone would leave files behind | `tinksched db clean --older-than 30d` |
| `cp database.db …` as a backup | a copy of a database in use can be torn | `tinksched db backup FILE` |
| `rm database.db` to begin anew | the state is a folder | stop the server, and move `state_dir` away |
| `lsof … \\| xargs kill -9`, `pkill -f …` to stop it | nothing is lost by it, but nothing is answered either | SIGTERM, or the systemd unit; jobs go on |
| commands of macOS, Python 3.8 and 3.9 | the server runs on Linux, with Python 3.10 or newer | clients run anywhere |
| SSH nodes and a jump host, restarts of containers from Python, draining | not there yet | the GPUs of the server's own machine |
| a checkout and `requirements.txt` | another program | `pip install 'tinksched[server]'` |
"""  # noqa: E501
SCRIPT = "import json\nprint('hello from the job')\nprint(json.dumps({'score': 0.5}))\n"
CONFIG = """\
competition_id: "titanic"
project_id: "baseline"
user_id: "alice"
expected_time: 60
"""
REQUESTS = """\
import os, requests

server, token = os.environ["SERVER"], os.environ["TOKEN"]
config = {"user_id": "alice", "competition_id": "test", "project_id": "demo", "expected_time": 60, "token": token}
files = {
    "code": ("solution.py", "print(6 * 7)", "text/x-python"),
    "config_file": ("config.yaml", str(config), "application/x-yaml"),
}
answer = requests.post(f"{server}/api/submit", files=files, headers={"Authorization": f"Bearer {token}"}, timeout=300)
result = answer.json()
print(result["job_id"], result["status"], result["stdout"], sep="\\n")
"""
POLLED = """\
import os, requests

answer = requests.get(
    f"{os.environ['SERVER']}/api/dashboard?user_id=admin",
    headers={"Authorization": f"Bearer {os.environ['ADMIN']}"},
)
data = answer.json()
jobs, health = data["job_statistics"], data["health_metrics"]
print(data["timestamp"], jobs["total"], jobs["running"], jobs["pending"], jobs["completed"])
print(health["node_utilization_percent"], health["success_rate_percent"])
"""
_MEASURED = {
    "average_queue_time_seconds", "duration_seconds", "free_disk", "port", "queue_time_seconds", "total_wait_time",
    "version",
}  # fmt: skip
_NAMED = {
    re.compile("otk_[0-9a-f]{32}"): "KEY",
    re.compile(r"http://127\.0\.0\.1:\d+"): "URL",
    re.compile(r"\S+ runs `(.*)` on GPU 0 \(pid \d+\)"): r"USER runs `\1` on GPU 0 (pid PID)",
}
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|\+00:00)?|\d{8}_\d{6}(?:_\d+)?(?=\.jsonl)")


class Walk:
    """Makes calls, and writes down what was asked and answered."""

    def __init__(self, server: Serving) -> None:
        self.server = server
        self.lines: list[str] = []
        self._ids: dict[str, str] = {}
        self.variables = {"SERVER": server.url}
        for name, text in (("solution.py", SCRIPT), ("config.yaml", CONFIG)):
            (server.folder / name).write_text(text)

    def heading(self, text: str) -> None:
        self.lines.append(f"## {text}\n")

    def do(self, title: str, command: str, *, language: str = "sh", quiet: bool = False) -> Any:
        """Run a shell command, and write it down. Returns what it answered, read as JSON if it is."""
        done = subprocess.run(
            ["sh", "-c", command] if language == "sh" else [sys.executable, "-c", command],
            env={**self.server.lab.environment, **self.variables}, cwd=self.server.folder, capture_output=True,
            text=True, timeout=TIMEOUT,
        )  # fmt: skip
        try:
            found = json.loads(done.stdout)
        except ValueError:
            found = (done.stdout or done.stderr).rstrip("\n")
        if not quiet:
            shown = found if isinstance(found, str) else json.dumps(self._plain(found), indent=2, ensure_ascii=False)
            kind = "text" if isinstance(found, str) else "json"
            self.lines.append(f"### {title}\n\n```{language}\n{command.strip()}\n```\n")
            self.lines.append(f"```{kind}\n{self._named(shown)}\n```\n")
        return found

    def sql(self, title: str, statement: str) -> None:
        """Run SQL as `sqlite3` would, which not every machine has."""
        program = "import os, sqlite3\nconnection = sqlite3.connect(os.environ['DATABASE'])\n"
        program += f"try:\n    print(*connection.execute({statement!r}), sep='\\n')\n"
        program += "except sqlite3.Error as error:\n    print(error)\n"
        found = self.do(title, program, language="python", quiet=True)
        self.lines.append(f"### {title}\n\n```sql\n{statement}\n```\n\n```text\n{self._named(str(found))}\n```\n")

    def _plain(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: self._plain(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._plain(inner) for inner in value]
        return key.upper() if key in _MEASURED and value is not None else value

    def _named(self, text: str) -> str:
        text = text.replace(str(self.server.folder), "FOLDER")
        text = _ID.sub(lambda found: self._ids.setdefault(found[0], f"JOB-{len(self._ids) + 1}"), text)
        for pattern, name in _NAMED.items():
            text = pattern.sub(name, text)
        return _TIME.sub("TIME", text)

    def ended(self, job_id: str) -> None:
        """Wait until a job has ended."""
        token = self.variables["ADMIN"]
        over = ("completed", "failed", "cancelled")
        until(lambda: self.server.job(token, job_id)["status"], lambda status: status in over)


def transcripts(server: Serving) -> str:
    """Everything that the guides show, with the answers."""
    walk = Walk(server)
    _tokens(walk)
    _user_guide(walk)
    _first_guide(walk)
    _administrator(walk)
    return HEAD + "\n".join(walk.lines) + "\n"


def services(server: Serving) -> str:
    """How a client of OpenTinker gets a training server."""
    walk = Tinker(server)
    walk.heading("A training server, as clients of OpenTinker ask for one")
    walk.variables["KEY"] = walk.do("Register", walk.register)["api_key"]
    walk.variables["JOB"] = walk.do("Submit", walk.submit)["job_id"]
    walk.train()
    walk.do("Your jobs", f'curl {walk.bearer} "$SERVER/list_jobs"')
    walk.do("A name that somebody has", walk.register)
    walk.do("More GPUs than there are", walk.submit.replace('"num_gpus": 1', '"num_gpus": 99'))
    walk.do("Without a key", 'curl "$SERVER/list_jobs"')
    return "\n".join(walk.lines) + "\n"


def behind_others(server: Serving, other: subprocess.Popen[bytes]) -> str:
    """The same, when somebody else's program is on the only GPU, and ends in the end."""
    walk = Tinker(server)
    walk.heading("The same while somebody else's program is on the only GPU")
    walk.variables["KEY"] = walk.do("", walk.register, quiet=True)["api_key"]
    walk.variables["JOB"] = walk.do("Submit", walk.submit)["job_id"]
    walk.do("Why it waits", walk.status)
    other.kill()
    other.wait()
    walk.lines.append("The other program ends, and nothing else happens.\n")
    walk.train()
    return "\n".join(walk.lines) + "\n"


class Tinker(Walk):
    """The calls of a client of OpenTinker."""

    bearer = '-H "Authorization: Bearer $KEY"'
    register = 'curl -X POST "$SERVER/register?username=ada"'
    submit = f'curl -X POST "$SERVER/submit_job" {bearer} -d \'{{"config": {{"lr": 0.1}}, "num_gpus": 1}}\''
    status = f'curl {bearer} "$SERVER/job_status/$JOB"'

    def train(self) -> None:
        """Wait until it answers, and use it."""
        found = until(lambda: self.do("", self.status, quiet=True), lambda job: job["server_url"])
        self.variables["URL"] = found["server_url"]
        self.do("It answers", self.status)
        self.do("Talk to it", 'curl -X POST "$URL/train_step" -d \'{"x": [0, 1, 2, 3], "y": [1, 3, 5, 7]}\'')
        self.do("Give it back", f'curl -X POST {self.bearer} "$SERVER/complete_job/$JOB"')


def _tokens(walk: Walk) -> None:
    walk.heading("Tokens")
    walk.variables |= {"TOKEN": "of-alice-0001", "ADMIN": "of-admin-0001", "OTHER": "of-bob-000001"}
    walk.do("For a user", 'tinksched token create alice "$TOKEN" --days 30')
    walk.do("For an admin", 'tinksched token create admin "$ADMIN" --days 30 --admin')
    walk.do("For somebody else", 'tinksched token create bob "$OTHER" --days 90')
    walk.do("Whose there are", "tinksched token list")


def _user_guide(walk: Walk) -> None:
    walk.heading("The guide for users")
    bearer = '-H "Authorization: Bearer $TOKEN"'
    (walk.server.folder / "config.yaml").write_text(f'{CONFIG}token: "{walk.variables["TOKEN"]}"\n')
    files = '-F "code=@solution.py" -F "config_file=@config.yaml"'
    job = walk.do("Submit, and wait", f'curl -X POST "$SERVER/api/submit" {bearer} {files}')
    walk.variables["JOB"] = job["job_id"]
    walk.do("Status", f'curl {bearer} "$SERVER/api/status/$JOB?user_id=alice"')
    walk.do("Results", f'curl {bearer} "$SERVER/api/results/$JOB?user_id=alice"')
    walk.do("Your jobs", f'curl {bearer} "$SERVER/api/jobs?user_id=alice"')
    walk.do("A Python client whose config is the text of a dict", REQUESTS, language="python")
    (walk.server.folder / "config.yaml").write_text(CONFIG)
    walk.do("A wrong token", f'curl -X POST "$SERVER/api/submit" -H "Authorization: Bearer wrong-token" {files}')
    other = f'curl -X POST "$SERVER/api/submit" -H "Authorization: Bearer $OTHER" {files}'
    walk.do("A token of somebody else", other)
    (walk.server.folder / "solution.py").write_text("import time\ntime.sleep(600)\n")
    submit = f'curl -X POST "$SERVER/api/submit?wait=false" {bearer} {files}'
    walk.variables["JOB"] = walk.do("Submit, and do not wait", submit)["job_id"]
    walk.do("A second job at once", submit)
    walk.do("", submit, quiet=True)
    walk.do("The sixth submission of a minute", submit)
    walk.server.wait_for(walk.variables["ADMIN"], walk.variables["JOB"], "running")
    walk.do("Cancel", f'curl -X POST {bearer} "$SERVER/api/cancel/$JOB?user_id=alice"')
    walk.ended(walk.variables["JOB"])
    walk.do("Cancel what has ended", f'curl -X POST {bearer} "$SERVER/api/cancel/$JOB?user_id=alice"')
    walk.do("Somebody else's job", 'curl -H "Authorization: Bearer $OTHER" "$SERVER/api/status/$JOB?user_id=bob"')


def _first_guide(walk: Walk) -> None:
    walk.heading("The first guide")
    (walk.server.folder / "script.py").write_text(SCRIPT)
    config = CONFIG.replace("alice", "bob") + f'token: "{walk.variables["OTHER"]}"\n'
    (walk.server.folder / "config.yaml").write_text(config)
    submit = '-F "code=@script.py" -F "config_file=@config.yaml"'
    job = walk.do("Submit with the token of the YAML alone", f'curl -X POST "$SERVER/api/submit" {submit}')
    walk.variables["JOB"] = job["job_id"]
    walk.do("The reply at once", f'curl -X POST "$SERVER/api/submit?wait=false" {submit}')
    walk.do("Status without a header", 'curl "$SERVER/api/status/$JOB"')
    walk.do("Results without a header", 'curl "$SERVER/api/results/$JOB"')
    walk.do("Results with one", 'curl "$SERVER/api/results/$JOB" -H "Authorization: Bearer $OTHER"')
    walk.do("Cancel with a header", 'curl -X POST "$SERVER/api/cancel/$JOB" -H "Authorization: Bearer $OTHER"')
    walk.do("Jobs without a header", 'curl "$SERVER/api/jobs?status=running"')
    walk.do("Jobs by status", 'curl "$SERVER/api/jobs?status=failed" -H "Authorization: Bearer $OTHER"')
    walk.do("What this is", 'curl "$SERVER/"')
    walk.do("The interactive reference", 'curl "$SERVER/docs" | grep -o "<title>.*</title>"')


def _administrator(walk: Walk) -> None:
    walk.heading("The guide for administrators")
    for job in walk.do("", 'curl -H "Authorization: Bearer $ADMIN" "$SERVER/api/jobs"', quiet=True):
        walk.ended(job["job_id"])
    bearer = '-H "Authorization: Bearer $ADMIN"'
    walk.do("Everybody's jobs", f'curl {bearer} "$SERVER/api/jobs?user_id=admin"')
    walk.do("Those of one user", f'curl {bearer} "$SERVER/api/jobs?user_id=bob"')
    walk.do("The dashboard", f'curl {bearer} "$SERVER/api/dashboard?user_id=admin"')
    walk.do("The dashboard from Python", POLLED, language="python")
    walk.do("Nodes", 'curl "$SERVER/api/nodes"')
    walk.do("Cancel anybody's job", f'curl -X POST {bearer} "$SERVER/api/cancel/$JOB?user_id=admin"')
    (walk.server.folder / "server.log").symlink_to("stderr")
    walk.do("A submission in the log", 'grep -m 1 "Job.*submitted" server.log')
    walk.do("What concerns a user in the log", 'grep "user_id=bob" server.log | grep -m 1 submitted')
    walk.variables["DATABASE"] = str(next(walk.server.state.glob(".tinksched/*.db")))
    walk.sql("The newest jobs", "SELECT user_id, status FROM jobs ORDER BY created_at DESC LIMIT 10;")
    walk.sql("Jobs of each user", "SELECT user_id, COUNT(*) FROM jobs GROUP BY user_id;")
    walk.sql("Tokens that are good", "SELECT user_id, is_admin, expires_at FROM tokens WHERE is_active = 1;")
    walk.sql("Is it sound?", "PRAGMA integrity_check;")
    walk.sql("Old jobs", "DELETE FROM jobs WHERE created_at < datetime('now', '-30 days');")
    walk.do("End a token", 'tinksched token revoke "$OTHER"')
    walk.do("End those of a user", "tinksched token revoke-user alice")
    walk.do("And it is so at once", 'curl -H "Authorization: Bearer $TOKEN" "$SERVER/api/jobs?user_id=alice"')


@contextmanager
def fresh(lab: Lab) -> Iterator[Serving]:
    """A server with the documented limits that knows nobody."""
    server = Serving(lab, "guides", limits=True, active_jobs=1, cpu_slots=2, gpus_per_job=0)
    try:
        yield server.start()
    finally:
        server.close()


@contextmanager
def training(lab: Lab, name: str) -> Iterator[Serving]:
    """A server that starts training servers on the GPUs that there are."""
    server = Serving(lab, name, limits=True, server_script=str(FILE.parent / "training_server.py"))
    try:
        yield server.start()
    finally:
        server.close()


def everything(lab: Lab) -> str:
    """The file."""
    with fresh(lab) as server:
        text = transcripts(server)
    double = NvmlDouble(lab.folder)
    double.write(Gpu("GPU-0"))
    lab.environment.update(double.environment())
    with training(lab, "free") as server:
        text += services(server)
    other = subprocess.Popen(["sleep", "600"])
    try:
        double.hold(other.pid, 2**30)
        with training(lab, "busy") as server:
            text += behind_others(server, other)
    finally:
        other.kill()
        other.wait()
    return text + TAIL


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        FILE.write_text(everything(Lab(Path(folder))))


if __name__ == "__main__":
    main()
