"""What a command that `run` queues is called, and what its options may say."""

from __future__ import annotations

import pytest

from tinksched.config import asked
from tinksched.errors import UsageError
from tinksched.operations.commands import suggested_name


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python train.py --lr 0.1", "train"),
        ("python3.11 -u ./src/train.py", "train"),
        ("python -m pkg.train --x", "train"),
        ("python -c print(1)", "python"),
        ("torchrun --nproc_per_node 2 train.py --config c.yml", "train"),
        ("bash run.sh", "run"),
        ("sh -c true", "sh"),
        ("./train.py", "train"),
        ("/opt/tool/bin/simulate --n 3", "simulate"),
        ("uv run train.py", "train"),
        ("env A=1 B=2 python train.py", "train"),
        ("A=1 sleep 5", "sleep"),
        ("sleep 5", "sleep"),
        ("./123", "command_123"),
        ("./_x", "x"),
        ("./größe.py", "größe"),
        ("./a:b.c$d", "a_b_c_d"),
        ("./" + "x" * 99, "x" * 40),
        ("./--.py", "command"),
        ("./\x1b[31m", "31m"),
    ],
)
def test_a_name_made_of_a_command(command: str, name: str) -> None:
    found = suggested_name(command.split(" "))
    assert found == name and found.isprintable()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "--gpus must be a whole number of at least 0, not the text 'x'"),
        ("-2", "--gpus must be a whole number of at least 0, not the number -2"),
        ("1.5", "--gpus must be a whole number of at least 0, not the text '1.5'"),
        ("99999999", "--gpus must be at most 1000000, not the number 99999999"),
    ],
)
def test_gpus_are_refused_as_in_the_configuration(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked.gpus(text, "--gpus")
    assert caught.value.message == said
    assert asked.gpus("2", "--gpus") == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("20", "--memory must be a size such as 200MB or 8GiB, not the number 20; a size needs a unit, such as 200MB"),
        ("20gib", "--memory must be a size such as 200MB or 8GiB, not the text '20gib'; write 20GiB"),
        ("much", "--memory must be a size such as 200MB or 8GiB, not the text 'much'"),
    ],
)
def test_memory_is_refused_as_in_the_configuration(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked.size(text, "--memory")
    assert caught.value.message == said
    assert asked.size("20GiB", "--memory") == 20 << 30
