"""Settings: values, defaults, types, origins, options of tasks."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tinksched.config import KEYS, TASK_OPTIONS, Origin, RunningLimit, Settings, TaskOptions, load, plain
from tinksched.config.placeholders import expand
from tinksched.errors import ConfigError, UsageError, WorkspaceError


def write(folder: Path, text: str, name: str = "scheduler_config.yml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def settings(folder: Path, more: str = "") -> Settings:
    write(folder, f"task_name: demo\n{more}")
    return load(folder)


def test_every_key_has_its_default(tmp_path: Path) -> None:
    found = settings(tmp_path)
    home = tmp_path.resolve()
    assert {key: getattr(found, key) for key in KEYS if not KEYS[key].note} == {
        "task_name": "demo",
        "work_dir": home,
        "config_dir": home / "configs",
        "script_path": home / "train.py",
        "output_dir": home / "out",
        "python_env": None,
        "conda_env": "",
        "command": None,
        "args": (),
        "config_pattern": ("*.yml", "*.yaml"),
        "max_jobs_per_gpu": 2,
        "gpu_count": None,
        "use_gpus": None,
        "placement": "spread",
        "min_free_memory": None,
        "warmup": 60.0,
        "max_utilization": None,
        "respect_other_processes": True,
        "ignore_processes": (),
        "cpu_slots": None,
        "cuda_visible_devices_var": "CUDA_VISIBLE_DEVICES",
        "gpu_ids": "index",
        "environment": {},
        "pre_run": None,
        "post_run": None,
        "interactive": False,
        "tasks": (),
        "require_marker": False,
        "strict_exit": False,
        "keep_children": False,
        "stop_grace": 10.0,
        "time_limit": None,
        "stall_after": None,
        "kill_stalled": False,
        "auto_restart_failed": False,
        "retry_on": None,
        "max_retries": 3,
        "retry_delay": 10.0,
        "retry_args": (),
        "notify": (),
        "notify_on": ("failed", "stalled", "batch_done"),
        "on_event": None,
        "check_interval": 30.0,
        "startup_delay": 0.0,
        "scheduler_session_suffix": "_scheduler",
        "worker_prefix": "",
        "cleanup_on_complete": False,
        "keep_sessions": 20,
        "log_dir": home / "logs",
        "enable_logging": True,
        "log_max_size": 200_000_000,
        "min_free_disk": 1_000_000_000,
        "state_dir": home / ".tinksched",
        "executor": "tmux",
        "tmux_socket": "",
    }
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("python_env: ../envs/my env", "../envs/my env"),
        ('python_env: ""', None),
        ("python_env:", None),
        ("args: [--lr, 1e-3, 0.10, true, 'a b', 007]", ("--lr", "1e-3", "0.10", "true", "a b", "007")),
        ("args:", ()),
        ("config_pattern: 'exp*.yml'", ("exp*.yml",)),
        ("config_pattern: ['a*', b.yaml]", ("a*", "b.yaml")),
        ("max_jobs_per_gpu: 3", 3),
        ("max_jobs_per_gpu: 0x10", 16),
        ("max_jobs_per_gpu: 0o10", 8),
        ("max_jobs_per_gpu: 010", 10),
        ("gpu_count: auto", None),
        ("gpu_count: 4", 4),
        ("gpu_count:", None),
        ("use_gpus: [2, 0]", (2, 0)),
        ("use_gpus: [GPU-8a6f, 1, MIG-1]", ("GPU-8a6f", 1, "MIG-1")),
        ("use_gpus:", None),
        ("placement: pack", "pack"),
        ("executor: local", "local"),
        ("min_free_memory: 20GiB", 20 * 2**30),
        ("min_free_memory: auto", "auto"),
        ("min_free_memory: 0", 0),
        ("min_free_memory:", None),
        ("warmup: 2m", 120.0),
        ("warmup: 0", 0.0),
        ("max_utilization: 80", 80),
        ("max_utilization:", None),
        ("respect_other_processes: false", False),
        ("ignore_processes: gdm", ("gdm",)),
        ("ignore_processes: [gdm, '/usr/bin/python3 *']", ("gdm", "/usr/bin/python3 *")),
        ("ignore_processes: []", ()),
        ("cpu_slots: 0", 0),
        ("cpu_slots: 4", 4),
        ("cpu_slots: auto", None),
        ("cuda_visible_devices_var: HIP_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
        ("gpu_ids: uuid", "uuid"),
        ("require_marker: true", True),
        ("strict_exit: TRUE", True),
        ("enable_logging: False", False),
        ("stop_grace: 1.5m", 90.0),
        ("stop_grace: 0", 0.0),
        ("check_interval: 0.25", 0.25),
        ("check_interval: '45'", 45.0),
        ("check_interval: 2h", 7200.0),
        ("check_interval: 1d", 86400.0),
        ("startup_delay: 90s", 90.0),
        ("startup_delay: 3 m", 180.0),
        ("scheduler_session_suffix: ''", ""),
        ("worker_prefix:", ""),
        ("worker_prefix: w", "w"),
        ("keep_sessions: 0", 0),
        ("tmux_socket: lab", "lab"),
        ("environment:", {}),
        ("tasks:", ()),
        # in quotes, as old files have them
        ("max_jobs_per_gpu: '3'", 3),
        ('gpu_count: "4"', 4),
        ("gpu_count: 'auto'", None),
        ("strict_exit: 'true'", True),
        ('enable_logging: "False"', False),
        ("config_pattern: *.yml", ("*.yml",)),
        ("config_pattern: [*.yml, *.yaml]", ("*.yml", "*.yaml")),
        # starting things
        ("conda_env: base", "base"),
        ("conda_env:", ""),
        ("command: [torchrun, '--nproc_per_node={ngpus}', 1]", ("torchrun", "--nproc_per_node={ngpus}", "1")),
        ("command:", None),
        ("pre_run: cp -r 'my data' {output_dir}", ("/bin/sh", "-c", "cp -r 'my data' {output_dir}")),
        ("pre_run: |\n  a\n  b ${X}", ("/bin/sh", "-c", "a\nb ${X}")),
        ("pre_run: [cp, '{config}', /tmp]", ("cp", "{config}", "/tmp")),
        ("pre_run: ' '", None),
        ("post_run:", None),
        ("post_run: 'echo {task} > ${task_name}'", ("/bin/sh", "-c", "echo {task} > demo")),
        ("interactive: true", True),
        # limits and retries
        ("auto_restart_failed: true", True),
        ("retry_on: [oom, lost, timed_out, failed, 75, '1', oom]", ("oom", "lost", "timed_out", "failed", 75, 1)),
        ("retry_on: oom", ("oom",)),
        ("retry_on: 75", (75,)),
        ("retry_on: []", ()),
        ("retry_on:", None),
        ("max_retries: 0", 0),
        ("max_retries: 1000", 1000),
        ("retry_delay: 1m", 60.0),
        ("retry_args: [--resume, '--try={attempt}']", ("--resume", "--try={attempt}")),
        ("time_limit: 12h", 43200.0),
        ("time_limit: 0.5", 0.5),
        ("time_limit:", None),
        ("keep_children: true", True),
        ("log_max_size: 64kB", 64_000),
        ("log_max_size: 2 GiB", 2**31),
        ("min_free_disk: 0", 0),
        ("min_free_disk: '1.5TB'", 1_500_000_000_000),
        ("state_dir: /var/tmp/state", Path("/var/tmp/state")),
    ],
)
def test_a_value_from_the_file(tmp_path: Path, line: str, value: object) -> None:
    key = line.partition(":")[0]
    found = settings(tmp_path, line)
    assert getattr(found, key) == value
    assert found.origins[key] == Origin("file", 2, 1)


def test_variables_are_the_text_of_the_file(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        "environment:\n  A: 007\n  B: 1.50\n  C: True\n  D: 0x1F\n  E: 1e3\n  F: 2024-01-01\n  G: ''\n  H: |\n"
        "    two\n    lines\n  I: yes\n  7: x\n  J: $HOME/${x}/${task_name}\n  K: .inf\n",
    )
    assert found.environment == {
        "A": "007",
        "B": "1.50",
        "C": "True",
        "D": "0x1F",
        "E": "1e3",
        "F": "2024-01-01",
        "G": "",
        "H": "two\nlines\n",
        "I": "yes",
        "7": "x",
        "J": "$HOME/${x}/demo",
        "K": ".inf",
    }


def test_the_task_name_expands_in_every_text(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        "output_dir: out_${task_name}/x\n"
        "worker_prefix: ${task_name}${task_name}\n"
        "args: ['--name=${task_name}', '${other}', '$task_name']\n"
        "environment: {RUN: 'r-${task_name}'}\n"
        "tasks: {'a*': {args: ['${task_name}'], environment: {X: '${task_name}'}}}\n",
    )
    assert found.output_dir == tmp_path.resolve() / "out_demo" / "x"
    assert found.worker_prefix == "demodemo"
    assert found.args == ("--name=demo", "${other}", "$task_name")
    assert found.environment == {"RUN": "r-demo"}
    assert found.options_for("a1") == TaskOptions(args=("demo",), environment={"RUN": "r-demo", "X": "demo"})


def test_the_task_name_may_hold_what_looks_like_a_placeholder(tmp_path: Path) -> None:
    write(tmp_path, "task_name: 'a{gpus}{x}'\nargs: ['${task_name}-{gpus}']\nlog_dir: l-${task_name}\n")
    found = load(tmp_path)
    assert found.log_dir.name == "l-a{gpus}{x}"
    assert [expand(text, {"gpus": "0"}) for text in found.args] == ["a{gpus}{x}-0"]


def test_braces_that_are_no_placeholders_are_left_alone(tmp_path: Path) -> None:
    texts = ['{"a": {"b": 1}}', "${HOME}", "{a,b}", "{}", "{{x}}", "{0}", "{ x }", "${x}{task}", "${oc.env:USER}"]
    found = settings(tmp_path, f"args: {json.dumps(texts)}\nenvironment: {{A: '{{\"x\": 1}}'}}\n")
    assert found.args == tuple(texts)
    assert found.environment == {"A": '{"x": 1}'}


def test_the_place_of_task_name_in_the_file_does_not_matter(tmp_path: Path) -> None:
    write(tmp_path, "log_dir: l-${task_name}\ntask_name: late\n")
    assert load(tmp_path).log_dir.name == "l-late"


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann o'neil")
    found = settings(
        tmp_path,
        "work_dir: ..\nconfig_dir: '~/my configs'\nscript_path: -src/t $x.py\noutput_dir: /data/out\nlog_dir: ./~x\n",
    )
    home = tmp_path.resolve()
    assert found.work_dir == home / ".."
    assert found.config_dir == Path("/home/ann o'neil/my configs")
    assert found.script_path == home / "-src" / "t $x.py"
    assert found.output_dir == Path("/data/out")
    assert found.log_dir == home / "~x"
    assert all(path.is_absolute() for path in (found.work_dir, found.workspace, found.file))


def test_a_relative_workspace_and_a_linked_one_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real"
    real.mkdir()
    write(real, "task_name: demo")
    (tmp_path / "link").symlink_to(real)
    monkeypatch.chdir(tmp_path)
    for given in (Path("real"), Path("link"), tmp_path / "link"):
        found = load(given)
        assert found.workspace == real.resolve()
        assert found.file == real.resolve() / "scheduler_config.yml"


def test_another_config_file_keeps_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(elsewhere, "task_name: other\nkeep_sessions: 3\n", "other.yml")
    monkeypatch.chdir(elsewhere)
    found = load(tmp_path, Path("other.yml"))
    assert found.file == elsewhere / "other.yml"
    assert found.config_dir == tmp_path.resolve() / "configs"
    assert str(found.origins["keep_sessions"]) == "other.yml:2"


def test_origins_and_rows(tmp_path: Path) -> None:
    write(tmp_path, "# first\n\nmax_jobs_per_gpu: 1\ntask_name: demo\ncheck_interval: 1m\ntasks: {'a*': {gpus: 2}}\n")
    found = load(tmp_path)
    rows = {key: (value, str(origin)) for key, value, origin in found.rows()}
    assert list(rows) == [key for key in KEYS if not KEYS[key].note]
    assert rows["max_jobs_per_gpu"] == (1, "scheduler_config.yml:3")
    assert rows["task_name"] == ("demo", "scheduler_config.yml:4")
    assert rows["keep_sessions"] == (20, "default")
    assert rows["gpu_count"] == ("auto", "default")
    assert rows["use_gpus"] == (None, "default")
    assert rows["log_max_size"] == ("200MB", "default")
    assert json.loads(json.dumps({key: plain(value) for key, (value, _) in rows.items()})) == {
        **{key: plain(value) for key, (value, _) in rows.items()},
        "work_dir": str(tmp_path.resolve()),
        "check_interval": 60,
        "tasks": [{"pattern": "a*", "gpus": 2}],
        "config_pattern": ["*.yml", "*.yaml"],
    }


def test_settings_are_frozen(tmp_path: Path) -> None:
    found = settings(tmp_path, "environment: {A: 1}\ntasks: {a: {environment: {B: 2}}}")
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.task_name = "x"  # type: ignore[misc]
    options = found.options_for("a").environment
    for mapping in (found.environment, found.origins, found.old_values, found.tasks[0].given, options):
        assert isinstance(mapping, MappingProxyType)


# Options of tasks

RULES = """\
args: [--fast]
environment: {A: base, B: base}
tasks:
  "big*": {gpus: 2, priority: 5, exclusive: true, environment: {B: big, C: big}}
  "*_l": {args: [--long], environment: {C: long}}
  "big_x*": {gpus: 4, exclusive: false, args: []}
  "nothing":
