"""The commands that change something: `start`, `retry`, `cancel`, `stop`, `kill-all`."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import typer

from ..errors import NothingToActOn, TinkschedError, UsageError
from ..operations import control, daemon, emergency, strays, waiting
from ..operations import start as starting
from ..operations.start import Plan, Wish
from ..operations.workspace import OpenWorkspace, Workspace
from . import render
from .answers import answer
from .finding import find, wanted
from .options import AllOption, ConfigOption, FailedOption, JsonOption, SelectorsArgument, WorkspaceOption


def start(
    context: typer.Context,
    configs: Annotated[
        str | None,
        typer.Argument(metavar="[CONFIG_LIST]", help="Comma-separated file names in config_dir, paths, or globs."),
    ] = None,
    gpus: Annotated[
        str | None, typer.Argument(metavar="[GPU_LIST]", help="Comma-separated; entry i pins config i to that GPU.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for these tasks; exit 1 if one did not complete.")] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Be the scheduler here, not in a tmux session; exit 1 as --wait does.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be queued and start nothing.")] = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Queue completed tasks again, too.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Queue failed and lost tasks again, too.")] = False,
    changed: Annotated[
        bool, typer.Option("--changed", help="Queue completed tasks again whose config was edited since.")
    ] = False,
    unless_stopped: Annotated[
        bool,
        typer.Option("--unless-stopped", help="For cron: do nothing after stop or kill-all, until a plain start."),
    ] = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Queue new configs, and make sure that a scheduler runs. Safe to repeat at any time.

    \b
    Examples:
      tinksched start
      tinksched start "a.yml,b.yml" "0,1"    # a on GPU 0, b on GPU 1
      tinksched start --failed --wait
    """
    if wait and foreground:
        raise UsageError("--wait and --foreground can't be used together: --foreground waits by itself")
    if as_json and foreground:
        raise UsageError("--json and --foreground can't be used together: the scheduler prints what it does")
    found = find(context, workspace, config)
    if unless_stopped and (who := starting.stopped_by(found)):
        render.message(f"nothing is started: stopped {who} (a plain `tinksched start` goes on)")
        _say(None, as_json, stopped=who)
        return
    if not configs and not dry_run and not foreground and starting.has_only_commands(found):
        with found.open() as opened:
            starting.go_on(opened)
            _ensure(opened)
        _say(None, as_json)
        return
    prepared = starting.prepare(found.settings, Wish(configs, gpus, rerun, failed, changed))
    if dry_run:
        _say(starting.plan(found, prepared), as_json, dry=True)
        return
    with found.open() as opened:
        if found.state.shared:
            render.message(f"{found.state.path} is on a network file system: a state_dir on a local disk is faster")
        plan = starting.queue(opened, prepared)
        if not (as_json and wait):
            _say(plan, as_json)
        if foreground:
            raise typer.Exit(_foreground(found, opened, plan))
        _ensure(opened)
        if wait:
            raise typer.Exit(_wait(found, opened, plan, as_json))


