"""Completion of commands, options and names of tasks, in the shells that are on this machine; bash must be."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import Bench, Lab

NAMES = ("exp1", "exp2", "lr=0.1", "lr=0.2", "a b", "x:1", "x:2", "$(touch pwned)", "it's")


@pytest.fixture
def bench(lab: Lab) -> Bench:
    bench = lab.workspace(tasks={f"{name}.yml": "" for name in NAMES})
    bench.run("pause")
    bench.run("start")
    yield bench  # type: ignore[misc]
    bench.run("kill-all")


def words(bench: Bench, *begun: str, cwd: Path | None = None, **environment: str) -> list[str]:
    answer = bench.run("complete-words", *begun, cwd=cwd, **environment)
    assert answer.err == ""
    return answer.out.splitlines()


def in_bash(bench: Bench, line: str) -> list[str]:
    """What bash would put in the place of the last word of the line; with completion loaded as the help says."""
    program = f"""
    eval "$(tinksched completion bash)"
    COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
    COMP_WORDS=({line}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
    $(complete -p tinksched | sed 's/.*-F \\([^ ]*\\).*/\\1/') tinksched
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", program], cwd=bench.folder, env=bench.lab.environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return [word for word in done.stdout.splitlines() if word]


def test_commands_options_shells_and_tasks(bench: Bench) -> None:
    assert {"run", "status", "start", "stop"} <= set(words(bench, ""))
    assert "serve-workspace" not in words(bench, "")
    assert words(bench, "ho") == ["hold"] and words(bench, "help", "cl") == ["clean"]
    assert words(bench, "completion", "") == ["bash", "zsh", "fish"]
    assert words(bench, "wait", "--t") == ["--timeout"]
    assert "--workspace" in words(bench, "--") and words(bench, "--color", "a") == ["auto", "always"]
    for command in ("logs", "attach", "explain", "show", "cancel", "retry", "wait", "hold", "release", "clean"):
        assert words(bench, command, "exp") == ["exp2", "exp1"], "what was queued last comes first"
    assert set(words(bench, "cancel", "exp1", "")) == set(NAMES)
    assert words(bench, "run", "--after", "exp1") == ["exp1"]
    assert words(bench, "run", "--", "exp") == [] and words(bench, "logs", "--config", "s") == []


def test_config_files_and_what_comes_after(bench: Bench) -> None:
    bench.add("_base.yml")
    bench.add("notes.txt")
    assert words(bench, "start", "exp") == ["exp1.yml", "exp2.yml"] and words(bench, "start", "_") == []
    assert words(bench, "start", "exp2.yml,exp") == ["exp2.yml,exp1.yml", "exp2.yml,exp2.yml"]
    assert words(bench, "start", "exp1.yml", "") == [], "the GPUs"
    assert words(bench, "sweep", "_b") == ["_base.yml"] and words(bench, "sweep", "n") == []
    assert words(bench, "sweep", "_base.yml", "e") == []
    assert words(bench, "status", "exp1") == ["exp1"]
    for before in (["--after"], ["-a"], ["--gpus", "2", "--after"], ["-a", "exp2", "-a"]):
        assert words(bench, "run", *before, "exp1") == ["exp1"], before
    assert words(bench, "run", "--after=exp1") == ["--after=exp1"] and words(bench, "r", "-a", "exp1") == ["exp1"]
    assert words(bench, "run", "--af") == ["--after"] and words(bench, "run", "train", "--after", "exp1") == []
    assert in_bash(bench, "tinksched start exp1.yml,exp") == ["exp1.yml,exp1.yml", "exp1.yml,exp2.yml"]
    assert in_bash(bench, "tinksched run --after=exp") == ["exp2", "exp1"]


def test_from_elsewhere_and_where_there_is_nothing(bench: Bench, lab: Lab) -> None:
    other = lab.folder / "else where"
    other.mkdir()
    assert words(bench, "logs", "exp1", cwd=other) == []
    assert words(bench, "logs", "--workspace", str(bench.folder), "exp1", cwd=other) == ["exp1"]
    assert words(bench, "--workspace", str(bench.folder), "logs", "exp1", cwd=other) == ["exp1"]
    assert words(bench, "nonsense", "exp1") == [] and words(bench, "start", "exp", cwd=other) == []


@pytest.mark.parametrize("damage", ["garbage", "unreadable", "no config", "gone"])
def test_never_an_error(bench: Bench, damage: str, lab: Lab) -> None:
    place = bench.folder
    bench.run("stop")
    if damage == "garbage":
        bench.state.database.write_bytes(b"no database")
    elif damage == "no config":
        (place / "scheduler_config.yml").write_text(": : :")
    elif damage == "gone":
        shutil.rmtree(bench.state.path)
    else:
        bench.state.database.unlink()
        bench.state.database.mkdir()
    found = words(bench, "logs", "exp1")
    assert found == (["exp1"] if damage == "no config" else [])
    shutil.rmtree(bench.state.path, ignore_errors=True)
    bench.reconfigure()


def test_in_bash(bench: Bench) -> None:
    assert in_bash(bench, "tinksched ho") == ["hold"]
    assert in_bash(bench, "tinksched logs exp") == ["exp2", "exp1"]
    assert in_bash(bench, "tinksched cancel exp1 lr=0.") == ["0.2", "0.1"], "bash takes what is behind = for the word"
    assert in_bash(bench, "tinksched cancel x:") == ["2", "1"]
    assert in_bash(bench, "tinksched show a") == [r"a\ b"]
    assert in_bash(bench, "tinksched show i") == [r"it\'s"]
    assert in_bash(bench, "tinksched wait --any --tim") == ["--timeout"]
    everything = in_bash(bench, "tinksched show ''")
    assert not list(bench.folder.rglob("pwned")), everything


def test_in_an_interactive_bash_the_tab_key_completes(bench: Bench) -> None:
    """The real thing: a bash on a terminal of tmux, and the key."""
    bashrc = bench.folder / "bashrc"
    bashrc.write_text('PS1="> "\neval "$(tinksched completion bash)"\n')
    bench.lab.tmux("new-session", "-d", "-s", "shell", "-x", "100", "-y", "20", "-c", str(bench.folder),
                   *(f"-e{name}={value}" for name, value in bench.lab.environment.items()),
                   "bash", "--rcfile", str(bashrc), "-i", socket="keys")  # fmt: skip

    def screen() -> str:
        return bench.lab.tmux("capture-pane", "-p", "-t", "shell", socket="keys").stdout

    bench.wait_until(lambda: ">" in screen(), "the prompt", tell=screen)
    bench.lab.tmux("send-keys", "-t", "shell", "tinksched expl", "Tab", "a", "Tab", socket="keys")
    bench.wait_until(lambda: r"> tinksched explain a\ b" in screen(), "the completed line", tell=screen)
    bench.lab.tmux("send-keys", "-t", "shell", "Enter", socket="keys")
    bench.wait_until(lambda: "a b: queued" in screen(), "the command's output", tell=screen)
    bench.lab.tmux("kill-server", socket="keys")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_script(bench: Bench, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    script = bench.run("completion", shell).out
    ask = {
        "zsh": "compdef() {{ :; }}; compadd() {{ print -l -- ${{(P)2}}; }}\n{}\n"
        "words=(tinksched logs exp); CURRENT=3; _tinksched",
        "fish": "{}\ncomplete -C 'tinksched logs exp'",
    }[shell].format(script)  # fmt: skip
    environment = {**bench.lab.environment, "TERM": "xterm"}
    done = subprocess.run(
        [shell, "-c", ask], cwd=bench.folder, env=environment, capture_output=True, text=True, timeout=30,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert sorted(done.stdout.split()) == ["exp1", "exp2"], done.stdout + done.stderr


def test_a_shell_that_nobody_knows(bench: Bench) -> None:
    assert "bash, zsh, fish" in bench.run("completion", "csh", code=2).err
