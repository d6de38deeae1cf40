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
    colours = ["#c44e52" if system.startswith("tinksched") else "#8c96a3" for system in rows]
    axis.barh(list(rows), values, xerr=errors, color=colours, ecolor="#444444", capsize=3)
    axis.invert_yaxis()
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_xlabel(metric.unit)
    if values and max(values) > 20 * min(values) > 0:
        axis.set_xscale("log")
    axis.spines[["top", "right"]].set_visible(False)
