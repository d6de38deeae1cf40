"""A picture of the medians that matter most, with the spread of nine in ten samples."""

from __future__ import annotations

from pathlib import Path

from .measure import spread
from .report import described
from .results import Results, say

PANELS = ("handover", "makespan", "launch 4", "enqueue 10000", "status 10000", "scale handover", "idle cpu", "cold")


def draw(results: Results, path: Path) -> bool:
    """Draw the picture. False if there is none: without matplotlib, or without anything to show."""
    path.unlink(missing_ok=True)
    panels = [name for name in PANELS if name in results.samples]
    try:
        import matplotlib
    except ImportError:
        say("no plot: matplotlib is not installed")
        return False
    if not panels:
        return False
    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams |= {"svg.hashsalt": "tinksched", "svg.fonttype": "none"}  # the same results make the same file
    rows = (len(panels) + 1) // 2
    figure, axes = pyplot.subplots(rows, 2, figsize=(12, 2.6 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, name in zip(axes.flat, panels, strict=False):
        _panel(axis, results, name)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def _panel(axis, results: Results, name: str) -> None:  # type: ignore[no-untyped-def] # matplotlib is optional
    found = described(name)
    if found is None:
        return
    metric, title = found
    rows = {system: spread(rounds) for system, rounds in results.samples[name].items() if any(rounds)}
    values = [row.median * metric.scale for row in rows.values()]
    errors = [
        [(row.median - row.low) * metric.scale for row in rows.values()],
        [(row.high - row.median) * metric.scale for row in rows.values()],
    ]
    ours = [not metric.peers or system.startswith("tinksched") for system in rows]
    for place, (mine, value) in enumerate(zip(ours, values, strict=True)):
        spread_of_it = [[side[place]] for side in errors]
        axis.errorbar(value, place, xerr=spread_of_it, fmt="o", color="#c44e52" if mine else "#5f6b7a", capsize=3)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_xlabel(metric.unit)
    if min(values) > 0 and max(values) > 20 * min(values):
        axis.set_xscale("log")
    else:
        axis.set_xlim(left=0)
    axis.spines[["top", "right"]].set_visible(False)
