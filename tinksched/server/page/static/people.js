// What only an admin sees: who uses the machine, and the nodes.

import { draw, h } from "./dom.js";
import { ago, exactly, number, when } from "./format.js";
import { address } from "./route.js";
import { table } from "./table.js";

const USERS = ["User", "Role", "Since", "Active jobs", "Jobs", "GPU hours", "Last seen"];
const NODES = ["Node", "State", "GPUs", "Running", "Queued"];

export function drawUsers(into, users) {
  draw(into, head("Users", users.length), table("Users", USERS, users.map(rowOf)));
}

function rowOf(user) {
  const link = h("a", { href: address({ view: "", q: `user:${user.user}` }) }, user.user);
  const since = h("time", { title: exactly(user.created_at) }, when(user.created_at));
  const seen = h("time", { title: exactly(user.last_seen) }, ago(user.last_seen));
  const numbers = [user.active, user.total, user.gpu_hours].map(number);
  return [user.user, link, user.is_admin ? "admin" : "user", since, ...numbers, seen];
}

export function drawNodes(into, nodes) {
  const rows = nodes.map(({ name, state, gpus, running, queued }) => [
    name,
    name,
    state,
    ...[gpus, running, queued].map(number),
  ]);
  draw(into, head("Nodes", nodes.length), table("Nodes", NODES, rows));
}

const head = (text, count) => h("div", { class: "head" }, h("h2", null, text), h("p", null, String(count)));
