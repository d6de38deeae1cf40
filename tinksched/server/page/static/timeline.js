// What ran on which GPU when, as SVG: coloured and patterned by outcome, idle gaps left open and named.

import { draw, h } from "./dom.js";
import { duration, exactly, hourOf, serverTime } from "./format.js";
import { gaps, joined, lanes, rows } from "./lanes.js";
import { go } from "./route.js";
import { state, WORDS } from "./signs.js";

const SPANS = [
  ["1", "1 h"],
  ["6", "6 h"],
  ["24", "24 h"],
];
const OUTCOMES = ["running", "completed", "failed", "cancelled", "timed_out", "lost", "taken"];
const STEPS = [600, 900, 1800, 3600, 7200, 10800, 21600];

export function drawTimeline(into, tools, { gpus, runs, span, width, unit }) {
  draw(
    tools,
    h(
      "div",
      { class: "choice", role: "group", "aria-label": "Span of the timeline" },
      SPANS.map(([value, text]) =>
        h(
          "button",
          { key: value, type: "button", "aria-pressed": String(value === span), onclick: () => go({ span: value }) },
          text,
        ),
      ),
    ),
  );
  if (!gpus.length || width < 50) return void (drawn = draw(into) ?? []);
  const pixel = (Number(span) * 3600) / width;
  const to = Math.ceil(serverTime() / pixel) * pixel; // so that nothing is drawn anew before it would look different
  if (isDrawn([into, gpus.map(({ index }) => index).join(), runs, span, width, unit, to])) return;
  const view = {
    from: to - Number(span) * 3600,
    to,
    left: 2.2 * unit,
    right: width - 4.6 * unit,
    row: 1.9 * unit,
    unit,
    width,
  };
  view.x = (at) =>
    view.left + ((Math.min(Math.max(at, view.from), to) - view.from) / (to - view.from)) * (view.right - view.left);
  const shown = runs.filter((run) => (run.to ?? to) > view.from).map((run) => ({ ...run, outcome: kindOf(run) }));
  const height = gpus.length * view.row + 1.6 * unit;
  draw(
    into,
    h(
      "svg",
      { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": summary(gpus, shown, view) },
      patterns(unit),
      axis(view, height),
      gpus.map((gpu, place) =>
        row(
          gpu,
          shown.filter((run) => run.gpus.includes(gpu.index)),
          place,
          view,
        ),
      ),
    ),
    legend(shown),
  );
}

let drawn = [];

/** Whether the last picture is of just this. */
function isDrawn(given) {
  const isSame = given.every((value, place) => value === drawn[place]);
  drawn = given;
  return isSame;
}

/** Failed and lost runs have a pattern as well as a colour. */
function patterns(unit) {
  const hatch = (id, path) =>
    h(
      "pattern",
      { key: id, id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: `scale(${unit / 16})` },
      h("path", { class: "hatching", d: path }),
    );
  return h(
    "defs",
    { key: "defs" },
    hatch("hatch-failed", "M-1 7L7-1M-1 1L1-1M5 7L7 5"),
    hatch("hatch-timed_out", "M0 3H6"),
    hatch("hatch-lost", "M-1 7L7-1M-1-1L7 7"),
    hatch("hatch-cancelled", "M3 0V6"),
  );
}

function axis({ from, to, x, left, right, unit }, height) {
  const step = STEPS.find((seconds) => (seconds / (to - from)) * (right - left) > 5 * unit) ?? 21600;
  const offset = new Date(to * 1000).getTimezoneOffset() * 60;
  const marks = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= to; at += step) marks.push(at);
  return h(
    "g",
    { key: "axis", class: "axis" },
    marks.map((at) => [
      h("path", { key: `line${at}`, d: `M${x(at).toFixed(1)} 0V${height - 1.4 * unit}` }),
      h(
        "text",
        {
          key: `text${at}`,
          x: x(at),
          y: height - 0.3 * unit,
          "text-anchor": x(at) > right - 2 * unit ? "end" : "middle",
        },
        hourOf(at),
      ),
    ]),
  );
}

