"""Markup in every field that a user controls: all of it is seen as text, none of it is done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from .fake_feed import FakeFeed
from .scenes import Json, job, scene
from .watched import Watched

NASTY = (
    "<img src=x onerror=\"window.canary='{0}';alert(1)\"><script>window.canary='{0}'</script>"
    "</pre></textarea><svg onload=\"canary='{0}'\">'\"`${{canary=1}}"
)


def nasty(field: str) -> str:
    return NASTY.format(field)


def hostile(now: float) -> Json:
    """A scene whose every text is markup."""
    made = scene(now)
    texts: dict[str, Any] = {"created_at": now - 60, "reason": nasty("reason")}
    bad = job(
        "job_bad",
        "failed",
        name=nasty("name"),
        user=nasty("user"),
        kind=nasty("kind"),
        url="javascript:window.canary='url'",
        error=nasty("error"),
        port=1,
        gpus=[0],
        started_at=now - 50,
        ended_at=now - 1,
        **texts,
    )
    waits = {**job('"><b onclick=canary=1>', "queued", name=nasty("queued"), user=nasty("waiting"), place=1, **texts)}
    strange = job(
        "job_strange",
        nasty("status"),
        name="constructor",
        user="__proto__",
        url=nasty("url"),
        ended_at=now - 5,
        **texts,
    )
    runs = [{"job": "job_bad", "user": nasty("runner"), "name": nasty("run"), "since": now - 50, "memory": 2**30}]
    gpu = {**made["gpus"][0], "uuid": nasty("uuid"), "name": nasty("gpu"), "runs": runs,
           "foreign": [{"user": nasty("foreign user"), "command": nasty("command"), "memory": 2**30}]}  # fmt: skip
    run = {
        "run": nasty("run id"),
        "job": "job_bad",
        "name": nasty("bar"),
        "gpus": [0],
        "from": now - 9000,
        "to": now,
        "outcome": "failed",
        "reason": nasty("run reason"),
    }
    return {
        **made,
        "title": nasty("title"),
        "trouble": nasty("trouble"),
        "gpus": [gpu],
        "jobs": [waits, bad, strange],
        "timeline": [run],
        "me": {"user": nasty("me"), "is_admin": True, "limits": {nasty("limit"): 3}, "use": {nasty("use"): 1}},
        "nodes": [{"name": nasty("node"), "state": nasty("state"), "gpus": 1, "running": 1, "queued": 1}],
    }


@pytest.mark.parametrize("is_policed", [True, False], ids=["with the policy", "with text alone"])
def test_no_markup_is_ever_done(is_policed: bool, opened: Callable[..., Watched]) -> None:
    now = time.time()
    with FakeFeed(hostile(now)) as feed:
        feed.users = [
            {
                "user": nasty("users"),
                "is_admin": False,
                "created_at": now,
                "active": 1,
                "total": 1,
                "gpu_hours": 1,
                "last_seen": now,
            }
        ]
        feed.more = {
            "config": nasty("config"),
            "command": [nasty("command")],
            "diagnosis": nasty("diagnosis"),
            "usage": {nasty("usage"): nasty("value")},
            "metrics": {"columns": ["step", nasty("column")], "rows": [[1, nasty("cell")], [2, 3.5]]},
        }
        feed.print("job_bad", nasty("log") + "\n")
        feed.print("job_bad", nasty("stderr") + "\n", "stderr")
        page = opened(f"{feed.url}/dashboard", bypass_csp=not is_policed).page
        for field in (
            "name",
            "user",
            "reason",
            "error",
            "queued",
            "gpu",
            "command",
            "foreign user",
            "title",
            "trouble",
            "me",
            "limit",
            "use",
        ):
            expect(page.get_by_text(nasty(field)).first).to_be_attached()
        expect(page.locator('a[href^="javascript"]')).to_have_count(0)
        page.goto(f"{feed.url}/dashboard#job=job_bad")
        expect(page.get_by_role("log")).to_contain_text(nasty("log"))
        expect(page.get_by_role("log")).to_contain_text(nasty("stderr"))
        for tab, field in (("Config", "config"), ("Metrics", "cell"), ("Runs", "run reason")):
            page.get_by_role("tab", name=tab).click()
            expect(page.get_by_role("tabpanel")).to_contain_text(nasty(field))
        page.locator("#job").get_by_role("button", name="Retry").click()
        expect(page.locator("#confirm")).to_contain_text(nasty("name"))
        page.locator("#confirm").get_by_role("button", name="Retry").click()
        feed.change(jobs=[{**feed.scene["jobs"][1], "status": "completed"}])
        expect(page.locator("#news")).to_contain_text(nasty("name"))
        for view, field in (("users", "users"), ("nodes", "node")):
            page.goto(f"{feed.url}/dashboard#view={view}&q={json.dumps(nasty('q'))}&span=<b>&status=<b>")
            expect(page.locator("#people")).to_contain_text(nasty(field))
        page.goto(f"{feed.url}/dashboard#job=..%2F..%2Fusers%3Fx%3D<img src=x onerror=canary=1>")
        expect(page.locator("#job")).to_contain_text("There is no such job")
        assert page.evaluate("window.canary") is None
        assert page.locator("img:not([src$='icon.svg']), #main script, b[onclick]").count() == 0


def test_a_refusal_is_text_as_well(opened: Callable[..., Watched]) -> None:
    with FakeFeed(scene(time.time())) as feed:
        feed.refusal = nasty("detail")
        page = opened(f"{feed.url}/dashboard", key="otk_bad").page
        expect(page.locator("#welcome").get_by_role("alert")).to_contain_text(nasty("detail"))
        assert page.evaluate("window.canary") is None
