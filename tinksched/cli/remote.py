"""`tinksched remote`: a server's jobs, from any machine that reaches it."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import NothingToActOn, TimedOut, UsageError
from ..operations import times
from . import render
from .options import JsonOption
from .tables import Table, lines, printable

if TYPE_CHECKING:
    from ..operations.remote import Remote

VERSION = 1  # of what --json prints
_UNSAFE = re.compile(r"\x1b\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STATUS = ("status", "reason", "node_id", "queue_position", "created_at", "started_at", "completed_at", "exit_code")

ServerUrlOption = Annotated[
    str | None, typer.Option("--server", metavar="URL", help="The server (default: $TINKSCHED_SERVER).")
]
RetryOption = Annotated[
    bool, typer.Option("--retry", help="When the server says 'too often' or 'later': wait as long, and ask again.")
]
TimeoutOption = Annotated[
    str | None, typer.Option("--timeout", metavar="TIME", help="Give up after 90s, 30m, 2h …: exit code 124.")
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The id that `submit` printed.")]

remote_commands = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@remote_commands.callback()
def remote() -> None:
    """Use a server of `tinksched serve`. Submit jobs to it, follow them, and get their results.

    The token is in TINKSCHED_TOKEN, or in ~/.config/tinksched/token with mode 0600.

    \b
    Example:
      tinksched remote submit train.py --config job.yaml --server https://HOST
    """


@remote_commands.command("submit")
def submit(
    code: Annotated[Path, typer.Argument(metavar="CODE.py", help="The script.")],
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="YAML or JSON with all of the following.")
    ] = None,
    competition: Annotated[str | None, typer.Option("--competition", metavar="ID", help="competition_id")] = None,
    project: Annotated[str | None, typer.Option("--project", metavar="ID", help="project_id")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="user_id: whose token it is")] = None,
    expected_time: Annotated[
        str | None, typer.Option("--expected-time", metavar="TIME", help="How long it will run, such as 90s, 10m, 2h.")
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's id, and don't wait for it.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print what the job prints, as it does.")] = False,
    timeout: TimeoutOption = None,
    retry: RetryOption = False,
    server: ServerUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a script, wait for its end, and print its results. Exit code 0 if it completed, 1 if not.

    Ctrl-C ends the waiting, not the job.

    \b
    Examples:
      tinksched remote submit train.py --config job.yaml --follow
      tinksched remote submit train.py --config job.yaml --no-wait --retry
    """
    if no_wait and follow:
        raise UsageError("--no-wait and --follow exclude each other")
    fields = {"competition": competition, "project": project, "user": user, "expected-time": expected_time}
    sent = _config(config, fields)
    with _open(server, retry=retry, timeout=timeout) as known:
        job = known.submit(_read(code), code.name, sent)
        for warning in job.get("warnings") or ():
            render.message(f"warning: {printable(str(warning))}")
        if no_wait:
            print(json.dumps({"version": VERSION, "job": job}, ensure_ascii=False) if as_json else job["job_id"])
            return
        render.message(f"submitted: job {printable(job['job_id'])}")
        raise typer.Exit(_until_the_end(known, job["job_id"], follow=follow, as_json=as_json))


@remote_commands.command("status")
def status(
    job: JobArgument, retry: RetryOption = False, server: ServerUrlOption = None, as_json: JsonOption = False
) -> None:
    """Say what has become of a job so far.

    \b
    Example:
      tinksched remote status JOB
    """
    with _open(server, retry=retry) as known:
        found = known.status(job)
    if as_json:
        _print_json("job", found)
        return
    for name in _STATUS:
        if found.get(name) is not None:
            print(f"{name.replace('_', ' '):<15} {printable(str(found[name]))}")


@remote_commands.command("results")
def results(
    job: JobArgument, retry: RetryOption = False, server: ServerUrlOption = None, as_json: JsonOption = False
) -> None:
    """Print the results of a job that has ended. Exit code 0 if it completed, 1 if not, 3 if it has not ended.

    \b
    Example:
      tinksched remote results JOB
    """
    with _open(server, retry=retry) as known:
        raise typer.Exit(_print_results(known, job, as_json=as_json))


@remote_commands.command("logs")
def logs(
    job: JobArgument, timeout: TimeoutOption = None, server: ServerUrlOption = None, as_json: JsonOption = False
) -> None:
    """Print what a job prints, as it does, until it ends. A connection that breaks is made again.

    Its standard output goes to standard output, and its errors to standard error. Exit code 0 if it completed, 1 if
    not.

    \b
    Example:
      tinksched remote logs JOB
    """
    with _open(server, timeout=timeout) as known:
        raise typer.Exit(_until_the_end(known, job, follow=True, as_json=as_json))


@remote_commands.command("cancel")
def cancel(
    job: JobArgument, retry: RetryOption = False, server: ServerUrlOption = None, as_json: JsonOption = False
) -> None:
    """End a job, whether it waits or runs. Exit code 3 if it has ended already.

    \b
    Example:
      tinksched remote cancel JOB
    """
    with _open(server, retry=retry) as known:
        found = known.cancel(job)
    if as_json:
        _print_json("job", {"job_id": job, **found})
    else:
        print(f"cancelled: {job}")


