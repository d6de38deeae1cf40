"""`doctor`: what it says of a workspace that is in order, and of one that isn't."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import pty
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.nvml_double import GIB, LOST, Failure, Gpu, NvmlDouble, Process
from tests.support import Bench, Gate, Lab
from tinksched.operations.doctor import CHECKS, MACHINE


def test_a_workspace_in_order(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, executor="local")
    fresh = json.loads(bench.run("doctor", "--json").out)
    assert fresh["version"] == 1 and fresh["fine"]
    assert [check["name"] for check in fresh["checks"]] == [name for name, _ in CHECKS]
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a")
    bench.wait_for_states(a="running")
    table = bench.run("doctor").out
    assert f"runs as process {bench.scheduler_pid()}" in table
    assert "whole (1 active)" in table and "1 active, 0 of them ended" in table and "MB free" in table
    gate.open()


def test_outside_of_a_workspace_the_machine_is_checked(lab: Lab) -> None:
    bench, nowhere = lab.workspace(), lab.folder / "nowhere"
    nowhere.mkdir()
    answer = bench.run("doctor", "--json", cwd=nowhere)
    record = json.loads(answer.out)
    assert record["fine"] and [check["name"] for check in record["checks"]] == [name for name, _ in MACHINE]
    assert answer.err == "this folder is in no workspace: only the machine is checked\n"
    assert "the first `tinksched run` outside of a workspace makes it" in bench.run("doctor", cwd=nowhere).out
    assert not (Path(lab.environment["HOME"]) / ".local").exists(), "a look makes nothing"
    assert "flock is not on PATH" in bench.run("doctor", cwd=nowhere, code=1, PATH=str(nowhere)).out
    assert "nothing to repair" in bench.run("doctor", "--repair", cwd=nowhere, code=3).err
    assert "no scheduler_config.yml" in bench.run("doctor", "--workspace", str(nowhere), code=2).err
    (nowhere / "file").touch()
    answer = bench.run("doctor", cwd=nowhere, code=1, XDG_STATE_HOME=str(nowhere / "file"))
    assert "personal can't be made" in answer.out and "file can't be written" in answer.out


def test_outside_of_a_workspace_the_personal_one_is_checked_if_there_is_one(lab: Lab) -> None:
    bench, nowhere = lab.workspace(), lab.folder / "nowhere"
    nowhere.mkdir()
    bench.run("run", "--wait", "--", "true", cwd=nowhere)
    answer = bench.run("doctor", "--json", cwd=nowhere)
    assert [check["name"] for check in json.loads(answer.out)["checks"]] == [name for name, _ in CHECKS]
    assert "the personal workspace" in answer.err


def test_what_is_broken_is_named_and_the_rest_is_looked_at_all_the_same(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, executor="local")
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a")
    bench.wait_for_states(a="running")
    bench.run("stop")
    shutil.rmtree(bench.state.runs)
    (bench.state.path / "home").write_text("{")
    answer = bench.run("doctor", "--json", code=1)
    found = {check["name"]: check for check in json.loads(answer.out)["checks"]}
    bad = {name for name, check in found.items() if check["level"] == "bad"}
    assert bad == {"home", "runs"}
    assert "the run folders of a are gone" in found["runs"]["what"]
    assert "home can't be read" in found["home"]["what"] and "rm " in found["home"]["todo"]
    gate.open()


def test_nothing_to_repair(lab: Lab) -> None:
    bench = lab.workspace(executor="local", tasks={"a.yml": ""})
    assert "nothing to repair" in bench.run("doctor", "--repair").err
    bench.run("start", "--wait")
    bench.wait_for_scheduler_end()
    assert "nothing to repair" in bench.run("doctor", "--repair").err
    assert bench.states() == {"a": "completed"}


# ---------------------------------------------------------------- each check, with what makes it complain


def look(bench: Bench, name: str, **environment: str) -> tuple[str, str, str]:
    """What doctor says of one thing: how bad it is, what it is, and what to do."""
    answer = bench.run("doctor", "--json", code=None, **environment)
    record = json.loads(answer.out)
    found = {check["name"]: check for check in record["checks"]}
    bad = [check for check in record["checks"] if check["level"] == "bad"]
    assert answer.code == (1 if bad else 0) and record["fine"] is not bool(bad)
    check = found[name]
    assert bool(check["todo"]) == (check["level"] != "ok"), check
    return check["level"], check["what"], check["todo"]


def held(bench: Bench) -> Gate:
    """A task that runs and waits, with its scheduler."""
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a")
    bench.wait_for_states(a="running")
    return gate


def test_few_open_files(lab: Lab) -> None:
    bench = lab.workspace(executor="local")
    bench.prefix = ["sh", "-c", 'ulimit -n 64; exec "$0" "$@"']
    level, what, todo = look(bench, "machine")
    assert (level, todo) == ("warn", "ulimit -n 4096, before `start`") and "only 64 files" in what


def test_a_configuration_with_problems(lab: Lab) -> None:
    bench = lab.workspace(executor="local", tasks={"a.yml": ""})
    bench.run("start", "--wait")
    assert look(bench, "config")[0] == "ok"
    bench.reconfigure(script_path="no_such.sh", output_dir="/proc/no")
    level, what, _ = look(bench, "config")
    assert level == "bad" and "no_such.sh does not exist" in what and "/proc/no can't be made" in what
    bench.reconfigure(max_jobs_per_gpuu=2)
    level, what, todo = look(bench, "config")
    assert level == "bad" and "max_jobs_per_gpuu" in what and "the last one that had none is used" in what
    assert todo == f"edit {bench.folder / 'scheduler_config.yml'}"


def test_gpus_that_the_configuration_wants_and_the_machine_lacks(lab: Lab) -> None:
    double = NvmlDouble(lab.folder)
    lab.environment.update(double.environment())
    double.write(Gpu("GPU-a"))
    bench = lab.workspace(executor="local", gpu_count=3)
    level, what, _ = look(bench, "config")
    assert level == "warn" and "gpu_count is 3, but this machine has 1" in what


def test_a_state_folder_that_others_may_use(lab: Lab) -> None:
    bench = lab.workspace(executor="local", tasks={"a.yml": ""})
    assert look(bench, "permissions") == ("ok", "there is no state folder yet", "")
    bench.run("start", "--wait")
    assert look(bench, "permissions")[0] == "ok"
    bench.state.path.chmod(0o755)
    assert look(bench, "permissions")[::2] == ("warn", f"chmod 700 {bench.state.path}")
    bench.state.path.chmod(0o777)
    level, what, _ = look(bench, "permissions")
    assert level == "bad" and "decide what runs" in what


def test_too_little_room_for_logs(lab: Lab) -> None:
    bench = lab.workspace(executor="local", min_free_disk="100TB")
    (bench.folder / "out").mkdir()
    level, what, todo = look(bench, "logs and results")
    assert level == "bad" and what.startswith("nothing new starts") and "min_free_disk" in todo


def test_a_lease_folder_that_is_not_for_everybody(lab: Lab) -> None:
    bench = lab.workspace(executor="local")
    assert look(bench, "leases")[0] == "ok"
    lab.leases.chmod(0o755)
    level, what, todo = look(bench, "leases")
    assert level == "warn" and "don't see each other" in what and todo == f"chmod 1777 {lab.leases}"
    lab.leases.chmod(0o777)
    level, what, _ = look(bench, "leases")
    assert level == "warn" and "anybody may delete" in what


def test_an_admission_lock_that_somebody_keeps(lab: Lab) -> None:
    bench = lab.workspace(executor="local", gpu_count=1, tasks={"a.yml": ""})
    bench.run("start", "--wait")
    bench.wait_for_scheduler_end()
    with (lab.leases / "index-0.admission").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        level, what, todo = look(bench, "admission")
    assert level == "bad" and "index-0.admission" in what and f"process {os.getpid()} (" in todo
    assert look(bench, "admission")[0] == "ok"


def test_a_lease_that_is_gone_and_a_record_that_is_gone(lab: Lab) -> None:
    bench = lab.workspace(executor="local", gpu_count=1)
    gate = held(bench)
    bench.run("stop")
    bench.wait_for_scheduler_end()
    assert look(bench, "locks") == ("ok", "leases and record agree", "")
    (lease,) = [path for path in lab.leases.glob("index-0.*") if path.suffix != ".admission"]
    name = lease.read_bytes()
    kept = lease.with_name("kept")
    lease.rename(kept)
    level, what, todo = look(bench, "locks")
    assert level == "warn" and "the leases of a are gone" in what and "start" in todo
    kept.rename(lease)
    assert lease.read_bytes() == name
    shutil.rmtree(bench.state.path)
    level, what, todo = look(bench, "locks")
    assert level == "bad" and "a: running and holding slots, but not on record" in what and "kill-all" in todo
    gate.open()


def test_a_driver_that_is_not_loaded_and_gpus_that_are_lost_or_slow(lab: Lab) -> None:
    bench = lab.workspace(executor="local", gpu_count=1)
    assert look(bench, "gpus") == ("ok", "no NVIDIA driver: slots only", "")
    double = NvmlDouble(lab.folder)
    lab.environment.update(double.environment())
    level, what, _ = look(bench, "gpus")
    assert level == "bad" and "Driver Not Loaded" in what
    double.write(Gpu("GPU-a", persistence=True), Gpu("GPU-b", persistence=True))
    assert look(bench, "gpus") == ("ok", "driver 0.0-double, 2 GPUs", "")
    double.write(Gpu("GPU-a", persistence=True), Gpu("GPU-b", persistence=False))
    level, what, todo = look(bench, "gpus")
    assert level == "warn" and "persistence mode is off for GPU 1" in what and "nvidia-smi -pm 1" in todo
    double.write(Gpu("GPU-a"), Gpu("GPU-b"), failures=[Failure("nvmlDeviceGetUtilizationRates", LOST, index=1)])
    level, what, todo = look(bench, "gpus")
    assert level == "bad" and "lost: GPU 1" in what and "restart" in todo


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a namespace of pids")
def test_a_container_without_the_hosts_pids(lab: Lab) -> None:
    double = NvmlDouble(lab.folder)
    lab.environment.update(double.environment())
    double.write(Gpu("GPU-a", processes=(Process(os.getpid(), GIB),)))
    bench = lab.workspace(executor="local", gpu_count=1)
    bench.prefix = ["unshare", "--pid", "--fork", "--mount-proc"]
    level, what, todo = look(bench, "gpus")
    assert level == "warn" and "who is on GPU 0 can't be told from here" in what and "--pid=host" in todo


def test_what_a_tmux_conf_says(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1)
    level, what, _ = look(bench, "tmux")
    assert level == "ok" and "no server runs yet" in what and "tmux 3" in what
    conf = Path(lab.environment["HOME"]) / ".tmux.conf"
    conf.write_text("# set -g history-limit 5\nset -g history-limit 50\n")
    level, what, todo = look(bench, "tmux")
    assert level == "warn" and "50 lines only" in what and str(conf) in todo
    conf.write_text("set-option -s exit-unattached on\n")
    level, what, _ = look(bench, "tmux")
    assert level == "ok" and f"exit-unattached in {conf}: not for tinksched's sessions" in what


def test_what_a_tmux_server_does(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1)
    gate = held(bench)
    assert look(bench, "tmux")[0] == "ok"
    lab.tmux("set-option", "-g", "destroy-unattached", "on")
    level, what, _ = look(bench, "tmux")
    assert level == "ok" and "destroy-unattached in the server's options: not for tinksched's sessions" in what
    lab.tmux("set-option", "-g", "history-limit", "7")
    assert "7 lines only" in look(bench, "tmux")[1]
    lab.tmux("set-option", "-g", "history-limit", "7000")
    master, slave = pty.openpty()
    command = ["tmux", "-L", "default", "attach-session", "-t", "=T_a_gpu0"]
    with subprocess.Popen(command, env={**lab.environment, "TERM": "xterm"}, stdin=slave, stdout=slave):
        os.close(slave)
        os.read(master, 1)  # it draws: it is attached, and the server would end without it
        lab.tmux("set-option", "-s", "exit-unattached", "on")
        level, what, todo = look(bench, "tmux")
        assert level == "warn" and "the server ends, with all runs" in what
        subprocess.run(["sh", "-c", todo], env=lab.environment, check=True)
        lab.tmux("detach-client", "-s", "=T_a_gpu0")
    os.close(master)
    assert "T_a_gpu0" in lab.sessions(), "what it says helps"
    server = int(lab.tmux("display-message", "-p", "#{pid}").stdout)
    os.kill(server, signal.SIGSTOP)
    try:
        level, what, todo = look(bench, "tmux")
    finally:
        os.kill(server, signal.SIGCONT)
    assert level == "bad" and "gave no answer" in what and "pgrep" in todo
    gate.open()


@pytest.mark.parametrize(
    ("manager", "user", "level"),
    [
        ("KillUserProcesses=yes", "Linger=no", "warn"),
        ("KillUserProcesses=yes", "Linger=yes", "ok"),
        ("KillUserProcesses=no", "Linger=no", "ok"),
        ("KillUserProcesses=yes KillExcludeUsers=USER", "Linger=no", "ok"),
        ("KillUserProcesses=yes KillOnlyUsers=somebody", "Linger=no", "ok"),
        ("", "", "ok"),
    ],
)
def test_a_logind_that_ends_what_runs(lab: Lab, manager: str, user: str, level: str) -> None:
    """A program in the place of `loginctl`: no test can log out."""
    programs = lab.folder / "bin"
    programs.mkdir()
    loginctl = programs / "loginctl"
    name = getpass.getuser()
    of_manager, of_user = (words.replace("USER", name).replace(" ", r"\n") for words in (manager, user))
    loginctl.write_text(
        f"""#!/bin/sh
[ "$1" = show-user ] || exit 2
case $2 in --*) said='{of_manager}' ;; *) said='{of_user}' ;; esac
[ -n "$said" ] || exit 1
printf "$said\\n"
"""
    )
    loginctl.chmod(0o755)
    bench = lab.workspace(executor="local")
    found = look(bench, "logging out", PATH=f"{programs}:{lab.environment['PATH']}", LOGNAME=name)
    assert found[0] == level
    if level == "warn":
        assert "KillUserProcesses" in found[1] and found[2] == "loginctl enable-linger"
