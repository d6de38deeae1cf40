// One job's page, over the others: what it is, its runs, log, config and metrics.

import { draw, h, webLink } from "./dom.js";
import { bytes, duration, expected, number, percent, serverTime, UNKNOWN } from "./format.js";
import { Log } from "./log.js";
import { configPanel, instant, metricsPanel, runsPanel } from "./panels.js";
import { ask } from "./server.js";
import { ACTIVE, state, verbFor } from "./signs.js";

const TABS = ["Log", "Runs", "Config", "Metrics"];
const PANELS = { Runs: runsPanel, Config: configPanel, Metrics: metricsPanel };

export class JobPage {
  #id = null;
  #facts = null;
  #trouble = "";
  #tab = "Log";
  #log = null;

  constructor(dialog, { may, act, leave }) {
    Object.assign(this, { dialog, may, act, leave });
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      leave();
    }); // Esc
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) leave();
    }); // beside it
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
      const isAgain = this.#facts && !ACTIVE.has(this.#facts.job.status) && ACTIVE.has(facts.job.status);
      if (isAgain) this.#log?.again();
      this.#facts = facts;
      this.#trouble = "";
    } catch (error) {
      if (id !== this.#id) return;
      this.#trouble =
        error.status === 404 || error.status === 403
          ? "There is no such job, or it is somebody else's."
          : error.message;
    }
    this.#draw();
  }

  #draw() {
    const job = this.#facts?.job;
    draw(
      this.dialog,
      h(
        "header",
        { key: "head", class: "job-head" },
        h(
          "div",
          null,
          h("h2", { id: "job-title", tabindex: -1, autofocus: true }, job?.name ?? this.#id),
          job && h("p", { class: "muted" }, job.id),
        ),
        job && state(job.status),
        job &&
          ACTIVE.has(job.status) &&
          this.may().cancel &&
          h(
            "button",
            { key: "cancel", type: "button", class: "danger", onclick: () => this.act("cancel", job) },
            "Cancel job",
          ),
        job &&
          verbFor(job) === "retry" &&
          this.may().retry &&
          h("button", { key: "retry", type: "button", onclick: () => this.act("retry", job) }, "Retry"),
        h(
          "button",
          { key: "close", type: "button", class: "close", "aria-label": "Close (Esc)", onclick: this.leave },
          "✕",
        ),
      ),
      this.#trouble && h("p", { key: "trouble", class: "trouble", role: "alert" }, this.#trouble),
      job && [this.#about(job), this.#tabs(), this.#panel()],
    );
  }

  #about(job) {
    const { diagnosis, usage } = this.#facts;
    const took = job.started_at && duration((job.ended_at ?? serverTime()) - job.started_at);
    const facts = [
      ["User", job.user],
      ["Kind", job.kind],
      ["GPUs", job.gpus?.join(", ")],
      ["Port", job.port],
      ["URL", job.url && webLink(job.url)],
      ["Created", instant(job.created_at)],
      ["Started", instant(job.started_at)],
      ["Ended", instant(job.ended_at)],
      ["Took", took],
      ["Attempt", job.attempt > 1 ? job.attempt : null],
      ["Exit code", job.exit_code],
      ["Starts", job.status === "queued" && job.expected_start ? expected(job.expected_start) : null],
      ...Object.entries(usage ?? {}).map(([name, value]) => [plain(name), used(name, value)]),
    ].filter(([, value]) => value != null && value !== "" && value !== false && value !== UNKNOWN);
    return h(
      "section",
      { key: "about", class: "about", tabindex: 0, "aria-label": "About the job" },
      job.error && h("p", { key: "error", class: "trouble" }, job.error),
      diagnosis && h("p", { key: "diagnosis", class: "hint" }, diagnosis),
      job.status === "queued" && job.reason && h("p", { key: "reason", class: "hint" }, `Waits: ${job.reason}`),
      h(
        "dl",
        { class: "facts" },
        facts.map(([name, value]) => h("div", { key: name }, h("dt", null, name), h("dd", null, value))),
      ),
    );
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
    return h(
      "div",
      { key: "tabs", role: "tablist", class: "tabs", "aria-label": "Of this job", onkeydown: keyed },
      TABS.map((name) =>
        h(
          "button",
          {
            key: name,
            type: "button",
            role: "tab",
            id: `tab-${name}`,
            "aria-controls": `panel-${name}`,
            "aria-selected": String(name === this.#tab),
            tabindex: name === this.#tab ? 0 : -1,
            onclick: () => choose(name),
          },
          name,
        ),
      ),
    );
  }

  #panel() {
    return TABS.map((name) =>
      h(
        "section",
        {
          key: `panel-${name}`,
          id: `panel-${name}`,
          role: "tabpanel",
          "aria-labelledby": `tab-${name}`,
          class: `panel panel-${name}`,
          hidden: name !== this.#tab,
          own: name === "Log",
          ref:
            name === "Log"
              ? (node) => {
                  this.#log = new Log(node, this.#id);
                }
              : null,
        },
        name === this.#tab && PANELS[name]?.(this.#facts),
      ),
    );
  }
}

const plain = (name) =>
  name
    .replace(/_/g, " ")
    .replace(/\b[gc]pu\b/g, (word) => word.toUpperCase())
    .replace("CPU seconds", "CPU time")
    .replace(/^./, (first) => first.toUpperCase());

/** A measured value in the unit that its name tells. */
function used(name, value) {
  if (value == null || (Array.isArray(value) && !value.length)) return null;
  if (Array.isArray(value)) return value.join("; ");
  if (/seconds/.test(name)) return duration(value);
  if (/utili[sz]ation/.test(name)) return percent(value);
  return /memory|bytes/.test(name) ? bytes(value) : number(value);
}
