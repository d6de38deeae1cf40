"""`host/tmux.py` against a real tmux: names, quoting, versions, and servers that are not there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support import MARK, Lab
from tinksched.errors import MissingProgram
from tinksched.host import processes
from tinksched.host.tmux import (
    OLDEST,
    LibTmux,
    NewSession,
    Pane,
    Tmux,
    TmuxError,
    join,
    require,
    session_name,
    version_of,
)

KEPT = "the session that keeps the server alive"


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One server for all tests of names: it is started once."""
    lab = Lab(tmp_path_factory.mktemp("tmux"))
    try:
        yield lab
    finally:
        lab.close()
    assert not lab.processes()


@pytest.fixture(params=[Tmux, LibTmux])
def kind(request: pytest.FixtureRequest) -> type[Tmux]:
    """Both ways to ask tmux: that of the commands, and that of the scheduler."""
    found: type[Tmux] = request.param
    return found


@pytest.fixture
def server(laboratory: Lab, monkeypatch: pytest.MonkeyPatch, kind: type[Tmux]) -> Tmux:
    """A server with one session, which nobody touches."""
    return inhabited(laboratory, monkeypatch, kind)


def inhabited(lab: Lab, monkeypatch: pytest.MonkeyPatch, kind: type[Tmux] = Tmux) -> Tmux:
    tmux = enter(lab, monkeypatch, kind)
    if KEPT not in tmux.session_names():
        tmux.create(new(KEPT))
    return tmux


@pytest.fixture
def no_server(lab: Lab, monkeypatch: pytest.MonkeyPatch, kind: type[Tmux]) -> Tmux:
    """The place where a server would be."""
    return enter(lab, monkeypatch, kind)


def enter(lab: Lab, monkeypatch: pytest.MonkeyPatch, kind: type[Tmux] = Tmux) -> Tmux:
    monkeypatch.delenv("TMUX", raising=False)
    for variable in ("TMUX_TMPDIR", "HOME", MARK):
        monkeypatch.setenv(variable, lab.environment[variable])
    return kind()


def new(
    name: str, *, work_dir: str = "/", log: str | None = None, options: tuple[tuple[str, str], ...] = ()
) -> NewSession:
    return NewSession(name, ["cat"], work_dir, log, options)


# -- names

PRINTABLE = st.characters(blacklist_categories=("Cs",), blacklist_characters="\0")
# Many names with what means something to tmux, to a format, or to a shell.
NAMES = st.text(st.one_of(st.sampled_from("#{}[]()%$`;:.\\'\"=-~!*?@+ ,|&<>^_a"), PRINTABLE), min_size=1, max_size=24)