"""


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("small", TaskOptions(args=("--fast",), environment={"A": "base", "B": "base"})),
        ("nothing", TaskOptions(args=("--fast",), environment={"A": "base", "B": "base"})),
        ("BIG", TaskOptions(args=("--fast",), environment={"A": "base", "B": "base"})),
        ("big", TaskOptions(2, True, 5, ("--fast",), {"A": "base", "B": "big", "C": "big"})),
        ("big_l", TaskOptions(2, True, 5, ("--long",), {"A": "base", "B": "big", "C": "long"})),
        ("big_x_l", TaskOptions(4, False, 5, (), {"A": "base", "B": "big", "C": "long"})),
    ],
)
def test_later_rules_win(tmp_path: Path, task: str, options: TaskOptions) -> None:
    assert settings(tmp_path, RULES).options_for(task) == options


def test_tasks_that_the_same_rules_match_share_their_options(tmp_path: Path) -> None:
    found = settings(tmp_path, RULES)
    names = ["small", "nothing", "BIG", "big", "big_l", "big_x_l", "big_y_l"]
    options = found.options_of(names)
    assert options == {name: found.options_for(name) for name in names}
    assert len({id(one) for one in options.values()}) < len(names)


MORE_RULES = """\
time_limit: 2h
command: [run, "{config}"]
max_retries: 5
retry_on: [oom]
tasks:
  "train_*": {time_limit: 1h, max_retries: 0, after: prepare, max_running: 3, retry_on: [lost, 3]}
  "train_x*": {time_limit: , command: , after: [a*, 'b?'], max_running: 1}
  "train_xy": {time_limit: 30, command: [other, "{task}"], after: [], max_running: }
