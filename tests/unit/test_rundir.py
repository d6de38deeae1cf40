"""The folder of a run: what a real shell makes of its `command`, and who decides whether the run begins."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinksched.executors.base import WRAPPER
from tinksched.host.rundir import ExitStatus, RunDir, exec_script, write_private

SHELLS = [shell for shell in (["/bin/sh"], ["dash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(shell[0])]
every_shell = pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
# Writes its own arguments and environment as the kernel has them, each preceded by its length.
PRINTER = (
    sys.executable, "-ISc",
    "import sys\n"
    "for name in ('cmdline', 'environ'):\n"
    "    data = open(f'/proc/self/{name}', 'rb').read()\n"
    "    sys.stdout.buffer.write(len(data).to_bytes(8, 'big') + data)\n",
)  # fmt: skip


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    folder = RunDir(tmp_path / "runs" / "00ff")
    folder.prepare(["true"], {})
    return folder


def what_runs(
    command: Sequence[str], environment: Mapping[str, str], shell: Sequence[str] = SHELLS[0]
) -> tuple[list[bytes], list[bytes]]:
    """The arguments and the environment with which the wrapper, itself in an empty one, would run this."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(exec_script(command, environment))
        file.flush()
        script = 'trap : TERM; (. "$1") </dev/null'
        done = subprocess.run(
            [*shell, "-c", script, "sh", file.name],
            capture_output=True, timeout=30, check=False, env={},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    found = []
    rest = done.stdout
    while rest:
        size = int.from_bytes(rest[:8], "big")
        found.append(rest[8 : 8 + size].split(b"\0")[:-1])
        rest = rest[8 + size :]
    arguments, variables = found
    return arguments, variables


# ---------------------------------------------------------------- from tinksched through the shell to the program

anything = st.binary(max_size=40).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
plain_names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
odd_names = st.binary(min_size=1, max_size=8).map(
    lambda raw: os.fsdecode(b"x" + raw.replace(b"\0", b"").replace(b"=", b""))
)


@settings(max_examples=60, deadline=None)
@given(st.lists(anything, max_size=5), st.dictionaries(plain_names | odd_names, anything, max_size=5))
def test_the_program_gets_exactly_the_arguments_and_the_environment(
    arguments: list[str], environment: dict[str, str]
) -> None:
    got, variables = what_runs([*PRINTER, *arguments], environment)
    assert got == [os.fsencode(word) for word in (*PRINTER, *arguments)]
    assert sorted(variables) == sorted(os.fsencode(f"{name}={value}") for name, value in environment.items())


HARD_WORDS = [
    "", " ", "'", "''", "\"'\"", "it's", "$HOME", "`id`", "$(id)", "\\", "\\'", "\n", "a\nb\n", "*", "~", "#x", "-n",
    "--", "!x", "a;b", "a&b", "\t", "\r", "\x1b[31m", "ä🚀", "\udcff\udc80", "{a,b}", "=", "A=B", "%s", "x" * 100_000,
]  # fmt: skip


@every_shell
def test_words_that_mean_something_to_a_shell_arrive_unchanged(shell: Sequence[str]) -> None:
    environment = {f"V{number}": word for number, word in enumerate(HARD_WORDS)}
    got, variables = what_runs([*PRINTER, *HARD_WORDS], environment, shell)
    assert got[len(PRINTER) :] == [os.fsencode(word) for word in HARD_WORDS]
    assert sorted(variables) == sorted(os.fsencode(f"{name}={value}") for name, value in environment.items())


@every_shell
@pytest.mark.parametrize("name", ["BASH_FUNC_x%%", "a.b", "1", "a-b", "A B", "ä", "IFS", "PS4", "ENV", "_", "PATH"])
def test_variables_whose_names_a_shell_refuses_or_uses_arrive_all_the_same(shell: Sequence[str], name: str) -> None:
    value = "() {  echo no; }" if name.startswith("BASH") else os.environ["PATH"]
    _, variables = what_runs(PRINTER, {name: value}, shell)
    assert variables == [os.fsencode(f"{name}={value}")]


def test_nothing_of_the_wrappers_own_environment_reaches_the_program() -> None:
    assert what_runs(PRINTER, {})[1] == []


def test_the_program_is_looked_up_on_the_path_of_the_run(tmp_path: Path) -> None:
    program = tmp_path / "only-here"
    program.symlink_to(sys.executable)
    got, _ = what_runs(["only-here", *PRINTER[1:], "x"], {"PATH": str(tmp_path)})
    assert got[0] == b"only-here"
    assert got[-1] == b"x"


def test_a_program_whose_path_has_an_equals_sign_is_run(tmp_path: Path) -> None:
    folder = tmp_path / "lr=0.1"  # as people name the folders of their experiments
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    environment = {"A": "1", "BASH_FUNC_x%%": "() {  echo; }", "a.b": "c"}
    got, variables = what_runs([str(folder / "python"), *PRINTER[1:], "", "x y"], environment)
    assert got == [os.fsencode(word) for word in (folder / "python", *PRINTER[1:], "", "x y")]
    assert variables == [b"A=1", b"BASH_FUNC_x%%=() {  echo; }", b"a.b=c"]


def test_a_variable_whose_name_looks_like_an_option_arrives(tmp_path: Path) -> None:
    assert what_runs(PRINTER, {"-S": "x", "-u": "A"})[1] == [b"-S=x", b"-u=A"]


def test_a_large_environment_arrives(tmp_path: Path) -> None:
    environment = {f"V{number}": "x" * 10_000 for number in range(50)}
    assert len(what_runs(PRINTER, environment)[1]) == 50


# ---------------------------------------------------------------- the folder


def test_the_folder_and_its_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        folder = RunDir(tmp_path / "00ff")
        folder.prepare(["true"], {"TOKEN": "secret"})
        taken = RunDir(tmp_path / "00fe")
        taken.prepare(["true"], {})
        assert taken.take_back()
    finally:
        os.umask(previous)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    files = [*folder.path.iterdir(), *taken.path.iterdir()]
    prepared = ["command.sh", "exit", "never"]
    assert sorted(file.name for file in files) == sorted(["began", *prepared, *prepared])
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_folder_is_prepared_only_once(run_dir: RunDir) -> None:
    with pytest.raises(FileExistsError):
        run_dir.prepare(["something", "else"], {})
    assert (run_dir.path / "command.sh").read_bytes() == exec_script(["true"], {})


def test_a_private_file_is_never_written_over(tmp_path: Path) -> None:
    write_private(tmp_path / "x", b"first")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "x", b"second")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "link", b"through")
    assert (tmp_path / "x").read_bytes() == b"first"
    assert not (tmp_path / "target").exists()