@settings(max_examples=60, deadline=None)
@given(text=NAMES)
@example(text="a.b:c")
@example(text="$HOME \\ ${x}")
@example(text="it's #(touch pwned) $(touch pwned) `touch pwned` #{session_id} %d")
@example(text="a;")
@example(text="\\;")
@example(text="=a")
@example(text="-d")
@example(text="@1 %1 {mouse}")
@example(text="tab\tand\nline")
@example(text="ünïcode ✓ 👩‍👩‍👧 é e\u0301")
def test_tmux_keeps_a_name_as_session_name_says(laboratory: Lab, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        check_name(inhabited(laboratory, patch), text)


@pytest.mark.parametrize("text", ["a#[b", "#[fg=red]", "##[x", "a\u2028b", "a\u2029b"])
def test_tmux_keeps_names_that_it_treats_in_a_special_way(server: Tmux, text: str) -> None:
    check_name(server, text)


def check_name(tmux: Tmux, text: str) -> None:
    name = session_name(text)
    assert session_name(name) == name
    before = tmux.session_names()
    pane = tmux.create(new(name, options=(("@tinksched_run", "0123"),)))
    try:
        assert tmux.session_names() - before == {name}
        found = tmux.pane_of(name)
        assert found is not None and (found.session_id, found.pid, found.run) == (pane.session_id, pane.pid, "0123")
    finally:
        tmux.kill_session(pane)
    assert tmux.session_names() == before


def test_nothing_that_comes_from_a_user_is_executed_or_expanded(server: Tmux, lab: Lab) -> None:
    evil = "#(touch pwned) $(touch pwned) `touch pwned` #{session_id} #S %d"
    folder = lab.folder / evil
    folder.mkdir()
    options = (("@tinksched_run", evil), ("@tinksched_workspace", evil))
    pane = server.create(
        new(session_name(evil), work_dir=str(folder), log=str(folder / f"{evil}.log"), options=options)
    )
    try:
        found = server.pane_of(session_name(evil))
        assert found is not None and (found.run, found.workspace) == (evil, evil)
        (path,) = server.call("display-message", "-p", "-t", pane.pane_id, "#{pane_start_path}")
        assert path == str(folder)
    finally:
        server.kill_session(pane)
    assert not list(lab.folder.rglob("pwned"))


def test_a_name_is_matched_as_a_whole(server: Tmux) -> None:
    panes = [server.create(new(name)) for name in ("exp10", "exp1_2")]
    try:
        assert server.pane_of("exp1") is None
        assert server.pane_of("exp*") is None
        one = server.create(new("exp1"))
        server.kill_session(one)
        assert {"exp10", "exp1_2"} <= server.session_names()
    finally:
        for pane in panes:
            server.kill_session(pane)


def test_a_session_that_exists_is_not_replaced(server: Tmux) -> None:
    before = server.pane_of(KEPT)
    with pytest.raises(TmuxError, match="duplicate session"):
        server.create(new(KEPT))
    assert server.pane_of(KEPT) == before


def test_a_session_that_is_gone_may_be_closed_again(server: Tmux) -> None:
    pane = server.create(new("once"))
    server.kill_session(pane)
    server.kill_session(pane)
    assert KEPT in server.session_names()


# -- command sequences

WORDS = [
    "a",
    "a;",
    ";",
    ";;",
    "a;;",
    "\\;",
    "a\\;",
    "\\\\;",
    "a;b",
    "; ",
    "",
    " ",
    "\\",
    "#",
    "-x",
    "'",
    '"',
    "é✓",
    "a\nb",
]


@pytest.mark.parametrize("word", WORDS)
def test_an_argument_arrives_as_it_is_wherever_it_stands_in_a_sequence(server: Tmux, word: str) -> None:
    target = ["-t", f"={KEPT}:"]
    server.call(*join([["set-option", *target, "--", f"@word{number}", word] for number in range(3)]))
    for number in range(3):
        assert "\n".join(server.call("show-options", *target, "-v", f"@word{number}")) == word


def test_join_separates_commands_and_protects_semicolons() -> None:
    assert join([]) == []
    assert join([["a", "b"]]) == ["a", "b"]
    assert join([["a", "b;"], ["c", ";"]]) == ["a", "b\\;", ";", "c", "\\;"]


# -- versions


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("tmux 3.3a", (3, 3, "a")),
        ("tmux 3.2", (3, 2, "")),
        ("tmux 3.2a\n", (3, 2, "a")),
        ("tmux 3.10", (3, 10, "")),
        ("tmux 3.4-rc2", (3, 4, "")),
        ("tmux next-3.6", (3, 6, "")),
        ("tmux 1.8", (1, 8, "")),
        ("tmux master", None),
        ("tmux openbsd-7.3", None),
        ("", None),
    ],
)
def test_version_of(text: str, version: tuple[int, int, str] | None) -> None:
    assert version_of(text) == version


def test_versions_are_compared_as_numbers() -> None:
    old = [version_of(f"tmux {text}") for text in ("1.8", "2.9a", "3.0a", "3.1c", "3.2", "3.2-rc3")]
    new_enough = [version_of(f"tmux {text}") for text in ("3.2a", "3.3", "3.3a", "3.10", "4.0", "10.1")]
    assert all(version is not None and version < OLDEST for version in old)
    assert all(version is not None and version >= OLDEST for version in new_enough)


# -- a tmux that is not there, or not as it should be


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str | None) -> None:
    """Put a program `tmux` before all others; none at all if there is no script."""
    if script is None:
        monkeypatch.setenv("PATH", str(folder))
        return
    program = folder / "tmux"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_tmux_that_is_new_enough_is_accepted() -> None:
    require()


