"""The keys of `watch`, on a real workspace whose tasks nobody runs, through Textual's pilot."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot

from tinksched.cli import watchscreen
from tinksched.cli.watchapp import Watch, reach
from tinksched.cli.watchscreen import Line
from tinksched.core.model import TaskSpec
from tinksched.operations import live
from tinksched.operations import workspace as workspaces
from tinksched.operations.status import MOST
from tinksched.operations.workspace import Workspace
from tinksched.store import NewTask

Drive = Callable[[Watch, "Pilot[None]"], Awaitable[None]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINKSCHED_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    workspace = tmp_path / "ws"
    (workspace / "configs").mkdir(parents=True)
    (workspace / "scheduler_config.yml").write_text("task_name: T\ngpu_count: 1\nexecutor: local\n")
    return workspace


def queue(folder: Path, *names: str) -> Workspace:
    """A workspace with these tasks in its queue, and no scheduler."""
    found = workspaces.find(folder, None)
    tasks = []
    for name in names:
        config = folder / "configs" / f"{name}.yml"
        config.write_text("seconds: 0\n")
        spec = TaskSpec(("x",), str(folder), str(folder / "out" / f"{name}_completed.txt"), str(folder / "out"))
        tasks.append(NewTask(name, str(config), spec, 0))
    with found.open() as opened, opened.store.transaction("test", time.time()) as tx:
        tx.add_tasks(tasks)
    return found


def drive(
    workspace: Workspace, steps: Drive, size: tuple[int, int] = (80, 24), *, defect: bool = False
) -> Watch:  # fmt: skip
    """Run the app with the pilot. A defect fails the test, unless one is expected."""
    app = Watch(workspace)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await steps(app, pilot)

    asyncio.run(run())
    assert (app.failure is not None) is defect, app.failure
    return app


def shown(app: Watch) -> list[str]:
    """The lines on the screen."""
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


async def until(app: Watch, pilot: Pilot[None], true: Callable[[str], object]) -> str:
    """Until the screen is like that."""
    deadline = time.monotonic() + 30
    while not true(screen := "\n".join(shown(app))):
        assert time.monotonic() < deadline and app.failure is None, (screen, app.failure)
        await pilot.pause(0.02)
    return screen


def test_moving_filtering_help_and_the_log(folder: Path) -> None:
    async def steps(app: Watch, pilot: Pilot[None]) -> None:
        screen = await until(app, pilot, lambda text: "e1" in text)
        assert "no scheduler runs" in screen and "── e0: queued" in screen
        await pilot.press("down", "j", "k", "end")
        await until(app, pilot, lambda text: "── e29: queued" in text)
        await pilot.press("home", "pagedown")
        assert app.view.selected == f"e{app.view.page}"
        await pilot.press("question_mark")
        await until(app, pilot, lambda text: "asks first" in text)
        await pilot.press("x", "slash", "e", "2", "7")
        await until(app, pilot, lambda text: "/e27" in text and "· queued     e27" in text and "e28" not in text)
        await pilot.press("enter", "f")
        await until(app, pilot, lambda text: "no task is like that" in text)
        await pilot.press("escape")
        await until(app, pilot, lambda text: "e0" in text)
        await pilot.press("enter")
        await until(app, pilot, lambda text: "STATE" not in text and "esc back" in text)
        await pilot.press("escape")
        await until(app, pilot, lambda text: "STATE" in text)
        await pilot.press("q")

    app = drive(queue(folder, *(f"e{number}" for number in range(30))), steps)
    assert app.failure is None and app.return_code == 0


def test_cancel_asks_and_hold_does_not(folder: Path) -> None:
    found = queue(folder, "a", "b")

    def states() -> dict[str, str]:
        store = found.store()
        assert store is not None
        with store:
            return {task.name: (task.outcome or task.state).value for task in store.tasks()}

    async def steps(app: Watch, pilot: Pilot[None]) -> None:
        await until(app, pilot, lambda text: "── a: queued" in text)
        await pilot.press("c")
        await until(app, pilot, lambda text: "cancel a (queued: it leaves the queue)? y: yes" in text)
        await pilot.press("n")
        await until(app, pilot, lambda text: "nothing was done" in text)
        assert states() == {"a": "queued", "b": "queued"}
        await pilot.press("c", "y")
        await until(app, pilot, lambda text: "cancelled a" in text and "- cancelled  a" in text)
        assert states() == {"a": "cancelled", "b": "queued"}
        await pilot.press("c")
        await until(app, pilot, lambda text: "a is cancelled: there is nothing to cancel" in text)
        await pilot.press("home", "h")
        await until(app, pilot, lambda text: "b is held: h releases it" in text and "held by" in text)
        await pilot.press("a")
        await until(app, pilot, lambda text: "b has not run yet" in text)
        await pilot.press("r")
        await until(app, pilot, lambda text: "only finished tasks can be retried" in text)

    drive(found, steps)


def test_ten_thousand_tasks_are_fluid_and_the_filter_finds_each(folder: Path) -> None:
    found = queue(folder, *(f"task{number}" for number in range(10_000)))

    async def steps(app: Watch, pilot: Pilot[None]) -> None:
        await until(app, pilot, lambda text: f"{10_000 - MOST // 5} not listed here" in text)
        await pilot.press("slash", *"task7777")
        await until(app, pilot, lambda text: "· queued     task7777" in text)
        slowest = 0.0
        for key in ["backspace"] * 6 + ["enter"] + ["down", "pagedown", "end", "up"] * 5:
            began = time.monotonic()
            await pilot.press(key)
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 1.0, "the keys wait for nothing; a look at all tasks takes longer, in its own thread"
        await pilot.press("escape")
        await until(app, pilot, lambda text: "not listed here" in text)

    drive(found, steps)


def test_the_log_is_followed_and_harmless(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "NET_SECONDS", 3600.0)  # what is new is heard of, not looked for
    found = queue(folder, "a")
    log = folder / "a.log"

    async def steps(app: Watch, pilot: Pilot[None]) -> None:
        await until(app, pilot, lambda text: "── a: queued" in text)
        log.write_bytes(b"\x1b[31mred\x1b[0m \x1b]0;title\x07\rgone\rthe \x9bend\n50%\r")
        seen = app._live
        seen.follow(str(log))
        deadline = time.monotonic() + 30
        while seen.seen.tail.lines != ("the d", "50%") and time.monotonic() < deadline:
            await pilot.pause(0.02)
            seen.follow(str(log))  # the app itself follows that of the selected task
        assert not any("\x1b" in line for line in seen.seen.tail.lines)

    drive(found, steps)


def test_a_workspace_that_is_deleted_and_comes_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "NET_SECONDS", 0.2)
    found = queue(folder, "a")

    async def steps(app: Watch, pilot: Pilot[None]) -> None:
        await until(app, pilot, lambda text: "── a: queued" in text)
        folder.rename(folder.with_name("elsewhere"))
        await until(app, pilot, lambda text: "is gone; this is what was seen last" in text and "── a: queued" in text)
        folder.with_name("elsewhere").rename(folder)
        await until(app, pilot, lambda text: "is gone" not in text)
        shutil.rmtree(folder)
        await until(app, pilot, lambda text: "is gone" in text)
        await pilot.press("c", "y")
        await pilot.press("q")

    drive(found, steps, size=(200, 24))


def test_a_config_that_is_edited_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "NET_SECONDS", 0.2)
    found = queue(folder, "a")

    async def steps(app: Watch, pilot: Pilot[None]) -> None:
        await until(app, pilot, lambda text: "0/2" in text)
        (folder / "scheduler_config.yml").write_text(
            "task_name: T\ngpu_count: 1\nexecutor: local\nmax_jobs_per_gpu: 3\n"
        )
        await until(app, pilot, lambda text: "0/3" in text)
        (folder / "scheduler_config.yml").write_text("task_name: T\nnonsense: 1\n")
        await until(app, pilot, lambda text: "nonsense" in text and "0/3" in text)

    drive(found, steps, size=(200, 24))


def test_a_defect_ends_it_and_is_kept_for_the_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(app: Watch, pilot: Pilot[None]) -> None:
        await until(app, pilot, lambda text: "── a: queued" in text)
        monkeypatch.setattr(watchscreen, "draw", lambda *_, **__: 1 / 0)
        await pilot.press("down")
        await pilot.pause()

    app = drive(queue(folder, "a"), steps, defect=True)
    assert isinstance(app.failure, ZeroDivisionError)


def test_a_defect_in_the_thread_that_looks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(app: Watch, pilot: Pilot[None]) -> None:
        deadline = time.monotonic() + 30
        while app.failure is None and time.monotonic() < deadline:
            await pilot.pause(0.02)

    monkeypatch.setattr(live, "status_of", lambda *_: 1 / 0)
    app = drive(queue(folder, "a"), steps, defect=True)
    assert isinstance(app.failure, ZeroDivisionError)


CELLS = st.lists(st.tuples(st.text("ab█名 ", max_size=4), st.sampled_from(["", "bold"])), max_size=4)


@given(CELLS, CELLS)
def test_what_is_drawn_again_reaches_to_the_last_change(old: Line, new: Line) -> None:
    flat = [[(char, style) for text, style in line for char in text] for line in (old, new)]
    columns = reach(old, new, 80)
    if columns == 80:
        assert len(flat[0]) != len(flat[1]) or any("名" in text for text, _ in (*old, *new))
    else:
        assert flat[0][columns:] == flat[1][columns:]
        assert columns == 0 or flat[0][columns - 1] != flat[1][columns - 1]


def test_only_what_changed_is_drawn_again(folder: Path) -> None:
    async def steps(app: Watch, pilot: Pilot[None]) -> None:
        await until(app, pilot, lambda text: "── e0: queued" in text)
        drawn: list[int] = []
        before = app._lines.render_line
        app._lines.render_line = lambda y: drawn.append(y) or before(y)  # type: ignore[func-returns-value, method-assign, assignment]
        app._draw()
        await pilot.pause(0.1)
        assert drawn == [], "nothing changed"
        await pilot.press("down")
        await pilot.pause(0.1)
        rows = [number for number, line in enumerate(shown(app)) if "queued" in line]
        assert 0 < len(set(drawn)) <= 5 and set(drawn) & set(rows)

    drive(queue(folder, *(f"e{number}" for number in range(10))), steps)
