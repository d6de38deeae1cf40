"""What the desk does when things go wrong around it. The rest is tested with real servers."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tinksched.errors import TinkschedError
from tinksched.server.desk import Desk
from tinksched.server.folders import NEW, Folders

SECONDS = 10.0


class Bare(Desk):
    """A desk whose engine answers when the test wants it to."""

    def __init__(self, folder: Path) -> None:
        self.closing = False
        self.settings: Any = SimpleNamespace(min_free_disk=0, active_jobs=1)
        self.folders = Folders(folder)
        self.folders.prepare()
        self.asked, self.answer = asyncio.Event(), Future[None]()
        self.engine: Any = SimpleNamespace(do=self._do, folder=folder)
        self.tables: Any = SimpleNamespace(job=lambda job_id: job_id, stopped=lambda: None)
        self._accepting = set()
        self._trouble = None
        self._tasks = []

    def _do(self, _: object) -> Future[None]:
        self.asked.set()
        return self.answer


@pytest.mark.parametrize("good", [True, False], ids=["accepted", "refused"])
def test_who_hangs_up_while_a_job_is_put_on_record_leaves_nothing_half_done(tmp_path: Path, good: bool) -> None:
    async def hang_up() -> None:
        desk = Bare(tmp_path)
        wanted: Any = SimpleNamespace(code="print()", user="alice")
        client = asyncio.create_task(desk.submit(wanted, "", is_exempt=False))
        await asyncio.wait_for(desk.asked.wait(), SECONDS)
        client.cancel()
        await asyncio.wait({client})
        assert not desk.answer.cancelled(), "the engine may be committing it"
        (accepting,) = desk._accepting
        if good:
            desk.answer.set_result(None)
        else:
            desk.answer.set_exception(TinkschedError("no"))
        await asyncio.wait({accepting})
        assert (accepting.exception() is None) is good

    asyncio.run(hang_up())
    left = os.listdir(tmp_path / "jobs")
    assert left == os.listdir(tmp_path / "output") and len(left) == good
    assert not any((tmp_path / "output" / job / NEW).exists() for job in left)


def test_that_jobs_are_not_followed_is_no_secret(tmp_path: Path) -> None:
    async def look() -> None:
        desk = Bare(tmp_path)
        assert desk.trouble is None
        desk._trouble = "no such column"
        assert desk.trouble == "the jobs can't be looked at: no such column"
        desk._tasks = [asyncio.create_task(asyncio.sleep(0))]
        await desk._tasks[0]
        assert desk.trouble == "the jobs are not followed any more"

    asyncio.run(look())
