// Curves as SVG: the shape of an hour in a card, or a metric of a job.

import { h } from "./dom.js";

/** Paths through these values, 0…1 of the height; unknown values (null) leave a gap. */
function lines(values, width, height, isArea) {
  const step = width / Math.max(1, values.length - 1);
  const parts = [];
  let run = [];
  const close = () => {
    if (run.length === 1) run.push([run[0][0] + step / 2, run[0][1]]);
    if (run.length) {
      const points = run.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
      parts.push(
        isArea ? `M${run[0][0].toFixed(1)} ${height}L${points}L${run.at(-1)[0].toFixed(1)} ${height}Z` : `M${points}`,
      );
    }
    run = [];
  };
  values.forEach((value, place) => {
    if (value == null) close();
    else run.push([place * step, height - 1 - Math.min(1, Math.max(0, value)) * (height - 2)]);
  });
  close();
  return parts.join("");
}

/** An hour of a GPU: utilisation as an area, memory as a line. Both are lists of 0…1 or null. */
export function hour(utilization, memory, label) {
  const [width, height] = [240, 56];
  return h(
    "svg",
    { class: "hour", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    [0.5, 1].map((part) => h("path", { class: "rule", d: `M0 ${height - part * (height - 1)}H${width}` })),
    h("path", { class: "area", d: lines(utilization, width, height, true) }),
    h("path", { class: "edge", d: lines(utilization, width, height, false) }),
    h("path", { class: "line", d: lines(memory, width, height, false) }),
  );
}

/** A curve of any numbers, scaled to its own range. */
export function curve(values, label) {
  const known = values.filter((value) => Number.isFinite(value));
  const least = Math.min(...known);
  const span = Math.max(...known) - least;
  const scaled = values.map((value) => (Number.isFinite(value) ? (span ? (value - least) / span : 0.5) : null));
  return h(
    "svg",
    { class: "curve", viewBox: "0 0 240 64", preserveAspectRatio: "none", role: "img", "aria-label": label },
    h("path", { class: "edge", d: lines(scaled, 240, 64, false) }),
  );
}
