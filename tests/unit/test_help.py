"""The help of every command, and what is said about a command that does not exist."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer

from tinksched.cli import main
from tinksched.cli.app import COMMANDS, app, command_of

ROOT = typer.main.get_command(app)


def help_of(name: str) -> str:
    text: str = command_of(name).get_help(context(name, []))
    return text


def context(name: str, words: list[str]) -> Any:
    """What a command understands of these words, without being called."""
    command, parent = command_of(name), typer.Context(ROOT, info_name="tinksched")
    if not words:
        return typer.Context(command, info_name=name, parent=parent)
    return command.make_context(name, words, parent=parent)


def examples(name: str) -> list[str]:
    """The lines of the part of the help that shows how it is called."""
    part = re.search(r"(?m)^  Examples?:\n((?:    .*\n)+)", help_of(name))
    assert part is not None, f"the help of {name} has no example"
    return [line.strip() for line in part[1].splitlines()]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_shows_a_call_that_the_command_understands(name: str) -> None:
    for line in examples(name):
        call = re.sub(r'^eval "\$\((.*)\)"', r"\1", line)
        program, command, *words = shlex.split(call, comments=True)
        words = words[: words.index("|")] if "|" in words else words
        assert (program, command) == ("tinksched", name), line
        if words:
            context(name, list(words))  # raises what the user would be told
        else:
            assert not [one for one in command_of(name).params if one.required], line


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_fits_a_terminal(name: str) -> None:
    assert max(map(len, help_of(name).splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["statsu"], "status"),
        (["kilall"], "kill-all"),
        (["help", "swep"], "sweep"),
        (["--workspace", ".", "cancle"], "cancel"),
    ],
)
def test_a_command_that_does_not_exist_has_near_names(
    words: list[str], near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"tinksched: there is no command {words[-1]!r}\n    did you mean ") and near in said


def test_one_that_is_near_to_none_lists_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["zzz"])
    assert end.value.code == 2 and "there are: setup-workspace, start, status" in capsys.readouterr().err
