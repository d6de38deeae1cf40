// What each state is called and looks like. A sign and a word go with every colour: colour is never the only signal.

import { h } from "./dom.js";

export const WORDS = {
  total: "Total",
  queued: "Queued",
  starting: "Starting",
  running: "Running",
  completed: "Completed",
  cancelled: "Cancelled",
  failed: "Failed",
  timed_out: "Timed out",
  lost: "Lost",
  taken: "Somebody else",
};

export const ACTIVE = new Set(["queued", "starting", "running"]);

/** What may be done to a job. A service isn't run again: its secrets are not kept. */
export function verbFor({ status, kind }) {
  if (ACTIVE.has(status)) return "cancel";
  return kind === "training" || kind === "inference" ? null : "retry";
}

const PATHS = {
  // in a square of 16
  total: "M3 4h10M3 8h10M3 12h10",
  queued: "M8 4v4l2.5 2",
  starting: "M8 3.5v3M8 9.5v3M3.5 8h3M9.5 8h3",
  running: "M6 4.5l5.5 3.5-5.5 3.5z",
  completed: "M4.5 8.3l2.4 2.4 4.8-5",
  cancelled: "M4.8 8h6.4",
  failed: "M5.2 5.2l5.6 5.6M10.8 5.2l-5.6 5.6",
  timed_out: "M8 4v4.6M8 11.4v.4",
  lost: "M6 6.2c0-2.8 4.2-2.6 4 0-.1 1.2-2 1.6-2 3M8 11.8v.2",
  taken: "M5 8h6",
};

/** The sign of a state, for a word that stands beside it. */
export function sign(state) {
  const known = state in PATHS ? state : "lost";
  return h(
    "svg",
    { class: `sign is-${known}`, viewBox: "0 0 16 16", "aria-hidden": "true" },
    known !== "total" && h("circle", { cx: 8, cy: 8, r: 7.25 }),
    h("path", { d: PATHS[known] }),
  );
}

/** Sign and word. */
export const state = (name) =>
  h("span", { class: `state is-${name}` }, sign(name), h("span", null, WORDS[name] ?? name));