def test_a_removed_folder_is_gone_and_removing_again_is_fine(run_dir: RunDir) -> None:
    (run_dir.path / "exit").write_text("0\n")
    run_dir.remove()
    assert not run_dir.path.exists()
    run_dir.remove()


# ---------------------------------------------------------------- what the wrapper says


def test_a_fresh_folder_says_nothing(run_dir: RunDir) -> None:
    assert (run_dir.began(), run_dir.never(), run_dir.exit_status()) == (None, None, None)


def test_a_folder_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    folder = RunDir(tmp_path / "none")
    assert (folder.began(), folder.never(), folder.exit_status()) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "code"), [("0\n", 0), ("1\n", 1), ("255\n", 255), ("007\n", 7), ("0\n......", 0), ("137\n....", 137)]
)
def test_an_exit_status_is_its_number_and_the_time_of_its_file(run_dir: RunDir, text: str, code: int) -> None:
    file = run_dir.path / "exit"
    file.write_text(text)
    os.utime(file, (1, 1_700_000_000.5))
    assert run_dir.exit_status() == ExitStatus(code, 1_700_000_000.5)


@pytest.mark.parametrize(
    "text", ["", "1", "13", "\n", "-1\n", " 1\n", "1 \n", "1\n\n", "1\n2\n", "x\n", "1.5\n", "1.", "........"]
)
def test_a_status_that_is_not_whole_does_not_count(run_dir: RunDir, text: str) -> None:
    (run_dir.path / "exit").write_text(text)
    (run_dir.path / "began").write_text(text)
    assert run_dir.exit_status() is None
    assert run_dir.began() is None


