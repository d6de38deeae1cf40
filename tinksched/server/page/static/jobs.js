// The list of jobs. Only the rows that are in sight exist, so that 5,000 jobs cost what 50 do.

import { draw, h, webLink } from "./dom.js";
import { duration, exactly, lasting, serverTime, when } from "./format.js";
import { address, go } from "./route.js";
import { ACTIVE, state, verbFor } from "./signs.js";

const BEYOND = 8; // rows above and below what is in sight
const FIRST_ROWS = 10; // before anybody knows how many are in sight
const COLUMNS = ["State", "Job", "User", "GPUs", "Port, URL", "Created", "Started", "Ended", "Took", "Note", ""];

/** `needMore` is called when rows are in sight that nobody has fetched yet, `act(verb, job)` by a row's button. */
export class JobList {
  #list = [];
  #count = 0;
  #range = [0, FIRST_ROWS];
  #selected = null;
  #isAwaited = false;
  #rows = new WeakMap(); // job → its row as it was drawn last

  constructor(into, { may, act, needMore }) {
    this.into = into;
    this.may = may;
    this.act = act;
    this.needMore = needMore;
    for (const event of ["scroll", "resize"]) addEventListener(event, () => this.#look(), { passive: true });
  }

  /** `count` may be more than the list has yet. */
  show(list, count) {
    this.#list = list;
    this.#count = Math.max(count, list.length);
    this.#draw();
    this.#look();
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

  /** See which rows are in sight, once the frame is painted: to ask before would lay the page out twice. */
  #look() {
    if (this.#isAwaited) return;
    this.#isAwaited = true;
    requestAnimationFrame(() =>
      setTimeout(() => {
        this.#isAwaited = false;
        const range = this.#inSight();
        if (String(range) === String(this.#range)) return;
        this.#range = range;
        this.#draw();
      }),
    );
  }

  #inSight() {
    const body = this.into.querySelector(".rows");
    const height = body?.firstElementChild?.offsetHeight;
    if (!height) return this.#range;
    const first = Math.max(0, Math.floor(-body.getBoundingClientRect().top / height) - BEYOND);
    return [first, first + Math.ceil(innerHeight / height) + 2 * BEYOND];
  }

  #draw() {
    const head = COLUMNS.map((name) =>
      h("span", { role: "columnheader" }, name || h("span", { class: "unseen" }, "Action")),
    );
    draw(
      this.into,
      h("div", { key: "head", role: "row", class: "row row-head", "aria-rowindex": 1 }, head),
      h("div", {
        key: "body",
        role: "rowgroup",
        class: "rows",
        own: true,
        style: { height: `calc(var(--row) * ${this.#count})` },
      }),
      this.#count === 0 &&
        h("p", { key: "empty", class: "empty" }, "No job is like that. Esc in the search field shows all again."),
    );
    this.into.setAttribute("aria-rowcount", this.#count + 1);
    const last = Math.min(this.#count, this.#range[1]);
    const first = Math.min(this.#range[0], last);
    const places = Array.from({ length: last - first }, (_, number) => first + number);
    const chosen = this.#list.findIndex((job) => job.id === this.#selected);
    if (chosen >= 0 && (chosen < first || chosen >= last)) places.push(chosen);
    draw(
      this.into.querySelector(".rows"),
      places.map((place) => this.#row(this.#list[place], place)),
    );
    if (last > this.#list.length) this.needMore();
  }

  /** A row that would look the same is the same: nothing of it is made or compared again. */
  #row(job, place) {
    if (!job) return this.#rowOf({ key: `missing${place}`, class: "row is-missing" }, place, ["…"]);
    const looks = [
      place,
      job.id === this.#selected,
      Math.floor(serverTime() / (ACTIVE.has(job.status) ? 60 : 86400)),
    ].join();
    const kept = this.#rows.get(job);
    if (kept?.looks === looks) return kept.row;
    const props = {
      key: job.id,
      class: `row is-${job.status}`,
      "aria-selected": job.id === this.#selected ? "true" : null,
      onclick: (event) => {
        if (!event.target.closest("a, button")) go({ job: job.id });
      },
    };
    const row = this.#rowOf(props, place, this.#cells(job));
    this.#rows.set(job, { looks, row });
    return row;
  }

  #rowOf(props, place, cells) {
    const style = { transform: `translateY(calc(var(--row) * ${place}))` };
    const spans = cells.map((cell, number) => h("span", { role: "cell", class: `cell-${number}` }, cell));
    return h("div", { ...props, role: "row", "aria-rowindex": place + 2, style }, spans);
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
        (at) => at != null && h("time", { title: exactly(at) }, when(at)),
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
