// What only an admin sees: who uses the machine, and the nodes.

import { draw, h } from "./dom.js";
import { ago, exactly, number, when } from "./format.js";
import { address } from "./route.js";

export function drawUsers(into, users) {
  draw(into, h("div", { class: "head" }, h("h2", null, "Users"), h("p", null, users ? String(users.length) : "…")),
    users && table(["User", "Role", "Since", "Active jobs", "Jobs", "GPU hours", "Last seen"], users.map((user) => [user.user,
      h("a", { href: address({ view: "", q: `user:${user.user}` }) }, user.user), user.is_admin ? "admin" : "user",
      h("time", { title: exactly(user.created_at) }, when(user.created_at)), number(user.active), number(user.total), number(user.gpu_hours), h("time", { title: exactly(user.last_seen) }, ago(user.last_seen))])));
}

export function drawNodes(into, nodes) {
  draw(into, h("div", { class: "head" }, h("h2", null, "Nodes"), h("p", null, String(nodes.length))),
    table(["Node", "State", "GPUs", "Running", "Queued"], nodes.map((node) => [node.name, node.name, node.state, number(node.gpus), number(node.running), number(node.queued)])));
}

/** Rows are [key, cell, cell, …]. */
const table = (columns, rows) => h("div", { class: "scrolls" }, h("table", null,
  h("thead", null, h("tr", null, columns.map((name) => h("th", { scope: "col" }, name)))),
  h("tbody", null, rows.map(([key, ...cells]) => h("tr", { key }, cells.map((cell) => h("td", null, cell)))))));
