"""Placeholders in the texts that a run is made of, and in its shell commands, run by real shells."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tinksched.config.placeholders import NAMES, SHELL, expand, expand_command, literal, unknown, used

VALUES = {name: f"<{name}>" for name in NAMES}
BRACES = st.lists(st.sampled_from(["{", "}", "{{", "}}", "$", "task", "x", "{task}", "{x}", " ", "'", '"', "\\"]))
TEXTS = st.text() | BRACES.map("".join)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("", ""),
        ("{task}", "<task>"),
        ("--port={port} {port}", "--port=<port> <port>"),
        ("{task}{gpus}", "<task><gpus>"),
        ("{{task}}", "{task}"),
        ("{{x}}", "{x}"),
        ("{{{task}}}", "{<task>}"),
        ("{{{{task}}}}", "{{task}}"),
        ('{"a": {task}}', '{"a": <task>}'),
        ('{"a":{"b":1}}', '{"a":{"b":1}}'),
        ('{"a":{{task}}}', '{"a":{task}}'),
        ("${task}", "${task}"),
        ("${task}{task}", "${task}<task>"),
        ("$${task}", "$${task}"),
        ("${{task}}", "${task}"),
        ("${{{task}}}", "${<task>}"),
        (
            "{} {a,b} {0} { task } {task!r} {task:3} {ta sk} {a.b}",
            "{} {a,b} {0} { task } {task!r} {task:3} {ta sk} {a.b}",
        ),
        ("{x} {{{x}}}", "{x} {{{x}}}"),
        ("{{ }}", "{{ }}"),
        ("{ta\nsk}", "{ta\nsk}"),
    ],
)
def test_expand(text: str, expanded: str) -> None:
    assert expand(text, VALUES) == expanded


def test_a_value_is_not_expanded_again() -> None:
    assert expand("{task} {gpus}", {"task": "{gpus} {{x}} \\1", "gpus": "0"}) == "{gpus} {{x}} \\1 0"


def test_a_name_without_a_value_stays() -> None:
    assert expand("{task} {port}", {"task": "a"}) == "a {port}"


def test_unknown_and_used() -> None:
    text = "{b} {task} {a} {b} ${c} {{d}} {{{e}}} {é} {f,g}"
    assert unknown(text) == ["b", "a", "e", "é"]
    assert used([text, "{port}", "${gpus} {{gpus}}"]) == {"task", "port"}
    assert used([]) == set()


@given(TEXTS)
def test_text_without_placeholders_and_doubled_braces_stays(text: str) -> None:
    if unknown(text) or used([text]) or "{{" in text or "}}" in text:
        text = re.sub(r"[{}]", "", text)
    assert expand(text, VALUES) == text


@given(TEXTS, TEXTS)
def test_literal_is_the_inverse_of_expand(text: str, value: str) -> None:
    assert expand(literal(text), dict.fromkeys(NAMES, value)) == text


@given(st.sampled_from(NAMES), st.text())
def test_a_placeholder_becomes_its_value_wherever_it_stands(name: str, value: str) -> None:
    assert expand(f"a{{{name}}}b", {name: value}) == f"a{value}b"


def test_hostile_text_is_expanded_soon() -> None:
    start = time.process_time()
    for text in (
        "{" * 500_000,
        "{a" * 200_000,
        "{" + "a" * 500_000,
        "{task}" * 50_000,
        "${a}" * 100_000,
        "{{a" * 200_000,
    ):
        unknown(text)
        expand(text, VALUES)
        expand_command((*SHELL, text), VALUES)
        expand_command((*SHELL, "'" + text), VALUES)
    assert time.process_time() - start < 20


# Commands

NASTY = ["plain", "two words", "it's", 'a "b"', "$HOME `id` $(id)", "a\nb", "-n", "*", "\\", "", "é;&|", "${1}"]
SHELLS = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]


def test_arguments_are_expanded_one_by_one() -> None:
    assert expand_command(["{python}", "-c", "{task} {{x}}"], VALUES) == ("<python>", "-c", "<task> {x}")
    assert expand_command((*SHELL, "echo $1", "sh", "{task}"), VALUES) == (*SHELL, "echo $1", "sh", "<task>")
    assert expand_command((), VALUES) == ()


def test_a_shell_command_without_placeholders_stays() -> None:
    assert expand_command((*SHELL, "echo ${task} {a,b}"), VALUES) == (*SHELL, "echo ${task} {a,b}")
    assert expand_command((*SHELL, "echo {{task}} {x}"), VALUES) == (*SHELL, "echo {task} {x}")


def output(shell: str, text: str, value: str) -> str:
    command = expand_command((*SHELL, text), {"task": value, "gpus": "0"})
    return subprocess.run([shell, *command[1:]], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_never_reads_a_value_as_code(shell: str, value: str) -> None:
    text = r"""printf '<%s>' {task} "{task}" '{task}' a{task}b "it's {task}" 'say "{task}"' """
    text += r"""\'{task}\" "\"{task}" '\'{task}"""
    shown = [
        value,
        value,
        value,
        f"a{value}b",
        f"it's {value}",
        f'say "{value}"',
        f"'{value}\"",
        f'"{value}',
        f"\\{value}",
    ]
    assert output(shell, text, value) == "".join(f"<{argument}>" for argument in shown)


@pytest.mark.parametrize("shell", SHELLS)
def test_json_for_a_web_hook(shell: str) -> None:
    text = """printf %s '{"text": "{task} on {gpus}", "x": {"y": "{{task}} ${task}"}}'"""
    assert output(shell, text, "my exp") == '{"text": "my exp on 0", "x": {"y": "{task} ${task}"}}'


@given(
    st.lists(st.sampled_from(["{task}", "{gpus}", "'", '"', "\\", " ", "a", "\n", "#", "$"]), max_size=12).map("".join)
)
@examples(max_examples=60, deadline=None)
def test_whatever_the_quoting_a_value_is_never_code(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    witness = folder / "witness"
    value = f"$(touch {witness})`touch {witness}`'\";touch {witness};\n"
    command = expand_command((*SHELL, f": {text}"), {"task": value, "gpus": value})
    subprocess.run(command, cwd=folder, capture_output=True)
    assert not witness.exists()


def test_the_template_tells_of_every_placeholder() -> None:
    template = (Path(__file__).parents[2] / "templates" / "scheduler_config.yml").read_text()
    assert " ".join(f"{{{name}}}" for name in NAMES) in template
