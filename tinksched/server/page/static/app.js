// The page: who is there, what is known, what is looked at, and which part is drawn again when one of these changes.

import { drawCards } from "./cards.js";
import { confirmed, openHelp, openSettings } from "./dialogs.js";
import { byId, draw, h } from "./dom.js";
import { grouped, serverTime, when } from "./format.js";
import { drawGpus } from "./gpus.js";
import { JobPage } from "./job.js";
import { JobList } from "./jobs.js";
import { listen } from "./keys.js";
import { drawLately } from "./lately.js";
import { Live } from "./live.js";
import { drawNodes, drawUsers } from "./people.js";
import { drawMe, drawQueue } from "./queue.js";
import { address, go, onRoute, route } from "./route.js";
import { Scene } from "./scene.js";
import { ask, forgetEarly, isAtHome, request, server, useServer } from "./server.js";
import { WORDS } from "./signs.js";
import { drawSignIn } from "./signin.js";
import { drawTimeline } from "./timeline.js";
import { toast } from "./toasts.js";

const FIRST_JOBS = 200;
const CHUNK = 1000;
const TICK_MS = 60000; // for what is told in minutes; nothing else moves by itself
const TYPING_MS = 120;
const RETRY_MS = 2000;
const ATTENDED_MS = 30000; // so long after somebody moved something, every new number is drawn at once

const wall = matchMedia("(min-width: 2200px)"); // see style.css: only there is room for what ended last
const scene = new Scene();
let session = null;
let hasServer = false; // whether this page was told of a server elsewhere
let link = { how: "begun", since: Date.now() / 1000, detail: null };
let users = null;
let timelineWidth = 0;
let touchedAt = Date.now();

// -- what is drawn, and when

const PARTS = {
  head: () => {
    const { counts } = scene.parts;
    document.title = `${counts.running} running, ${counts.queued} queued – ${scene.parts.title}`;
    byId("title").textContent = scene.parts.title;
    draw(
      byId("views"),
      session?.is_admin &&
        [
          ["gpus", "Machine"],
          ["users", "Users"],
          ["nodes", "Nodes"],
        ].map(([view, text]) =>
          h("a", { key: view, href: address({ view }), "aria-current": route().view === view ? "page" : null }, text),
        ),
    );
  },
  cards: () => drawCards(byId("cards"), scene.parts.counts, route().status),
  gpus: () => drawGpus(byId("gpus"), byId("gpus-note"), scene.parts.gpus),
  timeline: () =>
    drawTimeline(byId("timeline"), byId("timeline-tools"), {
      gpus: scene.parts.gpus,
      runs: scene.parts.timeline,
      span: route().span,
      width: timelineWidth,
      unit: parseFloat(getComputedStyle(document.documentElement).fontSize),
    }),
  queue: () => drawQueue(byId("queue"), scene.queue(), scene.parts),
  me: () => drawMe(byId("me"), scene.parts.me),
  lately: () => wall.matches && drawLately(byId("lately"), scene.all()),
  jobs: drawJobs,
  people: drawPeople,
};
const SHOWN_IN = {
  counts: ["head", "cards", "queue", "jobs"],
  title: ["head"],
  gpus: ["gpus"],
  runs: ["timeline"],
  jobs: ["queue", "lately", "jobs"],
  gone: ["queue", "lately", "jobs"],
  me: ["me"],
  nodes: ["people"],
  batch_ends: ["queue"],
};
const NUMBERS = new Set(["gpus", "me"]); // a page that nobody touches shows these with its next tick
const stale = new Set();

/** Draw these parts before the next frame; nothing is drawn while nobody sees it. */
function paint(parts = Object.keys(PARTS)) {
  if (!stale.size) requestAnimationFrame(paintNow);
  for (const part of parts) stale.add(part);
}

function paintNow() {
  const parts = [...stale];
  stale.clear();
  if (!scene.parts) return;
  byId("scene").hidden = route().view !== "gpus";
  byId("people").hidden = route().view === "gpus";
  for (const part of parts) PARTS[part]();
}

