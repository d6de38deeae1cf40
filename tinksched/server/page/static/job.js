// One job's page, over the others: what it is, its runs, log, config and metrics.

import { curve } from "./chart.js";
import { draw, h, webLink } from "./dom.js";
import { ago, bytes, counted, duration, exactly, expected, number, percent, serverTime, UNKNOWN, when } from "./format.js";
import { Log } from "./log.js";
import { ask } from "./server.js";
import { ACTIVE, state, verbFor } from "./signs.js";

const TABS = ["Log", "Runs", "Config", "Metrics"];
const MOST_ROWS = 200;

export class JobPage {
  #id = null;
  #facts = null;
  #trouble = "";
  #tab = "Log";
  #log = null;

  constructor(dialog, { may, act, leave }) {
    Object.assign(this, { dialog, may, act, leave });
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); leave(); }); // Esc
    dialog.addEventListener("click", (event) => { if (event.target === dialog) leave(); }); // beside it
  }

  get id() {
    return this.#id;
  }

  get log() {
    return this.#log;
  }

  /** Show this job; nothing closes the page. */
  async open(id) {
    if (id === this.#id) return;
    this.#log?.close();
    Object.assign(this, { dialog: this.dialog });
    this.#id = id || null;
    this.#facts = null;
    this.#trouble = "";
    this.#log = null;
    this.#tab = "Log";
    draw(this.dialog);
    if (!id) return void this.dialog.close();
    this.#draw();
    if (!this.dialog.open) this.dialog.showModal();
    await this.refresh();
  }

  /** Ask again: something about the job has changed. */
  async refresh() {
    const id = this.#id;
    if (!id) return;
    try {
      const facts = await ask(`jobs/${encodeURIComponent(id)}`);
      if (id !== this.#id) return;
      this.#facts = facts;
      this.#trouble = "";
    } catch (error) {
      if (id !== this.#id) return;
      this.#trouble = error.status === 404 || error.status === 403 ? "There is no such job, or it is somebody else's." : error.message;
    }
    this.#draw();
  }

  #draw() {
    const job = this.#facts?.job;
    draw(this.dialog,
      h("header", { key: "head", class: "job-head" },
        h("div", null, h("h2", { id: "job-title", tabindex: -1, autofocus: true }, job?.name ?? this.#id), job && h("p", { class: "muted" }, job.id)),
        job && state(job.status),
        job && ACTIVE.has(job.status) && this.may().cancel && h("button", { key: "cancel", type: "button", class: "danger", onclick: () => this.act("cancel", job) }, "Cancel job"),
        job && verbFor(job) === "retry" && this.may().retry && h("button", { key: "retry", type: "button", onclick: () => this.act("retry", job) }, "Retry"),
        h("button", { key: "close", type: "button", class: "close", "aria-label": "Close (Esc)", onclick: this.leave }, "✕")),
      this.#trouble && h("p", { key: "trouble", class: "trouble", role: "alert" }, this.#trouble),
      job && [this.#about(job), this.#tabs(), this.#panel()]);
  }

  #about(job) {
    const { diagnosis, usage } = this.#facts;
    const took = job.started_at && duration((job.ended_at ?? serverTime()) - job.started_at);
    const facts = [
      ["User", job.user], ["Kind", job.kind], ["GPUs", job.gpus?.join(", ")], ["Port", job.port], ["URL", job.url && webLink(job.url)],
      ["Created", instant(job.created_at)], ["Started", instant(job.started_at)], ["Ended", instant(job.ended_at)], ["Took", took],
      ["Attempt", job.attempt > 1 ? job.attempt : null], ["Exit code", job.exit_code],
      ["Starts", job.status === "queued" && job.expected_start ? expected(job.expected_start) : null],
      ...Object.entries(usage ?? {}).map(([name, value]) => [plain(name), used(name, value)]),
    ].filter(([, value]) => value != null && value !== "" && value !== false && value !== UNKNOWN);
    return h("section", { key: "about", class: "about", "aria-label": "About the job" },
      job.error && h("p", { key: "error", class: "trouble" }, job.error),
      diagnosis && h("p", { key: "diagnosis", class: "hint" }, diagnosis),
      job.status === "queued" && job.reason && h("p", { key: "reason", class: "hint" }, `Waits: ${job.reason}`),
      h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", { key: name }, h("dt", null, name), h("dd", null, value)))));
  }

  #tabs() {
    const choose = (name, focus) => {
      this.#tab = name;
      this.#draw();
      if (focus) this.dialog.querySelector('[role="tab"][aria-selected="true"]').focus();
    };
    const keyed = (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by) choose(TABS[(TABS.indexOf(this.#tab) + by + TABS.length) % TABS.length], true);
    };
    return h("div", { key: "tabs", role: "tablist", class: "tabs", "aria-label": "Of this job", onkeydown: keyed }, TABS.map((name) =>
      h("button", { key: name, type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, "aria-selected": String(name === this.#tab), tabindex: name === this.#tab ? 0 : -1, onclick: () => choose(name) }, name)));
  }

  #panel() {
    return TABS.map((name) => h("section", { key: `panel-${name}`, id: `panel-${name}`, role: "tabpanel", "aria-labelledby": `tab-${name}`, class: `panel panel-${name}`, hidden: name !== this.#tab,
      own: name === "Log", ref: name === "Log" ? (node) => { this.#log = new Log(node, this.#id); } : null },
    name === this.#tab && { Runs: () => this.#runs(), Config: () => this.#config(), Metrics: () => this.#metrics(), Log: () => null }[name]()));
  }

  #runs() {
    const { runs } = this.#facts;
    if (!runs.length) return h("p", { class: "empty" }, "It has not run yet.");
    return h("table", null, h("thead", null, h("tr", null, ["Attempt", "Outcome", "GPUs", "From", "To", "Took", "Note"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, runs.map((run, place) => h("tr", { key: run.run ?? place }, h("td", { title: run.run }, run.attempt ?? place + 1), h("td", null, state(run.outcome)), h("td", null, run.gpus.join(", ")),
        h("td", null, instant(run.from)), h("td", null, instant(run.to)), h("td", null, duration((run.to ?? serverTime()) - run.from)), h("td", null, run.reason ?? (run.exit_code == null ? "" : `exit code ${run.exit_code}`))))));
  }

  #config() {
    const { config, command } = this.#facts;
    return [command && h("pre", { class: "code", "aria-label": "Command", tabindex: 0 }, command.map(shown).join(" ")),
      config ? h("pre", { class: "code", "aria-label": "Config", tabindex: 0 }, config) : h("p", { class: "empty" }, "It has no config.")];
  }

  #metrics() {
    const { metrics } = this.#facts;
    if (!metrics?.rows.length) return h("p", { class: "empty" }, "No metrics. A job that writes metrics.csv or metrics.jsonl shows them here.");
    const { columns, rows } = metrics;
    const last = rows.slice(-MOST_ROWS);
    const isCurve = (place) => place > 0 && rows.length > 1 && rows.every((row) => row[place] == null || typeof row[place] === "number");
    return [h("div", { class: "curves" }, columns.map((name, place) => isCurve(place) && h("figure", { key: name },
      h("figcaption", null, name, " ", h("b", null, number(rows.at(-1)[place]))), curve(rows.map((row) => row[place]), `${name}, now ${number(rows.at(-1)[place])}`)))),
    h("p", { class: "muted" }, last.length < rows.length ? `The last ${MOST_ROWS} of ${counted(rows.length, "row")}` : counted(rows.length, "row")),
    h("div", { class: "scrolls", tabindex: 0, role: "region", "aria-label": "Metrics as a table" }, h("table", null, h("thead", null, h("tr", null, columns.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, last.map((row) => h("tr", null, row.map((value) => h("td", { class: "nums" }, number(value))))))))];
  }
}

const instant = (at) => (at == null ? UNKNOWN : h("time", { title: exactly(at) }, `${when(at)} (${ago(at)})`));
const plain = (name) => name.replace(/_/g, " ").replace(/\b[gc]pu\b/g, (word) => word.toUpperCase()).replace("CPU seconds", "CPU time").replace(/^./, (first) => first.toUpperCase());
const shown = (argument) => (/^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replace(/'/g, "'\\''")}'`);

/** A measured value in the unit that its name tells. */
function used(name, value) {
  if (value == null || (Array.isArray(value) && !value.length)) return null;
  if (Array.isArray(value)) return value.join("; ");
  if (/seconds/.test(name)) return duration(value);
  if (/utili[sz]ation/.test(name)) return percent(value);
  return /memory|bytes/.test(name) ? bytes(value) : number(value);
}