@pytest.mark.parametrize("answer", ["tmux 3.2a", "tmux 3.4", "tmux 10.0", "tmux master", "tmux next-3.7"])
def test_a_new_tmux_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    pretend(tmp_path, monkeypatch, f"echo {answer}")
    require()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        pytest.param("echo tmux 3.1c", "tmux 3.1c is too old: 3.2a or newer is needed", id="old"),
        pytest.param("echo tmux 3.2", "tmux 3.2 is too old: 3.2a or newer is needed", id="just too old"),
        pytest.param(None, "tmux is not installed", id="none"),
        pytest.param("echo 'libevent.so.7: cannot open' >&2; exit 127", "libevent.so.7: cannot open", id="broken"),
        pytest.param("exit 1", "tmux can't be run", id="silent"),
    ],
)
def test_a_tmux_that_can_not_be_used_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, message: str
) -> None:
    pretend(tmp_path, monkeypatch, script)
    with pytest.raises(MissingProgram) as caught:
        require()
    assert caught.value.exit_code == 2
    assert message in caught.value.message
    assert "tmux" in (caught.value.hint or "") and "executor: local" in (caught.value.hint or "")


@pytest.mark.parametrize("script", ["echo tmux 3.0a", None], ids=["too old", "none"])
def test_start_without_a_usable_tmux_is_exit_code_2_and_starts_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    bench = lab.workspace(tasks={"exp1.yml": ""})
    programs = lab.folder / "programs"
    programs.mkdir()
    pretend(programs, monkeypatch, script)
    answer = bench.run("start", code=2, PATH=os.environ["PATH"])
    assert "tmux" in answer.err and "executor: local" in answer.err
    assert bench.record() == [] and lab.processes() == []


# -- servers


def test_without_a_server_there_are_no_panes_and_no_sessions(no_server: Tmux) -> None:
    assert no_server.panes() == []
    assert no_server.session_names() == set()
    assert no_server.pane_of("any") is None
    no_server.kill_session(Pane("$0", "%0", 1))


def test_a_socket_that_a_killed_server_left_behind_is_no_server(no_server: Tmux) -> None:
    pane = no_server.create(new("one"))
    (pid,) = no_server.call("display-message", "-p", "-t", pane.pane_id, "#{pid}")
    killed = processes.identify(int(pid))
    assert killed is not None and processes.send(killed, signal.SIGKILL) and processes.wait_for([killed], 10)
    assert no_server.panes() == []
    assert no_server.session_names() == set()
    no_server.create(new("two"))
    assert no_server.session_names() == {"two"}


def test_a_server_without_a_session_has_no_panes(no_server: Tmux, lab: Lab) -> None:
    (lab.folder / "home" / ".tmux.conf").write_text("set -s exit-empty off\n")
    assert lab.tmux("start-server").returncode == 0
    assert no_server.session_names() == set()
    assert no_server.panes() == []
    assert no_server.pane_of("any") is None


def test_a_session_with_the_id_of_one_that_is_gone_is_not_closed(server: Tmux) -> None:
    """A server that was started anew gives out the same ids."""
    pane = server.create(new("later", options=(("@tinksched_run", "22"),)))
    try:
        server.kill_sessions([replace(pane, run="11"), replace(pane, workspace="w")])
        assert "later" in server.session_names()
    finally:
        server.kill_session(pane)
    assert "later" not in server.session_names()


def test_several_sessions_are_closed_and_made_at_once(server: Tmux) -> None:
    before = server.session_names()
    many = [new(f"many{number}", options=(("@tinksched_run", f"{number}"),)) for number in range(40)]
    panes = server.create_all(many)
    assert server.session_names() - before == {session.name for session in many}
    server.kill_session(panes[7])
    server.kill_sessions(panes)
    assert server.session_names() == before


def test_of_several_sessions_those_before_a_refused_one_are_made(server: Tmux) -> None:
    with pytest.raises(TmuxError, match="duplicate session"):
        server.create_all([new("first"), new(KEPT), new("third")])
    made = server.pane_of("first")
    assert made is not None and server.pane_of("third") is None
    server.kill_session(made)


def test_a_name_that_no_session_has_is_none(server: Tmux) -> None:
    assert server.pane_of("nobody has this name") is None


def test_panes_of_others_are_not_ours(server: Tmux) -> None:
    ours = server.create(new("ours", options=(("@tinksched_run", "77"), ("@tinksched_workspace", "w"))))
    try:
        assert [(pane.session_id, pane.run, pane.workspace) for pane in server.panes()] == [
            (ours.session_id, "77", "w")
        ]
    finally:
        server.kill_session(ours)


def test_a_private_socket_is_another_server(no_server: Tmux) -> None:
    private = Tmux("private")
    private.create(new("one"))
    assert private.session_names() == {"one"} and no_server.session_names() == set()
    assert private.arguments() == ["tmux", "-L", "private"] and no_server.arguments() == ["tmux"]
