// The list of jobs. Only the rows that are in sight exist, so that 5,000 jobs cost what 50 do.

import { draw, h, webLink } from "./dom.js";
import { ago, duration, exactly, lasting, when } from "./format.js";
import { address, go } from "./route.js";
import { state, verbFor } from "./signs.js";

const BEYOND = 8; // rows above and below what is in sight
const COLUMNS = ["State", "Job", "User", "GPUs", "Port, URL", "Created", "Started", "Ended", "Took", "Note", ""];

/** `needMore` is called when rows are in sight that nobody has fetched yet, `act(verb, job)` by a row's button. */
export class JobList {
  #list = [];
  #count = 0;
  #selected = null;
  #queued = false;

  constructor(into, { may, act, needMore }) {
    this.into = into;
    this.may = may;
    this.act = act;
    this.needMore = needMore;
    for (const event of ["scroll", "resize"]) addEventListener(event, () => this.#later(), { passive: true });
  }

  /** `count` may be more than the list has yet. */
  show(list, count) {
    this.#list = list;
    this.#count = Math.max(count, list.length);
    this.#draw();
  }

  /** Go so many rows down, or up. */
  move(by) {
    const here = this.#list.findIndex((job) => job.id === this.#selected);
    const there = here < 0 ? 0 : Math.min(Math.max(0, here + by), this.#list.length - 1);
    if (!this.#list[there]) return;
    this.#selected = this.#list[there].id;
    this.#draw();
    const row = this.into.querySelector('[aria-selected="true"]');
    row?.scrollIntoView({ block: "nearest" });
    row?.querySelector("a")?.focus({ preventScroll: true });
  }

  #later() {
    if (this.#queued) return;
    this.#queued = true;
    requestAnimationFrame(() => {
      this.#queued = false;
      this.#draw();
    });
  }

  #draw() {
    const isEmpty = this.#count === 0;
    const unit = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const height = parseFloat(getComputedStyle(this.into).getPropertyValue("--row")) * unit || 40;
    draw(
      this.into,
      h(
        "div",
        { key: "head", role: "row", class: "row row-head", "aria-rowindex": 1 },
        COLUMNS.map((name) => h("span", { role: "columnheader" }, name || h("span", { class: "unseen" }, "Action"))),
      ),
      h("div", {
        key: "body",
        role: "rowgroup",
        class: "rows",
        own: true,
        style: { height: `${isEmpty ? 0 : this.#count * height}px` },
      }),
      isEmpty &&
        h("p", { key: "empty", class: "empty" }, "No job is like that. Esc in the search field shows all again."),
    );
    this.into.setAttribute("aria-rowcount", this.#count + 1);
    const body = this.into.querySelector(".rows");
    const first = Math.max(0, Math.floor(-body.getBoundingClientRect().top / height) - BEYOND);
    const last = Math.min(this.#count, first + Math.ceil(innerHeight / height) + 2 * BEYOND);
    const places = Array.from({ length: Math.max(0, last - first) }, (_, number) => first + number);
    const chosen = this.#list.findIndex((job) => job.id === this.#selected);
    if (chosen >= 0 && (chosen < first || chosen >= last)) places.push(chosen);
    draw(
      body,
      places.map((place) => this.#row(this.#list[place], place, height)),
    );
    if (last > this.#list.length) this.needMore();
  }

  #row(job, place, height) {
    const style = { transform: `translateY(${place * height}px)` };
    if (!job)
      return h(
        "div",
        { key: `missing${place}`, role: "row", class: "row is-missing", "aria-rowindex": place + 2, style },
        h("span", { role: "cell" }, "…"),
      );
    const isSelected = job.id === this.#selected;
    return h(
      "div",
      {
        key: job.id,
        role: "row",
        class: `row is-${job.status}`,
        "aria-rowindex": place + 2,
        "aria-selected": isSelected ? "true" : null,
        style,
        onclick: (event) => {
          if (!event.target.closest("a, button")) go({ job: job.id });
        },
      },
      this.#cells(job).map((cell, number) => h("span", { role: "cell", class: `cell-${number}` }, cell)),
    );
  }

  #cells(job) {
    const note = job.error ?? job.reason ?? (job.exit_code ? `exit code ${job.exit_code}` : "");
    return [
      state(job.status),
      [
        h(
          "a",
          {
            href: address({ job: job.id }),
            onfocus: () => {
              this.#selected = job.id;
            },
            title: job.name,
          },
          job.name ?? job.id,
        ),
        job.name && h("small", { class: "muted", title: job.id }, job.id),
      ],
      job.user ?? "",
      job.gpus?.length ? job.gpus.join(", ") : "",
      job.url ? webLink(job.url) : (job.port ?? ""),
      ...[job.created_at, job.started_at, job.ended_at].map(
        (at) => at != null && h("time", { title: `${exactly(at)}, ${ago(at)}` }, when(at)),
      ),
      h("span", { class: "nums" }, tookOf(job)),
      h("span", { class: "note", title: note }, job.place && job.status === "queued" ? `№ ${job.place}  ` : "", note),
      this.#button(job),
    ];
  }

  #button(job) {
    const verb = job.status === "completed" ? null : verbFor(job);
    if (!verb || !this.may()[verb]) return null;
    return h(
      "button",
      {
        type: "button",
        class: "quiet",
        "aria-label": `${verb} ${job.name ?? job.id}`,
        onclick: () => this.act(verb, job),
      },
      verb === "cancel" ? "Cancel" : "Retry",
    );
  }
}

function tookOf(job) {
  if (job.started_at) return job.ended_at ? duration(job.ended_at - job.started_at) : lasting(job.started_at);
  return job.ended_at ? "" : `waits ${lasting(job.created_at)}`;
}
