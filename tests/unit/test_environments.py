"""Stored environments: what was saved comes back exactly, privately, and a damaged file is noticed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinksched.host import environments

# What the environment of a process can hold, as os.environ shows it: any bytes but NUL, and no "=" in a name.
names = st.binary(min_size=1, max_size=12).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"_").replace(b"=", b"_")))
values = st.binary(max_size=40).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"_")))


@settings(deadline=None)
@given(st.dictionaries(names, values, max_size=6))
def test_any_environment_comes_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("environments")
    name = environments.save(folder, environment)
    assert environments.load(folder, name) == environment
    assert [entry.name for entry in folder.iterdir()] == [name]


def test_the_environment_of_this_process_comes_back(tmp_path: Path) -> None:
    assert environments.load(tmp_path, environments.save(tmp_path, os.environ)) == dict(os.environ)


def test_the_same_environment_is_stored_once_whatever_its_order(tmp_path: Path) -> None:
    first = environments.save(tmp_path, {"A": "1", "B": "2"})
    before = (tmp_path / first).stat()
    assert environments.save(tmp_path, {"B": "2", "A": "1"}) == first
    assert (tmp_path / first).stat() == before, "it is not even written again"
    assert environments.save(tmp_path, {"A": "1", "B": "3"}) != first


def test_it_is_private_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        name = environments.save(tmp_path, {"TOKEN": "secret"})
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_what_a_killed_writer_left_behind_does_not_disturb(tmp_path: Path) -> None:
    name = environments.save(tmp_path, {"A": "1"})
    (tmp_path / name).rename(tmp_path / f"{name}.{os.getpid()}")  # written, and killed before it got its name
    assert environments.save(tmp_path, {"A": "1"}) == name
    assert environments.load(tmp_path, name) == {"A": "1"}
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_the_name_does_not_depend_on_the_process(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from tinksched.host import environments as e\n"
    program += "print(e.save(Path(sys.argv[1]), {'A': '\\udce9', 'B': 'ä'}))"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().strip() == environments.save(tmp_path, {"B": "ä", "A": "\udce9"})


def test_a_missing_one_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        environments.load(tmp_path, "0123456789abcdef")
    with pytest.raises(FileNotFoundError):
        environments.save(tmp_path / "no", {})


DAMAGED = [b"", b"{", b'{"A": "1"', b"\xff\xfe", b"\0" * 9]
NO_MAP = [b"[]", b"null", b"3", b'"text"']


@pytest.mark.parametrize("content", DAMAGED, ids=repr)
def test_a_damaged_one_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError):
        environments.load(tmp_path, "x")


@pytest.mark.parametrize("content", NO_MAP, ids=bytes.decode)
def test_one_that_holds_no_map_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError):
        environments.load(tmp_path, "x")


@pytest.mark.parametrize("content", [b"", b'{"A"'])
def test_a_damaged_one_is_replaced_when_it_is_saved_again(tmp_path: Path, content: bytes) -> None:
    """A machine that lost power leaves the name without the content, for nothing is synced."""
    name = environments.save(tmp_path, {"A": "1"})
    (tmp_path / name).write_bytes(content)
    assert environments.save(tmp_path, {"A": "1"}) == name
    assert environments.load(tmp_path, name) == {"A": "1"}
