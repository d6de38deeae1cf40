"""What the page is told of jobs: order, changes, and whose business what is. Pure."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tinksched.core.gpu import GpuProcess, GpuState
from tinksched.core.model import Reason, ReasonCode, Tenant
from tinksched.operations.snapshot import GpuStatus
from tinksched.server.page import views
from tinksched.server.page.book import Picture
from tinksched.server.page.cards import Card, Owned, Prospect, card_of
from tinksched.server.page.gauges import STEP, STEPS, Gauge
from tinksched.server.page.served import ServerSource
from tinksched.server.page.views import Frame, View, Viewer
from tinksched.store import Bar, Glance

ALICE, ROOT = Viewer("alice", is_admin=False), Viewer("root", is_admin=True)
FRAME = Frame("server", "t", {}, {}, {})


def glance(number: int, state: str = "queued", **more: Any) -> Glance:
    """A task; one that is done has completed."""
    outcome = "completed" if state == "done" else None
    run = {"run": None, "run_state": None, "run_outcome": None, "began_at": None, "ended_at": None, "gpus": ()}
    if state != "queued":
        ended = 90.0 + number if state == "done" else None
        run = {"run": f"run{number}", "run_state": "ended" if outcome else "running", "run_outcome": outcome,
               "began_at": 50.0 + number, "ended_at": ended, "gpus": (0,)}  # fmt: skip
    values = {"id": number, "name": f"job{number}", "state": state, "outcome": outcome, "reason": None, "priority": 0,
              "queue_number": number, "queued_at": 1.0, "changed_at": 100.0, "attempts": 1, "exit_code": 0,
              **run, **more}  # fmt: skip
    return Glance(**values)


def card(one: Glance, user: str = "alice", place: int | None = None, **owned: Any) -> Card:
    """Its card."""
    return card_of(one, Owned(one.name, "job", user, "n", 1.0, **owned), Prospect(place), "why")


def picture(*cards: Card, **more: Any) -> Picture:
    """What there is."""
    ordered = sorted(cards, key=lambda one: one.order)
    numbered = {int(one.task[3:]): one for one in cards}
    return Picture(100.0, ordered, numbered, {one.id: one for one in cards}, **more)


def test_what_runs_comes_first_then_the_queue_then_what_ended_last() -> None:
    cards = [card(glance(1, "done")), card(glance(2, "done")), card(glance(5)), card(glance(4)),
             card(glance(6, priority=3)), card(glance(7, "active"))]  # fmt: skip
    assert [one.id for one in picture(*cards).cards] == ["job7", "job6", "job4", "job5", "job2", "job1"]


@pytest.mark.parametrize(
    ("more", "status", "error"),
    [
        ({"outcome": "completed", "run_outcome": "completed"}, "completed", None),
        ({"outcome": "failed", "run_outcome": "failed"}, "failed", "why"),
        ({"outcome": "timed_out", "run_outcome": "timed_out"}, "failed", "why"),
        ({"outcome": "lost", "run_outcome": "lost"}, "failed", "why"),
        ({"outcome": "cancelled", "run_outcome": "cancelled"}, "cancelled", None),
    ],
)
def test_how_it_ended(more: dict[str, Any], status: str, error: str | None) -> None:
    found = json.loads(card(glance(1, "done", **more)).text)
    assert (found["status"], found["error"], found["exit_code"]) == (status, error, 0)


def test_one_that_was_queued_again_and_given_up_shows_no_earlier_run() -> None:
    found = json.loads(card(glance(1, "done", outcome="cancelled", run_outcome="failed")).text)
    assert found["started_at"] is found["exit_code"] is None and found["gpus"] == [] and found["ended_at"] == 100.0


def test_only_what_changed_is_sent_and_far_behind_no_places() -> None:
    view = View(ALICE, most=2)
    before = [card(glance(number), place=number) for number in range(1, 6)]
    scene = json.loads(view.begin(picture(*before), FRAME))
    assert [job["id"] for job in scene["jobs"]] == ["job1", "job2"] and scene["counts"]["queued"] == 5
    assert view.change(picture(*before), FRAME) is None
    after = [card(glance(1, "active")), *(card(glance(number), place=number - 1) for number in range(2, 6))]
    change = json.loads(view.change(picture(*after), FRAME) or "")
    assert [(job["id"], job["place"]) for job in change["jobs"]] == [("job1", None), ("job2", 1)]
    assert change["counts"]["running"] == 1 and not {"gpus", "trouble", "gone", "timeline"} & change.keys()
    change = json.loads(view.change(picture(*after[1:], card(glance(9), place=5)), FRAME) or "")
    assert [job["id"] for job in change["jobs"]] == ["job9"] and change["gone"] == ["job1"]


def test_places_alone_are_told_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr(views.time, "monotonic", lambda: now[0])
    view = View(ALICE, most=9)
    view.begin(picture(card(glance(1), place=9)), FRAME)
    assert '"place": 8' in (view.change(picture(card(glance(1), place=8)), FRAME) or "")
    last = picture(card(glance(1), place=7))
    assert view.change(last, FRAME) is None and view.is_behind
    now[0] += 1.0
    assert '"place": 7' in (view.change(last, FRAME) or "") and not view.is_behind


def test_of_others_it_is_seen_that_they_are_there_and_nothing_else() -> None:
    mine, theirs = card(glance(1, "active")), card(glance(2, "active"), user="bob", url="http://secret:1", port=4711)
    processes = (GpuProcess(7, 5, "bob", "python secret.py", run="run2"), GpuProcess(8, 6, None, "secret"),
                 GpuProcess(9, 6, "carol", "python train.py"))  # fmt: skip
    state = GpuState("GPU-x", 0, 99.0, memory_total=100, memory_used=11, processes=processes)
    tenant = Tenant("dave", "/home/dave/secret", "secret", 2, 1.0)
    bars = (Bar("run1", 1, 51.0, None, None, (0,)), Bar("run2", 2, 52.0, None, None, (0,)),
            Bar("run3", 2, 2.0, 3.0, "failed", (0,)))  # fmt: skip
    gpu = GpuStatus(0, "GPU-x", "H200", 2, (), (tenant,), state)
    there = picture(mine, theirs, bars=bars, names={"run1": "a", "run2": "b", "run3": "c"}, gpus=(gpu,),
                    gpu_seconds={"alice": 3600.0, "bob": 7200.0})  # fmt: skip
    text = views.scene(there, ALICE, FRAME, 9)
    scene = json.loads(text)
    for secret in ("bob", "secret", "job2", "run2", "run3", "4711", 'failed"}', "dave", "7200"):
        assert secret not in text, secret
    (shown,) = scene["gpus"]
    assert [one["job"] for one in shown["runs"]] == ["job1", None, None] and shown["runs"][1]["memory"] == 5
    assert [one["user"] for one in shown["foreign"]] == [None, "carol"]
    assert [(one["run"], one["outcome"]) for one in scene["timeline"]] == [
        ("run1", "running"), ("b", "running"), ("c", "other"),
    ]  # fmt: skip
    assert scene["me"]["use"] == {"active": 1, "today": 1, "gpu_hours": 1.0} and scene["nodes"][0]["running"] == 2
    assert "secret" in views.scene(there, ROOT, FRAME, 9)


def test_an_hour_of_a_gpu() -> None:
    gauge, now = Gauge(), 1000 * STEP + 5
    for at, memory, busy in ((now - STEP, 4, None), (now, 10, 50), (now, 99, 99), (now + 1, 20, 100)):
        gauge.note(GpuState("x", 0, at, memory_used=memory, utilization=busy))
    found = gauge.history(now + 2)
    assert len(found["memory"]) == len(found["utilization"]) == STEPS and found["step"] * STEPS == 3600
    assert found["memory"][-3:] == [None, 4, 15] and found["utilization"][-2:] == [None, 75]
    assert found["from"] == now - 5 - (STEPS - 1) * STEP


MINE, THEIRS = "6f1c0f3e-7d0c-4a52-9a64-0f2d1f3b8f10", "11111111-7d0c-4a52-9a64-0f2d1f3b8f10"


@pytest.mark.parametrize(
    ("code", "detail", "said"),
    [
        ("held_for", {"task": THEIRS}, "held for another job, which"),
        ("held_for", {"task": MINE}, f"held for {MINE}, which"),
        ("gpus_full", {"used": 1, "slots": 1, "others": f"; {THEIRS} has one for itself alone"}, "; another job has"),
        ("gpus_full", {"used": 1, "slots": 1, "others": "; one by dave, x of /home/dave"}, "others of this machine"),
        ("others_turn", {"user": "dave", "workspace": "/home/dave"}, "left to somebody else (not of this server)"),
        ("cancelled_by_user", {"user": "root"}, "cancelled by root"),
        ("other_process", {"who": "carol runs `x`", "gpu": 0, "pid": 7, "more": ""}, "carol runs `x` on GPU 0"),
    ],
)
def test_a_reason_names_nobody_elses_job(tmp_path: Path, code: str, detail: dict[str, Any], said: str) -> None:
    engine: Any = SimpleNamespace(folder=tmp_path)
    source = ServerSource(engine)
    source._owners.update({MINE: "alice", THEIRS: "bob"})
    owned = Owned(MINE, "job", "alice", "n", 1.0)
    found = source.said(Reason(ReasonCode(code), detail), owned)
    assert said in found and THEIRS not in found and "dave" not in found
