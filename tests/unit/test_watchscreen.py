"""What `watch` has on its screen: pure texts, at any size of terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinksched.cli.tables import tally, width_of
from tinksched.cli.watchscreen import LEAST_HEIGHT, LEAST_WIDTH, Line, View, cut, draw, wrapped
from tinksched.core.gpu import GpuProcess, GpuState
from tinksched.core.model import Hold, Reason, ReasonCode, Tenant
from tinksched.core.usage import Usage
from tinksched.operations.live import Meter, Seen, Tail
from tinksched.operations.snapshot import GpuStatus, Status, TaskStatus

GIB = 2**30
NOW = 1_800_000_000.0


def task(name: str, state: str = "queued", **more: object) -> TaskStatus:
    started = None if state in ("queued", "new") else NOW - 100
    values: dict[str, object] = {
        "reason": None, "config": f"/w/configs/{name}.yml", "config_changed": False, "gpus": (), "wanted_gpus": 1,
        "priority": 0, "attempt": 1, "exit_code": None, "queued_at": NOW - 200, "started_at": started,
        "ended_at": None if started is None or state == "running" else NOW - 10, "session": None,
        "log": None if started is None else f"/w/logs/{name}.log", "pid": None,
    }  # fmt: skip
    return TaskStatus(name=name, state=state, **{**values, **more})  # type: ignore[arg-type]


def gpu(index: int, *, slots: int = 2, state: GpuState | None = None, **more: object) -> GpuStatus:
    values: dict[str, object] = {"name": None, "tasks": (), "others": ()}
    return GpuStatus(index=index, device=f"GPU-{index}", slots=slots, state=state, **{**values, **more})  # type: ignore[arg-type]


def state(index: int, **more: object) -> GpuState:
    values: dict[str, object] = {"memory_total": 80 * GIB, "memory_used": 20 * GIB, "utilization": 50, "processes": ()}
    return GpuState(f"GPU-{index}", index, NOW, **{**values, **more})  # type: ignore[arg-type]


def status(*tasks: TaskStatus, gpus: tuple[GpuStatus, ...] = (), **more: object) -> Status:
    counts: dict[str, int] = {}
    for one in tasks:
        counts[one.state] = counts.get(one.state, 0) + 1
    values: dict[str, object] = {
        "workspace": "/w", "task_name": "demo", "at": NOW, "scheduler_pid": 7, "stopped": None, "gpus": gpus,
        "gpu_note": None, "tasks": tasks, "counts": counts, "max_jobs_per_gpu": 2, "log_dir": "/w/logs",
        "output_dir": "/w/out",
    }  # fmt: skip
    return Status(**{**values, **more})  # type: ignore[arg-type]


def text(line: Line) -> str:
    return "".join(part for part, _ in line)


def screen(seen: Seen, view: View | None = None, size: tuple[int, int] = (80, 24), *, signs: bool = True) -> list[str]:
    lines = draw(view or View(), seen, *size, NOW, signs=signs)
    assert len(lines) == size[1]
    assert all(width_of(text(line)) <= size[0] for line in lines), [text(line) for line in lines]
    return [text(line).rstrip() for line in lines]


def row_of(lines: list[str], name: str) -> str:
    return next(line for line in lines if name in line and "──" not in line and "--" not in line)


# ---------------------------------------------------------------- any size, any text

NAMES = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=30)
STATES = ["queued", "running", "starting", "completed", "failed", "lost", "timed_out", "cancelled", "new"]


@given(
    names=st.lists(NAMES, max_size=12, unique=True),
    states=st.lists(st.sampled_from(STATES), min_size=12, max_size=12),
    gpus=st.integers(0, 12),
    driver=st.booleans(),
    width=st.integers(1, 200),
    height=st.integers(1, 60),
    view=st.builds(View, wanted=st.sampled_from(["", "a", "[", "*"]), failed_only=st.booleans(), zoomed=st.booleans(),
                   back=st.integers(0, 9), helping=st.booleans(), typing=st.booleans(), question=NAMES, message=NAMES),
    log=st.lists(st.text(max_size=300), max_size=40),
    signs=st.booleans(),
)  # fmt: skip
def test_every_screen_fits_and_holds_nothing_that_a_terminal_would_obey(
    names: list[str], states: list[str], gpus: int, driver: bool, width: int, height: int, view: View,
    log: list[str], signs: bool,
) -> None:  # fmt: skip
    tasks = [task(name, one) for name, one in zip(names, states, strict=False)]
    known = tuple(gpu(index, state=state(index) if driver else None, tasks=tuple(names[:3])) for index in range(gpus))
    seen = Seen(
        status(*tasks, gpus=known, task_name="名前\x1b[31m"), "it is gone", tail=Tail("/w/logs/x", tuple(log), True)
    )
    lines = draw(view, seen, width, height, NOW, signs=signs)
    assert len(lines) == height
    for line in lines:
        assert width_of(text(line)) <= width
        assert text(line).isprintable()


def test_a_name_that_is_longer_than_its_column_is_shortened() -> None:
    seen = Seen(status(task("000000000", "queued")))
    assert any("0000000~" in line for line in screen(seen, size=(40, 8), signs=False))


def test_without_signs_all_is_ascii() -> None:
    tasks = [task(f"t{number}", one) for number, one in enumerate(STATES)]
    known = (gpu(0, state=state(0, lost=True)), gpu(1, state=state(1), tasks=("t1",)))
    seen = Seen(status(*tasks, gpus=known), meters={"GPU-1": Meter((0.0, 50.0, 100.0, None))})
    for size in ((80, 24), (60, 15), (40, 8), (200, 50)):
        assert "".join(screen(seen, size=size, signs=False)).isascii()


@pytest.mark.parametrize("size", [(39, 24), (80, 7), (10, 3)])
def test_a_terminal_that_is_too_small_is_told_so(size: tuple[int, int]) -> None:
    said = "".join(line.ljust(size[0]) for line in screen(Seen(status(task("a"))), size=size))
    assert f"has {size[0]}x{size[1]}"[: size[0]] in said or size[0] < 20
    assert screen(Seen(status(task("a"))), size=(LEAST_WIDTH, LEAST_HEIGHT))[0].startswith("demo")


# ---------------------------------------------------------------- what is where


def test_the_states_have_signs_and_words_and_stand_in_the_order_of_status() -> None:
    exit_code = Reason(ReasonCode.EXIT_CODE, {"code": 3})
    seen = Seen(
        status(
            task("done", "completed"), task("bad", "failed", reason=exit_code),
            task("next", reason=Hold("me", 1.0).reason),
            task("busy", "running", gpus=(1,), usage=Usage(gpu_memory=3 * GIB, gpu_memory_peak=4 * GIB)),
        )
    )  # fmt: skip
    lines = screen(seen)
    names = ["busy", "next", "done", "bad"]
    assert sorted(names, key=lambda name: lines.index(row_of(lines, name))) == names
    assert row_of(lines, "busy").split()[:6] == ["▶", "running", "busy", "1", "1m40s", "3"]
    assert "✘ failed" in row_of(lines, "bad") and "exit code 3" in row_of(lines, "bad")
    assert "4 tasks: 1 completed, 1 failed, 1 running, 1 queued" in lines


def test_the_selection_stays_with_its_task_and_goes_to_its_neighbour() -> None:
    view = View()
    seen = Seen(status(task("a", "running"), task("b", "running"), task("c", "running")))
    screen(seen, view)
    assert view.selected == "a"
    view.move(view.listed(seen.status), 1)
    later = Seen(status(task("x", "running"), task("a", "running"), task("b", "running"), task("c", "running")))
    lines = screen(later, view)
    assert view.selected == "b" and any(line.startswith("── b: running") for line in lines)
    screen(Seen(status(task("x", "running"), task("a", "running"), task("c", "running"))), view)
    assert view.selected == "c", "where b was"


def test_scrolling_keeps_the_selected_one_on_the_screen() -> None:
    seen = Seen(status(*[task(f"t{number:03}") for number in range(100)]))
    view = View()
    for by in (1, 50, -20, 1000, -1000):
        view.move(view.listed(seen.status), by)
        assert view.selected is not None
        assert row_of(screen(seen, view), view.selected)
    assert view.selected == "t000" and view.top == 0


def test_filters() -> None:
    seen = Seen(status(task("lr_1"), task("LR_2", "failed"), task("other", "lost")))
    for wanted, failed, names in (
        ("lr", False, ["lr_1", "LR_2"]), ("lr", True, ["LR_2"]), ("lr_?", False, ["lr_1"]),
        ("", True, ["LR_2", "other"]), ("zzz", False, []),
    ):  # fmt: skip
        view = View(wanted=wanted, failed_only=failed)
        assert [one.name for one in view.listed(seen.status)] == names
        assert ("esc shows all" in "\n".join(screen(seen, view))) is not bool(names)


def test_a_gpu_shows_slots_memory_use_and_the_last_minutes() -> None:
    busy = gpu(0, slots=3, state=state(0), tasks=("a", "b"))
    seen = Seen(status(task("a", "running"), gpus=(busy,)), meters={"GPU-0": Meter((None, 0.0, 50.0, 100.0))})
    line = screen(seen)[1]
    assert "■■□ 2/3" in line and "██░░░░░░░░   20/80 GiB" in line and "███░░░  50%" in line and line.endswith(" ▁▅█")
    newer = replace(seen, states={"GPU-0": state(0, utilization=90)})
    assert "90%" in screen(newer)[1], "a newer sample than that of the status"


def test_strangers_and_other_workspaces_are_marked_and_named() -> None:
    stranger = GpuProcess(77, 22 * GIB, "bob", "python3 finetune.py")
    shared = gpu(0, state=state(0, processes=(stranger,)), others=(Tenant("ann", "/home/ann/w", "exp9", 2, NOW),))
    lines = screen(Seen(status(task("a"), gpus=(shared,))))
    assert lines[1].endswith("!1+1")
    assert "  on GPU 0: ! python3 of bob (22 GiB), not tinksched's" in lines
    assert "  on GPU 0: + exp9 of ann" in lines
    lost = gpu(0, state=state(0, lost=True))
    assert "! lost" in screen(Seen(status(task("a"), gpus=(lost,))))[1]


def test_many_gpus_stand_beside_each_other() -> None:
    eight = tuple(gpu(index, state=state(index, utilization=10 * index)) for index in range(8))
    lines = screen(Seen(status(task("a"), gpus=eight)))
    assert [line.split()[0] for line in lines[1:5]] == ["0", "2", "4", "6"] and "70%" in lines[4]
    forty = tuple(gpu(index, state=state(index)) for index in range(40))
    assert any("more GPUs: `tinksched gpus` shows all" in line for line in screen(Seen(status(task("a"), gpus=forty))))


def test_the_log_of_the_selected_one() -> None:
    one = task("a", "running", gpus=(0,))
    words = tuple(f"line {number}" for number in range(100))
    lines = screen(Seen(status(one), tail=Tail(one.log, (*words, "x" * 100), True)))
    assert lines[-3:-1] == ["x" * 80, "x" * 20], "long lines are wrapped"
    assert "line 99" in lines and "line 80" not in lines
    view = View(zoomed=True, back=50)
    assert "line 60" not in screen(Seen(status(one), tail=Tail(one.log, words, True)), view)
    assert "line 49" in screen(Seen(status(one), tail=Tail(one.log, words, True)), view)
    assert "line 99" not in screen(Seen(status(one), tail=Tail("/w/logs/other.log", words, True)))
    assert "nothing printed so far" in screen(Seen(status(one), tail=Tail(one.log, (), True)))
    assert "it has not run, so there is no log" in screen(Seen(status(task("b"))))


def test_what_takes_longer_than_all_before_ends_nobody_knows_when() -> None:
    running = task("slow", "running", started_at=NOW - 60)
    assert "; about 10s left, ends ~" in tally(status(running, batch_ends=NOW + 10))
    for ends in (None, NOW - 5, NOW, NOW + 0.5):
        assert tally(status(running, batch_ends=ends)) == "1 task: 1 running"
        assert "ends ~" not in str(screen(Seen(status(running, batch_ends=ends)), size=(60, 24)))


def test_trouble_is_said_and_the_last_status_stays() -> None:
    lines = screen(Seen(status(task("a")), "the workspace /w is gone"))
    assert lines[1] == "! the workspace /w is gone; this is what was seen last" and row_of(lines, " a ")
    assert screen(Seen(None, "no such disk"))[0] == "no such disk"


def test_a_small_terminal_shows_tasks_and_no_log() -> None:
    seen = Seen(status(*[task(f"t{number}", "running") for number in range(30)], gpus=(gpu(0, state=state(0)),)))
    lines = screen(seen, size=(60, 15))
    assert sum("running" in line for line in lines) >= 9
    assert lines[-1].startswith("q quit  ? help  c cancel")


def test_cutting_and_wrapping_count_columns() -> None:
    assert text(cut([("名前名前", "")], 5)) == "名前…"
    assert text(cut([("名前", ""), ("x", "bold")], 5)) == "名前x"
    assert wrapped("名前名", 5) == ["名前", "名"] and wrapped("", 5) == [""]
