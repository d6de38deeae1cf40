"""What somebody does with the page, in a real browser, against made-up data."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from playwright.sync_api import expect

from .fake_feed import KEY, STATIC, FakeFeed
from .scenes import Json, job, scene
from .watched import Watched

Opened = Callable[..., Watched]
ROWS = ".rows .row"


def count_of(feed: FakeFeed, status: str) -> int:
    return int(feed.scene["counts"][status])


def failed(feed: FakeFeed) -> Json:
    """A job that failed, and may be retried."""
    return next(each for each in feed.scene["jobs"] if each["status"] == "failed" and each["kind"] == "job")


def test_one_signs_in_with_a_key_and_out_again(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard", key=None).page
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("API Key").fill(KEY)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".gpu")).to_have_count(8)
    assert page.evaluate("localStorage.getItem('opentinker_api_key')") == KEY

    page.get_by_role("button", name="Settings").click()
    page.get_by_label("API Key").fill("")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.evaluate("localStorage.getItem('opentinker_api_key')") is None
    expect(page.locator(".gpu").first).to_be_hidden()


def test_a_key_that_has_expired_says_what_to_do(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard", key="otk_" + "f" * 32).page
    expect(page.locator("#welcome").get_by_role("alert")).to_contain_text("API key expired")
    expect(page.locator("#welcome")).to_contain_text("tinksched register")
    expect(page.get_by_label("API Key")).to_be_focused()


def test_a_key_that_expires_while_one_looks_leaves_nothing_on_the_screen(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard").page
    expect(page.locator(".gpu")).to_have_count(8)
    feed.keys.clear()
    feed.keys.add("another")
    feed.say("bye", {"detail": "API key expired"})
    expect(page.locator("#welcome")).to_contain_text("API key expired")
    expect(page.locator("#scene")).to_be_hidden()


def test_the_scene_shows_gpus_queue_timeline_and_limits(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard").page
    expect(page.locator(".gpu")).to_have_count(8)
    expect(page.locator(".slot.is-foreign")).to_have_count(2)
    expect(page.locator(".slot.is-taken")).to_contain_text("another user")
    expect(page.locator(".gpu.is-free")).to_have_count(1)
    expect(page.locator(".queue li")).to_have_count(count_of(feed, "queued"))
    expect(page.locator(".queue li").first).to_contain_text("every slot that it may use is taken")
    expect(page.locator(".queue li").first).to_contain_text("starts about")
    expect(page.get_by_role("img", name="GPU 0: used")).to_be_visible()
    expect(page.locator("#timeline .idle").first).to_contain_text("idle")
    expect(page.locator("#me")).to_contain_text("7 of 20")
    expect(page).to_have_title(re.compile(r"^\d+ running, \d+ queued"))


def test_a_page_that_was_here_before_asks_for_all_it_needs_at_once(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard").page
    expect(page.locator(".gpu")).to_have_count(8)
    feed.seen.clear()
    page.reload()
    expect(page.locator("#connection")).to_have_text("Live")
    for path in ("/session", "/events"):
        assert len([line for line in feed.seen if path in line]) == 1
    feed.change(title="events are heard")
    expect(page.locator("#title")).to_have_text("events are heard")
    page.get_by_role("button", name="Refresh").click()
    feed.change(title="and heard again")
    expect(page.locator("#title")).to_have_text("and heard again")


def test_a_card_and_a_search_filter_and_the_url_keeps_them(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard").page
    page.get_by_role("button", name="Failed").click()
    expect(page.locator(ROWS)).to_have_count(count_of(feed, "failed"))
    page.get_by_role("searchbox").fill("user:alice gpu:3")
    wanted = [
        one for one in feed.scene["jobs"] if one["status"] == "failed" and one["user"] == "alice" and 3 in one["gpus"]
    ]
    expect(page.locator(ROWS)).to_have_count(len(wanted))
    assert "status=failed" in page.url and "alice" in page.url
    page.reload()
    expect(page.get_by_role("searchbox")).to_have_value("user:alice gpu:3")
    expect(page.get_by_role("button", name="Failed")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(ROWS)).to_have_count(len(wanted))
    page.get_by_role("searchbox").press("Escape")
    expect(page.locator("#jobs-note")).to_be_empty()


def test_the_search_finds_a_job_by_all_that_names_it(feed: FakeFeed, opened: Opened) -> None:
    feed.scene["jobs"][5].update(
        id="job_sought", name="sought-name", user="zoe", port=45678, url="http://127.0.0.1:45678/x"
    )
    page = opened(f"{feed.url}/dashboard").page
    for text in ("ob_sought", "sought-na", "ZOE", "45678", "127.0.0.1:45678/x", "port:45678", "user:zoe sought"):
        page.get_by_role("searchbox").fill(text)
        expect(page.locator(ROWS)).to_have_count(1)
        expect(page.locator(ROWS)).to_contain_text("sought-name")
        page.get_by_role("searchbox").fill("nothing is like this")
        expect(page.locator("#jobs .empty")).to_be_visible()


def test_a_change_is_shown_and_told(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard").page
    expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
    first = next(one for one in feed.scene["jobs"] if one["status"] == "queued")
    feed.change(
        jobs=[{**first, "status": "running", "gpus": [6], "place": None, "started_at": time.time()}],
        counts={**feed.scene["counts"], "queued": 8, "running": 7},
    )
    expect(page.get_by_role("button", name="Running")).to_contain_text("7")
    expect(page.locator(ROWS).filter(has_text=first["id"])).to_contain_text("Running")
    expect(page.locator("#news")).to_have_text(f"{first['name']}: running")
    feed.change(jobs=[job("job_new", "queued", name="brand-new", place=1, created_at=time.time())], gone=[first["id"]])
    expect(page.locator(ROWS).filter(has_text="brand-new")).to_have_count(1)
    expect(page.locator(ROWS).filter(has_text=first["id"])).to_have_count(0)


def test_new_numbers_wait_for_the_next_tick_while_nobody_is_there(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard", clock=True).page
    expect(page.locator(".gpu")).to_have_count(8)
    gpus = [{**gpu, "utilization": 12} for gpu in feed.scene["gpus"]]
    feed.change(gpus=gpus)
    expect(page.locator(".gpu").first).to_contain_text("12 %")
    page.clock.fast_forward(31_000)
    feed.change(gpus=[{**gpu, "utilization": 34} for gpu in gpus])
    feed.change(title="a sign that it was heard")
    expect(page.locator("#title")).to_have_text("a sign that it was heard")
    expect(page.locator(".gpu").first).to_contain_text("12 %")
    feed.change(gpus=[{**gpu, "utilization": 56, "foreign": []} for gpu in gpus])
    expect(page.locator(".gpu").first).to_contain_text("56 %")
    feed.change(gpus=[{**gpu, "utilization": 78, "foreign": []} for gpu in gpus])
    page.clock.fast_forward(30_000)
    expect(page.locator(".gpu").first).to_contain_text("78 %")


def test_a_run_that_ends_is_drawn_by_its_outcome(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard#span=6").page
    run = next(one for one in feed.scene["timeline"] if one["to"] is None and one["job"])
    expect(page.locator(".bar.is-running").filter(has_text=run["name"]).first).to_be_attached()
    feed.change(runs=[{**run, "to": time.time(), "outcome": "failed"}])
    expect(page.locator(".bar.is-failed").filter(has_text=run["name"]).first).to_be_attached()


def test_a_log_is_followed_and_searched(feed: FakeFeed, opened: Opened) -> None:
    one = feed.scene["jobs"][0]
    feed.print(one["id"], "".join(f"line {number}\n" for number in range(500)))
    page = opened(f"{feed.url}/dashboard").page
    page.locator(ROWS).filter(has_text=one["id"]).get_by_role("link").first.click()
    log = page.get_by_role("log")
    expect(log).to_contain_text("line 499")
    feed.print(one["id"], "\x1b[31mthe needle\x1b[0m and more\n", "stderr")
    expect(log.locator(".from-stderr")).to_have_text("the needle and more\n")
    at_end = "node => node.scrollHeight - node.scrollTop - node.clientHeight < 30"
    assert log.evaluate(at_end)
    log.evaluate("node => { node.scrollTop = 0 }")
    expect(page.get_by_role("button", name="Follow")).to_have_attribute("aria-pressed", "false")
    feed.print(one["id"], "after\n")
    expect(log).to_contain_text("after")
    assert log.evaluate("node => node.scrollTop") == 0
    page.keyboard.press("f")
    assert log.evaluate(at_end)
    page.keyboard.press("/")
    page.keyboard.type("line 49")
    expect(page.locator("#job")).to_contain_text("1 of 11")
    page.keyboard.press("Enter")
    expect(page.locator("#job")).to_contain_text("2 of 11")
    assert page.evaluate("CSS.highlights.get('found').size") == 11
    feed.print(one["id"], '{"status": "completed"}', "end")
    expect(page.locator(".log-state")).to_have_text("Ended")


def test_a_job_shows_its_runs_config_and_metrics(feed: FakeFeed, opened: Opened) -> None:
    one = failed(feed)
    page = opened(f"{feed.url}/dashboard#job={one['id']}").page
    expect(page.get_by_role("dialog")).to_contain_text(one["error"])
    expect(page.get_by_role("dialog")).to_contain_text("make the batch smaller")
    page.get_by_role("tab", name="Config").click()
    expect(page.get_by_label("Command")).to_have_text("python train.py --config configs/run.yaml --note 'two words'")
    page.get_by_role("tab", name="Config").press("ArrowRight")
    expect(page.get_by_role("tab", name="Metrics")).to_be_focused()
    expect(page.locator("#job figure")).to_have_count(3)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert "job=" not in page.url


def test_cancel_asks_first(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard").page
    one = feed.scene["jobs"][0]
    page.get_by_role("button", name=f"cancel {one['name']}").first.click()
    expect(page.get_by_role("dialog")).to_contain_text(one["name"])
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert feed.posted == []
    page.get_by_role("button", name=f"cancel {one['name']}").first.click()
    page.get_by_role("button", name="Cancel job").click()
    expect(page.locator("#toasts")).to_contain_text("cancel is on its way")
    assert feed.posted == [("cancel", one["id"])]


def test_retry_from_a_jobs_page(feed: FakeFeed, opened: Opened) -> None:
    one = failed(feed)
    page = opened(f"{feed.url}/dashboard#job={one['id']}").page
    page.locator("#job").get_by_role("button", name="Retry").click()
    page.locator("#confirm").get_by_role("button", name="Retry").click()
    expect(page.locator("#toasts")).to_contain_text("retry is on its way")
    assert feed.posted == [("retry", one["id"])]


def test_a_page_that_may_not_has_no_such_buttons(feed: FakeFeed, opened: Opened) -> None:
    feed.session = {"mode": "workspace", "auth": False, "may": {"cancel": False, "retry": False}}
    page = opened(f"{feed.url}/dashboard").page
    expect(page.locator(ROWS).first).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("^(cancel|retry)"))).to_have_count(0)


def test_the_page_survives_a_restart_of_the_server(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard").page
    expect(page.locator(".gpu")).to_have_count(8)
    feed.stop()
    expect(page.locator("#banner")).to_contain_text("Away since")
    expect(page.locator(".gpu")).to_have_count(8)
    feed.scene["jobs"][0]["name"] = "after-the-restart"
    feed.start()
    expect(page.locator(ROWS).filter(has_text="after-the-restart")).to_have_count(1)
    expect(page.locator("#banner")).to_be_empty()


def test_a_page_that_is_older_than_the_server_fetches_the_new_one(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard").page
    expect(page.locator(".gpu")).to_have_count(8)
    assert page.evaluate("performance.getEntriesByType('navigation')[0].type") == "navigate"
    feed.stop()
    expect(page.locator("#banner")).to_contain_text("Away since")
    feed.session = {"version": "another"}
    with page.expect_navigation():
        feed.start()
    expect(page.locator(".gpu")).to_have_count(8)


def test_where_no_events_come_through_it_polls(feed: FakeFeed, opened: Opened) -> None:
    feed.streams = False
    page = opened(f"{feed.url}/dashboard").page
    expect(page.locator("#connection")).to_have_text("Every 5 s")
    expect(page.locator(".gpu")).to_have_count(8)


def test_five_thousand_jobs_stay_fluid(opened: Opened) -> None:
    with FakeFeed(scene(time.time(), 5000)) as feed:
        page = opened(f"{feed.url}/dashboard").page
        expect(page.get_by_role("table", name="Jobs")).to_have_attribute("aria-rowcount", "5001")
        assert page.locator("*").count() < 3000
        assert not any("/jobs?" in line for line in feed.seen)
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(page.locator('[aria-rowindex="5001"]')).to_contain_text(feed.scene["jobs"][-1]["id"])
        assert page.locator(ROWS).count() < 80
        page.get_by_role("searchbox").fill(feed.scene["jobs"][4321]["id"])
        expect(page.locator(ROWS)).to_have_count(1)


def test_the_keyboard_is_enough(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard").page
    expect(page.locator(ROWS).first).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Keyboard")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("sft")
    page.keyboard.press("Enter")
    expect(page.locator('.row[aria-selected="true"] a').first).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(page.locator('.row[aria-selected="true"]')).to_have_attribute("aria-rowindex", "3")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator('.row[aria-selected="true"] a').first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("searchbox")).to_have_value("")


def test_users_and_nodes_are_for_admins(feed: FakeFeed, opened: Opened) -> None:
    feed.users = [
        {
            "user": "bao",
            "is_admin": False,
            "created_at": time.time() - 9e5,
            "active": 3,
            "total": 41,
            "gpu_hours": 12.5,
            "last_seen": time.time() - 70,
        }
    ]
    page = opened(f"{feed.url}/dashboard").page
    page.get_by_role("link", name="Users").click()
    expect(page.locator("#people")).to_contain_text("12.5")
    page.get_by_role("link", name="Nodes").click()
    expect(page.locator("#people")).to_contain_text("gpu-box-1")
    feed.session = {"is_admin": False}
    page.goto(f"{feed.url}/dashboard")
    page.reload()
    expect(page.locator(".gpu")).to_have_count(8)
    expect(page.get_by_role("link", name="Users")).to_have_count(0)


def test_a_page_served_elsewhere_speaks_with_the_server_that_settings_name(feed: FakeFeed, opened: Opened) -> None:
    with FakeFeed(scene(time.time()), keys=()) as home:
        home.session = {"mode": "page", "server": home.url, "auth": False}
        page = opened(f"{home.url}/dashboard", key="otk_for_home").page
        page.get_by_role("button", name="Settings").click()
        expect(page.get_by_label("Server")).to_have_value(home.url)
        page.get_by_label("Server").fill("javascript:alert(1)")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_label("Server")).to_be_visible()
        page.get_by_label("Server").fill(f"{home.url}/elsewhere")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("#connection")).not_to_have_text("Live")
        assert page.evaluate("localStorage.getItem('opentinker_api_key')") is None


def test_nothing_is_wider_than_the_screen(feed: FakeFeed, opened: Opened) -> None:
    page = opened(f"{feed.url}/dashboard").page
    too_wide = "node => node.scrollWidth - node.clientWidth"
    for width in (360, 768, 1100, 3840):
        page.set_viewport_size({"width": width, "height": 800})
        expect(page.locator(ROWS).first).to_be_visible()
        assert page.locator("html").evaluate(too_wide) == 0, width
        page.locator(ROWS).first.get_by_role("link").first.click()
        expect(page.get_by_role("tab", name="Log")).to_be_visible()
        assert page.locator("#job").evaluate(too_wide) == 0, width
        page.keyboard.press("Escape")


def test_the_page_is_small_and_the_key_is_nowhere_but_in_a_header(feed: FakeFeed, opened: Opened) -> None:
    watched = opened(f"{feed.url}/web_dashboard.html")
    expect(watched.page.locator(".gpu")).to_have_count(8)
    files = [path for path in STATIC.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 150_000
    asked = {line.rsplit("/", 1)[1] for line in feed.seen if "/static/" in line}
    assert asked == {path.name for path in files} - {"index.html"}
    assert KEY not in watched.page.content() and not any(KEY in line for line in feed.seen)
    assert all(KEY not in request.url for request in watched.requests)
