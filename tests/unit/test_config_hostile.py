"""Whatever lies in the file: Settings or a TinkschedError, soon, and never another exception."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinksched.config import KEYS, TASK_OPTIONS, load, plain
from tinksched.errors import ConfigError, TinkschedError

TEMPLATE = (Path(__file__).parents[2] / "templates" / "scheduler_config.yml").read_text()


@pytest.fixture(scope="module")
def attempt(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], None]:
    """Loads bytes; what can be loaded must be printable, and so must what is wrong."""
    folder = tmp_path_factory.mktemp("workspace")

    def run(data: bytes) -> None:
        (folder / "scheduler_config.yml").write_bytes(data)
        try:
            found = load(folder)
        except TinkschedError as error:
            str(error).encode()
            return
        json.dumps([(key, plain(value), str(origin)) for key, value, origin in found.rows()]).encode()
        found.options_for("exp1")
        found.unmatched_rules(["exp1"])

    return run


def seconds(run: Callable[[], object]) -> float:
    """The processor time, so that a busy machine makes no difference."""
    start = time.process_time()
    run()
    return time.process_time() - start


# Hostile on purpose

BOMB = "environment:\n  B0: &b0 [x]\n" + "".join(
    f"  B{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
MERGES = "tasks:\n  m0: &m0 {gpus: 1}\n" + "".join(
    f"  m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
)
WIDE = (
    "tasks:\n  a: &a\n"
    + "".join(f"    k{n}: 1\n" for n in range(5000))
    + "".join(f"  b{n}: {{<<: *a}}\n" for n in range(5000))
)
SHARED = (
    "tasks:\n  a: &a {environment: {"
    + ", ".join(f"V{n}: x" for n in range(5000))
    + "}}\n"
    + "".join(f"  b{n}: *a\n" for n in range(5000))
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 20000 values"),
        (MERGES, "task_name is missing"),
        (WIDE, "more than 20000 values"),
        (SHARED, "more than 20000 values"),
        ('args: [&a "' + "${task_name}" * 40_000 + '"' + ", *a" * 15_000 + "]", "more than 20000 values"),
        ("args:\n" + "- b\n" * 200_000, "more than 20000 values"),
        ("".join(f"key{n}: 1\n" for n in range(60_000)), "more than 20000 values"),
        ("".join(f"key{n}: 1\n" for n in range(9_000)), "9001 problems; these are the first 100"),
        ("".join(f"gpu_count_{n}: 1\n" for n in range(9_000)), "9001 problems; these are the first 100"),
        ("gpu_count: 1\n" * 9_000, "9000 problems; these are the first 100"),
        ("[" * 900_000, "nested deeper than 20 levels"),
        ("a: " + "{a: " * 200_000, "nested deeper than 20 levels"),
        ("- " * 400_000, "nested deeper than 20 levels"),
        ("? " * 400_000, "nested deeper than 20 levels"),
        ("task_name: " + "x" * 900_000, "must not be longer than 100 bytes"),
        ("task_name: " + "x " * 450_000, "must not be longer than 100 bytes"),
        ('task_name: "' + "\\u0041" * 150_000 + '"', "must not be longer than 100 bytes"),
        ("args: " + "x" * 900_000, "args must be a list"),
        ("output_dir: " + "9" * 900_000, "output_dir must be a text"),
        ("gpu_count: " + "9" * 900_000, "gpu_count must be"),
        ("stop_grace: " + "9" * 900_000, "stop_grace must be at most 365d"),
        ("stop_grace: " + "9" * 900_000 + "x", "stop_grace must be a duration"),
        ("placement: " + "x" * 900_000, "placement must be one of"),
        ("? " + "x" * 900_000 + "\n: 1\n", "unknown key"),
        ("tasks: {? '" + "*a" * 400_000 + "' : {}}", "must not be longer than 255"),
        ("# x\n" * 240_000, "the file is empty"),
        ("\n" * 999_999, "the file is empty"),
        (" " * 999_999, "the file is empty"),
        ("task_name: demo\n" + "#" * 10_000_000, "larger than 1000000 bytes"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else None,
)
def test_hostile_text_ends_soon_with_a_clear_problem(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scheduler_config.yml").write_text(text)

    def run() -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            load(tmp_path)
        assert len(str(caught.value)) < 100_000

    assert seconds(run) < 10  # about one second here


def test_a_hostile_glob_matches_soon(tmp_path: Path) -> None:
    (tmp_path / "scheduler_config.yml").write_text(f"task_name: demo\ntasks: {{'{'*a' * 50}b': {{}}, '[z-a]': {{}}}}\n")
    assert seconds(lambda: load(tmp_path).options_for("a" * 250)) < 5


def test_a_parser_out_of_stack_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr("ruamel.yaml.scanner.Scanner.fetch_more_tokens", exhausted)
    (tmp_path / "scheduler_config.yml").write_text("task_name: demo")
    with pytest.raises(ConfigError, match="not valid YAML: maximum recursion depth exceeded"):
        load(tmp_path)


# Arbitrary

relaxed = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@relaxed
@given(st.binary())
def test_arbitrary_bytes(attempt: Callable[[bytes], None], data: bytes) -> None:
    attempt(data)


@relaxed
@given(st.text())
def test_arbitrary_text(attempt: Callable[[bytes], None], text: str) -> None:
    attempt(text.encode("utf-8", "surrogatepass"))


SPECIAL = st.sampled_from(
    [*"\n\n  \t-:?,[]{}#&*!|>'\"%@`~<0\\\x85\u2028\ufeff", "<<: ", "&a ", "*a", "!!", "${task_name}", "---"]
)
WORDS = st.sampled_from([*KEYS, *TASK_OPTIONS, "auto", "true", "1", "10s", "~", "x"])


@relaxed
@given(st.lists(SPECIAL | WORDS, max_size=40).map("".join))
def test_arbitrary_yaml_like_text(attempt: Callable[[bytes], None], text: str) -> None:
    attempt(b"task_name: demo\n" + text.encode())


@relaxed
@given(st.data())
def test_a_config_with_typing_mistakes(attempt: Callable[[bytes], None], data: st.DataObject) -> None:
    text = TEMPLATE.replace("@PYTHON_ENV_LINE@", "").replace("\n#", "\n") if data.draw(st.booleans()) else TEMPLATE
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        text = text[:place] + data.draw(SPECIAL | WORDS | st.just("")) + text[place + data.draw(st.integers(0, 3)) :]
    attempt(text.encode())


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | WORDS
NAMES = st.text() | WORDS
FLAT = st.lists(SCALARS, max_size=4) | st.dictionaries(NAMES, SCALARS, max_size=4)
VALUES = SCALARS | FLAT | st.lists(FLAT, max_size=4) | st.dictionaries(NAMES, SCALARS | FLAT, max_size=4)


@relaxed
@given(st.dictionaries(st.sampled_from(list(KEYS)), VALUES, max_size=6))
def test_known_keys_with_arbitrary_values(attempt: Callable[[bytes], None], content: dict[str, object]) -> None:
    attempt(json.dumps({"task_name": "demo", **content}).encode())
