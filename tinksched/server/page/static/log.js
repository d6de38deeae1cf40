// A job's output as it grows: followed, searched, and never more of it kept than a browser bears.

import { draw, h } from "./dom.js";
import { request } from "./server.js";
import { events } from "./sse.js";

const MOST_CHARACTERS = 4_000_000;
const MOST_FOUND = 2000;
const RETRY_MS = 1000;
// What a terminal would take for colours and the like.
// eslint-disable-next-line no-control-regex
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])/g;

/** One log that is looked at. Ends with `close`. */
export class Log {
  #abort = new AbortController();
  #waiting = [];
  #size = 0;
  #isCut = false;
  #found = [];
  #at = -1;
  #follows = true;
  #term = "";
  #state = "Connecting …";

  constructor(into, id) {
    this.id = id;
    draw(
      into,
      h("div", {
        class: "log-tools",
        ref: (node) => {
          this.tools = node;
        },
      }),
      h("pre", {
        class: "log",
        tabindex: 0,
        role: "log",
        "aria-label": "Output",
        "aria-live": "off",
        ref: (node) => {
          this.pre = node;
        },
        onscroll: () => this.#scrolled(),
      }),
    );
    this.#drawTools();
    this.#run();
  }

  /** Read it anew: the job runs again. */
  again() {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#run();
  }

  close() {
    this.#abort.abort();
    CSS.highlights?.clear();
  }

  /** Whether the end of the log is kept in sight. */
  follow(isWanted = !this.#follows) {
    this.#follows = isWanted;
    if (isWanted) this.pre.scrollTop = this.pre.scrollHeight;
    this.#drawTools();
  }

  /** Put the cursor into the search field. */
  search() {
    this.tools.querySelector("input").focus();
  }

  async #run() {
    const { signal } = this.#abort;
    let last = null;
    while (!signal.aborted) {
      try {
        const response = await request(`jobs/${encodeURIComponent(this.id)}/log`, {
          signal,
          headers: last ? { "Last-Event-ID": last } : {},
        });
        this.#say("Live");
        let isAnew = last === null;
        for await (const { event, id, data } of events(response)) {
          if (isAnew && event) this.#clear();
          isAnew = false;
          last = id ?? last;
          if (event === "end") return void this.#say("Ended");
          if (event) this.#take(event, data);
        }
        last = null; // the job runs again, or the server has stopped: from the beginning, then
      } catch (error) {
        if (signal.aborted) return;
        if (error.status >= 400 && error.status < 500) return void this.#say(error.message);
      }
      this.#say("Away; tries again");
      await new Promise((done) => setTimeout(done, RETRY_MS));
    }
  }

  #clear() {
    this.#waiting = [];
    this.#size = 0;
    this.pre.replaceChildren();
  }

  #take(kind, text) {
    if (!this.#waiting.length) requestAnimationFrame(() => this.#append());
    this.#waiting.push([kind, text.replace(ESCAPES, "")]);
  }

  #append() {
    const fresh = document.createDocumentFragment();
    for (const [kind, text] of this.#waiting) {
      const part = document.createElement("span");
      part.className = `from-${kind}`;
      part.textContent = text;
      this.#size += text.length;
      fresh.append(part);
    }
    this.#waiting = [];
    this.pre.append(fresh);
    while (this.#size > MOST_CHARACTERS && this.pre.childNodes.length > 1) {
      this.#size -= this.pre.firstChild.textContent.length;
      this.pre.firstChild.remove();
      this.#isCut = true;
    }
    if (this.#follows) this.pre.scrollTop = this.pre.scrollHeight;
    if (this.#term) this.#find();
    if (this.#isCut) this.#drawTools();
  }

  #scrolled() {
    const isAtEnd = this.pre.scrollHeight - this.pre.scrollTop - this.pre.clientHeight < 30;
    if (isAtEnd !== this.#follows) {
      this.#follows = isAtEnd;
      this.#drawTools();
    }
  }

  #say(text) {
    this.#state = text;
    this.#drawTools();
  }

  #drawTools() {
    const isSearched = this.#term !== "";
    draw(
      this.tools,
      h(
        "label",
        { class: "search" },
        h("span", { class: "unseen" }, "Search the log"),
        h("input", {
          type: "search",
          placeholder: "Search the log",
          oninput: (event) => this.#searchFor(event.target.value),
          onkeydown: (event) => this.#keyed(event),
        }),
      ),
      isSearched &&
        h(
          "span",
          { key: "found", class: "muted nums", role: "status" },
          this.#found.length
            ? `${this.#at + 1} of ${this.#found.length}${this.#found.length === MOST_FOUND ? "+" : ""}`
            : "not found",
        ),
      isSearched &&
        h(
          "button",
          { key: "before", type: "button", "aria-label": "Previous match", onclick: () => this.#step(-1) },
          "↑",
        ),
      isSearched &&
        h("button", { key: "after", type: "button", "aria-label": "Next match", onclick: () => this.#step(1) }, "↓"),
      h(
        "span",
        { key: "state", class: "muted log-state", role: "status" },
        this.#isCut ? `${this.#state}; the beginning is left out` : this.#state,
      ),
      h(
        "button",
        { key: "follow", type: "button", "aria-pressed": String(this.#follows), onclick: () => this.follow() },
        "Follow",
      ),
    );
  }

  #keyed(event) {
    if (event.key === "Enter") this.#step(event.shiftKey ? -1 : 1);
    if (event.key === "Escape" && event.target.value) {
      event.preventDefault();
      event.stopPropagation();
      event.target.value = "";
      this.#searchFor("");
    }
  }

  #searchFor(text) {
    this.#term = text.toLowerCase();
    this.#at = -1;
    this.#find();
    this.#step(1);
  }

  /** The ranges that have the term. They are painted over the text, which stays as it is. */
  #find() {
    this.#found = [];
    const walker = document.createTreeWalker(this.pre, NodeFilter.SHOW_TEXT);
    while (this.#term && this.#found.length < MOST_FOUND && walker.nextNode()) {
      const text = walker.currentNode.data.toLowerCase();
      for (
        let at = text.indexOf(this.#term);
        at >= 0 && this.#found.length < MOST_FOUND;
        at = text.indexOf(this.#term, at + this.#term.length)
      ) {
        const range = new Range();
        range.setStart(walker.currentNode, at);
        range.setEnd(walker.currentNode, Math.min(at + this.#term.length, walker.currentNode.length));
        this.#found.push(range);
      }
    }
    if (typeof Highlight === "function") CSS.highlights.set("found", new Highlight(...this.#found));
    this.#drawTools();
  }

  #step(by) {
    if (!this.#found.length) return;
    this.#at = (this.#at + by + this.#found.length) % this.#found.length;
    const range = this.#found[this.#at];
    if (typeof Highlight === "function") CSS.highlights.set("here", new Highlight(range));
    this.#follows = false;
    this.pre.scrollTop +=
      range.getBoundingClientRect().top - this.pre.getBoundingClientRect().top - this.pre.clientHeight / 2;
    this.#drawTools();
  }
}
