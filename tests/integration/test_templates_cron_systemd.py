"""The templates for cron and systemd: what they say, and the cron line run by cron's shell and by a real cron."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import Bench, Lab

TEMPLATES = Path(__file__).parents[2] / "templates"
CRON = shutil.which("cron", path=f"{os.environ['PATH']}:/usr/sbin")

# In a namespace of mounts of its own, so that cron sees no crontab of this machine and leaves nothing behind.
ALONE = r"""
set -e
mount -t tmpfs none /run
mount -t tmpfs none /var/spool
[ ! -d /etc/cron.d ] || mount -t tmpfs none /etc/cron.d
[ ! -e /etc/crontab ] || mount --bind /dev/null /etc/crontab
mkdir -p /var/spool/cron/crontabs
cat >/var/spool/cron/crontabs/root
chmod 600 /var/spool/cron/crontabs/root
exec "$1" -f
"""


def cron_text(workspace: Path) -> str:
    return (TEMPLATES / "tinksched.cron").read_text().replace("@WORKSPACE@", str(workspace))


def cron_lines(text: str) -> list[str]:
    """What cron would read: neither comments nor empty lines."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def made(lab: Lab) -> Bench:
    """A workspace with a space in its name, as `setup-workspace` makes it, with a script and one config."""
    other = lab.workspace("other")
    folder = lab.folder / "my ws"
    other.run("setup-workspace", str(folder), cwd=lab.folder)
    (folder / "configs" / "example.yml").unlink()
    shutil.copy(other.folder / "train.sh", folder)
    bench = Bench(lab, folder)
    bench.configure(task_name="T", script_path="train.sh", python_env="/bin/sh", gpu_count=1)
    bench.add("exp1.yml")
    return bench


def call(bench: Bench) -> None:
    """Run the line as cron would: its environment and its shell. The laboratory's variables keep tests apart."""
    path, line = cron_lines(cron_text(bench.folder))
    name, value = path.split("=")
    environment = {"SHELL": "/bin/sh", "LOGNAME": "somebody", name: value, **apart(bench.lab)}
    command = line.split(maxsplit=5)[5]
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, cwd="/", capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), (bench.folder / "cron.log").read_text()


def apart(lab: Lab) -> dict[str, str]:
    names = ("HOME", "TMUX_TMPDIR", "TINKSCHED_LEASE_DIR", "TINKSCHED_TEST_LAB", "RECORD")
    return {name: lab.environment[name] for name in names}


def test_the_crontab_is_one_variable_and_one_line(tmp_path: Path) -> None:
    text = cron_text(tmp_path)
    path, line = cron_lines(text)
    assert path == "PATH=/usr/local/bin:/usr/bin:/bin"
    assert line == f'*/5 * * * * "{tmp_path}/scheduler.sh" start --unless-stopped >"{tmp_path}/cron.log" 2>&1'
    at_boot = next(line for line in text.splitlines() if line.startswith("#@reboot "))
    assert at_boot.removeprefix("#@reboot ") == line.removeprefix("*/5 * * * * ")
    assert all(len(line) <= 120 for line in (TEMPLATES / "tinksched.cron").read_text().splitlines())


def test_the_cron_line_adds_what_is_new_and_respects_a_stop(lab: Lab) -> None:
    bench = made(lab)
    call(bench)
    bench.wait_for_states(exp1="completed")
    call(bench)
    bench.add("exp2.yml")
    call(bench)
    bench.wait_for_states(exp2="completed")
    bench.wait_for_scheduler_end()
    bench.run("stop", code=None)
    bench.add("exp3.yml")
    call(bench)
    assert bench.starts() == {"exp1": 1, "exp2": 1}
    bench.run("start")
    bench.wait_for_states(exp3="completed")
    assert bench.starts() == {"exp1": 1, "exp2": 1, "exp3": 1}


@pytest.mark.timeout(200)
@pytest.mark.skipif(CRON is None, reason="cron is not installed: apt-get install cron")
def test_a_real_cron_runs_the_queue(lab: Lab) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        pytest.skip("a cron that disturbs nobody needs root and a mount namespace")
    assert CRON is not None
    bench = made(lab)
    # The five minutes are the only thing that a test can't wait for.
    variables = "".join(f"{name}={value}\n" for name, value in apart(lab).items())
    crontab = cron_text(bench.folder).replace("\n*/5 ", "\n* ")
    cron = subprocess.Popen(["unshare", "--mount", "sh", "-c", ALONE, "sh", CRON], stdin=subprocess.PIPE, text=True)
    try:
        assert cron.stdin is not None
        cron.stdin.write(variables + crontab)
        cron.stdin.close()
        bench.wait_for_states(seconds=150, exp1="completed")
        assert cron.poll() is None
    finally:
        cron.kill()
        cron.wait()
    assert bench.starts() == {"exp1": 1}
    assert "queued 1: exp1" in (bench.folder / "cron.log").read_text()


def unit(lab: Lab) -> Path:
    """The unit as a user saves it."""
    text = (TEMPLATES / "tinksched.service").read_text()
    path = lab.folder / "tinksched.service"
    program = Path(sys.executable).with_name("tinksched")
    path.write_text(text.replace("@TINKSCHED@", str(program)).replace("@WORKSPACE@", str(lab.folder / "my ws")))
    return path


def test_the_unit_lets_runs_survive(lab: Lab) -> None:
    parser = configparser.ConfigParser(interpolation=None, delimiters=["="], comment_prefixes=["#"])
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(unit(lab))
    service = parser["Service"]
    assert shlex.split(service["ExecStart"])[1:] == [
        "--workspace", str(lab.folder / "my ws"), "start", "--foreground", "--unless-stopped",
    ]  # fmt: skip
    assert (service["KillMode"], service["OOMPolicy"]) == ("process", "continue")
    assert (service["Restart"], service["SuccessExitStatus"]) == ("on-failure", "1")
    assert parser["Install"]["WantedBy"] == "default.target"
    assert "loginctl enable-linger" in (TEMPLATES / "tinksched.service").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(lab: Lab) -> None:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(lab.folder)}
    command = ["systemd-analyze", "verify", "--user", str(unit(lab))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_of_the_unit_works_until_all_is_done(lab: Lab) -> None:
    bench = made(lab)
    line = next(line for line in unit(lab).read_text().splitlines() if line.startswith("ExecStart="))
    _, *arguments = shlex.split(line.removeprefix("ExecStart="))
    bench.run(*arguments, cwd=lab.folder)
    assert bench.states() == {"exp1": "completed"}
    bench.run("stop", code=None)
    bench.add("exp2.yml")
    bench.run(*arguments, cwd=lab.folder)
    assert bench.starts() == {"exp1": 1}
