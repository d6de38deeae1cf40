// What a job's page has behind its tabs: runs, config and metrics.

import { curve } from "./chart.js";
import { h } from "./dom.js";
import { ago, counted, duration, exactly, number, serverTime, UNKNOWN, when } from "./format.js";
import { state } from "./signs.js";
import { table } from "./table.js";

const RUN = ["Attempt", "Outcome", "GPUs", "From", "To", "Took", "Note"];
const MOST_ROWS = 200;
const NO_METRICS = "No metrics. A job that writes metrics.csv or metrics.jsonl shows them here.";

const empty = (text) => h("p", { class: "empty" }, text);
const code = (label, text) => h("pre", { class: "code", "aria-label": label, tabindex: 0 }, text);

/** An instant, and how long ago it was. */
export const instant = (at) => (at == null ? UNKNOWN : h("time", { title: exactly(at) }, `${when(at)} (${ago(at)})`));

export function runsPanel({ runs }) {
  if (!runs.length) return empty("It has not run yet.");
  return table(
    "Runs",
    RUN,
    runs.map((run, place) => [
      run.run ?? place,
      run.attempt ?? place + 1,
      state(run.outcome),
      run.gpus.join(", "),
      instant(run.from),
      instant(run.to),
      duration((run.to ?? serverTime()) - run.from),
      run.reason ?? (run.exit_code == null ? "" : `exit code ${run.exit_code}`),
    ]),
  );
}

export function configPanel({ config, command }) {
  const shown = command && code("Command", command.map(quoted).join(" "));
  return [shown, config ? code("Config", config) : empty("It has no config.")];
}

export function metricsPanel({ metrics }) {
  if (!metrics?.rows.length) return empty(NO_METRICS);
  const { columns, rows } = metrics;
  const last = rows.slice(-MOST_ROWS);
  const size = counted(rows.length, "row");
  return [
    h(
      "div",
      { class: "curves" },
      columns.map(
        (name, place) =>
          isCurve(rows, place) &&
          figure(
            name,
            rows.map((row) => row[place]),
          ),
      ),
    ),
    h("p", { class: "muted" }, last.length < rows.length ? `The last ${MOST_ROWS} of ${size}` : size),
    table(
      "Metrics",
      columns,
      last.map((row, place) => [place, ...row.map(number)]),
    ),
  ];
}

/** The first column counts the steps; others are curves if they hold nothing but numbers. */
function isCurve(rows, place) {
  return place > 0 && rows.length > 1 && rows.every((row) => row[place] == null || typeof row[place] === "number");
}

function figure(name, values) {
  const now = number(values.at(-1));
  return h(
    "figure",
    { key: name },
    h("figcaption", null, name, " ", h("b", null, now)),
    curve(values, `${name}, now ${now}`),
  );
}

/** An argument as a shell would want it. */
const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`);
