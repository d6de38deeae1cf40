// The small dialogs: settings, a question before something is done, and what the keys do.

import { draw, h } from "./dom.js";
import { keepKey, keepServer, key, server } from "./server.js";

const KEYS = [
  ["/", "search jobs; in a job, search its log"],
  ["j  k", "next, previous job"],
  ["Enter", "open the job"],
  ["Esc", "close, or show all jobs again"],
  ["f", "in a job: follow the log"],
  ["r", "ask the server again"],
  ["?", "this help"],
];

/** The field for a key, as it stands in Settings and where one signs in. */
export const keyField = () =>
  h(
    "label",
    { class: "field" },
    "API Key",
    h("input", {
      name: "key",
      type: "password",
      autocomplete: "off",
      spellcheck: "false",
      value: key(),
      placeholder: "otk_… or a queue token",
    }),
  );

/** The settings; `saved` is called when they have changed. `hasServer`: the server's address may be changed. */
export function openSettings(dialog, { hasServer, saved }) {
  const keep = (event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    if (hasServer && !/^https?:\/\/[^/]/i.test(given.get("server").trim()))
      return void event.target.elements.server.focus();
    const isMoved = hasServer && given.get("server").trim().replace(/\/+$/, "") !== server();
    keepKey(given.get("key").trim());
    if (isMoved) keepServer(given.get("server").trim());
    dialog.close();
    saved();
  };
  draw(dialog);
  draw(
    dialog,
    h(
      "form",
      { onsubmit: keep },
      h("h2", { id: "settings-title" }, "Settings"),
      keyField(),
      h(
        "p",
        { class: "muted" },
        "Kept in this browser only, and sent only to the server. Empty the field to sign out.",
      ),
      hasServer &&
        h(
          "label",
          { class: "field" },
          "Server",
          h("input", { name: "server", type: "url", required: true, value: server() }),
        ),
      hasServer &&
        h("p", { class: "muted" }, "Another server needs another key: this one is forgotten when the address changes."),
      h(
        "div",
        { class: "buttons" },
        h("button", { type: "button", onclick: () => dialog.close() }, "Close"),
        h("button", { type: "submit", class: "primary" }, "Save"),
      ),
    ),
  );
  dialog.showModal();
}

const QUESTIONS = {
  cancel: {
    title: "Cancel this job?",
    yes: "Cancel job",
    no: "Let it run",
    more: "Its processes are stopped and its GPUs go to the next one. What it has written stays.",
  },
  retry: {
    title: "Run this job again?",
    yes: "Retry",
    no: "Not now",
    more: "It goes back into the queue, with the same code and config.",
  },
};

/** Ask before a job is cancelled or retried; true if it is to be. */
export function confirmed(dialog, verb, job) {
  const { title, yes, no, more } = QUESTIONS[verb];
  return new Promise((answer) => {
    dialog.returnValue = "";
    dialog.onclose = () => answer(dialog.returnValue === "yes");
    draw(dialog);
    draw(
      dialog,
      h(
        "form",
        { method: "dialog" },
        h("h2", { id: "confirm-title" }, title),
        h("p", { class: "named" }, job.name ?? job.id),
        h("p", { class: "muted" }, more),
        h(
          "div",
          { class: "buttons" },
          h("button", { value: "no", autofocus: true }, no),
          h("button", { value: "yes", class: verb === "cancel" ? "danger" : "primary" }, yes),
        ),
      ),
    );
    dialog.showModal();
  });
}

export function openHelp(dialog) {
  draw(
    dialog,
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "help-title" }, "Keyboard"),
      h(
        "dl",
        { class: "keys" },
        KEYS.map(([name, does]) => h("div", { key: name }, h("dt", null, h("kbd", null, name)), h("dd", null, does))),
      ),
      h(
        "p",
        { class: "muted" },
        "Search: words that all must be there, or gpu:3, user:anna, port:38001, name:…, id:…, url:…",
      ),
      h("div", { class: "buttons" }, h("button", { value: "ok" }, "Close")),
    ),
  );
  dialog.showModal();
}