def retry(
    context: typer.Context,
    tasks: SelectorsArgument = None,
    failed: FailedOption = False,
    everything: AllOption = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Queue finished tasks again.

    \b
    Examples:
      tinksched retry exp1 'big_*'
      tinksched retry --failed
      tinksched retry 3-5
    """
    chosen = wanted(tasks, failed, everything)
    if not chosen:
        raise UsageError("retry takes finished tasks (names, globs, numbers …), --failed or --all")
    with find(context, workspace, config).open_existing() as opened:
        done = control.retry(opened, chosen)
    left = [(name, f"is {state}") for name, state in done.left]
    if as_json:
        answer("retry", done.queued, left)
    else:
        print(f"queued again: {render.names(done.queued)}")
    render.message(done.started)
    render.left(left)
    if left:
        raise typer.Exit(1)


def cancel(
    context: typer.Context,
    tasks: SelectorsArgument = None,
    failed: FailedOption = False,
    everything: AllOption = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel tasks that wait or run. A queued one leaves the queue, a running one is ended with all its processes.

    \b
    Examples:
      tinksched cancel exp1 exp2
      tinksched cancel 'big_*' 3-5
      tinksched cancel @    # the task that was queued last
    """
    chosen = wanted(tasks, failed, everything)
    if not chosen:
        raise UsageError("cancel needs tasks: names, globs, numbers (1-3,5), @ for the newest, or --all")
    found = find(context, workspace, config, last_good=True)
    try:
        with found.open_existing() as opened:
            done = control.cancel(opened, chosen)
    except emergency.UNRECORDED as trouble:
        emergency.cancel(found, None if everything else chosen.words, trouble)
    left = [(name, f"is {outcome}") for name, outcome in done.left]
    late = [(name, f"{outcome} before it could be cancelled") for name, outcome in done.finished]
    if as_json:
        answer("cancel", done.cancelled, [*left, *late, *_not_ended(done.stuck, done.unrecorded)])
    elif done.cancelled:
        print(f"cancelled: {render.names(done.cancelled)}")
    render.left(left)
    for name, why in () if as_json else late:
        print(f"{name} {why}")
    _refuse_unrecorded(done.unrecorded)
    if done.stuck:
        raise TinkschedError(
            f"not ended yet: {', '.join(done.stuck)}", hint="its processes don't die; tinksched status shows them"
        )


def stop(
    context: typer.Context, workspace: WorkspaceOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Stop the scheduler; running tasks go on. A later `start` finds them again.

    \b
    Example:
      tinksched stop
    """
    found = find(context, workspace, config, last_good=True)
    if not found.state.exists:
        raise NothingToActOn("no scheduler runs here: nothing was ever queued in this workspace")
    try:
        with found.open() as opened:
            done = control.stop(opened)
    except emergency.UNRECORDED as trouble:
        emergency.stop(found, trouble)
    if as_json:
        answer("stop", scheduler=done.was_running, running=[*done.running], queued=done.queued)
    else:
        print_all(
            ("scheduler stopped", done.was_running),
            (f"{len(done.running)} running on: {render.names(done.running)}", done.running),
            (f"{done.queued} queued, and waiting for `tinksched start`", done.queued),
        )
    if not done.was_running:
        raise NothingToActOn("no scheduler was running")


def kill_all(
    context: typer.Context, workspace: WorkspaceOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """End the scheduler and every run of this workspace, now. The emergency stop: it asks nothing.

    \b
    Example:
      tinksched kill-all
    """
    found = find(context, workspace, config, last_good=True)
    if not found.state.exists and not strays.find(found.settings, found.state, None):
        if as_json:
            answer("kill-all", scheduler=False)
        else:
            print("nothing to kill: nothing was ever queued here")
        return
    try:
        with found.open() as opened:
            done = control.kill_all(opened)
    except emergency.UNRECORDED as trouble:
        emergency.kill_all(found, trouble)
    if as_json:
        left = _not_ended(done.stuck, done.unrecorded)
        answer("kill-all", [*done.runs, *done.queued], left, scheduler=done.scheduler)
    else:
        print_all(
            ("nothing to kill", not (done.scheduler or done.runs or done.queued or done.stuck)),
            ("killed: the scheduler", done.scheduler),
            (f"killed: {render.names(done.runs)}", done.runs),
            (f"cancelled in the queue: {render.names(done.queued)}", done.queued),
        )
    _refuse_unrecorded(done.unrecorded)
    if done.stuck:
        raise TinkschedError(f"some processes of these could not be killed: {', '.join(done.stuck)}")
    if done.server:
        raise done.server


def serve_workspace(context: typer.Context, workspace: WorkspaceOption = None, config: ConfigOption = None) -> None:
    """Be the scheduler (what `start` runs in the scheduler's session)."""
    from ..host import wake
    from ..scheduler.main import serve

    found = find(context, workspace, config)
    try:
        with found.open() as opened:
            serve(opened.settings, opened.state, opened.home)
        sys.stdout.flush()
        os._exit(0)  # threads may still wait for runs that the next scheduler will look after
    except TinkschedError as error:
        said = f"{error.message}; {error.hint}" if error.hint else error.message
        wake.announce(found.state.path, b"error: " + said.encode())
        raise


def _ensure(opened: OpenWorkspace) -> None:
    """A scheduler, if there is anything for it to do."""
    if not opened.store.has_queue() and not opened.store.active_tasks():
        render.message("nothing to do")
        return
    started = daemon.ensure(opened)
    paused = opened.store.paused()
    render.message(paused.said(time.time()) if paused else None)
    render.message(started or "the scheduler runs already, and has been told")
    render.message("tinksched status shows what happens; tinksched logs TASK -f follows a run")


def _batch(opened: OpenWorkspace, plan: Plan) -> list[str]:
    """The tasks that `--wait` is about: those of this call, those that were busy already included."""
    return [*plan.queued, *plan.sorted.busy]


def _foreground(found: Workspace, opened: OpenWorkspace, plan: Plan) -> int:
    from ..scheduler.main import serve

    batch = _batch(opened, plan)
    if daemon.nudge(opened):
        raise TinkschedError(
            "a scheduler runs already, and has been told of what is new", hint="tinksched stop ends it; or use --wait"
        )
    serve(opened.settings, opened.state, opened.home)
    with found.open() as again:  # the state may have been deleted and put back meanwhile
        return _report(found, again, batch)


def _wait(found: Workspace, opened: OpenWorkspace, plan: Plan, as_json: bool) -> int:
    batch = _batch(opened, plan)
    with render.progress(len(batch)) as progress:
        for tasks in waiting.follow(opened, batch):
            progress.show(tasks)
    if not as_json:
        return _report(found, opened, batch)
    known = opened.store.named(batch)
    _say(plan, as_json, states={task.name: (task.outcome or task.state).value for task in known.values()})
    return 0 if waiting.went_well(known.values()) else 1


def _say(plan: Plan | None, as_json: bool, *, dry: bool = False, **more: object) -> None:
    """What was planned or queued; None where there are only commands to go on with."""
    if plan is not None and not as_json:
        render.plan(plan, dry=dry)
    if not as_json:
        return
    for text in (*(f"warning: {warning}" for warning in plan.warnings), plan.gpu_note) if plan else ():
        render.message(text)
    queued = plan.queued if plan else ()
    left = {task: what for tasks, what, _ in render.left_by(plan.sorted) for task in tasks} if plan else {}
    answer("start", () if dry else queued, left, **({"would_queue": [*queued]} if dry else {}), **more)


def print_all(*lines: tuple[str, object]) -> None:
    """Print the lines whose condition holds."""
    for text, applies in lines:
        if applies:
            print(text)


def _not_ended(stuck: tuple[str, ...], unrecorded: tuple[str, ...]) -> list[tuple[str, str]]:
    dead = [(name, "dead, but not recorded yet") for name in unrecorded]
    return [*((name, "not ended yet") for name in stuck), *dead]


def _refuse_unrecorded(tasks: tuple[str, ...]) -> None:
    """Raises TinkschedError: there are some."""
    if tasks:
        raise TinkschedError(
            f"dead, but not recorded yet: {render.names(tasks)}", hint="is the disk of the state full?"
        )


def _report(found: Workspace, opened: OpenWorkspace, batch: list[str]) -> int:
    """The final table, with the last words of what failed; 1 if a task of the batch did not complete."""
    from ..operations import status as looking  # only where somebody has waited for the end

    sys.stderr.flush()
    render.status(looking.status(found, looking.MOST), last_words=True)
    return 0 if waiting.went_well(opened.store.named(batch).values()) else 1
