"""Which configs there are, and which of them a list on the command line means."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tinksched.config import Settings, load
from tinksched.errors import TinkschedError, UsageError
from tinksched.operations.selection import TaskConfig, available, choose, is_any, near, refuse_namesakes


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "ws"
    (folder / "configs").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder.resolve()


def with_configs(workspace: Path, *names: str, more: str = "") -> Settings:
    """The settings of a workspace with these files in `configs`."""
    (workspace / "scheduler_config.yml").write_text(f"task_name: demo\n{more}")
    for name in names:
        (workspace / "configs" / name).write_text("")
    return load(workspace)


def all_of(settings: Settings) -> list[str]:
    return [config.path.name for config in available(settings)]


def chosen(settings: Settings, wanted: str) -> list[str]:
    return [config.path.name for config in choose(settings, wanted)]


def refusal(settings: Settings, wanted: str | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        available(settings) if wanted is None else choose(settings, wanted)
    assert "\n" not in caught.value.message
    return caught.value


# ---------------------------------------------------------------- what there is


def test_configs_come_in_the_order_in_which_people_count(workspace: Path) -> None:
    settings = with_configs(workspace, "exp10.yml", "exp2.yml", "exp1.yaml", "b.yml", "exp02.yml")
    assert all_of(settings) == ["b.yml", "exp1.yaml", "exp02.yml", "exp2.yml", "exp10.yml"]


def test_a_config_is_named_by_its_stem_and_has_an_absolute_path(workspace: Path) -> None:
    settings = with_configs(workspace, "lr=0.1.yml")
    assert available(settings) == [TaskConfig("lr=0.1", str(workspace / "configs" / "lr=0.1.yml"))]


def test_hidden_files_drafts_folders_and_other_kinds_are_no_configs(workspace: Path) -> None:
    settings = with_configs(workspace, "a.yml", ".a.yml", "_base.yml", "a.txt", "a.yml~", "a.yml.swp", "A.YML")
    (workspace / "configs" / "folder.yml").mkdir()
    (workspace / "configs" / "broken.yml").symlink_to("nowhere")
    os.mkfifo(workspace / "configs" / "pipe.yml")
    (workspace / "configs" / "link.yml").symlink_to("a.txt")
    assert all_of(settings) == ["a.yml", "link.yml"]


def test_whether_there_is_any_config_is_known_without_reading_all(workspace: Path) -> None:
    settings = with_configs(workspace, "_base.yml", "a.txt")
    assert not is_any(settings)
    (workspace / "configs" / "a.yml").touch()
    assert is_any(settings)
    shutil.rmtree(workspace / "configs")
    assert not is_any(settings)


def test_the_pattern_says_which_files_count(workspace: Path) -> None:
    settings = with_configs(workspace, "a.yml", "a.json", "b.json", more="config_pattern: ['a.*', '*.json']\n")
    error = refusal(settings)
    assert "both the task 'a'" in error.message
    settings = with_configs(workspace, more="config_pattern: '*.json'\n")
    assert all_of(settings) == ["a.json", "b.json"]


def test_case_counts_in_patterns(workspace: Path) -> None:
    settings = with_configs(workspace, "a.yml", "A.yml", more="config_pattern: 'A*'\n")
    assert all_of(settings) == ["A.yml"]


def test_an_empty_folder_has_no_configs(workspace: Path) -> None:
    assert all_of(with_configs(workspace)) == []


def test_a_folder_that_is_not_there_is_an_error_that_names_the_key(workspace: Path) -> None:
    settings = with_configs(workspace, more="config_dir: nowhere\n")
    error = refusal(settings)
    assert str(workspace / "nowhere") in error.message
    assert "config_dir" in str(error.hint)


def test_a_file_in_the_place_of_the_folder_is_an_error(workspace: Path) -> None:
    settings = with_configs(workspace, "a.yml", more="config_dir: configs/a.yml\n")
    assert "Not a directory" in refusal(settings).message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_an_error(workspace: Path) -> None:
    settings = with_configs(workspace, "a.yml")
    (workspace / "configs").chmod(0)
    try:
        assert "Permission denied" in refusal(settings).message
    finally:
        (workspace / "configs").chmod(0o755)


def test_two_files_of_one_task_are_refused_and_both_named(workspace: Path) -> None:
    error = refusal(with_configs(workspace, "a.yml", "a.yaml"))
    assert "a.yml" in error.message
    assert "a.yaml" in error.message
    assert "without .yml" in str(error.hint)


def test_names_that_only_look_alike_are_different_tasks(workspace: Path) -> None:
    names = ["a.b.yml", "a.c.yml", "a.yml", "A.yml", "a .yml"]
    assert sorted(all_of(with_configs(workspace, *names))) == sorted(names)


@pytest.mark.parametrize("name", ["ä.yml", "a b.yml", "a,b.yml", "a'b.yml", "[1].yml", "🚀.yml", "-n.yml"], ids=ascii)
def test_a_config_may_have_any_name(workspace: Path, name: str) -> None:
    settings = with_configs(workspace, name)
    assert all_of(settings) == [name]
    assert chosen(settings, name) == [name]
    assert chosen(settings, name.removesuffix(".yml")) == [name]


# ---------------------------------------------------------------- what a list means


def test_a_list_is_taken_in_its_order_by_file_name_or_task_name(workspace: Path) -> None:
    settings = with_configs(workspace, "a.yml", "b.yaml", "c.yml")
    assert chosen(settings, "c.yml,a,b.yaml") == ["c.yml", "a.yml", "b.yaml"]
    assert chosen(settings, " c , a ,") == ["c.yml", "a.yml"]


def test_a_glob_means_those_that_match_in_natural_order(workspace: Path) -> None:
    settings = with_configs(workspace, "exp1.yml", "exp2.yml", "exp10.yml", "other.yml")
    for wanted in ("exp*", "exp*.yml", "exp[0-9]*", "exp?,exp??"):
        assert chosen(settings, wanted) == ["exp1.yml", "exp2.yml", "exp10.yml"]


def test_a_name_with_a_comma_or_with_signs_of_a_glob_means_itself(workspace: Path) -> None:
    settings = with_configs(workspace, "a,b.yml", "a.yml", "b.yml", "x[1].yml", "x1.yml")
    assert chosen(settings, "a,b.yml") == ["a,b.yml"]
    assert chosen(settings, "a,b") == ["a,b.yml"]
    assert chosen(settings, "a,x1") == ["a.yml", "x1.yml"]
    assert chosen(settings, "x[1].yml") == ["x[1].yml"]
    assert chosen(settings, "x[[]1].yml") == ["x[1].yml"]


def test_a_path_means_that_file_wherever_it_lies(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_configs(workspace, "a.yml")
    other = tmp_path / "elsewhere" / "special.yml"
    other.write_text("")
    for wanted in ("special.yml", "./special.yml", str(other), "../elsewhere/special.yml"):
        (config,) = choose(settings, wanted)
        assert config.name == "special"
        assert config.path.is_absolute()
        assert config.path.samefile(other)
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    (config,) = choose(settings, "~/special.yml")
    assert config.path == other


def test_a_file_of_the_config_folder_comes_before_one_of_that_name_in_the_current_folder(
    workspace: Path, tmp_path: Path
) -> None:
    settings = with_configs(workspace, "a.yml")
    (tmp_path / "elsewhere" / "a.yml").write_text("")
    (config,) = choose(settings, "a.yml")
    assert config.path == workspace / "configs" / "a.yml"
    (config,) = choose(settings, "./a.yml")
    assert config.path.samefile(tmp_path / "elsewhere" / "a.yml")


@pytest.mark.parametrize(
    ("wanted", "message", "hint"),
    [
        ("exp3", "there is no config 'exp3'", "did you mean exp2.yml or exp1.yml?"),
        ("exp3.yml", "there is no config 'exp3.yml'", "did you mean exp2.yml or exp1.yml?"),
        ("exp1.ymk", "there is no config 'exp1.ymk'", "did you mean exp1.yml?"),
        ("zzz", "there is no config 'zzz'", "there are: exp1.yml, exp2.yml, other.yml"),
        ("z*", "no config matches 'z*'", "there are: exp1.yml, exp2.yml, other.yml"),
        ("exp1,nope", "there is no config 'nope'", "there are: exp1.yml, exp2.yml, other.yml"),
        ("exp1 exp2", "there is no config 'exp1 exp2'", None),
        ("/nowhere/x.yml", "there is no config '/nowhere/x.yml'", None),
        (".", "there is no config '.'", None),
        ("x\0y", "there is no config 'x\\x00y'", None),
        ("x" * 5000, "there is no config 'xxx", None),
    ],
)
def test_what_means_nothing_is_refused_with_what_is_near(
    workspace: Path, wanted: str, message: str, hint: str | None
) -> None:
    error = refusal(with_configs(workspace, "exp1.yml", "exp2.yml", "other.yml"), wanted)
    assert error.message.startswith(message)
    assert str(workspace / "configs") in error.message
    assert hint is None or error.hint == hint


def test_a_task_name_with_a_slip_is_near_its_config_too(workspace: Path) -> None:
    settings = with_configs(workspace, "train.yml", "other.yml")
    assert str(refusal(settings, "trian").hint).startswith("did you mean train")


def test_in_an_empty_folder_the_hint_is_to_add_one(workspace: Path) -> None:
    assert refusal(with_configs(workspace), "a").hint == "add a .yml file there"


@pytest.mark.parametrize("wanted", ["a.yml,a.yml", "a,a.yml", "a,a", "a*,a", "a*,*", "a,b,c,a"])
def test_one_that_is_named_twice_is_refused(workspace: Path, wanted: str) -> None:
    error = refusal(with_configs(workspace, "a.yml", "b.yml", "c.yml"), wanted)
    assert error.message == f"{workspace / 'configs' / 'a.yml'} is named twice"


def test_one_that_is_named_by_its_name_and_by_its_path_is_refused(workspace: Path) -> None:
    settings = with_configs(workspace, "a.yml")
    assert "is named twice" in refusal(settings, f"a,{workspace / 'configs' / 'a.yml'}").message
    assert "'a'" in refusal(settings, f"a,{workspace / 'configs' / '..' / 'configs' / 'a.yml'}").message


def test_two_files_that_stand_for_one_task_are_refused(workspace: Path, tmp_path: Path) -> None:
    settings = with_configs(workspace, "a.yml")
    (tmp_path / "elsewhere" / "a.json").write_text("")
    assert "are both the task 'a'" in refusal(settings, "a.yml,a.json").message


def test_the_file_name_of_one_is_not_the_task_name_of_another(workspace: Path) -> None:
    assert chosen(with_configs(workspace, "a.yml", "a.yml.yml"), "a.yml") == ["a.yml"]


@pytest.mark.parametrize("wanted", ["~nobody-of-this-name/a.yml", "a,~nobody-of-this-name"])
def test_the_home_of_a_user_that_is_not_there_is_refused(workspace: Path, wanted: str) -> None:
    assert "nobody-of-this-name" in refusal(with_configs(workspace, "a.yml"), wanted).message


@pytest.mark.parametrize("wanted", [" ", ",", " , "])
def test_a_list_without_an_item_is_refused(workspace: Path, wanted: str) -> None:
    refusal(with_configs(workspace, "a.yml"), wanted)


@given(st.text(max_size=12))
def test_any_text_means_configs_or_is_refused_for_the_user(text: str) -> None:
    assume("~" not in text)  # see above
    with contextlib.suppress(TinkschedError):
        assert all(config.path.is_file() for config in choose(_ANYWHERE, text))


class _Anywhere:
    """As much of the settings as choosing looks at."""

    config_dir = Path(__file__).parent
    config_pattern = ("test_*.py",)


_ANYWHERE: Settings = _Anywhere()  # type: ignore[assignment]


# ---------------------------------------------------------------- namesakes and near names


def test_configs_of_different_names_are_no_namesakes() -> None:
    refuse_namesakes([])
    refuse_namesakes([TaskConfig("a", "/x/a.yml"), TaskConfig("b", "/x/b.yml")])


def test_the_first_namesakes_are_named_with_both_paths() -> None:
    configs = [TaskConfig("a", "/x/a.yml"), TaskConfig("b", "/x/b.yml"), TaskConfig("a", "/y/a.yml")]
    with pytest.raises(UsageError) as caught:
        refuse_namesakes(iter(configs))
    assert caught.value.message == "/y/a.yml and /x/a.yml are both the task 'a'"


@pytest.mark.parametrize(
    ("name", "names", "hint"),
    [
        ("exp1", [], ""),
        ("trian", ["train", "eval"], "did you mean train?"),
        ("x", ["a", "b"], "there are: a, b"),
        ("zz", [f"n{number}" for number in range(8)], "there are: n0, n1, n2, n3, n4, n5, n6, n7"),
        ("zz", [f"n{number}" for number in range(9)], "there are: n0, n1, n2, n3, n4, n5, n6, n7, …"),
    ],
)
def test_the_hint_names_what_is_near_or_what_there_is(name: str, names: list[str], hint: str) -> None:
    assert near(name, names) == hint
