"""Names that look alike, and names that hurt: right sessions, right logs, nothing executed, nobody else touched."""

from __future__ import annotations

from tests.support import Lab

EVIL = "it's #(touch pwned) $(touch pwned) `touch pwned` %d #S; x"


def test_hostile_names_get_their_own_sessions_and_logs_and_execute_nothing(lab: Lab) -> None:
    bench = lab.workspace("w s's #(touch pwned)", max_jobs_per_gpu=4, gpu_count=2)
    gate = bench.gate()
    names = ["exp1", "exp10", "exp.2", "with some spaces", EVIL, "-dash", "ünïcode✓", 'a"b;']
    for name in names:
        bench.add(f"{name}.yml", f"{gate.config}text: I am {name}\n")
    bench.run("start")
    bench.wait_for_starts(*names)
    tasks = bench.tasks()
    sessions = {name: tasks[name]["session"] for name in names}
    assert len(set(sessions.values())) == len(names)
    there = lab.sessions()
    for name in names:
        assert sessions[name] in there, (name, there)
        assert lab.tmux("display-message", "-p", "-t", f"={sessions[name]}:", "#{@tinksched_run}").stdout.strip()
    assert sessions["exp.2"].startswith("T_exp_2_gpu")
    gate.open()
    bench.wait_until(lambda: set(bench.states().values()) == {"completed"}, "the end")
    for name in names:
        assert bench.log(name) == f"I am {name}\n"
    assert not list(lab.folder.rglob("pwned"))


def test_cancelling_exp1_leaves_exp10_alone(lab: Lab) -> None:
    bench = lab.workspace(max_jobs_per_gpu=4)
    gate = bench.gate()
    for name in ("exp1", "exp10", "exp100"):
        bench.add(f"{name}.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("exp1", "exp10", "exp100")
    assert "cancelled: exp1\n" in bench.run("cancel", "exp1").out
    assert bench.states() == {"exp1": "cancelled", "exp10": "running", "exp100": "running"}
    gate.open()
    bench.wait_for_states(exp10="completed", exp100="completed")


def test_two_workspaces_with_one_task_name_do_not_touch_each_other(lab: Lab) -> None:
    one = lab.workspace("one", gpu_count=1, max_jobs_per_gpu=4)
    two = lab.workspace("two", gpu_count=1, max_jobs_per_gpu=4)
    gate_one, gate_two = one.gate(), two.gate()
    one.add("exp1.yml", gate_one.config + "text: of one\n")
    two.add("exp1.yml", gate_two.config + "text: of two\n")
    one.run("start")
    one.wait_for_states(exp1="running")
    two.run("start")
    two.wait_for_states(exp1="running")
    sessions = one.tasks()["exp1"]["session"], two.tasks()["exp1"]["session"]
    assert sessions == ("T_exp1_gpu0", "T_exp1_gpu0_2")
    assert {"T_scheduler", "T_scheduler_2"} <= set(lab.sessions())
    assert "killed: exp1" in one.run("kill-all").out
    assert two.states() == {"exp1": "running"}
    gate_two.open()
    two.wait_for_states(exp1="completed")
    assert two.log("exp1") == "of two\n"


def test_two_workspaces_that_share_a_log_folder_write_to_logs_of_their_own(lab: Lab) -> None:
    shared = str(lab.folder / "shared logs")
    one = lab.workspace("one", log_dir=shared, tasks={"exp1.yml": "text: of one\n"})
    two = lab.workspace("two", log_dir=shared, tasks={"exp1.yml": "text: of two\n"})
    one.run("start", "--wait")
    two.run("start", "--wait")
    logs = sorted(path.read_text() for path in (lab.folder / "shared logs").rglob("exp1.log"))
    assert logs == ["of one\n", "of two\n"]
    assert len(list((lab.folder / "shared logs").glob("T_scheduler*.log"))) == 2


def test_kill_all_of_t_leaves_t_2_alone(lab: Lab) -> None:
    one = lab.workspace("one", task_name="T", max_jobs_per_gpu=4)
    two = lab.workspace("two", task_name="T_2", max_jobs_per_gpu=4)
    gates = one.gate(), two.gate()
    for bench, gate in zip((one, two), gates, strict=True):
        for name in ("exp1", "2_exp1"):
            bench.add(f"{name}.yml", gate.config)
        bench.run("start")
        bench.wait_for_starts("exp1", "2_exp1")
    one.run("kill-all")
    assert two.states() == {"exp1": "running", "2_exp1": "running"}
    gates[1].open()
    two.wait_for_states(**{"exp1": "completed", "2_exp1": "completed"})


def test_names_that_tmux_would_make_one_are_refused(lab: Lab) -> None:
    bench = lab.workspace(tasks={"a.b.yml": "seconds: 0\n", "a_b.yml": "seconds: 0\n"})
    answer = bench.run("start", code=2)
    assert "'a.b' and 'a_b'" in answer.err and "same tmux session name" in answer.err
    assert not lab.sessions()


def test_a_foreign_session_of_the_same_name_is_not_killed(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, tasks={"exp1.yml": "seconds: 0\n"})
    lab.tmux("new-session", "-d", "-s", "T_exp1_gpu0", "cat")
    lab.tmux("new-session", "-d", "-s", "T_scheduler", "cat")
    bench.run("start", "--wait")
    assert {"T_exp1_gpu0", "T_scheduler", "T_exp1_gpu0_2"} <= set(lab.sessions())
    assert lab.tmux("display-message", "-p", "-t", "=T_exp1_gpu0:", "#{pane_dead}").stdout.strip() == "0"