function drawJobs() {
  const { status, q } = route();
  const list = scene.matching({ status, q });
  const isAll = !q && (!status || status === "total");
  if (!isAll && !scene.isWhole) fetchAll();
  const total = scene.parts.counts.total;
  const more = scene.isWhole ? "" : ", more are being fetched";
  draw(byId("jobs-note"), isAll ? null : `${grouped(list.length)} of ${grouped(total)}${more}`);
  if (document.activeElement !== byId("search")) byId("search").value = q;
  jobs.show(list, isAll ? total : list.length);
}

async function drawPeople() {
  const { view } = route();
  if (view === "nodes") drawNodes(byId("people"), scene.parts.nodes);
  if (view !== "users") return void (users = null);
  drawUsers(byId("people"), users ?? []);
  if (users) return;
  users = [];
  try {
    users = (await ask("users")).users;
    drawUsers(byId("people"), users);
  } catch (error) {
    toast(error.message);
  }
}

// -- what the server says

function hear(kind, parts) {
  if (parts.now) serverTime(parts.now);
  const isQuiet =
    kind === "change" && Date.now() - touchedAt > ATTENDED_MS && !isOccupiedAnew(scene.parts.gpus, parts.gpus);
  const news = kind === "state" ? scene.replace(parts) : scene.merge(parts);
  byId("welcome").hidden = true;
  draw(byId("welcome"));
  if (kind === "state") paint();
  else paint(Object.keys(parts).flatMap((name) => (isQuiet && NUMBERS.has(name) ? [] : (SHOWN_IN[name] ?? []))));
  if (news.length)
    byId("news").textContent = news
      .slice(0, 3)
      .map((job) => `${job.name ?? job.id}: ${(WORDS[job.status] ?? job.status).toLowerCase()}`)
      .join(", ");
  if (news.some((job) => job.id === page.id) || (kind === "state" && page.id)) page.refresh();
  if ("trouble" in parts) drawLink();
}

/** Whether somebody else has a GPU now; if not, only numbers have changed. */
function isOccupiedAnew(before, after) {
  const who = (gpus) =>
    JSON.stringify(
      gpus.map(({ index, runs, foreign }) => [
        index,
        runs.map((run) => run.job),
        foreign.map(({ command }) => command),
      ]),
    );
  return after !== undefined && who(before) !== who(after);
}

function tell(how, detail = null) {
  if (how !== link.how) link.since = serverTime();
  if (how === "live" && link.how === "away") renew();
  Object.assign(link, { how, detail });
  if (how === "denied") denied(detail);
  drawLink();
}

function drawLink() {
  const { how, since, detail } = link;
  const words = { live: "Live", polling: "Every 5 s", away: `Away since ${when(since)}`, denied: "Signed out" };
  draw(
    byId("connection"),
    h(
      "span",
      {
        class: `link is-${how}`,
        title: how === "polling" ? "Events don't come through here; the page asks every 5 s" : null,
      },
      words[how],
    ),
  );
  const trouble = scene.parts?.trouble;
  draw(
    byId("banner"),
    how === "away" &&
      scene.parts &&
      h(
        "p",
        { key: "away" },
        h("strong", null, `Away since ${when(since)}. `),
        `${detail?.message ?? "No answer"}. What you see is from then; the page goes on by itself when there is one.`,
      ),
    how !== "away" && trouble && h("p", { key: "trouble" }, h("strong", null, "The scheduler has trouble. "), trouble),
  );
}

async function fetchAll() {
  if (scene.isWhole || fetchAll.isOn) return;
  fetchAll.isOn = true;
  try {
    for (let offset = 0, total = Infinity; offset < total;) {
      const found = await ask(`jobs?offset=${offset}&limit=${CHUNK}`);
      if (!found.jobs.length) break;
      scene.addOlder(found.jobs);
      total = found.total;
      offset += found.jobs.length;
      paint(["jobs"]);
    }
    scene.isWhole = true;
  } catch (error) {
    toast(`The list is not whole: ${error.message}`);
  } finally {
    fetchAll.isOn = false;
    paint(["jobs"]);
  }
}

