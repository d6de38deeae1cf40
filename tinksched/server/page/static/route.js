// What is looked at, kept in the part of the URL behind "#": it survives a reload and can be sent to somebody, and no
// server and no log ever sees it.

const DEFAULTS = { view: "gpus", status: "", q: "", span: "24", job: "" };

/** What the URL says now. */
export function route() {
  const given = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(Object.entries(DEFAULTS).map(([name, usual]) => [name, given.get(name) ?? usual]));
}

/** The URL's end for the route with these changes. */
export function address(changes) {
  const wanted = { ...route(), ...changes };
  const parts = Object.entries(wanted).filter(([name, value]) => value && value !== DEFAULTS[name]);
  return `#${new URLSearchParams(parts)}`;
}

/** Go there: a job that is opened can be left with "back"; a filter only replaces the address. */
export function go(changes) {
  const target = address(changes);
  if (target === (location.hash || "#")) return;
  const isOpening = changes.job && changes.job !== route().job;
  history[isOpening ? "pushState" : "replaceState"](null, "", target);
  dispatchEvent(new Event("routed"));
}

/** Call back whenever the route is another. */
export function onRoute(heard) {
  addEventListener("routed", heard);
  addEventListener("popstate", heard);
}
