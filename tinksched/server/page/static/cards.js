// How many jobs are in each state; pressed, a card leaves only these in the list.

import { draw, h } from "./dom.js";
import { grouped } from "./format.js";
import { go } from "./route.js";
import { sign, WORDS } from "./signs.js";

const STATES = ["total", "running", "queued", "completed", "cancelled", "failed"];

export function drawCards(into, counts, chosen) {
  draw(
    into,
    STATES.map((name) => {
      const isChosen = name === (chosen || "total");
      return h(
        "button",
        {
          key: name,
          type: "button",
          class: `card is-${name}${counts[name] ? "" : " is-none"}`,
          "aria-pressed": String(isChosen),
          onclick: () => go({ status: isChosen || name === "total" ? "" : name, view: "" }),
        },
        h("span", { class: "card-count" }, grouped(counts[name])),
        h("span", { class: "card-word" }, sign(name), WORDS[name]),
      );
    }),
  );
}
