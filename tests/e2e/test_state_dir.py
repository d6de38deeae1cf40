"""A state folder elsewhere than in the workspace."""

from __future__ import annotations

from tests.support import Bench, Lab
from tinksched.host.statedir import StateDir


def test_the_state_may_lie_elsewhere_and_belongs_to_one_workspace(lab: Lab) -> None:
    place = lab.folder / "local disk" / "state"
    bench = lab.workspace(tasks={"a.yml": ""}, state_dir=str(place))
    bench.state = StateDir(place)
    bench.run("start", "--wait")
    assert (place / "state.db").stat().st_mode & 0o777 == 0o600
    assert place.stat().st_mode & 0o777 == 0o700
    assert not (bench.folder / ".tinksched").exists()
    assert bench.states() == {"a": "completed"}
    other: Bench = lab.workspace("other", tasks={"a.yml": ""}, state_dir=str(place))
    answer = other.run("start", code=2)
    assert "holds the state of the workspace" in answer.err and "state_dir of its own" in answer.err
