// The GPUs: what each does now, did in the last hour, and who has it.

import { hour } from "./chart.js";
import { draw, h } from "./dom.js";
import { bytes, counted, exactly, lasting, number, percent, serverTime, UNKNOWN } from "./format.js";
import { address } from "./route.js";
import { sign } from "./signs.js";

const CURVE_SECONDS = 120;
const curves = new Map(); // GPU → its curve, and when it was drawn
const MOST_FREE = 4; // so many free slots are drawn one by one

export function drawGpus(into, note, gpus) {
  draw(
    into,
    gpus.length ? gpus.map(card) : h("p", { class: "empty" }, "No GPU is known here. Jobs that need none still run."),
  );
  const free = gpus.filter((gpu) => word(gpu)[0] === "free").length;
  draw(
    note,
    gpus.length
      ? `${counted(gpus.length, "GPU")}, ${free ? `${free} free` : "none free"}; the curves are the last hour`
      : null,
  );
}

/** What a GPU is now, as a class and a word. */
function word(gpu) {
  if (gpu.runs.length) return gpu.foreign.length ? ["shared", "shared"] : ["busy", "busy"];
  return gpu.foreign.length ? ["foreign", "foreign"] : ["free", "free"];
}

function card(gpu) {
  const [kind, said] = word(gpu);
  return h(
    "article",
    { key: gpu.uuid ?? gpu.index, class: `gpu is-${kind}`, "aria-label": `GPU ${gpu.index}, ${said}` },
    h(
      "header",
      null,
      h(
        "a",
        { class: "gpu-index", href: address({ q: `gpu:${gpu.index}` }), title: "Only the jobs of this GPU" },
        String(gpu.index),
      ),
      h(
        "div",
        { class: "gpu-name" },
        h("strong", { title: `${gpu.name ?? "GPU"} ${gpu.uuid ?? ""}` }, (gpu.name ?? "GPU").replace(/^NVIDIA /, "")),
        h("span", { class: "muted" }, readings(gpu)),
      ),
      h("span", { class: "gpu-word" }, said),
    ),
    past(gpu),
    h(
      "div",
      { class: "gpu-now" },
      h("span", null, h("b", null, percent(gpu.utilization)), h("i", { class: "key-area" }), "busy"),
      h(
        "span",
        null,
        h("b", null, gib(gpu.memory_used, " GiB")),
        h("i", { class: "key-line" }),
        `of ${gib(gpu.memory_total)}`,
      ),
    ),
    memoryBar(gpu),
    h("ul", { class: "slots" }, gpu.runs.map(occupied), gpu.foreign.map(foreign), free(gpu)),
  );
}

/** In GiB, since that is how people know their GPU. */
function gib(size, unit = "") {
  return size == null ? UNKNOWN : `${number(Number((size / 2 ** 30).toFixed(size < 10 * 2 ** 30 ? 1 : 0)))}${unit}`;
}

function readings({ temperature, power }) {
  return [temperature != null && `${Math.round(temperature)} °C`, power != null && `${Math.round(power)} W`]
    .filter(Boolean)
    .join(" · ");
}

/** The last hour. A new sample changes little of it, and drawing costs: it is drawn anew every other minute. */
function past(gpu) {
  const now = Math.floor(serverTime() / CURVE_SECONDS);
  const kept = curves.get(gpu.index);
  if (kept?.now === now) return kept.node;
  const node = curveOf(gpu);
  curves.set(gpu.index, { now, node });
  return node;
}

function curveOf({ history, memory_total: total, index }) {
  const busy = (history?.utilization ?? []).map((value) => (value == null ? null : value / 100));
  const held = (history?.memory ?? []).map((value) => (value == null || !total ? null : value / total));
  const known = busy.filter((value) => value != null);
  const mean = known.length ? percent((100 * known.reduce((sum, value) => sum + value, 0)) / known.length) : "unknown";
  return hour(busy, held, `GPU ${index} over the last hour: ${mean} busy on average`);
}

/** Who holds how much of the memory, side by side. */
function memoryBar({ runs, foreign, memory_used: used, memory_total: total }) {
  if (!total) return null;
  const parts = [...runs.map(({ memory }) => ["run", memory]), ...foreign.map(({ memory }) => ["foreign", memory])];
  const named = parts.reduce((sum, [, memory]) => sum + (memory ?? 0), 0);
  parts.push(["unknown", Math.max(0, (used ?? 0) - named)]);
  return h(
    "div",
    { class: "memory", "aria-hidden": "true" },
    parts
      .filter(([, memory]) => memory > 0)
      .map(([kind, memory]) => h("i", { class: `is-${kind}`, style: { "flex-basis": `${(100 * memory) / total}%` } })),
  );
}

function occupied(run, place) {
  const since = h("span", { class: "nums", title: `since ${exactly(run.since)}` }, lasting(run.since));
  const memory = run.memory == null ? "" : bytes(run.memory);
  if (run.job == null)
    return slot(`taken${place}`, "taken", h("span", null, run.name ?? "another user"), since, run.user, memory);
  return slot(
    `run${run.job}`,
    "running",
    h("a", { href: address({ job: run.job }), title: run.name }, run.name ?? run.job),
    since,
    run.user,
    memory,
  );
}

function foreign({ user, command, memory }, place) {
  return slot(
    `foreign${place}`,
    "foreign",
    h("span", { title: command }, command ?? "unknown process"),
    h("em", null, "foreign"),
    user,
    memory == null ? "" : bytes(memory),
  );
}

/** Two lines: what and since when; who and how much. */
function slot(key, kind, what, since, who, memory) {
  return h(
    "li",
    { key, class: `slot is-${kind}` },
    sign(kind === "foreign" ? "timed_out" : kind),
    h("p", { class: "what" }, what),
    since,
    h("p", { class: "muted" }, who ?? ""),
    h("span", { class: "muted nums" }, memory),
  );
}

function free({ slots, runs, foreign: others }) {
  const left = (slots ?? 1) - runs.length - (slots == null ? others.length : 0);
  if (left <= 0) return null;
  const drawn = left > MOST_FREE ? 1 : left;
  const text =
    left > MOST_FREE ? `${left} free slots` : others.length ? "free slot, if its memory is enough" : "free slot";
  return Array.from({ length: drawn }, (_, place) => h("li", { key: `free${place}`, class: "slot is-free" }, text));
}