"""


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("small", TaskOptions(time_limit=7200.0, command=("run", "{config}"), max_retries=5, retry_on=("oom",))),
        (
            "train_",
            TaskOptions(
                time_limit=3600.0, command=("run", "{config}"), max_retries=0, after=("prepare",), retry_on=("lost", 3)
            ),
        ),
        (
            "train_x",
            TaskOptions(time_limit=None, command=None, max_retries=0, after=("a*", "b?"), retry_on=("lost", 3)),
        ),
        ("train_xy", TaskOptions(time_limit=30.0, command=("other", "{task}"), max_retries=0, retry_on=("lost", 3))),
    ],
)
def test_an_option_without_a_value_is_none_and_not_the_one_of_the_workspace(
    tmp_path: Path, task: str, options: TaskOptions
) -> None:
    assert settings(tmp_path, MORE_RULES).options_for(task) == options


def test_limits_of_running_tasks_belong_to_their_globs(tmp_path: Path) -> None:
    found = settings(tmp_path, MORE_RULES)
    assert found.running_limits == (RunningLimit("train_*", 3), RunningLimit("train_x*", 1))
    assert [limit.limit for limit in found.running_limits if limit.matches("train_y")] == [3]
    assert settings(tmp_path).running_limits == ()
    assert [rule.command for rule in found.tasks] == [None, None, ("other", "{task}")]
    assert plain(found.tasks[2]) == {
        "pattern": "train_xy",
        "time_limit": 30,
        "command": ["other", "{task}"],
        "after": [],
        "max_running": None,
    }


def test_a_rule_that_matches_no_task_is_a_warning_with_its_place(tmp_path: Path) -> None:
    found = settings(tmp_path, RULES + '  "exp*.yml": {gpus: 2}\n')
    unmatched = found.unmatched_rules(["big_l", "exp1"])
    assert [(problem.line, problem.column) for problem in unmatched] == [(7, 3), (8, 3), (9, 3)]
    assert unmatched[0].message == "no task matches 'big_x*'"
    assert "without .yml" in unmatched[2].message
    assert found.unmatched_rules(iter(["big_x_l", "nothing", "exp1.yml"])) == []


def test_anchors_aliases_and_merge_keys(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        "environment: &env {A: 1, B: 2}\n"
        "tasks:\n"
        "  'a*': &big {gpus: 2, priority: 1}\n"
        "  'b*': *big\n"
        "  'c*': {priority: 7, <<: *big}\n"
        "  'd*': {<<: [{gpus: 8}, *big], environment: {<<: *env, A: 9}}\n",
    )
    assert found.options_for("b1").gpus == 2
    assert (found.options_for("c1").gpus, found.options_for("c1").priority) == (2, 7)
    options = found.options_for("d1")
    assert (options.gpus, options.priority, options.environment) == (8, 1, {"A": "9", "B": "2"})


def test_a_merge_key_at_the_top(tmp_path: Path) -> None:
    write(tmp_path, "<<: {task_name: merged, keep_sessions: 3}\nkeep_sessions: 4\n")
    found = load(tmp_path)
    assert (found.task_name, found.keep_sessions) == ("merged", 4)


# Old files


FOUNDING = {
    "task_name": "experiment_name",
    "work_dir": "/project/root",
    "config_dir": "configs",
    "script_path": "train.py",
    "python_env": "/path/to/python",
    "output_dir": "out",
    "scheduler_session_suffix": "_scheduler",
    "worker_prefix": "",
    "max_jobs_per_gpu": "2",
    "gpu_count": "2",
    "check_interval": "30",
    "startup_delay": "1",
    "command_delay": "0.5",
    "log_dir": "/tmp",
    "enable_logging": "true",
    "conda_env": "base",
    "cuda_visible_devices_var": "CUDA_VISIBLE_DEVICES",
    "config_pattern": "*.yml",
    "auto_restart_failed": "false",
    "max_retries": "3",
    "cleanup_on_complete": "false",
}


@pytest.mark.parametrize("quote", ["", "'", '"'])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "   # a comment\n"])
def test_a_founding_era_file_loads(tmp_path: Path, quote: str, ending: str) -> None:
    assert len(FOUNDING) == 21
    text = "# Basic\n" + "".join(f"{key}: {quote}{value}{quote}{ending}" for key, value in FOUNDING.items())
    (tmp_path / "scheduler_config.yml").write_bytes(text.encode())
    found = load(tmp_path)
    home = tmp_path.resolve()
    typed = {key: getattr(found, key) for key in FOUNDING if not KEYS[key].note}
    assert typed == {
        **{key: FOUNDING[key] for key in typed},
        "work_dir": Path("/project/root"),
        "config_dir": home / "configs",
        "script_path": home / "train.py",
        "output_dir": home / "out",
        "max_jobs_per_gpu": 2,
        "gpu_count": 2,
        "check_interval": 30.0,
        "startup_delay": 1.0,
        "log_dir": Path("/tmp"),
        "enable_logging": True,
        "config_pattern": ("*.yml",),
        "auto_restart_failed": False,
        "max_retries": 3,
        "cleanup_on_complete": False,
    }
    assert found.old_values == {"command_delay": "0.5"}
    assert found.warnings == ()
    value, origin = {key: (value, str(origin)) for key, value, origin in found.rows()}["command_delay"]
    assert value == "0.5"
    assert origin.startswith("scheduler_config.yml:14 (accepted for old files; nothing is typed into sessions")


def test_the_file_as_the_founding_document_writes_it_loads(tmp_path: Path) -> None:
    """Texts in double quotes, numbers and words without."""
    lines = (
        f"{key}: {value}" if value[:1].isdigit() or value in ("true", "false") else f'{key}: "{value}"  # what'
        for key, value in FOUNDING.items()
    )
    write(tmp_path, "\n".join(lines))
    assert load(tmp_path).conda_env == "base"


def test_only_one_key_is_left_for_old_files(tmp_path: Path) -> None:
    assert [key for key in KEYS if KEYS[key].note] == ["command_delay"]
    assert settings(tmp_path, "command_delay:").old_values == {"command_delay": ""}


# Warnings


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("command: [python, train.py]\n", True),
        ("command: [python, train.py, '{gpus}']\nargs: ['${config}', '{{task}}']\n", True),
        ("command: [python, train.py, '{config}']\n", False),
        ("command: [python, train.py]\nargs: ['name={task}']\n", False),
        ("command: [python, train.py]\nenvironment: {CONFIG: '{config}'}\n", False),
        ("tasks: {a: {command: [python, a.py]}}\n", False),
    ],
)
def test_a_command_that_is_the_same_for_every_task_is_a_warning(tmp_path: Path, text: str, warned: bool) -> None:
    warnings = [(doubt.line, doubt.column, doubt.message) for doubt in settings(tmp_path, text).warnings]
    message = "command names neither {config} nor {task}, so that every task runs the same"
    assert warnings == ([(2, 1, message)] if warned else [])


def test_what_has_no_effect_is_a_warning(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        "gpu_count: 2\nuse_gpus: [1]\ncuda_visible_devices_var: HIP\nenvironment: {HIP: 0, CUDA_VISIBLE_DEVICES: 1}\n"
        "tasks:\n  a: {environment: {TINKSCHED_TASK: x}}\n",
    )
    assert [(doubt.line, doubt.column, doubt.message.split()[0]) for doubt in found.warnings] == [
        (2, 1, "gpu_count"),
        (5, 15, "'HIP'"),
        (7, 21, "'TINKSCHED_TASK'"),
    ]


# The file


def test_no_workspace(tmp_path: Path) -> None:
    folder = tmp_path / "my ws"
    for missing in (folder, tmp_path):
        with pytest.raises(WorkspaceError, match=r"no scheduler_config\.yml") as caught:
            load(missing)
        assert caught.value.exit_code == 2
    with pytest.raises(WorkspaceError) as caught:
        load(folder)
    assert caught.value.hint == f"tinksched setup-workspace '{folder}'"


@pytest.mark.parametrize("name", ["missing.yml", "scheduler_config.yml/x"])
def test_no_such_config_file(tmp_path: Path, name: str) -> None:
    write(tmp_path, "task_name: demo")
    with pytest.raises(WorkspaceError, match="does not exist"):
        load(tmp_path, tmp_path / name)


def test_a_link_to_nowhere_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "scheduler_config.yml").symlink_to("nowhere")
    with pytest.raises(WorkspaceError):
        load(tmp_path)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yml")
    (tmp_path / "loop.yml").symlink_to("loop.yml")
    (tmp_path / "folder.yml").mkdir()
    for name in ("pipe.yml", "folder.yml", "loop.yml", "n\0ul.yml", "x" * 300):
        with pytest.raises(UsageError):
            load(tmp_path, tmp_path / name)
    for name in ("pipe.yml", "folder.yml"):
        with pytest.raises(ConfigError, match="not a regular file"):
            load(tmp_path, tmp_path / name)


def test_a_read_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^/proc/self/mem: can't be read: "):  # a regular file, and root fails too
        load(tmp_path, Path("/proc/self/mem"))


def test_the_current_folder_may_be_gone(tmp_path: Path) -> None:
    write(tmp_path, "task_name: ''")
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os, sys; from pathlib import Path; from tinksched.config import load; from tinksched.errors import *\n"
        "os.rmdir(os.getcwd())\n"
        "for folder in sys.argv[1], 'relative':\n"
        "    try: load(Path(folder))\n"
        "    except UsageError as error: print(type(error).__name__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=gone, env=environment, capture_output=True, text=True
    )
    assert (done.stdout.split(), done.stderr) == (["ConfigError", "WorkspaceError"], "")


def test_messages_name_the_file_so_that_it_can_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "task_name: ''")
    for folder, name in ((tmp_path, "scheduler_config.yml"), (Path("/"), str(tmp_path)[1:] + "/scheduler_config.yml")):
        monkeypatch.chdir(folder)
        with pytest.raises(ConfigError) as caught:
            load(tmp_path)
        assert str(caught.value) == f"{name}:1:12: task_name must not be empty"


# The table


def test_the_table_is_complete() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert fields - {"workspace", "file", "origins", "old_values", "warnings"} == {
        name for name in KEYS if not KEYS[name].note
    }
    assert set(TASK_OPTIONS) == {field.name for field in dataclasses.fields(TaskOptions)} | {"max_running"}
    assert all(name == key.name and key.doc and "\n" not in key.doc for name, key in KEYS.items())
    assert {option.name: option.default for option in TASK_OPTIONS.values()} == {
        **dataclasses.asdict(TaskOptions(environment={})),
        "max_running": None,
    }


def test_default_texts_mean_the_defaults(tmp_path: Path) -> None:
    """What the table prints as a default is what the file would have to say."""
    texts = {name: key.default_text for name, key in KEYS.items() if key.default_text}
    assert texts["gpu_count"] == "auto"
    assert texts["work_dir"] == "."
    assert texts["min_free_disk"] == "1GB"
    written = settings(tmp_path, "".join(f"{name}: {text}\n" for name, text in texts.items()))
    assert values_of(written) == values_of(settings(tmp_path))


def values_of(found: Settings) -> dict[str, Any]:
    return {key: value for key, value, _ in found.rows()}


def test_importing_the_settings_does_not_import_the_parser() -> None:
    code = "import sys, tinksched.config; sys.exit('ruamel.yaml' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