@pytest.mark.parametrize("text", ["²\n", "9" * 5000 + "\n"], ids=["superscript", "too long"])
def test_a_status_that_only_looks_like_a_number_does_not_count(run_dir: RunDir, text: str) -> None:
    (run_dir.path / "exit").write_text(text)
    assert run_dir.exit_status() is None


def test_bytes_that_are_no_text_do_not_count(run_dir: RunDir) -> None:
    for name in ("exit", "began"):
        (run_dir.path / name).write_bytes(b"\xff\xfe\n")
    assert run_dir.exit_status() is None
    assert run_dir.began() is None


def test_who_began_and_why_not_are_read_once_they_are_whole(run_dir: RunDir) -> None:
    (run_dir.path / "began").write_text("4194304\n")
    (run_dir.path / "never").write_text("its lease was revoked")
    assert run_dir.began() == 4_194_304
    assert run_dir.never() is None
    (run_dir.path / "never").write_text("its lease was revoked\n")
    assert run_dir.never() == "its lease was revoked"


def test_an_empty_reason_is_a_reason(run_dir: RunDir) -> None:
    (run_dir.path / "never").write_text("\n")
    assert run_dir.never() == ""


# ---------------------------------------------------------------- who decides whether a run begins


def test_a_run_that_has_not_begun_can_be_taken_back(run_dir: RunDir) -> None:
    assert run_dir.take_back()
    assert run_dir.began() is None
    assert sorted(entry.name for entry in run_dir.path.iterdir()) == ["began", "command.sh", "exit", "never"]


def test_a_run_that_has_begun_can_not_be_taken_back(run_dir: RunDir) -> None:
    (run_dir.path / "began").write_text("17\n")
    assert not run_dir.take_back()
    assert run_dir.began() == 17


def test_a_run_whose_pid_is_being_written_has_begun(run_dir: RunDir) -> None:
    (run_dir.path / "began").touch()
    assert not run_dir.take_back()


def test_a_run_whose_folder_is_gone_can_not_begin(tmp_path: Path) -> None:
    assert RunDir(tmp_path / "none").take_back()
    assert not (tmp_path / "none").exists()


def test_a_run_that_was_taken_back_stays_taken_back_for_whoever_asks_next(run_dir: RunDir) -> None:
    assert run_dir.take_back()
    assert RunDir(run_dir.path).take_back()


def claim_of_the_wrapper() -> str:
    """The lines of wrapper.sh that create `began`."""
    lines = WRAPPER.read_text().split("set -C\n")[1].split("set +C\n")[0]
    assert "began" in lines
    return f"pid=17\nset -C\n{lines}\nset +C\n"


@every_shell
def test_the_wrapper_does_not_begin_a_run_that_was_taken_back(run_dir: RunDir, shell: Sequence[str]) -> None:
    assert run_dir.take_back()
    done = subprocess.run(
        [*shell, "-c", f"run_dir=$1\n{claim_of_the_wrapper()}echo began", "sh", str(run_dir.path)],
        capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert run_dir.began() is None
    assert run_dir.take_back()


@every_shell
def test_when_both_sides_decide_at_once_exactly_one_wins(tmp_path: Path, shell: Sequence[str]) -> None:
    """One shell plays the wrapper of run after run; both sides begin when it reads the run's folder."""
    script = f"echo ready\nwhile read -r run_dir; do ( {claim_of_the_wrapper()} echo began ); echo over; done"
    head_start = rounds = 0
    with subprocess.Popen(
        [*shell, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as wrapper:
        assert wrapper.stdin is not None
        assert wrapper.stdout is not None
        assert wrapper.stdout.readline() == "ready\n"
        for rounds in range(1, 301):
            folder = RunDir(tmp_path / str(rounds))
            folder.prepare(["true"], {})
            wrapper.stdin.write(f"{folder.path}\n")
            for _ in range(head_start):
                os.getppid()
            taken_back = folder.take_back()
            first = wrapper.stdout.readline()
            began = first == "began\n"
            assert began is not taken_back
            assert not began or wrapper.stdout.readline() == "over\n"
            assert (folder.began() is not None) is began
            # Whoever lost gets a head start of some more system calls, so that both arrive at nearly the same instant.
            head_start = max(0, head_start + (-100 if began else 100))
        wrapper.stdin.close()
        assert wrapper.wait(30) == 0
    assert rounds == 300
