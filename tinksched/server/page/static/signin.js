// What somebody sees who isn't signed in, or not any more.

import { keyField } from "./dialogs.js";
import { draw, h } from "./dom.js";
import { keepKey, key } from "./server.js";

/** `error` is what the server said; `isByUrl`: no key is asked for here; `begin` is called with a key that is kept. */
export function drawSignIn(into, { error, isByUrl, begin }) {
  const isRefused = Boolean(error && key() && !isByUrl);
  const signIn = (event) => {
    event.preventDefault();
    keepKey(new FormData(event.target).get("key").trim());
    begin();
  };
  draw(into);
  draw(
    into,
    h(
      "form",
      { onsubmit: signIn },
      h("h2", null, isRefused ? "The server refuses this key" : "Sign in"),
      (isRefused || isByUrl || error?.status === 403) &&
        h("p", { class: "trouble", role: "alert" }, `The server says: ${error.message}`),
      isByUrl ? byUrl() : byKey(isRefused),
    ),
  );
  into.querySelector("input")?.focus();
}

function byUrl() {
  const command = h("code", null, "tinksched dashboard");
  return h("p", null, "Open the URL that ", command, " printed. It works once; there it has printed the next one.");
}

function byKey(isRefused) {
  const where = isRefused ? "It is wrong, was withdrawn, or has expired. Get a new one with " : "You get a key with ";
  const ways = [
    h("code", null, "tinksched register"),
    ", or from the server's admin: ",
    h("code", null, "tinksched token create NAME --generate"),
  ];
  return [
    keyField(),
    h("p", { class: "muted" }, where, ways, "."),
    h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Sign in")),
  ];
}
