"""templates/scheduler.sh, run by real shells, with a small program in place of tinksched that prints its arguments."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parents[2] / "templates" / "scheduler.sh"
NASTY = ["plain", "with space", 'it\'s "quoted"', "-dash", "$HOME `id` $(id) *", "é;&|", "new\nline", "end\n"]
SHELLS = [[shell] for shell in ("sh", "dash", "bash") if shutil.which(shell)]
if shutil.which("busybox"):
    SHELLS.append(["busybox", "sh"])


def make_program(path: Path) -> Path:
    """A program that prints who was called, and with what."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps([{path.name!r}, *sys.argv[1:]]))\nsys.exit(7)\n"
    path.write_text(code)
    path.chmod(0o755)
    return path


def make_workspace(folder: Path, program: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "scheduler.sh"
    script.write_text(TEMPLATE.read_text().replace("@TINKSCHED@", shlex.quote(str(program))))
    script.chmod(0o755)
    return script


def call(command: Sequence[str | Path], cwd: Path = Path("/"), env: Mapping[str, str] | None = None) -> list[str]:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (7, "")
    arguments: list[str] = json.loads(done.stdout)
    return arguments


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return make_program(tmp_path / "a venv's" / "bin" / "made_with")


def test_it_is_an_executable_template_with_one_placeholder() -> None:
    assert os.access(TEMPLATE, os.X_OK)
    text = TEMPLATE.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert text.count("@TINKSCHED@") == 1


@pytest.mark.parametrize("arguments", [[], ["start", "a.yml,b.yml", "0,1"], NASTY, ["", "--", "-x", ""]])
def test_arguments_arrive_as_they_are(tmp_path: Path, program: Path, arguments: list[str]) -> None:
    script = make_workspace(tmp_path / "ws", program)
    assert call([script, *arguments]) == ["made_with", "--workspace", str(tmp_path / "ws"), *arguments]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("name", NASTY)
def test_any_shell_and_any_folder_name(tmp_path: Path, program: Path, shell: list[str], name: str) -> None:
    folder = tmp_path / name
    script = make_workspace(folder, program)
    expected = ["made_with", "--workspace", str(folder), "status"]
    assert call([*shell, str(script), "status"]) == expected
    assert call([*shell, "scheduler.sh", "status"], cwd=folder) == expected
    assert call([*shell, "--", f"{name}/scheduler.sh", "status"], cwd=tmp_path) == expected


def test_from_any_folder(tmp_path: Path, program: Path) -> None:
    folder = tmp_path / "ws"
    script = make_workspace(folder, program)
    (folder / "configs").mkdir()
    expected = ["made_with", "--workspace", str(folder), "status"]
    assert call(["./scheduler.sh", "status"], cwd=folder) == expected
    assert call(["../scheduler.sh", "status"], cwd=folder / "configs") == expected
    assert call([script, "status"], env={**os.environ, "CDPATH": "/tmp:."}) == expected
    assert call(["scheduler.sh", "status"], env={"PATH": f"{folder}:{os.environ['PATH']}"}) == expected


def test_through_links(tmp_path: Path, program: Path) -> None:
    script = make_workspace(tmp_path / "real ws", program)
    (tmp_path / "to script").symlink_to(script)
    (tmp_path / "to link").symlink_to("to script")
    (tmp_path / "to folder").symlink_to("real ws")
    expected = ["made_with", "--workspace", str(tmp_path / "real ws")]
    for path in ("to script", "to link", "to folder/scheduler.sh"):
        assert call([tmp_path / path]) == expected


def test_a_moved_workspace(tmp_path: Path, program: Path) -> None:
    make_workspace(tmp_path / "before", program)
    (tmp_path / "before").rename(tmp_path / "after")
    assert call([tmp_path / "after" / "scheduler.sh"]) == ["made_with", "--workspace", str(tmp_path / "after")]


@pytest.mark.parametrize("environment", [{}, {"PATH": ""}, {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "HOME": "/"}])
def test_from_cron(tmp_path: Path, program: Path, environment: dict[str, str]) -> None:
    script = make_workspace(tmp_path / "ws", program)
    assert call([script, "start"], env=environment) == ["made_with", "--workspace", str(tmp_path / "ws"), "start"]


# A first argument that is a config file


@pytest.mark.parametrize("name", ["other.yml", "other.yaml", "a b.yml", "it's.yml", ".yml", "/x/y.yml", "none.yml"])
def test_a_config_file_comes_first(tmp_path: Path, program: Path, name: str) -> None:
    script = make_workspace(tmp_path / "ws", program)
    workspace = ["made_with", "--workspace", str(tmp_path / "ws")]
    assert call([script, name, "start", "a.yml"]) == [*workspace, "--config", name, "start", "a.yml"]


def test_a_config_file_is_looked_for_here_then_in_the_workspace(tmp_path: Path, program: Path) -> None:
    script = make_workspace(tmp_path / "ws", program)
    (tmp_path / "ws" / "other.yml").touch()
    config = str(tmp_path / "ws" / "other.yml")
    assert call([script, "other.yml"], cwd=tmp_path)[3:] == ["--config", config]
    (tmp_path / "other.yml").touch()
    assert call([script, "other.yml"], cwd=tmp_path)[3:] == ["--config", "other.yml"]


@pytest.mark.parametrize(
    "arguments", [["--config=x.yml", "status"], ["--config", "x.yml"], ["start", "x.yml"], ["yml"]]
)
def test_what_is_no_config_file(tmp_path: Path, program: Path, arguments: list[str]) -> None:
    script = make_workspace(tmp_path / "ws", program)
    assert call([script, *arguments])[3:] == arguments


# Where the program is


def tools(folder: Path) -> Path:
    """A PATH that has what the script needs, and neither tinksched nor python3."""
    folder.mkdir()
    for name in ("sh", "readlink"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def test_the_program_moves_to_path(tmp_path: Path, program: Path) -> None:
    make_program(tmp_path / "bin" / "tinksched")
    environment = {"PATH": f"{tmp_path / 'bin'}:{tools(tmp_path / 'tools')}"}
    script = make_workspace(tmp_path / "ws", program)
    assert call([script], env=environment)[0] == "made_with"
    program.chmod(0o644)
    assert call([script], env=environment)[0] == "tinksched"
    program.unlink()
    program.mkdir()
    assert call([script], env=environment)[0] == "tinksched"


def test_the_program_is_a_module(tmp_path: Path) -> None:
    make_program(tmp_path / "site" / "tinksched" / "__main__.py")
    path = tools(tmp_path / "tools")
    (path / "python3").symlink_to(sys.executable)
    script = make_workspace(tmp_path / "ws", tmp_path / "gone")
    environment = {"PATH": str(path), "PYTHONPATH": str(tmp_path / "site")}
    assert call([script, "x.yml", "start"], env=environment) == [
        "__main__.py",
        "--workspace",
        str(tmp_path / "ws"),
        "--config",
        "x.yml",
        "start",
    ]


@pytest.mark.parametrize("python", [False, True])
def test_no_program_at_all(tmp_path: Path, python: bool) -> None:
    path = tools(tmp_path / "tools")
    if python:
        (path / "python3").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
        (path / "python3").chmod(0o755)
    script = make_workspace(tmp_path / "ws", tmp_path / "gone")
    (tmp_path / "ws" / "tinksched").mkdir()  # a folder of that name is no program
    done = subprocess.run(
        [script, "start"], cwd=tmp_path / "ws", env={"PATH": str(path)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "neither at" in done.stderr
    assert str(tmp_path / "gone") in done.stderr
    assert "python3 -m pip install tinksched" in done.stderr


def test_the_unfilled_template_still_finds_a_program(tmp_path: Path) -> None:
    make_program(tmp_path / "bin" / "tinksched")
    shutil.copy(TEMPLATE, tmp_path / "scheduler.sh")
    environment = {"PATH": f"{tmp_path / 'bin'}:{tools(tmp_path / 'tools')}"}
    assert call([tmp_path / "scheduler.sh"], env=environment)[0] == "tinksched"
