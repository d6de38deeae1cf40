// What waits, in its order: why, and when it should start. And what one may still use.

import { draw, h } from "./dom.js";
import { counted, duration, exactly, expected, grouped, number, serverTime, when } from "./format.js";
import { address, go } from "./route.js";

const MOST = 15;

export function drawQueue(into, queue, { counts, batch_ends: ends }) {
  draw(
    into,
    h(
      "div",
      { class: "head" },
      h("h2", { id: "queue-title" }, "Queue"),
      h(
        "p",
        null,
        counts.queued ? counted(counts.queued, "job") : "empty",
        ends && ends > serverTime() && `, all done about ${when(ends)}`,
      ),
    ),
    queue.length
      ? h("ol", { class: "queue" }, queue.slice(0, MOST).map(entry))
      : h("p", { class: "empty" }, "Nothing waits. What is submitted now starts at once if a GPU is free."),
    counts.queued > MOST &&
      h(
        "button",
        { type: "button", class: "more", onclick: () => go({ status: "queued" }) },
        `All ${grouped(counts.queued)} in the list`,
      ),
  );
}

function entry(job, place) {
  return h(
    "li",
    { key: job.id },
    h("span", { class: "place" }, String(job.place ?? place + 1)),
    h(
      "div",
      null,
      h(
        "p",
        { class: "who" },
        h("a", { href: address({ job: job.id }) }, job.name ?? job.id),
        h("span", { class: "muted" }, job.user),
      ),
      job.reason && h("p", { class: "reason" }, job.reason),
      h(
        "p",
        { class: "muted nums", title: exactly(job.expected_start) },
        job.expected_start
          ? `starts ${expected(job.expected_start)}`
          : `in the queue for ${duration(serverTime() - job.created_at)}`,
      ),
    ),
  );
}

const NAMES = { active: "Active jobs", today: "Jobs today", gpu_hours: "GPU hours" };
const LIMIT_OF = { active: /^active/, today: /day|today/, gpu_hours: /gpu_hours/ };

export function drawMe(into, me) {
  if (!me?.user) return void draw(into);
  const limits = Object.entries(me.limits ?? {});
  const taken = new Set();
  const rows = Object.entries(me.use ?? {}).map(([name, exact]) => {
    const used = typeof exact === "number" ? Number(exact.toFixed(1)) : exact;
    const [limitName, limit] = limits.find(([known]) => LIMIT_OF[name]?.test(known)) ?? [];
    taken.add(limitName);
    return h(
      "div",
      { key: name },
      h("dt", null, NAMES[name] ?? plain(name)),
      h(
        "dd",
        null,
        limit == null ? number(used) : `${number(used)} of ${number(limit)}`,
        limit > 0 &&
          h("meter", {
            min: 0,
            max: limit,
            value: Math.min(used, limit),
            high: 0.85 * limit,
            "aria-label": `${NAMES[name] ?? plain(name)}: ${number(used)} of ${number(limit)}`,
          }),
      ),
    );
  });
  const others = limits
    .filter(([name]) => !taken.has(name))
    .map(([name, limit]) =>
      h(
        "div",
        { key: `limit ${name}` },
        h("dt", null, plain(name)),
        h("dd", null, `at most ${/time|seconds/.test(name) ? duration(limit) : number(limit)}`),
      ),
    );
  draw(
    into,
    h(
      "div",
      { class: "head" },
      h("h2", { id: "me-title" }, "My use"),
      h("p", null, `${me.user}${me.is_admin ? ", admin" : ""}`),
    ),
    h("dl", { class: "use" }, rows, others),
  );
}

const plain = (name) => name.replace(/_/g, " ").replace(/^./, (first) => first.toUpperCase());
