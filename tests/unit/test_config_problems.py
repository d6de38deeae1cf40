"""Every problem of a config file: its place, its sentence, and all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinksched.config import KEYS, load
from tinksched.errors import ConfigError, Problem


def problems(folder: Path, text: str | bytes) -> list[Problem]:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    (folder / "scheduler_config.yml").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load(folder)
    found = list(caught.value.problems)
    assert all("\n" not in problem.message and problem.message for problem in found)
    return found


def only(folder: Path, text: str | bytes) -> tuple[int, int, str]:
    (problem,) = problems(folder, text)
    return problem.line, problem.column, problem.message


# Values: the line is the second of the file, and the place is that of the value

AT_LEAST_1 = "must be a whole number of at least 1, "
DEVICE = "must be a GPU index such as 0, or a UUID such as GPU-8a6f, "
NAME = "must be the name of an environment variable: not empty, and without '=', "
DURATION = "must be a duration such as 90s, 30m, 2h or 1d, or a number of seconds, "
NO_ANCHOR = "is an alias without an anchor above; if it is a pattern, put it in quotes"
LIST = "must be a list, such as [--resume, --lr, 0.1], "
NO_SLASH_IN_NAME = "must not hold '/'; it matches names, not paths"
SIZE = "must be a size such as 200MB or 8GiB, "
COMMAND = "must be a list, such as [torchrun, train.py, '--config_path={config}'], "
NONE_SUCH = "must not hold '{{{}}}', which is no placeholder; did you mean {{{}}}? {{{{ and }}}} write literal braces"
NO_SLASH = "must not hold '/'; it becomes part of file names"


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        # whole numbers
        ("max_jobs_per_gpu: two", 19, f"max_jobs_per_gpu {AT_LEAST_1}not the text 'two'"),
        ("max_jobs_per_gpu: 0", 19, f"max_jobs_per_gpu {AT_LEAST_1}not the number 0"),
        ("max_jobs_per_gpu: 1.5", 19, f"max_jobs_per_gpu {AT_LEAST_1}not the number 1.5"),
        ("max_jobs_per_gpu: 1_0", 19, f"max_jobs_per_gpu {AT_LEAST_1}not the text '1_0'"),
        ("max_jobs_per_gpu: true", 19, f"max_jobs_per_gpu {AT_LEAST_1}not true"),
        ("max_jobs_per_gpu: '0'", 19, f"max_jobs_per_gpu {AT_LEAST_1}not the text '0'"),
        ("max_jobs_per_gpu: '2.0'", 19, f"max_jobs_per_gpu {AT_LEAST_1}not the text '2.0'"),
        ("gpu_count: '2 '", 12, "gpu_count must be auto or a whole number of at least 1, not the text '2 '"),
        ("max_jobs_per_gpu: [2]", 19, f"max_jobs_per_gpu {AT_LEAST_1}not a list"),
        ("max_jobs_per_gpu: {a: 2}", 19, f"max_jobs_per_gpu {AT_LEAST_1}not a map"),
        ("max_jobs_per_gpu:", 1, f"max_jobs_per_gpu {AT_LEAST_1}and has no value"),
        ("max_jobs_per_gpu: null", 19, f"max_jobs_per_gpu {AT_LEAST_1}and has no value"),
        ("max_jobs_per_gpu: 1000001", 19, "max_jobs_per_gpu must be at most 1000000, not the number 1000001"),
        ("gpu_count: all", 12, "gpu_count must be auto or a whole number of at least 1, not the text 'all'"),
        ("gpu_count: -1", 12, f"gpu_count {AT_LEAST_1}not the number -1"),
        ("keep_sessions: -1", 16, "keep_sessions must be a whole number of at least 0, not the number -1"),
        # true and false
        ("strict_exit: yes", 14, "strict_exit must be true or false, not the text 'yes'; write true"),
        ("strict_exit: Off", 14, "strict_exit must be true or false, not the text 'Off'; write false"),
        ("strict_exit: 'yes'", 14, "strict_exit must be true or false, not the text 'yes'; write true"),
        ("strict_exit: 1", 14, "strict_exit must be true or false, not the number 1"),
        ("strict_exit: maybe", 14, "strict_exit must be true or false, not the text 'maybe'"),
        ("strict_exit:", 1, "strict_exit must be true or false, and has no value"),
        # durations
        ("check_interval: 0", 17, "check_interval must be longer than 0 seconds, not the number 0"),
        ("check_interval: -1", 17, f"check_interval {DURATION}not the number -1"),
        ("check_interval: soon", 17, f"check_interval {DURATION}not the text 'soon'"),
        ("check_interval: .inf", 17, f"check_interval {DURATION}not the number .inf"),
        ("check_interval: 1e999", 17, "check_interval must be at most 365d, not the number 1e999"),
        ("check_interval: 366d", 17, "check_interval must be at most 365d, not the text '366d'"),
        ("stop_grace: 5 weeks", 13, f"stop_grace {DURATION}not the text '5 weeks'"),
        ("stop_grace: true", 13, f"stop_grace {DURATION}not true"),
        ("startup_delay: [1]", 16, f"startup_delay {DURATION}not a list"),
        # words
        (
            "placement: spraed",
            12,
            "placement must be one of spread, pack, not the text 'spraed'; did you mean 'spread'?",
        ),
        ("executor: slurm", 11, "executor must be one of tmux, local, not the text 'slurm'"),
        ("executor: [tmux]", 11, "executor must be one of tmux, local, not a list"),
        # texts and paths
        ("output_dir: 2024", 13, "output_dir must be a text, not the number 2024; put it in quotes: '2024'"),
        ("output_dir: true", 13, "output_dir must be a text, not true; put it in quotes: 'true'"),
        ("output_dir: [a]", 13, "output_dir must be a text, not a list"),
        ("output_dir: ''", 13, "output_dir must not be empty"),
        (
            "output_dir: ~nobody-x/y",
            13,
            "output_dir must name a home folder that exists, not '~nobody-x'; for a file write ./~",
        ),
        (
            "work_dir: ~",
            11,
            "work_dir must be a text, and has no value; to YAML a bare ~ is nothing; "
            'write "~" in quotes for the home folder',
        ),
        ('log_dir: "a\\0b"', 10, "log_dir must not hold a NUL character"),
        ('log_dir: "a\\ud800b"', 10, "log_dir must not hold a lone surrogate (half a character)"),
        ('worker_prefix: "a\\nb"', 16, "worker_prefix must not hold control characters or line breaks"),
        (
            f"worker_prefix: {'w' * 101}",
            16,
            "worker_prefix must not be longer than 100 bytes; it becomes part of names",
        ),
        ("scheduler_session_suffix: a/b", 27, f"scheduler_session_suffix {NO_SLASH}"),
        ("tmux_socket: /tmp/x", 14, f"tmux_socket {NO_SLASH}"),
        ("cuda_visible_devices_var: A=B", 27, f"cuda_visible_devices_var {NAME}not the text 'A=B'"),
        ("cuda_visible_devices_var: ''", 27, f"cuda_visible_devices_var {NAME}not the text ''"),
        (
            "config_pattern: ['*.yml', 3]",
            27,
            "config_pattern[1] must be a text, not the number 3; put it in quotes: '3'",
        ),
        ("config_pattern: {}", 17, "config_pattern must be a glob such as '*.yml', or a list of globs, not a map"),
        ("config_pattern: []", 17, "config_pattern must not be an empty list"),
        ("config_pattern: a/*.yml", 17, "config_pattern must not hold '/'; it matches names, not paths"),
        # lists
        (
            "args: --lr 0.1 'a b'",
            7,
            f"args {LIST}not the text \"--lr 0.1 'a b'\"; write [--lr, 0.1, 'a b']",
        ),
        ("args: it's", 7, 'args must be a list, such as [--resume, --lr, 0.1], not the text "it\'s"'),
        ("args: [a, [b]]", 11, "args[1] must be a text, a number, or true or false, not a list"),
        ("args: [a, ]b", 12, "this does not go on from the lines above; check the indentation, quotes and brackets"),
        ("use_gpus: 0", 11, "use_gpus must be a list of GPU indices or UUIDs, such as [0, 2], not the number 0"),
        ("use_gpus: []", 11, "use_gpus must name a GPU; leave the key out to use all of them"),
        ("use_gpus: [-1]", 12, f"use_gpus[0] {DEVICE}not the number -1"),
        ("use_gpus: ['1']", 12, f"use_gpus[0] {DEVICE}not the text '1'; write 1 without quotes"),
        ("use_gpus: [gpu1]", 12, f"use_gpus[0] {DEVICE}not the text 'gpu1'"),
        ("use_gpus: [1, 0, 0x1]", 18, "use_gpus[2] must not name GPU 1 again; it stands in the list already"),
        ("use_gpus: [GPU-a, GPU-A]", 19, "use_gpus[1] must not name GPU GPU-A again; it stands in the list already"),
        # maps
        (
            "environment: [A]",
            14,
            "environment must be a map of names to values, such as {OMP_NUM_THREADS: 4}, not a list",
        ),
        (
            "environment: {A: }",
            15,
            "environment['A'] must be a text, a number, or true or false, and has no value; "
            'write "" for an empty text',
        ),
        ("environment: {A: [1]}", 18, "environment['A'] must be a text, a number, or true or false, not a list"),
        ("environment: {A=B: 1}", 15, f"a name in environment {NAME}not the text 'A=B'"),
        ("environment: {'': 1}", 15, f"a name in environment {NAME}not the text ''"),
        ('environment: {A: "\\0"}', 18, "environment['A'] must not hold a NUL character"),
        ('environment: {"\\0": 1}', 15, "a name in environment must not hold a NUL character"),
        ("tasks: [a]", 8, "tasks must be a map from globs to options, such as {'big_*': {gpus: 2}}, not a list"),
        (
            "tasks: {a: 2}",
            12,
            "tasks['a'] must be a map of options (gpus, exclusive, priority, args, environment, after, time_limit, "
            "command, max_retries, retry_on, min_free_memory, max_running), not the number 2",
        ),
        ("tasks: {a: {gpus: -1}}", 19, "tasks['a'].gpus must be a whole number of at least 0, not the number -1"),
        ("max_utilization: 0", 18, f"max_utilization {AT_LEAST_1}not the number 0"),
        ("max_utilization: 101", 18, "max_utilization must be at most 100, not the number 101"),
        (
            "min_free_memory: 20",
            18,
            "min_free_memory must be a size such as 200MB or 8GiB, or auto, not the number 20; "
            "a size needs a unit, such as 200MB",
        ),
        (
            "min_free_memory: Auto",
            18,
            "min_free_memory must be a size such as 200MB or 8GiB, or auto, not the text 'Auto'",
        ),
        ("cpu_slots: all", 12, "cpu_slots must be auto or a whole number of at least 0, not the text 'all'"),
        (
            "ignore_processes: {}",
            19,
            "ignore_processes must be a glob of users or commands such as 'Xorg', or a list of globs, not a map",
        ),
        ("tasks: {a: {priority: high}}", 23, "tasks['a'].priority must be a whole number, not the text 'high'"),
        (
            "tasks: {a: {priority: -1000001}}",
            23,
            "tasks['a'].priority must be a whole number of at least -1000000, not the number -1000001",
        ),
        (
            "tasks: {a: {exclusive: no}}",
            24,
            "tasks['a'].exclusive must be true or false, not the text 'no'; write false",
        ),
        (
            "tasks: {a: {args: x}}",
            19,
            "tasks['a'].args must be a list, such as [--resume, --lr, 0.1], not the text 'x'; write [x]",
        ),
        ("tasks: {a: {gpu: 2}}", 13, "unknown option 'gpu'; did you mean 'gpus'?"),
        ("tasks: {a/b: {}}", 9, "tasks['a/b'] must not hold '/'; it matches names, not paths"),
        ("tasks: {'': {}}", 9, "tasks[''] must not be empty"),
        # keys
        ("gpu_cuont: 2", 1, "unknown key 'gpu_cuont'; did you mean 'gpu_count'?"),
        ("Work_Dir: x", 1, "unknown key 'Work_Dir'; did you mean 'work_dir'?"),
        ("task_name: again", 1, "duplicate key 'task_name'; it stands in line 1 already"),
        ("quux: 1", 1, "unknown key 'quux'"),
        ("3: 1", 1, "unknown key '3'"),
        ("[a]: 1", 1, "a key must be a text, not a list or a map"),
        ("environment: {A: 1, A: 2}", 21, "duplicate key 'A'; it stands in line 2 already"),
        ("tasks: {a: {}, a: {}}", 16, "duplicate key 'a'; it stands in line 2 already"),
        ("tasks: {a: {gpus: 1, gpus: 2}}", 22, "duplicate key 'gpus'; it stands in line 2 already"),
        # limits and retries
        ("max_retries: many", 14, "max_retries must be a whole number of at least 0, not the text 'many'"),
        ("max_retries: -1", 14, "max_retries must be a whole number of at least 0, not the number -1"),
        ("max_retries: 1001", 14, "max_retries must be at most 1000, not the number 1001"),
        ("max_retries:", 1, "max_retries must be a whole number of at least 0, and has no value"),
        ("auto_restart_failed: on", 22, "auto_restart_failed must be true or false, not the text 'on'; write true"),
        (
            "retry_on: [oomm]",
            12,
            "retry_on[0] must be oom, failed, timed_out, lost or an exit code from 1 to 255, not the text 'oomm'; "
            "did you mean 'oom'?",
        ),
        (
            "retry_on: [0, lost]",
            12,
            "retry_on[0] must be oom, failed, timed_out, lost or an exit code from 1 to 255, not the number 0",
        ),
        (
            "retry_on: true",
            11,
            "retry_on must be oom, failed, timed_out, lost or an exit code from 1 to 255, not true",
        ),
        ("retry_on: {oom: 1}", 11, "retry_on must be a list, such as [oom, lost, 75], not a map"),
        ("retry_delay: 0s", 14, "retry_delay must be longer than 0 seconds, not the text '0s'"),
        ("time_limit: 0", 13, "time_limit must be more than 0; leave it out for no limit"),
        ("time_limit: 0h", 13, "time_limit must be more than 0; leave it out for no limit"),
        (
            "time_limit: none",
            13,
            "time_limit must be a duration such as 90m or 2h, not the text 'none'; leave it out for no limit",
        ),
        ("time_limit: long", 13, f"time_limit {DURATION}not the text 'long'"),
        ("time_limit: 366d", 13, "time_limit must be at most 365d, not the text '366d'"),
        (
            "tasks: {a: {time_limit: 0}}",
            25,
            "tasks['a'].time_limit must be more than 0; leave its value out ('time_limit:') for no limit",
        ),
        ("tasks: {a: {max_running: 0}}", 26, f"tasks['a'].max_running {AT_LEAST_1}not the number 0"),
        (
            "tasks: {a: {max_retries: }}",
            13,
            "tasks['a'].max_retries must be a whole number of at least 0, and has no value",
        ),
        (
            "tasks: {a: {after: {}}}",
            20,
            "tasks['a'].after must be a glob of task names such as 'prepare*', or a list of globs, not a map",
        ),
        ("tasks: {a: {after: [b, c/d]}}", 24, f"tasks['a'].after[1] {NO_SLASH_IN_NAME}"),
        ("tasks: {a: {after: ''}}", 20, "tasks['a'].after must not be empty"),
        # sizes
        ("log_max_size: 200", 15, f"log_max_size {SIZE}not the number 200; a size needs a unit, such as 200MB"),
        ("log_max_size: 1.5", 15, f"log_max_size {SIZE}not the number 1.5; a size needs a unit, such as 200MB"),
        ("min_free_disk: -1", 16, f"min_free_disk {SIZE}not the number -1; a size needs a unit, such as 200MB"),
        ("log_max_size: 200mb", 15, f"log_max_size {SIZE}not the text '200mb'; write 200MB"),
        ("log_max_size: 8gib", 15, f"log_max_size {SIZE}not the text '8gib'; write 8GiB"),
        ("log_max_size: 8G", 15, f"log_max_size {SIZE}not the text '8G'"),
        ("log_max_size: big", 15, f"log_max_size {SIZE}not the text 'big'"),
        ("log_max_size: true", 15, f"log_max_size {SIZE}not true"),
        ("log_max_size: [1GB]", 15, f"log_max_size {SIZE}not a list"),
        ("log_max_size:", 1, f"log_max_size {SIZE}and has no value"),
        ("log_max_size: 0", 15, "log_max_size must be at least 64kB, not the number 0"),
        ("log_max_size: 63.9kB", 15, "log_max_size must be at least 64kB, not the text '63.9kB'"),
        ("min_free_disk: 1001TB", 16, "min_free_disk must be at most 1PB, not the text '1001TB'"),
        # commands
        (
            "command: torchrun x.py {config}",
            10,
            f"command {COMMAND}not the text 'torchrun x.py {{config}}'; write [torchrun, x.py, '{{config}}']",
        ),
        ("command: []", 10, "command must not be an empty list; it begins with the program"),
        ("command: ['', a]", 11, "command[0] must not be empty; it is the program"),
        ("command: [a, [b]]", 14, "command[1] must be a text, a number, or true or false, not a list"),
        (
            "tasks: {a: {command: x}}",
            22,
            f"tasks['a'].command {COMMAND}not the text 'x'; write [x]",
        ),
        ("pre_run: []", 10, "pre_run must not be an empty list; it begins with the program"),
        (
            "pre_run: true",
            10,
            "pre_run must be a shell command, or a list such as [cp, '{config}', /tmp], not true; "
            "put it in quotes: 'true'",
        ),
        (
            "post_run: {a: b}",
            11,
            "post_run must be a shell command, or a list such as [cp, '{config}', /tmp], not a map",
        ),
        ('post_run: "a\\0"', 11, "post_run must not hold a NUL character"),
        ("conda_env: 39", 12, "conda_env must be a text, not the number 39; put it in quotes: '39'"),
        ("state_dir: ''", 12, "state_dir must not be empty"),
        ("state_dir: ./x/..", 12, "state_dir must be a folder of its own, such as .tinksched, not the workspace"),
        # placeholders
        ("args: [a, '{confg}']", 11, f"args[1] {NONE_SUCH.format('confg', 'config')}"),
        ("retry_args: ['{attempts}']", 14, f"retry_args[0] {NONE_SUCH.format('attempts', 'attempt')}"),
        ("command: [a, 'x{task}{gpu}']", 14, f"command[1] {NONE_SUCH.format('gpu', 'gpus')}"),
        ("environment: {A: '-{task_name}'}", 18, f"environment['A'] {NONE_SUCH.format('task_name', 'task')}"),
        ("pre_run: cp {CONFIG} x", 10, f"pre_run {NONE_SUCH.format('CONFIG', 'config')}"),
        ("post_run: [a, '{output}']", 15, f"post_run[1] {NONE_SUCH.format('output', 'output_dir')}"),
        ("tasks: {a: {args: ['{ports}']}}", 20, f"tasks['a'].args[0] {NONE_SUCH.format('ports', 'port')}"),
        (
            "tasks: {a: {environment: {A: '{ports}'}}}",
            30,
            f"tasks['a'].environment['A'] {NONE_SUCH.format('ports', 'port')}",
        ),
        (
            "tasks: {a: {command: [x, '{work_space}']}}",
            26,
            f"tasks['a'].command[1] {NONE_SUCH.format('work_space', 'workspace')}",
        ),
        (
            "args: ['{lr}']",
            8,
            "args[0] must not hold '{lr}', which is no placeholder; there are {python} {script} {config} {task} {gpus} "
            "{ngpus} {port} {attempt} {workspace} {output_dir}; {{ and }} write literal braces",
        ),
        # tags, aliases, merges
        ("python_env: !env PYTHON", 13, "the tag '!env' means nothing here; remove it"),
        ("args: !!python/tuple [a]", 7, "the tag 'tag:yaml.org,2002:python/tuple' means nothing here; remove it"),
        ("environment: {<<: 5}", 15, "<< merges a map (*anchor) or a list of maps"),
        (
            "config_pattern: *exp.yml",
            17,
            f"'*exp.yml' {NO_ANCHOR}",
        ),
        ("args: &a [*a]", 11, f"'*a' {NO_ANCHOR}"),
    ],
)
def test_a_bad_line(tmp_path: Path, line: str, column: int, message: str) -> None:
    assert only(tmp_path, f"task_name: demo\n{line}\n") == (2, column, message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("''", "task_name must not be empty"),
        ("' '", "task_name must not be empty"),
        ("", "task_name must be a text, and has no value"),
        ("2024", "task_name must be a text, not the number 2024; put it in quotes: '2024'"),
        ("a/b", "task_name must not hold '/'; it becomes part of file names"),
        ('"a\\tb"', "task_name must not hold control characters or line breaks"),
        ('"a\\u2028b"', "task_name must not hold control characters or line breaks"),
        ("é" * 51, "task_name must not be longer than 100 bytes; it becomes part of names"),
        ("x${task_name}", "task_name must not refer to itself"),
        ("[a]", "task_name must be a text, not a list"),
    ],
)
def test_a_bad_task_name(tmp_path: Path, value: str, message: str) -> None:
    line, column, found = only(tmp_path, f"task_name: {value}\n")
    assert (line, column, found) == (1, 12 if value else 1, message)


def test_a_missing_task_name(tmp_path: Path) -> None:
    line, _, message = only(tmp_path, "gpu_count: 2\n")
    assert (line, message) == (0, "task_name is missing; it is the prefix of sessions and logs")


# The text as YAML


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 0, 0, "the file is empty; it must have a task_name"),
        ("# nothing\n\n", 0, 0, "the file is empty; it must have a task_name"),
        ("---\n", 0, 0, "the file is empty; it must have a task_name"),
        ("null\n", 0, 0, "the file is empty; it must have a task_name"),
        ("demo\n", 1, 1, "the file must be a map of keys, with lines such as 'task_name: demo'"),
        ("\n- a\n", 2, 1, "the file must be a map of keys, with lines such as 'task_name: demo'"),
        ("tasks:\n\ta: 1\n", 2, 1, "a tab; YAML wants spaces here"),
        ("tasks:\n  a:\n  \tgpus: 1\n", 3, 3, "a tab; YAML wants spaces here"),
        ("python_env: @x\n", 1, 13, "a value can't begin with @ unless it is in quotes"),
        ("python_env: `x`\n", 1, 13, "a value can't begin with ` unless it is in quotes"),
        ("python_env: %x\n", 1, 13, "a value can't begin with % unless it is in quotes"),
        ("python_env: 'abc\ntask_name: x\n", 1, 13, "what opens here is never closed; a quote or bracket is missing"),
        ('python_env: "abc\n', 1, 13, "what opens here is never closed; a quote or bracket is missing"),
        ("args: [a, b\n", 1, 7, "what opens here is never closed; a quote or bracket is missing"),
        ("environment: {a: 1\n", 1, 14, "what opens here is never closed; a quote or bracket is missing"),
        (
            "args: [--name=${task_name}]\n",
            1,
            16,
            "expected ',' or ']' here; a value that holds any of [ ] { } , # needs quotes",
        ),
        ('python_env: "C:\\py"\n', 1, 17, "\\p is no escape; between single quotes a backslash is just itself"),
        ("a: 1\nfoo\nb: 2\n", 2, 1, "a line that is neither 'key: value' nor part of a value"),
        (
            "work_dir: a: b\n",
            1,
            12,
            "a ':' too many; quote a value that holds one, write a space after that of a key, check the indentation",
        ),
        (
            "task_name:demo\ngpu_count: 1\n",
            2,
            10,
            "a ':' too many; quote a value that holds one, write a space after that of a key, check the indentation",
        ),
        ("args: - a\n", 1, 7, "a list with '-' begins on a line of its own, below its key"),
        (
            "  a: 1\nb: 2\n",
            2,
            1,
            "this does not go on from the lines above; check the indentation, quotes and brackets",
        ),
        (
            "tasks:\n  *big*: {gpus: 2}\n",
            2,
            3,
            f"'*big*' {NO_ANCHOR}",
        ),
        ("a: b\n---\na: c\n", 2, 1, "a second document begins here (---); a config file is one document"),
        ("é: 1\na: é\x01\n", 2, 5, "the control character U+0001, which YAML does not allow in a file"),
        ("a: \x00\n", 1, 4, "the control character U+0000, which YAML does not allow in a file"),
        (b"a: 1\nb: \xc3\xa9\xff\n", 2, 5, "not UTF-8 (byte 0xff); save the file as UTF-8"),
        ("task_name: demo\n".encode("utf-16"), 1, 1, "not UTF-8 (byte 0xff); save the file as UTF-8"),
        ("%YAML 9.9\n---\na: 1", 1, 1, "not valid YAML: found incompatible YAML document (version 1.* is required)"),
        ('a: "\\U00110000"', 0, 0, "not valid YAML: chr() arg not in range(0x110000)"),
    ],
)
def test_text_that_is_no_config(tmp_path: Path, text: str | bytes, line: int, column: int, message: str) -> None:
    assert only(tmp_path, text) == (line, column, message)


@pytest.mark.parametrize(
    "text",
    [
        "\ufefftask_name: demo\n",
        "task_name: demo\r\ngpu_count: 2\r\n",
        "---\ntask_name: demo\n...\n",
        "{task_name: demo}",
        '{"task_name": "demo", "args": ["a"]}',
        "%YAML 1.2\n---\ntask_name: demo\n",
        "!!map {task_name: !!str demo, args: !!seq [a]}",
        "task_name: demo\nenvironment: {A: ! 5}\n",
        "# comment\ntask_name: demo # comment\n# comment",
        "task_name: &a demo\nworker_prefix: *a\n",
        "environment: {A: &x 1, B: &x 2, C: *x}\ntask_name: demo\n",
    ],
)
def test_unusual_text_that_is_a_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "scheduler_config.yml").write_bytes(text.encode())
    assert load(tmp_path).task_name == "demo"


def test_a_yaml_1_1_header_does_not_make_words_true(tmp_path: Path) -> None:
    line, _, message = only(tmp_path, "%YAML 1.1\n---\ntask_name: demo\nstrict_exit: yes\n")
    assert (line, message) == (4, "strict_exit must be true or false, not the text 'yes'; write true")


# All at once


def test_all_problems_are_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "gpu_cuont: 2\n"
        "max_jobs_per_gpu: 0\n"
        "tasks:\n"
        "  a: {gpus: x, priority: y, what: 1}\n"
        "  b: {args: [[], {}], environment: {A=: 1, B: }}\n"
        "stop_grace: never\n"
        "stop_grace: 1s\n"
        "log_dir: !x ''\n",
    )
    assert [(problem.line, problem.column) for problem in found] == [
        (0, 0),  # no task_name
        (1, 1),
        (2, 19),
        (4, 13),
        (4, 26),
        (4, 29),
        (5, 14),
        (5, 18),
        (5, 37),
        (5, 44),
        (6, 13),
        (7, 1),
        (8, 10),
        (8, 10),
    ]


def test_unknown_keys_without_a_neighbour_get_the_list_of_keys(tmp_path: Path) -> None:
    (tmp_path / "scheduler_config.yml").write_text("task_name: demo\nquux: 1\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name, key in KEYS.items() if not key.note)
    assert "command_delay" not in caught.value.hint
    (tmp_path / "scheduler_config.yml").write_text("task_name: demo\ntask_nam: 1\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert caught.value.hint is None


def test_old_keys_are_no_suggestion(tmp_path: Path) -> None:
    _, _, message = only(tmp_path, "task_name: demo\ncommand_dela: x\n")
    assert message == "unknown key 'command_dela'; did you mean 'command'?"


def test_every_unknown_placeholder_of_a_value_is_listed(tmp_path: Path) -> None:
    found = problems(tmp_path, "task_name: demo\nargs: ['{foo} {ports} {foo} {{bar}}', '{task}', '{baz}']\n")
    assert [(problem.column, problem.message.split(",")[0]) for problem in found] == [
        (8, "args[0] must not hold '{foo}'"),
        (8, "args[0] must not hold '{ports}'"),
        (49, "args[2] must not hold '{baz}'"),
    ]


def test_too_many_problems_are_counted(tmp_path: Path) -> None:
    found = problems(tmp_path, "task_name: demo\n" + "".join(f"key_{number}: 1\n" for number in range(500)))
    assert len(found) == 101
    assert found[0].message == "500 problems; these are the first 100"
    assert found[-1].line == 101
