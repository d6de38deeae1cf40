// A table of texts and nodes.

import { h } from "./dom.js";

/** Rows are [key, cell, cell, …]. It scrolls in itself where there is little room. */
export function table(label, columns, rows) {
  const head = columns.map((name) => h("th", { scope: "col" }, name));
  const body = rows.map(([key, ...cells]) =>
    h(
      "tr",
      { key },
      cells.map((cell) => h("td", null, cell)),
    ),
  );
  const inner = h("table", null, h("thead", null, h("tr", null, head)), h("tbody", null, body));
  return h("div", { class: "scrolls", tabindex: 0, role: "region", "aria-label": label }, inner);
}