@remote_commands.command("jobs")
def jobs(
    status: Annotated[str | None, typer.Option("--status", help="Only those: pending, running, completed …")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="For an admin: only this user's.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.")] = 50,
    retry: RetryOption = False,
    server: ServerUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List your jobs, or as an admin everybody's; the newest first.

    \b
    Example:
      tinksched remote jobs --status running
    """
    with _open(server, retry=retry) as known:
        found = known.jobs(user_id=user, status=status, limit=limit)
    if as_json:
        _print_json("jobs", found)
        return
    names = ("job_id", "user_id", "status", "competition_id", "project_id", "node_id", "created_at", "exit_code")
    rows = [[(_cell(name, job.get(name)), "") for name in names] for job in found]
    columns = tuple(name.removesuffix("_id").replace("_", " ").replace("created at", "submitted") for name in names)
    for line in lines([Table(columns, rows)]) if rows else ():
        print(line)


def _open(server: str | None, *, retry: bool = False, timeout: str | None = None) -> Remote:
    """A connection to the server that is meant. Raises UsageError: which one, or as whom, is not said."""
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise UsageError("remote needs httpx", hint="pip install httpx, or 'tinksched[server]'") from None
    from ..operations import remote

    seconds = None if timeout is None else times.span(timeout, "--timeout")
    return remote.Remote(remote.server_url(server), remote.token(), render.message, retry=retry, seconds=seconds)


def _config(file: Path | None, fields: Mapping[str, str | None]) -> bytes:
    """The config of a submission, as it is sent. Raises UsageError: it can't be read, or something is missing."""
    given = [f"--{name}" for name, value in fields.items() if value is not None]
    if file is not None:
        if given:
            raise UsageError(f"--config has all of it: leave out {', '.join(given)}")
        return _read(file)
    missing = [f"--{name}" for name, value in fields.items() if value is None]
    if missing:
        raise UsageError(f"submit needs --config FILE, or {', '.join(missing)}" + " as well" * bool(given))
    seconds = math.ceil(times.span(str(fields["expected-time"]), "--expected-time"))
    config = {f"{name}_id": fields[name] for name in ("competition", "project", "user")}
    return json.dumps({**config, "expected_time": seconds}).encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}") from None


def _until_the_end(known: Remote, job_id: str, *, follow: bool, as_json: bool) -> int:
    """Wait for the end of a job; print what it prints meanwhile, or its results. Returns the exit code."""
    final: Mapping[str, Any] = {}
    try:
        for event in known.follow(job_id):
            if event.kind == "end":
                final = _end(event.text)
            elif follow and not as_json:
                _write(event.text, is_error=event.kind == "stderr")
            if follow and as_json:
                record = final if event.kind == "end" else {"text": event.text}
                print(json.dumps({"version": VERSION, "event": event.kind, **record}), flush=True)
    except (KeyboardInterrupt, TimedOut):
        render.message(f"the job goes on: tinksched remote logs {job_id}, tinksched remote cancel {job_id}")
        raise
    known.retry = True  # the job is over: its results are waited for
    code = 0 if follow else _print_results(known, job_id, as_json=as_json)
    if follow and not as_json:
        _say_end(job_id, final)
    return code or int(final.get("status") != "completed")


def _print_results(known: Remote, job_id: str, *, as_json: bool) -> int:
    """Print what a job left. Returns the exit code. Raises NothingToActOn: it has not ended."""
    found = known.results(job_id)
    if found["status"] in ("pending", "running"):
        raise NothingToActOn(f"job {job_id} is {found['status']}", hint=f"tinksched remote logs {job_id} follows it")
    if as_json:
        _print_json("job", found)
    else:
        _write(str(found.get("stdout") or ""))
        _write(str(found.get("stderr") or ""), is_error=True)
        _say_end(job_id, found)
    return int(found["status"] != "completed")


def _say_end(job_id: str, found: Mapping[str, Any]) -> None:
    code, reason = found.get("exit_code"), found.get("reason")
    more = f" (exit code {code})" if code is not None else ""
    why = f": {reason}" if reason else ""
    render.message(printable(f"job {job_id} {found.get('status', 'ended')}{more}{why}"))


def _end(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(text: str, *, is_error: bool = False) -> None:
    """Print what a job printed; on a terminal without what would take that over, but with its colours."""
    stream = sys.stderr if is_error else sys.stdout
    if stream.isatty():
        text = _UNSAFE.sub(lambda found: found[0] if len(found[0]) > 1 else "?", text)
    stream.flush()
    stream.buffer.write(text.encode(errors="replace"))
    stream.buffer.flush()


def _print_json(name: str, found: object) -> None:
    print(json.dumps({"version": VERSION, name: found}, indent=2, ensure_ascii=False))


def _cell(name: str, value: object) -> str:
    text = "" if value is None else printable(str(value))
    return text[:19].replace("T", " ") if name == "created_at" else text