// -- who is there

async function begin() {
  clearTimeout(begin.timer);
  live.stop();
  try {
    session = await ask("session");
    if (!hasServer) isAtHome(session.mode !== "page");
    if (session.mode === "page") {
      forgetEarly();
      hasServer = true;
      useServer(session.server);
      session = await ask("session");
    }
  } catch (error) {
    if (error.status === 401 || error.status === 403) return denied(error, await asksForNoKey());
    tell("away", error);
    return void (begin.timer = setTimeout(begin, RETRY_MS));
  }
  if (session.auth && !session.signed_in) return denied(null);
  live.restart();
}

/** A server that was away may be another version now: then this page is not the one that it speaks with. */
async function renew() {
  const known = session?.version;
  session = await ask("session").catch(() => session);
  if (known && session.version !== known) location.reload();
}

/** Whether one comes in by a URL that was printed, and not by a key: then nobody is told who they are without it. */
async function asksForNoKey() {
  const answer = await fetch(`${server()}/dashboard/api/session`).catch(() => null);
  return answer?.status === 401;
}

/** Nothing of what was seen stays on the screen of somebody who isn't signed in. */
function denied(error, isByUrl = session?.mode === "workspace") {
  scene.parts = null;
  scene.jobs.clear();
  page.open(null);
  byId("scene").hidden = true;
  byId("people").hidden = true;
  byId("welcome").hidden = false;
  document.title = "Sign in – tinksched";
  draw(byId("settings")); // one field for the key at a time
  drawSignIn(byId("welcome"), { error, isByUrl, begin });
}

// -- what somebody does

async function act(verb, job) {
  if (!(await confirmed(byId("confirm"), verb, job))) return;
  try {
    const { message } = await (await request(`jobs/${encodeURIComponent(job.id)}/${verb}`, { method: "POST" })).json();
    toast(message);
  } catch (error) {
    toast(error.message, true);
  }
  page.refresh();
}

const may = () => session?.may ?? {};
const leave = () => go({ job: "" });
const live = new Live(FIRST_JOBS, hear, tell);
const page = new JobPage(byId("job"), { may, act, leave });
const jobs = new JobList(byId("jobs"), { may, act, needMore: fetchAll });

function refresh() {
  users = null;
  begin();
  page.refresh();
}

function searched(text) {
  clearTimeout(searched.timer);
  searched.timer = setTimeout(() => go({ q: text.trim(), view: "" }), TYPING_MS);
}

byId("search").addEventListener("input", (event) => searched(event.target.value));
byId("search").addEventListener("keydown", ({ key: pressed, target }) => {
  if (pressed === "Escape") go({ q: (target.value = ""), status: "" });
  if (pressed === "Enter") {
    go({ q: target.value.trim() });
    target.blur();
    paintNow();
    jobs.move(0);
  }
});
byId("refresh").addEventListener("click", refresh);
byId("open-settings").addEventListener("click", () => openSettings(byId("settings"), { hasServer, saved: begin }));
byId("open-help").addEventListener("click", () => openHelp(byId("help")));
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("jobs-title").focus();
});
listen({
  "/": () => (page.id ? page.log?.search() : byId("search").focus()),
  j: () => !page.id && jobs.move(1),
  k: () => !page.id && jobs.move(-1),
  f: () => page.log?.follow() ?? false,
  r: refresh,
  "?": () => openHelp(byId("help")),
  Escape: () => (page.id ? leave() : go({ q: "", status: "" })),
});
onRoute(() => {
  paint();
  page.open(route().job);
});
for (const sort of ["pointermove", "pointerdown", "keydown", "scroll"])
  addEventListener(
    sort,
    () => {
      touchedAt = Date.now();
    },
    { passive: true },
  );
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) paint();
});
setInterval(() => {
  if (!document.hidden && scene.parts) paint();
}, TICK_MS);
new ResizeObserver(([{ contentRect }]) => {
  timelineWidth = Math.floor(contentRect.width);
  paint(["timeline", "lately"]);
}).observe(byId("timeline"));

begin();
if (route().job) page.open(route().job);
