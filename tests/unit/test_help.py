"""The help of every command, and what is said about a command that does not exist."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer

from tinksched.cli import main
from tinksched.cli.app import COMMANDS, GROUPS, app, command_of

ROOT = typer.main.get_command(app)


# Every command by its words; a group stands before its commands.
PATHS = [
    path
    for name in COMMANDS
    for path in [(name,), *((name, below) for below in getattr(command_of(name), "commands", ()))]
]


def command_at(path: tuple[str, ...]) -> tuple[Any, Any]:
    """The command, and the context of what it belongs to."""
    parent, command = typer.Context(ROOT, info_name="tinksched"), command_of(path[0])
    for name in path[1:]:
        parent = typer.Context(command, info_name=path[0], parent=parent)
        command = command.commands[name]
    return command, parent


def help_of(path: tuple[str, ...]) -> str:
    command, parent = command_at(path)
    text: str = command.get_help(typer.Context(command, info_name=path[-1], parent=parent))
    return text


def understand(path: tuple[str, ...], words: list[str]) -> None:
    """What the command makes of these words, without being called. Raises what the user would be told."""
    command, parent = command_at(path)
    if words:
        command.make_context(path[-1], words, parent=parent)
    else:
        assert not [one for one in command.params if one.required], path


def examples(path: tuple[str, ...]) -> list[str]:
    """The lines of the part of the help that shows how it is called."""
    part = re.search(r"(?m)^  Examples?:\n((?:    .*\n)+)", help_of(path))
    assert part is not None, f"the help of {' '.join(path)} has no example"
    return [line.strip() for line in part[1].splitlines()]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_the_help_shows_a_call_that_the_command_understands(path: tuple[str, ...]) -> None:
    for line in examples(path):
        call = re.sub(r'^eval "\$\((.*)\)"', r"\1", line)
        program, *words = shlex.split(call, comments=True)
        words = words[: words.index("|")] if "|" in words else words
        assert (program, *words[: len(path)]) == ("tinksched", *path), line
        if len(path) == 1 and path[0] in GROUPS:
            path = (path[0], words[1])
        understand(path, words[len(path) :])


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_the_help_fits_a_terminal(path: tuple[str, ...]) -> None:
    assert max(map(len, help_of(path).splitlines())) <= 80


def test_no_text_is_cut_in_the_list_of_all_commands() -> None:
    text: str = ROOT.get_help(typer.Context(ROOT, info_name="tinksched", terminal_width=80))
    assert "..." not in text.partition("Commands:")[2]


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
