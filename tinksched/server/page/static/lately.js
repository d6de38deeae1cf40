// What ended last, for a screen on a wall.

import { draw, h } from "./dom.js";
import { ago, duration, exactly } from "./format.js";
import { address } from "./route.js";
import { ACTIVE, sign, WORDS } from "./signs.js";

const MOST = 14;

export function drawLately(into, jobs) {
  const ended = jobs.filter((job) => !ACTIVE.has(job.status)).slice(0, MOST);
  draw(
    into,
    h("div", { class: "head" }, h("h2", { id: "lately-title" }, "Just ended")),
    ended.length ? h("ul", null, ended.map(entry)) : h("p", { class: "empty" }, "Nothing has ended yet."),
  );
}

function entry(job) {
  const took = job.started_at && job.ended_at ? `${duration(job.ended_at - job.started_at)}, ` : "";
  return h(
    "li",
    { key: job.id },
    sign(job.status),
    h("span", { class: "unseen" }, WORDS[job.status]),
    h("a", { href: address({ job: job.id }) }, job.name ?? job.id),
    h("span", { class: "muted" }, job.user),
    h("span", { class: "muted nums", title: exactly(job.ended_at) }, took, ago(job.ended_at)),
  );
}
