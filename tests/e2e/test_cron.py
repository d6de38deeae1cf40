"""Callers without a terminal and without an environment: cron, scripts, other folders."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support import Bench, Lab


def call(bench: Bench, *arguments: str, cwd: str = "/") -> subprocess.CompletedProcess[str]:
    """`scheduler.sh` as cron would call it. The four variables that keep tests apart are those of the laboratory."""
    lab = bench.lab.environment
    apart = {name: lab[name] for name in ("TMUX_TMPDIR", "TINKSCHED_LEASE_DIR", "TINKSCHED_TEST_LAB", "RECORD")}
    environment = {"HOME": lab["HOME"], "PATH": "/usr/bin:/bin", **apart}
    return subprocess.run(
        [str(bench.folder / "scheduler.sh"), *arguments],
        cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def made(lab: Lab, name: str = "my ws") -> Bench:
    """A workspace that `setup-workspace` made, with a script and two configs."""
    bench = lab.workspace("other")
    folder = lab.folder / name
    bench.run("setup-workspace", str(folder), cwd=lab.folder)
    (folder / "train.sh").write_text((bench.folder / "train.sh").read_text())
    (folder / "configs" / "example.yml").unlink()
    for config in ("exp1.yml", "exp2.yml"):
        (folder / "configs" / config).write_text("seconds: 0\n")
    text = (folder / "scheduler_config.yml").read_text()
    (folder / "scheduler_config.yml").write_text(f"{text}\nscript_path: train.sh\npython_env: /bin/sh\n")
    _drop_duplicates(folder / "scheduler_config.yml")
    return Bench(lab, folder)


def _drop_duplicates(path: Path) -> None:
    """The last value of a key stays, as if the user had edited the file."""
    lines = path.read_text().splitlines()
    last = {line.split(":")[0]: number for number, line in enumerate(lines) if line[:1].isalpha()}
    kept = [line for number, line in enumerate(lines) if not line[:1].isalpha() or last[line.split(":")[0]] == number]
    path.write_text("\n".join(kept) + "\n")


def test_from_cron_it_works_and_the_second_call_adds_nothing(lab: Lab) -> None:
    bench = made(lab)
    first = call(bench, "start")
    assert first.returncode == 0, first
    bench.wait_for_states(exp1="completed", exp2="completed")
    second = call(bench, "start")
    assert second.returncode == 0 and "queued nothing new" in second.stdout and "left 2 completed" in second.stdout
    assert bench.starts() == {"exp1": 1, "exp2": 1}
    (bench.folder / "configs" / "exp3.yml").write_text("seconds: 0\n")
    assert "queued 1: exp3" in call(bench, "start").stdout
    bench.wait_for_states(exp3="completed")


def test_the_wrapper_passes_lists_and_exit_codes_on(lab: Lab) -> None:
    bench = made(lab)
    done = call(bench, "start", "exp2.yml,exp1.yml", "0")
    assert done.returncode == 0, done
    bench.wait_for_states(exp1="completed", exp2="completed")
    assert bench.tasks()["exp2"]["gpus"] == [0]
    assert call(bench, "start", "nothing.yml").returncode == 2
    assert call(bench, "cancel", "nothing").returncode == 3


def test_setup_refuses_to_touch_what_is_there(lab: Lab) -> None:
    bench = made(lab)
    before = (bench.folder / "scheduler_config.yml").read_bytes()
    answer = bench.run("setup-workspace", str(bench.folder), code=2)
    assert "scheduler_config.yml and scheduler.sh" in answer.err and "--force" in answer.err
    bench.run("setup-workspace", str(bench.folder), "--force")
    assert (bench.folder / "scheduler_config.yml").read_bytes() == before
    assert list(bench.folder.glob("scheduler.sh.bak-*")) == [], "it was not changed"
    assert (bench.folder / ".gitignore").read_text().count(".tinksched/") == 1


def test_the_session_gets_the_environment_of_the_command_that_queued(lab: Lab) -> None:
    bench = lab.workspace(tasks={"exp1.yml": ""}, gpu_count=1, environment={"FROM_CONFIG": "it's $HOME"})
    (bench.folder / "train.sh").write_text('printf "%s|%s|%s|%s" "$MINE" "$FROM_CONFIG" "$TMUX" "$PWD"')
    lab.tmux("new-session", "-d", "-s", "other", "cat")  # a server that was started without MINE
    bench.run("start", "--wait", MINE="value\nof 'two' lines")
    text = f"value\nof 'two' lines|it's $HOME||{bench.folder}"
    bench.wait_until(lambda: bench.log("exp1").replace("\r\n", "\n") == text, "the log", 10)
