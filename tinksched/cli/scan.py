"""`tinksched scan`: what the server's code scan has found."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from .options import JsonOption
from .serve import ServerOption, open_store
from .tables import printable

scan_commands = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True)
class _Flagged:
    at: float
    user: str
    verdict: str
    job: str | None
    sha256: str | None
    findings: tuple[str, ...]


@scan_commands.callback()
def scan() -> None:
    """Show what the server's code scan has found.

    \b
    Example:
      tinksched scan list --json
    """


@scan_commands.command("list")
def list_flagged(
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="Only this user's.")] = None,
    as_json: JsonOption = False,
    config: ServerOption = None,
) -> None:
    """Show rejected code, and jobs that were accepted with a warning; the newest first.

    Of rejected code the findings are kept and the SHA-256, for the last 100 of each user.

    \b
    Example:
      tinksched scan list --user alice
    """
    from ..server.tables import Tables

    with open_store(config) as store:
        known = Tables(store.path)
        flagged = [
            _Flagged(job.created_at, job.user, "accepted", job.id, None, job.warnings) for job in known.flagged(user)
        ]
        flagged += [
            _Flagged(one.at, one.user, "rejected", None, one.digest, one.findings) for one in known.rejections(user)
        ]
        known.close()
    flagged.sort(key=lambda one: -one.at)
    if as_json:
        print(json.dumps({"version": 1, "flagged": [asdict(one) for one in flagged]}, indent=2, ensure_ascii=False))
        return
    for one in flagged:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.at))
        print(f"{at}  {one.verdict}  {one.user}  {f'job {one.job}' if one.job else f'sha256 {one.sha256}'}")
        for finding in one.findings:
            print(f"    {printable(finding)}")