function row(gpu, runs, place, view) {
  const { x, from, to, left, right, unit } = view;
  const top = place * view.row + 0.2 * unit;
  const height = view.row - 0.4 * unit;
  const idle = gaps(runs, from, to);
  const idleShare = idle.reduce((sum, [start, end]) => sum + end - start, 0) / (to - from);
  const packed = rows(lanes(runs, to));
  const narrow = ((to - from) / (right - left)) * 1.5;
  return h(
    "g",
    { key: gpu.index },
    h("text", { class: "gpu-label", x: 0, y: top + height * 0.68 }, String(gpu.index)),
    h("rect", { class: "track", x: left, y: top, width: right - left, height, rx: 3 }),
    idle.map(([start, end]) => idleGap(x(start), x(end), end - start, top, height, unit)),
    packed.map(([lane, number, count]) =>
      joined(lane, narrow, to).map((bar) =>
        barOf(bar, x(bar.from), x(bar.to), top + (number * height) / count, height / count, unit),
      ),
    ),
    h(
      "text",
      { class: "share", x: view.width, y: top + height * 0.68, "text-anchor": "end" },
      `${Math.round(100 * (1 - idleShare))} % used`,
    ),
  );
}

function idleGap(start, end, seconds, top, height, unit) {
  if (end - start < 3.5 * unit) return null;
  return h(
    "text",
    {
      key: `idle${start.toFixed(0)}`,
      class: "idle",
      x: (start + end) / 2,
      y: top + height * 0.66,
      "text-anchor": "middle",
    },
    end - start > 6.5 * unit ? `idle ${duration(seconds)}` : "idle",
  );
}

function barOf({ from, to, outcome: kind, runs }, start, end, top, height, unit) {
  const [first] = runs;
  const width = Math.max(1.5, end - start - 0.5);
  const name = runs.length > 1 ? `${runs.length} runs` : (first.name ?? "somebody else");
  const text = `${name}: ${(WORDS[kind] ?? kind).toLowerCase()}, ${exactly(from)}, ${duration(to - from)}`;
  const room = Math.floor((width - 0.8 * unit) / (0.5 * unit));
  const shape = { x: start, y: top + 0.5, width, height: height - 1, rx: Math.min(3, width / 2) };
  return h(
    "g",
    {
      key: first.run,
      class: `bar is-${kind}`,
      onclick: first.job != null && runs.length === 1 ? () => go({ job: first.job }) : null,
    },
    h("title", null, text),
    h("rect", shape),
    ["failed", "timed_out", "lost", "cancelled"].includes(kind) &&
      h("rect", { ...shape, key: "hatch", fill: `url(#hatch-${kind})` }),
    kind !== "taken" &&
      room >= 4 &&
      height > 0.75 * unit &&
      h(
        "text",
        { x: start + 0.4 * unit, y: top + height / 2 + 0.27 * unit },
        name.length > room ? `${name.slice(0, room - 1)}…` : name,
      ),
  );
}

const kindOf = (run) => (run.job == null || !OUTCOMES.includes(run.outcome) ? "taken" : run.outcome);

function legend(runs) {
  const kinds = new Set(runs.map((run) => run.outcome));
  return h(
    "p",
    { class: "legend" },
    OUTCOMES.filter((kind) => kinds.has(kind)).map(state),
    h("span", { class: "state" }, h("i", { class: "key-idle" }), "Idle"),
  );
}

function summary(gpus, runs, { from, to }) {
  return gpus
    .map((gpu) => {
      const own = runs.filter((run) => run.gpus.includes(gpu.index));
      const idle = gaps(own, from, to).reduce((sum, [start, end]) => sum + end - start, 0);
      const failed = own.filter((run) => run.outcome === "failed").length;
      const used = Math.round(100 * (1 - idle / (to - from)));
      return `GPU ${gpu.index}: used ${used} %, ${own.length} runs${failed ? `, ${failed} failed` : ""}`;
    })
    .join(". ");
}
