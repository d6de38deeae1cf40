// A page as a tree of plain values, and the least that has to change in the document to show it.
// Everything is set as text or as an attribute; nothing is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";
const drawn = new WeakMap(); // parent → the nodes that `draw` gave it
const AS_PROPERTY = new Set(["value", "checked", "open", "disabled", "hidden"]);

/** A node to be: `h("a", {href, onclick, key}, "text", h(…))`. What is null or false is left out. */
export function h(tag, props, ...children) {
  const known = props ?? {};
  return { tag, props: known, key: known.key, children: listed(children) };
}

function listed(children) {
  return children
    .flat(Infinity)
    .filter((child) => child != null && child !== false && child !== true)
    .map((child) =>
      typeof child === "object" ? child : { tag: "#text", text: String(child), props: {}, children: [] },
    );
}

/** Make these the children of an element; nodes that are still wanted stay, with their focus and scroll position. */
export function draw(parent, ...children) {
  const before = drawn.get(parent) ?? [];
  const after = listed(children);
  drawn.set(parent, after);
  const names = namesOf(before);
  const left = new Map(before.map((old, place) => [names[place], old]));
  const wanted = namesOf(after);
  after.forEach((fresh, place) => {
    const old = left.get(wanted[place]);
    left.delete(wanted[place]);
    fresh.node = old ? update(old, fresh) : create(fresh, parent);
  });
  for (const old of left.values()) old.node.remove();
  after.forEach((fresh, place) => {
    const here = parent.childNodes[place];
    if (here !== fresh.node) parent.insertBefore(fresh.node, here ?? null);
  });
}

function namesOf(nodes) {
  const seen = {};
  return nodes.map(({ tag, key }) =>
    key === undefined ? `${tag}#${(seen[tag] = (seen[tag] ?? 0) + 1)}` : `${tag}=${key}`,
  );
}

function create(fresh, parent) {
  if (fresh.tag === "#text") return document.createTextNode(fresh.text);
  const isSvg = fresh.tag === "svg" || (parent.namespaceURI === SVG && parent.tagName !== "foreignObject");
  const node = isSvg ? document.createElementNS(SVG, fresh.tag) : document.createElement(fresh.tag);
  for (const name in fresh.props) set(node, name, fresh.props[name]);
  if (fresh.children.length) draw(node, fresh.children);
  fresh.props.ref?.(node);
  return node;
}

function update(old, fresh) {
  const { node } = old;
  if (old === fresh) return node; // kept by its maker: nothing has changed
  if (fresh.tag === "#text") {
    if (old.text !== fresh.text) node.data = fresh.text;
    return node;
  }
  for (const name in old.props) if (!(name in fresh.props)) set(node, name, null);
  for (const name in fresh.props) if (old.props[name] !== fresh.props[name]) set(node, name, fresh.props[name]);
  if (!fresh.props.own) draw(node, fresh.children); // `own`: its children are somebody else's work
  return node;
}

function set(node, name, value) {
  if (name === "key" || name === "ref" || name === "own") return;
  if (name === "style") {
    for (const property in value) node.style.setProperty(property, value[property]);
  } else if (name.startsWith("on")) {
    node[name] = value; // a function of ours
  } else if (AS_PROPERTY.has(name) && node.namespaceURI !== SVG) {
    node[name] = value ?? "";
  } else if (value == null || value === false) {
    node.removeAttribute(name);
  } else {
    node.setAttribute(name, value === true ? "" : value);
  }
}

/** A link to an address that a job gave, if that is one of the web; else the text alone. */
export function webLink(address) {
  if (!/^https?:\/\//i.test(address)) return address;
  return h("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, address.replace(/^https?:\/\//i, ""));
}

/** The element with this id. */
export const byId = (id) => document.getElementById(id);
