"""The report as one HTML file: no script, nothing from elsewhere, every text of a user escaped, light and dark."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from ..operations.report import Report
from ..store import Ran
from .tables import clock, printable

MOST_RUNS = 1_000  # rows of the table of runs, the newest
MOST_TASKS = 1_000  # rows of the table of metrics
MOST_METRICS = 16
LONGEST = 200  # characters of a text
WIDTH, LEFT, LANE, GAP = 1000.0, 56.0, 14.0, 8.0
MOST_LANES = 16  # of one GPU
MIN_WIDTH = 0.7  # of a run in the picture; what would be narrower is drawn so wide

_SIGNS = {"completed": "✔", "failed": "✘", "lost": "✘", "timed_out": "✘", "cancelled": "-", "running": "▶"}
_CLASSES = {"completed": "ok", "cancelled": "cut", "running": "run"}  # all others are bad
_STYLE = """
:root{color-scheme:light dark;--back:#fff;--text:#1c2430;--dim:#5f6b7a;--line:#d9dee5;--card:#f5f7fa;
--ok:#2e8b57;--bad:#c0392b;--cut:#9aa3ae;--run:#2878c8}
@media (prefers-color-scheme:dark){:root{--back:#14181d;--text:#e4e8ee;--dim:#98a4b3;--line:#333b45;--card:#1d232a;
--ok:#4caf7d;--bad:#e8695b;--cut:#737d89;--run:#5aa2e6}}
body{margin:2rem auto;max-width:66rem;padding:0 1rem;background:var(--back);color:var(--text);
font:15px/1.45 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .6rem}.dim{color:var(--dim)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.7rem;margin-top:1.2rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem .9rem}
.card b{display:block;font-size:1.25rem}
.wide{overflow-x:auto}table{border-collapse:collapse}
th,td{text-align:left;padding:.28rem 1.4rem .28rem 0;border-bottom:1px solid var(--line);vertical-align:top;
white-space:nowrap}
th{color:var(--dim);font-weight:600}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
td.r{overflow-wrap:anywhere;min-width:14rem;white-space:normal}
svg{display:block;width:100%;min-width:52rem;height:auto}svg text{font:11px system-ui,sans-serif;fill:var(--dim)}
.ok{fill:var(--ok)}.bad{fill:var(--bad)}.cut{fill:var(--cut)}.run{fill:var(--run)}.row{fill:var(--dim);opacity:.09}
.tick{stroke:var(--line)}.stripe{stroke:var(--back);stroke-width:2}
td .ok{color:var(--ok)}td .bad{color:var(--bad)}td .run{color:var(--run)}td .cut{color:var(--cut)}
"""


def page(made: Report) -> str:
    """The whole file."""
    title = f"{_text(made.task_name)}: report"
    span = f"{_date(made.since)} to {_date(made.until)}"
    sections = [
        f"<h1>{_text(made.task_name)}</h1>",
        f'<div class="dim">{_text(made.workspace)}<br>{span}</div>',
        _cards(made),
    ]
    if made.runs:
        sections += [_timeline(made), _gpus(made), _failures(made), _metrics(made), _runs(made)]
    else:
        sections.append("<p>Nothing ran in this time.</p>")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        + "\n".join(section for section in sections if section)
        + "\n</body>\n</html>\n"
    )


def _cards(made: Report) -> str:
    failed = sum(made.counts.get(kind, 0) for kind in ("failed", "timed_out", "lost"))
    facts = [
        (str(len(made.runs)), "runs"),
        (str(made.counts.get("completed", 0)), "completed"),
        (str(failed), "failed"),
        (str(made.retries), "retries"),
        (f"{made.gpu_hours:.2f}", "GPU hours busy"),
        (f"{clock(made.waits.median)} ({clock(made.waits.longest)})", "wait (longest)"),
    ]
    return '<div class="cards">' + "".join(f'<div class="card"><b>{n}</b>{what}</div>' for n, what in facts) + "</div>"


# -- the timeline


def _timeline(made: Report) -> str:
    """A row for each GPU, in it a lane for each slot that was in use at once, in it a bar for each run."""
    lanes = _lanes(made)
    if not lanes:
        return ""
    scale = (WIDTH - LEFT) / max(made.until - made.since, 1e-9)
    parts: list[str] = []
    top = 4.0
    for gpu, rows in lanes.items():
        height = len(rows) * LANE
        parts.append(f'<rect class="row" x="{LEFT:g}" y="{top:g}" width="{WIDTH - LEFT:g}" height="{height:g}"/>')
        parts.append(f'<text x="0" y="{top + height / 2 + 4:g}">GPU {gpu}</text>')
        for number, runs in enumerate(rows):
            parts += _bars(runs, made, scale, top + number * LANE)
        top += height + GAP
    parts = [*_ticks(made, scale, top), *parts]
    label = "What ran on which GPU when"
    legend = "".join(
        f'<rect class="{kind}" x="{LEFT + at * 110:g}" y="{top + 24:g}" width="12" height="10"/>'
        + (_stripe(LEFT + at * 110, top + 24, 12, 10) if kind == "bad" else "")
        + f'<text x="{LEFT + at * 110 + 17:g}" y="{top + 33:g}">{word}</text>'
        for at, (kind, word) in enumerate(
            (("ok", "completed"), ("bad", "failed"), ("cut", "cancelled"), ("run", "running"))
        )
    )
    return (
        f'<h2>Timeline</h2>\n<div class="wide">\n<svg viewBox="0 0 {WIDTH:g} {top + 40:g}" '
        f'role="img" aria-label="{label}">\n' + "\n".join(parts) + f"\n{legend}\n</svg></div>"
    )


def _lanes(made: Report) -> dict[int, list[list[Ran]]]:
    """The runs of each GPU, those that overlap in lanes of their own."""
    lanes: dict[int, list[list[Ran]]] = defaultdict(list)
    ends: dict[int, list[float]] = defaultdict(list)
    for run in made.runs:
        end = run.ended_at if run.ended_at is not None else made.until
        for gpu in run.gpus:
            free = next((at for at, until in enumerate(ends[gpu]) if until <= run.started_at), None)
            if free is None:
                free = len(ends[gpu]) if len(ends[gpu]) < MOST_LANES else MOST_LANES - 1
                if free == len(ends[gpu]):
                    ends[gpu].append(0.0)
                    lanes[gpu].append([])
            ends[gpu][free] = max(ends[gpu][free], end)
            lanes[gpu][free].append(run)
    return dict(sorted(lanes.items()))


def _bars(runs: Iterable[Ran], made: Report, scale: float, top: float) -> Iterator[str]:
    """Bars of a lane. Of runs that follow each other faster than can be seen, one stands for all of its kind."""
    begun: tuple[float, float, str, str, int] | None = None
    for run in runs:
        left = LEFT + max(0.0, run.started_at - made.since) * scale
        right = LEFT + max(0.0, (run.ended_at if run.ended_at is not None else made.until) - made.since) * scale
        kind = _class(run)
        title = _title(run, made.until)
        if begun is not None and begun[2] == kind and left - begun[0] < MIN_WIDTH:
            begun = (begun[0], max(begun[1], right), kind, begun[3], begun[4] + 1)
            continue
        if begun is not None:
            yield _bar(begun, top)
        begun = (left, right, kind, title, 1)
    if begun is not None:
        yield _bar(begun, top)


def _bar(bar: tuple[float, float, str, str, int], top: float) -> str:
    left, right, kind, title, count = bar
    width = max(MIN_WIDTH, right - left - 0.5)
    more = f" and {count - 1} more" if count > 1 else ""
    stripe = _stripe(left, top + 1, width, LANE - 2) if kind == "bad" and width > 6 else ""
    return (
        f'<g><title>{title}{more}</title><rect class="{kind}" x="{left:.1f}" y="{top + 1:g}" width="{width:.1f}" '
        f'height="{LANE - 2:g}"/>{stripe}</g>'
    )


def _stripe(left: float, top: float, width: float, height: float) -> str:
    """A line across what failed: colour is not the only sign."""
    return (
        f'<line class="stripe" x1="{left + 1:.1f}" y1="{top + height - 1:g}" x2="{left + min(width, height) - 1:.1f}" '
        f'y2="{top + 1:g}"/>'
    )


def _ticks(made: Report, scale: float, bottom: float) -> Iterator[str]:
    total = made.until - made.since
    form = "%H:%M:%S" if total < 600 else "%H:%M" if total < 86400 else "%m-%d %H:%M"
    for number in range(6):
        at = LEFT + number * (WIDTH - LEFT) / 5
        words = time.strftime(form, time.localtime(made.since + (at - LEFT) / scale))
        anchor = "start" if number == 0 else "end" if number == 5 else "middle"
        yield f'<line class="tick" x1="{at:g}" y1="0" x2="{at:g}" y2="{bottom:g}"/>'
        yield f'<text x="{at:g}" y="{bottom + 12:g}" text-anchor="{anchor}">{words}</text>'


# -- tables


def _gpus(made: Report) -> str:
    total = max(made.until - made.since, 1e-9)
    rows = [
        [f"GPU {gpu.index}", str(gpu.runs), clock(gpu.busy_seconds), f"{int(100 * gpu.busy_seconds / total)} %",
         ", ".join(f"{clock(end - begin)} from {_at(begin, made)}" for begin, end in gpu.gaps if end - begin >= 1)]
        for gpu in made.gpus
    ]  # fmt: skip
    return _table(
        "GPUs", ["GPU", "runs", "busy", "of the time", "longest idle gaps"], rows, numbers={1, 2, 3}, long={4}
    )


def _failures(made: Report) -> str:
    rows = [[str(item.runs), _text(item.reason), _text(", ".join(item.tasks[:20]))] for item in made.failures[:100]]
    return _table("Failures", ["runs", "because", "tasks"], rows, numbers={0}, long={1, 2}) if rows else ""


def _metrics(made: Report) -> str:
    names = made.metric_names[:MOST_METRICS]
    rows = [
        [_text(task), *("" if name not in numbers else f"{numbers[name]:.6g}" for name in names)]
        for task, numbers in list(made.metrics.items())[:MOST_TASKS]
    ]
    head = ["task", *map(_text, names)]
    return _table("Metrics", head, rows, numbers=set(range(1, len(head)))) if rows else ""


def _runs(made: Report) -> str:
    rows = []
    for run in list(reversed(made.runs))[:MOST_RUNS]:
        end = run.ended_at if run.ended_at is not None else made.until
        state = _state(run)
        sign = f'<span class="{_class(run)}">{_SIGNS.get(state, "✘")}</span> {state.replace("_", " ")}'
        rows.append([
            _text(run.task), str(run.attempt), sign, "-".join(map(str, run.gpus)) or "cpu", _at(run.started_at, made),
            clock(end - run.started_at), _text(run.reason.text) if run.reason else "",
        ])  # fmt: skip
    left = len(made.runs) - len(rows)
    title = "Runs" + (f" (the newest {len(rows)} of {len(made.runs)})" if left else "")
    head = ["task", "try", "outcome", "GPU", "started", "time", "reason"]
    return _table(title, head, rows, numbers={1, 5}, long={6})


def _table(
    title: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: set[int], long: set[int] | None = None
) -> str:
    """A table of cells that are HTML already."""
    kinds = [' class="n"' if at in numbers else ' class="r"' if at in (long or ()) else "" for at in range(len(head))]
    first = "".join(
        f"<th{kind if 'n' in kind[8:9] else ''}>{word}</th>" for kind, word in zip(kinds, head, strict=True)
    )
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<h2>{title}</h2>\n<div class="wide"><table>\n<tr>{first}</tr>\n{body}\n</table></div>'


def _state(run: Ran) -> str:
    return run.outcome.value if run.outcome else "running"


def _class(run: Ran) -> str:
    return _CLASSES.get(_state(run), "bad")


def _title(run: Ran, until: float) -> str:
    end = run.ended_at if run.ended_at is not None else until
    why = f": {run.reason.text}" if run.reason else ""
    return _text(
        f"{run.task} (try {run.attempt}), {_state(run).replace('_', ' ')} after {clock(end - run.started_at)}{why}"
    )


def _text(text: str) -> str:
    """Text of a user: cut, without control characters, escaped."""
    return escape(printable(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…").replace("\n", " "))


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _at(at: float, made: Report) -> str:
    """Without the day where all was on one."""
    return _date(at)[11:] if _date(made.since)[:10] == _date(made.until)[:10] else _date(at)
