"""Grids of configs: their names, what is written, and that all of it is or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinksched.config import Settings, load
from tinksched.errors import ConfigError, UsageError
from tinksched.operations.sweep import Fate, Sweep, plan, write

TEMPLATE = "# a base\nlr: 0.1  # rate\nopt:\n  lr: 1\n  name: adam\nconv1: 3\nlayers: [1, 2]\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "_base.yml").write_text(TEMPLATE)
    (tmp_path / "scheduler_config.yml").write_text("task_name: T\n")
    return load(tmp_path)


def names(settings: Settings, *grid: str) -> list[str]:
    return [point.name for point in plan(settings, "_base.yml", grid).points]


def files(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.config_dir.iterdir())


def test_names_say_the_values(settings: Settings) -> None:
    assert names(settings, "lr=0.1,0.01", "opt.name=adam") == ["base_lr0.1_name-adam", "base_lr0.01_name-adam"]
    assert names(settings, "lr=0.1", "opt.lr=3") == ["base_lr0.1_opt.lr3"]
    assert names(settings, "conv1=3,-3") == ["base_conv1-3", "base_conv1--3"]
    assert names(settings, "layers=[1,2],[3]") == ["base_layers1-2", "base_layers3"]
    assert names(settings, "layers.0=4") == ["base_layers.0-4"]


def test_the_last_key_changes_fastest(settings: Settings) -> None:
    assert names(settings, "lr=1,2", "conv1=3,4") == [
        "base_lr1_conv1-3", "base_lr1_conv1-4", "base_lr2_conv1-3", "base_lr2_conv1-4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "grid",
    ["opt.name=1,'1'", "opt.name=a_b,a.b", "opt.name=A,a", "opt.name='a b','a/b',a-b", "opt.name='x','x '",
     "layers=[1,2],['1',2],[[1],2],{a: 1}", f"opt.name={'x' * 30}a,{'x' * 30}b", f"opt.name={'é' * 99},{'é' * 98}"],
)  # fmt: skip
def test_no_two_points_share_a_file_or_a_session(settings: Settings, grid: str) -> None:
    found = names(settings, grid)
    assert len({name.casefold().replace(".", "_") for name in found}) == len(found) > 1
    assert all(len(name.encode()) < 140 and "/" not in name and " " not in name for name in found)


def test_a_point_is_called_the_same_in_every_grid(settings: Settings) -> None:
    for value in ("'a b'", "'1'", "0.5", "x" * 40):
        alone = names(settings, f"opt.name={value}")
        assert alone[0] in names(settings, f"opt.name=1,2,a-b,{value}")


def test_what_is_written_is_the_template_with_the_values(settings: Settings) -> None:
    write(plan(settings, "_base", ["lr=0.5", "+new.key=1,2"]))
    assert files(settings) == [
        "_base.yml", "_sweep_base.json", "base_lr0.5_key1.yml", "base_lr0.5_key2.yml",
    ]  # fmt: skip
    text = (settings.config_dir / "base_lr0.5_key2.yml").read_text()
    assert text == TEMPLATE.replace("0.1", "0.5") + "new: {key: 2}\n"
    (record,) = json.loads((settings.config_dir / "_sweep_base.json").read_text())["sweeps"]
    assert record["grid"] == {"lr": ["0.5"], "new.key": ["1", "2"]} and record["template"] == "_base.yml"
    assert record["files"]["base_lr0.5_key2.yml"] == {"lr": "0.5", "new.key": "2"}


def test_what_exists_is_not_written_again(settings: Settings) -> None:
    write(plan(settings, "_base", ["lr=1,2"]))
    first = settings.config_dir / "base_lr1.yml"
    before = first.stat()
    again = plan(settings, "_base", ["lr=1,2,3"])
    assert [point.fate for point in again.points] == [Fate.SAME, Fate.SAME, Fate.NEW]
    write(again)
    write(plan(settings, "_base", ["lr=1,2,3"]))
    assert first.stat() == before
    assert len(json.loads((settings.config_dir / "_sweep_base.json").read_text())["sweeps"]) == 2


def changed(settings: Settings) -> Sweep:
    """A sweep of which one file was edited since."""
    write(plan(settings, "_base", ["lr=1"]))
    (settings.config_dir / "base_lr1.yml").write_text("mine\n")
    return plan(settings, "_base", ["lr=1,2"])


def test_what_was_edited_is_refused_by_name_and_nothing_is_written(settings: Settings) -> None:
    sweep = changed(settings)
    before = files(settings)
    with pytest.raises(UsageError, match=r"1 of these exist with other contents.*base_lr1\.yml"):
        write(sweep)
    assert files(settings) == before


def test_with_force_it_is_replaced_and_kept(settings: Settings) -> None:
    (copy,) = write(changed(settings), force=True)
    assert copy.read_text() == "mine\n" and copy.name.startswith("base_lr1.yml.bak-")
    assert "lr: 1 " in (settings.config_dir / "base_lr1.yml").read_text()


def test_a_file_that_comes_meanwhile_undoes_everything(settings: Settings) -> None:
    sweep = changed(settings)
    (settings.config_dir / "base_lr2.yml").write_text("somebody else's\n")
    before = files(settings)
    with pytest.raises(UsageError, match="nothing was written"):
        write(sweep, force=True)
    assert files(settings) == before
    assert (settings.config_dir / "base_lr1.yml").read_text() == "mine\n"
    assert (settings.config_dir / "base_lr2.yml").read_text() == "somebody else's\n"


def test_more_than_a_thousand_points_are_meant(settings: Settings) -> None:
    with pytest.raises(UsageError, match=r"2000 points \(2 by 1000\)"):
        plan(settings, "_base", ["lr=1,2", "conv1=1..1000"])
    assert len(plan(settings, "_base", ["lr=1,2", "conv1=1..1000"], many=True).points) == 2000
    with pytest.raises(UsageError, match="at most 100000"):
        plan(settings, "_base", ["lr=1..1000", "conv1=1..1000"], many=True)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (["lr"], "no KEY=VALUES"), (["=1"], "no KEY=VALUES"), (["lr=1", "+lr=2"], "given twice"),
        (["lr=1,1"], "stands there twice"), (["lr=1,"], "is empty"), (["lrr=1"], "no key 'lrr'"),
    ],
)  # fmt: skip
def test_a_grid_that_is_none(settings: Settings, grid: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(settings, "_base", grid)


def test_a_template_that_is_not_there_or_broken(settings: Settings) -> None:
    with pytest.raises(UsageError, match=r"no template 'bse\.yml'") as bad:
        plan(settings, "bse.yml", ["lr=1"])
    assert bad.value.hint == "did you mean _base.yml?"
    (settings.config_dir / "bad.yml").write_text("a: 1\n b: 2\n")
    with pytest.raises(ConfigError, match=r"bad\.yml:2:3"):
        plan(settings, "bad.yml", ["a=1"])
    (settings.config_dir / "bad.yml").write_bytes(b"a: 1\n\xff")
    with pytest.raises(UsageError, match=r"bad\.yml:2: not UTF-8"):
        plan(settings, "bad.yml", ["a=1"])


def test_points_that_would_be_no_tasks_are_refused(settings: Settings) -> None:
    (settings.config_dir / "base_lr1.yaml").write_text("lr: 1\n")
    with pytest.raises(UsageError, match=r"base_lr1\.yml and base_lr1\.yaml"):
        plan(settings, "_base", ["lr=1"])
    (settings.workspace / "scheduler_config.yml").write_text("task_name: T\nconfig_pattern: 'exp*.yml'\n")
    with pytest.raises(UsageError, match="would be no task"):
        plan(load(settings.workspace), "_base", ["lr=1"])
    elsewhere = plan(load(settings.workspace), "_base", ["lr=1"], out_dir=settings.workspace / "new" / "folder")
    write(elsewhere)
    assert (settings.workspace / "new" / "folder" / "base_lr1.yml").is_file()


def test_a_manifest_of_somebody_else_stays(settings: Settings) -> None:
    (settings.config_dir / "_sweep_base.json").write_text("[1]")
    with pytest.raises(UsageError, match="no manifest of a sweep"):
        write(plan(settings, "_base", ["lr=1"]))
    assert files(settings) == ["_base.yml", "_sweep_base.json"]
