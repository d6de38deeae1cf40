"""Configurations of older schedulers: what is changed in them, what survives, and what the user is told."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinksched.cli.legacy import translate
from tinksched.config import KEYS, load
from tinksched.config.document import MappingNode, compose
from tinksched.errors import ConfigError, MissingProgram, UsageError
from tinksched.host import tmux
from tinksched.host.gpus import Device, Inventory, resolve
from tinksched.operations import meanings
from tinksched.operations import migrate as migration
from tinksched.operations.migrate import TITLE, Migrated, migrate
from tinksched.operations.setup import setup_workspace

FOUNDING = """\
# Basics
task_name: "vision"            # in names of sessions
work_dir: "."

# Where things are
config_dir: "configs"
script_path: 'train.py'        # written by hand
python_env: python3
output_dir: "out"

scheduler_session_suffix: "_scheduler"
worker_prefix: ""

max_jobs_per_gpu: 2
gpu_count: 2                   # two cards

check_interval: 30
startup_delay: 1               # seconds
command_delay: 0.5

log_dir: "/tmp"
enable_logging: true

conda_env: "base"              # the usual one
cuda_visible_devices_var: "CUDA_VISIBLE_DEVICES"
config_pattern: "*.yml"

auto_restart_failed: false
max_retries: 3
cleanup_on_complete: false
"""
OLD_KEYS = [line.split(":")[0] for line in FOUNDING.splitlines() if line[:1].isalpha()]


@pytest.fixture(autouse=True)
def no_conda(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> dict[str, str]:
        raise MissingProgram(f"conda_env is {name!r}, but there is no conda on this machine")

    monkeypatch.setattr(meanings, "conda_environment", missing)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    (folder / "configs").mkdir(parents=True)
    (folder / "train.py").write_text("")
    return folder


def own_part(done: Migrated) -> str:
    """The text without what was added at its end."""
    return done.text.split(TITLE)[0]


def notes(done: Migrated) -> dict[str, str]:
    return {note.key: note.text for note in done.notes}


# ---------------------------------------------------------------- an old file


def test_the_old_file_has_the_21_keys_that_there_were() -> None:
    assert len(OLD_KEYS) == len(set(OLD_KEYS)) == 21
    assert set(OLD_KEYS) <= set(KEYS)


def test_every_line_stays_but_the_two_that_mean_something_else(workspace: Path) -> None:
    done = migrate(FOUNDING, workspace)
    before, after = FOUNDING.splitlines(), done.text.splitlines()
    changed = {number + 1: after[number] for number, line in enumerate(before) if line != after[number]}
    delay, conda = (next(n for n, line in enumerate(before, 1) if line.startswith(k)) for k in ("startup", "conda"))
    assert set(changed) == {delay, conda}
    assert changed[delay].startswith(
        "startup_delay: 0               # seconds   # tinksched: 1 became 0: was the pause"
    )
    assert changed[conda].startswith('#conda_env: "base"              # the usual one   # tinksched: there is no conda')


def test_what_is_missing_comes_at_the_end_as_comments_with_the_defaults(workspace: Path) -> None:
    done = migrate(FOUNDING, workspace)
    assert done.text.count(TITLE) == 1
    block = done.text.split(TITLE)[1]
    assert all(line.startswith("#") for line in block.splitlines()[1:] if line)
    assert set(done.added) == {name for name, key in KEYS.items() if not key.note} - set(OLD_KEYS)
    assert re.findall(r"^#([a-z_]+):", block, re.MULTILINE) == list(done.added)
    assert max(map(len, done.text.split("\n"))) < 200
    assert max(map(len, block.splitlines())) <= 120


def test_each_added_line_is_the_default_once_its_mark_is_removed(workspace: Path) -> None:
    done = migrate(FOUNDING, workspace)
    plain = {row[0]: row[1] for row in done.settings.rows()}
    head, block = done.text.split(TITLE)
    path = workspace / "scheduler_config.yml"
    path.write_text(head + TITLE + re.sub(r"^#(?=[a-z_]+:)", "", block, flags=re.MULTILINE))
    assert {row[0]: row[1] for row in load(workspace).rows()} == plain


def test_the_notes_name_every_value_that_means_something_else(workspace: Path) -> None:
    done = migrate(FOUNDING, workspace)
    assert list(notes(done)) == [
        "max_jobs_per_gpu",
        "startup_delay",
        "command_delay",
        "log_dir",
        "conda_env",
        "auto_restart_failed",
        "max_retries",
    ]
    lines = done.text.splitlines()
    for note in done.notes:
        assert lines[note.line - 1].lstrip("#").startswith(f"{note.key}:"), "a note names the line"
        assert "\n" not in str(note) and str(note).startswith(f"scheduler_config.yml:{note.line}: {note.key}: ")


def test_the_second_time_changes_nothing_and_says_nothing(workspace: Path) -> None:
    once = migrate(FOUNDING, workspace)
    twice = migrate(once.text, workspace)
    assert (twice.text, twice.added, twice.notes) == (once.text, (), ())


def test_a_value_that_the_user_sets_after_the_migration_stays(workspace: Path) -> None:
    text = migrate(FOUNDING, workspace).text.replace("startup_delay: 0 ", "startup_delay: 1 ")
    assert migrate(text, workspace).text == text


def test_a_file_of_this_version_is_left_alone(workspace: Path) -> None:
    setup_workspace(workspace, force=False)
    text = (workspace / "scheduler_config.yml").read_text()
    done = migrate(text, workspace)
    assert done.notes == ()
    assert own_part(done).rstrip() == text.rstrip()


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("task_name: 'a.b'", "the sessions are called a_b"),
        ("work_dir: gone", "there is no folder"),
        ("script_path: gone.py", "there is no file"),
        ("python_env: /path/to/python", "there is no /path/to/python"),
        ("check_interval: 5", "ends are noticed at once"),
        ("startup_delay: 4", "the least seconds between two starts on the same GPU"),
        ("log_dir: /tmp/", "better: logs"),
        ("conda_env: mine", "there is no conda"),
        ("auto_restart_failed: true", "runs that fail are tried again"),
    ],
)
def test_values_that_are_kept_and_talked_about(workspace: Path, line: str, word: str) -> None:
    key = line.split(":")[0]
    text = re.sub(rf"^{key}:.*$", line, FOUNDING, flags=re.MULTILINE)
    done = migrate(text, workspace)
    assert word in notes(done)[key]
    assert line in done.text.splitlines()


@pytest.mark.parametrize(
    "line", ["check_interval: 60", "startup_delay: 0", "log_dir: logs", "conda_env: ''", "python_env: ''"]
)
def test_values_that_need_no_word(workspace: Path, line: str) -> None:
    key = line.split(":")[0]
    assert key not in notes(migrate(re.sub(rf"^{key}:.*$", line, FOUNDING, flags=re.MULTILINE), workspace))


def test_with_conda_its_environment_stays(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meanings, "conda_environment", lambda name: {})
    done = migrate(FOUNDING, workspace)
    assert 'conda_env: "base"              # the usual one' in done.text.splitlines()
    assert "conda_env" not in notes(done)


def test_a_conda_that_lacks_the_environment_is_said_and_nothing_changed(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(name: str) -> dict[str, str]:
        raise UsageError(f"conda_env: conda has no environment {name!r}")

    monkeypatch.setattr(meanings, "conda_environment", lacking)
    done = migrate(FOUNDING, workspace)
    assert 'conda_env: "base"              # the usual one' in done.text.splitlines()
    assert notes(done)["conda_env"] == "conda has no environment 'base'; `start` refuses that now"


def test_more_gpus_than_there_are(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Inventory((Device(0, "GPU-a"),), driver=True, problem=None)

    def one(found: object) -> object:
        return resolve(there, gpu_count=2, use_gpus=None, visible=None)

    monkeypatch.setattr(meanings, "resolve_gpus", one)
    assert notes(migrate(FOUNDING, workspace))["gpu_count"].startswith("2, but this machine has 1: GPU 0")


def test_configs_that_are_no_tasks_any_more(workspace: Path) -> None:
    for name in ("_base.yml", ".hidden.yml", "_notes.txt", "a.yml"):
        (workspace / "configs" / name).write_text("")
    assert notes(migrate(FOUNDING, workspace))["config_pattern"].endswith("now: .hidden.yml, _base.yml")


# ---------------------------------------------------------------- keys of others, and spellings


def test_an_unknown_key_becomes_a_comment_with_all_its_lines(workspace: Path) -> None:
    text = (
        "task_name: demo  # mine\n"
        "slack:   # tell me\n"
        "  url: http://example.org\n"
        "\n"
        "  users:\n"
        "  - me\n"
        "# about the next\n"
        "gpu_cont: 3\n"
        "hosts:\n"
        "- a\n"
        "- b\n"
        "note: |\n"
        "  two\n"
        "  lines\n"
        "flow: {a: 1,\n"
        "b: 2}\n"
        "\n"
        "gpu_count: 1\n"
    )
    done = migrate(text, workspace)
    reason = "   # tinksched: tinksched has no such key"
    assert own_part(done) == (
        "task_name: demo  # mine\n"
        f"#slack:   # tell me{reason}\n"
        "#  url: http://example.org\n"
        "#\n"
        "#  users:\n"
        "#  - me\n"
        "# about the next\n"
        f"#gpu_cont: 3{reason} (did you mean 'gpu_count'?)\n"
        f"#hosts:{reason}\n"
        "#- a\n"
        "#- b\n"
        f"#note: |{reason}\n"
        "#  two\n"
        "#  lines\n"
        f"#flow: {{a: 1,{reason}\n"
        "#b: 2}\n"
        "\n"
        "gpu_count: 1\n"
        "\n"
    )
    assert [(note.line, note.key) for note in done.notes if "no such key" in note.text] == [
        (2, "slack"), (8, "gpu_cont"), (9, "hosts"), (12, "note"), (15, "flow"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("enable_logging: yes", "enable_logging: true"),
        ("cleanup_on_complete: 'off'", "cleanup_on_complete: false"),
        ("worker_prefix: 42", 'worker_prefix: "42"'),
        ("conda_env:   3.10   # mine", 'conda_env:   "3.10"   # mine'),
        ("task_name: 007", 'task_name: "007"'),
    ],
)
def test_a_value_that_only_lacks_quotes_or_says_yes_is_respelled(workspace: Path, line: str, after: str) -> None:
    text = line if line.startswith("task_name") else f"task_name: demo\n{line}"
    done = migrate(f"{text}\n", workspace)
    key = line.split(":")[0]
    assert own_part(done).splitlines()[-2].startswith(f"{after}   # tinksched: ")
    assert " became " in notes(done)[key]


def test_quotes_that_the_old_scheduler_wanted_stay_as_they_are(workspace: Path) -> None:
    text = "task_name: demo\ngpu_count: '2'\nmax_jobs_per_gpu: \"3\"\nenable_logging: 'true'\nconfig_pattern: *.yml\n"
    done = migrate(text, workspace)
    assert own_part(done) == f"{text}\n"
    assert (done.settings.gpu_count, done.settings.max_jobs_per_gpu) == (2, 3)


@pytest.mark.parametrize(
    "line",
    ['gpu_count: "null"', "gpu_count: many", "max_jobs_per_gpu: 0", 'max_jobs_per_gpu: "0"', "check_interval: soon"],
)
def test_what_can_not_be_meant_is_not_guessed(workspace: Path, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        migrate(f"task_name: demo\nother: 1\n{line}\n", workspace)
    assert [(problem.line, problem.file) for problem in caught.value.problems] == [
        (3, str(workspace / "scheduler_config.yml"))
    ]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("task_name: 'demo\n", "never closed"),
        ('"task_name": demo\n? other\n: 1\n', "unknown key 'other'"),
        ("task_name: demo\nother: a\u2028b\n", "unknown key 'other'"),
        ("task_name: demo\ntask_name: other\n", "duplicate key"),
        ("\ttask_name: demo\n", "tab"),
        ("- demo\n", "a map of keys"),
        ("", "the file is empty"),
        ("gpu_count: 1\n", "task_name is missing"),
        ("{task_name: demo, other: 1}\n", "unknown key 'other'"),
        ("task_name: demo\nx: &x 2\ngpu_count: *x\n", "alias"),
    ],
)
def test_what_can_not_be_loaded_is_refused_in_words(workspace: Path, text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(word)):
        migrate(text, workspace)


@pytest.mark.parametrize("text", ["{task_name: demo, gpu_count: 2}\n", "{\n  task_name: demo,\n  gpu_count: 2\n}\n"])
def test_a_map_in_braces_has_no_line_to_add_to(workspace: Path, text: str) -> None:
    assert migrate(text, workspace).text == text


def test_a_value_that_would_swallow_what_is_added_is_refused(workspace: Path) -> None:
    with pytest.raises(UsageError, match="without changing pre_run"):
        migrate("task_name: demo\npre_run: |+\n  true\n\n", workspace)


def test_merge_keys_and_anchors_are_understood(workspace: Path) -> None:
    text = "task_name: demo\ntasks: &t\n  a: {gpus: 1}\n<<: {gpu_count: 2}\nenvironment: {A: &a x}\nargs: [*a]\n"
    done = migrate(text, workspace)
    assert own_part(done) == f"{text}\n"
    assert (done.settings.gpu_count, done.settings.args) == (2, ("x",))


@pytest.mark.parametrize(
    "text",
    [
        "task_name: demo",
        "task_name: demo\r\nother: 1\r\n",
        "  task_name: demo\n  other:\n    - 1\n  startup_delay: 1\n",
        "# only\n\n---\ntask_name: demo\nother:\n",
        "task_name: demo\nother:\n# end\n",
        "task_name: démo\nwork_dir: /ü\u2028x\nother: ünknown\n",
    ],
)
def test_any_shape_of_file_loads_afterwards_and_again(workspace: Path, text: str) -> None:
    done = migrate(text, workspace)
    (workspace / "scheduler_config.yml").write_bytes(done.text.encode())
    assert load(workspace).task_name in ("demo", "démo")
    assert migrate(done.text, workspace).text == done.text
    if "\r\n" in text:
        assert "\n" not in done.text.replace("\r\n", "")
    indent = len(text) - len(text.lstrip(" "))
    added = next(line for line in done.text.splitlines() if line.lstrip() == "#keep_sessions: 20")
    assert added.index("#") == indent


# Values as people write them, in each style.

TEXTS = {
    "work_dir": st.sampled_from([".", "/a b", "./x#y", "~", "ü", "a: b", "it's", 'say "hi"', "${task_name}/x"]),
    "python_env": st.sampled_from(["python3", "/opt/my env/bin/python", "C\\x", "venv # not a comment"]),
    "worker_prefix": st.text(string.ascii_letters + string.punctuation.replace("/", "") + " ", max_size=12),
    "conda_env": st.sampled_from(["", "mine", "my env"]),
}
NUMBERS = {
    "max_jobs_per_gpu": st.integers(1, 9).map(str),
    "gpu_count": st.sampled_from(["1", "2", "auto", "0x2"]),
    "check_interval": st.sampled_from(["30", "10.5", "1m", "+5", "1e2"]),
    "startup_delay": st.sampled_from(["0", "2", "1.5"]),
    "enable_logging": st.sampled_from(["true", "False"]),
}


def styled(value: str, style: str) -> str:
    if style == "'":
        return "'" + value.replace("'", "''") + "'"
    if style == '"':
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return value


@st.composite
def configurations(draw: st.DrawFn) -> str:
    lines = [f"task_name: {styled('demo', draw(st.sampled_from(['', chr(39), chr(34)])))}"]
    for key, values in (TEXTS | NUMBERS).items():
        if draw(st.booleans()):
            style = draw(st.sampled_from(["", "'", '"'])) if key in TEXTS else ""
            lines.append(f"{key}:{draw(st.sampled_from([' ', '   ']))}{styled(draw(values), style)}")
    lines = draw(st.permutations(lines))
    out = []
    for line in lines:
        out += draw(st.lists(st.sampled_from(["", "# a comment", "#gone: 1", "   # indented: yes"]), max_size=2))
        out.append(line + draw(st.sampled_from(["", "  # why", " #", "   "])))
    return draw(st.sampled_from(["\n", "\r\n"])).join(out) + draw(st.sampled_from(["", "\n", "\n\n"]))


def contents(text: str) -> dict[str, object]:
    root = compose(text).root
    assert isinstance(root, MappingNode)
    return {entry.key.text: getattr(entry.value, "text", None) for entry in root.entries}


@given(text=configurations())
@settings(max_examples=150, deadline=None)
def test_values_comments_and_quotes_survive(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    document = compose(text)
    if document.broken:
        with pytest.raises(ConfigError):
            migrate(text, folder)
        return
    try:
        done = migrate(text, folder)
    except ConfigError:
        return  # a value that its key can't have, in any spelling
    assert contents(done.text) == contents(text)
    respelled = {note.line for note in done.notes if " became " in note.text}
    after = done.text.splitlines()
    for number, line in enumerate(text.splitlines()):
        if number + 1 not in respelled:
            assert after[number] == line
    assert migrate(done.text, folder).text == done.text


# ---------------------------------------------------------------- the files


def write_old(workspace: Path, config: str = FOUNDING) -> None:
    (workspace / "scheduler_config.yml").write_text(config)
    (workspace / "scheduler.sh").write_text("#!/bin/bash\nexec /gone/scheduler_main.sh\n")
    (workspace / "configs" / "a.yml").write_text("root_dir: out\n")
    (workspace / "out").mkdir()
    (workspace / "out" / "a_completed.txt").write_text("")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_is_replaced_is_kept_and_the_rest_is_left_alone(workspace: Path) -> None:
    write_old(workspace)
    (workspace / ".gitignore").write_text("*.pt")
    (workspace / "scheduler_config.yml").chmod(0o640)
    before = files(workspace)
    done = setup_workspace(workspace, force=True)
    after = files(workspace)
    assert set(done.written) == {"scheduler_config.yml", "scheduler.sh", ".gitignore"}
    assert {after[name] for name in done.backups} == {before["scheduler_config.yml"], before["scheduler.sh"]}
    assert all(re.fullmatch(r"(scheduler_config\.yml|scheduler\.sh)\.bak-[0-9]{8}-[0-9]{6}", n) for n in done.backups)
    assert after[".gitignore"] == b"*.pt\n.tinksched/\n"
    assert (workspace / "scheduler_config.yml").stat().st_mode & 0o777 == 0o640
    assert (workspace / "scheduler.sh").stat().st_mode & 0o777 == 0o755
    assert {name: data for name, data in after.items() if name in before and name.startswith(("configs", "out"))} == {
        name: data for name, data in before.items() if name.startswith(("configs", "out"))
    }
    assert set(after) - set(before) == set(done.backups)


def test_again_nothing_is_written_and_no_copy_made(workspace: Path) -> None:
    write_old(workspace)
    setup_workspace(workspace, force=True)
    before = files(workspace)
    done = setup_workspace(workspace, force=True)
    assert files(workspace) == before
    assert (done.written, done.backups, done.notes) == ((), (), ())
    assert set(done.kept) == {"scheduler_config.yml", "scheduler.sh", ".gitignore"}


def test_a_copy_never_replaces_an_earlier_one(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_old(workspace)
    monkeypatch.setattr("tinksched.operations.setup.time.strftime", lambda form: "20260101-000000")
    names = []
    for text in ("first", "second", "third"):
        (workspace / "scheduler.sh").write_text(text)
        names += [name for name in setup_workspace(workspace, force=True).backups if name.startswith("scheduler.sh")]
    stem = "scheduler.sh.bak-20260101-000000"
    assert names == [stem, f"{stem}-2", f"{stem}-3"]
    assert [(workspace / name).read_text() for name in names] == ["first", "second", "third"]


def test_a_file_with_problems_leaves_everything_as_it_was(workspace: Path) -> None:
    write_old(workspace, FOUNDING + "gpu_count: 3\nmax_retries: many\n")
    before = files(workspace)
    with pytest.raises(ConfigError) as caught:
        setup_workspace(workspace, force=True)
    assert len(caught.value.problems) == 2
    assert files(workspace) == before


@pytest.mark.parametrize("data", [b"\xff\xfe", b"task_name: \xe9\n"])
def test_a_file_that_is_no_text_is_refused(workspace: Path, data: bytes) -> None:
    (workspace / "scheduler_config.yml").write_bytes(data)
    with pytest.raises(ConfigError, match="not UTF-8"):
        setup_workspace(workspace, force=True)
    assert (workspace / "scheduler_config.yml").read_bytes() == data


def test_links_stay_links_and_a_byte_order_mark_stays(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "shared.yml").write_bytes(b"\xef\xbb\xbftask_name: demo\r\n")
    (workspace / "scheduler_config.yml").symlink_to(tmp_path / "shared.yml")
    (workspace / "scheduler.sh").symlink_to("/gone/scheduler_wrapper.sh")
    done = setup_workspace(workspace, force=True)
    assert (workspace / "scheduler_config.yml").is_symlink()
    assert (tmp_path / "shared.yml").read_bytes().startswith(b"\xef\xbb\xbftask_name: demo\r\n")
    kept = {name.split(".bak")[0]: workspace / name for name in done.backups}
    assert kept["scheduler_config.yml"].read_bytes() == b"\xef\xbb\xbftask_name: demo\r\n"
    assert kept["scheduler.sh"].readlink() == Path("/gone/scheduler_wrapper.sh")
    assert not (workspace / "scheduler.sh").is_symlink()
    assert setup_workspace(workspace, force=True).written == ()


def test_a_template_that_was_copied_by_hand_is_filled_in(workspace: Path) -> None:
    template = Path(__file__).parents[2] / "templates" / "scheduler_config.yml"
    (workspace / "scheduler_config.yml").write_text(template.read_text())
    done = setup_workspace(workspace, force=True)
    assert "scheduler_config.yml" in done.written
    assert load(workspace).task_name == "ws"


def test_a_wrapper_without_a_configuration_gets_one(workspace: Path) -> None:
    (workspace / "scheduler.sh").write_text("old")
    done = setup_workspace(workspace, force=True)
    assert not done.migrated and len(done.backups) == 1
    assert load(workspace).task_name == "ws"


# ---------------------------------------------------------------- what still runs, and the old call


class Server:
    """A tmux server as `still_running` sees it: names, and whose each session is."""

    def __init__(self, sessions: dict[str, tuple[str, str]]) -> None:
        self.sessions = sessions

    def session_names(self) -> set[str]:
        return set(self.sessions)

    def pane_of(self, session: str) -> tmux.Pane:
        run, workspace = self.sessions[session]
        return tmux.Pane("$1", "%1", 1, run=run, workspace=workspace)

    def arguments(self) -> list[str]:
        return ["tmux"]


def test_only_foreign_sessions_of_this_name_are_named(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign, ours, run = ("", ""), ("", "12345678"), ("abc", "")
    sessions = {"T_scheduler": foreign, "T_a_gpu0": foreign, "T_b_gpu1": run, "T_2_scheduler": foreign, "x": foreign}
    monkeypatch.setattr(migration, "Tmux", lambda socket: Server(sessions))
    found = migrate("task_name: T\n", workspace).settings
    scheduler, runs = migration.still_running(found)
    assert "tmux kill-session -t '=T_scheduler'" in scheduler
    assert "sessions T_a_gpu0;" in runs
    sessions |= {"T_scheduler": ours, "T_a_gpu0": run}
    assert migration.still_running(found) == []


def test_without_tmux_nothing_can_run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = migrate("task_name: T\n", workspace).settings
    monkeypatch.setenv("PATH", "")
    assert migration.still_running(found) == []


def test_the_old_call_is_translated_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ws").mkdir()
    (tmp_path / "folder.yml").mkdir()
    for name in ("c.yml", "c.yaml", "start", "-c.yml"):
        (tmp_path / name).write_text("")
    for name in ("c.yml", "c.yaml", "-c.yml"):
        assert translate([name, "ws", "start", "a.yml", "0"]) == [
            "--config", name, "--workspace", "ws", "start", "a.yml", "0",
        ]  # fmt: skip
    assert translate(["c.yml", "ws"]) == ["--config", "c.yml", "--workspace", "ws"]
    for other in (
        [], ["c.yml"], ["start", "ws"], ["c.yml", "gone", "start"], ["gone.yml", "ws", "start"], ["folder.yml", "ws"],
        ["start", "c.yml", "ws"], ["--config", "c.yml", "ws"],
    ):  # fmt: skip
        assert translate(other) == other
