"""How things are started and ended: commands of one's own, conda, what runs before and after, logs, markers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import Lab


def put_program(lab: Lab, name: str, text: str) -> Path:
    """A small real program on the PATH of the laboratory."""
    folder = lab.folder / "programs"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    if str(folder) not in lab.environment["PATH"]:
        lab.environment["PATH"] = f"{folder}:{lab.environment['PATH']}"
    return path


def test_a_command_with_placeholders_and_a_free_port_for_each_run(lab: Lab) -> None:
    put_program(lab, "trainer", '#!/bin/sh\nfor word in "$@"; do echo "<$word>"; done\n')
    words = [
        "{config}",
        "{task}",
        "{gpus}",
        "{ngpus}",
        "{port}",
        "{attempt}",
        "{workspace}",
        "{output_dir}",
        "{{x}}",
        "{}",
    ]
    bench = lab.workspace(
        tasks={"a b'c.yml": "", "d.yml": ""}, command=["trainer", *words], args=["--name={task}"],
        environment={"PORT": "{port}"}, script_path="none.py",
    )  # fmt: skip
    bench.run("start", "--wait")
    log = bench.run("logs", "a b'c").out.splitlines()
    config = bench.folder / "configs" / "a b'c.yml"
    assert log[:4] == [f"<{config}>", "<a b'c>", "<0>", "<1>"]
    assert log[5:] == ["<1>", f"<{bench.folder}>", f"<{bench.folder / 'out'}>", "<{x}>", "<{}>", "<--name=a b'c>"]
    ports = {int(log[4].strip("<>")), int(bench.run("logs", "d").out.splitlines()[4].strip("<>"))}
    assert len(ports) == 2 and min(ports) > 1023


def test_a_placeholder_that_does_not_exist_and_a_command_that_is_none(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""}, command=["sh", "{confg}"])
    answer = bench.run("start", code=2)
    assert "{confg}" in answer.err and "{config}" in answer.err and "scheduler_config.yml:" in answer.err
    bench.reconfigure(command=["no-such-program", "{config}"])
    answer = bench.run("start", code=2)
    assert "'no-such-program' is no program" in answer.err and "scheduler_config.yml:" in answer.err
    assert bench.starts() == {}


def test_pre_run_and_post_run_and_a_pre_run_that_fails(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "text: the script\ncode: 4\n"})
    bench.reconfigure(pre_run="echo before {task}; test ! -e blocked", post_run=["sh", "-c", "echo after"])
    bench.run("start", "--wait", code=1)
    assert bench.run("logs", "a").out.splitlines() == ["before a", "the script", "after"]
    assert bench.tasks()["a"]["exit_code"] == 4, "what post_run returns changes nothing"
    (bench.folder / "blocked").write_text("")
    bench.run("start", "--failed", "--wait", code=1)
    task = bench.tasks()["a"]
    assert task["reason"]["code"] == "pre_run_failed"
    assert bench.starts() == {"a": 1}
    assert bench.run("logs", "a").out.splitlines() == ["before a"]


def test_names_can_not_smuggle_code_into_pre_run(lab: Lab) -> None:
    bench = lab.workspace(tasks={"$(touch pwned) `touch pwned`; touch pwned.yml": ""})
    bench.reconfigure(pre_run='echo "{task}" {task} >said', post_run="echo '{task}'")
    bench.run("start", "--wait")
    assert not list(lab.folder.rglob("pwned"))
    assert (bench.folder / "said").read_text().count("touch pwned") == 6


FAKE_CONDA = """#!/bin/sh
# A fake conda: `run -n NAME PROGRAM…` for the one environment that it has.
[ "$1" = run ] && [ "$2" = -n ] || { echo "fake conda: $*" >&2; exit 2; }
[ "$3" = good ] || { echo "EnvironmentLocationNotFound: Not a conda environment: /x/envs/$3" >&2; exit 1; }
shift 3
PATH="@ENV@/bin:$PATH" CONDA_PREFIX=@ENV@ CONDA_DEFAULT_ENV=good exec "$@"
"""


def test_a_conda_environment_is_activated_and_one_that_is_not_there_is_refused(lab: Lab) -> None:
    env = lab.folder / "envs" / "good"
    (env / "bin").mkdir(parents=True)
    (env / "bin" / "python").symlink_to("/bin/sh")
    put_program(lab, "conda", FAKE_CONDA.replace("@ENV@", str(env)))
    bench = lab.workspace(tasks={"a.yml": ""}, conda_env="good", python_env=None)
    (bench.folder / "train.sh").write_text('echo "$CONDA_DEFAULT_ENV $CONDA_PREFIX $0"; command -v python\n')
    bench.run("start", "--wait")
    assert bench.run("logs", "a").out.splitlines() == [
        f"good {env} {bench.folder / 'train.sh'}", str(env / "bin" / "python"),
    ]  # fmt: skip
    bench.reconfigure(conda_env="bad")
    answer = bench.run("start", "--rerun", code=2)
    assert "no environment 'bad'" in answer.err and "EnvironmentLocationNotFound" in answer.err


@pytest.mark.parametrize("where", ["work_dir", "python_env"])
def test_a_venv_is_found_by_itself_or_by_its_folder(lab: Lab, where: str) -> None:
    bench = lab.workspace(tasks={"a.yml": ""}, script_path="train.py")
    (bench.folder / "train.py").write_text("import sys; print(sys.prefix)")
    folder = bench.folder / (".venv" if where == "work_dir" else "my env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    bench.reconfigure(python_env=None if where == "work_dir" else "my env")
    bench.run("start", "--wait")
    assert bench.run("logs", "a").out.strip() == str(folder)


def test_interactive_gives_the_terminal_and_otherwise_input_is_empty(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""}, gpu_count=1)
    (bench.folder / "train.sh").write_text('read -r line; echo "got <$line>"\n')
    bench.run("start", "--wait")
    assert "got <>" in bench.run("logs", "a").out
    bench.reconfigure(interactive=True)
    bench.run("start", "--rerun")
    bench.wait_for_states(a="running")
    lab.tmux("send-keys", "-t", "=T_a_gpu0:", "typed", "Enter")
    bench.wait_for_states(a="completed")
    assert "got <typed>" in bench.run("logs", "a").out


def test_a_script_that_writes_no_marker_gets_one(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "marker: no", "b.yml": "marker: no\ncode: 1"})
    bench.run("start", "--wait", code=1)
    text = (bench.folder / "out" / "a_completed.txt").read_text()
    assert "task: a\n" in text and "exit_code: 0\n" in text
    assert not (bench.folder / "out" / "b_completed.txt").exists()


def test_a_marker_in_the_root_dir_of_an_old_config_counts(lab: Lab) -> None:
    old = lab.folder / "old place"
    old.mkdir()
    bench = lab.workspace(tasks={"a.yml": f'root_dir: "{old}"  # as before\n'}, require_marker=True)
    (bench.folder / "train.sh").write_text(f'echo done >"{old}/${{TINKSCHED_TASK}}_completed.txt"\n')
    bench.run("start", "--wait")
    assert bench.states() == {"a": "completed"}
    other = lab.workspace("other", tasks={"a.yml": f"root_dir: '{old}'\n"}, require_marker=True)
    assert "markers were there before" in other.run("start").out


def test_children_are_left_alone_if_that_is_wanted_and_keep_the_slot(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": "", "b.yml": ""}, keep_children=True, gpu_count=1, max_jobs_per_gpu=1,
                          stop_grace=0.1)  # fmt: skip
    gate = bench.gate()
    (bench.folder / "train.sh").write_text(
        'printf "start %s %s %s 0\\n" "$TINKSCHED_TASK" "$$" "$CUDA_VISIBLE_DEVICES" >>"$RECORD"\n'
        '[ "$TINKSCHED_TASK" = b ] && exit 0\n'
        f"mkfifo up; setsid sh -c 'echo up >up; exec flock -s {gate.path} true' &\n"
        "read -r _ <up\n"
    )
    bench.run("start")
    bench.wait_until(lambda: (bench.folder / "up").exists() and bench.starts(), "a")
    bench.run("status")
    assert bench.starts() == {"a": 1}
    assert bench.states() == {"a": "running", "b": "queued"}
    gate.open()
    bench.wait_for_states(a="completed", b="completed")


def test_a_log_that_grows_too_long_keeps_its_head_and_its_end(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""}, log_max_size="100kB", check_interval=0.2)
    gate = bench.gate()
    (bench.folder / "train.sh").write_text(
        "echo first; i=0; while [ $i -lt 20000 ]; do echo line $i of many; i=$((i+1)); done\n"
        f"flock -s {gate.path} true; echo last\n"
    )
    bench.run("start")
    log = bench.folder / "logs" / "train_logs" / "a.log"
    bench.wait_until(lambda: log.exists() and b"bytes were cut out here" in log.read_bytes(), "the cut", 30)
    gate.open()
    bench.wait_for_states(a="completed")
    bench.wait_until(lambda: log.read_bytes().endswith(b"last\r\n"), "the end", 10)
    # What was printed last is cut when the scheduler tidies up.
    bench.wait_until(lambda: log.stat().st_size < 150_000, "the last cut", 10)
    text = log.read_bytes().decode()
    assert text.startswith("first\r\n") and "line 19999 of many" in text and text.endswith("last\r\n")


def test_with_too_little_free_disk_nothing_new_starts(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""}, min_free_disk="1000TB")
    bench.run("start")
    assert "min_free_disk is 1e+03 TB" in bench.run("explain", "a").out or "min_free_disk" in bench.run("status").out
    assert bench.starts() == {}
    bench.reconfigure(min_free_disk=0)
    bench.run("start")
    bench.wait_for_states(a="completed")


def test_the_commit_of_the_code_is_on_record(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""})

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=bench.folder, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    git("add", "train.sh")
    git("commit", "-qm", "one")
    bench.run("start", "--wait")
    assert git("rev-parse", "HEAD").strip() in bench.run("show", "a").out
    assert "uncommitted" not in bench.run("show", "a").out
    with (bench.folder / "train.sh").open("a") as file:
        file.write("# edited\n")
    bench.run("start", "--rerun", "--wait")
    assert "with uncommitted changes" in bench.run("show", "a").out


def test_unless_stopped_does_nothing_after_a_stop_until_a_plain_start(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.yml": ""})
    bench.run("start", "--unless-stopped", "--wait")
    bench.run("stop", code=None)  # 3 if the scheduler has ended by itself: it is stopped all the same
    bench.add("b.yml")
    answer = bench.run("start", "--unless-stopped")
    assert "nothing is started: stopped by" in answer.err
    assert bench.starts() == {"a": 1}
    bench.run("start", "--wait")
    bench.add("c.yml")
    bench.run("start", "--unless-stopped", "--wait")
    assert bench.starts() == {"a": 1, "b": 1, "c": 1}


def test_a_day_of_cron(lab: Lab) -> None:
    """Fifty calls, configs added in between, one stop and one kill-all: what ran, ran once."""
    bench = lab.workspace(gpu_count=2, max_jobs_per_gpu=2)
    added: list[str] = []

    def call() -> None:
        bench.run("start", "--unless-stopped", code=None if not added else 0)

    for hour in range(50):
        if hour % 3 == 0 and hour < 45:
            added.append(f"exp{hour}")
            bench.add(f"exp{hour}.yml")
        if hour == 20:
            bench.run("stop", code=None)  # 3 if all was done at that moment
        if hour == 25:
            bench.run("start")
        if hour == 35:
            bench.run("kill-all")
        if hour == 40:
            bench.run("start")
        call()
    bench.wait_until(lambda: set(bench.states().values()) == {"completed"}, "the evening")
    killed = {name for name, task in bench.tasks().items() if task["attempt"] > 1}
    assert {name: count for name, count in bench.starts().items() if name not in killed} == {
        name: 1 for name in added if name not in killed
    }
